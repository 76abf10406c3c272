"""How rare a deviation is: -log tail probabilities from quantiles, and from a generalised Pareto tail beyond them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Share of readings that lie beyond each node on its side; one-sided deviations have twice as many beyond.
TAIL = np.array([0.5, 0.25, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001])
#: Surprise at the nodes [nats].
SURPRISE = -np.log(2 * TAIL)
#: Surprise that no deviation exceeds, however large.
STRANGEST = 50.0

_LAST = len(TAIL) - 1
_QUARTER, _TWENTIETH = 1, 3  # nodes that faults in the training readings do not reach
_HEAVIEST = 2.0  # times the exponential tail that those two nodes tell: more is taken as faults in training
# Shape of the generalised Pareto tail beyond the last node (Pickands 1975; 0 would be exponential). Heavy: what is ten
# times as far off as any training reading is not ten times as sure to be a fault, and must not outrank all else.
_SHAPE = 0.5
_FAULTY = 0.005  # of the training readings are taken to stand still by a fault
_FEWEST = 30  # readings before a tail is known
_TINY = 1e-9
_ENOUGH = 8_000  # readings of a group that tell its tails
_ROWS = 16_384  # at a time, to stay in cache


class Tails:
    """Tails of E deviations in G groups, apart for deviations up and down.

    Attributes
    ----------
    median : ndarray, shape (G, E)
        NaN where a group has had too few readings to tell.
    nodes : ndarray, shape (len(TAIL), G, E, 2)
        Distance from the median, up and down, at each share of `TAIL`.
    """

    def __init__(self, median: NDArray[np.float64], nodes: NDArray[np.float64]) -> None:
        self.median, self.nodes = median, nodes
        self._flat = nodes.reshape(len(TAIL), -1)
        width = np.maximum(np.diff(self._flat, axis=0), _TINY)
        rate = np.maximum(self._flat[_LAST] - self._flat[_QUARTER], np.maximum(0.1 * self._flat[_LAST], _TINY))
        beyond = (SURPRISE[_LAST] - SURPRISE[_QUARTER]) / rate
        self._slope = np.vstack([np.diff(SURPRISE)[:, None] / width, beyond]).ravel()
        self._low = self._flat.ravel()

    @classmethod
    def fit(
        cls,
        deviations: NDArray[np.float64],
        members: list[NDArray[np.int64]],
        one_sided: NDArray[np.bool_],
        fewest: Any = _FEWEST,
    ) -> Tails:
        """Learn the tails of groups.

        Parameters
        ----------
        deviations : ndarray, shape (m, E)
            NaN where unknown.
        members : list of ndarray of int64
            Rows of each group.
        one_sided : ndarray of bool, shape (E,)
            Deviations that are strange only where they are large, such as durations.
        fewest : array_like of int, broadcast to shape (G, E)
            Readings before a tail is known.
        """
        width = deviations.shape[1]
        median, nodes = np.full((len(members), width), np.nan), np.full((len(TAIL), len(members), width, 2), np.nan)
        least = np.broadcast_to(np.maximum(fewest, _FEWEST), median.shape)
        for group, rows in enumerate(members):
            step = max(1, len(rows) // _ENOUGH)
            ordered = np.sort(deviations[rows[::step]], axis=0)
            for j, count in enumerate((~np.isnan(ordered)).sum(axis=0)):
                if count * step >= least[group, j] and count >= _FEWEST:
                    tail = _one_tail if one_sided[j] else _two_tails
                    median[group, j], nodes[:, group, j] = tail(ordered[:count, j])
        return cls(median, nodes)

    def surprise(self, group: NDArray[np.int64], deviations: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return -log of the share of readings that deviate as much, shape (m, E) [nats]; NaN where unknown."""
        if len(group) <= _ROWS:
            return self._surprise(group, deviations)
        parts = [self._surprise(group[i : i + _ROWS], deviations[i : i + _ROWS]) for i in range(0, len(group), _ROWS)]
        return np.concatenate(parts)

    def _surprise(self, group: NDArray[np.int64], deviations: NDArray[np.float64]) -> NDArray[np.float64]:
        off = deviations - self.median[group]
        column = (group[:, None] * off.shape[1] + np.arange(off.shape[1])) * 2 + (off < 0)
        np.abs(off, out=off)
        segment = (off > self._flat[1].take(column)).astype(np.intp)
        for nodes in self._flat[2:]:  # ties take the larger tail
            segment += off > nodes.take(column)
        at = segment * self._flat.shape[1] + column
        result = SURPRISE.take(segment) + self._slope.take(at) * np.maximum(off - self._low.take(at), 0.0)
        return _tempered(result)

    def limits(self, surprise: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the deviations down and up at which a reading is as surprising as that, each of shape (G, E)."""
        k = int(np.clip(np.searchsorted(SURPRISE, surprise) - 1, 0, _LAST - 1))
        share = min((surprise - SURPRISE[k]) / (SURPRISE[k + 1] - SURPRISE[k]), 1.0)
        off = self.nodes[k] + share * (self.nodes[k + 1] - self.nodes[k])
        return self.median - off[..., 1], self.median + off[..., 0]

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the tails as arrays."""
        return {"median": self.median, "nodes": self.nodes}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Tails:
        """Undo `to_arrays`."""
        return cls(arrays["median"], arrays["nodes"])

    @classmethod
    def join(cls, parts: list[Tails]) -> Tails:
        """Put the groups of several tails one after another."""
        return cls(np.concatenate([p.median for p in parts]), np.concatenate([p.nodes for p in parts], axis=1))


def _tempered(surprise: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return exponential tails beyond the last node as generalised Pareto ones of the same scale."""
    far = surprise > SURPRISE[_LAST]
    if far.any():
        beyond = surprise[far] - SURPRISE[_LAST]
        surprise[far] = np.minimum(SURPRISE[_LAST] + np.log1p(_SHAPE * beyond) / _SHAPE, STRANGEST)
    return surprise


def _quantiles(ordered: NDArray[np.float64], share: NDArray[np.float64]) -> NDArray[np.float64]:
    place = share * (len(ordered) - 1)
    low = place.astype(np.intp)
    high = np.minimum(low + 1, len(ordered) - 1)
    quantiles: NDArray[np.float64] = ordered[low] + (place - low) * (ordered[high] - ordered[low])
    return quantiles


def _two_tails(ordered: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """Return median and distances; a tail much heavier than the bulk tells is cut: faults that training has seen."""
    median = float(_quantiles(ordered, np.array([0.5]))[0])
    nodes = np.column_stack([_quantiles(ordered, 1 - TAIL) - median, median - _quantiles(ordered, TAIL)])
    rate = (nodes[_TWENTIETH] - nodes[_QUARTER]) / (SURPRISE[_TWENTIETH] - SURPRISE[_QUARTER])
    most = nodes[_TWENTIETH] + _HEAVIEST * rate * (SURPRISE[_TWENTIETH:, None] - SURPRISE[_TWENTIETH])
    nodes[_TWENTIETH:] = np.minimum(nodes[_TWENTIETH:], most)
    return median, nodes


def _one_tail(ordered: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """Return zero and the quantiles, without the largest ones: they are taken as faults that training has seen.

    The last node is not below the smallest positive duration: two equal values in a row happen by chance.
    """
    nodes = _quantiles(ordered, 1 - (_FAULTY + 2 * TAIL * (1 - _FAULTY)))
    nodes[_LAST] = max(nodes[_LAST], ordered[min(int(np.searchsorted(ordered, 0.0, side="right")), len(ordered) - 1)])
    return 0.0, np.column_stack([nodes, nodes])
