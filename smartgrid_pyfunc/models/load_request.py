"""The load model's request and answer: which sensors are asked for, with which history, and the table sent back."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smartgrid_pyfunc.features.panel import HISTORY_HOURS, LOADS, Panel, build_panel, hourly_columns
from smartgrid_pyfunc.schema import COVARIATES, MAX_HORIZON, InputError, format_timestamps, require_columns

ALL_SENSORS = "all"
Rows = dict[str, NDArray[Any]]
ANSWER = ("sensor_id", "origin", "horizon", "timestamp", "predicted_load", "lower", "upper", "model", "reason")


@dataclass(frozen=True)
class ForecastParams:
    """Checked parameters of a request."""

    hours_ahead: int = 24
    use_ml: bool = True
    level: float = 0.9
    explain: bool = False

    @classmethod
    def parse(cls, params: Mapping[str, Any] | None) -> ForecastParams:
        """Check `params`; unknown names are ignored, as MLflow's server does."""
        given = {k: v for k, v in (params or {}).items() if k in cls.__dataclass_fields__ and v is not None}
        for name, value in given.items():
            _check_type(name, value)
        result = cls(**given)
        if not 1 <= result.hours_ahead <= MAX_HORIZON:
            raise InputError(f"hours_ahead must lie in 1…{MAX_HORIZON}", found=result.hours_ahead)
        if not 0 < result.level < 1:
            raise InputError("level must lie between 0 and 1", found=result.level, remedy="0.9 asks for 90 %")
        return result


def _check_type(name: str, value: Any) -> None:
    kind, words = {
        "hours_ahead": (numbers.Integral, "a whole number"),
        "level": (numbers.Real, "a number"),
    }.get(name, ((bool, np.bool_), "true or false"))
    truth = isinstance(value, (bool, np.bool_))
    if not isinstance(value, kind) or (truth and "true" not in words):
        raise InputError(f"{name} must be {words}", found=repr(value))


@dataclass(frozen=True)
class LoadRequest:
    """Sensors in the order asked for; those with a history of their own in `panel`, the others from the stored one."""

    sensors: list[str]
    panel: Panel | None
    from_store: list[str]


def parse_request(frame: pd.DataFrame, stored: NDArray[np.object_]) -> LoadRequest:
    """Check the rows of a request and lay the history in them on a panel.

    Rows of a sensor replace its stored history. A row with only ``sensor_id`` asks for a forecast from the stored
    history, ``"all"`` for every sensor in `stored`.
    """
    require_columns(frame.columns, ["sensor_id"])
    rows = hourly_columns(_with_columns(frame))
    bare = np.isnan(rows["hour"])
    if bare.any():
        _check_bare(rows, bare)
    dated = _take(rows, ~bare)
    own = set(dated["sensor_id"])
    sensors = list(dict.fromkeys(rows["sensor_id"]))
    if ALL_SENSORS in sensors and ALL_SENSORS not in own:
        sensors = list(dict.fromkeys([*(s for s in sensors if s != ALL_SENSORS), *stored]))
    panel = build_panel(_recent(dated)) if own else None
    return LoadRequest(sensors, panel, [s for s in sensors if s not in own])


def _take(rows: Rows, which: NDArray[np.bool_]) -> Rows:
    return rows if which.all() else {name: column[which] for name, column in rows.items()}


def _with_columns(frame: pd.DataFrame) -> pd.DataFrame:
    missing = [name for name in ("timestamp", "avg_value") if name not in frame.columns]
    if len(missing) == 1 and len(frame.columns.intersection([*LOADS, "timestamp"])):
        require_columns(frame.columns, ["timestamp", "avg_value"])
    return frame.assign(**dict.fromkeys(missing, None)) if missing else frame


def _check_bare(rows: Rows, bare: NDArray[np.bool_]) -> None:
    names = [name for name in (*LOADS, *COVARIATES) if name in rows]
    valued = bare[:, None] & ~np.isnan(np.column_stack([rows[name] for name in names]))
    if valued.any():
        i, k = (int(number) for number in np.argwhere(valued)[0])
        raise InputError(
            f"timestamp is required where {names[k]} is given",
            place=f"column timestamp, row {i + 1}",
            found="an empty value",
            remedy="send the start of the hour in UTC",
        )


def _recent(rows: Rows) -> Rows:
    """Drop what no feature looks back to, so that one stray old row cannot make a huge grid."""
    hour, observed = rows["hour"], ~np.isnan(rows["avg_value"])
    if observed.all() and np.ptp(hour) < HISTORY_HOURS:
        return rows  # the usual request, which holds nothing old and nothing ahead
    code, sensors = pd.factorize(rows["sensor_id"])
    last = np.full(len(sensors), np.nan)
    np.fmax.at(last, code[observed], hour[observed])
    origin = last[code]
    keep = (hour > origin - HISTORY_HOURS) & (hour <= origin + 2 * MAX_HORIZON)
    # A sensor without any observed load keeps one row: it is answered with a reason.
    _, first = np.unique(code, return_index=True)
    keep[first] |= np.isnan(last)
    return _take(rows, keep)


def answer_frame(
    sensor: NDArray[np.object_],
    origin: NDArray[np.float64],
    horizon: NDArray[np.int64],
    values: Mapping[str, NDArray[np.float64]],
    model: NDArray[np.object_],
    reason: NDArray[np.object_],
) -> pd.DataFrame:
    """Put an answer's columns together; unknown numbers and times become None, which JSON writes as null.

    Parameters
    ----------
    sensor, horizon, model, reason : ndarray, shape (n,)
    origin : ndarray of float64, shape (n,)
        Hours since 1970-01-01 UTC; NaN where the sensor has no observed hour.
    values : mapping
        ``predicted_load``, ``lower`` and ``upper`` [unit of the load], NaN where unknown.
    """
    columns: dict[str, Any] = {
        "sensor_id": sensor,
        "origin": _hour_text(origin),
        "horizon": horizon,
        "timestamp": _hour_text(origin + horizon),
        **{name: _nullable(values[name]) for name in ("predicted_load", "lower", "upper")},
        "model": model,
        "reason": reason,
    }
    # As an index, an array of objects keeps None and costs pandas no guess at its type.
    kept = {n: pd.Index(c, dtype=object, copy=False) if c.dtype == object else c for n, c in columns.items()}
    return pd.DataFrame(kept, copy=False)


def _hour_text(hours: NDArray[np.float64]) -> NDArray[np.object_]:
    known = ~np.isnan(hours)
    unique, back = np.unique(np.where(known, hours, 0.0), return_inverse=True)
    text = format_timestamps(unique.astype(np.int64).astype("datetime64[h]"))[back]
    text[~known] = None
    return text


def _nullable(values: NDArray[np.float64]) -> NDArray[Any]:
    known = ~np.isnan(values)
    if known.all():
        return values
    boxed = values.astype(object)
    boxed[~known] = None
    return boxed
