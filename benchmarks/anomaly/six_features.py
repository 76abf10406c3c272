"""The former system's six features, and how detectors for tables are fitted on them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd


class SixFeatures:
    """A detector for tables on value, hour of day, day of week, latitude, longitude and encoded type, each scaled.

    `scope` is ``sensor`` (a fit for each) or ``pooled`` (one fit for all). `make(features)` returns a
    fitted detector: an object with ``train_scores`` and ``score(features)``. As in scikit-learn and PyOD, the
    threshold at a nominal share is that share's quantile of the training scores.
    """

    def __init__(self, make: Any, packages: tuple[str, ...], scope: str = "pooled") -> None:
        self._make, self._scope, self.packages = make, scope, packages

    def fit(self, train: pd.DataFrame, timezone: str) -> None:
        self._timezone = timezone
        self._types = np.unique(train["sensor_type"].astype(str))
        self._fitted: dict[str, tuple[np.ndarray, np.ndarray, Any]] = {}
        for name, rows in self._groups(train):
            features = self._features(rows)
            centre, spread = features.mean(axis=0), features.std(axis=0)
            spread = np.where(spread > 0, spread, 1.0)
            self._fitted[name] = centre, spread, self._make((features - centre) / spread)

    def score(self, readings: pd.DataFrame, asked: np.ndarray) -> np.ndarray:
        rows = readings[asked].reset_index(drop=True)
        scores, self._where = np.full(len(rows), np.nan), {}
        for name, part in self._groups(rows):
            centre, spread, detector = self._fitted[name]
            at = part.index.to_numpy()
            scores[at] = detector.score((self._features(part) - centre) / spread)
            self._where[name] = at
        self._scores = scores
        return scores

    def flags(self, rate: float) -> np.ndarray:
        result = np.zeros(len(self._scores), dtype=bool)
        for name, at in self._where.items():
            threshold = np.quantile(self._fitted[name][2].train_scores, 1.0 - rate)
            result[at] = self._scores[at] > threshold
        return result

    def _groups(self, rows: pd.DataFrame) -> Any:
        return rows.groupby("sensor_id", sort=False) if self._scope == "sensor" else [("", rows)]

    def _features(self, rows: pd.DataFrame) -> np.ndarray:
        clock = pd.DatetimeIndex(rows["timestamp"]).tz_convert(self._timezone)
        places = [rows[name].fillna(0.0).to_numpy() for name in ("latitude", "longitude")]
        kind = np.searchsorted(self._types, rows["sensor_type"].to_numpy().astype(str))
        return np.column_stack([rows["value"].to_numpy(), clock.hour, clock.dayofweek, *places, kind]).astype(float)


class Detector:
    """A fitted detector: its scores of the training rows, and how it scores others."""

    def __init__(self, train_scores: np.ndarray, score: Any) -> None:
        self.train_scores, self.score = train_scores, score
