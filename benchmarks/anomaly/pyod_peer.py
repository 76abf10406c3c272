"""PyOD's detectors on the six features."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from anomaly.six_features import Detector, SixFeatures

_MODULES = {"LOF": "lof", "KNN": "knn", "ECOD": "ecod", "HBOS": "hbos", "IForest": "iforest"}


def create(options: dict[str, Any]) -> SixFeatures:
    options = {"scope": "sensor"} | options
    name, scope = options.pop("detector"), options.pop("scope")
    kind = getattr(importlib.import_module(f"pyod.models.{_MODULES[name]}"), name)

    def make(features: np.ndarray) -> Detector:
        varying = (
            np.ptp(features, axis=0) > 0
        )  # constant columns tell nothing, and ECOD and HBOS divide by their spread
        varying |= ~varying.any()
        given = dict(options)
        if "n_neighbors" in given:
            given["n_neighbors"] = min(given["n_neighbors"], len(features) - 1)
        detector = kind(**given).fit(features[:, varying])
        return Detector(detector.decision_scores_, lambda rows: detector.decision_function(rows[:, varying]))

    return SixFeatures(make, ("pyod", "scikit-learn", "numba", "pandas", "numpy"), scope)
