"""Reading and writing predictions at the place that a user names: a folder or a database."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pandas as pd

from smartgrid_pyfunc import schema
from smartgrid_pyfunc.predictions.columns import FLAGS, FORECASTS, Kind, once, to_frame, to_table
from smartgrid_pyfunc.predictions.parquet_store import ParquetStore
from smartgrid_pyfunc.predictions.postgres_store import PostgresStore
from smartgrid_pyfunc.predictions.store import Part, Store
from smartgrid_pyfunc.schema import InputError
from smartgrid_pyfunc.sources import database

Time = str | dt.datetime | pd.Timestamp | None
_REMEDY = "name a folder, or postgresql://user@host/database?table=name"
_OF_READINGS = ("since", "until", "sensor_type")


def read_forecasts(
    place: str, since: Time = None, until: Time = None, model: str | None = None, version: str | None = None
) -> pd.DataFrame:
    """Return load forecasts, each key (model, version, sensor_id, timestamp, origin) once, sorted by it.

    Of what was written more than once under a key the earliest stays. Where nothing has been written the frame has no
    row.

    Parameters
    ----------
    place : str
        Folder or ``postgresql://…``.
    since, until : str or time, optional
        Target hours from `since` on, before `until`; without an offset in UTC.
    model, version : str, optional
        Registered name and number.

    Returns
    -------
    DataFrame
        Columns of `columns.FORECASTS`; times with the zone UTC.

    Raises
    ------
    InputError
        If the place is none, or does not answer.
    """
    return _read(place, FORECASTS, Part(parse_time(since, "since"), parse_time(until, "until"), model, version))


def read_flags(
    place: str, since: Time = None, until: Time = None, model: str | None = None, version: str | None = None
) -> pd.DataFrame:
    """Return judged readings, each key (model, version, sensor_id, sensor_type, timestamp) once, sorted by it.

    `since` and `until` are times of the readings; all else as for `read_forecasts`.
    """
    return _read(place, FLAGS, Part(parse_time(since, "since"), parse_time(until, "until"), model, version))


def write_forecasts(place: str, frame: pd.DataFrame) -> int:
    """Add the load forecasts of `frame` whose keys are not there yet; return how many rows were written.

    Parameters
    ----------
    place : str
        Folder or ``postgresql://…``; made if it is missing.
    frame : DataFrame
        The columns of `columns.FORECASTS`, others are left out; times as text or with a zone, else UTC.

    Raises
    ------
    InputError
        For bad rows, and if the place cannot be written.
    """
    return _write(place, FORECASTS, frame)


def write_flags(place: str, frame: pd.DataFrame) -> int:
    """Add the judged readings of `frame` whose keys are not there yet; as `write_forecasts`, for `columns.FLAGS`."""
    return _write(place, FLAGS, frame)


def open_store(place: str, kind: Kind) -> Store:
    """Return the store of predictions of `kind` at `place`; nothing is opened or made yet.

    Raises
    ------
    InputError
        For a place that is neither a folder nor a PostgreSQL address.
    """
    if database.is_address(place):
        return PostgresStore(_address(place, kind), kind)
    if "://" in place or not place.strip():
        raise InputError("predictions must be a folder or a PostgreSQL address", found=_shown(place), remedy=_REMEDY)
    return ParquetStore(Path(place), kind)


def _address(place: str, kind: Kind) -> database.Address:
    address = database.parse_address(place)
    given = dict(parse_qsl(urlsplit(place.strip()).query))
    foreign = [name for name in _OF_READINGS if name in given]
    if foreign:
        raise InputError(f"the address of predictions has no {', '.join(foreign)}", place=address.place, remedy=_REMEDY)
    if given.get("table"):
        return address
    sign = "&" if "?" in place else "?"
    return database.parse_address(f"{place.strip()}{sign}table={kind.table}")


def _shown(place: str) -> str:
    return f"{place.partition('://')[0]}://…" if place.strip() else "nothing"


def _read(place: str, kind: Kind, part: Part) -> pd.DataFrame:
    return to_frame(once(kind, open_store(place, kind).read(part)))


def _write(place: str, kind: Kind, frame: pd.DataFrame) -> int:
    store, table = open_store(place, kind), to_table(kind, frame)
    store.prepare()
    return store.write(table)


def parse_time(time: Time, name: str) -> pd.Timestamp | None:
    """Return a time in UTC, None for an empty one; a date is its first moment.

    Raises
    ------
    InputError
        For text that is not ISO 8601, with `name`.
    """
    if time is None or (isinstance(time, str) and not time.strip()):
        return None
    try:
        parsed = schema.parse_timestamps(pd.Series([time.strip() if isinstance(time, str) else time]), name)
    except InputError as error:
        raise InputError(error.rule, found=time, remedy="write 2026-03-01 or 2026-03-01T12:00:00Z") from None
    return pd.Timestamp(parsed[0], tz="UTC")
