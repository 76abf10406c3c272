"""AnomalyDetectionModel: which readings are strange for this sensor at this hour, how strange, and why."""

from __future__ import annotations

import logging
import numbers
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.ensemble import IsolationForest
from sklearn.preprocessing import StandardScaler

from smartgrid_pyfunc.features.calendar import check_timezone
from smartgrid_pyfunc.features.profile import DEVIATIONS, LEVELS, Profile
from smartgrid_pyfunc.features.readings import ReadingContext, parse_readings, read_context
from smartgrid_pyfunc.forest import Forest
from smartgrid_pyfunc.models.boundary import read_table, refusing_bad_input
from smartgrid_pyfunc.models.reasons import NO_VALUE, explain, say_conflicts
from smartgrid_pyfunc.models.state import StoredModel, load_state, save_state, under_prefix, with_prefix
from smartgrid_pyfunc.schema import InputError, format_timestamps

BASE = ("value", "hour_of_day", "day_of_week", "latitude", "longitude", "sensor_type")
ANSWER = (
    "sensor_id",
    "timestamp",
    "is_anomaly",
    "anomaly_score",
    "p_value",
    "expected_value",
    "lower",
    "upper",
    "reason",
    "profile",
)
_CALIBRATION_SHARE = 0.25  # of the time, at its end
_MAX_ROWS = 200_000  # readings that the forest draws its samples from
_MAX_CALIBRATION = 20_000  # readings of the calibration window that are kept
_MIN_READINGS = 200
_LARGEST = 1e6  # spreads from the usual value: one absurd training value must not flatten the scaled feature
_STRANGEST = 1e4  # surprise beyond which nothing is stranger

# What a reading's sensor has earlier readings for, as bits: the one before (1), a day (2) and a week before (4).
_NEEDED = np.array([{"value": 0, "day_change": 2, "week_change": 4}.get(name, 1) for name in DEVIATIONS])
_HISTORIES = (0, 1, 3, 5, 7)
_CHANGES = [DEVIATIONS.index(name) for name in ("day_change", "week_change", "step")]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class AnomalyParams:
    """Training parameters of `AnomalyDetectionModel`.

    Attributes
    ----------
    contamination : float
        Share of strange readings expected, 0…0.5; goes to the IsolationForest too.
    false_alarm_rate : float, optional
        Share of normal readings that may be flagged; default `contamination`. A reading is flagged if its p-value is
        not above it.
    n_estimators, random_state : int
        As in scikit-learn's IsolationForest.
    timezone : str
        IANA zone of the sensors' local clock.
    """

    contamination: float = 0.01
    false_alarm_rate: float | None = None
    n_estimators: int = 100
    random_state: int = 42
    timezone: str = "UTC"

    @property
    def alarm_rate(self) -> float:
        """The false-alarm rate in force."""
        return self.contamination if self.false_alarm_rate is None else self.false_alarm_rate


def _check(params: AnomalyParams) -> None:
    check_timezone(params.timezone)
    for name, rate in (("contamination", params.contamination), ("false_alarm_rate", params.alarm_rate)):
        if isinstance(rate, bool) or not isinstance(rate, numbers.Real) or not 0 < rate <= 0.5:
            raise InputError(f"{name} must lie above 0 and not above 0.5", found=repr(rate))
    for name, number, least in (("n_estimators", params.n_estimators, 1), ("random_state", params.random_state, 0)):
        if isinstance(number, bool) or not isinstance(number, numbers.Integral) or number < least:
            raise InputError(f"{name} must be a whole number of at least {least}", found=repr(number))


class AnomalyDetectionModel(StoredModel):
    """Isolation forest on a reading's base features and on how surprising it is in the light of its sensor's profile.

    Parameters
    ----------
    **params
        See `AnomalyParams`.

    Notes
    -----
    Liu, Ting & Zhou (2008), "Isolation forest", ICDM. P-values are conformal, from the scores of a later window:
    Laxhammar & Falkman (2014); they are uniform on readings that are exchangeable with that window. A reading is
    compared with scores made from as much history as it has itself (Mondrian: Vovk, Gammerman & Shafer 2005, ch. 4),
    so that a request without history raises no more false alarms than one with a week of it.
    """

    def __init__(self, **params: Any) -> None:
        self.params = AnomalyParams(**params)
        _check(self.params)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the training parameters by name; `deep` is there for scikit-learn's convention."""
        return asdict(self.params)

    def fit(self, readings: pd.DataFrame) -> AnomalyDetectionModel:
        """Learn what is usual from readings of any number of sensors; labels are not looked at.

        Parameters
        ----------
        readings : DataFrame
            Columns ``sensor_id, sensor_type, timestamp, value`` and, as far as known, ``latitude, longitude``. Stays
            unchanged.

        Returns
        -------
        AnomalyDetectionModel
            Itself. With a profile that has not seen the last quarter of the time, the forest scores that quarter: this
            gives the p-values. The final profile then learns from all readings.

        Raises
        ------
        InputError
            For bad rows and too little data.
        """
        context = read_context(parse_readings(readings), self.params.timezone)
        time = context.rows["timestamp"].to_numpy().astype(np.int64)
        if len(time) < _MIN_READINGS:
            raise InputError(f"training needs at least {_MIN_READINGS} readings with a value", found=len(time))
        cut = np.quantile(time, 1 - _CALIBRATION_SHARE)
        self._profile = Profile.fit(_select(context, time <= cut))
        self._fit_forest(context)
        self._calibrate(_select(context, time > cut))
        # The forest stays: scores of another one would not compare with those of the calibration.
        self._profile = Profile.fit(context)
        return self

    def _calibrate(self, later: ReadingContext) -> None:
        """Score readings that the model has not seen, once for each extent of history."""
        n, needed = len(later.rows), int(np.ceil(1 / self.params.alarm_rate)) - 1
        if n < needed:
            raise InputError(
                f"a false_alarm_rate of {self.params.alarm_rate:g} needs {needed} readings in the last quarter",
                found=n,
                remedy="give more readings or a higher rate",
            )
        later = _select(later, np.linspace(0, n - 1, min(n, _MAX_CALIBRATION)).astype(np.int64))
        group, _ = self._profile.group_of(later.rows)
        surprise = self._surprise(group, later)
        own = _history(surprise)
        self._calibration = {}
        for history in _HISTORIES:
            enough = (own & history) == history
            used = np.flatnonzero(enough if enough.sum() >= needed else np.ones(len(own), dtype=bool))
            hidden = np.where(_NEEDED & ~history, np.nan, surprise[used])
            scores = np.sort(self._score(group[used], _select(later, used), hidden))
            self._calibration[history] = _without_outliers(scores)
        _log.info("calibrated on %d later readings", len(own))

    def _fit_forest(self, context: ReadingContext) -> None:
        rng = np.random.default_rng(self.params.random_state)
        self._types = np.array(sorted(set(context.rows["sensor_type"])), dtype=object)
        n = len(context.rows)
        chosen = np.sort(rng.choice(n, _MAX_ROWS, replace=False)) if n > _MAX_ROWS else np.arange(n)
        sample = _select(context, chosen)
        group, _ = self._profile.group_of(sample.rows)
        with np.errstate(invalid="ignore"):  # a column without any coordinate stays unknown
            self._scaler = StandardScaler().fit(self._base_features(group, sample))
        surprise = self._surprise(group, sample)
        self._ordinary = pd.DataFrame(surprise).median().fillna(0.0).to_numpy()
        features = self._features(group, sample, surprise)
        options = {"n_estimators": self.params.n_estimators, "contamination": self.params.contamination}
        forest = IsolationForest(random_state=self.params.random_state, n_jobs=1, **options).fit(features)
        self._forest, self._depth_unit = _paths(forest)
        self._ranks = np.sort(self._forest_score(features[:: max(1, len(features) // _MAX_CALIBRATION)]))

    def _base_features(self, group: NDArray[np.int64], context: ReadingContext) -> NDArray[np.float64]:
        rows, profile = context.rows, self._profile
        with np.errstate(over="ignore"):
            value = (rows["value"].to_numpy() - profile.location[group]) / profile.scale[group]
        return np.column_stack(
            [
                np.clip(value, -_LARGEST, _LARGEST),
                context.hour_of_week % 24,
                context.hour_of_week // 24,
                rows["latitude"].to_numpy(),
                rows["longitude"].to_numpy(),
                np.searchsorted(self._types.astype(str), rows["sensor_type"].to_numpy().astype(str)),
            ]
        )

    def _surprise(self, group: NDArray[np.int64], context: ReadingContext) -> NDArray[np.float64]:
        return self._profile.surprise(group, self._profile.deviations(group, context))

    def _features(
        self, group: NDArray[np.int64], context: ReadingContext, surprise: NDArray[np.float64]
    ) -> NDArray[np.float32]:
        base = self._base_features(group, context)
        if len(base):  # scikit-learn's scaler refuses an empty array
            base = self._scaler.transform(base)
        known = self._evidence(surprise)
        off = self._profile.deviations(group, context)[:, :1]
        # The tree's thresholds are drawn evenly over a feature's range: the root keeps apart what is strange and what
        # is absurd. The highest surprise finds what only one kind of evidence tells, and the deviation in spreads is
        # not dulled by strange readings that a sensor had in training.
        tails = np.sqrt(np.minimum(np.column_stack([known, known.max(axis=1), off]), _STRANGEST))
        return np.hstack([base, tails]).astype(np.float32)

    def _evidence(self, surprise: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what each deviation tells, shape (m, len(DEVIATIONS)).

        What is not known is ordinary, and a change is believed only as far as the value itself surprises: the return
        from a fault is a change too.
        """
        known = np.where(np.isnan(surprise), self._ordinary, surprise)
        known[:, _CHANGES] = np.minimum(known[:, _CHANGES], known[:, :1])
        return known

    def _score(
        self, group: NDArray[np.int64], context: ReadingContext, surprise: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return the anomaly score [nats], higher = stranger: the strongest evidence plus the forest's own surprise.

        Both are -log tail probabilities, as in Fisher's way to combine tests: the forest weighs all features together,
        the strongest evidence keeps a single clear sign from being diluted among them.
        """
        forest = self._forest_score(self._features(group, context, surprise))
        n = len(self._ranks)
        tail = (n - np.searchsorted(self._ranks, forest, side="left") + 1) / (n + 1)
        score: NDArray[np.float64] = np.minimum(self._evidence(surprise).max(axis=1), _STRANGEST) - np.log(tail)
        return score

    def _forest_score(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Score of the forest alone, 0…1, higher = stranger: 2^(-mean path length / expected path length)."""
        return np.exp2(-self._forest.mean(features) / self._depth_unit)

    def _p_value(self, score: NDArray[np.float64], history: NDArray[np.int64]) -> NDArray[np.float64]:
        """Share of the calibration window that is at least as strange, the reading itself counted."""
        result = np.empty(len(score))
        for extent, scores in self._calibration.items():
            mine, n = history == extent, len(scores)
            result[mine] = (n - np.searchsorted(scores, score[mine], side="left") + 1) / (n + 1)
        return result

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Answer row for row, in the request's order; earlier rows of a sensor are its history. Learns nothing.

        Raises
        ------
        MlflowException
            With an error code that the server answers with status 400, and one sentence.
        """
        with refusing_bad_input():
            rows = parse_readings(read_table(model_input))
        return self._answer(rows, read_context(rows, self.params.timezone))

    def _answer(self, rows: pd.DataFrame, context: ReadingContext) -> pd.DataFrame:
        group, level = self._profile.group_of(context.rows)
        surprise = self._surprise(group, context)
        score = self._score(group, context, surprise)
        p_value = self._p_value(score, _history(surprise))
        flagged = p_value <= self.params.alarm_rate
        expected = self._profile.expected(group, context.hour_of_week)
        width = self._profile.half_width(group, context.hour_of_week, self.params.alarm_rate)
        reason = explain(context, flagged, surprise, expected, width, self.params.timezone)
        say_conflicts(reason, context)
        found = {
            "is_anomaly": flagged,
            "anomaly_score": score,
            "p_value": p_value,
            "expected_value": expected,
            "lower": expected - width,
            "upper": expected + width,
            "reason": reason,
            "profile": np.array(LEVELS, dtype=object)[level],
        }
        return self._spread_to_rows(rows, context.position, found)

    def _spread_to_rows(
        self, rows: pd.DataFrame, position: NDArray[np.int64], found: dict[str, NDArray[Any]]
    ) -> pd.DataFrame:
        """Bring answers of distinct readings back to the request's rows; rows without a value are flagged."""
        valued = position >= 0
        columns: dict[str, Any] = {
            "sensor_id": rows["sensor_id"].to_numpy(dtype=object),
            "timestamp": format_timestamps(rows["timestamp"].to_numpy()),
        }
        if valued.all():
            columns |= {name: values[position] for name, values in found.items()}
        else:
            columns |= {name: _placed(values, position, valued) for name, values in found.items()}
            columns["is_anomaly"] = np.where(valued, columns["is_anomaly"], True).astype(bool)
            columns["reason"][~valued] = NO_VALUE
            columns["profile"][~valued] = self._levels_of(rows[~valued])
        return pd.DataFrame({name: _column(columns[name]) for name in ANSWER})

    def _levels_of(self, rows: pd.DataFrame) -> NDArray[np.object_]:
        return np.array(LEVELS, dtype=object)[self._profile.group_of(rows)[1]]

    @property
    def scaler(self) -> StandardScaler:
        """The fitted scaler of the base features."""
        return self._scaler

    def save(self, folder: Path) -> None:
        """Write the fitted model into the existing `folder`, as arrays and JSON."""
        arrays = with_prefix("forest", self._forest.to_arrays()) | with_prefix("profile", self._profile.to_arrays())
        arrays |= with_prefix("calibration", {str(history): s for history, s in self._calibration.items()})
        arrays |= {"types": self._types, "ordinary": self._ordinary, "ranks": self._ranks}
        arrays |= {"scaler_mean": self._scaler.mean_, "scaler_scale": self._scaler.scale_}
        save_state(folder, arrays, {"params": self.get_params(), "depth_unit": self._depth_unit})

    def _restore(self, folder: Path) -> None:
        arrays, settings = load_state(folder)
        self.params = AnomalyParams(**settings["params"])
        self._depth_unit = settings["depth_unit"]
        self._types, self._ordinary = arrays["types"], arrays["ordinary"]
        self._ranks = arrays["ranks"]
        self._calibration = {int(history): s for history, s in under_prefix("calibration", arrays).items()}
        self._scaler = _scaler(arrays["scaler_mean"], arrays["scaler_scale"])
        self._forest = Forest.from_arrays(under_prefix("forest", arrays))
        self._profile = Profile.from_arrays(under_prefix("profile", arrays))

    @property
    def sensors(self) -> Sequence[str]:
        """Sensors with a profile of their own, sorted."""
        return [str(s) for s in self._profile.sensors]


def feature_names() -> tuple[str, ...]:
    """Return the names of the forest's features, in order."""
    return (*BASE, *(f"surprise_{name}" for name in DEVIATIONS), "highest_surprise", "deviation")


def _history(surprise: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return what each reading has earlier readings for, bits as in `_NEEDED`, shape (m,)."""
    result: NDArray[np.int64] = np.bitwise_or.reduce(np.where(np.isnan(surprise), 0, _NEEDED), axis=1)
    return result


def _without_outliers(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Drop from sorted `scores` those that the tail of the others cannot explain: faults in the calibration window.

    Scores are -log tail probabilities, so the tail of normal ones is about exponential; its rate comes from the median
    and the 95 % quantile. The limit is what one of twenty windows without faults would exceed.
    """
    middle, high = np.quantile(scores, [0.5, 0.95])
    scale = (high - middle) / np.log(10)
    limit = high + scale * (np.log(0.05 * len(scores)) + 3.0)
    return scores[: max(int(np.searchsorted(scores, limit, side="right")), 1)]


def _select(context: ReadingContext, index: NDArray[Any]) -> ReadingContext:
    rows = context.rows.iloc[index].reset_index(drop=True)
    return ReadingContext(
        rows, context.hour_of_week[index], context.context[index], context.conflicting[index], np.arange(len(rows))
    )


def _column(values: NDArray[Any]) -> pd.Series[Any]:
    """Return a column of the array's own type: pandas would turn None among texts into NaN, which is not JSON."""
    return pd.Series(values, dtype=values.dtype)


def _placed(values: NDArray[Any], position: NDArray[np.int64], valued: NDArray[np.bool_]) -> NDArray[np.object_]:
    result = np.full(len(position), None, dtype=object)
    result[valued] = values[position[valued]]
    return result


def _scaler(mean: NDArray[np.float64], scale: NDArray[np.float64]) -> StandardScaler:
    scaler = StandardScaler()
    scaler.mean_, scaler.scale_, scaler.var_ = mean, scale, scale**2
    scaler.n_features_in_, scaler.n_samples_seen_ = len(mean), 1
    return scaler


def _paths(forest: IsolationForest) -> tuple[Forest, float]:
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
