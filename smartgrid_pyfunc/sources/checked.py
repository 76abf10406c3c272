"""An input that passed the gate: its rows in one total order, batch by batch, and the facts for its report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import duckdb
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smartgrid_pyfunc import schema
from smartgrid_pyfunc.schema import InputError
from smartgrid_pyfunc.sources import gate
from smartgrid_pyfunc.sources.files import FileSet, find_files
from smartgrid_pyfunc.sources.gate import Column, SensorRows
from smartgrid_pyfunc.sources.tables import Table, connection, open_tables

_BATCH = 100_000  # rows
_COLUMNS = {
    ("readings", "hourly"): gate.READING,
    ("readings", "readings"): gate.READING + gate.READING_DETAILS,
    ("hourly", "hourly"): gate.HOURLY,
}

Arrays = dict[str, NDArray[Any]]
Progress = Callable[[str], None]


@dataclass(frozen=True)
class CheckedInput:
    """Files whose every used cell is good.

    Attributes
    ----------
    kind : str
        ``readings`` or ``hourly``: what the files hold.
    columns : tuple of Column
        The columns used.
    found : list of SensorRows
        Counts per sensor and type, sorted.
    """

    con: duckdb.DuckDBPyConnection
    files: FileSet
    tables: list[Table]
    kind: str
    columns: tuple[Column, ...]
    found: list[SensorRows]

    def stream(self, sensors: Sequence[SensorRows], *, drop_empty: str = "") -> Iterator[Arrays]:
        """Yield batches of the rows of `sensors`, sorted by sensor, time and then every other column.

        The order is total, so what follows sees the same rows in the same order however the files were laid out, and
        sums of floating-point numbers come out equal to the last bit.

        Parameters
        ----------
        sensors : sequence of SensorRows
            The sensors (and types) to read; their position is their number.
        drop_empty : str
            Column without whose value a row is left out.

        Yields
        ------
        dict of arrays
            ``sensor`` (number), ``timestamp`` [µs since 1970] and the other columns; missing numbers are NaN.
        """
        query, parameters = gate.select(self.tables, self.columns)
        details = [column for column in self.columns if column.name not in {"sensor_id", "sensor_type", "timestamp"}]
        fields = ", ".join(["sensor_number AS sensor", "epoch_us(timestamp) AS timestamp", *map(_field, details)])
        keys = ", ".join(column.name for column in self.columns if column.name in {"sensor_id", "sensor_type"})
        where = f"WHERE {drop_empty} IS NOT NULL" if drop_empty else ""
        self.con.register("sensors", _numbered(sensors))
        rows = self.con.sql(
            f"SELECT {fields} FROM ({query}) JOIN sensors USING ({keys}) {where} ORDER BY ALL", params=parameters
        )
        for batch in rows.to_arrow_reader(_BATCH):
            yield {name: batch.column(name).to_numpy(zero_copy_only=False) for name in batch.schema.names}

    def facts(self, sensors: Iterable[SensorRows]) -> dict[str, Any]:
        """Return the fields of the report that hold before any row is fetched; counts are those of `sensors`."""
        sensors = list(sensors)
        return {
            "kind": self.kind,
            "files": tuple(str(path) for table in self.tables for path in table.paths),
            "rows": sum(sensor.rows for sensor in self.found),
            "naive_timestamps": sum(sensor.naive for sensor in sensors),
            "rows_without_value": sum(sensor.rows - sensor.valued for sensor in sensors),
            "unordered_rows": gate.count_unordered(self.con, self.tables, self.columns),
            "unused_types": _rows_by_type(sensor for sensor in self.found if sensor not in sensors),
            "unknown_types": _rows_by_type(s for s in sensors if s.sensor_type and s.sensor_type not in schema.UNITS),
            "ignored_columns": gate.ignored_columns(self.tables, self.kind),
            "ignored_files": tuple(str(path) for path in self.files.skipped),
            "partition_keys": self.files.partition_keys,
        }


@contextmanager
def open_checked(data: str, result: str, on_progress: Progress | None) -> Iterator[CheckedInput]:
    """Find, open and judge the files of `data`, from which `result` (``readings`` or ``hourly``) will be made.

    Raises
    ------
    InputError
        As the gate does, and for hourly load where readings are needed.
    """
    say = on_progress or _silent
    files = find_files(data)
    with connection() as con:
        tables = open_tables(con, files.paths)
        kind = gate.kind_of(tables)
        if (kind, result) not in _COLUMNS:
            raise InputError(
                "single readings are needed",
                place=str(files.paths[0]),
                found="hourly load",
                remedy=f"give columns {', '.join(schema.READING_REQUIRED)}",
            )
        say(f"Checking {len(files.paths)} file(s) of {'readings' if kind == 'readings' else 'hourly load'}")
        columns = gate.present(tables, _COLUMNS[kind, result])
        found = gate.inspect(con, tables, columns)
        say(f"Checked {sum(sensor.rows for sensor in found):,} rows of {len(found):,} sensor(s)")
        yield CheckedInput(con, files, tables, kind, columns, found)


def kind_of_data(data: str) -> str:
    """Return what the files of `data` hold, by their columns: ``readings`` or ``hourly``."""
    with connection() as con:
        return gate.kind_of(open_tables(con, find_files(data).paths))


def _silent(_: str) -> None:
    return


def _numbered(sensors: Sequence[SensorRows]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "sensor_id": [sensor.sensor_id for sensor in sensors],
            "sensor_type": [sensor.sensor_type for sensor in sensors],
            "sensor_number": np.arange(len(sensors), dtype=np.int32),
        }
    )


def _rows_by_type(sensors: Iterable[SensorRows]) -> dict[str, int]:
    rows: dict[str, int] = {}
    for sensor in sensors:
        rows[sensor.sensor_type] = rows.get(sensor.sensor_type, 0) + sensor.rows
    return dict(sorted(rows.items()))


def require_one_type(sensors: Sequence[SensorRows]) -> None:
    """Raise `InputError` if one sensor appears with two types: their values would be mixed."""
    for first, second in pairwise(sensors):
        if first.sensor_id == second.sensor_id:
            raise InputError(
                "a sensor must have one sensor_type",
                place=f"sensor {first.sensor_id}",
                found=f"{first.sensor_type} and {second.sensor_type}",
                remedy="give each measured quantity its own sensor_id",
            )


def _field(column: Column) -> str:
    if column.kind == "text":
        return f"{column.name} AS {column.name}"
    return f"coalesce({column.name}, 'nan'::DOUBLE) AS {column.name}"


def changes(*keys: NDArray[Any]) -> NDArray[np.bool_]:
    """Return True where a row of sorted `keys` differs from the row before it; two NaN are equal."""
    differs = np.zeros(len(keys[0]), dtype=bool)
    differs[:1] = True
    for key in keys:
        same = key[1:] == key[:-1]
        if key.dtype.kind == "f":
            same |= np.isnan(key[1:]) & np.isnan(key[:-1])
        differs[1:] |= ~same
    return differs


def merge_repeated(rows: Arrays, value: str) -> tuple[Arrays, int, int]:
    """Leave one row per sensor and time.

    Its `value` is the mean of the distinct values given for that time, its ``min_value`` the smallest; of every other
    column the largest known entry stays.

    Returns
    -------
    rows, duplicates, conflicts
        The rows left; rows that repeated sensor, time and value; sensor-times with more than one value.
    """
    first = changes(rows["sensor"], rows["timestamp"])
    if first.all():
        return rows, 0, 0
    starts = np.flatnonzero(first)
    distinct = changes(rows["sensor"], rows["timestamp"], rows[value])
    number = np.add.reduceat(distinct.astype(np.int64), starts)
    merged = {name: _MERGE.get(name, np.fmax).reduceat(column, starts) for name, column in rows.items()}
    merged[value] = mean_of_groups(rows[value], starts, distinct)
    return merged, int(len(first) - distinct.sum()), int(np.sum(number > 1))


_MERGE = {"min_value": np.fmin}


def mean_of_groups(
    values: NDArray[np.float64], starts: NDArray[np.int64], counted: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """Return the mean of each run of `values` that begins at `starts`, over the `counted` entries (default: all).

    Never outside the range of the run, also where the sum rounds or overflows.
    """
    used = np.ones(len(values), dtype=bool) if counted is None else counted
    with np.errstate(over="ignore"):
        total = np.add.reduceat(np.where(used, values, 0.0), starts)
    mean = total / np.add.reduceat(used.astype(np.float64), starts)
    return np.clip(mean, np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts))


def concatenate(batches: Sequence[Arrays]) -> Arrays:
    """Join batches column by column."""
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]} if batches else {}


def sensor_frame(names: Sequence[str], numbers: NDArray[np.int64], times: NDArray[np.int64]) -> pd.DataFrame:
    """Return ``sensor_id`` (text) and ``timestamp`` (UTC) for sensor numbers and times [µs]."""
    identifiers = pd.array(list(names), dtype="str").take(numbers)
    index = pd.DatetimeIndex(times.astype("datetime64[us]")).tz_localize("UTC")
    return pd.DataFrame({"sensor_id": identifiers, "timestamp": index})
