"""What a training leaves for later comparisons: the answers of its evaluation, and how far its data reached.

A logged model is fitted on all data, so that its test can never be repeated with it. What the fit without the test days
answered there is kept beside it, and a later version may be held against it on the same days.
"""

from __future__ import annotations

import io
import tempfile

import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException

from smartgrid_pyfunc.lifecycle import runs
from smartgrid_pyfunc.lifecycle.server import bounded_wait, plain_errors
from smartgrid_pyfunc.schema import ANOMALY_MODEL, LOAD_MODEL

TAG_LEARNT_UNTIL = "smartgrid.learnt_until"

_PLACES = {LOAD_MODEL: "tables/test_forecasts.parquet", ANOMALY_MODEL: "tables/test_scores.parquet"}
_COLUMNS = ["sensor_id", "origin", "horizon", "timestamp", "actual", "predicted", "lower", "upper"]
_NAIVES = ["naive_24", "naive_168"]
_MOST_ROWS = 1_000_000


def record(model: str, answers: pd.DataFrame) -> None:
    """Log the test answers of a training to the active run, the last million rows of them.

    Parameters
    ----------
    model : str
        Registered name of the product.
    answers : DataFrame
        For load as `evaluation.backtest.backtest` makes them; for detectors keys, truth, ``score`` and ``flag``.
    """
    kept = answers[_COLUMNS + _NAIVES] if model == LOAD_MODEL else answers
    if len(kept) > _MOST_ROWS:
        kept = kept.sort_values("timestamp", kind="stable").tail(_MOST_ROWS)
    narrow = {name: np.float32 for name, kind in kept.dtypes.items() if kind == np.float64}
    buffer = io.BytesIO()
    kept.astype(narrow).to_parquet(buffer, index=False, compression="zstd")
    runs.log_bytes(_PLACES[model], buffer.getvalue())


def learnt_until(frame: pd.DataFrame) -> dict[str, str]:
    """Return the tag that says up to when a training knew the world."""
    return {TAG_LEARNT_UNTIL: frame["timestamp"].max().isoformat()}


def recorded(model: str, run_id: str) -> pd.DataFrame | None:
    """Return the test answers of a run; None if there are none (``store_history=false``, old trainings)."""
    place = _PLACES.get(model)
    if not run_id or place is None:
        return None
    what = f"read the test answers of run {run_id}"
    with bounded_wait(), plain_errors(what), tempfile.TemporaryDirectory() as folder:
        there = {entry.path for entry in mlflow.MlflowClient().list_artifacts(run_id, "tables")}
        if place not in there:
            return None
        path = mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=place, dst_path=folder)
        return pd.read_parquet(path)


def horizon_of_knowledge(run_id: str) -> pd.Timestamp | None:
    """Return the last instant of the data that a run's model learnt from; None if it is not recorded."""
    if not run_id:
        return None
    with bounded_wait(), plain_errors(f"read run {run_id}"):
        try:
            text = mlflow.get_run(run_id).data.tags.get(TAG_LEARNT_UNTIL, "")
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
    return pd.Timestamp(text) if text else None
