"""Fast, exact inference of fitted tree ensembles, scikit-learn's forests and LightGBM's boosters, from plain arrays.

Two engines give one result, equal to the last bit. Small requests take all (row, tree) pairs down one level at a time
in NumPy, on nodes packed into 16 bytes: no call per tree, and a quarter of the memory that scikit-learn's own walk
reads. Large ones go tree by tree through scikit-learn's compiled tree, which is faster once its node array stays in
the cache over many rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.tree._tree import Tree

_PAIRS = 16_384  # (row, tree) pairs on their way together: few enough to stay in cache
_BULK = 500, 10_000  # the compiled trees are faster from half as many rows as a tree has nodes, within these bounds
_LOOK = 5  # levels between two looks for pairs that have reached their leaf
_LEAF = -1
_DTYPES = {
    "left": np.int32,
    "right": np.int32,
    "feature": np.int16,
    "threshold": np.float32,
    "missing_left": np.uint8,
    "tree_sizes": np.int32,
}
_FIELDS = (*_DTYPES, "value", "n_features")
_NODE = np.dtype([("threshold", np.float32), ("feature", np.int32), ("right", np.int64)])

_IDENTITY = frozenset({"regression", "regression_l1", "huber", "fair", "quantile", "mape"})
_ZERO = np.float32(1e-35)  # LightGBM reads a feature of at most this magnitude as zero
_CATEGORICAL, _DEFAULT_LEFT = 1, 2  # bits of LightGBM's decision_type; the two above them tell what counts as missing
_MISSING_NONE, _MISSING_ZERO = 0, 1


def floor32(x: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the largest float32 not above each `x`.

    Features are float32, so ``f <= x`` holds exactly when ``f <= floor32(x)``: thresholds lose half their bytes and
    no row changes its path. Rounding to the nearest float32 would misroute rows.
    """
    with np.errstate(over="ignore"):  # beyond float32: infinite, then one step back if that is above `x`
        nearest = x.astype(np.float32)
    return np.where(nearest.astype(np.float64) > x, np.nextafter(nearest, np.float32(-np.inf)), nearest)


class Forest:
    """Mean of the leaf values over all trees.

    Parameters
    ----------
    arrays : mapping
        The nodes of all trees end to end, children as absolute node numbers, -1 at leaves; see `to_arrays` for the
        form that is stored.

    Notes
    -----
    Paths are those of the training library, whatever the row. Leaf values kept as float32 differ from its float64 ones
    by at most 2⁻²⁴ of each: a mean by at most 2⁻²⁴ of the largest leaf, a booster's sum by at most 2⁻²⁴ of the sum over
    its trees of the largest leaf. `concatenate` rounds once more.
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._arrays = {name: np.asarray(arrays[name]) for name in _FIELDS}
        self.n_features = int(self._arrays["n_features"])
        self.n_trees = len(self._arrays["tree_sizes"])
        self._nodes, self._values, self._parents = _pack(self._arrays, self.n_features)

    @classmethod
    def from_trees(cls, trees: Sequence[Any], values: Sequence[NDArray[Any]]) -> Forest:
        """Take over fitted scikit-learn trees.

        Parameters
        ----------
        trees : sequence of sklearn.tree._tree.Tree
            The ``tree_`` of each estimator; all on the same features.
        values : sequence of ndarray, shape (node_count,)
            What each node of each tree is worth; the dtype is kept.
        """
        parts = [_sklearn_tree(tree, value) for tree, value in zip(trees, values, strict=True)]
        return cls(_end_to_end(parts, trees[0].n_features))

    @classmethod
    def from_regressor(cls, forest: Any) -> Forest:
        """Take over a fitted RandomForestRegressor or ExtraTreesRegressor (one output)."""
        trees = [estimator.tree_ for estimator in forest.estimators_]
        return cls.from_trees(trees, [tree.value[:, 0, 0].astype(np.float32) for tree in trees])

    @classmethod
    def from_lightgbm(cls, booster: Any) -> Forest:
        """Take over a fitted LightGBM booster; LightGBM itself is not needed afterwards.

        Parameters
        ----------
        booster : lightgbm.Booster
            One output, numeric features, an objective whose prediction is the plain sum of the trees. As in its own
            `predict`, trees after the best iteration are left out.

        Returns
        -------
        Forest
            Its mean is the booster's prediction: the leaves hold their values times the number of trees. An inner node
            is worth the mean of the leaves below it, weighted by their training rows, as in scikit-learn; LightGBM's
            own inner values are rounded and, where it refits the leaves (l1, quantile …), of another kind.

        Raises
        ------
        ValueError
            For other objectives, several outputs, categorical splits, linear leaves, ``zero_as_missing``.
        """
        # The text holds arrays, read twice as fast as the nested dump; thresholds and leaves are exact in both.
        head, *texts = booster.model_to_string().split("\nend of trees\n")[0].split("\nTree=")
        header = _fields(head)
        _check_booster(header, len(texts))
        scale = 1 if "average_output" in head.splitlines() else len(texts)
        parts = [_lightgbm_tree(_fields(text), scale) for text in texts]
        return cls(_end_to_end(parts, int(header["max_feature_idx"]) + 1))

    @classmethod
    def concatenate(cls, forests: Sequence[Forest], weights: Sequence[float]) -> Forest:
        """Join forests into one whose mean is the weighted sum of theirs, up to the rounding of its values.

        Parameters
        ----------
        forests : sequence of Forest
            All on the same features.
        weights : sequence of float
            One per forest; equal shares of 1 average them.
        """
        widths = {forest.n_features for forest in forests}
        if len(widths) != 1:
            raise ValueError(f"forests to be joined must have the same number of features: found {sorted(widths)}.")
        trees = sum(forest.n_trees for forest in forests)
        parts = []
        for forest, weight in zip(forests, weights, strict=True):
            value = forest._arrays["value"]
            scaled = (value.astype(np.float64) * (weight * trees / forest.n_trees)).astype(value.dtype)
            parts.append(forest._arrays | {"value": scaled})
        return cls(_end_to_end(parts, widths.pop()))

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
            A row's result does not depend on the other rows: its values are summed in the order of the trees.

        Raises
        ------
        ValueError
            If the number of columns is not `n_features`.
        """
        rows = self._checked(features)
        if len(rows) < np.clip(len(self._nodes) / (2 * self.n_trees), *_BULK):
            # A running sum, as it keeps the order of the trees for any number of rows; `sum` does not.
            total = self._values.take(self._leaves(rows)).cumsum(axis=0, dtype=np.float64)[-1]
        else:
            total = np.zeros(len(rows))
            for tree, values in self._compiled:
                total += values.take(tree.apply(rows))
        mean: NDArray[np.float64] = total / self.n_trees
        return mean

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

        Raises
        ------
        ValueError
            If the number of columns is not `n_features`.
        """
        rows = self._checked(features)
        step = max(1, _PAIRS // self.n_trees)
        parts = [self._credits(rows[i : i + step]) for i in range(0, len(rows), step)]
        return np.concatenate(parts) if parts else np.empty((0, self.n_features))

    def _checked(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        rows = np.asarray(features, dtype=np.float32)
        if rows.ndim != 2 or rows.shape[1] != self.n_features:
            raise ValueError(f"features must have the shape (n, {self.n_features}): found {rows.shape}.")
        return rows

    def _leaves(self, rows: NDArray[np.float32]) -> NDArray[np.intp]:
        """Return the packed number of the leaf that each row reaches in each tree, shape (n_trees, n)."""
        n, seen = len(rows), _both_ways(rows)
        flat, width = seen.ravel(), seen.shape[1]
        leaves = np.empty((self.n_trees, n), dtype=np.intp)
        step = max(1, _PAIRS // max(n, 1))
        for first in range(0, self.n_trees, step):
            block = leaves[first : first + step]
            roots = np.arange(first, first + len(block)).repeat(n)
            starts = np.tile(np.arange(n) * width, len(block))
            block[:] = self._descend(flat, roots, starts).reshape(block.shape)
        return leaves

    def _descend(self, flat: NDArray[np.float32], node: NDArray[np.intp], start: NDArray[np.intp]) -> NDArray[np.intp]:
        """Walk from each `node` to its leaf; the pair's row starts at `start` of `flat`."""
        reached = np.empty(len(node), dtype=np.intp)
        pair, level = np.arange(len(node)), 0
        while len(node):
            split = self._nodes.take(node)
            level += 1
            if level % _LOOK == 0:
                under_way = np.flatnonzero(split["feature"] != 2 * self.n_features)
                if len(under_way) < len(node):
                    reached[pair] = node
                    pair, start, split = pair.take(under_way), start.take(under_way), split.take(under_way)
            below = flat.take(split["feature"] + start) <= split["threshold"]
            node = split["right"] - below  # the left child is the node before
        return reached

    @cached_property
    def _compiled(self) -> list[tuple[Any, NDArray[Any]]]:
        """Each tree as scikit-learn's own, with its values; made for the first large request, 72 bytes a node."""
        ends = np.cumsum(self._arrays["tree_sizes"])
        pieces = [slice(end - size, end) for end, size in zip(ends, self._arrays["tree_sizes"], strict=True)]
        return [(_compile(self._arrays, piece, self.n_features), self._arrays["value"][piece]) for piece in pieces]

    def _credits(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        node = self._leaves(rows).ravel()
        start = np.tile(np.arange(len(rows)) * self.n_features, self.n_trees)
        credit = np.zeros(rows.size)
        while True:
            below_root = node >= self.n_trees
            node, start = node[below_root], start[below_root]
            if not len(node):
                return credit.reshape(rows.shape) / self.n_trees
            parent = self._parents[(node - self.n_trees) // 2]
            gain = self._values[node].astype(np.float64) - self._values[parent]
            feature = self._nodes["feature"][parent] % self.n_features
            credit += np.bincount(start + feature, weights=gain, minlength=len(credit))
            node = parent


def _both_ways(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return each row with its missing values as they are, which go right, then as -inf, which go left, then a zero.

    One comparison then serves all nodes: a split that sends missing values left reads the second copy, and a leaf
    compares the zero with infinity to stay where it is.
    """
    n, width = rows.shape
    seen = np.zeros((n, 2 * width + 1), dtype=np.float32)
    seen[:, :width] = rows
    seen[:, width:-1] = np.where(np.isnan(rows), np.float32(-np.inf), rows)
    return seen


def _pack(
    arrays: Mapping[str, NDArray[Any]], n_features: int
) -> tuple[NDArray[np.void], NDArray[Any], NDArray[np.intp]]:
    """Return the nodes renumbered for the walk, their values, and the parents of each pair of children.

    The roots come first, then the two children of each split side by side, in the order of the splits: one number
    leads to both, and subtrees stay together in memory.
    """
    sizes = arrays["tree_sizes"].astype(np.intp)
    total, roots = len(arrays["left"]), np.cumsum(sizes) - sizes
    split = np.flatnonzero(arrays["left"] != _LEAF)
    right = len(sizes) + 1 + 2 * np.arange(len(split))
    number = np.empty(total, dtype=np.intp)
    number[roots], number[arrays["left"][split]], number[arrays["right"][split]] = range(len(sizes)), right - 1, right
    parents = number[split]
    nodes = np.empty(total, dtype=_NODE)
    nodes["threshold"], nodes["feature"], nodes["right"] = np.inf, 2 * n_features, np.arange(1, total + 1)
    nodes["threshold"][parents], nodes["right"][parents] = arrays["threshold"][split], right
    nodes["feature"][parents] = arrays["feature"][split] + n_features * (arrays["missing_left"][split] != 0)
    values = np.empty_like(arrays["value"])
    values[number] = arrays["value"]
    return nodes, values, parents


def _compile(arrays: Mapping[str, NDArray[Any]], piece: slice, n_features: int) -> Any:
    """Build scikit-learn's tree from the nodes of one tree."""
    tree = Tree(n_features, np.array([1], dtype=np.intp), 1)
    left, right = arrays["left"][piece], arrays["right"][piece]
    leaf = left == _LEAF
    nodes = np.zeros(len(left), dtype=tree.__getstate__()["nodes"].dtype)
    nodes["left_child"] = np.where(leaf, _LEAF, left - piece.start)
    nodes["right_child"] = np.where(leaf, _LEAF, right - piece.start)
    nodes["feature"] = np.where(leaf, -2, arrays["feature"][piece])
    nodes["threshold"] = arrays["threshold"][piece]
    nodes["missing_go_to_left"] = arrays["missing_left"][piece]
    values = np.zeros((len(left), 1, 1))  # only `apply` is called
    tree.__setstate__({"max_depth": 1, "node_count": len(left), "nodes": nodes, "values": values})
    return tree


def _end_to_end(parts: Sequence[Mapping[str, NDArray[Any]]], n_features: int) -> dict[str, NDArray[Any]]:
    """Join trees or forests that number their nodes from 0."""
    sizes = [len(part["left"]) for part in parts]
    starts = np.cumsum([0, *sizes[:-1]])
    joined = {name: np.concatenate([part[name] for part in parts]) for name in (*_DTYPES, "value")}
    leaf, shift = joined["left"] == _LEAF, starts.repeat(sizes)
    for side in ("left", "right"):
        joined[side] = np.where(leaf, _LEAF, joined[side] + shift)
    joined = {name: values.astype(_DTYPES.get(name, values.dtype)) for name, values in joined.items()}
    return joined | {"n_features": np.array(n_features)}


def _sklearn_tree(tree: Any, value: NDArray[Any]) -> dict[str, NDArray[Any]]:
    nodes = tree.__getstate__()["nodes"]
    leaf = nodes["left_child"] == _LEAF
    return {
        "left": nodes["left_child"],
        "right": nodes["right_child"],
        "feature": np.where(leaf, 0, nodes["feature"]),
        "threshold": floor32(np.where(leaf, 0.0, nodes["threshold"])),
        "missing_left": nodes["missing_go_to_left"],
        "value": np.asarray(value),
        "tree_sizes": np.array([len(nodes)]),
    }


def _fields(text: str) -> dict[str, str]:
    """Return the ``name=value`` lines of a section of LightGBM's model text."""
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def _check_booster(header: Mapping[str, str], n_trees: int) -> None:
    if header.get("version") != "v4":
        raise ValueError(f"a LightGBM model must be written as version v4: found {header.get('version')}.")
    if header["num_tree_per_iteration"] != "1":
        raise ValueError(f"a LightGBM model must have one output: found {header['num_tree_per_iteration']}.")
    name, *options = header.get("objective", "none").split()
    if name not in _IDENTITY or "sqrt" in options:
        known = ", ".join(sorted(_IDENTITY))
        found = " ".join([name, *options])
        raise ValueError(f"a LightGBM objective must be one of {known}, without reg_sqrt: found {found}.")
    if not n_trees:
        raise ValueError("a LightGBM model must be trained: found no trees.")


def _lightgbm_tree(fields: Mapping[str, str], scale: int) -> dict[str, NDArray[Any]]:
    """Return one tree; its inner nodes come first, then its leaves."""
    kinds = _numbers(fields, "decision_type", np.int64)
    missing = (kinds >> 2) & 3
    _check_tree(fields, kinds, missing)
    threshold = _numbers(fields, "threshold")
    inner, leaves = len(kinds), int(fields["num_leaves"])
    children = [_numbers(fields, f"{side}_child", np.int64) for side in ("left", "right")]
    children = [np.where(child < 0, inner + ~child, child) for child in children]
    # Where nothing counts as missing, LightGBM reads NaN as zero.
    missing_left = np.where(missing == _MISSING_NONE, threshold >= 0, (kinds & _DEFAULT_LEFT) != 0)
    no_child, zeros = np.full(leaves, _LEAF), np.zeros(leaves)
    return {
        "left": np.concatenate([children[0], no_child]),
        "right": np.concatenate([children[1], no_child]),
        "feature": np.concatenate([_numbers(fields, "split_feature", np.int64), zeros]),
        "threshold": np.concatenate([floor32(_around_zero(threshold)), zeros]),
        "missing_left": np.concatenate([missing_left, zeros]),
        "value": (scale * _node_means(fields, children)).astype(np.float32),
        "tree_sizes": np.array([inner + leaves]),
    }


def _check_tree(fields: Mapping[str, str], kinds: NDArray[np.int64], missing: NDArray[np.int64]) -> None:
    if (kinds & _CATEGORICAL).any():
        raise ValueError("splits of a LightGBM model must be numeric: found a categorical one.")
    if (missing == _MISSING_ZERO).any():
        raise ValueError("zero must be a number like others in a LightGBM model: found zero_as_missing.")
    if fields.get("is_linear", "0") != "0":
        raise ValueError("leaves of a LightGBM model must be constants: found linear_tree.")


def _around_zero(threshold: NDArray[np.float64]) -> NDArray[np.float64]:
    """Move thresholds next to zero to where they take effect: LightGBM reads the smallest features as zero."""
    lowest = np.nextafter(-_ZERO, np.float32(-np.inf))
    raised = np.where((threshold >= 0) & (threshold < _ZERO), _ZERO, threshold)
    return np.where((threshold < 0) & (threshold >= -_ZERO), lowest, raised)


def _node_means(fields: Mapping[str, str], children: Sequence[NDArray[np.int64]]) -> NDArray[np.float64]:
    """Return for each node the mean of the leaves below it, weighted by their training rows."""
    inner = len(children[0])
    value = _numbers(fields, "leaf_value")
    rows = np.maximum(_numbers(fields, "leaf_count"), 1)
    weights = [0.0] * inner + rows.tolist()
    totals = [0.0] * inner + (rows * value).tolist()
    for node in reversed(range(inner)):  # a child is numbered after its parent
        below = int(children[0][node]), int(children[1][node])
        weights[node] = sum(weights[child] for child in below)
        totals[node] = sum(totals[child] for child in below)
    return np.concatenate([np.divide(totals[:inner], weights[:inner]), value])


def _numbers(fields: Mapping[str, str], name: str, dtype: type = np.float64) -> NDArray[Any]:
    return np.array(fields[name].split(), dtype=dtype)
