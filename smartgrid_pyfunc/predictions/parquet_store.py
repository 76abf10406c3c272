"""Predictions in Parquet files that appear whole or not at all, below one folder per day of the target hour.

The name of a file is a hash of the keys in it. So a repeated run finds its files there and leaves them; whatever else
was written twice is told apart by its key when it is read. A file is written beside its place under another suffix,
brought to the disk and then renamed: a reader never meets half a file, and a process that is killed leaves nothing but
a file that no reader opens.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from smartgrid_pyfunc.predictions.columns import Kind
from smartgrid_pyfunc.predictions.store import Part
from smartgrid_pyfunc.schema import InputError

_UNFINISHED = ".unfinished"
_FORSAKEN = 3600  # s after which an unfinished file belongs to no process that still runs
_DAY = "day="


@dataclass(frozen=True)
class ParquetStore:
    """A `store.Store` in a folder.

    Attributes
    ----------
    root : Path
        Place that the user named; `kind.name` is a folder in it.
    kind : Kind
    """

    root: Path
    kind: Kind

    @property
    def folder(self) -> Path:
        """Where the days are."""
        return self.root / self.kind.name

    def prepare(self) -> None:
        """Make the folder; see `store.Store.prepare`."""
        probe = self.folder / f"{uuid.uuid4().hex}{_UNFINISHED}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise self._unwritable(error) from None

    def write(self, table: pa.Table) -> int:
        """Write one file per model, version and day, each whole; see `store.Store.write`."""
        try:
            return sum(self._write_file(day, part) for day, part in self._parts(table))
        except OSError as error:
            raise self._unwritable(error) from None

    def holds(self, keys: pa.Table) -> bool:
        """Return whether files with just these keys are there; see `store.Store.holds`."""
        return all(self._path(day, part).exists() for day, part in self._parts(keys))

    def read(self, part: Part) -> pa.Table:
        """Read the files of the days asked for; see `store.Store.read`."""
        if not self.root.is_dir():
            raise InputError(
                "predictions must be a folder that is there",
                found=str(self.root),
                remedy="write them first: mlflow run . -e batch_forecast",
            )
        found = [self._read_file(path, part) for path in self._files(part)]
        return pa.concat_tables([self.kind.schema.empty_table(), *found])

    # ---------------------------------------------------------------------------------------------- writing

    def _parts(self, table: pa.Table) -> Iterator[tuple[str, pa.Table]]:
        """Yield what belongs into one file, with its day (``2026-03-01``)."""
        days = table.column("timestamp").to_numpy().astype("datetime64[D]")
        labels = pd.DataFrame(
            {"day": days, "model": table.column("model").to_pandas(), "version": table.column("version").to_pandas()}
        )
        for rows in labels.groupby(list(labels.columns), sort=True).indices.values():
            yield str(days[rows[0]]), table.take(pa.array(np.sort(rows)))

    def _path(self, day: str, part: pa.Table) -> Path:
        return self.folder / f"{_DAY}{day}" / f"{_digest(part.select(list(self.kind.key)))}.parquet"

    def _write_file(self, day: str, part: pa.Table) -> int:
        path = self._path(day, part)
        if path.exists():
            return 0
        if not path.parent.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            _to_disk(self.folder)
        _drop_forsaken(path.parent)
        aside = path.with_suffix(f".{uuid.uuid4().hex}{_UNFINISHED}")
        try:
            with aside.open("wb") as file:
                pq.write_table(part, file, compression="zstd")
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)
        _to_disk(path.parent)
        return int(part.num_rows)

    def _unwritable(self, error: OSError) -> InputError:
        return InputError(
            "predictions must be a folder that can be written",
            found=str(self.root),
            remedy=f"{error.strerror}; name another",
        )

    # ---------------------------------------------------------------------------------------------- reading

    def _files(self, part: Part) -> Iterator[Path]:
        first = part.since.date() if part.since is not None else dt.date.min
        last = part.until.date() if part.until is not None else dt.date.max
        for folder in sorted(self.folder.glob(f"{_DAY}*")):
            with suppress(ValueError):  # no folder of ours
                if first <= dt.date.fromisoformat(folder.name.removeprefix(_DAY)) <= last:
                    yield from sorted(folder.glob("*.parquet"))

    def _read_file(self, path: Path, part: Part) -> pa.Table:
        try:
            table = pq.ParquetFile(path).read(columns=list(self.kind.columns)).select(list(self.kind.columns))
            table = table.cast(self.kind.schema)
        except (pa.ArrowException, OSError, KeyError, ValueError) as error:
            raise InputError(
                "a file of predictions must be whole and have its columns",
                place=str(path),
                found=(str(error).splitlines() or [type(error).__name__])[0],
                remedy="remove it and run the batch of that day again",
            ) from None
        wanted = _condition(part)
        return table if wanted is None else table.filter(wanted)


def _condition(part: Part) -> pc.Expression | None:
    found = [
        *([pc.field("timestamp") >= _scalar(part.since)] if part.since is not None else []),
        *([pc.field("timestamp") < _scalar(part.until)] if part.until is not None else []),
        *([pc.field("model") == part.model] if part.model is not None else []),
        *([pc.field("version") == part.version] if part.version is not None else []),
    ]
    condition = None
    for one in found:
        condition = one if condition is None else condition & one
    return condition


def _digest(keys: pa.Table) -> str:
    """Return 40 hexadecimal digits of the SHA-256 of all keys."""
    state = hashlib.sha256()
    for column in keys.columns:
        if pa.types.is_timestamp(column.type):
            state.update(column.cast(pa.int64()).to_numpy().astype("<i8").tobytes())
        else:
            state.update("\0".join([*column.to_pylist(), ""]).encode())
    return state.hexdigest()[:40]


def _scalar(time: pd.Timestamp) -> pa.Scalar:
    return pa.scalar(time.as_unit("us").to_pydatetime(), pa.timestamp("us", "UTC"))


def _to_disk(folder: Path) -> None:
    """Bring the names in `folder` to the disk, where the system lets a folder be opened."""
    with suppress(PermissionError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def _drop_forsaken(folder: Path) -> None:
    for path in folder.glob(f"*{_UNFINISHED}"):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > _FORSAKEN:
                path.unlink()
