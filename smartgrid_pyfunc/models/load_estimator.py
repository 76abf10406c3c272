"""The load model's estimator: random forests on the differences to several simple forecasts, averaged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestRegressor

from smartgrid_pyfunc.features.load import RESIDUAL_BASES, Design, FeatureSpec
from smartgrid_pyfunc.forest import Forest
from smartgrid_pyfunc.models.linear_base import LinearBase
from smartgrid_pyfunc.models.state import under_prefix, with_prefix

LINEAR, ENSEMBLE = "linear", "ensemble"
RESIDUALS = (*RESIDUAL_BASES, LINEAR, ENSEMBLE)

_CLIP = 8.0  # scaled residuals beyond this are faults or level shifts: they should not steer the forest
_ORDER = ("last_day", LINEAR, "blend", "level")  # of an ensemble too small for a tree on each base


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
    No one base is best everywhere: the last day wins where load follows the weather, the weekly blend where it follows
    the calendar. Averaging over bases is the equal-weights combination of Bates & Granger (1969); as every tree is
    trained on the difference to one base, it costs no more trees than a single base.
    """

    def __init__(self, bases: tuple[str, ...], forest: Forest, linear: LinearBase) -> None:
        self.bases, self.forest, self._linear = bases, forest, linear

    @classmethod
    def fit(
        cls,
        design: Design,
        load: NDArray[np.float64],
        spec: FeatureSpec,
        residual: str,
        options: Mapping[str, Any],
        max_samples: int,
    ) -> tuple[LoadEstimator, NDArray[np.float64]]:
        """Fit to n rows.

        Parameters
        ----------
        design : Design
            Features of the rows.
        load : ndarray, shape (n,)
            What then happened [unit of the load].
        residual : str
            One of `RESIDUALS`.
        options : mapping
            Of RandomForestRegressor; ``n_estimators`` trees are shared among the bases.
        max_samples : int
            Rows drawn for each tree.

        Returns
        -------
        LoadEstimator
        ndarray, shape (n_features,)
            Impurity-based importances, summing to 1.
        """
        linear = LinearBase.fit(design.features, (load - design.base["level"]) / design.scale, spec)
        shares = _shares(residual, options["n_estimators"])
        trees, values, importances = [], [], np.zeros(design.features.shape[1])
        for base, share in shares.items():
            target = np.clip((load - _base(base, design, linear, spec)) / design.scale, -_CLIP, _CLIP)
            drawn = max_samples if len(target) > max_samples else None
            forest = RandomForestRegressor(max_samples=drawn, n_jobs=-1, **{**options, "n_estimators": share})
            forest.fit(design.features, target)
            weight = options["n_estimators"] / (len(shares) * share)  # equal bases, whatever their trees
            trees += [tree.tree_ for tree in forest.estimators_]
            values += [(weight * tree.tree_.value[:, 0, 0]).astype(np.float32) for tree in forest.estimators_]
            importances += forest.feature_importances_ / len(shares)
        return cls(tuple(shares), Forest.from_trees(trees, values), linear), importances

    def predict(self, design: Design, spec: FeatureSpec) -> NDArray[np.float64]:
        """Return the load [unit of the load], shape (n,)."""
        bases = np.column_stack([_base(base, design, self._linear, spec) for base in self.bases])
        load: NDArray[np.float64] = bases.mean(axis=1) + design.scale * self.forest.mean(design.features)
        return load

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the state as arrays."""
        arrays = with_prefix("forest", self.forest.to_arrays()) | with_prefix("linear", self._linear.to_arrays())
        return arrays | {"bases": np.array(self.bases, dtype=object)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> LoadEstimator:
        """Undo `to_arrays`."""
        forest, linear = (under_prefix(name, arrays) for name in ("forest", "linear"))
        return cls(tuple(arrays["bases"]), Forest.from_arrays(forest), LinearBase.from_arrays(linear))


def _shares(residual: str, trees: int) -> dict[str, int]:
    """Return how many of the trees correct which base."""
    bases = _ORDER[:trees] if residual == ENSEMBLE else (residual,)
    return {base: trees // len(bases) + (i < trees % len(bases)) for i, base in enumerate(bases)}


def _base(name: str, design: Design, linear: LinearBase, spec: FeatureSpec) -> NDArray[np.float64]:
    if name == LINEAR:
        return design.base["level"] + design.scale * linear.predict(design.features, spec)
    return design.base[name]
