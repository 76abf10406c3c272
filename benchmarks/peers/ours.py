"""LoadForecastingModel of this repository, through `fit` and the rolling-origin backtest."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from peers.task import Task
from smartgrid_pyfunc.evaluation.backtest import backtest, midnight_origins
from smartgrid_pyfunc.features.panel import build_panel, parse_hourly
from smartgrid_pyfunc.models.load_forecasting import LoadForecastingModel


def create(options: dict[str, Any]) -> Ours:
    return Ours(options)


class Ours:
    packages = ("scikit-learn", "lightgbm", "pandas", "numpy")
    levels = (0.8, 0.9, 0.95)

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options

    def fit(self, task: Task) -> None:
        self._model = LoadForecastingModel(timezone=task.timezone, **self._options).fit(task.train)
        self._panel = build_panel(parse_hourly(task.frame))
        starts = task.starts.reindex(self._panel.sensor_ids).to_numpy().astype("datetime64[h]").astype("int64")
        self._start = self._panel.first_cell + starts - self._panel.first_hour

    def forecast(self, task: Task, day: int, level: float = 0.9) -> pd.DataFrame:
        first = self._start + day * 24
        origins = midnight_origins(self._panel, first, first + 23, "UTC")
        found = backtest(self._model, self._panel, origins, 24, level=level)
        found["timestamp"] = found["timestamp"].dt.tz_localize(None)
        return found[["sensor_id", "timestamp", "predicted", "lower", "upper"]]
