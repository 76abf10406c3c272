"""Readings from files into a PostgreSQL table: all of them or none."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from psycopg import sql

from smartgrid_pyfunc.schema import InputError
from smartgrid_pyfunc.sources.database import DEFAULT_TABLE, Address, connect, parse_address

_ROWS_AT_ONCE = 200_000


def fill_table(to: str, folder: Path, schema: Path, say: Callable[[str], Any]) -> int:
    """Copy the Parquet files of readings in `folder` into the empty or absent table at `to`; return their rows.

    Parameters
    ----------
    to : str
        ``postgresql://…/database?table=…``.
    folder : Path
        Files whose columns are columns of the table.
    schema : Path
        SQL that creates the table `database.DEFAULT_TABLE` where it is absent; no other is created.
    say : callable
        Called with one sentence after each file.

    Raises
    ------
    InputError
        If the database refuses, or the table has rows already.
    """
    address, files, rows = parse_address(to), sorted(folder.glob("*.parquet")), 0
    with connect(address) as con:
        if address.table == (DEFAULT_TABLE,):
            con.execute(schema.read_bytes())
        _require_empty(con, address)
        for number, path in enumerate(files, 1):
            rows += _copy(con, address, path)
            say(f"{number} of {len(files)} files written to {address.place}")
    return rows


def _require_empty(con: psycopg.Connection[Any], address: Address) -> None:
    table = sql.Identifier(*address.table)
    if con.execute(sql.SQL("SELECT 1 FROM {} LIMIT 1").format(table)).fetchone():
        raise InputError(
            "the table must be empty",
            place=address.place,
            found="rows",
            remedy="name another with ?table=, or empty it",
        )


def _copy(con: psycopg.Connection[Any], address: Address, path: Path) -> int:
    file = pq.ParquetFile(path)
    names = sql.SQL(", ").join(sql.Identifier(name) for name in file.schema_arrow.names)
    command = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT CSV)").format(sql.Identifier(*address.table), names)
    without_header = pa.csv.WriteOptions(include_header=False)
    with con.cursor() as cursor, cursor.copy(command) as copy:
        for batch in file.iter_batches(_ROWS_AT_ONCE):
            text = io.BytesIO()
            pa.csv.write_csv(batch, text, without_header)
            copy.write(text.getbuffer())
    return int(file.metadata.num_rows)
