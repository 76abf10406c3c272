"""Hourly load: read as it is, or made from readings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smartgrid_pyfunc.schema import COVARIATES, InputError
from smartgrid_pyfunc.sources.checked import (
    Arrays,
    CheckedInput,
    Progress,
    changes,
    concatenate,
    mean_of_groups,
    merge_repeated,
    open_checked,
    require_one_type,
    sensor_frame,
)
from smartgrid_pyfunc.sources.gate import SensorRows
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
    """

    frame: pd.DataFrame
    report: InputReport


def load_hourly(data: str, *, sensor_type: str = "power,energy", on_progress: Progress | None = None) -> HourlyLoad:
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
    on_progress : callable, optional
        Called with one sentence at each step.

    Raises
    ------
    InputError
        If the input breaks a rule of the gate or no hour is left.
    """
    with open_checked(data, "hourly", on_progress) as source:
        make = _from_hourly if source.kind == "hourly" else _from_readings
        load = make(source, sensor_type)
    if on_progress:
        on_progress(f"{len(load.frame):,} hours of {load.report.sensors:,} sensor(s)")
    return load


def _from_hourly(source: CheckedInput, sensor_type: str) -> HourlyLoad:
    rows = concatenate(list(source.stream(source.found, drop_empty="avg_value")))
    if not rows:
        raise InputError(
            "avg_value must be known for at least one hour", place=str(source.files.paths[0]), found="none"
        )
    merged, duplicates, conflicts = merge_repeated(rows, "avg_value")
    return _load(source, source.found, merged, duplicates_dropped=duplicates, conflicts=conflicts)


def _from_readings(source: CheckedInput, sensor_type: str) -> HourlyLoad:
    sensors = _selected(source, sensor_type)
    hours, duplicates, conflicts = _aggregate(source.stream(sensors, drop_empty="value"))
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
    kept = {name: column[complete] for name, column in hours.items()}
    dropped = int(np.sum(~complete))
    counts = {"duplicates_dropped": duplicates, "conflicts": conflicts, "incomplete_hours_dropped": dropped}
    return _load(source, sensors, kept, **counts)


def _selected(source: CheckedInput, sensor_type: str) -> list[SensorRows]:
    wanted = {name.strip() for name in sensor_type.split(",")} - {""}
    sensors = [sensor for sensor in source.found if sensor.sensor_type in wanted]
    if not sensors:
        raise InputError(
            f"data must hold readings of sensor_type {', '.join(sorted(wanted)) or '(none given)'}",
            place=str(source.files.paths[0]),
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


def _aggregate(batches: Iterable[Arrays]) -> tuple[Arrays, int, int]:
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


def _in_progress(hours: Arrays, last_readings: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return True for the last hour of each sensor whose readings do not yet reach its end."""
    sensor = hours["sensor"]
    last_rows = np.flatnonzero(np.append(sensor[1:] != sensor[:-1], True))
    per_hour = pd.Series(hours["count"]).groupby(sensor).median().to_numpy()
    reached = last_readings[sensor[last_rows]] + HOUR / per_hour + _TOLERANCE
    result = np.zeros(len(sensor), dtype=bool)
    result[last_rows] = reached < hours["timestamp"][last_rows] + HOUR
    return result


def _load(source: CheckedInput, sensors: Sequence[SensorRows], hours: Arrays, **counts: Any) -> HourlyLoad:
    frame = sensor_frame([sensor.sensor_id for sensor in sensors], hours["sensor"], hours["timestamp"])
    for name in (*_VALUES, *(name for name in COVARIATES if name in hours)):
        frame[name] = hours.get(name, np.full(len(frame), np.nan))
    report = InputReport(
        result="hourly",
        sensors=len(np.unique(hours["sensor"])),
        first=frame["timestamp"].min(),
        last=frame["timestamp"].max(),
        gap_hours=count_gap_hours(hours["sensor"], hours["timestamp"]),
        digest=digest(frame),
        **source.facts(sensors),
        **counts,
    )
    return HourlyLoad(frame, report)
