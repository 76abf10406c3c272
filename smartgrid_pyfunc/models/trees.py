"""Tree ensembles that correct simple forecasts: scikit-learn's random forest or LightGBM, as flat arrays to serve."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestRegressor

from smartgrid_pyfunc.forest import Forest
from smartgrid_pyfunc.schema import InputError

_LEAVES, _LEARNED = 63, 10.0  # of a boosted tree; learning rate times rounds


def fit_trees(
    estimator: str, features: NDArray[np.float32], target: NDArray[np.float64], options: Mapping[str, Any]
) -> tuple[Forest, NDArray[np.float64]]:
    """Fit one ensemble to n rows.

    Parameters
    ----------
    estimator : str
        One of `ESTIMATORS`.
    features : ndarray of float32, shape (n, k)
    target : ndarray, shape (n,)
    options : mapping
        As in LoadParams; a forest has ``share`` trees, boosting ``n_estimators`` rounds.

    Returns
    -------
    Forest
    ndarray, shape (k,)
        Importances by impurity or gain, summing to 1.
    """
    return _FIT[estimator](features, target, options)


def _fit_random_forest(
    features: NDArray[np.float32], target: NDArray[np.float64], options: Mapping[str, Any]
) -> tuple[Forest, NDArray[np.float64]]:
    names = ("max_depth", "min_samples_split", "min_samples_leaf", "max_features", "random_state")
    forest = RandomForestRegressor(
        n_estimators=options["share"],
        max_samples=options["max_samples"] if len(target) > options["max_samples"] else None,
        n_jobs=-1,
        **{name: options[name] for name in names},
    )
    forest.fit(features, target)
    return Forest.from_regressor(forest), forest.feature_importances_


def _fit_lightgbm(
    features: NDArray[np.float32], target: NDArray[np.float64], options: Mapping[str, Any]
) -> tuple[Forest, NDArray[np.float64]]:
    lightgbm = _lightgbm()
    rounds = options["n_estimators"]
    booster = lightgbm.train(
        {
            "objective": "regression",
            "learning_rate": min(0.1, _LEARNED / rounds),
            "num_leaves": _LEAVES,
            "max_depth": options["max_depth"] or -1,
            "min_data_in_leaf": max(20, options["min_samples_leaf"]),
            "bagging_fraction": 0.8,
            "bagging_freq": 1,
            "feature_fraction": 0.5,
            "seed": options["random_state"],
            "deterministic": True,
            "verbose": -1,
        },
        lightgbm.Dataset(features, target),
        rounds,
    )
    gain = booster.feature_importance("gain")
    return Forest.from_lightgbm(booster), gain / max(gain.sum(), 1e-12)


def _lightgbm() -> Any:
    try:
        import lightgbm  # needed in training only: the served model carries the trees
    except (ImportError, OSError) as error:  # OSError: the system lacks OpenMP's library
        raise InputError(
            "estimator=lightgbm needs the library lightgbm",
            found=str(error).splitlines()[0],
            remedy="pip install -r requirements.txt, and on Debian apt-get install libgomp1",
        ) from None
    return lightgbm


RANDOM_FOREST = "random_forest"
_FIT = {RANDOM_FOREST: _fit_random_forest, "lightgbm": _fit_lightgbm}
ESTIMATORS = tuple(_FIT)
