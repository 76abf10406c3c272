"""The anomaly score: an isolation forest on base features and evidence, and the strongest evidence, remembered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import IsolationForest
from sklearn.preprocessing import StandardScaler

from smartgrid_pyfunc.features.profile import DEVIATIONS, mean_before, trailing_mean
from smartgrid_pyfunc.features.readings import ReadingContext
from smartgrid_pyfunc.forest import Forest
from smartgrid_pyfunc.models.state import under_prefix, with_prefix

BASE = ("value", "hour_of_day", "day_of_week", "latitude", "longitude", "sensor_type")
#: What can speak against a reading, each from the best knowledge that its history allows.
EVIDENCE = ("value", "ratio", "level", "flat_hours")
#: Extents of history: none, an earlier reading, as many as are remembered, the same hour of earlier days too.
EXTENTS = ALONE, AFTER_ONE, AFTER_SOME, AFTER_DAYS = range(4)

_AT = {name: i for i, name in enumerate(DEVIATIONS)}
_DAYS = [_AT["day_value"], _AT["day_ratio"], _AT["level"]]
_MAX_ROWS = 50_000  # readings that the forest draws its samples from, and that rank its scores
_LARGEST = 1e6  # spreads from the usual value: one absurd training value must not flatten the scaled feature
REMEMBERED = 12  # readings, the last one included
_MEMORY = 0.5  # weight of what the last readings told
_MOST_REMEMBERED = 20.0  # nats that a reading leaves behind at most
_MOST_LASTING = 15.0  # nats of a reading that count as lasting at most: what is far stranger stays strange for weeks
_ROWS = 65_536  # at a time: features of ten million readings at once would fill the memory


def history_of(surprise: NDArray[np.float64], earlier: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the extent of the history that each reading is judged with, shape (m,).

    Parameters
    ----------
    surprise : ndarray, shape (m, len(DEVIATIONS))
    earlier : ndarray of int64, shape (m,)
        How many earlier readings there are.
    """
    some = np.where(earlier >= REMEMBERED - 1, AFTER_SOME, AFTER_ONE)
    extent = np.where(np.isnan(surprise[:, _AT["flat_hours"]]), ALONE, some)
    return np.where(np.isnan(surprise[:, _AT["day_value"]]), extent, AFTER_DAYS)


def without_history(surprise: NDArray[np.float64], extent: int) -> NDArray[np.float64]:
    """Return `surprise` as it would be with no more history than `extent`."""
    hidden = surprise.copy()
    if extent < AFTER_DAYS:
        hidden[:, _DAYS] = np.nan
    if extent < AFTER_ONE:
        hidden[:, _AT["flat_hours"]] = np.nan
    return hidden


class Scorer:
    """What readings score, from their surprise.

    Notes
    -----
    Liu, Ting & Zhou (2008), "Isolation forest", ICDM. Its score, as a -log tail probability among training readings,
    is added to the evidence, -log tail probabilities as well (Fisher's way to combine tests): half of the strongest,
    so that a single clear sign is not diluted, and half of the sum, so that several signs count together. What the
    sensor has shown all week is taken off: a sensor that is strange every day has changed, and nothing happens now.
    Half of the mean over the last twelve readings is added: a fault that goes on is stranger than one odd reading
    among normal ones. Without a week, or without so many readings, these count as usual.
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._types, self._ordinary, self._ranks = arrays["types"], arrays["ordinary"], arrays["ranks"]
        self._mean, self._deviation = arrays["scaler_mean"], arrays["scaler_scale"]
        self._depth_unit, self._usual = float(arrays["depth_unit"]), float(arrays["usual"])
        self._forest = Forest.from_arrays(under_prefix("forest", arrays))

    @classmethod
    def fit(
        cls, context: ReadingContext, off: NDArray[np.float64], surprise: NDArray[np.float64], **options: Any
    ) -> Scorer:
        """Grow the forest on training readings.

        Parameters
        ----------
        context : ReadingContext
            m readings.
        off : ndarray, shape (m,)
            Deviation of the value [spreads].
        surprise : ndarray, shape (m, len(DEVIATIONS))
            As of readings that the profile has not seen.
        **options
            Of scikit-learn's IsolationForest.
        """
        rng, m = np.random.default_rng(options["random_state"]), len(context)
        chosen = np.sort(rng.choice(m, _MAX_ROWS, replace=False)) if m > _MAX_ROWS else np.arange(m)
        types = np.array(sorted(context.rows.sensor_type.names), dtype=object)
        base = _base(types, context, off, chosen)
        with np.errstate(invalid="ignore"):  # a column without any coordinate stays unknown
            scaler = StandardScaler().fit(base)
        evidence = _merged(surprise[chosen])
        known = ~np.isnan(evidence)
        ordinary = [np.median(column[k]) if k.any() else 0.0 for column, k in zip(evidence.T, known.T, strict=True)]
        parts = {"types": types, "ordinary": np.array(ordinary), "scaler_mean": scaler.mean_}
        parts |= {"scaler_scale": scaler.scale_, "ranks": np.empty(0), "usual": np.array(0.0)}
        evidence = np.where(known, evidence, ordinary)
        features = _features((base - scaler.mean_) / scaler.scale_, evidence)
        forest, unit = isolation_paths(IsolationForest(n_jobs=1, **options).fit(features))
        parts |= with_prefix("forest", forest.to_arrays()) | {"depth_unit": np.array(unit)}
        scorer = cls(parts)
        scorer._ranks = np.sort(scorer.forest_score(features))
        scorer._usual = float(np.minimum(scorer.alone(features, evidence), _MOST_LASTING).mean())
        return scorer

    def evidence(self, surprise: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what each kind of evidence tells, shape (m, len(EVIDENCE)) [nats]; what is not known is ordinary."""
        evidence = _merged(surprise)
        return np.where(np.isnan(evidence), self._ordinary, evidence)

    def features(
        self, context: ReadingContext, off: NDArray[np.float64], evidence: NDArray[np.float64], rows: Any = slice(None)
    ) -> NDArray[np.float32]:
        """Return the forest's features, shape (m, len(feature_names())); `evidence` is that of the readings `rows`."""
        base = _base(self._types, context, off, rows)
        return _features((base - self._mean) / self._deviation, evidence)

    def forest_score(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Score of the forest alone, 0…1, higher = stranger: 2^(-mean path length / expected path length)."""
        return np.exp2(-self._forest.mean(features) / self._depth_unit)

    def alone(self, features: NDArray[np.float32], evidence: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what each reading scores by itself, shape (m,) [nats]."""
        n = len(self._ranks)
        tail = (n - np.searchsorted(self._ranks, self.forest_score(features), side="left") + 1) / (n + 1)
        score: NDArray[np.float64] = (evidence.max(axis=1) + evidence.sum(axis=1)) / 2 - np.log(tail)
        return score

    def score(
        self,
        context: ReadingContext,
        off: NDArray[np.float64],
        evidence: NDArray[np.float64],
        extent: NDArray[np.int64],
    ) -> NDArray[np.float64]:
        """Return the anomaly score [nats], higher = stranger; `extent` is that of `history_of`."""
        return self.remembered(self.fresh(context, off, evidence, extent), context.first, context.end)

    def fresh(
        self,
        context: ReadingContext,
        off: NDArray[np.float64],
        evidence: NDArray[np.float64],
        extent: NDArray[np.int64],
    ) -> NDArray[np.float64]:
        """Return what each reading scores by itself, less what the last week of its sensor did beyond the usual."""
        parts = [slice(start, start + _ROWS) for start in range(0, len(off), _ROWS)]
        each = [self.alone(self.features(context, off, evidence[part], part), evidence[part]) for part in parts]
        alone = np.concatenate(each) if each else np.empty(0)
        if (extent < AFTER_DAYS).all():
            return alone
        lasting = mean_before(alone, context.week, context.end, _MOST_LASTING) - self._usual
        return alone - np.where(extent == AFTER_DAYS, np.fmax(lasting, 0.0), 0.0)

    def remembered(
        self, fresh: NDArray[np.float64], first: NDArray[np.int64], end: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Add to what readings score by themselves what the last ones did; see `trailing_mean`."""
        mean = trailing_mean(fresh, first, end, REMEMBERED, _MOST_REMEMBERED)
        return fresh + _MEMORY * np.where(np.isnan(mean), self._usual, mean)

    @property
    def scaler(self) -> StandardScaler:
        """The fitted scaler of the base features."""
        scaler = StandardScaler()
        scaler.mean_, scaler.scale_, scaler.var_ = self._mean, self._deviation, self._deviation**2
        scaler.n_features_in_, scaler.n_samples_seen_ = len(BASE), 1
        return scaler

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the state as arrays."""
        arrays = {"types": self._types, "ordinary": self._ordinary, "ranks": self._ranks}
        arrays |= {"scaler_mean": self._mean, "scaler_scale": self._deviation, "depth_unit": np.array(self._depth_unit)}
        arrays["usual"] = np.array(self._usual)
        return arrays | with_prefix("forest", self._forest.to_arrays())


def feature_names() -> tuple[str, ...]:
    """Return the names of the forest's features, in order."""
    return (*BASE, *(f"surprise_{name}" for name in EVIDENCE))


def _merged(surprise: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return one column for each kind of evidence, shape (m, len(EVIDENCE)): against the last days where they are."""
    days = surprise[:, [_AT["day_value"], _AT["day_ratio"]]]
    merged = surprise[:, [_AT["value"], _AT["ratio"], _AT["level"], _AT["flat_hours"]]]
    merged[:, :2] = np.where(np.isnan(days), merged[:, :2], days)
    return merged


def _base(
    types: NDArray[np.object_], context: ReadingContext, off: NDArray[np.float64], rows: Any
) -> NDArray[np.float64]:
    readings, hour = context.rows, context.hour_of_week[rows]
    kind = np.searchsorted(types.astype(str), readings.sensor_type.names.astype(str))
    base = np.empty((len(hour), len(BASE)))
    base[:, 0] = np.clip(off[rows], -_LARGEST, _LARGEST)
    base[:, 1], base[:, 2] = hour % 24, hour // 24
    base[:, 3], base[:, 4] = readings.latitude[rows], readings.longitude[rows]
    base[:, 5] = kind[readings.sensor_type.code[rows]]
    return base


def _features(base: NDArray[np.float64], evidence: NDArray[np.float64]) -> NDArray[np.float32]:
    """Join the features. The root keeps apart what is usual and what is strange for thresholds drawn evenly."""
    features = np.empty((len(base), base.shape[1] + evidence.shape[1]), dtype=np.float32)
    features[:, : base.shape[1]] = base
    features[:, base.shape[1] :] = np.sqrt(evidence)
    return features


def isolation_paths(forest: IsolationForest) -> tuple[Forest, float]:
    """Return the forest with path lengths at its leaves, and the expected path length of its sample size.

    Liu, Ting & Zhou (2008), eq. 1 and 2: a leaf that holds n samples counts its depth plus c(n).
    """
    trees = [estimator.tree_ for estimator in forest.estimators_]
    values = [_depths(tree) + _average_path(tree.n_node_samples) for tree in trees]
    return Forest.from_trees(trees, values), float(_average_path(np.array([forest.max_samples_]))[0])


def _depths(tree: Any) -> NDArray[np.float64]:
    depth = np.zeros(tree.node_count)
    for node in range(tree.node_count):
        for child in (tree.children_left[node], tree.children_right[node]):
            if child >= 0:
                depth[child] = depth[node] + 1
    return depth


def _average_path(n: NDArray[np.int64]) -> NDArray[np.float64]:
    """Average path length c(n) of an unsuccessful search in a binary search tree of n samples."""
    large = np.maximum(n, 3).astype(np.float64)
    length = 2.0 * (np.log(large - 1.0) + np.euler_gamma) - 2.0 * (large - 1.0) / large
    return np.where(n <= 1, 0.0, np.where(n == 2, 1.0, length))
