"""Hourly load of all sensors on one clock, as a matrix with its local calendar."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smartgrid_pyfunc.features.calendar import hour_of_week, local_clock
from smartgrid_pyfunc.schema import HOURS_A_DAY, InputError, require_columns

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Whole = NDArray[np.int64]

_LEAST_HOURS = 12  # of a day whose mean counts


@dataclass(frozen=True)
class Grid:
    """Load of S sensors over T consecutive hours.

    Attributes
    ----------
    sensor_ids : tuple of str, length S
        Sorted.
    first : int
        First hour [hours since 1970-01-01 UTC].
    load : ndarray, shape (S, T)
        Hourly load; NaN where unknown.
    day : ndarray of int64, shape (T,)
        Local day of each hour [days since 1970-01-01].
    week_hour : ndarray of int64, shape (T,)
        Local hour of the week, 0 (Monday 00:00) … 167.
    holidays : ndarray of int64
        Local days that are public holidays, sorted; may be empty.
    """

    sensor_ids: tuple[str, ...]
    first: int
    load: Floats
    day: Whole
    week_hour: Whole
    holidays: Whole

    @property
    def hours(self) -> int:
        """Return T."""
        return int(self.load.shape[1])

    def time(self, column: int) -> pd.Timestamp:
        """Return the start of the hour in `column`."""
        return pd.Timestamp((self.first + column) * 3600, unit="s", tz="UTC")

    def column(self, time: pd.Timestamp) -> int:
        """Return the column of the hour that starts at `time`, which may lie outside."""
        return int(time.timestamp() // 3600) - self.first

    def day_start(self, day: int) -> pd.Timestamp:
        """Return the first hour known of a local `day`."""
        return self.time(int(np.searchsorted(self.day, day)))

    @cached_property
    def days(self) -> Whole:
        """Return the D local days, in order."""
        return np.unique(self.day)

    @cached_property
    def daily(self) -> Floats:
        """Return the mean load of each local day, shape (S, D); NaN with fewer than 12 known hours."""
        return mean_by(self.load, self.day - self.day[0], len(self.days))

    @cached_property
    def special(self) -> Flags:
        """Return which of the D days are holidays or follow one: forecasts with lags err on both."""
        return np.isin(self.days, self.holidays) | np.isin(self.days - 1, self.holidays)

    def until(self, time: pd.Timestamp) -> Grid:
        """Return the hours before `time` only."""
        stop = max(self.column(time), 0)
        return replace(self, load=self.load[:, :stop], day=self.day[:stop], week_hour=self.week_hour[:stop])


def mean_by(values: Floats, group: Whole, count: int) -> Floats:
    """Return the mean of the known `values`, shape (S, T), in each of `count` groups of columns; NaN with under 12.

    The groups 0 … count − 1 follow one another, none is empty.
    """
    known = ~np.isnan(values)
    starts = np.searchsorted(group, np.arange(count))
    total = np.add.reduceat(np.where(known, values, 0.0), starts, axis=1)
    number = np.add.reduceat(known.astype(np.int64), starts, axis=1)
    return np.where(number >= _LEAST_HOURS, total / np.maximum(number, 1), np.nan)


def median_of(values: Floats) -> Floats:
    """Return the median of the known values along the last axis; NaN without any.

    As `numpy.nanmedian`, which takes ten times as long on short rows.
    """
    if not values.shape[-1]:
        return np.full(values.shape[:-1], np.nan)
    ordered = np.sort(values, axis=-1)  # NaN comes last
    known = (~np.isnan(values)).sum(axis=-1)
    low, high = np.maximum(known - 1, 0) // 2, known // 2
    high = np.minimum(high, values.shape[-1] - 1)
    middle = [np.take_along_axis(ordered, at[..., None], axis=-1)[..., 0] for at in (low, high)]
    return np.asarray(np.where(known > 0, (middle[0] + middle[1]) / 2, np.nan))


def mean_of(values: Floats) -> Floats:
    """Return the mean of the known values along the last axis; NaN without any."""
    known = ~np.isnan(values)
    count = known.sum(axis=-1)
    return np.asarray(np.where(count > 0, np.where(known, values, 0.0).sum(axis=-1) / np.maximum(count, 1), np.nan))


def build_grid(hourly: pd.DataFrame, *, timezone: str = "UTC", holidays: Whole | None = None) -> Grid:
    """Put hourly load on one clock.

    Parameters
    ----------
    hourly : DataFrame
        Columns ``sensor_id, timestamp`` (UTC) and ``avg_value``; ``is_holiday`` (0/1) where known. Each hour of a
        sensor once.
    timezone : str
        The sensors' local clock.
    holidays : ndarray of int64, optional
        Public holidays [local days since 1970-01-01], beside those that `hourly` marks.

    Raises
    ------
    InputError
        If a column is missing or there is no row.
    """
    require_columns(hourly.columns, ("sensor_id", "timestamp", "avg_value"))
    if hourly.empty:
        raise InputError("data must hold at least one hour", found="none")
    hour = hours_of(hourly["timestamp"])
    codes, names = pd.factorize(hourly["sensor_id"], sort=True)
    first, count = int(hour.min()), int(hour.max() - hour.min()) + 1
    load = np.full((len(names), count), np.nan)
    load[codes, hour - first] = hourly["avg_value"].to_numpy(dtype=np.float64)
    clock = local_clock((first + np.arange(count)).astype("datetime64[h]"), timezone)
    day = clock.astype("datetime64[D]").astype(np.int64)
    marked = _marked(hourly, day[hour - first])
    known = np.union1d(marked, holidays if holidays is not None else marked).astype(np.int64)
    return Grid(tuple(map(str, names)), first, load, day, hour_of_week(clock), known)


def hours_of(times: pd.Series[pd.Timestamp]) -> Whole:
    """Return `times` as hours since 1970-01-01 UTC."""
    return (
        pd.DatetimeIndex(times).tz_convert("UTC").tz_localize(None).to_numpy().astype("datetime64[h]").astype(np.int64)
    )


def _marked(hourly: pd.DataFrame, day: Whole) -> Whole:
    if "is_holiday" not in hourly:
        return np.empty(0, dtype=np.int64)
    return np.unique(day[hourly["is_holiday"].to_numpy(dtype=np.float64) > 0])


def lagged(grid: Grid, sensor: Whole, column: Whole, horizon: Whole, season: int) -> Floats:
    """Return the latest load a whole number of seasons [h] before each target that was known at its origin."""
    lag = -(-horizon // season) * season
    return at(grid, sensor, column - lag)


def at(grid: Grid, sensor: Whole, column: Whole) -> Floats:
    """Return the load of each (sensor, column), NaN outside the matrix."""
    inside = (column >= 0) & (column < grid.hours) & (sensor >= 0)
    found = grid.load[np.where(inside, sensor, 0), np.where(inside, column, 0)]
    return np.where(inside, found, np.nan)


def days_back(grid: Grid, days: int) -> int:
    """Return the column where the last `days` whole days of hours begin."""
    return max(grid.hours - days * HOURS_A_DAY, 0)
