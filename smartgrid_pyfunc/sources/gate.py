"""The gate of training data: every cell that is used is typed and judged before anything is computed.

One counting pass over all files comes first; only when it finds something bad does a second query look for the row.
Cells are read as they are (text, in CSV) and converted with ``TRY_CAST``: a bad cell is a count and not a crash.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import duckdb

from smartgrid_pyfunc import schema
from smartgrid_pyfunc.schema import InputError
from smartgrid_pyfunc.sources.tables import Table, broken_file

# What DuckDB's own conversions would let pass is excluded: "2026-3-1", "epoch", hour 24, "+25:00", "1_000".
_ISO = r"\d{4}-\d\d-\d\d([T ]([01]\d|2[0-3]):[0-5]\d(:[0-5]\d(\.\d*)?)?(Z|[+-]([01]\d|2[0-3])(:?[0-5]\d)?)?)?"
_INTEGERS = {f"{sign}{size}INT" for sign in ("", "U") for size in ("TINY", "SMALL", "BIG", "HUGE")} | {
    "INTEGER",
    "UINTEGER",
}
_BLANKS = " \t\n\v\f\r"  # around a value of a CSV file, without meaning
_NUMBERS = _INTEGERS | {"FLOAT", "DOUBLE"}
_TIMES = {"DATE", "TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP WITH TIME ZONE"}
_NANOSECONDS = {"TIMESTAMP_NS", "TIMESTAMPTZ_NS"}

_NO_VALUE = "leave unknown values empty"
_TIMESTAMP = "write times like 2026-03-01T12:00:00Z or with an offset such as +01:00"


@dataclass(frozen=True)
class Rule:
    """A law of one column: the SQL condition that breaks it, and the sentence that says so."""

    broken: str
    text: str
    remedy: str


@dataclass(frozen=True)
class Column:
    """A column of the vocabulary: what it holds and whether it may be absent or empty.

    Attributes
    ----------
    kind : str
        ``text``, ``number``, ``flag`` or ``time``.
    rules : tuple of Rule
        Beside being readable as `kind`; ``{v}`` stands for the converted value.
    """

    name: str
    kind: str
    optional: bool = False
    may_be_empty: bool = False
    rules: tuple[Rule, ...] = ()

    def laws(self) -> list[Rule]:
        """Return all rules in the order in which they are told."""
        present, value = f"{self.name}_raw IS NOT NULL", self.name
        readable = Rule(f"{present} AND {value} IS NULL", *_READABLE[self.kind])
        kept = [
            Rule(rule.broken.format(v=value), rule.text, rule.remedy) for rule in (*_KIND_RULES[self.kind], *self.rules)
        ]
        missing = Rule(
            f"{self.name}_raw IS NULL", "must not be empty", _EMPTY.get(self.name, "fill it or leave the row out")
        )
        return [*([] if self.may_be_empty else [missing]), readable, *kept]


_READABLE = {
    "text": ("must be text", "write identifiers and types as text"),
    "number": ("must be a number", f"write numbers with a decimal point and {_NO_VALUE}"),
    "flag": ("must be true or false", "write true and false, or 1 and 0"),
    "time": ("must be ISO 8601", _TIMESTAMP),
}
_KIND_RULES = {
    "text": (),
    "number": (Rule("abs({v}) > 1.7976931348623157e308", "must be finite", _NO_VALUE),),
    "flag": (Rule("{v} NOT IN (0, 1)", "must be true or false", "write true and false, or 1 and 0"),),
    "time": (
        Rule(
            "{v} < TIMESTAMP '1900-01-01' OR {v} >= TIMESTAMP '2200-01-01'",
            "must lie between the years 1900 and 2200",
            "check the unit of the clock",
        ),
    ),
}
_EMPTY = {
    "sensor_id": "name the sensor",
    "sensor_type": "name the quantity, such as power",
    "is_anomaly": "label every row or leave the column out",
}
_ON_THE_HOUR = Rule(
    "{v} <> date_trunc('hour', {v})",
    "must be the start of an hour in UTC",
    "give readings (sensor_id, sensor_type, timestamp, value) to have them aggregated",
)
_WHOLE = Rule("{v} < 0 OR {v} <> floor({v})", "must be a whole number, 0 or more", "count the readings of the hour")

READING = (
    Column("sensor_id", "text"),
    Column("sensor_type", "text"),
    Column("timestamp", "time"),
    Column("value", "number", may_be_empty=True),
)
READING_DETAILS = (
    Column("latitude", "number", optional=True, may_be_empty=True),
    Column("longitude", "number", optional=True, may_be_empty=True),
    Column("is_anomaly", "flag", optional=True),
    Column("fault", "text", optional=True, may_be_empty=True),
)
HOURLY = (
    Column("sensor_id", "text"),
    Column("timestamp", "time", rules=(_ON_THE_HOUR,)),
    Column("avg_value", "number", may_be_empty=True),
    Column("min_value", "number", optional=True, may_be_empty=True),
    Column("max_value", "number", optional=True, may_be_empty=True),
    Column("count", "number", optional=True, may_be_empty=True, rules=(_WHOLE,)),
    Column("temperature", "number", optional=True, may_be_empty=True),
    Column("is_holiday", "flag", optional=True, may_be_empty=True),
)


#: Columns that say whose value it is and when; all others are details.
KEYS = frozenset({"sensor_id", "sensor_type", "timestamp"})
_COLUMNS = {
    ("readings", "hourly"): READING,
    ("readings", "readings"): READING + READING_DETAILS,
    ("hourly", "hourly"): HOURLY,
}


def columns_for(kind: str, result: str, *, place: str) -> tuple[Column, ...]:
    """Return the columns of an input of `kind` that are used to make `result` of it.

    Raises
    ------
    InputError
        For hourly load where readings are needed.
    """
    if (kind, result) not in _COLUMNS:
        raise InputError(
            "single readings are needed",
            place=place,
            found="hourly load",
            remedy=f"give columns {', '.join(schema.READING_REQUIRED)}",
        )
    return _COLUMNS[kind, result]


@dataclass(frozen=True)
class SensorRows:
    """What the counting pass found of one sensor and type."""

    sensor_id: str
    sensor_type: str
    rows: int
    valued: int
    naive: int
    last: datetime


def all_laws(columns: Iterable[Column]) -> list[tuple[Column, Rule]]:
    """Return every rule of `columns` with its column, in the order in which they are told."""
    return [(column, law) for column in columns for law in column.laws()]


def counting(query: str, columns: Sequence[Column], laws: Sequence[Rule]) -> str:
    """Return SQL, for DuckDB and PostgreSQL alike, that judges the rows of `query`.

    It gives the fields of `SensorRows` for each sensor and type, sorted, and then how often each of `laws` is broken.
    `query` gives, for each column, ``NAME`` (converted, or NULL) and ``NAME_raw`` (as stored), and ``naive``.
    """
    names = {column.name for column in columns}
    kind = "sensor_type" if "sensor_type" in names else "''"
    value = "value" if "value" in names else "avg_value"
    # Judged by the laws; here only so that Python's own calendar holds it.
    last = "greatest(least(max(timestamp), TIMESTAMP '2200-01-01'), TIMESTAMP '1900-01-01')"
    counts = ", ".join(["count(*)", f"count({value})", "count(*) FILTER (WHERE naive)", last])
    counts = ", ".join([counts, *(f"count(*) FILTER (WHERE {law.broken})" for law in laws)])
    return f"SELECT sensor_id, {kind}, {counts} FROM ({query}) AS judged GROUP BY 1, 2 ORDER BY 1, 2"


def kind_of(tables: Sequence[Table]) -> str:
    """Return ``readings`` or ``hourly`` by the columns of the files.

    Raises
    ------
    InputError
        If a file is neither or both, lacks or repeats a column, or the files are of different kinds.
    """
    kinds = [_kind(table) for table in tables]
    if len(set(kinds)) > 1:
        other = next(table for table, kind in zip(tables, kinds, strict=True) if kind != kinds[0])
        raise InputError(
            "all files must be of one kind",
            place=f"{tables[0].paths[0]}, {other.paths[0]}",
            found="readings and hourly load",
            remedy="pass them separately",
        )
    return kinds[0]


def _kind(table: Table) -> str:
    return kind_by_columns(table.names, place=str(table.paths[0]))


def kind_by_columns(names: Sequence[str], *, place: str) -> str:
    """Return ``readings`` or ``hourly`` for a table with columns `names`.

    Raises
    ------
    InputError
        If it is neither or both, or lacks or repeats a column; `place` says where.
    """
    is_hourly, is_readings = "avg_value" in names, "value" in names
    if is_hourly and is_readings:
        raise InputError("data must hold readings (value) or hourly load (avg_value)", place=place, found="both")
    if not is_hourly and not is_readings:
        raise InputError(
            f"data must hold readings ({', '.join(schema.READING_REQUIRED)}) "
            f"or hourly load ({', '.join(schema.HOURLY_REQUIRED)})",
            place=place,
            found=", ".join(names),
            remedy="rename the columns",
        )
    required = schema.HOURLY_REQUIRED if is_hourly else schema.READING_REQUIRED
    schema.require_columns(names, required, place=place)
    repeated = [name for name in names if names.count(name) > 1 and name in (*required, *_OPTIONAL)]
    if repeated:
        raise InputError(
            "a column must appear once", place=f"{place}, column {repeated[0]}", remedy="rename one of them"
        )
    return "hourly" if is_hourly else "readings"


_OPTIONAL = {column.name for column in (*READING_DETAILS, *HOURLY) if column.optional}
_VOCABULARY = {
    "readings": {*schema.READING_REQUIRED, *schema.READING_OPTIONAL, "is_anomaly", "fault"},
    "hourly": {*schema.HOURLY_REQUIRED, *schema.HOURLY_OPTIONAL},
}


def ignored_columns(names: Iterable[str], kind: str) -> tuple[str, ...]:
    """Those of the columns `names` that have no meaning for `kind`, each once, in order."""
    return tuple(dict.fromkeys(name for name in names if name not in _VOCABULARY[kind]))


def present(names: Iterable[str], columns: Iterable[Column]) -> tuple[Column, ...]:
    """Those of `columns` that are required or among `names`."""
    known = set(names)
    return tuple(column for column in columns if not column.optional or column.name in known)


def select(tables: Iterable[Table], columns: Sequence[Column]) -> tuple[str, list[Any]]:
    """Return a query for all rows, and its parameters: converted columns, raw cells as ``NAME_raw``, ``naive``."""
    queries, parameters = [], []
    for table in tables:
        source, files = table.scan()
        cells = ", ".join(f"{cell} AS {column.name}_raw" for column in columns for cell in [_cell(table, column)])
        values = ", ".join(f"{_value(table, column)} AS {column.name}" for column in columns)
        queries.append(
            f"SELECT *, {_naive(table)} AS naive FROM (SELECT *, {values} FROM (SELECT {cells} FROM {source}))"
        )
        parameters += files
    return " UNION ALL ".join(queries), parameters


def _type(table: Table, column: Column) -> str:
    return table.types[table.names.index(column.name)] if column.name in table.names else "NULL"


def _cell(table: Table, column: Column) -> str:
    """Return SQL for the cell as it stands in the file; NULL where it says nothing."""
    if column.name not in table.names:
        return "NULL::VARCHAR"
    cell = f"c{table.names.index(column.name)}"
    kind = _type(table, column)
    if kind in {"FLOAT", "DOUBLE"}:
        return f"CASE WHEN NOT isnan({cell}) THEN {cell} END"
    if not table.is_csv:
        return f"nullif({cell}, '')" if kind == "VARCHAR" and column.kind == "text" else cell
    if column.kind in {"number", "flag"}:
        trimmed = f"trim({cell}, '{_BLANKS}')"
        return f"CASE WHEN lower({trimmed}) NOT IN ('', 'nan') THEN {trimmed} END"
    return f"nullif({cell}, '')"


def _value(table: Table, column: Column) -> str:
    """Return SQL for the cell converted to the type of `column`; NULL where that is impossible."""
    raw, kind = f"{column.name}_raw", _type(table, column)
    return {"text": _as_text, "number": _as_number, "flag": _as_flag, "time": _as_time}[column.kind](raw, kind, table)


def _as_text(raw: str, kind: str, table: Table) -> str:
    return f"{raw}::VARCHAR" if kind == "VARCHAR" or kind in _INTEGERS or kind.startswith("ENUM") else "NULL::VARCHAR"


def _as_number(raw: str, kind: str, table: Table) -> str:
    if table.is_csv:
        return f"CASE WHEN NOT contains({raw}, '_') THEN TRY_CAST({raw} AS DOUBLE) END"
    return f"{raw}::DOUBLE" if kind in _NUMBERS or kind.startswith("DECIMAL") else "NULL::DOUBLE"


def _as_flag(raw: str, kind: str, table: Table) -> str:
    if table.is_csv:
        number = _as_number(raw, kind, table)
        return f"CASE lower({raw}) WHEN 'true' THEN 1 WHEN 'false' THEN 0 ELSE {number} END"
    return f"{raw}::INTEGER::DOUBLE" if kind == "BOOLEAN" else _as_number(raw, kind, table)


def _as_time(raw: str, kind: str, table: Table) -> str:
    if kind == "VARCHAR":
        return f"CASE WHEN regexp_full_match({raw}, '{_ISO}') THEN TRY_CAST({raw} AS TIMESTAMPTZ)::TIMESTAMP END"
    if kind in _NANOSECONDS:  # a plain cast would round up, and // would round times before 1970 up
        return f"make_timestamp((epoch_ns({raw}) - (epoch_ns({raw}) % 1000 + 1000) % 1000) // 1000)"
    return f"{raw}::TIMESTAMP" if kind in _TIMES else "NULL::TIMESTAMP"


def _naive(table: Table) -> str:
    kind = table.types[table.names.index("timestamp")]
    # The date itself has hyphens: a sign or Z counts only after it.
    return (
        "NOT regexp_matches(substr(timestamp_raw, 11), '[Z+-]')"
        if kind == "VARCHAR"
        else str("TZ" not in kind and "ZONE" not in kind)
    )


def inspect(con: duckdb.DuckDBPyConnection, tables: Sequence[Table], columns: Sequence[Column]) -> list[SensorRows]:
    """Judge every cell of `columns`; return counts per sensor and type, sorted.

    Raises
    ------
    InputError
        For the first bad row of the first bad file, or if there is no row at all.
    """
    laws = all_laws(columns)
    try:
        found = _count(con, tables, columns, [law for _, law in laws])
    except duckdb.OutOfMemoryException:
        raise
    except duckdb.Error as error:
        _raise_broken(con, tables, columns)
        raise error
    if any(sum(row[6:]) for row in found):
        raise _first_bad(con, tables, columns, laws)
    if not found:
        names = ", ".join(str(path) for table in tables for path in table.paths)
        raise InputError("data must hold at least one row", place=names, found="a header without rows")
    return [SensorRows(*row[:6]) for row in found]


def _count(
    con: duckdb.DuckDBPyConnection, tables: Sequence[Table], columns: Sequence[Column], laws: Sequence[Rule]
) -> list[Any]:
    query, parameters = select(tables, columns)
    return con.execute(counting(query, columns, laws), parameters).fetchall()


def _raise_broken(con: duckdb.DuckDBPyConnection, tables: Sequence[Table], columns: Sequence[Column]) -> None:
    """Read file by file and refuse the first that cannot be decoded."""
    for table in tables:
        for file in table.each_file():
            try:
                _count(con, [file], columns, [])
            except duckdb.Error as error:
                raise broken_file(file.paths[0], error) from None


def _first_bad(
    con: duckdb.DuckDBPyConnection,
    tables: Sequence[Table],
    columns: Sequence[Column],
    laws: Sequence[tuple[Column, Rule]],
) -> InputError:
    conditions = [f"coalesce({law.broken}, false)" for _, law in laws]
    for table in tables:
        for file in table.each_file():
            query, parameters = select([file], columns)
            numbered = f"SELECT *, row_number() OVER () AS number FROM ({query})"
            cells = ", ".join(f"{column.name}_raw::VARCHAR" for column, _ in laws)
            answer = con.execute(
                f"SELECT number, [{cells}], [{', '.join(conditions)}] FROM ({numbered}) "
                f"WHERE {' OR '.join(conditions)} ORDER BY number LIMIT 1",
                parameters,
            ).fetchone()
            if answer:
                which = answer[2].index(True)
                return _refusal(file, *laws[which], row=answer[0], cell=answer[1][which])
    return InputError("data changed while it was being read", remedy="start again")


def _refusal(table: Table, column: Column, law: Rule, *, row: int, cell: str | None) -> InputError:
    return refusal(
        column, law, place=f"{table.paths[0]}, column {column.name}, row {row}", cell=cell, kind=_type(table, column)
    )


def refusal(column: Column, law: Rule, *, place: str, cell: str | None, kind: str) -> InputError:
    """Return the error for a broken law: `cell` is the stored value as text, `kind` its type in the table."""
    is_text = kind.upper() in {"VARCHAR", "TEXT"}
    found = "an empty value" if cell is None else repr(cell) if is_text else f"{cell} ({kind})"
    return InputError(f"{column.name} {law.text}", place=place, found=found, remedy=law.remedy)


def facts(kind: str, found: Sequence[SensorRows], sensors: Iterable[SensorRows]) -> dict[str, Any]:
    """Return the fields of the report that follow from the counts `found`, of which `sensors` are used."""
    sensors = list(sensors)
    return {
        "kind": kind,
        "rows": sum(sensor.rows for sensor in found),
        "naive_timestamps": sum(sensor.naive for sensor in sensors),
        "rows_without_value": sum(sensor.rows - sensor.valued for sensor in sensors),
        "unused_types": _rows_by_type(sensor for sensor in found if sensor not in sensors),
        "unknown_types": _rows_by_type(s for s in sensors if s.sensor_type and s.sensor_type not in schema.UNITS),
    }


def _rows_by_type(sensors: Iterable[SensorRows]) -> dict[str, int]:
    rows: dict[str, int] = {}
    for sensor in sensors:
        rows[sensor.sensor_type] = rows.get(sensor.sensor_type, 0) + sensor.rows
    return dict(sorted(rows.items()))


def count_unordered(con: duckdb.DuckDBPyConnection, tables: Sequence[Table], columns: Sequence[Column]) -> int:
    """Return the number of rows that are earlier than the row of the same sensor directly before them."""
    query, parameters = select(tables, [column for column in columns if column.name in {"sensor_id", "timestamp"}])
    before = "lag(sensor_id) OVER () AS sensor_before, lag(timestamp) OVER () AS time_before"
    paired = f"SELECT sensor_id, timestamp, {before} FROM ({query})"
    condition = "sensor_id = sensor_before AND timestamp < time_before"
    answer = con.execute(f"SELECT count(*) FROM ({paired}) WHERE {condition}", parameters).fetchone()
    return int(answer[0]) if answer else 0
