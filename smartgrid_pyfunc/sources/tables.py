"""Files as DuckDB sees them: header, column types and a safe way to scan them.

Column names of a user's file never reach SQL: a scan renames them by position to ``c0, c1, …`` (DuckDB's own names
ignore case). File names travel as parameters, with the characters of a glob escaped.
"""

from __future__ import annotations

import csv
import gzip
import io
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, cast

import duckdb

from smartgrid_pyfunc import schema
from smartgrid_pyfunc.schema import InputError

#: What DuckDB may hold before it spills; the process needs about 200 MB more.
MEMORY_LIMIT = "160MB"
THREADS = 2

_KNOWN = {*schema.READING_REQUIRED, *schema.HOURLY_REQUIRED}
_DELIMITERS = (",", ";", "\t")


@dataclass(frozen=True)
class Table:
    """Files that share one header, one set of column types and one dialect.

    Attributes
    ----------
    paths : tuple of Path
        The files, in reading order.
    names : tuple of str
        Column names as written, in file order.
    types : tuple of str
        DuckDB's type of each column; ``VARCHAR`` for all of a CSV file.
    delimiter : str
        Of a CSV file; empty for Parquet.
    """

    paths: tuple[Path, ...]
    names: tuple[str, ...]
    types: tuple[str, ...]
    delimiter: str = ""

    @property
    def is_csv(self) -> bool:
        """True for CSV, where every cell is text."""
        return bool(self.delimiter)

    def each_file(self) -> Iterator[Table]:
        """Yield the same table cut to one file at a time."""
        for path in self.paths:
            yield replace(self, paths=(path,))

    def scan(self) -> tuple[str, list[Any]]:
        """Return a FROM item with columns ``c0, c1, …`` and its parameters."""
        aliases = ", ".join(f"c{i}" for i in range(len(self.names)))
        files = [[_escape(path) for path in self.paths]]
        if not self.is_csv:
            return f"read_parquet(?, hive_partitioning = false) AS t({aliases})", files
        columns = ", ".join(f"'c{i}': 'VARCHAR'" for i in range(len(self.names)))
        options = f"auto_detect = false, header = true, delim = '{self.delimiter}', quote = '\"', escape = '\"'"
        return f"read_csv(?, {options}, hive_partitioning = false, columns = {{{columns}}}) AS t", files


@contextmanager
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a private in-memory database that spills to a temporary folder and fetches no extension."""
    with tempfile.TemporaryDirectory(prefix="smartgrid-") as spill:
        config: dict[str, Any] = {
            "threads": THREADS,
            "memory_limit": MEMORY_LIMIT,
            "temp_directory": spill,
            "autoinstall_known_extensions": False,
        }
        with duckdb.connect(":memory:", config=config) as con:
            con.execute("SET TimeZone = 'UTC'")  # naive timestamps are UTC
            yield con


def open_tables(con: duckdb.DuckDBPyConnection, paths: Iterable[Path]) -> list[Table]:
    """Read the header of every file and group the files that can be scanned together.

    Raises
    ------
    InputError
        For a file that cannot be opened, is empty, is not UTF-8 or is not Parquet.
    """
    groups: dict[tuple[Any, ...], Table] = {}
    for path in paths:
        table = _open(con, path)
        key = (table.names, table.types, table.delimiter, path.suffix.lower())
        known = groups.get(key)
        groups[key] = replace(known, paths=known.paths + table.paths) if known else table
    return list(groups.values())


def _open(con: duckdb.DuckDBPyConnection, path: Path) -> Table:
    try:
        with path.open("rb") as file:
            if not file.read(1):
                raise InputError("a file must not be empty", place=str(path), found="0 bytes")
    except OSError as error:
        raise InputError("a file must be readable", place=str(path), found=error.strerror) from None
    return _open_parquet(con, path) if path.suffix.lower() == ".parquet" else _open_csv(path)


def _open_parquet(con: duckdb.DuckDBPyConnection, path: Path) -> Table:
    file = [_escape(path)]
    try:
        described = con.execute("DESCRIBE SELECT * FROM read_parquet(?, hive_partitioning = false)", file).fetchall()
        nodes = con.execute("SELECT name, coalesce(num_children, 0) FROM parquet_schema(?)", file).fetchall()
    except duckdb.Error as error:
        raise broken_file(path, error) from None
    return Table((path,), tuple(_top_level(nodes)), tuple(row[1] for row in described))


def _top_level(nodes: list[tuple[str, int]]) -> Iterator[str]:
    """Names of the root's children: DuckDB itself renames columns that differ only in case."""
    inside = 0
    for name, children in nodes[1:]:
        if inside == 0:
            yield name
        inside = max(inside - 1, 0) + children


def _open_csv(path: Path) -> Table:
    try:
        headers = [(_header(path, delimiter), delimiter) for delimiter in _DELIMITERS]
    except UnicodeDecodeError:
        raise InputError("a CSV file must be UTF-8", place=str(path), remedy="save it as UTF-8") from None
    except (OSError, EOFError, csv.Error) as error:
        raise broken_file(path, error) from None
    names, delimiter = max(headers, key=lambda header: len(_KNOWN.intersection(header[0])))
    return Table((path,), tuple(names), ("VARCHAR",) * len(names), delimiter)


def _header(path: Path, delimiter: str) -> list[str]:
    with _binary(path) as file, io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
        return next(csv.reader(text, delimiter=delimiter), [])


def _binary(path: Path) -> IO[bytes]:
    if path.suffix.lower() == ".gz":
        return cast(IO[bytes], gzip.open(path))
    return path.open("rb")


def _escape(path: Path) -> str:
    """Absolute path in which DuckDB's glob characters stand for themselves."""
    return re.sub(r"([*?\[])", r"[\1]", os.path.abspath(path))


def broken_file(path: Path, error: Exception) -> InputError:
    """Return the refusal of a file that cannot be decoded: broken CSV lines, truncated Parquet, another encoding."""
    text = str(error)
    if "not utf-8" in text.lower():
        return InputError("a CSV file must be UTF-8", place=_line(path, text), remedy="save it as UTF-8")
    if "CSV" not in text:
        return InputError(
            "a file must be complete and of the format of its suffix",
            place=str(path),
            found=_reason(path, text),
            remedy="write it again",
        )
    fields = re.search(r"Expected Number of Columns: (\d+) Found: (\d+)", text)
    rule = "a CSV line must have one field per column and closed quotes"
    found = f"{fields[2]} fields instead of {fields[1]}" if fields else "a line that cannot be split into fields"
    return InputError(rule, place=_line(path, text), found=found, remedy="correct the line")


def _reason(path: Path, text: str) -> str:
    """First line of DuckDB's message without its prefix and without the path, which the place already says."""
    first = text.split("\n", 1)[0].replace(_escape(path), "").replace("''", "").strip(" :")
    return re.sub(r"^\w+( \w+)? Error: ", "", first)


def _line(path: Path, text: str) -> str:
    line = re.search(r"CSV Error on Line: (\d+)", text)
    return f"{path}, row {int(line[1]) - 1}" if line else str(path)
