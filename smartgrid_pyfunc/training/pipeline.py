"""What follows the trainings in the main job: promotion of what passes, a forecast and the flagged readings."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from matplotlib.figure import Figure

from smartgrid_pyfunc import plots
from smartgrid_pyfunc.lifecycle import registry, runs
from smartgrid_pyfunc.lifecycle.errors import PromotionRefused
from smartgrid_pyfunc.lifecycle.promotion import Compare
from smartgrid_pyfunc.schema import InputError
from smartgrid_pyfunc.sources import load_hourly, load_readings
from smartgrid_pyfunc.training.outcome import Outcome

_FLAGGED_DAYS = 28  # of the latest readings, scored for the table and the picture

_log = logging.getLogger(__name__)


def require_writable(folder: Path) -> None:
    """Make `folder` and raise `InputError` unless files can be written into it: before the work, not after it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            "output must be a folder that can be written", found=str(folder), remedy=f"{error.strerror}; name another"
        ) from None


def promote_if_better(outcome: Outcome, compare: Compare | None = None) -> str:
    """Promote the version to Production if the gate lets it, and return a sentence on what happened.

    `compare` holds it against the version that is there, see `lifecycle.promotion.promote`.
    """
    try:
        promotion = registry.promote(outcome.model, version=outcome.version, compare=compare)
    except PromotionRefused as refusal:
        return f"Not promoted: {refusal}"
    return f"Promoted: {promotion.model} version {promotion.version} is now in {promotion.stage} ({promotion.alias})."


def write_forecast(outcome: Outcome, data: str, hours_ahead: int, folder: Path) -> list[Path]:
    """Forecast every stored sensor with the logged model; write table and picture, log them to the model's run."""
    _log.info("forecasting %d h of every sensor", hours_ahead)
    model = mlflow.pyfunc.load_model(outcome.uri)
    forecast = model.predict(pd.DataFrame({"sensor_id": ["all"]}), params={"hours_ahead": hours_ahead})
    figure = plots.forecast_fan(load_hourly(data).frame, forecast)
    return _write(outcome, folder, {"forecast.csv": forecast, "forecast.png": figure})


def write_flagged(outcome: Outcome, data: str, folder: Path) -> list[Path]:
    """Score the latest readings with the logged model; write the flagged ones and a picture, log them to the run."""
    readings = load_readings(data, hourly_as="power").frame
    recent = readings[readings["timestamp"] > readings["timestamp"].max() - pd.Timedelta(days=_FLAGGED_DAYS)]
    _log.info("scoring %d readings of the last %d days", len(recent), _FLAGGED_DAYS)
    answer = mlflow.pyfunc.load_model(outcome.uri).predict(recent)
    flagged = answer["is_anomaly"].to_numpy(dtype=bool)
    table = answer.assign(value=recent["value"].to_numpy())[flagged].drop(columns="is_anomaly")
    figure = plots.flagged_timeline(recent.reset_index(drop=True), flagged)
    return _write(outcome, folder, {"flagged_readings.csv": table, "flagged_readings.png": figure})


def _write(outcome: Outcome, folder: Path, contents: dict[str, Any]) -> list[Path]:
    """Write each content aside and move it into place when whole; log the same files to the run."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as aside:
        for name, content in contents.items():
            _writer(content)(Path(aside) / name)
        runs.log_folder(outcome.run_id, Path(aside), "output")
        for name in contents:
            os.replace(Path(aside) / name, folder / name)
    return [folder / name for name in contents]


def _writer(content: Any) -> Callable[[Path], Any]:
    if isinstance(content, Figure):
        return lambda path: content.savefig(path)
    return lambda path: content.to_csv(path, index=False)
