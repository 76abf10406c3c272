"""A seeded synthetic grid: weather, calendar, sensors of several types and labelled faults, streamed to disk.

The data of a sensor depend on the seed, the period and the sensor's number only, never on how many sensors there are:
every random stream has its own key (`numpy.random.SeedSequence`, ``spawn_key``). A longer period continues a shorter
one, up to the faults, whose number depends on the length. Fault-free values and faults come from
different streams, so the same call with ``faults=False`` gives the truth beneath the faults.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import secrets
import shutil
import tempfile
import zoneinfo
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import ArrayLike, NDArray

from smartgrid_pyfunc.schema import HOURS_A_DAY, HOURS_A_WEEK, LOAD_TYPES, UNITS, InputError, parse_timestamps

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
FileFormat = Literal["parquet", "csv"]

_ROWS_A_PART = 400_000  # readings held in memory at once, unless one sensor alone has more
_WEATHER, _TRUTH, _FAULTS, _PLACE = range(4)  # first key of each random stream


# --- Faults -----------------------------------------------------------------------------------------------------------


def _sign(rng: np.random.Generator) -> float:
    return float(rng.choice((-1.0, 1.0)))


def _spike(window: Floats, scale: float, rng: np.random.Generator, sensor_type: str) -> Floats:
    return window + _sign(rng) * rng.uniform(3.0, 8.0) * scale


def _stuck(window: Floats, scale: float, rng: np.random.Generator, sensor_type: str) -> Floats:
    known = window[np.isfinite(window)]
    return np.where(np.isfinite(window), known[0] if known.size else np.nan, window)


def _drift(window: Floats, scale: float, rng: np.random.Generator, sensor_type: str) -> Floats:
    end = _sign(rng) * rng.uniform(1.5, 4.0) * scale
    return window + end * np.arange(1, window.size + 1) / window.size


def _dropout(window: Floats, scale: float, rng: np.random.Generator, sensor_type: str) -> Floats:
    mode = rng.choice(("missing", "zero", "late"))
    result = np.full(window.size, np.nan if mode == "missing" else 0.0)
    # A meter that was out of reach delivers the energy of the whole outage in its first message afterwards.
    if mode == "late" and sensor_type == "energy":
        result[-1] = np.nansum(window)
    return np.where(np.isfinite(window), result, window)


def _wrong_scale(window: Floats, scale: float, rng: np.random.Generator, sensor_type: str) -> Floats:
    return window * float(rng.choice((10.0, 0.1, 1000.0)))


def _swapped_phase(window: Floats, scale: float, rng: np.random.Generator, sensor_type: str) -> Floats:
    if sensor_type == "voltage":  # line-to-line instead of line-to-neutral voltage, or the reverse
        return window * float(rng.choice((np.sqrt(3.0), 1.0 / np.sqrt(3.0))))
    return -window


def _meter_reset(window: Floats, scale: float, rng: np.random.Generator, sensor_type: str) -> Floats:
    return window * np.linspace(0.02, 0.98, window.size)


@dataclass(frozen=True)
class _Fault:
    apply: Callable[[Floats, float, np.random.Generator, str], Floats]
    hours: tuple[float, float]  # shortest and longest duration; 0 is a single reading


_FAULTS_BY_KIND = {
    "spike": _Fault(_spike, (0.0, 0.0)),
    "stuck": _Fault(_stuck, (4.0, 24.0)),
    "drift": _Fault(_drift, (12.0, 72.0)),
    "dropout": _Fault(_dropout, (1.0, 12.0)),
    "wrong_scale": _Fault(_wrong_scale, (1.0, 12.0)),
    "swapped_phase": _Fault(_swapped_phase, (2.0, 24.0)),
    "meter_reset": _Fault(_meter_reset, (2.0, 12.0)),
}

#: Every kind of fault that `inject` knows.
FAULT_KINDS = tuple(_FAULTS_BY_KIND)


def fault_kinds(sensor_type: str) -> tuple[str, ...]:
    """Return the kinds of fault that a sensor of this type can have: only load meters count, only wires are swapped."""
    impossible = {"temperature": {"swapped_phase", "meter_reset"}, "voltage": {"meter_reset"}}
    without = impossible.get(sensor_type, set() if sensor_type in LOAD_TYPES else {"meter_reset"})
    return tuple(kind for kind in FAULT_KINDS if kind not in without)


def inject(
    values: ArrayLike,
    timestamps: Any,
    kind: str,
    rng: np.random.Generator,
    *,
    start: int | None = None,
    hours: float | None = None,
    sensor_type: str = "power",
) -> tuple[Floats, Flags]:
    """Put one fault into a copy of a series of readings of one sensor, by a fixed recipe.

    ``spike``: one reading off by 3…8 spreads. ``stuck``: the first value is repeated. ``drift``: an offset that grows
    to 1.5…4 spreads. ``dropout``: readings are missing (NaN) or zero; an energy meter may deliver the sum late, in
    the last reading. ``wrong_scale``: times 10, 0.1 or 1000. ``swapped_phase``: the sign turns, a voltage is off by
    the factor √3. ``meter_reset``: the value falls to 2 % and climbs back. The spread is the interquartile range of
    the whole series, at least 10 % of its median magnitude.

    Parameters
    ----------
    values : array_like, shape (n,)
        Readings in any unit; NaN is a missing reading and stays missing.
    timestamps : array_like, shape (n,)
        Ascending times: numpy ``datetime64``, a pandas index or column.
    kind : str
        One of `FAULT_KINDS`.
    rng : numpy.random.Generator
        Draws what is not given, and the recipe's strength and sign.
    start : int, optional
        Position of the first reading of the fault; drawn evenly by default.
    hours : float, optional
        Duration [h]; 0 is a single reading. Drawn from the kind's own range by default.
    sensor_type : str, default "power"
        Decides between the variants of ``dropout`` and ``swapped_phase``.

    Returns
    -------
    faulty : ndarray of float64, shape (n,)
    changed : ndarray of bool, shape (n,)
        True exactly where `faulty` differs from `values`. The first reading of a stuck value is still right.

    Raises
    ------
    InputError
        For an unknown kind, lengths that differ, times out of order and a start outside the series.
    """
    clean = np.asarray(values, dtype=np.float64)
    time = pd.DatetimeIndex(timestamps).as_unit("us").asi8
    _check_series(clean, time, kind, start)
    if hours is None:
        hours = float(rng.uniform(*_FAULTS_BY_KIND[kind].hours))
    duration = round(hours * 3.6e9)
    if start is None:
        start = int(rng.integers(max(1, np.searchsorted(time, time[-1] - duration, side="right"))))
    stop = max(start + 1, int(np.searchsorted(time, time[start] + duration)))
    faulty = clean.copy()
    faulty[start:stop] = _FAULTS_BY_KIND[kind].apply(clean[start:stop], _spread(clean), rng, sensor_type)
    return faulty, _differ(faulty, clean)


def _check_series(values: Floats, time: NDArray[np.int64], kind: str, start: int | None) -> None:
    if kind not in _FAULTS_BY_KIND:
        raise InputError(f"kind must be one of {', '.join(FAULT_KINDS)}", found=kind)
    if values.ndim != 1 or values.shape != time.shape or not values.size:
        raise InputError("values and timestamps must be equally long and not empty", found=f"{values.shape}")
    if np.any(np.diff(time) < 0):
        raise InputError("timestamps must ascend", remedy="sort the readings of the sensor by time")
    if start is not None and not 0 <= start < values.size:
        raise InputError(f"start must lie in 0…{values.size - 1}", found=start)


def _differ(a: Floats, b: Floats) -> Flags:
    return np.asarray((a != b) & ~(np.isnan(a) & np.isnan(b)))


def _spread(values: Floats) -> float:
    known = values[np.isfinite(values)]
    if not known.size:
        return 1.0
    low, high = np.percentile(known, [25, 75])
    return float(max(high - low, 0.1 * np.median(np.abs(known)))) or 1.0


# --- Weather and calendar ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Scene:
    """What all sensors share, one element per step; times are UTC, hours and dates are local."""

    times: NDArray[np.datetime64]
    hour: Floats  # local hour of day, 0 ≤ hour < 24
    weekend: Flags
    holiday: Flags
    years: Floats  # since the first reading
    winter: Floats  # 1 in the middle of winter, -1 in the middle of summer
    temperature: Floats  # [°C]
    felt: Floats  # temperature as buildings follow it [°C]
    sun: Floats  # irradiance relative to a clear sky overhead, 0…1

    def head(self, n: int) -> _Scene:
        return _Scene(*(getattr(self, field.name)[:n] for field in fields(self)))


@dataclass(frozen=True)
class _Area:
    latitude: float
    longitude: float
    timezone: str
    country: str | None


def _rng(seed: int, *key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def _filtered(shocks: Floats, steps: float) -> Floats:
    """Return ``y[t] = phi * y[t-1] + shocks[t]`` with ``phi = exp(-1 / steps)`` by doubling, in log(n) array passes."""
    result, shift, log_phi = shocks.copy(), 1, -1.0 / steps
    while shift < result.size and shift * log_phi > -25.0:
        result[shift:] += np.exp(shift * log_phi) * result[:-shift]
        shift *= 2
    return result


def _noise(rng: np.random.Generator, n: int, steps: float) -> Floats:
    """Return a stationary AR(1) process with unit variance and a memory of `steps`."""
    shocks = rng.standard_normal(n)
    shocks[1:] *= np.sqrt(1.0 - np.exp(-2.0 / steps))
    return _filtered(shocks, steps)


def _smoothed(values: Floats, steps: float) -> Floats:
    weight = 1.0 - np.exp(-1.0 / steps)
    return float(values[0]) + _filtered(weight * (values - values[0]), steps)


def _scene(area: _Area, first: pd.Timestamp, n: int, step_minutes: int, seed: int) -> _Scene:
    utc = pd.date_range(first, periods=n, freq=pd.Timedelta(minutes=step_minutes), unit="us")
    local = utc.tz_convert(area.timezone)
    hour = np.asarray(local.hour + local.minute / 60.0, dtype=np.float64)
    day = np.asarray(local.day_of_year + hour / 24.0, dtype=np.float64)
    winter = np.cos(2 * np.pi * (day - 20.0) / 365.25) * (1.0 if area.latitude >= 0 else -1.0)
    memory, a_day = 60 / step_minutes, _rng(seed, _WEATHER, 0)
    cloud = 1.0 / (1.0 + np.exp(-1.6 * _noise(a_day, n, 14 * memory)))
    front = 3.5 * _noise(_rng(seed, _WEATHER, 1), n, 60 * memory)
    daily = (6.5 - 4.5 * cloud) * np.cos(2 * np.pi * (hour - 15.0) / 24.0)
    distance = abs(area.latitude)  # from the equator: colder and more seasonal
    temperature = 27.0 - 0.33 * distance - 0.17 * distance * winter + front + daily
    return _Scene(
        times=utc.tz_localize(None).to_numpy(),
        hour=hour,
        weekend=np.asarray(local.day_of_week >= 5),
        holiday=_holidays(local, area.country),
        years=np.arange(float(n)) * (step_minutes / (60.0 * 24.0 * 365.25)),
        winter=winter,
        temperature=temperature,
        felt=_smoothed(temperature, 8 * memory),
        sun=_sunshine(area.latitude, day, hour) * (1.0 - 0.8 * cloud),
    )


def _sunshine(latitude: float, day: Floats, hour: Floats) -> Floats:
    """Return the sine of the sun's elevation, 0 at night (Cooper's declination; noon is 12:00 on the local clock)."""
    declination = np.deg2rad(23.45) * np.sin(2 * np.pi * (284.0 + day) / 365.0)
    north, angle = np.deg2rad(latitude), np.deg2rad(15.0 * (hour - 12.0))
    height = np.sin(north) * np.sin(declination) + np.cos(north) * np.cos(declination) * np.cos(angle)
    return np.asarray(np.maximum(height, 0.0))


def _holidays(local: pd.DatetimeIndex, country: str | None) -> Flags:
    if country is None:
        return np.zeros(len(local), dtype=bool)
    try:
        import holidays
    except ImportError:
        raise InputError(
            "public holidays need the package holidays", remedy="install it or leave country empty"
        ) from None
    years = range(local[0].year, local[-1].year + 1)
    try:
        code, _, region = country.partition("-")
        calendar = holidays.country_holidays(code, subdiv=region or None, years=years)
    except (NotImplementedError, KeyError):
        raise InputError("country must be an ISO 3166 code with known holidays", found=country) from None
    free = np.array([day.toordinal() for day in calendar], dtype=np.int64)
    unix_day = local.tz_localize(None).to_numpy().astype("datetime64[D]").astype(np.int64)
    return np.isin(unix_day + dt.date(1970, 1, 1).toordinal(), free)


# --- Sensors ----------------------------------------------------------------------------------------------------------

# Relative load by local hour (0 h … 23 h) on workdays and on free days; the level of a sensor multiplies it.
_RESIDENTIAL = (
    (55, 48, 45, 43, 44, 52, 75, 105, 105, 90, 82, 80, 82, 80, 80, 85, 100, 130, 165, 175, 165, 145, 110, 78),
    (65, 55, 50, 46, 45, 47, 55, 72, 95, 112, 118, 118, 120, 115, 110, 110, 115, 135, 160, 168, 158, 140, 112, 85),
)
_COMMERCIAL = (
    (40, 38, 37, 37, 38, 45, 65, 100, 145, 170, 178, 180, 178, 176, 178, 175, 165, 140, 105, 80, 65, 55, 48, 43),
    (38, 37, 36, 36, 36, 38, 42, 48, 58, 68, 74, 76, 76, 75, 73, 70, 64, 56, 50, 46, 43, 41, 40, 39),
)
_INDUSTRIAL = (
    (70, 68, 67, 68, 72, 85, 110, 125, 132, 135, 135, 132, 125, 130, 133, 130, 122, 110, 100, 98, 95, 90, 82, 75),
    (52, 51, 50, 50, 51, 54, 58, 61, 62, 62, 62, 61, 60, 60, 60, 60, 58, 57, 56, 55, 55, 54, 53, 52),
)
_SHAPES = np.array([_RESIDENTIAL, _COMMERCIAL, _INDUSTRIAL], dtype=np.float64) / 100.0


@dataclass(frozen=True)
class _Role:
    """A kind of sensor. `mix` weighs residential, commercial and industrial use; `leader` is a slot of `_ROLES`."""

    name: str
    sensor_type: str
    level: tuple[float, float] = (1.0, 1.0)  # mean load [kW], drawn evenly in its logarithm
    mix: tuple[float, float, float] = (1.0, 0.0, 0.0)
    heating: float = 0.0  # share of the level per degree below 16 °C
    cooling: float = 0.0  # share of the level per degree above 22 °C
    slow: float = 0.03  # log standard deviation of the noise that lasts for days
    fast: float = 0.03  # … and of the noise that lasts for an hour or two
    solar: float = 0.0  # installed peak power, in levels
    leader: int | None = None  # voltage and current follow the load of the sensor in this slot


_FEEDER = _Role("feeder", "power", (600, 5000), (0.85, 0.12, 0.03), 0.035, 0.05, 0.035, 0.025)
_HOUSEHOLD = _Role("household", "energy", (0.3, 1.2), (1, 0, 0), 0.04, 0.06, 0.12, 0.40)
_OFFICE = _Role("commercial", "power", (60, 900), (0.05, 0.95, 0), 0.015, 0.035, 0.045, 0.025)

#: Sensor k has the role of slot k mod 16, so every prefix of the sensors is a plausible grid.
_ROLES = (
    _Role("substation", "power", (15_000, 60_000), (0.55, 0.3, 0.15), 0.028, 0.04, 0.025, 0.01),
    _FEEDER,
    _HOUSEHOLD,
    _OFFICE,
    _Role("voltage", "voltage", leader=1),
    _Role("building", "energy", (20, 300), (0, 1, 0), 0.02, 0.04, 0.05, 0.035),
    _Role("industrial", "power", (500, 6000), (0, 0.1, 0.9), 0.003, 0.008, 0.06, 0.02),
    _Role("current", "current", leader=1),
    _Role("solar", "power", (300, 1500), (0.9, 0.1, 0), 0.03, 0.045, 0.035, 0.03, solar=2.4),
    _HOUSEHOLD,
    _Role("weather", "temperature"),
    _FEEDER,
    _Role("household", "energy", (0.6, 2.0), (1, 0, 0), 0.06, 0.03, 0.12, 0.35),
    _OFFICE,
    _Role("voltage", "voltage", leader=13),
    _Role("factory", "energy", (100, 2000), (0, 0.05, 0.95), 0.003, 0.008, 0.06, 0.02),
)
_DECIMALS = {"power": 2, "energy": 3, "voltage": 1, "current": 2, "temperature": 1}


@dataclass(frozen=True)
class _Sensor:
    number: int

    @property
    def role(self) -> _Role:
        return _ROLES[self.number % len(_ROLES)]

    @property
    def name(self) -> str:
        return f"{self.role.name}-{self.number:04d}"

    @property
    def leader(self) -> int:
        """Number of the sensor whose place and load this one shares: itself for most."""
        slot = self.role.leader
        return self.number if slot is None else self.number - self.number % len(_ROLES) + slot


def _load(number: int, scene: _Scene, memory: float, seed: int) -> tuple[Floats, float]:
    """Return the fault-free load [kW] of a load sensor and its level [kW]; `memory` is the number of steps an hour."""
    role, rng = _Sensor(number).role, _rng(seed, _TRUTH, number, 0)
    level = float(np.exp(rng.uniform(*np.log(role.level))))
    activity = _activity(role, scene, rng)
    degrees = rng.uniform(0.7, 1.3, 2) * (role.heating, role.cooling)
    weather = degrees[0] * np.maximum(16.0 - scene.felt, 0) + degrees[1] * np.maximum(scene.felt - 22.0, 0)
    growth = 1.0 + rng.uniform(-0.01, 0.06) * scene.years
    season = 1.0 + rng.uniform(0.0, 0.08) * scene.winter
    peak = role.solar * level * rng.uniform(0.8, 1.2)
    slow = _noise(_rng(seed, _TRUTH, number, 1), scene.times.size, 60 * memory)
    fast = _noise(_rng(seed, _TRUTH, number, 2), scene.times.size, 1.5 * memory)
    # Busy hours are the uncertain ones: the noise grows with the activity.
    noise = np.exp(role.slow * slow + role.fast * (0.7 + 0.3 * activity) * fast)
    load = level * growth * (activity * season + weather * (0.6 + 0.4 * activity)) * noise
    return load - peak * scene.sun, level


def _activity(role: _Role, scene: _Scene, rng: np.random.Generator) -> Floats:
    """Return the load over the mean load by calendar alone: the sensor's own mixture and phase of the known shapes."""
    mix = np.asarray(role.mix) * rng.uniform(0.8, 1.2, 3)
    shapes = np.tensordot(mix / mix.sum(), _SHAPES, axes=1) * np.exp(0.06 * rng.standard_normal((2, 24)))
    hour, clock = scene.hour - rng.normal(0.0, 0.4), np.arange(24.0)
    work, free = (np.interp(hour, clock, shape, period=24.0) for shape in shapes)
    freedom = np.where(scene.weekend, 1.0, rng.uniform(0.6, 0.95) * scene.holiday)
    return np.asarray(work + freedom * (free - work))


def _clean_values(number: int, scene: _Scene, step_minutes: int, seed: int) -> Floats:
    """Return what a faultless sensor measures, in its unit and with its meter's resolution."""
    sensor, memory = _Sensor(number), 60 / step_minutes
    role, rng = sensor.role, _rng(seed, _TRUTH, number, 3)
    white = _rng(seed, _TRUTH, number, 4).standard_normal(scene.times.size)
    if role.sensor_type == "temperature":
        offset = rng.normal(0.0, 0.8)
        return _rounded(scene.temperature + offset + 0.3 * _noise(rng, white.size, 6 * memory) + 0.1 * white, role)
    load, level = _load(sensor.leader, scene, memory, seed)
    if role.sensor_type == "voltage":
        nominal = 234.0 + rng.normal(0, 1)
        grid = 1.2 * _noise(rng, white.size, 10 * memory)
        return _rounded(nominal - 4.5 * load / level + grid + 0.3 * white, role)
    if role.sensor_type == "current":  # three phases at 11 kV, power factor 0.95
        return _rounded(load / (np.sqrt(3.0) * 11.0 * 0.95) * (1.0 + 0.01 * white), role)
    per_step = load * (1.0 + 0.008 * white) / (memory if role.sensor_type == "energy" else 1.0)
    return _rounded(per_step, role)


def _rounded(values: Floats, role: _Role) -> Floats:
    return np.round(values, _DECIMALS[role.sensor_type]) + 0.0  # no negative zero


def _place(number: int, area: _Area, seed: int) -> tuple[float, float]:
    north, east = 0.06 * _rng(seed, _PLACE, _Sensor(number).leader).standard_normal(2)
    latitude = float(np.clip(area.latitude + north, -90.0, 90.0))
    return round(latitude, 5), round((area.longitude + east + 180.0) % 360.0 - 180.0, 5)


# --- Faults of a simulated sensor -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Event:
    kind: str
    first: int  # position of the first and of the last reading that differs from the truth
    last: int


def _with_faults(
    number: int, clean: Floats, times: NDArray[np.datetime64], rate: float, step_minutes: int, seed: int
) -> tuple[Floats, list[_Event]]:
    rng, values, events = _rng(seed, _FAULTS, number), clean, []
    role = _Sensor(number).role
    for kind, start, length in _schedule(number, clean.size, rate, 60 / step_minutes, rng):
        hours = length * step_minutes / 60
        faulty, _ = inject(values, times, kind, rng, start=start, hours=hours, sensor_type=role.sensor_type)
        # Rounded like any reading: extra decimals would give the fault away.
        faulty = _rounded(faulty, role)
        touched = np.flatnonzero(_differ(faulty, values))
        if touched.size:
            events.append(_Event(kind, int(touched[0]), int(touched[-1])))
        values = faulty
    return values, sorted(events, key=lambda event: event.first)


def _schedule(
    number: int, n: int, rate: float, steps_an_hour: float, rng: np.random.Generator
) -> Iterator[tuple[str, int, int]]:
    """Yield kind, start and length of faults that do not touch one another and cover `rate` of n readings on average.

    The kinds take turns, from a start that differs between neighbours, so that all occur equally often.
    """
    kinds = fault_kinds(_Sensor(number).role.sensor_type)
    free, budget, turn = np.ones(n + 1, dtype=bool), rate * n, 3 * number
    while budget > 0:
        kind = kinds[turn % len(kinds)]
        turn += 1
        wanted = rng.uniform(*_FAULTS_BY_KIND[kind].hours) * steps_an_hour
        length = min(max(1, round(wanted)), n)
        # The last fault is longer than what is left: it happens with the probability that keeps the rate.
        start = _free_start(free, length, rng) if rng.uniform() * length < budget else None
        budget -= length
        if start is not None:
            free[max(start - 1, 0) : start + length + 1] = False
            yield kind, start, length


def _free_start(free: Flags, length: int, rng: np.random.Generator) -> int | None:
    for _ in range(50):
        start = int(rng.integers(free.size - length))
        if free[start : start + length].all():
            return start
    return None


# --- Tables -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Plan:
    """The checked parameters of one simulation."""

    sensors: int
    days: int
    seed: int
    step_minutes: int
    start: pd.Timestamp
    fault_rate: float
    file_format: FileFormat
    area: _Area

    @property
    def steps(self) -> int:
        return self.days * HOURS_A_DAY * 60 // self.step_minutes


@dataclass(frozen=True)
class SimulationResult:
    """What `simulate` wrote: the folder, rows of readings, sensors and fault events."""

    folder: Path
    rows: int
    sensors: int
    faults: int


@dataclass(frozen=True)
class _Part:
    readings: pa.Table
    hourly: pa.Table | None
    faults: pa.Table


def _times(times: NDArray[np.datetime64], file_format: FileFormat) -> pa.Array:
    array = pa.array(times.astype("datetime64[us]"), pa.timestamp("us", tz="UTC"))
    if file_format == "parquet":
        return array
    return pa.array(np.datetime_as_string(times.astype("datetime64[s]"), timezone="UTC").astype(object), pa.string())


def _repeat(value: str | float, n: int) -> pa.Array:
    return pa.repeat(pa.scalar(value), n)


def _sensor_tables(number: int, plan: _Plan, scene: _Scene) -> _Part:
    clean = _clean_values(number, scene, plan.step_minutes, plan.seed)
    values, events = _with_faults(number, clean, scene.times, plan.fault_rate, plan.step_minutes, plan.seed)
    hourly = None
    if _Sensor(number).role.sensor_type in LOAD_TYPES:
        hourly = _hourly_table(_Sensor(number).name, values, scene, plan)
    return _Part(
        readings=_reading_table(number, clean, values, events, scene.times, plan),
        hourly=hourly,
        faults=_fault_table(_Sensor(number).name, events, scene.times, plan.file_format),
    )


def _reading_table(
    number: int,
    clean: Floats,
    values: Floats,
    events: list[_Event],
    times: NDArray[np.datetime64],
    plan: _Plan,
) -> pa.Table:
    sensor = _Sensor(number)
    kinds = np.zeros(clean.size, dtype=np.int32)  # 0 is no fault
    for event in events:
        kinds[event.first : event.last + 1] = 1 + FAULT_KINDS.index(event.kind)
    changed = _differ(values, clean)
    there = np.isfinite(values)  # a reading that was not delivered has no row
    n, (latitude, longitude) = int(there.sum()), _place(number, plan.area, plan.seed)
    text = pa.array(["", *FAULT_KINDS]).take(pa.array((kinds * changed)[there]))
    columns = {
        "sensor_id": _repeat(sensor.name, n),
        "sensor_type": _repeat(sensor.role.sensor_type, n),
        "timestamp": _times(times[there], plan.file_format),
        "value": pa.array(values[there]),
        "unit": _repeat(UNITS[sensor.role.sensor_type], n),
        "latitude": _repeat(latitude, n),
        "longitude": _repeat(longitude, n),
        "is_anomaly": pa.array(changed[there]),
        "fault": text,
    }
    return pa.table(columns)


def _hourly_table(name: str, values: Floats, scene: _Scene, plan: _Plan) -> pa.Table:
    by_hour = values.reshape(-1, 60 // plan.step_minutes)
    known = np.isfinite(by_hour)
    count = known.sum(axis=1)
    there = count > 0
    weather = _weather_columns(scene, plan)
    columns = {
        "sensor_id": _repeat(name, int(there.sum())),
        "timestamp": weather["timestamp"].filter(pa.array(there)),
        "avg_value": pa.array(np.where(known, by_hour, 0.0).sum(axis=1)[there] / count[there]),
        "min_value": pa.array(np.where(known, by_hour, np.inf).min(axis=1)[there]),
        "max_value": pa.array(np.where(known, by_hour, -np.inf).max(axis=1)[there]),
        "count": pa.array(count[there].astype(np.int32)),
        "temperature": weather["temperature"].filter(pa.array(there)),
        "is_holiday": weather["is_holiday"].filter(pa.array(there)),
    }
    return pa.table(columns)


def _weather_columns(scene: _Scene, plan: _Plan) -> dict[str, pa.Array]:
    a_step = 60 // plan.step_minutes
    temperature = scene.temperature.reshape(-1, a_step).mean(axis=1)
    return {
        "timestamp": _times(scene.times[::a_step], plan.file_format),
        "temperature": pa.array(np.round(temperature, 2) + 0.0),
        "is_holiday": pa.array(scene.holiday[::a_step].astype(np.int32)),
    }


def _fault_table(name: str, events: list[_Event], times: NDArray[np.datetime64], file_format: FileFormat) -> pa.Table:
    columns = {
        "sensor_id": pa.array([name] * len(events), pa.string()),
        "kind": pa.array([event.kind for event in events], pa.string()),
        "start": _times(times[np.array([event.first for event in events], dtype=np.int64)], file_format),
        "end": _times(times[np.array([event.last for event in events], dtype=np.int64)], file_format),
    }
    return pa.table(columns)


# --- Files ------------------------------------------------------------------------------------------------------------


def simulate(
    folder: str | Path,
    *,
    sensors: int = 20,
    days: int = 240,
    seed: int = 42,
    step_minutes: int = 30,
    start: str = "2025-01-06",
    faults: bool = True,
    fault_rate: float = 0.01,
    file_format: FileFormat = "parquet",
    latitude: float = -37.81,
    longitude: float = 144.96,
    timezone: str = "UTC",
    country: str | None = "AU",
    on_progress: Callable[[int, int], None] | None = None,
) -> SimulationResult:
    """Write a synthetic grid into a new folder; memory stays flat for any number of sensors.

    Readings go to ``readings/part-*`` (with the truth in ``is_anomaly`` and ``fault``), their hourly aggregates of
    power and energy sensors to ``hourly_load/part-*``, fault events (first and last affected reading) to ``faults``
    and the area's hourly weather and holidays, seven days beyond the last reading, to ``weather``. The folder appears
    when everything is written, or not at all.

    The load is a mixture of daily shapes (residential, commercial, industrial) by kind of day, with heating and
    cooling degrees, solar feed-in, growth, and autocorrelated noise that grows with the activity. The temperature is
    an AR(1) process around the yearly and daily cycle.

    Parameters
    ----------
    folder : str or Path
        A folder that does not exist yet or is empty.
    sensors, days : int
        Size of the grid and of the period, each at least 1.
    seed : int
        Not negative; equal seeds give equal data, whatever the number of sensors.
    step_minutes : int
        Time between readings [min], a divisor of 60.
    start : str
        First whole hour, ISO 8601; UTC unless an offset is given.
    faults : bool
        False for a grid without faults, otherwise equal to the one with faults.
    fault_rate : float
        Mean share of readings that faults cover, 0…0.3.
    file_format : {"parquet", "csv"}
    latitude, longitude : float
        Centre of the area [°]; the latitude decides climate and sun.
    timezone : str
        IANA name of the clock that people and the sun follow.
    country : str, optional
        ISO 3166 code of the public holidays, of a country or a part of it (AU-VIC); None for none.
    on_progress : callable, optional
        Called with the sensors done and their total after each part.

    Returns
    -------
    SimulationResult

    Raises
    ------
    InputError
        For a parameter out of range and for a folder that has content or cannot be written.
    """
    plan = _Plan(
        sensors=_whole(sensors, "sensors", 1),
        days=_whole(days, "days", 1),
        seed=_whole(seed, "seed", 0),
        step_minutes=_checked_step(step_minutes),
        start=_checked_start(start),
        fault_rate=_within(fault_rate, "fault_rate", 0.0, 0.3) if faults else 0.0,
        file_format=_checked_format(file_format),
        area=_checked_area(latitude, longitude, timezone, country),
    )
    with _new_folder(Path(folder)) as building:
        rows, events = _write(building, plan, on_progress)
    return SimulationResult(Path(folder), rows, plan.sensors, events)


def _write(folder: Path, plan: _Plan, on_progress: Callable[[int, int], None] | None) -> tuple[int, int]:
    ahead = HOURS_A_WEEK * 60 // plan.step_minutes  # the weather is known for a week more than the load
    weather = _scene(plan.area, plan.start, plan.steps + ahead, plan.step_minutes, plan.seed)
    _save(pa.table(_weather_columns(weather, plan)), folder / "weather", plan.file_format)
    scene, faults, rows = weather.head(plan.steps), [], 0
    chunk = max(1, _ROWS_A_PART // plan.steps)
    for part, first in enumerate(range(0, plan.sensors, chunk)):
        done = min(first + chunk, plan.sensors)
        tables = [_sensor_tables(number, plan, scene) for number in range(first, done)]
        rows += _save_part([t.readings for t in tables], folder / "readings", part, plan.file_format)
        _save_part([t.hourly for t in tables if t.hourly is not None], folder / "hourly_load", part, plan.file_format)
        faults += [t.faults for t in tables]
        if on_progress is not None:
            on_progress(done, plan.sensors)
    events = pa.concat_tables(faults)
    _save(events, folder / "faults", plan.file_format)
    return rows, events.num_rows


def _save_part(tables: list[pa.Table], folder: Path, part: int, file_format: FileFormat) -> int:
    folder.mkdir(exist_ok=True)
    if not tables:
        return 0
    table = pa.concat_tables(tables)
    _save(table, folder / f"part-{part:05d}", file_format)
    return int(table.num_rows)


def _save(table: pa.Table, stem: Path, file_format: FileFormat) -> None:
    path = stem.with_name(f"{stem.name}.{file_format}")
    if file_format == "csv":
        with path.open("wb") as sink:
            sink.write((",".join(table.column_names) + "\n").encode())
            options = pa_csv.WriteOptions(include_header=False, quoting_style="none")
            pa_csv.write_csv(table, sink, options)
    else:
        pq.write_table(table, path, compression="zstd")


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """Give a hidden sibling to write into; move it to `folder` on success, remove it on any failure."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError("the output folder must be new or empty", found=folder, remedy="name another folder")
    building = folder.absolute().with_name(f".{folder.absolute().name}.{secrets.token_hex(4)}")
    try:
        building.mkdir(parents=True)
    except OSError as error:
        raise InputError("the output folder must be writable", found=folder, remedy=str(error.strerror)) from None
    try:
        yield building
        if folder.exists():
            folder.rmdir()
        building.rename(folder)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise


def _whole(value: int, name: str, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise InputError(f"{name} must be a whole number of at least {least}", found=value)
    return int(value)


def _within(value: float, name: str, low: float, high: float) -> float:
    if not low <= value <= high:
        raise InputError(f"{name} must lie in {low:g}…{high:g}", found=value)
    return float(value)


def _checked_step(step_minutes: int) -> int:
    if 60 % _whole(step_minutes, "step_minutes", 1):
        raise InputError("step_minutes must divide 60", found=step_minutes, remedy="use 1, 5, 10, 15, 30 or 60")
    return int(step_minutes)


def _checked_start(start: str) -> pd.Timestamp:
    (parsed,) = parse_timestamps(pd.Series([start], dtype=object), "start")
    if np.isnat(parsed):
        raise InputError("start must be an ISO 8601 date", found=start)
    moment = pd.Timestamp(parsed, tz="UTC")
    if moment != moment.floor("h"):
        raise InputError("start must be a whole hour", found=start)
    return moment


def _checked_format(file_format: str) -> FileFormat:
    if file_format == "parquet":
        return "parquet"
    if file_format == "csv":
        return "csv"
    raise InputError("file_format must be parquet or csv", found=file_format)


def _checked_area(latitude: float, longitude: float, timezone: str, country: str | None) -> _Area:
    try:
        zoneinfo.ZoneInfo(timezone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise InputError("timezone must be an IANA name", found=timezone, remedy="use e.g. Europe/Berlin") from None
    return _Area(
        _within(latitude, "latitude", -90.0, 90.0), _within(longitude, "longitude", -180.0, 180.0), timezone, country
    )


# --- The demo ---------------------------------------------------------------------------------------------------------

_DEMO: dict[str, Any] = {"sensors": 16, "days": 210, "seed": 42, "step_minutes": 30}
_MANIFEST = "manifest.json"


def demo_folder() -> Path:
    """Return the readings folder (Parquet) of a small demo grid: 16 sensors, 12 of them load, 210 days, 30 minutes.

    The grid is made on first use and kept in the system's temporary folder, one for each user and each version of this
    module. It is checked against its checksums on every call and made again when damaged. Processes that ask at the
    same time each build a copy aside and one of them is kept.
    """
    cache = _demo_cache()
    if not _intact(cache):
        with tempfile.TemporaryDirectory(dir=cache.parent, prefix=f".{cache.name}.") as aside:
            built = Path(aside) / "new"
            simulate(built, **_DEMO)
            (built / _MANIFEST).write_text(json.dumps(_checksums(built)), encoding="utf-8")
            _replace(cache, built, Path(aside))
    return cache / "readings"


def _demo_cache() -> Path:
    key = hashlib.sha256(Path(__file__).read_bytes() + repr(sorted(_DEMO.items())).encode()).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"smartgrid-demo-{_user()}-{key}"


def _user() -> int:
    return os.getuid() if hasattr(os, "getuid") else 0


def _checksums(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != _MANIFEST)
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _intact(cache: Path) -> bool:
    if cache.is_symlink() or not cache.is_dir():
        return False
    if hasattr(os, "getuid") and cache.stat().st_uid != os.getuid():
        raise InputError(
            "the demo's cache must belong to you", found=cache, remedy="set TMPDIR to a folder of your own"
        )
    try:
        manifest = json.loads((cache / _MANIFEST).read_text(encoding="utf-8"))
        return bool(manifest == _checksums(cache))
    except (OSError, ValueError):
        return False


def _replace(cache: Path, built: Path, aside: Path) -> None:
    """Put `built` in the place of `cache`, unless another process has put an intact one there meanwhile."""
    for _ in range(10):
        try:
            os.rename(built, cache)  # fails if a folder with content is there
            return
        except OSError:
            if _intact(cache):
                return
        with suppress(FileNotFoundError):  # another process may have moved the damaged one away
            os.rename(cache, aside / secrets.token_hex(4))
    raise InputError("the demo's cache must be replaceable", found=cache, remedy="remove it")
