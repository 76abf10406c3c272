"""A reading's own history: which earlier readings of its sensor to compare with, for how long nothing changed.

Causal: no row sees a later one, another sensor, or another reading of its own instant.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smartgrid_pyfunc.features.calendar import hour_of_week, local_clock
from smartgrid_pyfunc.schema import (
    HOURS_A_DAY,
    READING_REQUIRED,
    UNITS,
    InputError,
    is_missing,
    parse_identifiers,
    parse_numbers,
    parse_timestamps,
    require_columns,
)

DAYS_BACK = 7  # same hours of so many days before
RECENT_HOURS = 6
HOUR = 3_600_000_000  # [µs]
_FEW = 500  # rows up to which plain Python numbers texts faster than pandas
# Of the years and days that every month has; all else is left to the parser of the vocabulary.
_USUAL_TIME = re.compile(r"20[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z")
_TOLERANCE = HOUR  # a lagged reading may be older than the lag by less than this
_FAR = (DAYS_BACK * HOURS_A_DAY + 2) * HOUR  # no lag reaches across so much time


@dataclass(frozen=True)
class Texts:
    """A column of texts as numbers into its distinct ones.

    Attributes
    ----------
    names : ndarray of object, shape (k,)
    code : ndarray of int64, shape (n,)
    """

    names: NDArray[np.object_]
    code: NDArray[np.int64]

    def take(self, index: NDArray[Any]) -> Texts:
        """Return the rows `index`."""
        return Texts(self.names, self.code[index])

    def values(self) -> NDArray[np.object_]:
        """Return the text of each row, shape (n,)."""
        texts: NDArray[np.object_] = self.names[self.code]
        return texts


@dataclass(frozen=True)
class Readings:
    """Checked readings, one element per row: `time` [datetime64 µs, UTC], `value` and coordinates NaN where empty."""

    sensor: Texts
    sensor_type: Texts
    unit: Texts
    time: NDArray[np.datetime64]
    value: NDArray[np.float64]
    latitude: NDArray[np.float64]
    longitude: NDArray[np.float64]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.time)

    def by_name(self) -> Readings:
        """Return the same rows with their sensors numbered by name, whatever the order of the rows."""
        order = np.argsort(self.sensor.names.astype(str))
        code = np.argsort(order)[self.sensor.code]
        return replace(self, sensor=Texts(self.sensor.names[order], code))

    def take(self, index: NDArray[Any]) -> Readings:
        """Return the rows `index`."""
        return Readings(
            self.sensor.take(index),
            self.sensor_type.take(index),
            self.unit.take(index),
            self.time[index],
            self.value[index],
            self.latitude[index],
            self.longitude[index],
        )


@dataclass(frozen=True)
class ReadingContext:
    """Distinct readings of a request, by sensor and time, and where each one's history lies.

    Attributes
    ----------
    rows : Readings
        m distinct readings with a value.
    hour_of_week : ndarray of int64, shape (m,)
        By the local clock; 0 = Monday 00:00.
    first : ndarray of int64, shape (m,)
        First row of the same sensor.
    end : ndarray of int64, shape (m,)
        Row after the last one of an earlier instant: rows ``first … end - 1`` are a reading's history.
    recent : ndarray of int64, shape (m,)
        First row of the last six hours.
    week : ndarray of int64, shape (m,)
        First row of the last seven days.
    days : ndarray of int32, shape (7, m)
        Row of the reading 1…7 days before; -1 where there is none.
    flat_hours : ndarray of float64, shape (m,)
        How long every instant has had a reading of this value [h]; NaN without history.
    conflicting : ndarray of bool, shape (m,)
        Another value of the same sensor and instant exists.
    position : ndarray of int64, shape (n,)
        For each of the n rows of the request its row here, -1 where it has no value.
    """

    rows: Readings
    hour_of_week: NDArray[np.int64]
    first: NDArray[np.int64]
    end: NDArray[np.int64]
    recent: NDArray[np.int64]
    week: NDArray[np.int64]
    days: NDArray[np.int32]
    flat_hours: NDArray[np.float64]
    conflicting: NDArray[np.bool_]
    position: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of distinct readings."""
        return len(self.first)


def parse_readings(frame: pd.DataFrame) -> Readings:
    """Check readings and bring them to one type per column; the input stays as it is.

    Raises
    ------
    InputError
        For a missing column, a wrong type, an infinite value or an empty timestamp.
    """
    require_columns(frame.columns, READING_REQUIRED)
    time = _times(frame["timestamp"])
    if np.isnat(time).any():
        i = int(np.flatnonzero(np.isnat(time))[0])
        raise InputError("timestamp is required", place=f"column timestamp, row {i + 1}", found="an empty value")
    kind = _texts(frame["sensor_type"], "sensor_type")
    return Readings(
        _texts(frame["sensor_id"], "sensor_id"),
        kind,
        _units(frame, kind),
        time.astype("datetime64[us]", copy=False),
        parse_numbers(frame["value"], "value"),
        _coordinate(frame, "latitude", 90.0),
        _coordinate(frame, "longitude", 180.0),
    )


def _times(column: pd.Series[Any]) -> NDArray[np.datetime64]:
    """Return UTC times; a single one in the usual form is read without pandas, which takes 0.2 ms."""
    if len(column) == 1 and isinstance(text := column.iat[0], str) and _USUAL_TIME.fullmatch(text):
        return np.array([text[:-1]], dtype="datetime64[us]")
    return parse_timestamps(column)


def _texts(column: pd.Series[Any], name: str) -> Texts:
    if len(column) > _FEW and isinstance(column.dtype, pd.StringDtype):
        code, names = pd.factorize(column)
        try:
            if code.min() >= 0:
                return Texts(parse_identifiers(pd.Series(names), name), code)
        except InputError:
            pass  # told below, with its row
    return _numbered(parse_identifiers(column, name))


def _numbered(values: NDArray[np.object_]) -> Texts:
    if len(values) > _FEW:
        code, names = pd.factorize(values)
        return Texts(np.asarray(names, dtype=object), code)
    number: dict[str, int] = {}
    code = np.array([number.setdefault(value, len(number)) for value in values], dtype=np.int64)
    return Texts(np.array(list(number), dtype=object), code)


def _units(frame: pd.DataFrame, kind: Texts) -> Texts:
    """Return the unit of each reading: the one given, else that of its type, else an empty text."""
    usual = np.array([UNITS.get(name, "") for name in kind.names], dtype=object)
    if "unit" not in frame.columns:
        return Texts(usual, kind.code)
    result = usual[kind.code]
    for i, unit in enumerate(frame["unit"].to_numpy(dtype=object)):
        if isinstance(unit, str):
            result[i] = str(unit) or result[i]
        elif not is_missing(unit):
            raise InputError("unit must be text", place=f"column unit, row {i + 1}", found=repr(unit))
    return _numbered(result)


def _coordinate(frame: pd.DataFrame, name: str, limit: float) -> NDArray[np.float64]:
    if name not in frame.columns:
        return np.full(len(frame), np.nan)
    values = parse_numbers(frame[name], name)
    outside = np.abs(values) > limit
    if outside.any():
        i = int(np.flatnonzero(outside)[0])
        raise InputError(
            f"{name} must lie in -{limit:g}…{limit:g}", place=f"column {name}, row {i + 1}", found=values[i]
        )
    return values


def read_context(readings: Readings, timezone: str) -> ReadingContext:
    """Bring readings into order and find each distinct one's history among its sensor's earlier ones."""
    rows, position = _in_order(readings)
    sensor, time = rows.sensor.code, rows.time.astype(np.int64)
    starts = _differs(sensor)
    instant = starts.copy()
    instant[1:] |= time[1:] != time[:-1]
    # One clock for all sensors. Long gaps are shortened: no lag sees the difference, and no sum can overflow.
    clock = np.cumsum(np.where(starts, _FAR, np.minimum(np.diff(time, prepend=time[:1]), _FAR)))
    number = np.arange(len(rows))
    first, end = _latest(number, starts), _latest(number, instant)
    return ReadingContext(
        rows,
        hour_of_week(local_clock(rows.time, timezone)),
        first,
        end,
        np.maximum(np.searchsorted(clock, clock - RECENT_HOURS * HOUR), first),
        np.maximum(np.searchsorted(clock, clock - DAYS_BACK * HOURS_A_DAY * HOUR), first),
        _days(clock, bool((end > first).any())),
        np.where(end > first, _flat_hours(rows, time, instant), np.nan),
        _conflicts(instant, rows.value),
        position,
    )


def whole_sensors(context: ReadingContext, chosen: NDArray[np.int64]) -> ReadingContext:
    """Return the context of the rows `chosen`, ascending and all those of some sensors; `position` is their own."""
    moved = context.first[chosen] - np.searchsorted(chosen, context.first[chosen])
    days = context.days[:, chosen]
    return ReadingContext(
        context.rows.take(chosen),
        context.hour_of_week[chosen],
        context.first[chosen] - moved,
        context.end[chosen] - moved,
        context.recent[chosen] - moved,
        context.week[chosen] - moved,
        np.where(days >= 0, days - moved, -1).astype(np.int32),
        context.flat_hours[chosen],
        context.conflicting[chosen],
        np.arange(len(chosen)),
    )


def _in_order(readings: Readings) -> tuple[Readings, NDArray[np.int64]]:
    """Return the distinct readings with a value, by sensor and time, and the row of each reading of the request."""
    valued = ~np.isnan(readings.value)
    known = np.flatnonzero(valued)
    rows = readings if len(known) == len(valued) else readings.take(known)
    position = np.full(len(readings), -1, dtype=np.int64)
    sensor, time = rows.sensor.code, rows.time.astype(np.int64)
    if np.all((sensor[1:] > sensor[:-1]) | ((sensor[1:] == sensor[:-1]) & (time[1:] > time[:-1]))):
        position[known] = np.arange(len(known))
        return rows, position
    key = _sort_key(rows)
    order = np.lexsort(key[::-1])
    new = _differs(*(column[order] for column in key))
    position[known[order]] = np.cumsum(new) - 1
    return rows.take(order[new]), position


def _sort_key(rows: Readings) -> tuple[NDArray[Any], ...]:
    """Columns of numbers, sensor, time and value first, that are equal for exact duplicates only.

    Types and units are ranked by name: the order must not depend on which comes first in the request.
    """
    ranks = (np.argsort(np.argsort(column.names.astype(str)))[column.code] for column in (rows.sensor_type, rows.unit))
    places = (np.where(np.isnan(column), np.inf, column) for column in (rows.latitude, rows.longitude))
    return rows.sensor.code, rows.time.astype(np.int64), rows.value, *ranks, *places


def _differs(*columns: NDArray[Any]) -> NDArray[np.bool_]:
    """Return true where a row is not as the one before it; true at the start."""
    result = np.ones(len(columns[0]), dtype=bool)
    result[1:] = columns[0][1:] != columns[0][:-1]
    for column in columns[1:]:
        result[1:] |= column[1:] != column[:-1]
    return result


def _latest(number: NDArray[np.int64], marked: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the last marked row up to each row."""
    latest: NDArray[np.int64] = np.maximum.accumulate(np.where(marked, number, 0))
    return latest


def _conflicts(instant: NDArray[np.bool_], value: NDArray[np.float64]) -> NDArray[np.bool_]:
    if instant.all():
        return np.zeros(len(instant), dtype=bool)
    group = np.cumsum(instant) - 1
    values = np.bincount(group, weights=instant | _differs(value))
    result: NDArray[np.bool_] = values[group] > 1
    return result


def _days(clock: NDArray[np.int64], with_history: bool) -> NDArray[np.int32]:
    if not with_history:
        return np.full((DAYS_BACK, len(clock)), -1, dtype=np.int32)
    return np.stack([_back(clock, day * HOURS_A_DAY * HOUR) for day in range(1, DAYS_BACK + 1)])


def _back(clock: NDArray[np.int64], lag: int) -> NDArray[np.int32]:
    """Return the latest row at least `lag` [µs] and less than an hour more before each; -1 where there is none."""
    wanted = clock - lag
    found = np.searchsorted(clock, wanted, side="right") - 1
    near = (found >= 0) & (wanted - clock[found] < _TOLERANCE)
    return np.where(near, found, -1).astype(np.int32)


def _flat_hours(rows: Readings, time: NDArray[np.int64], instant: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Hours for which every instant up to this reading has had a reading of the same value."""
    sensor, value, number = rows.sensor.code, rows.value, np.arange(len(rows))
    if instant.all():
        hours: NDArray[np.float64] = (time - time[_latest(number, _differs(sensor, value))]) / HOUR
        return hours
    count = np.cumsum(instant)
    order = np.lexsort((count, value, sensor))
    start = _differs(sensor[order], value[order])
    start[1:] |= np.diff(count[order]) > 1
    hours = np.empty(len(order))
    hours[order] = (time[order] - time[order[_latest(number, start)]]) / HOUR
    return hours
