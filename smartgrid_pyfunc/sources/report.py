"""What was read, what was tolerated and how often."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

HOUR = 3_600_000_000  # [µs]
_SHOWN = 8  # names that one notice repeats


@dataclass(frozen=True)
class InputReport:
    """Counts of one input, in the order in which they are met.

    Attributes
    ----------
    kind, result : str
        What the files hold and what the resulting frame holds: ``readings`` or ``hourly``.
    files : tuple of str
        Files read.
    rows, sensors : int
        Data rows of the files; sensors of the resulting frame.
    first, last : pandas.Timestamp
        Range of the resulting frame, UTC.
    duplicates_dropped : int
        Rows that repeat sensor, time and value of another row.
    conflicts : int
        Sensor-times with more than one value.
    naive_timestamps : int
        Rows without a time zone, read as UTC.
    rows_without_value : int
        Rows with an empty value.
    gap_hours : int
        Hours without a value between a sensor's first and last.
    incomplete_hours_dropped : int
        Last hours of sensors that were still in progress.
    unordered_rows : int
        Rows earlier than the row of the same sensor directly before them.
    unused_types : dict of str to int
        Rows of sensor types that were not asked for.
    unknown_types : dict of str to int
        Rows of sensor types without a known unit.
    ignored_columns, ignored_files, partition_keys : tuple of str
        What was passed over.
    digest : str
        16 hexadecimal digits of the SHA-256 of the resulting frame; independent of row order, repeated rows and files.
    """

    kind: str
    result: str
    files: tuple[str, ...]
    rows: int
    sensors: int
    first: pd.Timestamp
    last: pd.Timestamp
    duplicates_dropped: int = 0
    conflicts: int = 0
    naive_timestamps: int = 0
    rows_without_value: int = 0
    gap_hours: int = 0
    incomplete_hours_dropped: int = 0
    unordered_rows: int = 0
    unused_types: Mapping[str, int] = field(default_factory=dict)
    unknown_types: Mapping[str, int] = field(default_factory=dict)
    ignored_columns: tuple[str, ...] = ()
    ignored_files: tuple[str, ...] = ()
    partition_keys: tuple[str, ...] = ()
    digest: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain values that JSON can hold."""
        plain = asdict(self) | {"first": self.first.isoformat(), "last": self.last.isoformat()}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}

    def notices(self) -> list[str]:
        """Return one sentence for each thing that was found and tolerated."""
        return [*self._row_notices(), *self._name_notices()]

    def _row_notices(self) -> list[str]:
        one_value = self.result == "hourly"
        told = {
            "naive_timestamps": "Rows without a time zone: {:,}; read as UTC.",
            "duplicates_dropped": "Rows that repeat sensor, time and value of another: {:,}; dropped.",
            "conflicts": "Sensor-times with different values: {:,}; "
            + ("the mean of the distinct values was taken." if one_value else "all were kept."),
            "rows_without_value": "Rows without a value: {:,}; "
            + ("left as gaps." if one_value else "kept as missing."),
            "unordered_rows": "Rows earlier than the row before them: {:,}; sorted.",
            "gap_hours": "Hours without a value between a sensor's first and last: {:,}; not filled.",
            "incomplete_hours_dropped": "Last hours still in progress: {:,}; dropped.",
        }
        return [text.format(getattr(self, name)) for name, text in told.items() if getattr(self, name)]

    def _name_notices(self) -> list[str]:
        told = {
            "Sensor types not asked for were left out": _counted(self.unused_types),
            "Sensor types without a known unit": _counted(self.unknown_types),
            "Columns ignored": list(self.ignored_columns),
            "Files ignored because they are neither CSV nor Parquet": list(self.ignored_files),
            "Partition folders are not read as columns": list(self.partition_keys),
        }
        return [f"{label}: {_listed(names)}." for label, names in told.items() if names]


def _counted(types: Mapping[str, int]) -> list[str]:
    return [f"{name} ({count:,} rows)" for name, count in types.items()]


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def count_gap_hours(sensors: NDArray[np.int64], times: NDArray[np.int64]) -> int:
    """Return the number of hours without a row between the first and last row of each sensor.

    Parameters
    ----------
    sensors, times : arrays of int, shape (n,)
        Sensor number and time [µs], sorted by both.
    """
    if not len(times):
        return 0
    hours = times // HOUR
    same = sensors[1:] == sensors[:-1]
    steps = np.diff(hours)[same]
    return int(np.sum(steps[steps > 1] - 1))


def digest(frame: pd.DataFrame) -> str:
    """Return 16 hexadecimal digits of the SHA-256 of the columns of `frame`, names included."""
    state = hashlib.sha256()
    for name in frame.columns:
        state.update(f"{name}\0".encode())
        state.update(_content(frame[name]))
    return state.hexdigest()[:16]


def _content(column: pd.Series[Any]) -> bytes:
    """Return the column as bytes that do not depend on word order, nor on which NaN or zero is stored."""
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        return pd.DatetimeIndex(column).as_unit("us").asi8.astype("<i8").tobytes()
    if pd.api.types.is_numeric_dtype(column.dtype):
        values = column.to_numpy(dtype="<f8") + 0.0
        values[np.isnan(values)] = np.nan
        return values.tobytes()
    codes, names = pd.factorize(column)
    return codes.astype("<i8").tobytes() + "\0".join(names).encode()
