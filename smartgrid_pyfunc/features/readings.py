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
    UNITS,
    InputError,
    is_missing,
    parse_identifiers,
    parse_numbers,
    parse_timestamps,
    require_columns,
)

#: Context in the unit of the reading or in hours, before any profile is applied.
CONTEXT = ("day_change", "week_change", "step", "flat_hours", "gap_hours")
_HOUR = 3_600_000_000  # [µs]
_TOLERANCE = _HOUR  # a lagged reading may be older than the lag by less than this
_FAR = (HOURS_A_WEEK + 2) * _HOUR  # no lag reaches across so much time


@dataclass(frozen=True)
class ReadingContext:
    """Distinct readings of a request, sorted by sensor and time, with their context.

    Attributes
    ----------
    rows : DataFrame
        ``sensor_id, sensor_type, timestamp, value, latitude, longitude, unit`` of m distinct readings with a value.
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
        ``longitude`` (float64, NaN where empty), ``unit`` (str, that of the type where empty).

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
    columns["unit"] = _units(frame, columns["sensor_type"])
    return pd.DataFrame(columns, copy=False)


def _units(frame: pd.DataFrame, sensor_type: NDArray[np.object_]) -> NDArray[np.object_]:
    """Return the unit of each reading: the one given, else that of its type, else an empty text."""
    result = np.array([UNITS.get(kind, "") for kind in sensor_type], dtype=object)
    for i, unit in enumerate(frame["unit"].to_numpy(dtype=object) if "unit" in frame.columns else ()):
        if isinstance(unit, str):
            result[i] = str(unit) or result[i]
        elif not is_missing(unit):
            raise InputError("unit must be text", place=f"column unit, row {i + 1}", found=repr(unit))
    return result


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
    rows = readings.take(known)
    key = _sort_key(rows)
    order = np.lexsort(key[::-1])
    sensor, time, value, *rest = (column[order] for column in key)
    new = _differs(sensor, time, value, *rest)
    position = np.full(len(readings), -1, dtype=np.int64)
    position[known[order]] = np.cumsum(new) - 1
    rows = rows.take(order[new]).reset_index(drop=True)
    sensor, time, value = sensor[new], time[new], value[new]
    clock = local_clock(rows["timestamp"].to_numpy(), timezone)
    return ReadingContext(
        rows, hour_of_week(clock), _context(sensor, time, value), _conflicts(sensor, time, value), position
    )


def _sort_key(rows: pd.DataFrame) -> tuple[NDArray[Any], ...]:
    """Columns of numbers, sensor, time and value first, that are equal for exact duplicates only."""
    texts = {
        n: pd.factorize(rows[n].to_numpy(dtype=object), sort=True)[0] for n in ("sensor_id", "sensor_type", "unit")
    }
    time = rows["timestamp"].to_numpy().astype("datetime64[us]").astype(np.int64)
    places = (rows[name].fillna(np.inf).to_numpy() for name in ("latitude", "longitude"))
    return texts["sensor_id"], time, rows["value"].to_numpy(), texts["sensor_type"], texts["unit"], *places


def _differs(*columns: NDArray[Any]) -> NDArray[np.bool_]:
    """Return true where a row is not as the one before it; true at the start."""
    result = np.ones(len(columns[0]), dtype=bool)
    result[1:] = np.logical_or.reduce([column[1:] != column[:-1] for column in columns])
    return result


def _conflicts(sensor: NDArray[Any], time: NDArray[np.int64], value: NDArray[np.float64]) -> NDArray[np.bool_]:
    group = np.cumsum(_differs(sensor, time)) - 1
    values = np.bincount(group, weights=_differs(sensor, time, value))
    result: NDArray[np.bool_] = values[group] > 1
    return result


def _context(sensor: NDArray[np.int64], time: NDArray[np.int64], value: NDArray[np.float64]) -> NDArray[np.float64]:
    if not len(time):
        return np.empty((0, len(CONTEXT)))
    first = _differs(sensor, time)
    instant = np.cumsum(first) - 1
    previous = _previous(sensor, instant)
    seen = previous >= 0
    with np.errstate(over="ignore"):  # a change may be too large for a float; it is infinite then
        columns = {
            "day_change": value - _lagged(sensor, time, value, HOURS_A_DAY),
            "week_change": value - _lagged(sensor, time, value, HOURS_A_WEEK),
            "step": np.where(seen, value - value[previous], np.nan),
            "flat_hours": np.where(seen, _flat_hours(sensor, time, value, instant), np.nan),
            "gap_hours": np.where(seen, (time - time[previous]) / _HOUR, np.nan),
        }
    return np.column_stack([columns[name] for name in CONTEXT])


def _previous(sensor: NDArray[np.int64], instant: NDArray[np.int64]) -> NDArray[np.int64]:
    """Row of the last reading of the same sensor at an earlier instant, -1 where there is none."""
    before = np.searchsorted(instant, instant, side="left") - 1
    same = (before >= 0) & (sensor[before] == sensor)
    return np.where(same, before, -1)


def _lagged(
    sensor: NDArray[np.int64], time: NDArray[np.int64], value: NDArray[np.float64], hours: int
) -> NDArray[np.float64]:
    """Latest value at least `hours` and less than an hour more before each reading; NaN where there is none."""
    # One clock for all sensors. Long gaps are shortened: no lag sees the difference, and no sum can overflow.
    gap = np.where(_differs(sensor), _FAR, np.minimum(np.diff(time, prepend=time[:1]), _FAR))
    clock = np.cumsum(gap)
    wanted = clock - hours * _HOUR
    found = np.searchsorted(clock, wanted, side="right") - 1
    near = (found >= 0) & (wanted - clock[found] < _TOLERANCE)
    return np.where(near, value[found], np.nan)


def _flat_hours(
    sensor: NDArray[np.int64], time: NDArray[np.int64], value: NDArray[np.float64], instant: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Hours for which every instant up to this reading has had a reading of the same value."""
    order = np.lexsort((instant, value, sensor))
    start = _differs(sensor[order], value[order])
    start[1:] |= np.diff(instant[order]) > 1
    first = order[np.maximum.accumulate(np.where(start, np.arange(len(order)), 0))]
    hours = np.empty(len(order))
    hours[order] = (time[order] - time[first]) / _HOUR
    return hours
