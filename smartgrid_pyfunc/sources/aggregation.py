"""Sorted rows as arrays: repeated readings merged, hours made of them, batch by batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smartgrid_pyfunc.sources.report import HOUR

Arrays = dict[str, NDArray[Any]]


def aggregate(batches: Iterable[Arrays]) -> tuple[Arrays, int, int]:
    """Return the hours of sorted readings, with the counts of duplicates and conflicts."""
    parts: list[Arrays] = []
    duplicates = conflicts = 0
    for batch in _cut_at_hours(batches):
        readings, repeated, contradicting = merge_repeated(batch, "value")
        parts.append(_hours(readings))
        duplicates += repeated
        conflicts += contradicting
    return concatenate(parts), duplicates, conflicts


def _cut_at_hours(batches: Iterable[Arrays]) -> Iterator[Arrays]:
    """Move the unfinished hour at the end of each batch to the next one."""
    rest: list[Arrays] = []
    for batch in batches:
        rows = concatenate([*rest, batch])
        cut = int(_hour_starts(rows)[-1])
        rest = [{name: column[cut:] for name, column in rows.items()}]
        if cut:
            yield {name: column[:cut] for name, column in rows.items()}
    yield from rest


def _hour_starts(rows: Arrays) -> NDArray[np.int64]:
    return np.flatnonzero(changes(rows["sensor"], rows["timestamp"] // HOUR))


def _hours(readings: Arrays) -> Arrays:
    starts, values = _hour_starts(readings), readings["value"]
    return {
        "sensor": readings["sensor"][starts],
        "timestamp": readings["timestamp"][starts] // HOUR * HOUR,
        "avg_value": mean_of_groups(values, starts),
        "min_value": np.minimum.reduceat(values, starts),
        "max_value": np.maximum.reduceat(values, starts),
        "count": np.diff(np.append(starts, len(values))).astype(np.float64),
    }


def changes(*keys: NDArray[Any]) -> NDArray[np.bool_]:
    """Return True where a row of sorted `keys` differs from the row before it; two NaN are equal."""
    differs = np.zeros(len(keys[0]), dtype=bool)
    differs[:1] = True
    for key in keys:
        same = key[1:] == key[:-1]
        if key.dtype.kind == "f":
            same |= np.isnan(key[1:]) & np.isnan(key[:-1])
        differs[1:] |= ~same
    return differs


def merge_repeated(rows: Arrays, value: str) -> tuple[Arrays, int, int]:
    """Leave one row per sensor and time.

    Its `value` is the mean of the distinct values given for that time, its ``min_value`` the smallest; of every other
    column the largest known entry stays.

    Returns
    -------
    rows, duplicates, conflicts
        The rows left; rows that repeated sensor, time and value; sensor-times with more than one value.
    """
    first = changes(rows["sensor"], rows["timestamp"])
    if first.all():
        return rows, 0, 0
    starts = np.flatnonzero(first)
    distinct = changes(rows["sensor"], rows["timestamp"], rows[value])
    number = np.add.reduceat(distinct.astype(np.int64), starts)
    merged = {name: _MERGE.get(name, np.fmax).reduceat(column, starts) for name, column in rows.items()}
    merged[value] = mean_of_groups(rows[value], starts, distinct)
    return merged, int(len(first) - distinct.sum()), int(np.sum(number > 1))


_MERGE = {"min_value": np.fmin}


def mean_of_groups(
    values: NDArray[np.float64], starts: NDArray[np.int64], counted: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """Return the mean of each run of `values` that begins at `starts`, over the `counted` entries (default: all).

    Never outside the range of the run, also where the sum rounds or overflows.
    """
    used = np.ones(len(values), dtype=bool) if counted is None else counted
    with np.errstate(over="ignore"):
        total = np.add.reduceat(np.where(used, values, 0.0), starts)
    mean = total / np.add.reduceat(used.astype(np.float64), starts)
    return np.clip(mean, np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts))


def concatenate(batches: Sequence[Arrays]) -> Arrays:
    """Join batches column by column; they are emptied meanwhile, so that memory holds little twice."""
    names = list(batches[0]) if batches else []
    return {name: np.concatenate([batch.pop(name) for batch in batches]) for name in names}


def sensor_frame(names: Sequence[str], numbers: NDArray[np.int64], times: NDArray[np.int64]) -> pd.DataFrame:
    """Return ``sensor_id`` (text) and ``timestamp`` (UTC) for sensor numbers and times [µs]."""
    identifiers = pd.array(list(names), dtype="str").take(numbers)
    index = pd.DatetimeIndex(times.astype("datetime64[us]")).tz_localize("UTC")
    return pd.DataFrame({"sensor_id": identifiers, "timestamp": index})
