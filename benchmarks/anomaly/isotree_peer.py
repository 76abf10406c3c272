"""isotree's forests on the six features: hour, weekday and type as numbers, as the others get them."""

from __future__ import annotations

from typing import Any

import numpy as np
from isotree import IsolationForest

from anomaly.six_features import Detector, SixFeatures


def create(options: dict[str, Any]) -> SixFeatures:
    options = {"scope": "pooled", "ntrees": 100, "random_seed": 42, "nthreads": 1} | options
    scope = options.pop("scope")

    def make(features: np.ndarray) -> Detector:
        forest = IsolationForest(**options).fit(features)
        return Detector(forest.predict(features), forest.predict)

    return SixFeatures(make, ("isotree", "scipy", "pandas", "numpy"), scope)
