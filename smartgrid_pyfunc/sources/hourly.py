"""Hourly load: read as it is, or made from readings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smartgrid_pyfunc.schema import COVARIATES, InputError
from smartgrid_pyfunc.sources.aggregation import Arrays, changes, concatenate, merge_repeated, sensor_frame
from smartgrid_pyfunc.sources.gate import SensorRows
from smartgrid_pyfunc.sources.inputs import Input, Progress, open_input, require_one_type
from smartgrid_pyfunc.sources.report import HOUR, InputReport, count_gap_hours, digest

_VALUES = ("avg_value", "min_value", "max_value", "count")
_TOLERANCE = 1_000_000  # [µs] by which a clock may run ahead of the end of the hour


@dataclass(frozen=True)
class HourlyLoad:
    """Hourly load with the report of its input.

    Attributes
    ----------
    frame : DataFrame
        Sorted by ``sensor_id, timestamp`` (hour start, UTC); ``avg_value, min_value, max_value, count`` as float64, NaN
        where unknown; ``temperature`` and ``is_holiday`` if the input has them. Hours without a value are absent.
    report : InputReport
    ahead : DataFrame, optional
        Where it was asked for: the hours without a value whose ``temperature`` or ``is_holiday`` is known, with these
        columns beside ``sensor_id, timestamp`` as far as the input has them.
    """

    frame: pd.DataFrame
    report: InputReport
    ahead: pd.DataFrame | None = None


def load_hourly(
    data: str, *, sensor_type: str = "power,energy", with_ahead: bool = False, on_progress: Progress | None = None
) -> HourlyLoad:
    """Read hourly load, or readings and aggregate them to complete hours.

    Repeated readings count once; where a sensor has different values for one instant, their mean is the value of that
    instant. The last hour of a sensor is dropped while it is in progress, that is unless the sensor's last reading plus
    its typical step (an hour divided by its median number of readings per hour) reaches the end of the hour.

    Parameters
    ----------
    data : str
        ``demo``, a CSV or Parquet file, a glob or a folder.
    sensor_type : str
        Comma-separated types of the readings that count; without effect on hourly input.
    with_ahead : bool
        Return the covariates of hours without a value too, such as a forecast of the temperature.
    on_progress : callable, optional
        Called with one sentence at each step.

    Raises
    ------
    InputError
        If the input breaks a rule of the gate or no hour is left.
    """
    with open_input(data, "hourly", on_progress) as source:
        make = _from_hourly if source.kind == "hourly" else _from_readings
        load = make(source, sensor_type, with_ahead)
    if on_progress:
        on_progress(f"{len(load.frame):,} hours of {load.report.sensors:,} sensor(s)")
    return load


def _from_hourly(source: Input, sensor_type: str, with_ahead: bool) -> HourlyLoad:
    rows = concatenate(list(source.stream(source.found, drop_empty="" if with_ahead else "avg_value")))
    known = ~np.isnan(rows["avg_value"]) if rows else np.zeros(0, dtype=bool)
    if not known.any():
        raise InputError("avg_value must be known for at least one hour", place=source.place, found="none")
    ahead = None
    if with_ahead:
        ahead = _covariates(source, {name: column[~known] for name, column in rows.items()})
        rows = {name: rows.pop(name)[known] for name in list(rows)}
    merged, duplicates, conflicts = merge_repeated(rows, "avg_value")
    return _load(source, source.found, merged, ahead, duplicates_dropped=duplicates, conflicts=conflicts)


def _covariates(source: Input, rows: Arrays) -> pd.DataFrame:
    """Return the known covariates of hours without a value; of repeated rows the largest entry counts."""
    names = [name for name in COVARIATES if name in rows]
    said = np.zeros(len(rows["sensor"]), dtype=bool)
    for name in names:
        said |= ~np.isnan(rows[name])
    sensor, time = rows["sensor"][said], rows["timestamp"][said]
    starts = np.flatnonzero(changes(sensor, time))
    frame = sensor_frame([one.sensor_id for one in source.found], sensor[starts], time[starts])
    return frame.assign(**{name: np.fmax.reduceat(rows[name][said], starts) for name in names if len(starts)})


def _from_readings(source: Input, sensor_type: str, with_ahead: bool) -> HourlyLoad:
    sensors = _selected(source, sensor_type)
    hours, duplicates, conflicts = source.hours(sensors)
    if not hours:
        raise InputError("value must be known for at least one reading", place=_types(sensors), found="none")
    complete = ~_in_progress(hours, _last_readings(sensors))
    if not complete.any():
        raise InputError(
            "at least one hour must be complete",
            place=_types(sensors),
            found=f"{len(complete)} hour(s) still in progress",
            remedy="wait for more readings",
        )
    kept = {name: hours.pop(name)[complete] for name in list(hours)}
    dropped = int(np.sum(~complete))
    counts = {"duplicates_dropped": duplicates, "conflicts": conflicts, "incomplete_hours_dropped": dropped}
    nothing = sensor_frame([], np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)) if with_ahead else None
    return _load(source, sensors, kept, nothing, **counts)


def _selected(source: Input, sensor_type: str) -> list[SensorRows]:
    wanted = {name.strip() for name in sensor_type.split(",")} - {""}
    sensors = [sensor for sensor in source.found if sensor.sensor_type in wanted]
    if not sensors:
        raise InputError(
            f"data must hold readings of sensor_type {', '.join(sorted(wanted)) or '(none given)'}",
            place=source.place,
            found=_types(source.found),
            remedy="choose among these with sensor_type",
        )
    require_one_type(sensors)
    return sensors


def _types(sensors: Iterable[SensorRows]) -> str:
    return ", ".join(sorted({sensor.sensor_type for sensor in sensors}))


def _last_readings(sensors: Sequence[SensorRows]) -> NDArray[np.int64]:
    """Return the time [µs] of the last row of each sensor; a row without a value also shows how late it is."""
    return np.array([sensor.last for sensor in sensors], dtype="datetime64[us]").astype(np.int64)


def _in_progress(hours: Arrays, last_readings: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return True for the last hour of each sensor whose readings do not yet reach its end."""
    sensor = hours["sensor"]
    last_rows = np.flatnonzero(np.append(sensor[1:] != sensor[:-1], True))
    per_hour = pd.Series(hours["count"]).groupby(sensor).median().to_numpy()
    reached = last_readings[sensor[last_rows]] + HOUR / per_hour + _TOLERANCE
    result = np.zeros(len(sensor), dtype=bool)
    result[last_rows] = reached < hours["timestamp"][last_rows] + HOUR
    return result


def _load(
    source: Input, sensors: Sequence[SensorRows], hours: Arrays, ahead: pd.DataFrame | None, **counts: Any
) -> HourlyLoad:
    frame = sensor_frame([sensor.sensor_id for sensor in sensors], hours["sensor"], hours["timestamp"])
    gap_hours, seen = count_gap_hours(hours["sensor"], hours["timestamp"]), len(np.unique(hours["sensor"]))
    for name in (*_VALUES, *(name for name in COVARIATES if name in hours)):
        frame[name] = hours.pop(name) if name in hours else np.full(len(frame), np.nan)
    report = InputReport(
        result="hourly",
        sensors=seen,
        first=frame["timestamp"].min(),
        last=frame["timestamp"].max(),
        gap_hours=gap_hours,
        digest=digest(frame),
        **source.facts(sensors),
        **counts,
    )
    return HourlyLoad(frame, report, ahead)
