"""Detection by event: flags of one sensor that follow each other are one thing to look at, and are judged as one.

NAB's score is computed by the rule of Lavin & Ahmad (2015), "Evaluating real-time anomaly detection algorithms: the
Numenta Anomaly Benchmark", ICMLA, sections II.B and II.C, with the weights of its version 1.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from smartgrid_pyfunc.evaluation.detection import false_alarms_per_sensor_week
from smartgrid_pyfunc.schema import InputError, require_columns

_HOUR = pd.Timedelta(hours=1)
_STEEPNESS = 5.0  # of NAB's sigmoid
_FAR = 3.0  # windows after a window's end, from where on a false alarm costs all of its weight


def group_events(
    readings: pd.DataFrame,
    flags: ArrayLike,
    *,
    scores: ArrayLike | None = None,
    kinds: ArrayLike | None = None,
    join: int = 0,
) -> pd.DataFrame:
    """Group consecutive flagged readings of a sensor into events.

    Parameters
    ----------
    readings : pandas.DataFrame, n rows in any order
        `sensor_id`, `timestamp`.
    flags : array_like of bool, shape (n,)
        A missing flag is none.
    scores : array_like, shape (n,), optional
        How strange a reading is; decides an event's peak. By default the first reading is the peak. A reading without
        score (it had no value) is the peak only if none has a score.
    kinds : array_like of str, shape (n,), optional
        What is strange about a reading, empty or missing where that is not known.
    join : int
        So many readings without a flag, at most, between two flags of one event.

    Returns
    -------
    pandas.DataFrame
        A row per event, by sensor and start: `sensor_id`, `start` and `end` (first and last flagged reading), `peak`
        (time of the highest score), `score` (at the peak; NaN without scores), `kind` (of the peak, else the first
        that is known, else empty), `readings` (number of flagged readings).
    """
    frame = _ordered(readings, flags)
    frame["score"] = np.nan if scores is None else np.asarray(scores, dtype=np.float64)[frame["row"].to_numpy()]
    named = None if kinds is None else np.asarray(kinds, dtype=object)[frame["row"].to_numpy()]
    frame["kind"] = [""] * len(frame) if named is None else [k if isinstance(k, str) else "" for k in named]
    frame = frame.assign(event=_numbers(frame, join))[frame["flag"]]
    return _event_table(frame)


def _ordered(readings: pd.DataFrame, flags: ArrayLike) -> pd.DataFrame:
    """Return sensor, time, flag and the row's number, by sensor and time."""
    require_columns(readings.columns, ("sensor_id", "timestamp"))
    flag = np.nan_to_num(np.asarray(flags, dtype=np.float64)) > 0
    if flag.shape != (len(readings),):
        raise InputError("flags must be as many as readings", found=f"{flag.shape} for {len(readings)}")
    frame = pd.DataFrame({"sensor_id": readings["sensor_id"].to_numpy(), "flag": flag, "row": np.arange(len(flag))})
    frame["timestamp"] = pd.DatetimeIndex(pd.to_datetime(readings["timestamp"], utc=True))
    return frame.sort_values(["sensor_id", "timestamp"], kind="stable", ignore_index=True)


def _numbers(frame: pd.DataFrame, join: int) -> NDArray[np.int64]:
    """Return for each row of an ordered frame the number of the event that it belongs to, if it is flagged."""
    sensor = pd.factorize(frame["sensor_id"])[0]
    at = np.flatnonzero(frame["flag"].to_numpy())
    new = np.ones(len(at), dtype=bool)
    new[1:] = (np.diff(at) > join + 1) | (np.diff(sensor[at]) != 0)
    result = np.full(len(frame), -1)
    result[at] = np.cumsum(new) - 1
    return result


def _event_table(flagged: pd.DataFrame) -> pd.DataFrame:
    by_event = flagged.groupby("event", sort=False)
    table = by_event.agg(
        sensor_id=("sensor_id", "first"),
        start=("timestamp", "first"),
        end=("timestamp", "last"),
        readings=("row", "size"),
    )
    strangest = flagged.assign(height=flagged["score"].fillna(-np.inf)).sort_values(
        ["event", "height"], ascending=[True, False], kind="stable"
    )
    peak = strangest.groupby("event").head(1).set_index("event")
    known = strangest[strangest["kind"] != ""].groupby("event").head(1).set_index("event")["kind"]
    table = table.assign(peak=peak["timestamp"], score=peak["score"], kind=known)
    table["kind"] = table["kind"].astype(object).where(table["kind"].notna(), "")
    return table[["sensor_id", "start", "end", "peak", "score", "kind", "readings"]].reset_index(drop=True)


def match_events(
    readings: pd.DataFrame, labels: ArrayLike, flags: ArrayLike, kinds: ArrayLike | None = None
) -> pd.DataFrame:
    """Return the labelled events, and whether and how soon each was found.

    Parameters
    ----------
    readings : pandas.DataFrame, n rows in any order
        `sensor_id`, `timestamp`.
    labels, flags : array_like of bool, shape (n,)
        Truth and verdict. An event is found if one of its readings is flagged.
    kinds : array_like of str, shape (n,), optional
        The kind of fault of each labelled reading.

    Returns
    -------
    pandas.DataFrame
        The columns of `group_events`, and `found` (bool), `delay` [h] from an event's first reading to the first that
        is flagged and `share` of its readings that are flagged; `delay` is NaN where it was not found.
    """
    events = group_events(readings, labels, kinds=kinds).drop(columns=["peak", "score"])
    frame = _ordered(readings, labels)
    hit = (np.nan_to_num(np.asarray(flags, dtype=np.float64)) > 0)[frame["row"].to_numpy()]
    frame = frame.assign(event=_numbers(frame, 0), hit=hit)[frame["flag"]]
    first = frame[frame["hit"]].groupby("event")["timestamp"].first().reindex(range(len(events)))
    delay = (pd.DatetimeIndex(first) - pd.DatetimeIndex(events["start"])) / _HOUR
    share = frame.groupby("event")["hit"].mean().reindex(range(len(events)))
    return events.assign(found=first.notna().to_numpy(), delay=np.asarray(delay), share=share.to_numpy())


def summarise_events(readings: pd.DataFrame, labels: ArrayLike, flags: ArrayLike) -> dict[str, float]:
    """Return `event_recall`, `median_delay_hours` of the events found and `false_alarms_per_sensor_week`."""
    events = match_events(readings, labels, flags)
    found = events["found"].to_numpy(dtype=bool)
    return {
        "event_recall": float(found.mean()) if len(found) else float("nan"),
        "median_delay_hours": float(events.loc[found, "delay"].median()) if found.any() else float("nan"),
        "false_alarms_per_sensor_week": false_alarms_per_sensor_week(readings, labels, flags),
    }


@dataclass(frozen=True)
class NabProfile:
    """What a detection, a false alarm and a missed window weigh."""

    true_positive: float
    false_positive: float
    false_negative: float


#: The application profiles of NAB 1.1.
NAB_PROFILES = {
    "standard": NabProfile(1.0, 0.11, 1.0),
    "reward_low_fp": NabProfile(1.0, 0.22, 1.0),
    "reward_low_fn": NabProfile(1.0, 0.11, 2.0),
}


@dataclass(frozen=True)
class NabScore:
    """NAB's score and the threshold that it was reached with: readings at or above it are detections."""

    score: float
    threshold: float


def nab_score(
    series: ArrayLike,
    windows: ArrayLike,
    scores: ArrayLike,
    *,
    scored: ArrayLike | None = None,
    profile: NabProfile = NAB_PROFILES["standard"],
    threshold: float | None = None,
) -> NabScore:
    """Return NAB's normalised score: 100 is a perfect detector, 0 one that never detects anything; it may be negative.

    Parameters
    ----------
    series : array_like, shape (n,)
        Which series a reading belongs to; the readings of one stand together and in the order of time.
    windows : array_like of bool, shape (n,)
        Whether a reading lies in a labelled window; a stretch of such readings is one window.
    scores : array_like, shape (n,)
        Anomaly scores, higher = stranger; flags 0/1 will do with a threshold of 1. A missing score is no detection.
    scored : array_like of bool, shape (n,), optional
        False for readings of the probationary period, which cost and earn nothing. All by default.
    profile : NabProfile
    threshold : float, optional
        One for all series. By default that with the highest score over all series, which is NAB's own rule.

    Notes
    -----
    A window earns the sigmoid of the relative position of its earliest detection, a false alarm costs that of its
    distance to the window before, in widths of that window; further detections in a window are free.
    """
    worth, window = _worth(np.asarray(series), np.asarray(windows, dtype=bool), profile)
    score = np.nan_to_num(np.asarray(scores, dtype=np.float64), nan=-np.inf)
    kept = score > -np.inf
    if scored is not None:
        within = np.asarray(scored, dtype=bool)
        window = np.where(within, window, -2)
        kept &= within
    total = len(np.unique(window[window >= 0]))
    steps, gains = _sweep(score[kept], worth[kept], window[kept], profile.false_negative)
    best = _at(steps, gains, threshold)
    perfect = (profile.true_positive + profile.false_negative) * total
    return NabScore(100.0 * best[1] / perfect if total else float("nan"), best[0])


def probation(lengths: ArrayLike, share: float = 0.15) -> NDArray[np.int64]:
    """Return how many readings at the start of series of these lengths NAB does not score: 15 %, at most 750."""
    number = np.asarray(lengths, dtype=np.int64)
    result: NDArray[np.int64] = np.minimum(np.floor(share * number), share * 5000).astype(np.int64)
    return result


def _worth(
    series: NDArray[np.generic], inside: NDArray[np.bool_], profile: NabProfile
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return what a detection at each reading is worth, and the number of its window, -1 outside."""
    n = len(series)
    starts = np.ones(n, dtype=bool)
    starts[1:] = series[1:] != series[:-1]
    worth, window, windows = np.empty(n), np.full(n, -1), 0
    for first, stop in zip(np.flatnonzero(starts), [*np.flatnonzero(starts)[1:], n], strict=True):
        spans = _spans(inside[first:stop]) + first
        worth[first:stop] = -profile.false_positive
        for number, (left, right) in enumerate(spans):
            worth[left:right] = _earned(right - left) * profile.true_positive
            window[left:right] = windows + number
            until = spans[number + 1][0] if number + 1 < len(spans) else stop
            worth[right:until] = _cost(right - left, until - right) * profile.false_positive
        windows += len(spans)
    return worth, window


def _spans(inside: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return start and stop of each stretch of True, shape (k, 2)."""
    edges = np.diff(np.concatenate([[False], inside, [False]]).astype(np.int8))
    return np.column_stack([np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)])


def _sigmoid(position: NDArray[np.float64]) -> NDArray[np.float64]:
    return 2.0 / (1.0 + np.exp(_STEEPNESS * position)) - 1.0


def _earned(width: int) -> NDArray[np.float64]:
    """Reward of a detection at each reading of a window, 1 at its left edge."""
    return _sigmoid((np.arange(width) - width) / width) / _sigmoid(np.array([-1.0]))


def _cost(width: int, n: int) -> NDArray[np.float64]:
    """Cost of a false alarm at each of n readings after a window, 0…-1."""
    past = (np.arange(n) + 1.0) / max(width - 1.0, 1.0)
    return np.where(past >= _FAR, -1.0, _sigmoid(np.minimum(past, _FAR)))


def _sweep(
    score: NDArray[np.float64], worth: NDArray[np.float64], window: NDArray[np.int64], miss: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the thresholds, descending, and how much better than no detection at all each is."""
    order = np.argsort(-score, kind="stable")
    score, worth, window = score[order], worth[order], window[order]
    gain = worth.copy()
    inside = window >= 0
    # A window is worth its best detection so far, and -miss before the first one.
    best = pd.Series(worth[inside]).groupby(window[inside]).cummax()
    before = best.groupby(window[inside]).shift(fill_value=-miss)
    gain[inside] = (best - before).to_numpy()
    last = np.append(score[1:] != score[:-1], True)[: len(score)]
    return score[last], np.cumsum(gain)[last]


def _at(steps: NDArray[np.float64], gains: NDArray[np.float64], threshold: float | None) -> tuple[float, float]:
    """Return the threshold and its gain; no detection at all is a threshold, too."""
    if threshold is not None:
        reached = int(np.searchsorted(-steps, -threshold, side="right"))
        return threshold, float(gains[reached - 1]) if reached else 0.0
    if not len(gains) or gains.max() <= 0:
        return float("inf"), 0.0
    return float(steps[gains.argmax()]), float(gains.max())
