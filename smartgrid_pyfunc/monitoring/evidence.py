"""What the monitored version is, and what it was worth when it was promoted."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pandas as pd

from smartgrid_pyfunc.lifecycle import versions
from smartgrid_pyfunc.lifecycle.errors import LifecycleError
from smartgrid_pyfunc.lifecycle.server import bounded_wait, plain_errors
from smartgrid_pyfunc.lifecycle.versions import Named
from smartgrid_pyfunc.monitoring.accuracy import NO_REFERENCE, Reference

_TEST = {"mae": "test_mae", "naive_mae": "naive_mae", "rmse": "test_rmse", "bias": "test_bias"}
_BUDGET = 0.01  # the model's own default


@dataclass(frozen=True)
class Watched:
    """The version that is watched.

    Attributes
    ----------
    named : Named
    metrics : dict
        Of its training run.
    reference : Reference
        Of its own test; `NO_REFERENCE` if the run does not tell.
    """

    named: Named
    metrics: dict[str, float]
    reference: Reference

    @property
    def budget(self) -> float:
        """Share of normal readings that a detector may flag."""
        return self.metrics.get("false_alarm_rate", _BUDGET)

    @property
    def tested_rate(self) -> float:
        """Share of readings that a detector flagged in its test; NaN if unknown."""
        return self.metrics.get("test_flagged_share", math.nan)


def watched_version(model: str) -> Watched:
    """Return the version that `model` names: a registered name stands for its version in Production.

    Raises
    ------
    LifecycleError
        If there is none.
    """
    named = versions.find(model, None if ":/" in model else "Production")
    if not named.run_id:
        return Watched(named, {}, NO_REFERENCE)
    with bounded_wait(), plain_errors(f"read the run of {named.uri}"):
        metrics = dict(mlflow.get_run(named.run_id).data.metrics)
    return Watched(named, metrics, _promotion(named.run_id, metrics))


def _promotion(run_id: str, metrics: dict[str, float]) -> Reference:
    table = _by_sensor(run_id)
    if table is None:
        return NO_REFERENCE
    overall = {name: metrics[logged] for name, logged in _TEST.items() if logged in metrics}
    covered = [value for name, value in metrics.items() if name.startswith("test_coverage")]
    if covered:
        overall["coverage"] = covered[0]
    return Reference("promotion", overall, table)


def _by_sensor(run_id: str) -> pd.DataFrame | None:
    try:
        with bounded_wait(), plain_errors("read the table by sensor"):
            path = mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path="tables/by_sensor.csv")
            text = Path(path).read_text(encoding="utf-8")
    except LifecycleError:
        return None
    table = pd.read_csv(io.StringIO(text), dtype={"sensor_id": "str"})
    if not {"sensor_id", "mae", "naive_mae"} <= set(table.columns):
        return None
    return table.set_index("sensor_id")[["mae", "naive_mae"]]
