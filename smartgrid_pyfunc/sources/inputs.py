"""The one way to training data: an input that passed the gate, whether files, a bucket or a database table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, Protocol

from smartgrid_pyfunc.schema import InputError
from smartgrid_pyfunc.sources import database, file_input, object_store
from smartgrid_pyfunc.sources.aggregation import Arrays
from smartgrid_pyfunc.sources.gate import SensorRows

Progress = Callable[[str], None]


class Input(Protocol):
    """Rows whose every used cell is good."""

    @property
    def kind(self) -> str:
        """``readings`` or ``hourly``: what the input holds."""

    @property
    def place(self) -> str:
        """Where it is, for people; without credentials."""

    @property
    def found(self) -> list[SensorRows]:
        """Counts per sensor and type, sorted."""

    def stream(self, sensors: Sequence[SensorRows], *, drop_empty: str = "") -> Iterator[Arrays]:
        """Yield batches of the rows of `sensors`, sorted by sensor, time and then every other column.

        The order is total, so what follows sees the same rows in the same order however they are stored.

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

    def hours(self, sensors: Sequence[SensorRows]) -> tuple[Arrays, int, int]:
        """Return the hours of the readings of `sensors`, with the counts of duplicates and conflicts.

        See `aggregation.aggregate`; empty if no reading has a value.
        """

    def facts(self, sensors: Iterable[SensorRows]) -> dict[str, Any]:
        """Return the fields of the report that hold before any row is fetched; counts are those of `sensors`."""


@contextmanager
def open_input(data: str, result: str, on_progress: Progress | None) -> Iterator[Input]:
    """Find, open and judge `data`, from which `result` (``readings`` or ``hourly``) will be made.

    Raises
    ------
    InputError
        As the gate does, and for hourly load where readings are needed.
    """
    say = on_progress or _silent
    if database.is_address(data):
        with database.open_table(data, result, say) as table:
            yield table
    elif object_store.is_address(data):
        with (
            object_store.downloaded(data, say) as (folder, name_of),
            file_input.open_files(folder, result, say, name_of) as files,
        ):
            yield files
    else:
        with file_input.open_files(data, result, say) as files:
            yield files


def kind_of_data(data: str) -> str:
    """Return what `data` holds, by its columns: ``readings`` or ``hourly``."""
    if database.is_address(data):
        return database.kind_of_table(data)
    if object_store.is_address(data):
        with object_store.downloaded(data, _silent, most_files=1) as (folder, _):
            return file_input.kind_of_files(folder)
    return file_input.kind_of_files(data)


def _silent(_: str) -> None:
    return


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
