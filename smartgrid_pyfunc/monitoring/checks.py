"""The kinds of alert, and what every check returns: a value and a threshold for each sensor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

#: In place of a sensor: the whole grid.
EVERYWHERE = "all sensors"
Row = tuple[Any, ...]
COLUMNS = ("sensor_id", "value", "threshold", "since", "detail")
_SHOWN = 8


@dataclass(frozen=True)
class Kind:
    """A kind of alert.

    Attributes
    ----------
    severity : str
        ``critical`` or ``warning``; always the same for a kind, so that a gauge has one series.
    group : str
        ``drift`` (training again is advised), ``fault`` (the data are wrong: training on them would harm), ``data``
        or ``detector``.
    measure : str
        What the value is, with its unit.
    look : str
        The command to look closer; ``{data}``, ``{model}``, ``{predictions}``, ``{sensors}`` and ``{now}`` are filled
        in.
    """

    severity: str
    group: str
    measure: str
    look: str


_CLOSER = (
    "mlflow run . -e monitor -P predictions='{predictions}' -P data='{data}' -P model={model} -P days=28 "
    "-P now={now} -P sensors='{sensors}' -P output=look-closer"
)
_DOCTOR = "mlflow run . -e doctor -P data='{data}'"
_BACKTEST = "mlflow run . -e backtest -P data='{data}' -P model=Production -P windows=2 -P window_days=14"

KINDS: Mapping[str, Kind] = {
    "accuracy": Kind("critical", "drift", "error over naive, against the reference", _BACKTEST),
    "bias": Kind("warning", "drift", "Page-Hinkley sum of signed daily errors", _CLOSER),
    "coverage": Kind("warning", "drift", "points of coverage away from the level", _CLOSER),
    "level_shift": Kind("critical", "drift", "lasting step of the level [spreads]", _CLOSER),
    "pattern_shift": Kind("warning", "drift", "growth of the daily errors over its limit", _CLOSER),
    "input_drift": Kind("warning", "drift", "move since the same season [of what is usual]", _CLOSER),
    "unit_change": Kind("critical", "fault", "factor to the usual load [decades]", _CLOSER),
    "time_shift": Kind("critical", "fault", "gain of similarity when the clock is moved", _CLOSER),
    "sensor_swap": Kind("critical", "fault", "own unlikeness over that to the other's course", _CLOSER),
    "out_of_range": Kind("critical", "fault", "hours outside the sensor's range", _CLOSER),
    "stuck": Kind("warning", "data", "hours with one and the same value", _CLOSER),
    "missing_data": Kind("warning", "data", "share of hours without a value", _DOCTOR),
    "vanished_sensors": Kind("critical", "data", "hours since the last value", _DOCTOR),
    "new_sensors": Kind("warning", "data", "sensors seen for the first time", _CLOSER),
    "duplicates": Kind("warning", "data", "share of rows that repeat a sensor and a time", _DOCTOR),
    "late": Kind("critical", "data", "hours since the newest value of any sensor", _DOCTOR),
    "missing_forecasts": Kind("critical", "data", "share of measured hours without a forecast", _CLOSER),
    "anomaly_rate": Kind("warning", "detector", "share of readings flagged, over the budget", _CLOSER),
}


@dataclass(frozen=True)
class Check:
    """What one check found: `rows` has a row per sensor (or one for `EVERYWHERE`).

    Attributes
    ----------
    kind : str
        One of `KINDS`.
    rows : DataFrame
        Columns ``sensor_id, value, threshold, since, detail``. A row is an alert where value ≥ threshold; NaN where
        nothing could be said. ``since`` is NaT where nothing is wrong.
    """

    kind: str
    rows: pd.DataFrame


@dataclass(frozen=True)
class Alert:
    """One thing that is wrong: what, where, since when, how bad, and the command to look closer."""

    kind: str
    severity: str
    sensors: tuple[str, ...]
    since: pd.Timestamp
    value: float
    threshold: float
    text: str
    command: str

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "alert": self.kind,
            "severity": self.severity,
            "sensors": list(self.sensors),
            "since": self.since.isoformat(),
            "value": round(self.value, 6),
            "threshold": round(self.threshold, 6),
            "text": self.text,
            "command": self.command,
        }


@dataclass(frozen=True)
class Gauge:
    """The worst value of a kind, whether or not it is an alert; NaN if nothing could be said."""

    kind: str
    alert: bool
    value: float
    threshold: float
    since: pd.Timestamp | None


def check(kind: str, rows: Iterable[Row]) -> Check:
    """Return a check of `rows` (sensor_id, value, threshold, since, detail)."""
    frame = pd.DataFrame(list(rows), columns=list(COLUMNS))
    frame[["value", "threshold"]] = frame[["value", "threshold"]].astype(float)
    frame["since"] = pd.to_datetime(frame["since"], utc=True)
    return Check(kind, frame)


def alerting(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a check that are alerts, the worst first."""
    bad = rows[rows["value"] >= rows["threshold"]]
    return bad.loc[(bad["value"] / bad["threshold"]).sort_values(ascending=False, kind="stable").index]


def gauge(found: Check) -> Gauge:
    """Return the worst value of a check."""
    rows = found.rows.dropna(subset=["value", "threshold"])
    if rows.empty:
        return Gauge(found.kind, False, float("nan"), float("nan"), None)
    worst = rows.iloc[int((rows["value"] / rows["threshold"]).argmax())]
    bad = alerting(rows)
    since = bad["since"].min() if len(bad) else None
    return Gauge(found.kind, bool(len(bad)), float(worst["value"]), float(worst["threshold"]), since)


def alert(found: Check, fill: Mapping[str, str], now: pd.Timestamp) -> Alert | None:
    """Return the alert of a check, None if nothing is wrong.

    Parameters
    ----------
    found : Check
    fill : Mapping
        What the command's places are filled with, but for the sensors.
    now : Timestamp
        Stands for a time that the check could not tell.
    """
    bad = alerting(found.rows)
    if bad.empty:
        return None
    worst, kind = bad.iloc[0], KINDS[found.kind]
    sensors = tuple(bad["sensor_id"])
    since = bad["since"].min()
    since = now if pd.isna(since) else since
    named = ",".join(name for name in sensors[:_SHOWN] if name != EVERYWHERE)
    command = kind.look.format(**fill, sensors=named)
    text = (
        f"{found.kind.replace('_', ' ')} on {_listed(sensors)} since {since:%Y-%m-%d %H:%M} UTC: "
        f"{worst['sensor_id']}: {worst['detail']} "
        f"({kind.measure}: {worst['value']:.3g} against {worst['threshold']:.3g})"
    )
    return Alert(
        found.kind, kind.severity, sensors, since, float(worst["value"]), float(worst["threshold"]), text, command
    )


def _listed(sensors: Sequence[str]) -> str:
    more = f" and {len(sensors) - _SHOWN} more" if len(sensors) > _SHOWN else ""
    return ", ".join(sensors[:_SHOWN]) + more


def verdict(alerts: Sequence[Alert]) -> str:
    """Return ``ok``, ``alerts`` or ``drift``: training again is advised, and the data are fit for it."""
    groups = {KINDS[found.kind].group for found in alerts}
    if "drift" in groups and "fault" not in groups:
        return "drift"
    return "alerts" if alerts else "ok"


def worst_of(values: Sequence[float]) -> float:
    """Return the largest known value, NaN if none is."""
    known = np.asarray(values, dtype=np.float64)
    return float(np.nanmax(known)) if np.isfinite(known).any() else float("nan")
