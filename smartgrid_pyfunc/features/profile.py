"""What is usual: per sensor, per sensor type and over all, for each hour of the week, and how rare a deviation is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smartgrid_pyfunc.features.readings import ReadingContext, Readings, Texts, whole_sensors
from smartgrid_pyfunc.features.tails import Tails
from smartgrid_pyfunc.schema import HOURS_A_DAY, HOURS_A_WEEK

#: Deviations of a reading. The first two are from the usual value at the hour of the week, in spreads and as a ratio;
#: the next two are the same less what they were at this hour of the last seven days (mean and median): what a new
#: season changes is not strange for longer. Then the mean of the third over six hours; for how long nothing changed.
DEVIATIONS = ("value", "ratio", "day_value", "day_ratio", "level", "flat_hours")
ONE_SIDED = np.array([name == "flat_hours" for name in DEVIATIONS])
LEVELS = ("sensor", "sensor_type", "global")
BLOCKS = 4  # stretches of a sensor's time, each judged by what the others tell

_NORMAL = 1.4826  # MAD of a normal distribution → its standard deviation
_FEWEST_AN_HOUR = 4  # readings of an hour of the week before its own median is trusted
_FEWEST_A_LEVEL = 48  # readings before a sensor is known by itself
_FEWEST_TO_SCALE = 24  # earlier readings before an unknown sensor is compared with the scaled shape of its type
_FEWEST_DAYS = 3  # of the last seven, before a new level is believed
_FEWEST_RECENT = 3
# How much time must tell a tail before it is known, in stretches of six hours: neighbours in time deviate alike.
_FEWEST_STRETCHES = np.array([{"level": 12, "day_value": 4, "day_ratio": 4}.get(name, 0) for name in DEVIATIONS])
_SPREAD_FLOOR = 0.3  # of the spread over all hours
_RELATIVE_FLOOR = 1e-3  # of the median value: constant sensors must not explode
_RATIO_UNIT = 0.1  # of the median magnitude, below which values are compared by difference rather than by ratio
_TINY = 1e-9
_LARGEST = 1e12  # deviation: values near the end of the floating-point range must not become infinite
_MOST_REMEMBERED = 8.0  # spreads: so far off may the last days have been
_ROWS_A_LEVEL = 300_000  # readings that tell the tails of types and of all
# Sums are of whole numbers: exact, so that no other sensor of the request can change a digit.
_UNIT = 2.0**20


@dataclass(frozen=True)
class Tables:
    """Usual values of G groups.

    Attributes
    ----------
    centre : ndarray, shape (G, 168)
        Usual value by hour of the week [unit of the reading].
    spread : ndarray, shape (G, 24)
        Robust standard deviation around it by hour of the day [unit of the reading].
    location, scale : ndarray, shape (G,)
        Median over all hours; robust standard deviation around `centre` [unit of the reading].
    amplitude : ndarray, shape (G,)
        Robust standard deviation around `location`.
    unit : ndarray, shape (G,)
        Ratios are taken of ``asinh(value / unit)``: logarithmic for large values, of either sign.
    """

    centre: NDArray[np.float64]
    spread: NDArray[np.float64]
    location: NDArray[np.float64]
    scale: NDArray[np.float64]
    amplitude: NDArray[np.float64]
    unit: NDArray[np.float64]

    @classmethod
    def fit(cls, value: NDArray[np.float64], group: NDArray[np.int64], hour: NDArray[np.int64], n: int) -> Tables:
        """Learn the groups 0…n-1; readings with group -1 are left out."""
        inside = group >= 0
        value, group, hour = value[inside], group[inside], hour[inside]
        location = _median(value, group, n)
        centre = _centre(value, group, hour, location, n)
        floor = np.maximum(_RELATIVE_FLOOR * np.abs(location), _TINY)
        with np.errstate(over="ignore"):
            residual = np.abs(value - centre[group, hour])
            scale = _spread(residual, group, n, floor)
            amplitude = _spread(np.abs(value - location[group]), group, n, floor)
        hourly = _NORMAL * _median(residual, group * HOURS_A_DAY + hour % HOURS_A_DAY, n * HOURS_A_DAY)
        spread = np.fmax(hourly.reshape(n, HOURS_A_DAY), _SPREAD_FLOOR * scale[:, None])
        unit = np.maximum(_RATIO_UNIT * _median(np.abs(value), group, n), _RATIO_UNIT * scale)
        return cls(centre, spread, location, scale, amplitude, unit)

    @classmethod
    def join(cls, parts: list[Tables]) -> Tables:
        """Put the groups of several tables one after another."""
        return cls(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)))


@dataclass(frozen=True)
class Knowledge:
    """What each of m readings is compared with: its group and its level (number into `LEVELS`).

    Where the group is a shape that is scaled to the sensor: by the sensor's `location` and `amplitude` (else 0 and 1).
    """

    group: NDArray[np.int64]
    level: NDArray[np.int64]
    location: NDArray[np.float64] | float = 0.0
    amplitude: NDArray[np.float64] | float = 1.0


@dataclass(frozen=True)
class Deviations:
    """Deviations of m readings.

    Attributes
    ----------
    folded : ndarray, shape (m, len(DEVIATIONS))
        NaN where not known.
    expected : ndarray, shape (m,)
        Usual value, at the level of the last days where that is known [unit of the reading].
    spread : ndarray, shape (m,)
        What one spread is [unit of the reading].
    """

    folded: NDArray[np.float64]
    expected: NDArray[np.float64]
    spread: NDArray[np.float64]


class Profile:
    """Every known sensor, then every type and all readings together, as they are and as shapes to be scaled.

    Attributes
    ----------
    tables : Tables
    tails : Tails
    """

    def __init__(self, names: Mapping[str, NDArray[np.object_]], tables: Tables, tails: Tails) -> None:
        self._names = dict(names)
        self.tables, self.tails = tables, tails
        self._number = {
            "sensor": {name: i for i, name in enumerate(names["sensor"])},
            "sensor_type": {name: i for i, name in enumerate(names["sensor_type"])},
        }
        self._ratio_centre = np.arcsinh(tables.centre / tables.unit[:, None])

    @classmethod
    def fit(cls, context: ReadingContext) -> tuple[Profile, NDArray[np.float64], NDArray[np.float64]]:
        """Learn what is usual, and judge each stretch of time by what the others tell.

        Returns
        -------
        Profile
        folded, surprise : ndarray, shape (m, len(DEVIATIONS))
            Deviations and surprise of the training readings, as of readings that the profile has not seen.
        """
        rows = context.rows
        names = {"sensor": _known(rows.sensor.code, rows.sensor.names)}
        names["sensor_type"] = _known(rows.sensor_type.code, rows.sensor_type.names)
        sensor, kind = (
            _positions(names[n], c) for n, c in (("sensor", rows.sensor), ("sensor_type", rows.sensor_type))
        )
        n_sensors, n_types = len(names["sensor"]), len(names["sensor_type"])
        own = Tables.fit(rows.value, sensor, context.hour_of_week, n_sensors)
        shapes, levels = _scaled(rows.value, sensor, own), _levels(sensor, kind, n_sensors, n_types)
        values = (shapes if level.scaled else rows.value for level in levels)
        fits = (
            Tables.fit(v, level.member, context.hour_of_week, level.n) for v, level in zip(values, levels, strict=True)
        )
        tables = Tables.join([own, *fits])
        folded, surprise, tails = _cross_fitted(context, sensor, n_sensors)
        chosen = _some_sensors(context, kind)
        part = whole_sensors(context, chosen)
        some = _levels(sensor[chosen], kind[chosen], n_sensors, n_types)
        shared = [_level_tails(part, tables, own, sensor[chosen], level) for level in some]
        profile = cls(names, tables, Tails.join([tails, *shared]))
        unknown = sensor < 0
        if unknown.any():
            what = profile.knowledge(context)
            found = profile.deviations(what, context).folded
            folded[unknown] = found[unknown]
            surprise[unknown] = profile.tails.surprise(what.group, found)[unknown]
        return profile, folded, surprise

    @property
    def sensors(self) -> NDArray[np.object_]:
        """Sensors known by themselves, sorted."""
        names: NDArray[np.object_] = self._names["sensor"]
        return names

    def levels(self, rows: Readings) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the number of the best group by name alone, and its level (number into `LEVELS`), shape (n,)."""
        n_sensors, n_types = (len(self._names[name]) for name in ("sensor", "sensor_type"))
        sensor = _numbers(self._number["sensor"], rows.sensor.names)[rows.sensor.code]
        if sensor.min(initial=0) >= 0:
            return sensor, np.zeros(len(sensor), dtype=np.int64)
        kind = _numbers(self._number["sensor_type"], rows.sensor_type.names)[rows.sensor_type.code]
        level = np.where(sensor >= 0, 0, np.where(kind >= 0, 1, 2))
        return np.choose(level, [sensor, n_sensors + kind, n_sensors + n_types]), level

    def knowledge(self, context: ReadingContext) -> Knowledge:
        """Return what each reading is compared with.

        A sensor that is not known by itself is compared with its type's (else with all readings') values; as soon as
        enough earlier readings of it are there, with the shape of its type, scaled to it.
        """
        group, level = self.levels(context.rows)
        scaled = (level > 0) & (context.end - context.first >= _FEWEST_TO_SCALE)
        if not scaled.any():
            return Knowledge(group, level)
        location, amplitude = np.zeros(len(group)), np.ones(len(group))
        for start in np.unique(context.first[scaled]):
            _scale_to(start, context, scaled, location, amplitude)
        return Knowledge(
            np.where(scaled, group + len(self._names["sensor_type"]) + 1, group), level, location, amplitude
        )

    def deviations(self, what: Knowledge, context: ReadingContext) -> Deviations:
        """Return how far each reading is from what is usual; `what` must be its `knowledge`."""
        return _deviations(self.tables, self._ratio_centre, what, context, what.group)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the tables and names as arrays."""
        names = {f"name_{level}": values for level, values in self._names.items()}
        tables = {f.name: getattr(self.tables, f.name) for f in fields(Tables)}
        return names | tables | {f"tail_{name}": values for name, values in self.tails.to_arrays().items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Profile:
        """Undo `to_arrays`."""
        tails = {name.removeprefix("tail_"): values for name, values in arrays.items() if name.startswith("tail_")}
        names = {level: arrays[f"name_{level}"] for level in ("sensor", "sensor_type")}
        return cls(names, Tables(**{f.name: arrays[f.name] for f in fields(Tables)}), Tails.from_arrays(tails))


def _known(code: NDArray[np.int64], names: NDArray[np.object_]) -> NDArray[np.object_]:
    enough = np.bincount(code, minlength=len(names)) >= _FEWEST_A_LEVEL
    return np.array(sorted(names[enough]), dtype=object)


def _positions(known: NDArray[np.object_], column: Texts) -> NDArray[np.int64]:
    """Return for each row the position of its text among the `known` ones, -1 where it is not."""
    return _numbers({name: i for i, name in enumerate(known)}, column.names)[column.code]


def _numbers(known: Mapping[str, int], names: NDArray[np.object_]) -> NDArray[np.int64]:
    return np.array([known.get(name, -1) for name in names], dtype=np.int64)


def _scaled(value: NDArray[np.float64], sensor: NDArray[np.int64], own: Tables) -> NDArray[np.float64]:
    """Return values in amplitudes from their sensor's median; NaN where the sensor is not known."""
    if not len(own.location):
        return np.full(len(value), np.nan)
    return np.where(sensor >= 0, (value - own.location[sensor]) / own.amplitude[sensor], np.nan)


def _cross_fitted(
    context: ReadingContext, sensor: NDArray[np.int64], n: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], Tails]:
    """Judge each quarter of each sensor's readings by its other ones; return deviations, surprise and their tails.

    Tails of deviations from medians that have seen the reading would be too short, most of all in a new season.
    """
    count = np.bincount(sensor[sensor >= 0], minlength=n)
    number = np.arange(len(sensor)) - context.first
    block = np.minimum(number * BLOCKS // np.maximum(count[sensor], 1), BLOCKS - 1) if n else number
    known = sensor >= 0
    tables = [
        Tables.fit(context.rows.value, np.where(known & (block != b), sensor, -1), context.hour_of_week, n)
        for b in range(BLOCKS)
    ]
    joined, group = Tables.join(tables), np.where(known, block * n + sensor, 0)
    if not n:
        nothing = np.full((len(sensor), len(DEVIATIONS)), np.nan)
        return nothing, nothing.copy(), Tails.fit(nothing, [], ONE_SIDED)
    ratio_centre = np.arcsinh(joined.centre / joined.unit[:, None])
    found = _deviations(joined, ratio_centre, Knowledge(group, group), context, sensor).folded
    found[~known] = np.nan
    members = _members(sensor, n)
    others = [rows[block[rows] != b] for b in range(BLOCKS) for rows in members]
    fewest = _fewest(context, members)
    surprise = Tails.fit(found, others, ONE_SIDED, np.tile(fewest, (BLOCKS, 1))).surprise(group, found)
    return found, surprise, Tails.fit(found, members, ONE_SIDED, fewest)


def _fewest(context: ReadingContext, members: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Return how many readings of each group must tell a tail, shape (G, len(DEVIATIONS))."""
    recent = context.end - context.recent + 1
    usual = np.array([np.median(recent[rows]) if len(rows) else 0 for rows in members])
    fewest: NDArray[np.int64] = (usual[:, None] * _FEWEST_STRETCHES).astype(np.int64)
    return fewest


def _members(group: NDArray[np.int64], n: int) -> list[NDArray[np.int64]]:
    """Return the rows of each of the groups 0…n-1."""
    order = np.argsort(group, kind="stable")
    ends = np.searchsorted(group[order], np.arange(n + 1))
    return [order[ends[i] : ends[i + 1]] for i in range(n)]


@dataclass(frozen=True)
class _Level:
    """Groups that several sensors share: n of them from number `start` on; -1 in `member` belongs to none."""

    start: int
    n: int
    member: NDArray[np.int64]
    scaled: bool


def _levels(sensor: NDArray[np.int64], kind: NDArray[np.int64], n_sensors: int, n_types: int) -> list[_Level]:
    """Types and all readings together, as they are, then the same as shapes of the known sensors."""
    everything, known = np.zeros(len(kind), dtype=np.int64), sensor >= 0
    start = n_sensors + n_types + 1
    return [
        _Level(n_sensors, n_types, kind, False),
        _Level(n_sensors + n_types, 1, everything, False),
        _Level(start, n_types, np.where(known, kind, -1), True),
        _Level(start + n_types, 1, np.where(known, 0, -1), True),
    ]


def _level_tails(
    context: ReadingContext, tables: Tables, own: Tables, sensor: NDArray[np.int64], level: _Level
) -> Tails:
    """Tails of deviations from the level's own tables."""
    number = np.where(level.member >= 0, level.start + level.member, level.start)
    what = Knowledge(number, number)
    if level.scaled and len(own.location):
        what = Knowledge(number, number, own.location[sensor], own.amplitude[sensor])
    ratio_centre = np.arcsinh(tables.centre / tables.unit[:, None])
    folded = _deviations(tables, ratio_centre, what, context, number).folded
    members = _members(level.member, level.n)
    return Tails.fit(folded, members, ONE_SIDED, _fewest(context, members))


def _some_sensors(context: ReadingContext, kind: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rows of some whole sensors, at least one of each type."""
    starts = np.flatnonzero(context.first == np.arange(len(kind)))
    in_type = pd.Series(starts).groupby(kind[starts]).cumcount().to_numpy()
    chosen = in_type % max(1, len(kind) // _ROWS_A_LEVEL) == 0
    return np.flatnonzero(chosen[np.searchsorted(starts, context.first)])


def _scale_to(
    start: int,
    context: ReadingContext,
    scaled: NDArray[np.bool_],
    location: NDArray[np.float64],
    amplitude: NDArray[np.float64],
) -> None:
    """Fill in the sensor's median and spread as its first 24, 48, 96 … readings tell them: no row sees a later one."""
    stop = int(np.searchsorted(context.first, start, side="right"))
    known, seen = context.end[start:stop] - start, _FEWEST_TO_SCALE
    while seen <= known.max():
        values = context.rows.value[start : start + seen]
        alone = np.zeros(seen, dtype=np.int64)
        centre = _median(values, alone, 1)
        with np.errstate(over="ignore"):
            spread = _spread(np.abs(values - centre), alone, 1, np.maximum(_RELATIVE_FLOOR * np.abs(centre), _TINY))
        later = start + np.flatnonzero(scaled[start:stop] & (known >= seen))
        location[later], amplitude[later] = centre[0], spread[0]
        seen *= 2


def _deviations(
    tables: Tables,
    ratio_centre: NDArray[np.float64],
    what: Knowledge,
    context: ReadingContext,
    kin: NDArray[np.int64],
) -> Deviations:
    """Return deviations; only rows of the same `kin` are history of each other."""
    group, hour = what.group, context.hour_of_week
    with np.errstate(over="ignore", invalid="ignore"):
        value = (context.rows.value - what.location) / what.amplitude
        spread = tables.spread[group, hour % HOURS_A_DAY]
        off = _bounded((value - tables.centre[group, hour]) / spread)
        ratio = _bounded(np.arcsinh(value / tables.unit[group]) - ratio_centre[group, hour])
        expected = tables.centre[group, hour]
        lone = bool((context.end == context.first).all())
        if lone:
            folded = np.full((len(group), len(DEVIATIONS)), np.nan)
            folded[:, 0], folded[:, 1] = off, ratio
        else:
            history = _History(context, kin)
            usual = history.mean_of_same_hours(off, _MOST_REMEMBERED)
            day_value = off - usual
            day_ratio = ratio - history.middle_of_same_hours(ratio)
            level = history.recent(day_value, _MOST_REMEMBERED)
            folded = np.column_stack([off, ratio, day_value, day_ratio, level, context.flat_hours])
            expected = expected + spread * np.where(np.isnan(usual), 0.0, usual)
        return Deviations(folded, what.location + what.amplitude * expected, what.amplitude * spread)


def _bounded(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.clip(np.where(np.isnan(values), _LARGEST, values), -_LARGEST, _LARGEST)


class _History:
    """Means over a reading's own history, exact sums of whole numbers."""

    def __init__(self, context: ReadingContext, kin: NDArray[np.int64]) -> None:
        days = context.days
        if (kin != kin[context.first]).any():
            days = np.where((days >= 0) & (kin[days] == kin), days, -1)
        self._days, self._count = days, (days >= 0).sum(axis=0)
        alike = np.maximum.accumulate(np.where(np.r_[True, kin[1:] != kin[:-1]], np.arange(len(kin)), 0))
        self._start, self._end = np.minimum(np.maximum(context.recent, alike), context.end), context.end

    def mean_of_same_hours(self, values: NDArray[np.float64], most: float) -> NDArray[np.float64]:
        """Return the mean at this hour of the last seven days, clipped to ±`most`; NaN where too few are there."""
        whole = np.append(_whole(values, most), 0)  # the row -1
        total = np.zeros(len(values), dtype=np.int64)
        for days in self._days:
            total += whole[days]
        enough = self._count >= _FEWEST_DAYS
        return np.where(enough, total / (_UNIT * np.maximum(self._count, 1)), np.nan)

    def middle_of_same_hours(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the median at this hour of the last seven days; NaN where too few are there."""
        found = np.append(values, np.nan)[self._days.T]  # the row -1
        found.sort(axis=1)  # what is missing comes last
        row, count = np.arange(len(values)), np.maximum(self._count, 1)
        middle = (found[row, (count - 1) // 2] + found[row, count // 2]) / 2
        return np.where(self._count >= _FEWEST_DAYS, middle, np.nan)

    def recent(self, values: NDArray[np.float64], most: float) -> NDArray[np.float64]:
        """Return the mean over the last six hours and the reading itself; NaN where few or the reading is unknown."""
        known = ~np.isnan(values)
        whole = _whole(np.where(known, values, 0.0), most)
        total = whole + _between(whole, self._start, self._end)
        count = 1 + _between(known.astype(np.int64), self._start, self._end)
        return np.where(known & (count >= _FEWEST_RECENT), total / (_UNIT * count), np.nan)


def _whole(values: NDArray[np.float64], most: float) -> NDArray[np.int64]:
    whole: NDArray[np.int64] = np.rint(np.clip(values, -most, most) * _UNIT).astype(np.int64)
    return whole


def _between(values: NDArray[np.int64], start: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the sum of ``values[start:end]`` for each row."""
    total = np.concatenate([[0], np.cumsum(values)])
    between: NDArray[np.int64] = total[end] - total[start]
    return between


def trailing_mean(
    values: NDArray[np.float64], first: NDArray[np.int64], end: NDArray[np.int64], count: int, most: float
) -> NDArray[np.float64]:
    """Return the mean of each reading's value and those of the `count` - 1 readings before it; NaN where fewer are.

    Parameters
    ----------
    values : ndarray, shape (m,)
        Clipped to ±`most`.
    first, end : ndarray of int64, shape (m,)
        See `ReadingContext`.
    """
    whole, start = _whole(values, most), end - count + 1
    enough = start >= first
    total = whole + _between(whole, np.where(enough, start, end), end)
    return np.where(enough, total / (_UNIT * count), np.nan)


def mean_before(
    values: NDArray[np.float64], start: NDArray[np.int64], end: NDArray[np.int64], most: float
) -> NDArray[np.float64]:
    """Return the mean of ``values[start:end]``, clipped to ±`most`, for each row; NaN where there is none."""
    count = end - start
    return np.where(count > 0, _between(_whole(values, most), start, end) / (_UNIT * np.maximum(count, 1)), np.nan)


def _median(values: NDArray[np.float64], key: NDArray[np.int64], n: int) -> NDArray[np.float64]:
    """Return the median of each key 0…n-1; NaN where there is none."""
    return np.asarray(pd.Series(values).groupby(key).median().reindex(range(n)), dtype=np.float64)


def _spread(
    residual: NDArray[np.float64], group: NDArray[np.int64], n: int, floor: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return a robust standard deviation; the mean deviation where a sensor stands still more than half of the time."""
    robust: NDArray[np.float64] = _NORMAL * _median(residual, group, n)
    mean = pd.Series(residual).groupby(group).mean().reindex(range(n)).to_numpy(dtype=np.float64)
    spread: NDArray[np.float64] = np.maximum(np.where(robust > 0, robust, mean), floor)
    return spread


def _centre(
    value: NDArray[np.float64],
    group: NDArray[np.int64],
    hour: NDArray[np.int64],
    location: NDArray[np.float64],
    n: int,
) -> NDArray[np.float64]:
    """Median by hour of the week; where that has few readings by hour of the day; else over all."""
    week = group * HOURS_A_WEEK + hour
    own = _median(value, week, n * HOURS_A_WEEK).reshape(n, HOURS_A_WEEK)
    count = np.bincount(week, minlength=n * HOURS_A_WEEK).reshape(n, HOURS_A_WEEK)
    daily = _median(value, group * HOURS_A_DAY + hour % HOURS_A_DAY, n * HOURS_A_DAY).reshape(n, HOURS_A_DAY)
    daily = np.where(np.isnan(daily), location[:, None], daily)
    return np.where(count >= _FEWEST_AN_HOUR, own, np.tile(daily, 7))
