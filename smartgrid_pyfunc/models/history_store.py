"""Hourly load of the last weeks out of a store of readings: a folder of Parquet files or a PostgreSQL table.

The rules are those of training: a repeated reading counts once, different values of one instant count as their mean,
and the hour still in progress is left out. Readings dated after the time of reading are not looked at.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from smartgrid_pyfunc.features.panel import HISTORY_HOURS, LOADS, parse_hourly
from smartgrid_pyfunc.schema import (
    COVARIATES,
    HOURLY_REQUIRED,
    HOURS_A_WEEK,
    LOAD_TYPES,
    READING_REQUIRED,
    InputError,
    parse_identifiers,
    parse_numbers,
    parse_timestamps,
    require_columns,
)

TABLE = "sensor_data"
_SCHEMES = ("postgresql", "postgres")
_HOUR = 3600.0  # s
_TOLERANCE = 1.0  # s by which a clock may run ahead of the end of the hour
#: Before the newest reading of the store [h]; sensors up to a week behind it are read in full.
_WINDOW = HISTORY_HOURS + HOURS_A_WEEK

#: One row per sensor and hour; times as seconds since 1970-01-01 UTC. Naive times are UTC, as the session's zone is.
_HOURS_SQL = """
COPY (
    WITH load AS (
        SELECT sensor_id::text AS sensor_id, sensor_type::text AS sensor_type,
               extract(epoch FROM "timestamp"::timestamptz)::float8 AS at,
               CASE WHEN value::float8 > '-Infinity' AND value::float8 < 'Infinity' THEN value::float8 END AS value
        FROM {table}
        WHERE sensor_type IN ({types}) AND "timestamp" <= to_timestamp({now})
          AND "timestamp" >= (
              SELECT date_trunc('hour', max("timestamp")) - {window} * interval '1 hour'
              FROM {table} WHERE "timestamp" <= to_timestamp({now})
          )
    ), instants AS (
        SELECT sensor_id, sensor_type, at, avg(DISTINCT value) AS value FROM load GROUP BY 1, 2, 3
    )
    SELECT sensor_id, sensor_type, floor(at / 3600) AS hour, avg(value) AS avg_value, min(value) AS min_value,
           max(value) AS max_value, count(value) AS count, max(at) AS last
    FROM instants GROUP BY 1, 2, 3
) TO STDOUT WITH (FORMAT csv, HEADER)
"""


@dataclass(frozen=True)
class Store:
    """Where fresh history is read from.

    Attributes
    ----------
    name : str
        As it may be shown: without user, password and address.
    secrets : tuple of str
        What a log must not hold.
    read : callable
        ``read(now, timeout)``, both in seconds, returns hours as `parse_hourly` does.
    """

    name: str
    secrets: tuple[str, ...]
    read: Callable[[float, float], pd.DataFrame]

    def masked(self, error: BaseException) -> str:
        """Return what `error` says, in a line, without secrets."""
        text = " ".join(f"{type(error).__name__}: {error}".split())
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text


def open_store(address: str) -> Store:
    """Return the store at `address`; nothing is read yet.

    Parameters
    ----------
    address : str
        ``postgresql://…``, with ``?table=`` for another table than ``sensor_data``, or a folder of Parquet files of
        readings or hourly load.

    Raises
    ------
    InputError
        For any other URL.
    """
    scheme = re.match(r"([A-Za-z][\w+.-]*)://", address)
    if scheme is None:
        return Store("the folder of history", (), lambda now, timeout: _read_folder(Path(address), now))
    if scheme[1] not in _SCHEMES:
        raise InputError(
            "the history store must be a folder of Parquet files or a postgresql:// URL",
            found=f"{scheme[1]}://…",
            remedy="correct SMARTGRID_HISTORY or unset it",
        )
    url, table = _without_table(address)
    return Store(
        "the history database", _secrets(address), lambda now, timeout: _read_database(url, table, now, timeout)
    )


def _without_table(address: str) -> tuple[str, tuple[str, ...]]:
    """Return what libpq understands of the URL, and the table's name, after that of its schema if it has one."""
    start, mark, query = address.partition("?")
    options = [pair for pair in query.split("&") if pair]
    named = [urllib.parse.unquote(pair.removeprefix("table=")) for pair in options if pair.startswith("table=")]
    rest = "&".join(pair for pair in options if not pair.startswith("table="))
    return start + (mark + rest if rest else ""), tuple((named[-1] if named else TABLE).split("."))


def _secrets(url: str) -> tuple[str, ...]:
    """Return the URL and its passwords, as written and decoded."""
    raw = re.findall(r"://[^/?#]*?:([^/?#]*)@", url) + re.findall(r"[?&]password=([^&#]*)", url)
    return (url, *(text for one in raw for text in (one, urllib.parse.unquote(one)) if text))


def _read_database(url: str, table: tuple[str, ...], now: float, timeout: float) -> pd.DataFrame:
    import psycopg  # the driver is needed only where a database is named
    from psycopg import sql

    types = sql.SQL(", ").join(map(sql.Literal, LOAD_TYPES))
    query = sql.SQL(_HOURS_SQL).format(
        table=sql.Identifier(*table), types=types, window=sql.Literal(_WINDOW), now=sql.Literal(now)
    )

    limits = f"-c statement_timeout={int(timeout * 1000)} -c timezone=UTC -c default_transaction_read_only=on"
    seconds = max(int(timeout), 2)  # the least that libpq keeps
    text = bytearray()
    with (
        psycopg.connect(url, connect_timeout=seconds, options=limits, application_name="smartgrid-history") as database,
        database.cursor() as cursor,
        cursor.copy(query) as rows,
    ):
        for block in rows:
            text += block
    return _complete(_from_csv(bytes(text)))


def _from_csv(text: bytes) -> pd.DataFrame:
    import io

    names = dict.fromkeys(("sensor_id", "sensor_type"), "object")
    return pd.read_csv(io.BytesIO(text), dtype=names, keep_default_na=False, na_values={n: [""] for n in LOADS})


def _complete(hours: pd.DataFrame) -> pd.DataFrame:
    """Leave out hours without a value, those in progress, and sensors whose readings are of two types."""
    types = hours.groupby("sensor_id")["sensor_type"].transform("nunique")
    hours = hours[types == 1]
    last = hours.groupby("sensor_id")["last"].transform("max")
    hours = hours[hours["count"] > 0]
    per_hour = hours.groupby("sensor_id")["count"].transform("median")
    newest = hours.groupby("sensor_id")["hour"].transform("max")
    reached = last.loc[hours.index] + _HOUR / per_hour + _TOLERANCE >= (hours["hour"] + 1) * _HOUR
    kept = hours[(hours["hour"] < newest) | reached]
    columns: dict[str, Any] = {"sensor_id": pd.Index(kept["sensor_id"].to_numpy(dtype=object), dtype=object)}
    columns |= {name: kept[name].to_numpy(dtype=np.float64) for name in ("hour", *LOADS)}
    return pd.DataFrame(columns)


def _read_folder(folder: Path, now: float) -> pd.DataFrame:
    import pyarrow.dataset

    files = sorted(str(path) for path in folder.rglob("*.parquet"))
    if not files:
        raise FileNotFoundError(f"no Parquet file below {folder}")
    rows = pyarrow.dataset.dataset(files, format="parquet")
    if "avg_value" in rows.schema.names:
        return _hours_of(_newest(rows, (*HOURLY_REQUIRED, *LOADS, *COVARIATES), HOURLY_REQUIRED, now), now)
    return _complete(_aggregated(_newest(rows, READING_REQUIRED, READING_REQUIRED, now), now))


def _newest(rows: Any, wanted: tuple[str, ...], required: tuple[str, ...], now: float) -> pd.DataFrame:
    """Return the columns `wanted` of the window; times that are text cannot be looked up and are all read."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.dataset as ds

    names = rows.schema.names
    require_columns(names, required)
    columns = [name for name in dict.fromkeys(wanted) if name in names]
    kind = rows.schema.field("timestamp").type
    if not pa.types.is_timestamp(kind):
        return rows.to_table(columns=columns).to_pandas()  # type: ignore[no-any-return]
    until = pa.scalar(pd.Timestamp(now, unit="s", tz="UTC" if kind.tz else None), kind)
    times = rows.to_table(columns=["timestamp"], filter=ds.field("timestamp") <= until)["timestamp"]
    newest = pc.max(times).as_py()
    if newest is None:
        return rows.schema.empty_table().select(columns).to_pandas()  # type: ignore[no-any-return]
    since = pa.scalar(pd.Timestamp(newest).floor("h") - pd.Timedelta(hours=_WINDOW), kind)
    window = (ds.field("timestamp") >= since) & (ds.field("timestamp") <= until)
    return rows.to_table(columns=columns, filter=window).to_pandas()  # type: ignore[no-any-return]


def _hours_of(rows: pd.DataFrame, now: float) -> pd.DataFrame:
    """Return complete hours: those that ended before `now`."""
    hours = parse_hourly(rows)
    return hours[(hours["hour"] + 1) * _HOUR <= now + _TOLERANCE]


def _aggregated(rows: pd.DataFrame, now: float) -> pd.DataFrame:
    """Return what `_HOURS_SQL` selects."""
    at = parse_timestamps(rows["timestamp"]).astype(np.int64) / 1e6
    known = pd.DataFrame(
        {
            "sensor_id": pd.Index(parse_identifiers(rows["sensor_id"]), dtype=object),
            "sensor_type": rows["sensor_type"].astype(object).to_numpy(),
            "at": at,
            "value": parse_numbers(rows["value"], "value"),
        }
    )
    load = known[known["sensor_type"].isin(LOAD_TYPES) & (known["at"] <= now)]
    keys = ["sensor_id", "sensor_type"]
    instants = load.drop_duplicates().groupby([*keys, "at"], sort=False)["value"].mean().reset_index()
    instants["hour"] = np.floor(instants["at"] / _HOUR)
    value = ("value", "mean"), ("value", "min"), ("value", "max"), ("value", "count"), ("at", "max")
    names = ("avg_value", "min_value", "max_value", "count", "last")
    grouped = instants.groupby([*keys, "hour"], sort=False)
    return grouped.agg(**dict(zip(names, value, strict=True))).reset_index()
