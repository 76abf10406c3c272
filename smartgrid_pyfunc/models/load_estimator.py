"""The load model's estimator: trees on the differences to a linear forecast and to the last day, averaged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestRegressor

from smartgrid_pyfunc.features.groups import DAYS, GROUPS, OTHER, group_of
from smartgrid_pyfunc.features.load import RESIDUAL_BASES, Design
from smartgrid_pyfunc.forest import Forest
from smartgrid_pyfunc.models.linear_base import LinearBase
from smartgrid_pyfunc.models.state import under_prefix, with_prefix
from smartgrid_pyfunc.schema import InputError

LINEAR, ENSEMBLE = "linear", "ensemble"
#: Feature that the trees get beside those of the spec: the linear model's scaled forecast.
LINEAR_FEATURE = "linear_forecast"
RESIDUALS = (*RESIDUAL_BASES, LINEAR, ENSEMBLE)

_CLIP = 8.0  # scaled residuals beyond this are faults or level shifts: they should not steer the forest
_MEMBERS = (LINEAR, "last_day")  # of the ensemble
_LEAVES, _LEARNED = 63, 10.0  # of a boosted tree; learning rate times rounds


class LoadEstimator:
    """Mean of simple forecasts plus the forest's scaled correction.

    Parameters
    ----------
    bases : sequence of str
        The simple forecasts that the trees correct, in equal shares.
    forest : Forest
        All trees; a mean over all of them is the mean correction.
    linear : LinearBase

    Notes
    -----
    A linear model carries what is smooth (the day's shape, the weather, the pull of the last hours), trees what is not.
    No one base is best everywhere; averaging over bases is the equal-weights combination of Bates & Granger (1969), and
    as every tree is trained on the difference to one base, it costs no more trees than a single base.
    """

    def __init__(self, bases: tuple[str, ...], forest: Forest, linear: LinearBase) -> None:
        self.bases, self.forest, self._linear = bases, forest, linear

    @classmethod
    def fit(
        cls,
        design: Design,
        load: NDArray[np.float64],
        annual: bool,
        residual: str,
        estimator: str,
        options: Mapping[str, Any],
    ) -> tuple[LoadEstimator, NDArray[np.float64]]:
        """Fit to n rows.

        Parameters
        ----------
        design : Design
            Features of the rows.
        load : ndarray, shape (n,)
            What then happened [unit of the load].
        annual : bool
            See `LinearBase`.
        residual : str
            One of `RESIDUALS`.
        estimator : str
            One of `ESTIMATORS`.
        options : mapping
            Of the estimator, as in LoadParams. A forest's ``n_estimators`` trees are shared among the bases; boosting
            has as many rounds on each base.

        Returns
        -------
        LoadEstimator
        ndarray, shape (n_features,)
            Impurity-based importances, summing to 1.
        """
        linear = LinearBase.fit(design, (load - design.base["level"]) / design.scale, annual)
        scaled = linear.predict(design)
        features = _with_linear(design, scaled)
        bases = _MEMBERS if residual == ENSEMBLE else (residual,)
        forests, importances = [], np.zeros(features.shape[1])
        for i, base in enumerate(bases):
            share = options["n_estimators"] // len(bases) + (i < options["n_estimators"] % len(bases))
            target = np.clip((load - _base(base, design, scaled)) / design.scale, -_CLIP, _CLIP)
            forest, importance = _FIT[estimator](features, target, {**options, "share": max(1, share)})
            forests.append(forest)
            importances += importance / len(bases)
        joined = Forest.concatenate(forests, [1 / len(bases)] * len(bases))
        return cls(bases, joined, linear), importances

    def predict(self, design: Design) -> NDArray[np.float64]:
        """Return the load [unit of the load], shape (n,)."""
        scaled = self._linear.predict(design)
        bases = np.column_stack([_base(base, design, scaled) for base in self.bases])
        correction = self.forest.mean(_with_linear(design, scaled))
        load: NDArray[np.float64] = bases.mean(axis=1) + design.scale * correction
        return load

    def contributions(self, design: Design, names: Sequence[str]) -> dict[str, NDArray[np.float64]]:
        """Return what each group of features adds to last week's mean [unit of the load], shape (n,) each.

        Parameters
        ----------
        design : Design
        names : sequence of str
            Of its features.

        Returns
        -------
        dict
            Group → effect; with the mean of the week before the origin they add up to the forecast. What the trees
            conclude from the linear forecast itself counts as `OTHER`.
        """
        scaled = self._linear.predict(design)
        effects = {group: np.zeros(len(scaled)) for group in GROUPS}
        for base in self.bases:
            parts = self._linear.contributions(design) if base == LINEAR else {}
            rest = (_base(base, design, scaled) - design.base["level"]) / design.scale
            for group, part in (parts or {DAYS: rest}).items():
                effects[group] += part / len(self.bases)
        features = _with_linear(design, scaled)
        by_feature = self.forest.contributions(features)
        for i, name in enumerate(names):
            effects[group_of(name)] += by_feature[:, i]
        effects[OTHER] += self.forest.mean(features) - by_feature[:, : len(names)].sum(axis=1)
        return {group: effect * design.scale for group, effect in effects.items()}

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the state as arrays."""
        arrays = with_prefix("forest", self.forest.to_arrays()) | with_prefix("linear", self._linear.to_arrays())
        return arrays | {"bases": np.array(self.bases, dtype=object)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> LoadEstimator:
        """Undo `to_arrays`."""
        forest, linear = (under_prefix(name, arrays) for name in ("forest", "linear"))
        return cls(tuple(arrays["bases"]), Forest.from_arrays(forest), LinearBase.from_arrays(linear))


def _with_linear(design: Design, scaled: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.column_stack([design.features, scaled.astype(np.float32)])


def _base(name: str, design: Design, scaled: NDArray[np.float64]) -> NDArray[np.float64]:
    return design.base["level"] + design.scale * scaled if name == LINEAR else design.base[name]


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
