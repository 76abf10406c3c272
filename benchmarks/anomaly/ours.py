"""AnomalyDetectionModel of this repository, through its public `fit` and `predict`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from smartgrid_pyfunc.models.anomaly_detection import AnomalyDetectionModel


def create(options: dict[str, Any]) -> Ours:
    return Ours(options)


class Ours:
    packages = ("scikit-learn", "pandas", "numpy")

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options

    def fit(self, train: pd.DataFrame, timezone: str) -> None:
        self._model = AnomalyDetectionModel(timezone=timezone, **self._options).fit(train)

    def score(self, readings: pd.DataFrame, asked: np.ndarray) -> np.ndarray:
        answer = self._model.predict(None, readings)[asked]
        self._p = pd.to_numeric(answer["p_value"]).to_numpy(dtype=float)
        self._flagged = answer["is_anomaly"].to_numpy(dtype=bool)
        self._alarm_rate = self._model.params.alarm_rate
        # A reading without a value has no score and is flagged: it stands above all.
        return pd.to_numeric(answer["anomaly_score"]).fillna(np.inf).to_numpy(dtype=float)

    def flags(self, rate: float) -> np.ndarray:
        if rate == self._alarm_rate:
            return self._flagged
        return np.isnan(self._p) | (self._p <= rate)

    def p_values(self) -> np.ndarray:
        return self._p
