"""Context of a reading from its own sensor's earlier readings: what it changed by, for how long nothing changed, gaps.

Causal: no row sees a later one, another sensor, or another reading of its own instant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smartgrid_pyfunc.features.calendar import hour_of_week, local_clock
from smartgrid_pyfunc.schema import (
    HOURS_A_DAY,
    HOURS_A_WEEK,
    READING_REQUIRED,
    InputError,
    parse_identifiers,
    parse_numbers,
    parse_timestamps,
    require_columns,
)

#: Context in the unit of the reading or in hours, before any profile is applied.
CONTEXT = ("day_change", "week_change", "step", "flat_hours", "gap_hours")
_MS_PER_HOUR = 3_600_000
_TOLERANCE_MS = _MS_PER_HOUR  # a lagged reading may be older than the lag by less than this


@dataclass(frozen=True)
class ReadingContext:
    """Distinct readings of a request, sorted by sensor and time, with their context.

    Attributes
    ----------
    rows : DataFrame
        ``sensor_id, sensor_type, timestamp, value, latitude, longitude`` of m distinct readings with a value.
    hour_of_week : ndarray of int64, shape (m,)
        By the local clock; 0 = Monday 00:00.
    context : ndarray of float64, shape (m, len(CONTEXT))
        NaN where no earlier reading tells it.
    conflicting : ndarray of bool, shape (m,)
        Another value of the same sensor and instant exists.
    position : ndarray of int64, shape (n,)
        For each of the n rows of the request its row here, -1 where it has no value.
    """

    rows: pd.DataFrame
    hour_of_week: NDArray[np.int64]
    context: NDArray[np.float64]
    conflicting: NDArray[np.bool_]
    position: NDArray[np.int64]


def parse_readings(frame: pd.DataFrame) -> pd.DataFrame:
    """Check readings and bring them to one type per column; the input stays as it is.

    Returns
    -------
    DataFrame
        ``sensor_id``, ``sensor_type`` (str), ``timestamp`` (datetime64[us], UTC), ``value``, ``latitude``,
        ``longitude`` (float64, NaN where empty).

    Raises
    ------
    InputError
        For a missing column, a wrong type, an infinite value or an empty timestamp.
    """
    require_columns(frame.columns, READING_REQUIRED)
    times = parse_timestamps(frame["timestamp"])
    if np.isnat(times).any():
        i = int(np.flatnonzero(np.isnat(times))[0])
        raise InputError("timestamp is required", place=f"column timestamp, row {i + 1}", found="an empty value")
    columns: dict[str, Any] = {
        "sensor_id": parse_identifiers(frame["sensor_id"]),
        "sensor_type": parse_identifiers(frame["sensor_type"], "sensor_type"),
        "timestamp": times,
        "value": parse_numbers(frame["value"], "value"),
    }
    for name, limit in (("latitude", 90.0), ("longitude", 180.0)):
        given = parse_numbers(frame[name], name) if name in frame.columns else np.full(len(frame), np.nan)
        columns[name] = _within(given, name, limit)
    return pd.DataFrame(columns, copy=False)


def _within(values: NDArray[np.float64], name: str, limit: float) -> NDArray[np.float64]:
    outside = np.abs(values) > limit
    if outside.any():
        i = int(np.flatnonzero(outside)[0])
        raise InputError(
            f"{name} must lie in -{limit:g}…{limit:g}", place=f"column {name}, row {i + 1}", found=values[i]
        )
    return values


def read_context(readings: pd.DataFrame, timezone: str) -> ReadingContext:
    """Sort the rows of `parse_readings` and derive each distinct reading's context from its sensor's earlier ones."""
    known = np.flatnonzero(readings["value"].notna().to_numpy())
    sensor, _ = pd.factorize(readings["sensor_id"].to_numpy(dtype=object)[known])
    time = readings["timestamp"].to_numpy()[known].astype("datetime64[us]").astype(np.int64)
    value = readings["value"].to_numpy()[known]
    order = np.lexsort((value, time, sensor))
    sensor, time, value = sensor[order], time[order], value[order]
    new = _differs(sensor) | _differs(time) | _differs(value)
    position = np.full(len(readings), -1, dtype=np.int64)
    position[known[order]] = np.cumsum(new) - 1
    rows = readings.take(known[order[new]]).reset_index(drop=True)
    sensor, time, value = sensor[new], time[new], value[new]
    clock = local_clock(rows["timestamp"].to_numpy(), timezone)
    context = _context(sensor.astype(np.int64), time // 1000, value)
    return ReadingContext(rows, hour_of_week(clock), context, _conflicts(sensor, time), position)


def _differs(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Return true where a value is not the one before it; true at the start."""
    result = np.ones(len(values), dtype=bool)
    result[1:] = values[1:] != values[:-1]
    return result


def _conflicts(sensor: NDArray[Any], time: NDArray[np.int64]) -> NDArray[np.bool_]:
    first = _differs(sensor) | _differs(time)
    group = np.cumsum(first) - 1
    result: NDArray[np.bool_] = np.bincount(group, minlength=1)[group] > 1
    return result


def _context(sensor: NDArray[np.int64], ms: NDArray[np.int64], value: NDArray[np.float64]) -> NDArray[np.float64]:
    if not len(ms):
        return np.empty((0, len(CONTEXT)))
    previous = _previous(sensor, ms)
    seen = previous >= 0
    step = np.where(seen, value - value[previous], np.nan)
    gap = np.where(seen, (ms - ms[previous]) / _MS_PER_HOUR, np.nan)
    columns = {
        "day_change": value - _lagged(sensor, ms, value, HOURS_A_DAY),
        "week_change": value - _lagged(sensor, ms, value, HOURS_A_WEEK),
        "step": step,
        "flat_hours": _flat_hours(sensor, ms, value, seen),
        "gap_hours": gap,
    }
    return np.column_stack([columns[name] for name in CONTEXT])


def _previous(sensor: NDArray[np.int64], ms: NDArray[np.int64]) -> NDArray[np.int64]:
    """Row of the last reading of the same sensor at an earlier instant, -1 where there is none."""
    instant = np.flatnonzero(_differs(sensor) | _differs(ms))
    group = np.cumsum(_differs(sensor) | _differs(ms)) - 1
    before = instant[group] - 1
    same = (before >= 0) & (sensor[np.maximum(before, 0)] == sensor)
    return np.where(same, before, -1)


def _lagged(
    sensor: NDArray[np.int64], ms: NDArray[np.int64], value: NDArray[np.float64], hours: int
) -> NDArray[np.float64]:
    """Latest value at least `hours` and less than an hour more before each reading; NaN where there is none."""
    start = int(ms.min())
    width = int(ms.max()) - start + 2 * (HOURS_A_WEEK + 1) * _MS_PER_HOUR  # keeps sensors apart
    key = sensor * width + (ms - start)
    wanted = key - hours * _MS_PER_HOUR
    found = np.searchsorted(key, wanted, side="right") - 1
    near = (found >= 0) & (wanted - key[np.maximum(found, 0)] < _TOLERANCE_MS)
    near &= sensor[np.maximum(found, 0)] == sensor
    return np.where(near, value[np.maximum(found, 0)], np.nan)


def _flat_hours(
    sensor: NDArray[np.int64], ms: NDArray[np.int64], value: NDArray[np.float64], seen: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Hours since the value last changed, this reading included; NaN for a sensor's first reading."""
    change = _differs(sensor) | _differs(value)
    start = np.maximum.accumulate(np.where(change, np.arange(len(ms)), 0))
    return np.where(seen, (ms - ms[start]) / _MS_PER_HOUR, np.nan)
