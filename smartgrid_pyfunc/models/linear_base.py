"""A ridge regression on the history features, one for each group of horizons: the linear part of a load forecast."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import Ridge

from smartgrid_pyfunc.features.load import CHANGES, LEVELS, FeatureSpec

_FIRST_HOURS = np.array([1, 2, 4, 7, 13, 25, 49])  # first horizon [h] of each group that has coefficients of its own
_PENALTY = 1.0
_FEWEST = 200  # rows that a group needs; with fewer it takes the coefficients of all horizons
_CLIP = 10.0  # scaled loads beyond this are faults


class LinearBase:
    """Scaled load as a linear function of scaled history.

    Parameters
    ----------
    coefficients : ndarray, shape (groups of horizons, features + 1)
        The last column is the intercept.

    Notes
    -----
    Hoerl & Kennard (1970), "Ridge regression". An unknown level is replaced by the blend of the known ones, an unknown
    change by none.
    """

    def __init__(self, coefficients: NDArray[np.float64]) -> None:
        self._coefficients = coefficients

    @classmethod
    def fit(cls, features: NDArray[np.float32], target: NDArray[np.float64], spec: FeatureSpec) -> LinearBase:
        """Fit to n rows of `features` and their scaled loads `target`."""
        x, group = _inputs(features, spec)
        target = np.clip(target, -_CLIP, _CLIP)
        rows = [group == g if (group == g).sum() >= _FEWEST else slice(None) for g in range(len(_FIRST_HOURS))]
        fits = [Ridge(_PENALTY).fit(x[r], target[r]) for r in rows]
        return cls(np.array([np.append(fit.coef_, fit.intercept_) for fit in fits]))

    def predict(self, features: NDArray[np.float32], spec: FeatureSpec) -> NDArray[np.float64]:
        """Return scaled loads, shape (n,)."""
        x, group = _inputs(features, spec)
        chosen = self._coefficients[group]
        # einsum adds a row's products in one order, whatever the other rows are
        scaled: NDArray[np.float64] = np.einsum("ij,ij->i", x, chosen[:, :-1]) + chosen[:, -1]
        return scaled

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the state as arrays."""
        return {"coefficients": self._coefficients}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> LinearBase:
        """Undo `to_arrays`."""
        return cls(arrays["coefficients"])


def _inputs(features: NDArray[np.float32], spec: FeatureSpec) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    names = spec.names()
    levels = features[:, [names.index(name) for name in LEVELS]].astype(np.float64)
    blend = np.nan_to_num(features[:, names.index("blend")].astype(np.float64))
    levels = np.where(np.isnan(levels), blend[:, None], levels)
    changes = np.nan_to_num(features[:, [names.index(name) for name in CHANGES]].astype(np.float64))
    group = np.searchsorted(_FIRST_HOURS, features[:, names.index("horizon")], side="right") - 1
    return np.hstack([levels, changes]), group
