"""Prediction intervals from scaled residuals of held-out weeks, by difficulty, horizon and sensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestRegressor

from smartgrid_pyfunc.forest import Forest
from smartgrid_pyfunc.models.state import under_prefix, with_prefix

_FIRST_HOURS = np.array([1, 2, 3, 5, 9, 17, 25, 49, 97])  # first horizon [h] of each group that shares quantiles
_PROBABILITIES = np.linspace(0.0, 1.0, 401)
_FEWEST = 50  # residuals that a group needs for quantiles of its own
_SHRINK = 100.0  # residuals that count as much as the sensor's own when its width is estimated
_TAIL = 0.95  # probability beyond which a sensor's residuals may be faults: they should not set its width
_DEAD = 1e-3  # of the widest sensor's width: a constant sensor tells nothing about the others
_TREES, _LEAVES, _LEAF_ROWS, _DRAWN = 20, 48, 60, 8_000  # of a difficulty's forest; few, as errors of a day are alike
_SMALLEST = 0.02  # of the mean size: what is added to each residual before its logarithm is taken; more would level it
_FOLDS = 5  # groups of weeks whose difficulty is learnt from the others
_FEWEST_FOR_DIFFICULTY = 1_000, 3  # residuals, weeks


@dataclass(frozen=True)
class Conditions:
    """What the difficulty of n forecasts may depend on.

    Attributes
    ----------
    columns : ndarray of float32, shape (n, k)
        Missing values are NaN.
    seasonal : tuple of int
        Columns that tell the time of the year. Half of the trees do without: the weeks held out are few, and a season
        seen once may have been unusual.
    """

    columns: NDArray[np.float32]
    seasonal: tuple[int, ...] = ()

    def take(self, index: NDArray[Any]) -> Conditions:
        """Return the rows at `index`, a mask or positions."""
        return Conditions(self.columns[index], self.seasonal)


class Difficulty:
    """Typical size of a residual under given conditions, relative to the geometric mean over all.

    Parameters
    ----------
    forest : Forest
        Predicts the logarithm.
    """

    def __init__(self, forest: Forest) -> None:
        self._forest = forest

    @classmethod
    def fit(cls, conditions: Conditions, residuals: NDArray[np.float64]) -> Difficulty:
        """Learn from n out-of-sample residuals without NaN."""
        size = np.abs(residuals)
        logs = np.log(size + max(_SMALLEST * size.mean(), 1e-12))
        target = logs - logs.mean()
        blind = conditions.columns.copy()
        blind[:, list(conditions.seasonal)] = 0.0
        trees = [
            tree.tree_
            for seed, columns in enumerate((conditions.columns, blind))
            for tree in _forest(seed, len(target)).fit(columns, target).estimators_
        ]
        return cls(Forest.from_trees(trees, [tree.value[:, 0, 0].astype(np.float32) for tree in trees]))

    def of(self, conditions: Conditions) -> NDArray[np.float64]:
        """Return the difficulty, shape (n,), above 0."""
        relative: NDArray[np.float64] = np.exp(self._forest.mean(conditions.columns))
        return relative

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the state as arrays."""
        return self._forest.to_arrays()

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Difficulty:
        """Undo `to_arrays`."""
        return cls(Forest.from_arrays(arrays))


class ResidualQuantiles:
    """Quantiles of (actual - forecast) / scale by group of horizons, times a width for each sensor and a difficulty.

    Parameters
    ----------
    table : ndarray, shape (groups of horizons, probabilities)
    widths : mapping of str to float
        Factor per sensor; a sensor not in it has the factor 1.
    difficulty : Difficulty, optional

    Notes
    -----
    Split conformal prediction with residuals normalised by the sensor's spread and by an estimate of their own size:
    Lei et al. (2018), *JASA* 113, "Distribution-free predictive inference for regression", section 5.2; Papadopoulos
    et al. (2011), *JAIR* 40. The residuals that give the quantiles are divided by a difficulty learnt from other weeks,
    as later ones are: else it would know their sizes and the intervals would be too narrow. Nothing changes at request
    time.
    """

    def __init__(
        self, table: NDArray[np.float64], widths: Mapping[str, float], difficulty: Difficulty | None = None
    ) -> None:
        self._table, self._widths, self._difficulty = table, dict(widths), difficulty

    @classmethod
    def fit(
        cls,
        residuals: NDArray[np.float64],
        horizon: NDArray[np.int64],
        sensor: NDArray[np.object_],
        conditions: Conditions | None = None,
        week: NDArray[np.int64] | None = None,
    ) -> ResidualQuantiles:
        """Estimate from n out-of-sample scaled residuals.

        Parameters
        ----------
        residuals : ndarray, shape (n,)
            NaN is left out.
        horizon, sensor : ndarray, shape (n,)
            Lead times [h] and sensors.
        conditions : Conditions, optional
            Without them, and with few residuals, all forecasts are taken to be equally difficult.
        week : ndarray of int64, shape (n,), optional
            Number of the week of each target; needed with `conditions`.
        """
        known = ~np.isnan(residuals)
        residuals, horizon, sensor = residuals[known], horizon[known], sensor[known]
        difficulty = None
        if conditions is not None and week is not None:
            _, living = _sensor_widths(residuals, sensor)
            learnt = _learn_difficulty(conditions.take(known), residuals, week[known], living)
            difficulty, residuals = learnt or (None, residuals)
        widths, living = _sensor_widths(residuals, sensor)
        relative = (residuals / np.array([widths[s] for s in sensor], dtype=float))[living]
        group = _group(horizon[living])
        rows = [_quantiles(relative[group == g], relative) for g in range(len(_FIRST_HOURS))]
        return cls(np.array(rows), widths, difficulty)

    def bounds(
        self,
        level: float,
        horizon: NDArray[np.int64],
        sensor: NDArray[np.object_],
        conditions: Conditions | None = None,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return lower and upper scaled residuals of the central interval of probability `level`, shape (n,) each.

        Raises
        ------
        ValueError
            If the residuals were fitted with `conditions` and none are given.
        """
        width = np.array([self._widths.get(s, 1.0) for s in sensor])
        if self._difficulty is not None:
            if conditions is None:
                raise ValueError("bounds that depend on conditions need them.")
            width = width * self._difficulty.of(conditions)
        group = _group(horizon)
        low, high = (
            np.array([np.interp(p, _PROBABILITIES, row) for row in self._table])
            for p in ((1 - level) / 2, (1 + level) / 2)
        )
        return low[group] * width, high[group] * width

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the state as arrays."""
        names = np.array(list(self._widths), dtype=object)
        arrays = {"table": self._table, "sensor": names, "width": np.array(list(self._widths.values()), dtype=float)}
        return arrays | (with_prefix("difficulty", self._difficulty.to_arrays()) if self._difficulty else {})

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> ResidualQuantiles:
        """Undo `to_arrays`."""
        learnt = under_prefix("difficulty", arrays)
        widths = dict(zip(arrays["sensor"], arrays["width"].tolist(), strict=True))
        return cls(arrays["table"], widths, Difficulty.from_arrays(learnt) if learnt else None)


def _forest(seed: int, rows: int) -> RandomForestRegressor:
    return RandomForestRegressor(
        _TREES // 2,
        max_leaf_nodes=_LEAVES,
        min_samples_leaf=_LEAF_ROWS,
        max_features=0.4,
        max_samples=min(rows, _DRAWN),
        random_state=seed,
    )


def _learn_difficulty(
    conditions: Conditions, residuals: NDArray[np.float64], week: NDArray[np.int64], living: NDArray[np.bool_]
) -> tuple[Difficulty, NDArray[np.float64]] | None:
    """Return the difficulty, and the residuals each divided by one learnt from other weeks; None where data are few.

    Constant sensors teach nothing.
    """
    numbers, order = np.unique(week, return_inverse=True)
    if living.sum() < _FEWEST_FOR_DIFFICULTY[0] or len(np.unique(week[living])) < _FEWEST_FOR_DIFFICULTY[1]:
        return None
    fold, relative = order % min(_FOLDS, len(numbers)), residuals.copy()
    for number in np.unique(fold):
        inside, others = fold == number, (fold != number) & living
        if others.any():
            learnt = Difficulty.fit(conditions.take(others), residuals[others])
            relative[inside] /= learnt.of(conditions.take(inside))
    return Difficulty.fit(conditions.take(living), residuals[living]), relative


def _group(horizon: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.searchsorted(_FIRST_HOURS, horizon, side="right") - 1


def _sensor_widths(
    residuals: NDArray[np.float64], sensor: NDArray[np.object_]
) -> tuple[dict[str, float], NDArray[np.bool_]]:
    """Mean absolute residual of each sensor relative to all, drawn towards 1 where a sensor has few.

    Constant sensors are left out of "all": among many of them the residuals of the others would look huge. The second
    array marks the residuals of the other sensors. A mean, not a median: that of a sensor often at rest is 0.
    """
    names, code = np.unique(sensor.astype(str), return_inverse=True)
    size, count = np.abs(residuals), np.bincount(code, minlength=len(names))
    parts = np.split(size[np.argsort(code, kind="stable")], np.cumsum(count)[:-1]) if len(names) else []
    own = np.array([np.minimum(part, np.quantile(part, _TAIL)).mean() for part in parts])
    living = (own >= _DEAD * own.max(initial=0.0))[code]
    overall = max(float(np.average(own, weights=count * (own >= _DEAD * own.max()))), 1e-9) if len(own) else 1.0
    share = count / (count + _SHRINK)
    widths = np.maximum(share * own / overall + (1 - share), 1e-3)
    return dict(zip(names.tolist(), widths.tolist(), strict=True)), living


def _quantiles(own: NDArray[np.float64], every: NDArray[np.float64]) -> NDArray[np.float64]:
    residuals = own if len(own) >= _FEWEST else every
    return np.quantile(residuals, _PROBABILITIES) if len(residuals) else np.full(len(_PROBABILITIES), np.nan)
