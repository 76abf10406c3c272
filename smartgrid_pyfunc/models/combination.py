"""Weights of several forecasts of the same hours, learnt from errors that those were not fitted to."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

_FIRST_HOURS = np.array([1, 2, 3, 4, 7, 13, 25, 73])  # first horizon [h] of each group that has weights of its own
_CLIP = 3.0  # scaled errors beyond this are faults, which no combination avoids
_PULL = 0.1  # towards the prior weights, as a share of the members' mean squared error
_ENOUGH = 200  # errors in a group
_HARD = 1e3  # weight of the condition that weights sum to 1


class Combination:
    """A convex combination of m forecasts, by horizon.

    Parameters
    ----------
    weights : ndarray, shape (8, m)
        By group of horizons; not negative, rows sum to 1.

    Notes
    -----
    Bates & Granger (1969), "The combination of forecasts": the weights that would have given the least squared error,
    not negative (Breiman, 1996, "Stacked regressions") and drawn towards prior ones, as freely estimated weights are
    seldom better than equal ones (Stock & Watson, 2004). A group's prior is what is best over all horizons.
    """

    def __init__(self, weights: NDArray[np.float64]) -> None:
        self.weights = weights

    @classmethod
    def prior(cls, weights: NDArray[np.float64]) -> Combination:
        """Return the combination with the same `weights`, shape (m,), for every horizon."""
        return cls(np.tile(weights, (len(_FIRST_HOURS), 1)))

    @classmethod
    def fit(cls, errors: NDArray[np.float64], horizon: NDArray[np.int64], prior: NDArray[np.float64]) -> Combination:
        """Learn from n scaled errors of each member.

        Parameters
        ----------
        errors : ndarray, shape (n, m)
            Actual minus forecast, in units of the load's spread; rows that are not all known are left out.
        horizon : ndarray of int64, shape (n,)
            Lead time [h].
        prior : ndarray, shape (m,)
            Weights in the absence of evidence.
        """
        known = ~np.isnan(errors).any(axis=1)
        errors, group = np.clip(errors[known], -_CLIP, _CLIP), _group(horizon[known])
        overall = _best(errors, prior)
        return cls(np.array([_best(errors[group == g], overall) for g in range(len(_FIRST_HOURS))]))

    def of(self, members: NDArray[np.float64], horizon: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the combined forecast, shape (n,), of `members`, shape (n, m)."""
        combined: NDArray[np.float64] = np.einsum("ij,ij->i", members, self.by_row(horizon))
        return combined

    def by_row(self, horizon: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the weights of n rows, shape (n, m)."""
        return self.weights[_group(horizon)]


def _group(horizon: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.searchsorted(_FIRST_HOURS, horizon, side="right") - 1


def _best(errors: NDArray[np.float64], prior: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the convex weights of least squared error, drawn towards `prior`: non-negative least squares."""
    if len(errors) < _ENOUGH:
        return prior
    products = errors.T @ errors / len(errors)
    size = float(np.trace(products)) / len(prior)
    if size <= 0:
        return prior
    pull = _PULL * size
    root = np.linalg.cholesky(products + pull * np.eye(len(prior))).T
    aim = np.linalg.solve(root.T, pull * prior)
    hard = _HARD * np.sqrt(size)
    found, _ = nnls(np.vstack([root, np.full((1, len(prior)), hard)]), np.append(aim, hard))
    weights: NDArray[np.float64] = found / found.sum()
    return weights
