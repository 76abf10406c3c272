"""Readings as they are, for the detection of anomalies."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from smartgrid_pyfunc.schema import LABEL
from smartgrid_pyfunc.sources.aggregation import Arrays, changes, concatenate, sensor_frame
from smartgrid_pyfunc.sources.hourly import HourlyLoad, load_hourly
from smartgrid_pyfunc.sources.inputs import Input, Progress, kind_of_data, open_input, require_one_type
from smartgrid_pyfunc.sources.report import InputReport, count_gap_hours, digest


@dataclass(frozen=True)
class Readings:
    """Readings with the report of their input.

    Attributes
    ----------
    frame : DataFrame
        Sorted by ``sensor_id, timestamp`` (UTC), with ``sensor_type, value, latitude, longitude`` (NaN where unknown),
        and ``is_anomaly`` (bool) and ``fault`` (text) if the input has them.
    report : InputReport
    """

    frame: pd.DataFrame
    report: InputReport


def load_readings(data: str, *, hourly_as: str | None = None, on_progress: Progress | None = None) -> Readings:
    """Read readings of all sensor types.

    A row that repeats sensor, time and value of another is dropped; different values for one time are all kept, and so
    are readings without a value.

    Parameters
    ----------
    data : str
        ``demo``, a CSV or Parquet file, a glob or a folder.
    hourly_as : str, optional
        Sensor type under which the averages of hourly load count as readings; without it hourly load is refused.
    on_progress : callable, optional
        Called with one sentence at each step.

    Raises
    ------
    InputError
        If the input breaks a rule of the gate or holds hourly load.
    """
    if hourly_as is not None and kind_of_data(data) == "hourly":
        return _averages(load_hourly(data, on_progress=on_progress), hourly_as)
    with open_input(data, "readings", on_progress) as source:
        require_one_type(source.found)
        rows = concatenate(list(source.stream(source.found)))
        kept, counts = _drop_duplicates(rows)
        frame = _frame(source, kept)
        report = _report(source, frame, kept, counts)
    if on_progress:
        on_progress(f"{len(frame):,} readings of {report.sensors:,} sensor(s)")
    return Readings(frame, report)


def _averages(load: HourlyLoad, sensor_type: str) -> Readings:
    """Take the average of each hour as one reading at its start."""
    frame = load.frame[["sensor_id", "timestamp"]].copy()
    frame.insert(1, "sensor_type", pd.Series(sensor_type, index=frame.index, dtype="str"))
    frame["value"] = load.frame["avg_value"]
    frame["latitude"] = frame["longitude"] = np.nan
    return Readings(frame, replace(load.report, result="readings"))


def _drop_duplicates(rows: Arrays) -> tuple[Arrays, dict[str, int]]:
    keys = rows["sensor"], rows["timestamp"]
    distinct, starts = changes(*keys, rows["value"]), np.flatnonzero(changes(*keys))
    if distinct.all() and len(starts) == len(distinct):  # the usual case, without another copy in memory
        return rows, {}
    per_time = np.add.reduceat(distinct.astype(np.int64), starts)
    kept = {name: column[distinct] for name, column in rows.items()}
    if LABEL in rows:  # a reading is anomalous if any of its copies is labelled so
        kept[LABEL] = np.maximum.reduceat(rows[LABEL], np.flatnonzero(distinct))
    counts = {"duplicates_dropped": int(np.sum(~distinct)), "conflicts": int(np.sum(per_time > 1))}
    return kept, counts


def _frame(source: Input, rows: Arrays) -> pd.DataFrame:
    frame = sensor_frame([sensor.sensor_id for sensor in source.found], rows["sensor"], rows["timestamp"])
    types = pd.array([sensor.sensor_type for sensor in source.found], dtype="str")
    frame.insert(1, "sensor_type", pd.Series(types.take(rows["sensor"])))
    for name in ("value", "latitude", "longitude"):
        frame[name] = rows.get(name, np.full(len(frame), np.nan))
    if LABEL in rows:
        frame[LABEL] = rows[LABEL] == 1
    if "fault" in rows:
        frame["fault"] = pd.array(rows["fault"], dtype="str")
    return frame


def _report(source: Input, frame: pd.DataFrame, rows: Arrays, counts: dict[str, Any]) -> InputReport:
    known = ~np.isnan(rows["value"])
    return InputReport(
        result="readings",
        sensors=len(source.found),
        first=frame["timestamp"].min(),
        last=frame["timestamp"].max(),
        gap_hours=count_gap_hours(rows["sensor"][known], rows["timestamp"][known]),
        digest=digest(frame),
        **source.facts(source.found),
        **counts,
    )
