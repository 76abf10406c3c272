"""Fast, exact inference of fitted scikit-learn forests from plain arrays.

All trees of a forest are joined below a small routing tree over one extra feature, the tree's number, into a single
compiled scikit-learn tree. One call then walks a batch of (row, tree) pairs, which removes the per-tree overhead that
dominates scikit-learn's own `predict` for small requests, while the walk itself stays scikit-learn's compiled code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.tree._tree import Tree

_BLOCK = 16_384  # (row, tree) pairs walked in one call: small enough to stay in cache
_LEAF = -1
_FIELDS = ("left", "right", "feature", "threshold", "missing_left", "value", "tree_sizes", "n_features")


def floor32(x: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the largest float32 not above each `x`.

    Features are float32, so ``f <= x`` holds exactly when ``f <= floor32(x)``: thresholds lose half their bytes and
    no row changes its path. Rounding to the nearest float32 would misroute rows.
    """
    nearest = x.astype(np.float32)
    return np.where(nearest.astype(np.float64) > x, np.nextafter(nearest, np.float32(-np.inf)), nearest)


class Forest:
    """Mean of the leaf values over all trees, walked as scikit-learn does.

    Parameters
    ----------
    arrays : mapping
        As returned by `to_arrays`: the nodes of all trees end to end, children as absolute node numbers, -1 at leaves.

    Notes
    -----
    Load forecasts keep leaf values as float32: against scikit-learn's float64 mean the relative difference is at most
    2⁻²⁴ of the largest leaf value. Paths are identical.
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._arrays = {name: np.asarray(arrays[name]) for name in _FIELDS}
        self.n_features = int(self._arrays["n_features"])
        self.n_trees = len(self._arrays["tree_sizes"])
        self._tree = _join(self._arrays, self.n_features)

    @classmethod
    def from_trees(cls, trees: Sequence[Any], values: Sequence[NDArray[Any]]) -> Forest:
        """Join fitted scikit-learn trees.

        Parameters
        ----------
        trees : sequence of sklearn.tree._tree.Tree
            The ``tree_`` of each estimator; all on the same features.
        values : sequence of ndarray, shape (node_count,)
            What each node of each tree is worth; the dtype is kept.
        """
        nodes = [tree.__getstate__()["nodes"] for tree in trees]
        starts = np.cumsum([0] + [len(n) for n in nodes[:-1]])
        leaf = [n["left_child"] == _LEAF for n in nodes]
        arrays = {
            "left": [np.where(z, _LEAF, n["left_child"] + s) for n, s, z in zip(nodes, starts, leaf, strict=True)],
            "right": [np.where(z, _LEAF, n["right_child"] + s) for n, s, z in zip(nodes, starts, leaf, strict=True)],
            "feature": [np.where(z, 0, n["feature"]) for n, z in zip(nodes, leaf, strict=True)],
            "threshold": [floor32(np.where(z, 0.0, n["threshold"])) for n, z in zip(nodes, leaf, strict=True)],
            "missing_left": [n["missing_go_to_left"] for n in nodes],
            "value": list(values),
        }
        joined = {name: np.concatenate(parts) for name, parts in arrays.items()}
        for name, dtype in {"left": np.int32, "right": np.int32, "feature": np.int16, "missing_left": np.uint8}.items():
            joined[name] = joined[name].astype(dtype)
        joined["tree_sizes"] = np.array([len(n) for n in nodes], dtype=np.int32)
        joined["n_features"] = np.array(trees[0].n_features)
        return cls(joined)

    @classmethod
    def from_regressor(cls, forest: Any) -> Forest:
        """Take over a fitted RandomForestRegressor or ExtraTreesRegressor (one output)."""
        trees = [estimator.tree_ for estimator in forest.estimators_]
        return cls.from_trees(trees, [tree.value[:, 0, 0].astype(np.float32) for tree in trees])

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the forest as arrays; child numbers as distances, which compress well."""
        arrays = dict(self._arrays)
        number = np.arange(len(arrays["left"]), dtype=np.int32)
        for side in ("left", "right"):
            arrays[side] = np.where(arrays[side] == _LEAF, 0, arrays[side] - number).astype(np.int32)
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Forest:
        """Undo `to_arrays`."""
        stored = {name: np.asarray(arrays[name]) for name in _FIELDS}
        number = np.arange(len(stored["left"]), dtype=np.int32)
        for side in ("left", "right"):
            stored[side] = np.where(stored[side] == 0, _LEAF, stored[side] + number).astype(np.int32)
        return cls(stored)

    def mean(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the mean leaf value over the trees.

        Parameters
        ----------
        features : ndarray of float32, shape (n, n_features)
            Missing values are NaN.

        Returns
        -------
        ndarray, shape (n,)
            A row's result does not depend on the other rows: its values are summed in one fixed order.
        """
        starts = range(0, len(features), _BLOCK)
        parts = [self._leaf_values(features[i : i + _BLOCK]).mean(axis=1) for i in starts]
        return np.concatenate(parts) if parts else np.empty(0)

    def _leaf_values(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        n = len(features)
        values = np.empty((n, self.n_trees))
        step = max(1, min(self.n_trees, _BLOCK // max(n, 1)))
        pairs = np.empty((step, n, self.n_features + 1), dtype=np.float32)
        pairs[:, :, :-1] = features
        for first in range(0, self.n_trees, step):
            last = min(first + step, self.n_trees)
            block = pairs[: last - first]
            block[:, :, -1] = np.arange(first, last, dtype=np.float32)[:, None]
            reached = self._tree.predict(block.reshape(-1, self.n_features + 1))
            values[:, first:last] = reached.reshape(last - first, n).T
        return values

    def contributions(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Split each prediction among the features whose thresholds led to it.

        The change of the node value at a split is credited to the split's feature and averaged over the trees, so the
        credits of a row plus the mean root value give its prediction (Saabas, 2014, "Interpreting random forests").

        Parameters
        ----------
        features : ndarray of float32, shape (n, n_features)

        Returns
        -------
        ndarray, shape (n, n_features)
        """
        return np.array([self._walk(row) for row in features]).reshape(-1, self.n_features)

    def _walk(self, row: NDArray[np.float32]) -> NDArray[np.float64]:
        a = self._arrays
        node = np.cumsum(a["tree_sizes"]) - a["tree_sizes"]
        credit = np.zeros(self.n_features)
        node = node[a["left"][node] != _LEAF]
        while len(node):
            feature = a["feature"][node]
            x = row[feature]
            left = np.where(np.isnan(x), a["missing_left"][node] == 1, x <= a["threshold"][node])
            below = np.where(left, a["left"][node], a["right"][node])
            gain = a["value"][below].astype(np.float64) - a["value"][node]
            credit += np.bincount(feature, weights=gain, minlength=self.n_features)
            node = below[a["left"][below] != _LEAF]
        return credit / self.n_trees


def _join(arrays: Mapping[str, NDArray[Any]], n_features: int) -> Any:
    """Build the one compiled tree: routing nodes first, then the nodes of all trees."""
    sizes = arrays["tree_sizes"].astype(np.int64)
    routing = _routing(len(sizes), np.cumsum(sizes) - sizes)
    shift, total = len(routing["left"]), len(routing["left"]) + int(sizes.sum())
    nodes = np.zeros(total, dtype=_node_dtype())
    leaf = arrays["left"] == _LEAF
    nodes["left_child"][shift:] = np.where(leaf, _LEAF, arrays["left"] + shift)
    nodes["right_child"][shift:] = np.where(leaf, _LEAF, arrays["right"] + shift)
    nodes["feature"][shift:] = np.where(leaf, -2, arrays["feature"])
    nodes["threshold"][shift:] = arrays["threshold"]
    nodes["missing_go_to_left"][shift:] = arrays["missing_left"]
    nodes["left_child"][:shift], nodes["right_child"][:shift] = routing["left"], routing["right"]
    nodes["feature"][:shift], nodes["threshold"][:shift] = n_features, routing["threshold"]
    values = np.zeros((total, 1, 1))
    values[shift:, 0, 0] = arrays["value"]
    joined = Tree(n_features + 1, np.array([1], dtype=np.intp), 1)
    joined.__setstate__({"max_depth": 1, "node_count": total, "nodes": nodes, "values": values})
    return joined


def _routing(n_trees: int, roots: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """Return a balanced search tree over the tree's number; its leaves are the roots of the trees."""
    left: list[int] = []
    right: list[int] = []
    threshold: list[float] = []
    shift = n_trees - 1

    def child(low: int, high: int) -> int:
        if high - low == 1:
            return int(roots[low]) + shift
        middle = (low + high) // 2
        number = len(threshold)
        threshold.append(middle - 0.5)
        left.append(0)
        right.append(0)
        left[number], right[number] = child(low, middle), child(middle, high)
        return number

    child(0, n_trees)
    return {
        "left": np.array(left, dtype=np.int64),
        "right": np.array(right, dtype=np.int64),
        "threshold": np.array(threshold),
    }


def _node_dtype() -> np.dtype[Any]:
    empty = Tree(1, np.array([1], dtype=np.intp), 1)
    dtype: np.dtype[Any] = empty.__getstate__()["nodes"].dtype
    return dtype
