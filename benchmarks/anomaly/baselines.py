"""What needs no library: median/MAD per sensor and hour, rolling z over seven days, and chance."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from smartgrid_pyfunc.evaluation.detection import fit_median_baseline

_LEAST = 12  # readings before a rolling z-score is more than noise
_LEVEL_SHARE = 1e-3  # a sensor is never taken to be steadier than that


def create(options: dict[str, Any]) -> Any:
    return {"median": Median, "rolling": Rolling, "random": Random}[options["baseline"]]()


class _Baseline:
    """Flags what scores above the nominal share's quantile of the training scores."""

    packages = ("pandas", "numpy")

    def flags(self, rate: float) -> np.ndarray:
        return np.asarray(self._scores > np.nanquantile(self._train_scores, 1.0 - rate))


class Median(_Baseline):
    def fit(self, train: pd.DataFrame, timezone: str) -> None:
        self._baseline = fit_median_baseline(train, timezone=timezone)
        self._train_scores = self._baseline.score(train)

    def score(self, readings: pd.DataFrame, asked: np.ndarray) -> np.ndarray:
        self._scores = self._baseline.score(readings[asked])
        return self._scores


class Rolling(_Baseline):
    """Distance to the mean of the seven days before a reading, in their standard deviations."""

    def fit(self, train: pd.DataFrame, timezone: str) -> None:
        self._train_scores = _rolling(train)

    def score(self, readings: pd.DataFrame, asked: np.ndarray) -> np.ndarray:
        self._scores = _rolling(readings)[asked]
        return self._scores


def _rolling(readings: pd.DataFrame) -> np.ndarray:
    frame = readings[["sensor_id", "timestamp", "value"]].reset_index(drop=True)
    frame = frame.sort_values(["sensor_id", "timestamp"], kind="stable")
    scores = np.zeros(len(frame))
    for _, rows in frame.groupby("sensor_id", sort=False):
        series = pd.Series(rows["value"].to_numpy(), index=pd.DatetimeIndex(rows["timestamp"]))
        window = series.rolling("7D", closed="left", min_periods=_LEAST)
        floor = max(_LEVEL_SHARE * float(series.abs().median()), 1e-9)
        z = (series - window.mean()).abs() / window.std().clip(lower=floor)
        scores[rows.index.to_numpy()] = z.fillna(0.0).to_numpy()
    return scores


class Random(_Baseline):
    packages = ("numpy",)

    def fit(self, train: pd.DataFrame, timezone: str) -> None:
        self._train_scores = np.random.default_rng(1).random(len(train))

    def score(self, readings: pd.DataFrame, asked: np.ndarray) -> np.ndarray:
        self._scores = np.random.default_rng(2).random(int(asked.sum()))
        return self._scores
