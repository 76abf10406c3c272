"""scikit-learn's IsolationForest on the six features: the former system."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.ensemble import IsolationForest

from anomaly.six_features import Detector, SixFeatures


def create(options: dict[str, Any]) -> SixFeatures:
    options = {"scope": "pooled", "seed": 42, "trees": 100, "contamination": 0.01} | options

    def make(features: np.ndarray) -> Detector:
        forest = IsolationForest(
            n_estimators=options["trees"],
            contamination=options["contamination"],
            random_state=options["seed"],
            n_jobs=1,
        ).fit(features)
        return Detector(-forest.score_samples(features), lambda rows: -forest.score_samples(rows))

    return SixFeatures(make, ("scikit-learn", "pandas", "numpy"), options["scope"])
