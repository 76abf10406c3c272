"""The moments at which a batch forecasts, and the request of each: what was known then, and nothing that came later."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smartgrid_pyfunc.features.panel import HISTORY_HOURS, LOADS
from smartgrid_pyfunc.schema import COVARIATES, HOURS_A_DAY, HOURS_A_WEEK, MAX_HORIZON, InputError

_SPREAD = 1 << 32  # hours between the keys of two sensors: more than there are
_EARLIEST = -(1 << 31)  # before every hour
_SENSORS_AT_ONCE = 1_000  # in one request: 672,000 rows of history

Hours = NDArray[np.int64]


@dataclass(frozen=True)
class Ask:
    """One request to the load model.

    Attributes
    ----------
    sensor : ndarray of int64, shape (k,)
        Numbers of the sensors.
    origin : ndarray of int64, shape (k,)
        Last observed hour of each [hours since 1970-01-01 UTC].
    moment : int
        First hour that is not known yet [hours since 1970-01-01 UTC].
    hours_ahead : int
        Hours from the moment on that are wanted.
    """

    sensor: NDArray[np.int64]
    origin: Hours
    moment: int
    hours_ahead: int

    @property
    def horizon(self) -> int:
        """The longest lead time that the request needs [h]: sensors whose last hours are late need more."""
        return int(min(MAX_HORIZON, self.moment - 1 - self.origin.min() + self.hours_ahead))

    def part(self, members: NDArray[np.int64]) -> Ask:
        """Return the request of some of the sensors, given by their rows in this one."""
        return Ask(self.sensor[members], self.origin[members], self.moment, self.hours_ahead)

    def targets(self) -> tuple[NDArray[np.int64], Hours]:
        """Return row of the sensor in the request and target hour of every forecast that is wanted."""
        end = np.minimum(self.moment + self.hours_ahead, self.origin + MAX_HORIZON + 1)
        count = end - self.moment
        return np.repeat(np.arange(len(count)), count), np.repeat(self.moment, count.sum()) + _ranks(count)


class Known:
    """Hourly load of many sensors, from which the request of any past moment is cut.

    Parameters
    ----------
    hourly : DataFrame
        Hours with a value, sorted by sensor and time, as `sources.load_hourly` returns them.
    ahead : DataFrame, optional
        Known covariates of hours without a value.

    Attributes
    ----------
    sensors : ndarray of str, shape (S,)
        Sorted.
    covariates : list of str
        Those that are known of any hour.
    """

    def __init__(self, hourly: pd.DataFrame, ahead: pd.DataFrame | None = None) -> None:
        code, names = pd.factorize(hourly["sensor_id"])
        self.sensors = np.asarray(names, dtype=object)
        key, columns = _key(code, hours_of(hourly["timestamp"])), _numbers(hourly)
        if ahead is not None and len(ahead):
            later = pd.Index(self.sensors).get_indexer(ahead["sensor_id"].to_numpy(dtype=object))
            some = ahead[later >= 0]
            key, columns = _joined(key, columns, _key(later[later >= 0], hours_of(some["timestamp"])), _numbers(some))
        self._key, self._columns = key, columns
        number = np.arange(len(key))
        self._observed = np.maximum.accumulate(np.where(np.isnan(columns["avg_value"]), -1, number))
        self._starts = np.searchsorted(key, _key(np.arange(len(self.sensors)), _EARLIEST))
        self.covariates = [name for name in COVARIATES if name in columns and not np.isnan(columns[name]).all()]

    @property
    def first(self) -> int:
        """The first hour with a value of any sensor [hours since 1970-01-01 UTC]."""
        return int(_hour(self._key[~np.isnan(self._columns["avg_value"])]).min())

    @property
    def newest(self) -> int:
        """The last hour with a value of any sensor [hours since 1970-01-01 UTC]."""
        return int(_hour(self._key[~np.isnan(self._columns["avg_value"])]).max())

    def asks(self, moment: int, hours_ahead: int) -> tuple[list[Ask], int]:
        """Return the requests of a moment, and how many sensors are silent for too long to be forecast.

        Sensors that are late by a like number of days share a request, as its horizon is that of the latest.
        """
        sensor, origin = self._origins(moment)
        late = moment - 1 - origin
        silent = late >= MAX_HORIZON
        days = -(-late // HOURS_A_DAY)
        asks = []
        for day in np.unique(days[~silent]):
            members = np.flatnonzero((days == day) & ~silent)
            for part in np.array_split(members, -(-len(members) // _SENSORS_AT_ONCE)):
                asks.append(Ask(sensor[part], origin[part], moment, hours_ahead))
        return asks, int(silent.sum())

    def request(self, ask: Ask) -> pd.DataFrame:
        """Return the rows of a request: the load up to each sensor's origin, and known covariates of the hours ahead.

        They go back as far as the features look, and no further ahead than is asked for.
        """
        end = np.full(len(ask.sensor), ask.moment + ask.hours_ahead) if self.covariates else ask.origin + 1
        limits = _key(ask.sensor, np.array([ask.origin + 1 - HISTORY_HOURS, end]))
        begin, stop = np.searchsorted(self._key, limits)
        rows = np.repeat(begin, stop - begin) + _ranks(stop - begin)
        asked = np.repeat(np.arange(len(ask.sensor)), stop - begin)
        hour = _hour(self._key[rows])
        columns = {name: values[rows] for name, values in self._columns.items()}
        for name in LOADS:  # what was measured after the origin is not known at it
            columns[name] = np.where(hour <= ask.origin[asked], columns[name], np.nan)
        times = pd.DatetimeIndex(hour.astype("datetime64[h]").astype("datetime64[us]")).tz_localize("UTC")
        names = pd.array(self.sensors[ask.sensor].astype(str), dtype="str").take(asked)
        return pd.DataFrame({"sensor_id": names, "timestamp": times, **columns}, copy=False)

    def _origins(self, moment: int) -> tuple[NDArray[np.int64], Hours]:
        """Return the sensors observed before `moment` and the last hour of each before it."""
        end = np.searchsorted(self._key, _key(np.arange(len(self.sensors)), moment))
        last = self._observed[np.maximum(end - 1, 0)]
        seen = np.flatnonzero((end > self._starts) & (last >= self._starts))
        return seen, _hour(self._key[last[seen]])


def _key(sensor: NDArray[Any], hour: Any) -> Hours:
    """Return one number for sensor and hour that sorts by both."""
    return np.asarray(sensor * _SPREAD + (hour - _EARLIEST), dtype=np.int64)


def _hour(key: Hours) -> Hours:
    return key % _SPREAD + _EARLIEST


def _numbers(frame: pd.DataFrame) -> dict[str, NDArray[np.float64]]:
    """Return the loads, NaN where absent, and the covariates present."""
    present = [name for name in COVARIATES if name in frame]
    nothing = np.full(len(frame), np.nan)
    return {n: frame[n].to_numpy(np.float64) if n in frame else nothing for n in (*LOADS, *present)}


def _joined(
    key: Hours, columns: dict[str, NDArray[np.float64]], more: Hours, others: dict[str, NDArray[np.float64]]
) -> tuple[Hours, dict[str, NDArray[np.float64]]]:
    """Return the rows of two tables by key; of an hour that both have, every number that either knows."""
    keys = np.concatenate([key, more])
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    starts = np.flatnonzero(np.diff(keys, prepend=keys[0] - 1))
    sizes = len(key), len(more)
    joined = {}
    for name in dict.fromkeys([*columns, *others]):
        halves = [part.get(name, np.full(n, np.nan)) for part, n in zip((columns, others), sizes, strict=True)]
        joined[name] = np.fmax.reduceat(np.concatenate(halves)[order], starts)
    return keys[starts], joined


def hours_of(times: pd.Series[Any] | pd.DatetimeIndex) -> Hours:
    """Return times in UTC as whole hours since 1970-01-01."""
    index = pd.DatetimeIndex(times)
    plain = index.tz_convert("UTC").tz_localize(None) if index.tz is not None else index
    return plain.to_numpy().astype("datetime64[h]").astype(np.int64)


def time_of(hour: int) -> pd.Timestamp:
    """Return the start of an hour, given in hours since 1970-01-01 UTC."""
    return pd.Timestamp(np.datetime64(hour, "h")).tz_localize("UTC")


def moments(
    known: Known,
    since: pd.Timestamp | None,
    until: pd.Timestamp | None,
    every_hours: int,
    now: pd.Timestamp | None = None,
) -> list[int]:
    """Return the moments of a batch [hours since 1970-01-01 UTC], each the first hour that was not known at it.

    Without `since` and `until` it is the hour after the newest one that was complete at `now`. With them it is every
    one in [since, until), counted in steps of `every_hours` from 00:00 UTC of the first day, as far as the data reach;
    without `since`, from a week after the first hour on.

    Raises
    ------
    InputError
        If there is none.
    """
    end = known.newest + 1
    if since is None and until is None:
        at = end if now is None else min(end, int(now.floor("h").timestamp() // 3600))
        if at <= known.first:
            raise InputError("data must begin before now", found=f"{time_of(known.first):%Y-%m-%dT%H:%MZ}")
        return [at]
    begin = time_of(known.first + HOURS_A_WEEK).ceil("D") if since is None else since
    last = end if until is None else min(end, int((until.timestamp() - 1e-6) // 3600))
    first = int(begin.floor("D").timestamp() // 3600)
    found = [m for m in range(first, last + 1, every_hours) if m * 3600 >= begin.timestamp() and m > known.first]
    if not found:
        raise InputError(
            "since and until must leave at least one origin within the data",
            found=f"{time_of(known.first):%Y-%m-%d %H:%M} to {time_of(end):%Y-%m-%d %H:%M}",
            remedy="origins are 00:00 UTC of each day, in steps of every_hours",
        )
    return found


def _ranks(count: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return 0 … n - 1 for every n of `count`, one after another."""
    return np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
