"""A PostgreSQL table that passed the gate: judged and aggregated where it is, streamed in fixed-width binary rows.

Plain SQL, so hypertables of TimescaleDB and views work too. All queries of one input see the same snapshot. Names go
into SQL as quoted identifiers and values as quoted literals, by psycopg's own means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

import numpy as np
import pandas as pd
import psycopg
from numpy.typing import NDArray
from psycopg import sql

from smartgrid_pyfunc import schema
from smartgrid_pyfunc.schema import InputError
from smartgrid_pyfunc.sources import gate
from smartgrid_pyfunc.sources.aggregation import Arrays, concatenate
from smartgrid_pyfunc.sources.gate import Column, SensorRows

DEFAULT_TABLE = "sensor_data"
_SCHEMES = ("postgresql", "postgres")
_OURS = ("table", "since", "until", "sensor_type")
_PATIENCE = 10  # s until a server must have answered
_BATCH = 100_000  # rows
_EPOCH = 946_684_800_000_000  # [µs] 2000-01-01, from which PostgreSQL counts, since 1970
_HEADER = 19  # bytes before the first row of a binary COPY
_REMEDY = "write postgresql://user@host:5432/database?table=sensor_data"

_INTEGERS = {"smallint", "integer", "bigint"}
_NUMBERS = _INTEGERS | {"real", "double precision", "numeric"}
_TEXTS = {"text", "character varying", "character", "uuid"}
_TIMES = {"timestamp with time zone", "timestamp without time zone", "date"}


# ------------------------------------------------------------------------------------------------ addresses


@dataclass(frozen=True)
class Address:
    """Where a table is and which of its rows are meant.

    Attributes
    ----------
    conninfo : str
        For libpq; may hold a password.
    table : tuple of str
        Name, or schema and name.
    since, until : str, optional
        ISO 8601, UTC: rows from `since` on, before `until`.
    sensor_types : tuple of str
        Types that are read; all if empty.
    place : str
        The address for people, without user and password.
    """

    conninfo: str
    table: tuple[str, ...]
    since: str | None
    until: str | None
    sensor_types: tuple[str, ...]
    place: str


def is_address(data: str) -> bool:
    """Return whether `data` is the URL of a PostgreSQL database."""
    return data.strip().lower().startswith(tuple(f"{scheme}://" for scheme in _SCHEMES))


def parse_address(data: str) -> Address:
    """Split ``postgresql://…/database?table=…&since=…&until=…&sensor_type=…``.

    Other parameters (``sslmode``, …) are libpq's. The password comes from the URL, PGPASSWORD or libpq's password file.

    Raises
    ------
    InputError
        For a repeated or malformed parameter.
    """
    url, port = _split(data)
    given = parse_qsl(url.query, keep_blank_values=True)
    ours = [(name, value.strip()) for name, value in given if name in _OURS]
    options = dict(ours)
    if len(options) < len(ours):
        raise InputError(f"each of {', '.join(_OURS)} must be given once", found=urlencode(ours), remedy=_REMEDY)
    theirs = urlencode([pair for pair in given if pair[0] not in _OURS])
    table = options.get("table") or DEFAULT_TABLE
    place = f"postgresql://{url.hostname or ''}{port}{url.path}?table={table}"
    types = tuple(name.strip() for name in options.get("sensor_type", "").split(",") if name.strip())
    since, until = (_instant(options.get(name), name, place) for name in ("since", "until"))
    conninfo = urlunsplit(("postgresql", url.netloc, url.path, theirs, ""))
    return Address(conninfo, tuple(table.split(".")), since, until, types, place)


def _split(data: str) -> tuple[SplitResult, str]:
    """Return the parts of the URL, and ``:port`` or nothing; what is wrong is not repeated: it may be the password."""
    try:
        url = urlsplit(data.strip())
        port = f":{url.port}" if url.port else ""
    except ValueError:
        url, port = None, ""
    if url is None or ("@" in url.path and "@" not in url.netloc):  # a slash in the password ends the host there
        raise InputError(
            "the address of a database must be a URL",
            remedy=f"{_REMEDY}, with special characters of a password as %2F and the like, or set PGPASSWORD",
        )
    return url, port


def _instant(text: str | None, name: str, place: str) -> str | None:
    if not text:
        return None
    try:
        time = schema.parse_timestamps(pd.Series([text.replace(" ", "+") if "T" in text else text]), name)
    except InputError as error:
        raise InputError(error.rule, place=place, found=text, remedy="write 2026-03-01T00:00:00Z") from None
    return str(schema.format_timestamps(time)[0])


@contextmanager
def connect(address: Address) -> Iterator[psycopg.Connection[Any]]:
    """Open a connection whose transaction is committed when the block ends well.

    Raises
    ------
    InputError
        In place of what psycopg raises: one sentence, without the password.
    """
    try:
        with psycopg.connect(address.conninfo, connect_timeout=_PATIENCE, application_name="smartgrid") as con:
            yield con
    except psycopg.Error as error:
        raise _unanswered(address, error) from None


@contextmanager
def _snapshot(address: Address) -> Iterator[psycopg.Connection[Any]]:
    """Open a connection that can only read, sees one state of the database and speaks UTC."""
    with connect(address) as con:
        con.isolation_level, con.read_only = psycopg.IsolationLevel.REPEATABLE_READ, True
        con.execute("SET LOCAL TimeZone = 'UTC'")
        yield con


def _unanswered(address: Address, error: psycopg.Error) -> InputError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if isinstance(error, psycopg.OperationalError) and error.sqlstate is None:
        remedy = "check host, port, database and password (in the URL, PGPASSWORD or the password file of libpq)"
        return InputError("the database must answer", place=address.place, remedy=f"{remedy}; it said: {reason}")
    return InputError("the database must answer the query", place=address.place, remedy=f"it said: {reason}")


# --------------------------------------------------------------------------------------------------- tables


@dataclass(frozen=True)
class _Table:
    """A table's columns and their types, in order."""

    address: Address
    types: dict[str, str]
    unique: bool  # no two rows of a sensor share a time

    @property
    def name(self) -> sql.Identifier:
        return sql.Identifier(*self.address.table)


_DESCRIBE = """
SELECT attname, CASE WHEN typtype = 'b' THEN split_part(format_type(atttypid, NULL), '(', 1) ELSE typname END
FROM pg_attribute JOIN pg_type ON pg_type.oid = atttypid
WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""
_UNIQUE = """
SELECT count(*) FROM pg_index
WHERE indrelid = to_regclass(%s) AND indisunique AND indpred IS NULL AND indexprs IS NULL AND indisvalid
AND ARRAY(SELECT attname::text FROM pg_attribute WHERE attrelid = indrelid AND attnum = ANY (indkey))
    <@ ARRAY['sensor_id', 'sensor_type', 'timestamp']
"""


def _describe(con: psycopg.Connection[Any], address: Address) -> _Table:
    name = sql.Identifier(*address.table).as_string(con)
    types = dict(con.execute(_DESCRIBE, [name]).fetchall())
    if not types:
        raise InputError("the table must exist", place=address.place, remedy="name it with ?table=schema.name")
    (unique,) = con.execute(_UNIQUE, [name]).fetchone() or (0,)
    return _Table(address, types, bool(unique))


def _select(table: _Table, columns: Sequence[Column]) -> sql.Composed:
    """Return a query for the rows that are meant, with the columns that `gate.counting` needs."""
    cells = [sql.SQL("{} AS {}").format(_cell(table, c), sql.Identifier(f"{c.name}_raw")) for c in columns]
    values = [sql.SQL("{} AS {}").format(_value(table, c), sql.Identifier(c.name)) for c in columns]
    naive = sql.Literal(table.types["timestamp"] != "timestamp with time zone")
    return sql.SQL("SELECT *, {} AS naive FROM (SELECT *, {} FROM (SELECT {} FROM {} WHERE {}) AS r) AS v").format(
        naive, sql.SQL(", ").join(values), sql.SQL(", ").join(cells), table.name, _meant(table)
    )


def _meant(table: _Table) -> sql.Composable:
    address, conditions = table.address, [sql.SQL("true")]
    moment = sql.SQL("{}") if table.types["timestamp"] == "timestamp with time zone" else sql.SQL("{}::timestamp")
    for limit, sign in ((address.since, ">="), (address.until, "<")):
        if limit:
            text = sql.SQL("{}::timestamptz").format(sql.Literal(limit))
            conditions.append(sql.SQL("timestamp {} {}").format(sql.SQL(sign), moment.format(text)))  # type: ignore[arg-type]
    if address.sensor_types:
        kinds = sql.Literal(list(address.sensor_types))
        conditions.append(sql.SQL("sensor_type::text = ANY ({})").format(kinds))  # type: ignore[arg-type]
    return sql.SQL(" AND ").join(conditions)


def _cell(table: _Table, column: Column) -> sql.Composable:
    """Return SQL for the cell as stored; NULL where it says nothing."""
    kind, name = table.types.get(column.name), sql.Identifier(column.name)
    if kind is None:
        return sql.SQL("NULL::text")
    if kind in {"real", "double precision", "numeric"}:
        return sql.SQL("nullif({}, 'NaN')").format(name)
    return sql.SQL("nullif({}, '')").format(name) if kind in _TEXTS - {"uuid"} else name


def _value(table: _Table, column: Column) -> sql.Composable:
    """Return SQL for the cell converted to the type of `column`; NULL where that type cannot hold it."""
    kind, raw = table.types.get(column.name, ""), sql.Identifier(f"{column.name}_raw")
    if column.kind == "text":
        return sql.SQL("{}::text" if kind in _TEXTS | _INTEGERS else "NULL::text").format(raw)
    if column.kind == "time":
        if kind == "timestamp with time zone":
            return sql.SQL("{} AT TIME ZONE 'UTC'").format(raw)
        return sql.SQL("{}::timestamp" if kind in _TIMES else "NULL::timestamp").format(raw)
    if column.kind == "flag" and kind == "boolean":
        return sql.SQL("{}::int::float8").format(raw)
    return sql.SQL("{}::float8" if kind in _NUMBERS else "NULL::float8").format(raw)


# ---------------------------------------------------------------------------------------------------- input


@dataclass(frozen=True)
class TableInput:
    """An `inputs.Input` of a database table; the rows stay in the database."""

    con: psycopg.Connection[Any]
    table: _Table
    kind: str
    columns: tuple[Column, ...]
    found: list[SensorRows]
    _words: dict[str, list[str]] = field(default_factory=dict)

    @property
    def place(self) -> str:
        """The address without credentials."""
        return self.table.address.place

    def stream(self, sensors: Sequence[SensorRows], *, drop_empty: str = "") -> Iterator[Arrays]:
        """Yield batches of sorted rows; see `inputs.Input.stream`."""
        details = [column for column in self.columns if column.name not in gate.KEYS]
        fields = [sql.SQL("number"), sql.SQL("timestamp"), *(self._number(column) for column in details)]
        query = sql.SQL("SELECT {} FROM ({}) AS t {} WHERE {} ORDER BY {}").format(
            sql.SQL(", ").join(fields),
            _select(self.table, self.columns),
            self._join(sensors),
            sql.SQL("{} IS NOT NULL").format(sql.Identifier(drop_empty)) if drop_empty else sql.SQL("true"),
            sql.SQL(", ").join(sql.SQL(str(i + 1)) for i in range(len(fields))),
        )
        for batch in _rows(self.con, query, [column.name for column in details]):
            yield batch | {name: self._spelled(name, batch[name]) for name in self._words if name in batch}

    def _number(self, column: Column) -> sql.Composable:
        """Return SQL for a cell as a double: NaN where missing, a text as its place among the texts of the column."""
        name = sql.Identifier(column.name)
        if column.kind != "text":
            return sql.SQL("coalesce({}, 'NaN')").format(name)
        words = self.con.execute(
            sql.SQL("SELECT DISTINCT {0} FROM ({1}) AS t WHERE {0} IS NOT NULL").format(
                name, _select(self.table, self.columns)
            )
        ).fetchall()
        self._words[column.name] = sorted(word for (word,) in words)
        return sql.SQL("coalesce(array_position({}::text[], {}), 0)::float8").format(
            sql.Literal(self._words[column.name]), name
        )

    def _spelled(self, name: str, codes: NDArray[np.float64]) -> NDArray[np.object_]:
        return np.array([None, *self._words[name]], dtype=object)[codes.astype(np.int64)]

    def hours(self, sensors: Sequence[SensorRows]) -> tuple[Arrays, int, int]:
        """Return the hours of the readings of `sensors`, made by the database; see `inputs.Input.hours`."""
        readings = sql.SQL("SELECT number, timestamp, value FROM ({}) AS t {} WHERE value IS NOT NULL").format(
            _select(self.table, self.columns), self._join(sensors)
        )
        query = sql.SQL(_UNIQUE_HOURS if self.table.unique else _HOURS).format(readings)
        names = ["avg_value", "min_value", "max_value", "count", "repeated", "conflicting"]
        hours = concatenate(list(_rows(self.con, query, names)))
        if not hours:
            return {}, 0, 0
        repeated, conflicting = (int(hours.pop(name).sum()) for name in ("repeated", "conflicting"))
        hours["avg_value"] = np.clip(hours["avg_value"], hours["min_value"], hours["max_value"])
        return hours, repeated, conflicting

    def _join(self, sensors: Sequence[SensorRows]) -> sql.Composed:
        """Return a join that leaves the rows of `sensors` and numbers them."""
        ids = sql.Literal([sensor.sensor_id for sensor in sensors])
        if self.kind == "hourly":
            return sql.SQL(
                "JOIN (SELECT sensor_id, ordinality::int - 1 AS number FROM unnest({}::text[]) "
                "WITH ORDINALITY AS n(sensor_id, ordinality)) AS s USING (sensor_id)"
            ).format(ids)
        return sql.SQL(
            "JOIN (SELECT sensor_id, sensor_type, ordinality::int - 1 AS number FROM unnest({}::text[], {}::text[]) "
            "WITH ORDINALITY AS n(sensor_id, sensor_type, ordinality)) AS s USING (sensor_id, sensor_type)"
        ).format(ids, sql.Literal([sensor.sensor_type for sensor in sensors]))

    def facts(self, sensors: Iterable[SensorRows]) -> dict[str, Any]:
        """Return the fields of the report; see `inputs.Input.facts`. A table has no order that could be wrong."""
        return gate.facts(self.kind, self.found, sensors) | {
            "files": (self.place,),
            "ignored_columns": gate.ignored_columns(self.table.types, self.kind),
        }


# Repeated readings count once, different values for one instant give their mean.
_HOURS = """
SELECT number, date_trunc('hour', timestamp), avg(value), min(value), max(value), count(*)::float8,
       sum(repeated)::float8, count(*) FILTER (WHERE conflicting)::float8
FROM (SELECT number, timestamp, least(greatest(avg(DISTINCT value), min(value)), max(value)) AS value,
             count(*) - count(DISTINCT value) AS repeated, min(value) <> max(value) AS conflicting
      FROM ({}) AS readings GROUP BY 1, 2) AS instants
GROUP BY 1, 2 ORDER BY 1, 2
"""
_UNIQUE_HOURS = """
SELECT number, date_trunc('hour', timestamp), avg(value), min(value), max(value), count(*)::float8,
       0::float8, 0::float8
FROM ({}) AS readings GROUP BY 1, 2 ORDER BY 1, 2
"""


def _rows(con: psycopg.Connection[Any], query: sql.Composable, names: Sequence[str]) -> Iterator[Arrays]:
    """Yield the rows of `query`, whose columns are a number (int), a timestamp and `names` (all doubles, none NULL).

    PostgreSQL documentation, COPY, "Binary Format": a row is its number of fields and, for each, length and bytes; as
    nothing is NULL, all rows have one length.
    """
    kinds = {"sensor": ">i4", "timestamp": ">i8"} | dict.fromkeys(names, ">f8")
    layout = [
        ("fields", ">i2"),
        *(pair for name, kind in kinds.items() for pair in ((f"{name}?", ">i4"), (name, kind))),
    ]
    row = np.dtype(layout)
    with con.cursor() as cursor, cursor.copy(sql.SQL("COPY ({}) TO STDOUT (FORMAT BINARY)").format(query)) as copy:
        waiting, begin = bytearray(), _HEADER
        for block in copy:
            waiting += block
            count = (len(waiting) - begin) // row.itemsize
            if count >= _BATCH:
                yield _batch(waiting, row, begin, count, kinds)
                del waiting[: begin + count * row.itemsize]
                begin = 0
        count = (len(waiting) - begin) // row.itemsize
        if count:
            yield _batch(waiting, row, begin, count, kinds)


def _batch(block: bytearray, row: np.dtype[Any], begin: int, count: int, names: Iterable[str]) -> Arrays:
    rows = np.frombuffer(bytes(block[begin : begin + count * row.itemsize]), row)
    batch = {name: rows[name].astype(rows[name].dtype.newbyteorder("=")) for name in names}
    batch["timestamp"] += _EPOCH
    return batch


@contextmanager
def open_table(data: str, result: str, say: Callable[[str], None]) -> Iterator[TableInput]:
    """Open and judge the table at `data`, from which `result` (``readings`` or ``hourly``) will be made.

    Raises
    ------
    InputError
        If the database does not answer, as the gate does, and for hourly load where readings are needed.
    """
    address = parse_address(data)
    with _snapshot(address) as con:
        table = _describe(con, address)
        kind = gate.kind_by_columns(tuple(table.types), place=address.place)
        if address.sensor_types and kind == "hourly":
            raise InputError("sensor_type selects readings", place=address.place, found="hourly load")
        columns = gate.present(table.types, gate.columns_for(kind, result, place=address.place))
        say(f"Checking {address.place}")
        found = _inspect(con, table, columns)
        say(f"Checked {sum(sensor.rows for sensor in found):,} rows of {len(found):,} sensor(s)")
        yield TableInput(con, table, kind, columns, found)


def kind_of_table(data: str) -> str:
    """Return what the table at `data` holds, by its columns: ``readings`` or ``hourly``."""
    address = parse_address(data)
    with _snapshot(address) as con:
        return gate.kind_by_columns(tuple(_describe(con, address).types), place=address.place)


def _inspect(con: psycopg.Connection[Any], table: _Table, columns: Sequence[Column]) -> list[SensorRows]:
    """Judge every cell that is meant; see `gate.inspect`."""
    laws, query = gate.all_laws(columns), _select(table, columns)
    counting = gate.counting(query.as_string(con), columns, [law for _, law in laws])
    found = con.execute(counting.replace("%", "%%").encode()).fetchall()
    for i, (column, law) in enumerate(laws):
        if any(row[6 + i] for row in found):
            raise _first_bad(con, table, query, column, law)
    if not found:
        raise InputError(
            "data must hold at least one row", place=table.address.place, found="none", remedy="check since and until"
        )
    sensors = [SensorRows(*row[:6]) for row in found]
    return sorted(sensors, key=lambda sensor: (sensor.sensor_id, sensor.sensor_type))  # the server's order is its own


def _first_bad(
    con: psycopg.Connection[Any], table: _Table, query: sql.Composed, column: Column, law: gate.Rule
) -> InputError:
    text = (
        f"SELECT sensor_id_raw::text, timestamp_raw::text, {column.name}_raw::text FROM ({query.as_string(con)}) AS t"
    )
    bad = con.execute(f"{text} WHERE {law.broken} LIMIT 1".encode()).fetchone()
    sensor, time, cell = bad or (None, None, None)
    place = f"{table.address.place}, column {column.name}, sensor {sensor} at {time}"
    return gate.refusal(column, law, place=place, cell=cell, kind=table.types.get(column.name, ""))
