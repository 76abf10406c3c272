"""Files that passed the gate: their rows in one total order, batch by batch, and the facts for the report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from smartgrid_pyfunc.sources import gate
from smartgrid_pyfunc.sources.aggregation import Arrays, aggregate
from smartgrid_pyfunc.sources.files import FileSet, find_files
from smartgrid_pyfunc.sources.gate import Column, SensorRows
from smartgrid_pyfunc.sources.tables import Table, connection, open_tables

_BATCH = 100_000  # rows


@dataclass(frozen=True)
class FileInput:
    """An `inputs.Input` of files; the rows stay in DuckDB, which spills to disk."""

    con: duckdb.DuckDBPyConnection
    files: FileSet
    tables: list[Table]
    kind: str
    columns: tuple[Column, ...]
    found: list[SensorRows]
    name_of: Callable[[Path], str] = str

    @property
    def place(self) -> str:
        """The first file."""
        return self.name_of(self.files.paths[0])

    def stream(self, sensors: Sequence[SensorRows], *, drop_empty: str = "") -> Iterator[Arrays]:
        """Yield batches of sorted rows; see `inputs.Input.stream`.

        Sums of floating-point numbers come out equal to the last bit however the files were laid out.
        """
        query, parameters = gate.select(self.tables, self.columns)
        details = [column for column in self.columns if column.name not in gate.KEYS]
        fields = ", ".join(["sensor_number AS sensor", "epoch_us(timestamp) AS timestamp", *map(_field, details)])
        keys = ", ".join(column.name for column in self.columns if column.name in {"sensor_id", "sensor_type"})
        where = f"WHERE {drop_empty} IS NOT NULL" if drop_empty else ""
        self.con.register("sensors", _numbered(sensors))
        rows = self.con.sql(
            f"SELECT {fields} FROM ({query}) JOIN sensors USING ({keys}) {where} ORDER BY ALL", params=parameters
        )
        for batch in rows.to_arrow_reader(_BATCH):
            yield {name: batch.column(name).to_numpy(zero_copy_only=False) for name in batch.schema.names}

    def hours(self, sensors: Sequence[SensorRows]) -> tuple[Arrays, int, int]:
        """Return the hours of the readings of `sensors`; see `inputs.Input.hours`."""
        return aggregate(self.stream(sensors, drop_empty="value"))

    def facts(self, sensors: Iterable[SensorRows]) -> dict[str, Any]:
        """Return the fields of the report; see `inputs.Input.facts`."""
        names = (name for table in self.tables for name in table.names)
        return gate.facts(self.kind, self.found, sensors) | {
            "files": tuple(self.name_of(path) for table in self.tables for path in table.paths),
            "unordered_rows": gate.count_unordered(self.con, self.tables, self.columns),
            "ignored_columns": gate.ignored_columns(names, self.kind),
            "ignored_files": tuple(self.name_of(path) for path in self.files.skipped),
            "partition_keys": self.files.partition_keys,
        }


@contextmanager
def open_files(
    data: str, result: str, say: Callable[[str], None], name_of: Callable[[Path], str] = str
) -> Iterator[FileInput]:
    """Find, open and judge the files of `data`, from which `result` (``readings`` or ``hourly``) will be made.

    The report names a file as `name_of` does.

    Raises
    ------
    InputError
        As the gate does, and for hourly load where readings are needed.
    """
    files = find_files(data)
    with connection() as con:
        tables = open_tables(con, files.paths)
        kind = gate.kind_of(tables)
        names = [name for table in tables for name in table.names]
        columns = gate.present(names, gate.columns_for(kind, result, place=str(files.paths[0])))
        say(f"Checking {len(files.paths)} file(s) of {'readings' if kind == 'readings' else 'hourly load'}")
        found = gate.inspect(con, tables, columns)
        say(f"Checked {sum(sensor.rows for sensor in found):,} rows of {len(found):,} sensor(s)")
        yield FileInput(con, files, tables, kind, columns, found, name_of)


def kind_of_files(data: str) -> str:
    """Return what the files of `data` hold, by their columns: ``readings`` or ``hourly``."""
    with connection() as con:
        return gate.kind_of(open_tables(con, find_files(data).paths))


def _numbered(sensors: Sequence[SensorRows]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "sensor_id": [sensor.sensor_id for sensor in sensors],
            "sensor_type": [sensor.sensor_type for sensor in sensors],
            "sensor_number": np.arange(len(sensors), dtype=np.int32),
        }
    )


def _field(column: Column) -> str:
    if column.kind == "text":
        return f"{column.name} AS {column.name}"
    return f"coalesce({column.name}, 'nan'::DOUBLE) AS {column.name}"
