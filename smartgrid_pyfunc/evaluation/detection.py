"""What a detector is worth where labels exist, and the baseline that it must beat.

A pair with a missing label or score is dropped; a measure that is undefined (no positives, nothing flagged) is NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from smartgrid_pyfunc.schema import InputError, require_columns

_MAD_TO_SIGMA = 1.4826  # makes the MAD a consistent estimate of a normal's standard deviation
_SENSOR_SHARE = 0.1  # an hour is never taken to be steadier than a tenth of its sensor
_LEVEL_SHARE = 1e-3  # nor than a thousandth of the sensor's level
_TINY = 1e-9
_WEEK_SECONDS = 7 * 24 * 3600.0


def _pairs(labels: ArrayLike, values: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    truth, other = np.asarray(labels, dtype=np.float64), np.asarray(values, dtype=np.float64)
    keep = ~(np.isnan(truth) | np.isnan(other))
    return truth[keep] > 0, other[keep]


def average_precision(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return the area under the precision-recall curve as a step sum; NaN without an anomaly.

    Unlike ROC-AUC it tells detectors apart when anomalies are rare (Davis & Goadrich 2006).
    """
    truth, score = _pairs(labels, scores)
    return float(average_precision_score(truth, score)) if truth.any() else float("nan")


def roc_auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return the chance that an anomaly scores above a normal reading; NaN unless both occur."""
    truth, score = _pairs(labels, scores)
    return float(roc_auc_score(truth, score)) if truth.any() and not truth.all() else float("nan")


def precision_recall(labels: ArrayLike, flags: ArrayLike) -> tuple[float, float]:
    """Return precision (NaN if nothing is flagged) and recall (NaN if nothing is labelled) of flagged readings."""
    truth, flagged = _pairs(labels, flags)
    hits = float((truth & (flagged > 0)).sum())
    return _ratio(hits, float((flagged > 0).sum())), _ratio(hits, float(truth.sum()))


def threshold_at_budget(labels: ArrayLike, scores: ArrayLike, rate: float) -> float:
    """Return the lowest threshold that not more than `rate` of the normal readings score above; NaN without any.

    Detectors flag ``score > threshold``. The threshold knows the labels: it puts detectors side by side at one cost in
    false alarms, and says nothing of how well a detector finds its own.
    """
    truth, score = _pairs(labels, scores)
    normal = -np.sort(-score[~truth])
    return float(normal[min(int(rate * normal.size), normal.size - 1)]) if normal.size else float("nan")


def best_f1(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return the highest F1 that any threshold reaches; it knows the labels. NaN without an anomaly."""
    truth, score = _pairs(labels, scores)
    if not truth.any():
        return float("nan")
    precision, recall, _ = precision_recall_curve(truth, score)
    return float(np.max(2 * precision * recall / np.maximum(precision + recall, _TINY)))


def f1(labels: ArrayLike, flags: ArrayLike) -> float:
    """Return the harmonic mean of precision and recall; 0 if nothing is flagged, NaN if nothing is labelled."""
    truth, flagged = _pairs(labels, flags)
    return (
        _ratio(2.0 * float((truth & (flagged > 0)).sum()), float(truth.sum() + (flagged > 0).sum()))
        if truth.any()
        else float("nan")
    )


def event_recall(readings: pd.DataFrame, labels: ArrayLike, flags: ArrayLike) -> float:
    """Return the share of labelled events of which at least one reading is flagged.

    Parameters
    ----------
    readings : pandas.DataFrame, n rows in any order
        `sensor_id` and `timestamp`.
    labels, flags : array_like of bool, shape (n,)
        An event is a stretch of labelled readings that follow each other in time at one sensor; a reading with
        a missing label is not labelled.

    Returns
    -------
    float
        NaN if there is no event.
    """
    stretches = _stretches(readings, _true(labels))
    stretches["found"] = _true(flags)[stretches["row"].to_numpy()]
    found = stretches.groupby("stretch")["found"].any()
    return float(found.mean()) if len(found) else float("nan")


def false_alarms_per_sensor_week(readings: pd.DataFrame, labels: ArrayLike, flags: ArrayLike) -> float:
    """Return how often a sensor without a fault calls for attention in a week.

    Flagged readings without a label that follow each other in time at one sensor are one alarm: an operator is called
    once. A sensor's observed time runs from its first reading to one median step after its last.

    Parameters
    ----------
    readings : pandas.DataFrame, n rows in any order
        `sensor_id` and `timestamp`.
    labels, flags : array_like of bool, shape (n,)
        Truth and verdict for each row.
    """
    alarms = _stretches(readings, _true(flags) & ~_true(labels))["stretch"].nunique()
    return _ratio(float(alarms), _sensor_weeks(readings))


def _stretches(readings: pd.DataFrame, marked: NDArray[np.bool_]) -> pd.DataFrame:
    """Return the marked rows with the number of the stretch that each belongs to."""
    require_columns(readings.columns, ("sensor_id", "timestamp"))
    frame = pd.DataFrame({"sensor_id": readings["sensor_id"].to_numpy(), "row": np.arange(len(readings))})
    frame["timestamp"] = pd.DatetimeIndex(pd.to_datetime(readings["timestamp"], utc=True))
    frame["marked"] = marked
    frame = frame.sort_values(["sensor_id", "timestamp"], kind="stable")
    before = frame.groupby("sensor_id", sort=False)["marked"].shift(fill_value=False)
    frame["stretch"] = (frame["marked"] & ~before).cumsum()
    return frame[frame["marked"]].copy()


def _sensor_weeks(readings: pd.DataFrame) -> float:
    times = pd.to_datetime(readings["timestamp"], utc=True).sort_values()
    groups = times.groupby(readings["sensor_id"])
    step = groups.apply(lambda group: group.diff().median())
    observed = groups.max() - groups.min() + step.fillna(pd.Timedelta(0))
    return float(pd.TimedeltaIndex(observed).total_seconds().to_numpy().sum() / _WEEK_SECONDS)


def _true(flags: ArrayLike) -> NDArray[np.bool_]:
    return np.nan_to_num(np.asarray(flags, dtype=np.float64)) > 0


def _ratio(top: float, bottom: float) -> float:
    return top / bottom if bottom > 0 else float("nan")


@dataclass(frozen=True)
class MedianBaseline:
    """Median and MAD by sensor and hour of day: the robust z-score that a detector must beat.

    The modified z-score of Iglewicz & Hoaglin (1993), per sensor and hour. It knows the training readings only.

    Attributes
    ----------
    hours : pandas.DataFrame
        `median` and `scale` by (`sensor_id`, `hour_of_day`).
    sensors : pandas.DataFrame
        The same by `sensor_id`, for hours never seen.
    everywhere : pandas.DataFrame
        The same over all readings, one row, for sensors never seen.
    timezone : str
        In which the hour of day is told.
    """

    hours: pd.DataFrame
    sensors: pd.DataFrame
    everywhere: pd.DataFrame
    timezone: str

    def score(self, readings: pd.DataFrame) -> NDArray[np.float64]:
        """Return |value − median| / scale for each row, shape (n,); NaN for a reading without a value."""
        require_columns(readings.columns, ("sensor_id", "timestamp", "value"))
        keyed = _keyed(readings, self.timezone)
        known = self.hours.reindex(pd.MultiIndex.from_frame(keyed[["sensor_id", "hour_of_day"]])).to_numpy()
        for table in (self.sensors.reindex(keyed["sensor_id"]).to_numpy(), self.everywhere.to_numpy()):
            known = np.where(np.isnan(known), table, known)
        return np.asarray(np.abs(keyed["value"].to_numpy() - known[:, 0]) / known[:, 1], dtype=np.float64)


def fit_median_baseline(training: pd.DataFrame, *, timezone: str = "UTC") -> MedianBaseline:
    """Return the baseline learned from `training` readings.

    Parameters
    ----------
    training : pandas.DataFrame
        `sensor_id`, `timestamp`, `value`; labels are not looked at.
    timezone : str
        In which the hour of day is told.

    Raises
    ------
    InputError
        Without a single value to learn from.

    Notes
    -----
    The scale (1.4826 MAD) is floored by a tenth of the sensor's and a thousandth of its level, so that a flat hour or
    a constant sensor gives large but finite scores.
    """
    require_columns(training.columns, ("sensor_id", "timestamp", "value"))
    keyed = _keyed(training, timezone).dropna(subset=["value"])
    if keyed.empty:
        raise InputError("the baseline needs training readings", remedy="give readings with values")
    sensors = _spread(keyed, ["sensor_id"])
    hours = _spread(keyed, ["sensor_id", "hour_of_day"])
    everywhere = _spread(keyed.assign(all=0), ["all"])
    level = keyed["value"].abs().groupby(keyed["sensor_id"]).median()
    floor = (_SENSOR_SHARE * sensors["scale"]).clip(lower=_LEVEL_SHARE * level).clip(lower=_TINY)
    sensors["scale"] = sensors["scale"].clip(lower=floor)
    of_hour = floor.reindex(hours.index.get_level_values("sensor_id")).to_numpy()
    hours["scale"] = np.maximum(hours["scale"], of_hour)
    everywhere["scale"] = everywhere["scale"].clip(lower=_TINY)
    return MedianBaseline(hours, sensors, everywhere, timezone)


def _keyed(readings: pd.DataFrame, timezone: str) -> pd.DataFrame:
    clock = pd.DatetimeIndex(pd.to_datetime(readings["timestamp"], utc=True)).tz_convert(timezone)
    columns = {
        "sensor_id": readings["sensor_id"].to_numpy(),
        "hour_of_day": clock.hour,
        "value": readings["value"].to_numpy(dtype=np.float64),
    }
    return pd.DataFrame(columns)


def _spread(keyed: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    median = keyed.groupby(keys)["value"].transform("median")
    deviation = (keyed["value"] - median).abs()
    frame = keyed.assign(median=median, scale=deviation)
    table = frame.groupby(keys)[["median", "scale"]].median()
    return table.assign(scale=_MAD_TO_SIGMA * table["scale"])


def summarise(
    readings: pd.DataFrame, labels: ArrayLike, scores: ArrayLike, flags: ArrayLike, baseline_scores: ArrayLike
) -> dict[str, float]:
    """Return a detector's metrics on labelled test readings under the names they are logged by.

    Parameters
    ----------
    readings : pandas.DataFrame, n rows
        `sensor_id` and `timestamp`.
    labels, scores, flags : array_like, shape (n,)
        Truth, `anomaly_score` and `is_anomaly`.
    baseline_scores : array_like, shape (n,)
        `MedianBaseline.score` of the same rows. Where the detector or the baseline has no score, neither is scored.
    """
    both = np.asarray(scores, dtype=np.float64) + 0 * np.asarray(baseline_scores, dtype=np.float64)
    rivals = np.asarray(baseline_scores, dtype=np.float64) + 0 * np.asarray(scores, dtype=np.float64)
    precision, recall = precision_recall(labels, flags)
    return {
        "test_average_precision": average_precision(labels, both),
        "test_roc_auc": roc_auc(labels, both),
        "test_precision": precision,
        "test_recall": recall,
        "test_event_recall": event_recall(readings, labels, flags),
        "test_false_alarms_per_sensor_week": false_alarms_per_sensor_week(readings, labels, flags),
        "test_flagged_share": float(_true(flags).mean()) if len(readings) else float("nan"),
        "baseline_average_precision": average_precision(labels, rivals),
        "baseline_roc_auc": roc_auc(labels, rivals),
    }
