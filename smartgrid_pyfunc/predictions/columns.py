"""The columns of the two tables of predictions, the key of a row, and the one check of what is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pyarrow as pa

from smartgrid_pyfunc import schema
from smartgrid_pyfunc.schema import InputError

TEXT, TIME, NUMBER, WHOLE, FLAG = "text", "time", "number", "whole", "flag"
_ARROW = {
    TEXT: pa.string(),
    TIME: pa.timestamp("us", "UTC"),
    NUMBER: pa.float64(),
    WHOLE: pa.int32(),
    FLAG: pa.bool_(),
}


@dataclass(frozen=True)
class Kind:
    """One kind of predictions.

    Attributes
    ----------
    name : str
        ``load`` or ``anomaly``: the folder below the place.
    table : str
        Table of a database where the place names none.
    columns : mapping of str to str
        What each column holds, in order.
    key : tuple of str
        Columns that tell a row from every other.
    filled : tuple of str
        Columns that are never empty, those of the key included.
    """

    name: str
    table: str
    columns: Mapping[str, str]
    key: tuple[str, ...]
    filled: tuple[str, ...]

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema of the table."""
        return pa.schema([pa.field(name, _ARROW[kind]) for name, kind in self.columns.items()])


_OF_THE_VERSION = {"model": TEXT, "version": TEXT, "variant": TEXT, "made_at": TIME}

#: Load forecasts: one row per sensor, target hour and origin.
FORECASTS = Kind(
    "load",
    "load_predictions",
    _OF_THE_VERSION
    | {"origin": TIME, "sensor_id": TEXT, "timestamp": TIME, "horizon": WHOLE}
    | dict.fromkeys(("predicted_load", "lower", "upper", "level"), NUMBER)
    | {"method": TEXT, "reason": TEXT},
    key=("model", "version", "sensor_id", "timestamp", "origin"),
    filled=("model", "version", "variant", "made_at", "origin", "sensor_id", "timestamp", "horizon", "level"),
)

#: Judged readings: one row per sensor, type and time.
FLAGS = Kind(
    "anomaly",
    "anomaly_predictions",
    _OF_THE_VERSION
    | {"sensor_id": TEXT, "sensor_type": TEXT, "timestamp": TIME, "value": NUMBER, "is_anomaly": FLAG}
    | dict.fromkeys(("anomaly_score", "p_value", "expected_value", "lower", "upper"), NUMBER)
    | {"reason": TEXT, "profile": TEXT},
    key=("model", "version", "sensor_id", "sensor_type", "timestamp"),
    filled=("model", "version", "variant", "made_at", "sensor_id", "sensor_type", "timestamp", "is_anomaly"),
)


def to_table(kind: Kind, frame: pd.DataFrame) -> pa.Table:
    """Return `frame` as a table with the columns of `kind`, sorted by key; of rows with one key the earliest stays.

    Raises
    ------
    InputError
        For a missing column, a value of the wrong type, and an empty value where there must be one.
    """
    schema.require_columns(frame.columns, kind.columns, place=f"{kind.name} predictions")
    arrays = [_array(frame[name], name, what) for name, what in kind.columns.items()]
    table = pa.table(arrays, schema=kind.schema)
    for name in kind.filled:
        if table.column(name).null_count:
            raise InputError(f"{name} must not be empty", place=f"{kind.name} predictions")
    return once(kind, table)


def keys_of(kind: Kind, columns: Mapping[str, Any]) -> pa.Table:
    """Return a table of keys, each once and sorted; `columns` holds arrays, or one value for all rows."""
    frame = pd.DataFrame(dict(columns))
    table = pa.table([_array(frame[name], name, kind.columns[name]) for name in kind.key], names=list(kind.key))
    return table.group_by(list(kind.key)).aggregate([]).sort_by([(name, "ascending") for name in kind.key])


def once(kind: Kind, table: pa.Table) -> pa.Table:
    """Return `table` sorted by key, with the row of the earliest ``made_at`` for each key."""
    ordered = table.sort_by([(name, "ascending") for name in (*kind.key, "made_at")])
    keys = ordered.select(list(kind.key)).to_pandas()
    repeated = keys.duplicated().to_numpy()
    return ordered.filter(pa.array(~repeated)) if repeated.any() else ordered


def to_frame(table: pa.Table) -> pd.DataFrame:
    """Return `table` for pandas: times with their zone, missing numbers and texts as NaN."""
    frame: pd.DataFrame = table.to_pandas()
    return frame


def _array(column: pd.Series[Any], name: str, what: str) -> pa.Array:
    if what == TIME:
        return pa.array(schema.parse_timestamps(column, name), type=pa.timestamp("us")).cast(_ARROW[TIME])
    if what == NUMBER:
        return pa.array(schema.parse_numbers(column, name), from_pandas=True)
    try:
        found = pa.array(column, type=_ARROW[what], from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise InputError(f"{name} must hold values of one type", found=str(error).splitlines()[0]) from None
    return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found
