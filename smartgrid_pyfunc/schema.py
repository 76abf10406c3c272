"""The vocabulary of the product, the one input check and the errors it raises.

Everything that enters a model passes through the parsers of this module: what pandas, JSON, CSV or Parquet brings is
accepted if it means the right thing (ISO 8601 timestamps with any offset, pandas datetimes, integers for floats), and
refused with one sentence if it does not (text in a number, epoch numbers as timestamps, infinities).
"""

from __future__ import annotations

import datetime as dt
import decimal
import numbers
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

LOAD_MODEL = "LoadForecastingModel"
ANOMALY_MODEL = "AnomalyDetectionModel"
LOAD_EXPERIMENT = "smartgrid-load-forecasting"
ANOMALY_EXPERIMENT = "smartgrid-anomaly-detection"

#: Default unit of each known sensor type.
UNITS = {
    "power": "kW",
    "reactive_power": "kvar",
    "energy": "kWh",
    "voltage": "V",
    "current": "A",
    "temperature": "°C",
    "humidity": "%",
    "frequency": "Hz",
}
LOAD_TYPES = ("power", "energy")

READING_REQUIRED = ("sensor_id", "sensor_type", "timestamp", "value")
READING_OPTIONAL = ("latitude", "longitude", "unit")
HOURLY_REQUIRED = ("sensor_id", "timestamp", "avg_value")
HOURLY_OPTIONAL = ("min_value", "max_value", "count", "temperature", "is_holiday")
COVARIATES = ("temperature", "is_holiday")
#: Ground truth that may stand beside readings; used for evaluation only, never as a feature.
LABEL = "is_anomaly"

HOURS_A_DAY = 24
HOURS_A_WEEK = 168
MAX_HORIZON = 168

_USUAL = re.compile(r"(?:\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ(?:\n(?!\Z)|\Z))+", re.ASCII)
_USUAL_LENGTH = len("2026-03-01T12:00:00Z")
_SHOWN = 40  # characters of an offending value that an error repeats
_NO_NUMBER = (bool, np.bool_, np.timedelta64)  # although Python counts them among the integers
_UNSTORABLE = re.compile(r"[\x00\ud800-\udfff]")  # neither UTF-8 nor arrays of text can hold them


class InputError(ValueError):
    """Bad input, told in one sentence: the rule, the place, what was found, what to do.

    Parameters
    ----------
    rule : str
        What must hold, e.g. ``"avg_value must be a number"``.
    place : str, optional
        Where it does not: file, column, first bad row.
    found : object, optional
        The offending value; shortened in the message.
    remedy : str, optional
        What the user can do about it.
    """

    def __init__(self, rule: str, *, place: str = "", found: Any = None, remedy: str = "") -> None:
        self.rule, self.place, self.found, self.remedy = rule, place, found, remedy
        super().__init__(_sentence(rule, place, found, remedy))


def _sentence(rule: str, place: str, found: Any, remedy: str) -> str:
    text = rule + (f" ({place})" if place else "")
    if found is not None:
        shown = str(found)
        text += f": found {shown if len(shown) <= _SHOWN else shown[:_SHOWN] + '…'}"
    return text + (f"; {remedy}" if remedy else "") + "."


def require_columns(present: Iterable[str], required: Iterable[str], *, place: str = "") -> None:
    """Raise `InputError` naming columns of `required` that are not `present` and known ones that occur twice."""
    present = list(present)
    missing = [name for name in required if name not in present]
    if missing:
        raise InputError(
            f"column {', '.join(missing)} is required",
            place=place,
            found=", ".join(map(str, present)) or "no columns",
            remedy="add the column or rename the one that holds it",
        )
    known = {*READING_REQUIRED, *READING_OPTIONAL, *HOURLY_REQUIRED, *HOURLY_OPTIONAL}
    twice = [name for name in dict.fromkeys(present) if present.count(name) > 1 and name in known]
    if twice:
        raise InputError(f"column {', '.join(twice)} must occur once", place=place, remedy="drop or rename the others")


def _first(bad: NDArray[np.bool_]) -> int:
    return int(np.flatnonzero(bad)[0])


def _row(column: str, index: int) -> str:
    return f"column {column}, row {index + 1}"


def is_missing(value: Any) -> bool:
    """Return True for None, NaN, NaT and pandas' NA."""
    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and value != value)


def parse_identifiers(column: pd.Series[Any], name: str = "sensor_id") -> NDArray[np.object_]:
    """Return `column` as an object array of non-empty strings.

    Integers become their decimal text: a CSV file cannot tell the sensor ``7`` from the sensor ``"7"``.

    Raises
    ------
    InputError
        For a missing or empty identifier, one that is not valid Unicode text, and for any other type.
    """
    values = column.to_numpy(dtype=object)
    if set(map(type, values)) == {str} and all(v and not _UNSTORABLE.search(v) for v in set(values)):
        return values  # the usual case, judged by its few distinct names
    result = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):
        if isinstance(value, str) and value and not _UNSTORABLE.search(value):
            result[i] = str(value)
        elif isinstance(value, numbers.Integral) and not isinstance(value, _NO_NUMBER):
            result[i] = str(int(value))
        else:
            empty = is_missing(value) or (isinstance(value, str) and not value)
            found = "an empty value" if empty else repr(value)
            raise InputError(f"{name} must be text", place=_row(name, i), found=found, remedy="name the sensor")
    return result


def parse_numbers(column: pd.Series[Any], name: str) -> NDArray[np.float64]:
    """Return `column` as float64, missing values as NaN.

    Raises
    ------
    InputError
        For text (even if it looks like a number), booleans, other objects and infinities.
    """
    dtype = column.dtype
    plain = pd.api.types.is_numeric_dtype(dtype) and not pd.api.types.is_complex_dtype(dtype)
    if plain and not pd.api.types.is_bool_dtype(dtype):
        result = column.to_numpy(dtype=np.float64, na_value=np.nan)
    else:
        result = _numbers_from_objects(column.to_numpy(dtype=object), name)
    infinite = np.isinf(result)
    if infinite.any():
        i = _first(infinite)
        raise InputError(
            f"{name} must be finite", place=_row(name, i), found=float(result[i]), remedy="leave unknown values empty"
        )
    return result


def _numbers_from_objects(values: NDArray[np.object_], name: str) -> NDArray[np.float64]:
    result = np.full(len(values), np.nan)
    for i, value in enumerate(values):
        if isinstance(value, (numbers.Real, decimal.Decimal)) and not isinstance(value, _NO_NUMBER):
            try:
                result[i] = float(value)
            except (OverflowError, ValueError):
                result[i] = np.inf
        elif not is_missing(value):
            raise InputError(
                f"{name} must be a number",
                place=_row(name, i),
                found=repr(value),
                remedy="send numbers without quotes and leave unknown values empty",
            )
    return result


def parse_timestamps(column: pd.Series[Any], name: str = "timestamp") -> NDArray[np.datetime64]:
    """Return `column` as ``datetime64[us]`` in UTC; naive times are UTC; missing values are NaT.

    Raises
    ------
    InputError
        For numbers (epoch seconds are ambiguous), text that is not ISO 8601 and years outside 1900…2200.
    """
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        index = pd.DatetimeIndex(column)
    else:
        values = column.to_numpy(dtype=object)
        usual = _usual_timestamps(values)
        if usual is not None:
            return _check_years(usual, name).astype("datetime64[us]")
        index = _timestamps_from_objects(values, name)
    # Years first: a far date does not fit into microseconds.
    utc = index.tz_convert("UTC").tz_localize(None) if index.tz is not None else index
    _check_years(utc.to_numpy(), name)
    return np.asarray(utc.as_unit("us").to_numpy())


def _usual_timestamps(values: NDArray[np.object_]) -> NDArray[np.datetime64] | None:
    """Return whole seconds if all `values` are text like ``2026-03-01T12:00:00Z``, else None: a fast way for most."""
    try:
        text = "\n".join(values)
        if len(text) != len(values) * (_USUAL_LENGTH + 1) - 1 or not _USUAL.fullmatch(text):
            return None
        return np.array(text.replace("Z", "").split("\n"), dtype="datetime64[s]")
    except (TypeError, ValueError):  # no text, or a day that does not exist
        return None


def _timestamps_from_objects(values: NDArray[np.object_], name: str) -> pd.DatetimeIndex:
    for i, value in enumerate(values):
        text = type(value) is str and len(value) >= 10 and value[4] == "-" and value[7] == "-"
        if not (text or isinstance(value, (dt.datetime, np.datetime64)) or is_missing(value)):
            raise _not_a_timestamp(name, i, value)
    try:
        return pd.DatetimeIndex(pd.to_datetime(values, format="ISO8601", utc=True))  # type: ignore[arg-type]
    except (ValueError, TypeError, OverflowError):
        raise _first_unparseable(values, name) from None


def _first_unparseable(values: NDArray[np.object_], name: str) -> InputError:
    for i, value in enumerate(values):
        try:
            pd.to_datetime([value], format="ISO8601", utc=True)
        except (ValueError, TypeError, OverflowError):
            return _not_a_timestamp(name, i, value)
    return InputError(f"{name} must be ISO 8601", remedy="write times like 2026-03-01T12:00:00Z")


def _not_a_timestamp(name: str, i: int, value: Any) -> InputError:
    return InputError(
        f"{name} must be ISO 8601",
        place=_row(name, i),
        found=repr(value),
        remedy="write times like 2026-03-01T12:00:00Z or with an offset such as +01:00",
    )


def _check_years(parsed: NDArray[np.datetime64], name: str) -> NDArray[np.datetime64]:
    strange = (parsed < np.datetime64("1900-01-01")) | (parsed >= np.datetime64("2200-01-01"))
    if strange.any():
        i = _first(strange)
        raise InputError(
            f"{name} must lie between the years 1900 and 2200",
            place=_row(name, i),
            found=str(parsed[i]),
            remedy="check the unit of the clock",
        )
    return parsed


def format_timestamps(times: NDArray[np.datetime64]) -> NDArray[np.object_]:
    """Return ISO 8601 UTC text (``2026-03-01T12:00:00Z``) for each time, None for NaT; fractions only where needed."""
    whole = times.astype("datetime64[s]")
    text = np.datetime_as_string(whole, timezone="UTC").astype(object)
    fractional = (whole != times) & ~np.isnat(times)
    text[fractional] = np.datetime_as_string(times[fractional], timezone="UTC").astype(object)
    text[np.isnat(times)] = None
    return text
