"""The load model's estimator: two simple forecasts, each also corrected by trees, combined by horizon."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smartgrid_pyfunc.features.design import Design
from smartgrid_pyfunc.features.groups import DAYS, GROUPS, LAST_HOURS, OTHER, group_of
from smartgrid_pyfunc.forest import Forest
from smartgrid_pyfunc.models.combination import Combination
from smartgrid_pyfunc.models.damped_persistence import DampedPersistence, smoothed_by_horizon
from smartgrid_pyfunc.models.linear_base import LinearBase
from smartgrid_pyfunc.models.state import under_prefix, with_prefix
from smartgrid_pyfunc.models.trees import fit_trees

#: Feature that the trees get beside those of the spec: the linear model's scaled forecast.
LINEAR_FEATURE = "linear_forecast"
#: Forecasts that are combined, in the order of the weights.
MEMBERS = ("persistence", "linear", "persistence, corrected", "linear, corrected")
PRIOR = np.array([0.0, 0.0, 0.5, 0.5])

_BASES = 2  # members that trees correct
_CLIP = 8.0  # scaled errors beyond this are faults or level shifts: they should not steer the trees
_SPREAD_CLIP, _LEAST_SPREAD = 4.0, 1e-3


class LoadEstimator:
    """Convex combination of damped persistence, a ridge regression, and both with the trees' corrections.

    Parameters
    ----------
    persistence : DampedPersistence
    linear : LinearBase
        Of the difference to the damped persistence.
    forests : sequence of Forest
        One for each base: what to add to it, in units of its usual error at that horizon.
    spread : ndarray, shape (168, 2)
        That usual error, by horizon and base [scale of the sensor].
    combination : Combination

    Notes
    -----
    A linear model carries what is smooth (the day's shape, the weather, the pull of the last hours), trees what is not.
    Errors grow with the horizon: trees on errors in units of their usual size at the horizon do not learn from the far
    ones what they say of the near ones (weighted least squares).
    """

    def __init__(
        self,
        persistence: DampedPersistence,
        linear: LinearBase,
        forests: Sequence[Forest],
        spread: NDArray[np.float64],
        combination: Combination,
    ) -> None:
        self._persistence, self._linear, self.forests = persistence, linear, tuple(forests)
        self._spread, self._combination = spread, combination

    @classmethod
    def fit(
        cls, design: Design, load: NDArray[np.float64], annual: bool, estimator: str, options: Mapping[str, Any]
    ) -> tuple[LoadEstimator, NDArray[np.float64]]:
        """Fit to n rows, with the prior weights.

        Parameters
        ----------
        design : Design
            Features of the rows.
        load : ndarray, shape (n,)
            What then happened [unit of the load].
        annual : bool
            See `LinearBase`.
        estimator : str
            One of `trees.ESTIMATORS`.
        options : mapping
            Of the estimator, as in LoadParams. A forest's ``n_estimators`` trees are shared among the bases; boosting
            has as many rounds on each base.

        Returns
        -------
        LoadEstimator
        ndarray, shape (n_features,)
            Importances by impurity or gain, summing to 1.
        """
        persistence = DampedPersistence.fit(design, load)
        linear = LinearBase.fit(design, (load - persistence.predict(design)) / design.scale, annual)
        bases = _bases(design, persistence, linear)
        features = _with_linear(design, bases)
        forests, spreads, importances = [], [], np.zeros(features.shape[1])
        for i, base in enumerate(bases.T):
            error = np.clip((load - base) / design.scale, -_CLIP, _CLIP)
            spread = _usual_error(error, design.horizon)
            target = np.clip(error / spread[design.horizon - 1], -_CLIP, _CLIP)
            share = max(1, (options["n_estimators"] + i) // _BASES)
            forest, importance = fit_trees(estimator, features, target, {**options, "share": share})
            forests.append(forest)
            spreads.append(spread)
            importances += importance / _BASES
        combination = Combination.prior(PRIOR)
        return cls(persistence, linear, forests, np.column_stack(spreads), combination), importances

    def combined(self, combination: Combination) -> LoadEstimator:
        """Return this estimator with other weights."""
        return LoadEstimator(self._persistence, self._linear, self.forests, self._spread, combination)

    def members(self, design: Design) -> NDArray[np.float64]:
        """Return the forecasts to be combined [unit of the load], shape (n, 4), in the order of `MEMBERS`."""
        bases = _bases(design, self._persistence, self._linear)
        features, unit = _with_linear(design, bases), self._unit(design)
        corrections = np.column_stack([forest.mean(features) for forest in self.forests]) * unit
        return np.hstack([bases, bases + corrections])

    def predict(self, design: Design) -> NDArray[np.float64]:
        """Return the load [unit of the load], shape (n,)."""
        return self._combination.of(self.members(design), design.horizon)

    def _unit(self, design: Design) -> NDArray[np.float64]:
        """Return the unit of the forests' corrections [unit of the load], shape (n, 2)."""
        unit: NDArray[np.float64] = design.scale[:, None] * self._spread[design.horizon - 1]
        return unit

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
        weights = self._combination.by_row(design.horizon)
        effects = {group: np.zeros(len(design.scale)) for group in GROUPS}
        effects[DAYS] += design.base["last_day"] - design.base["level"]
        effects[LAST_HOURS] += design.scale * self._persistence.moved(design)
        linear = design.scale * (weights[:, 1] + weights[:, 3])
        for group, part in self._linear.contributions(design).items():
            effects[group] += linear * part
        features = _with_linear(design, _bases(design, self._persistence, self._linear))
        unit = self._unit(design) * weights[:, _BASES:]
        for forest, size in zip(self.forests, unit.T, strict=True):
            by_feature = forest.contributions(features)
            for i, name in enumerate(names):
                effects[group_of(name)] += size * by_feature[:, i]
            effects[OTHER] += size * (forest.mean(features) - by_feature[:, : len(names)].sum(axis=1))
        return effects

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the state as arrays."""
        parts = {"persistence": self._persistence.to_arrays(), "linear": self._linear.to_arrays()}
        parts |= {f"forest_{i}": forest.to_arrays() for i, forest in enumerate(self.forests)}
        arrays = {key: value for name, part in parts.items() for key, value in with_prefix(name, part).items()}
        return arrays | {"spread": self._spread, "weights": self._combination.weights}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> LoadEstimator:
        """Undo `to_arrays`."""
        forests = [Forest.from_arrays(under_prefix(f"forest_{i}", arrays)) for i in range(_BASES)]
        return cls(
            DampedPersistence.from_arrays(under_prefix("persistence", arrays)),
            LinearBase.from_arrays(under_prefix("linear", arrays)),
            forests,
            arrays["spread"],
            Combination(arrays["weights"]),
        )


def _bases(design: Design, persistence: DampedPersistence, linear: LinearBase) -> NDArray[np.float64]:
    """Return damped persistence and the linear forecast [unit of the load], shape (n, 2)."""
    persistent = persistence.predict(design)
    return np.column_stack([persistent, persistent + design.scale * linear.predict(design)])


def _with_linear(design: Design, bases: NDArray[np.float64]) -> NDArray[np.float32]:
    scaled = (bases[:, 1] - design.base["level"]) / design.scale
    return np.column_stack([design.features, scaled.astype(np.float32)])


def _usual_error(error: NDArray[np.float64], horizon: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the root mean square of scaled errors near each horizon, shape (168,); 1 where none is near."""
    squares = smoothed_by_horizon(np.clip(error, -_SPREAD_CLIP, _SPREAD_CLIP) ** 2, horizon)
    rows = smoothed_by_horizon(np.ones(len(error)), horizon)
    spread = np.sqrt(np.divide(squares, rows, out=np.ones(len(rows)), where=rows > _LEAST_SPREAD))
    return np.maximum(spread, _LEAST_SPREAD)
