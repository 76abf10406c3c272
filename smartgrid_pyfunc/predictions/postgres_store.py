"""Predictions in a PostgreSQL table whose primary key is the key of a row: a batch is added in one transaction."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import psycopg
import pyarrow as pa
import pyarrow.csv
from psycopg import sql

from smartgrid_pyfunc.predictions.columns import FLAG, NUMBER, TEXT, TIME, WHOLE, Kind
from smartgrid_pyfunc.predictions.store import Part
from smartgrid_pyfunc.sources.database import Address, connect

_TYPES = {TEXT: "text", TIME: "timestamptz", NUMBER: "double precision", WHOLE: "integer", FLAG: "boolean"}
_LOCK = 7_304_811_556  # whoever makes a table of predictions holds this advisory lock
_INCOMING = sql.Identifier("smartgrid_incoming")
_EPOCH_US = sql.SQL("(extract(epoch FROM {}) * 1000000)::bigint")


@dataclass(frozen=True)
class PostgresStore:
    """A `store.Store` in a database."""

    address: Address
    kind: Kind

    @property
    def _table(self) -> sql.Identifier:
        return sql.Identifier(*self.address.table)

    def prepare(self) -> None:
        """Make table and index if the table is missing; see `store.Store.prepare`."""
        with connect(self.address) as con:
            con.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
            if not self._exists(con):
                con.execute(self._creation())
                con.execute(sql.SQL("CREATE INDEX ON {} (timestamp)").format(self._table))
            con.execute(sql.SQL("INSERT INTO {} SELECT * FROM {} WHERE false").format(self._table, self._table))

    def write(self, table: pa.Table) -> int:
        """Copy the rows into a temporary table and insert those that are new; see `store.Store.write`."""
        names = _listed(self.kind.columns)
        insert = sql.SQL("INSERT INTO {} ({}) SELECT {} FROM {} ORDER BY {} ON CONFLICT ({}) DO NOTHING")
        key = _listed(self.kind.key)  # rows in one order: two writers at once wait for, not on, each other
        with connect(self.address) as con:
            self._send(con, table)
            return con.execute(insert.format(self._table, names, names, _INCOMING, key, key)).rowcount

    def holds(self, keys: pa.Table) -> bool:
        """Return whether no key is missing; see `store.Store.holds`."""
        same = sql.SQL(" AND ").join(
            sql.SQL("t.{0} = i.{0}").format(sql.Identifier(name)) for name in self.kind.key
        )  # fmt: skip
        query = sql.SQL("SELECT 1 FROM {} AS i WHERE NOT EXISTS (SELECT 1 FROM {} AS t WHERE {}) LIMIT 1")
        with connect(self.address) as con:
            self._send(con, keys)
            con.execute(sql.SQL("ANALYZE {}").format(_INCOMING))  # else a long table may be read instead of its index
            return con.execute(query.format(_INCOMING, self._table, same)).fetchone() is None

    def read(self, part: Part) -> pa.Table:
        """Select the rows asked for; see `store.Store.read`."""
        fields = [_field(name, what) for name, what in self.kind.columns.items()]
        query = sql.SQL("COPY (SELECT {} FROM {} WHERE {}) TO STDOUT (FORMAT CSV, FORCE_QUOTE ({}))").format(
            sql.SQL(", ").join(fields), self._table, _condition(part), _listed(_named(self.kind, TEXT))
        )
        with connect(self.address) as con:
            if not self._exists(con):
                return self.kind.schema.empty_table()
            text = io.BytesIO()
            with con.cursor() as cursor, cursor.copy(query) as copy:
                for block in copy:
                    text.write(block)
        return _parsed(text.getvalue(), self.kind)

    # ----------------------------------------------------------------------------------------------- pieces

    def _exists(self, con: psycopg.Connection[Any]) -> bool:
        name = self._table.as_string(con)
        return bool((con.execute("SELECT to_regclass(%s) IS NOT NULL", [name]).fetchone() or (False,))[0])

    def _creation(self) -> sql.Composed:
        columns = [
            sql.SQL("{} {}{}").format(
                sql.Identifier(name),
                sql.SQL(_TYPES[what]),
                sql.SQL(" NOT NULL" if name in self.kind.filled else ""),
            )
            for name, what in self.kind.columns.items()
        ]
        return sql.SQL("CREATE TABLE {} ({}, PRIMARY KEY ({}))").format(
            self._table, sql.SQL(", ").join(columns), _listed(self.kind.key)
        )

    def _send(self, con: psycopg.Connection[Any], table: pa.Table) -> None:
        """Copy `table` into a temporary table that ends with the transaction."""
        names = _listed(table.column_names)
        con.execute(
            sql.SQL("CREATE TEMPORARY TABLE {} ON COMMIT DROP AS SELECT {} FROM {} WITH NO DATA").format(
                _INCOMING, names, self._table
            )
        )
        text = io.BytesIO()
        pa.csv.write_csv(table, text, pa.csv.WriteOptions(include_header=False))
        with con.cursor() as cursor, cursor.copy(
            sql.SQL("COPY {} ({}) FROM STDIN (FORMAT CSV)").format(_INCOMING, names)
        ) as copy:  # fmt: skip
            copy.write(text.getbuffer())


def _listed(names: Sequence[str] | Any) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(name) for name in names)


def _named(kind: Kind, *what: str) -> list[str]:
    return [name for name, held in kind.columns.items() if held in what]


def _field(name: str, what: str) -> sql.Composable:
    return _EPOCH_US.format(sql.Identifier(name)) if what == TIME else sql.Identifier(name)


def _condition(part: Part) -> sql.Composable:
    pairs: list[tuple[str, str, Any]] = [
        ("timestamp", ">=", _text(part.since)),
        ("timestamp", "<", _text(part.until)),
        ("model", "=", part.model),
        ("version", "=", part.version),
    ]
    parts = [
        sql.SQL("{} {} {}").format(sql.Identifier(name), sql.SQL(sign), sql.Literal(value))
        for name, sign, value in pairs
        if value is not None
    ]
    return sql.SQL(" AND ").join(parts) if parts else sql.SQL("true")


def _text(time: pd.Timestamp | None) -> str | None:
    return None if time is None else time.isoformat()


def _parsed(text: bytes, kind: Kind) -> pa.Table:
    if not text:
        return kind.schema.empty_table()
    types = {f.name: pa.int64() if pa.types.is_timestamp(f.type) else f.type for f in kind.schema}
    found = pa.csv.read_csv(
        io.BytesIO(text),
        read_options=pa.csv.ReadOptions(column_names=list(kind.columns)),
        parse_options=pa.csv.ParseOptions(newlines_in_values=True),
        convert_options=pa.csv.ConvertOptions(
            column_types=types,
            null_values=[""],
            true_values=["t"],
            false_values=["f"],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )
    return found.cast(kind.schema)
