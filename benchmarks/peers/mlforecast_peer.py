"""mlforecast: one global recursive model, each series scaled by itself, its state updated day by day."""

from __future__ import annotations

from typing import Any

import pandas as pd
from mlforecast import MLForecast
from mlforecast.lag_transforms import RollingMean, RollingStd
from mlforecast.target_transforms import Differences, LocalStandardScaler

from peers.estimators import LAGS, make
from peers.task import Task

_NAMES = {"sensor_id": "unique_id", "timestamp": "ds", "avg_value": "y"}
_KEPT_HOURS = 24 * 40


def create(options: dict[str, Any]) -> MLForecastPeer:
    return MLForecastPeer(options)


class MLForecastPeer:
    packages = ("mlforecast", "lightgbm", "scikit-learn", "pandas", "numpy")

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = dict(options)
        self._differences = self._options.pop("differences", False)

    def fit(self, task: Task) -> None:
        rows = self._rows(task, task.before(task.grid, 0))
        self._forecaster = MLForecast(
            models={"predicted": make(rows=len(rows), **self._options)},
            freq="h",
            lags=LAGS,
            lag_transforms={1: [RollingMean(24), RollingStd(24), RollingMean(168)], 24: [RollingMean(168)]},
            target_transforms=[*([Differences([24])] if self._differences else []), LocalStandardScaler()],
        )
        static = ["series"] if len(task.starts) > 1 else []
        self._forecaster.fit(rows, static_features=static, keep_last_n=_KEPT_HOURS)

    def forecast(self, task: Task, day: int) -> pd.DataFrame:
        rows = self._rows(task, task.during(task.grid, day))
        answer = self._forecaster.predict(24, X_df=rows.drop(columns=["y", "series"], errors="ignore"))
        self._forecaster.update(rows[["unique_id", "ds", "y"]])
        return answer.rename(columns={"unique_id": "sensor_id", "ds": "timestamp"})

    @staticmethod
    def _rows(task: Task, grid: pd.DataFrame) -> pd.DataFrame:
        rows = grid.rename(columns=_NAMES)
        if len(task.starts) > 1:
            rows = rows.assign(series=rows["unique_id"].map({s: i for i, s in enumerate(task.starts.index)}))
        return rows
