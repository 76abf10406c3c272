"""The data sets, their test windows, and what a method gets of them: the same for ours and for every peer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

DAY = pd.Timedelta(days=1)
HOUR = pd.Timedelta(hours=1)
WINDOW_DAYS = 28
_QUARTER_DAYS = 91
_ROLES = {1: "choice-1", 3: "choice-2", 0: "final-1", 2: "final-2"}  # by quarters before the end of the data
_ROLES_OF_ONE_YEAR = {2: "choice-1", 0: "final-1"}
_PERSISTENCE, _ERROR_SIZE = 0.95, 1.5  # of a day-ahead temperature forecast's error: hour to hour, °C


@dataclass(frozen=True)
class DataSet:
    """A set: its file, the function that reads it, its local clock, and the covariates known ahead."""

    title: str
    file: str
    read: Callable[[pd.DataFrame], pd.DataFrame]
    timezone: str = "UTC"
    covariates: tuple[str, ...] = ()
    one_year: bool = False
    temperature_error: bool = False

    @property
    def windows(self) -> dict[str, int]:
        """Name of each window and the quarters of a year that it ends before the data."""
        roles = _ROLES_OF_ONE_YEAR if self.one_year else _ROLES
        return {name: quarters for quarters, name in roles.items()}


def _victoria(raw: pd.DataFrame) -> pd.DataFrame:
    return raw.assign(is_holiday=raw["holiday"].astype(float))


def _gefcom(raw: pd.DataFrame) -> pd.DataFrame:
    return raw.assign(temperature=(raw["temperature_f_mean25"] - 32) / 1.8)


def _as_they_are(raw: pd.DataFrame) -> pd.DataFrame:
    return raw


def _power_readings(raw: pd.DataFrame) -> pd.DataFrame:
    """Return complete hours of readings; an incomplete hour is left out."""
    power = raw[raw["sensor_type"] == "power"]
    hours = power.groupby(["sensor_id", power["timestamp"].dt.floor("h")])["value"].agg(["mean", "count"])
    complete = hours[hours["count"] == hours["count"].median()]
    return complete.rename(columns={"mean": "avg_value"}).reset_index()


_VICTORIA = ("vic_electricity_hourly", _victoria, "Australia/Melbourne")
_WEATHER = ("temperature", "is_holiday")

SETS = {
    "victoria": DataSet("Victoria", *_VICTORIA),
    "victoria-weather": DataSet("Victoria, perfect-foresight temperature, holidays", *_VICTORIA, _WEATHER),
    "victoria-forecast": DataSet(
        "Victoria, temperature with a forecast error of 1.5 °C, holidays", *_VICTORIA, _WEATHER, temperature_error=True
    ),
    "pjm": DataSet("PJM, 9 zones", "pjm_hourly", _as_they_are, "America/New_York"),
    "gefcom": DataSet(
        "GEFCom2014, perfect-foresight temperature", "gefcom2014_load_hourly", _gefcom, "Etc/GMT+5", ("temperature",)
    ),
    "london": DataSet(
        "London, 60 households", "london_smartmeters_hourly", _as_they_are, "Europe/London", one_year=True
    ),
    "ett": DataSet("ETTh1, 6 loads", "etth1_readings_hourly", _power_readings, "Asia/Shanghai"),
    "tetouan": DataSet("Tetouan, 3 zones", "tetouan_readings_10min", _power_readings, one_year=True),
    "household": DataSet("one household, 4 years", "household_4years_hourly", _as_they_are),
}


def load(name: str, folder: Path, most_sensors: int | None = None) -> pd.DataFrame:
    """Return the long frame ``sensor_id, timestamp (naive, UTC), avg_value`` and the set's covariates, sorted.

    Rows before a sensor's first load are left out. Of many sensors the first `most_sensors` by name stay.
    """
    chosen = SETS[name]
    raw = chosen.read(pd.read_parquet(folder / f"{chosen.file}.parquet"))
    frame = raw[["sensor_id", "timestamp", "avg_value", *chosen.covariates]].copy()
    frame["sensor_id"] = frame["sensor_id"].astype(object)
    frame["timestamp"] = frame["timestamp"].dt.tz_convert("UTC").dt.tz_localize(None).astype("datetime64[ns]")
    frame = frame.sort_values(["sensor_id", "timestamp"], ignore_index=True)
    if most_sensors:
        frame = frame[frame["sensor_id"].isin(sorted(frame["sensor_id"].unique())[:most_sensors])]
    known_before = frame["avg_value"].notna().groupby(frame["sensor_id"]).cummax()
    return frame[known_before].reset_index(drop=True)


@dataclass(frozen=True)
class Task:
    """One window of one set.

    Attributes
    ----------
    frame : DataFrame
        See `load`: the history of each sensor and the window's 28 days; methods look into the window only as far as
        the day that they forecast allows, covariates excepted.
    starts : Series of Timestamp by sensor_id
        First hour of the window, a midnight in UTC. Sensors end at different times, so their windows differ.
    """

    frame: pd.DataFrame
    starts: pd.Series
    timezone: str
    covariates: tuple[str, ...]

    @classmethod
    def make(cls, name: str, window: str, folder: Path, years: float, most_sensors: int | None = None) -> Task:
        """Cut the window and `years` of history before it out of a set."""
        chosen = SETS[name]
        frame = load(name, folder, most_sensors)
        last = frame.groupby("sensor_id")["timestamp"].max()
        end = (last + HOUR).dt.floor("D") - chosen.windows[window] * _QUARTER_DAYS * DAY
        starts = end - WINDOW_DAYS * DAY
        start = frame["sensor_id"].map(starts)
        inside = (frame["timestamp"] < start + WINDOW_DAYS * DAY) & (frame["timestamp"] >= start - years * 365.25 * DAY)
        frame = frame[inside].reset_index(drop=True)
        if chosen.temperature_error:
            frame = _with_temperature_error(frame, starts)
        return cls(frame, starts, chosen.timezone, chosen.covariates)

    @cached_property
    def train(self) -> pd.DataFrame:
        """The rows before the window of each sensor."""
        before = self.frame["timestamp"] < self.frame["sensor_id"].map(self.starts)
        return self.frame[before].reset_index(drop=True)

    @property
    def known(self) -> list[str]:
        """The columns of `grid` that are known ahead."""
        return [name for name in self.grid.columns if name not in ("sensor_id", "timestamp", "avg_value")]

    @cached_property
    def grid(self) -> pd.DataFrame:
        """For libraries that want neither gaps nor calendars of their own: every hour, and calendar features.

        A missing load is that of 168 h before, else of 24 h before, else the last one: nothing later is used. Beside
        the covariates stand what a careful user makes of them: the mean temperature of the last 24 hours, and whether
        the day before or after is a holiday.
        """
        parts = [self._grid_of(sensor, rows) for sensor, rows in self.frame.groupby("sensor_id")]
        return pd.concat(parts, ignore_index=True)

    def _grid_of(self, sensor: object, rows: pd.DataFrame) -> pd.DataFrame:
        rows = rows.drop_duplicates("timestamp").set_index("timestamp")
        end = self.starts[sensor] + WINDOW_DAYS * DAY
        grid = rows.reindex(pd.date_range(rows.index.min(), end, freq="h", inclusive="left", name="timestamp"))
        grid["sensor_id"] = sensor
        grid["avg_value"] = _filled(grid["avg_value"])
        local = grid.index.tz_localize("UTC").tz_convert(self.timezone)
        grid["hour"], grid["weekday"], grid["month"] = local.hour, local.dayofweek, local.month
        if "temperature" in grid:
            grid["temperature"] = grid["temperature"].ffill().bfill()
            grid["temperature_day"] = grid["temperature"].rolling(24, min_periods=1).mean()
        if "is_holiday" in grid:
            grid["is_holiday"] = grid["is_holiday"].ffill().bfill()
            grid["holiday_before"] = grid["is_holiday"].shift(24, fill_value=0)
            grid["holiday_after"] = grid["is_holiday"].shift(-24, fill_value=0)
        return grid.reset_index()

    def before(self, frame: pd.DataFrame, day: int, hours: int | None = None) -> pd.DataFrame:
        """Rows of `frame` before the window's day number `day` (its last `hours` only)."""
        lead = frame["timestamp"] - frame["sensor_id"].map(self.starts) - day * DAY
        chosen = lead < pd.Timedelta(0)
        if hours:
            chosen &= lead >= -hours * HOUR
        return frame[chosen]

    def during(self, frame: pd.DataFrame, day: int) -> pd.DataFrame:
        """Rows of `frame` on the window's day number `day`."""
        lead = frame["timestamp"] - frame["sensor_id"].map(self.starts) - day * DAY
        return frame[(lead >= pd.Timedelta(0)) & (lead < DAY)]


def _filled(load: pd.Series) -> pd.Series:
    for lag in (168, 168, 24, 24):
        load = load.fillna(load.shift(lag))
    return load.ffill()


def _with_temperature_error(frame: pd.DataFrame, starts: pd.Series) -> pd.DataFrame:
    """Add a seeded, autocorrelated error to the temperatures of the window."""
    later = (frame["timestamp"] >= frame["sensor_id"].map(starts)).to_numpy()
    steps = np.random.default_rng(7).normal(0, _ERROR_SIZE * np.sqrt(1 - _PERSISTENCE**2), int(later.sum()))
    error = np.zeros(len(steps))
    for i, step in enumerate(steps):
        error[i] = step + (_PERSISTENCE * error[i - 1] if i else 0)
    temperature = frame["temperature"].to_numpy(copy=True)
    temperature[later] += error
    return frame.assign(temperature=temperature)
