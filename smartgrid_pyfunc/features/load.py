"""Features of one load forecast: a sensor, an origin and a horizon; nothing after the origin but known covariates.

Every loads-valued feature is centred and scaled by the sensor's own last week before the origin, so that one model
serves a household and a feeder alike. The one function `build_features` serves fit, predict and backtest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smartgrid_pyfunc.features.calendar import CALENDAR, HOLIDAY, calendar_features
from smartgrid_pyfunc.features.panel import Panel
from smartgrid_pyfunc.schema import HOURS_A_DAY, HOURS_A_WEEK

BASE = (
    "min_value",
    "max_value",
    "count",
    "prev_hour_avg",
    "prev_hour_min",
    "prev_hour_max",
    "rolling_avg_3h",
    "rolling_avg_24h",
)
#: Differences between known hours, scaled.
CHANGES = (
    "week_change_1h",
    "week_change_3h",
    "week_change_24h",
    "day_change_1h",
    "day_change_24h",
    "month_change",
)
_DAYS = tuple(f"same_hour_{j + 1}" for j in range(7))
_WEEKS = tuple(f"same_weekday_hour_{j + 1}" for j in range(4))
_HISTORY = (
    *_DAYS,
    *_WEEKS,
    "day_mean",
    "week_mean",
    "week_before_target",
    "week_after_target",
    *CHANGES,
    "blend",
)
#: Features that are loads of known hours, centred and scaled.
LEVELS = tuple(name for name in (*BASE, *_HISTORY) if name not in (*CHANGES, "count"))
_TEMPERATURE = ("temperature", "temperature_change", "temperature_day", "temperature_anomaly", "temperature_origin")
_KNOWN_HOLIDAY = ("is_holiday", "is_holiday_day_lags", "is_holiday_week_lag", "is_holiday_before", "is_holiday_after")

#: Features that a request may lack, by what is missing; training blanks some of each group to cope with that.
OPTIONAL_GROUPS = {
    "min_value": ("min_value", "max_value", "count", "prev_hour_min", "prev_hour_max"),
    "temperature": _TEMPERATURE,
    "is_holiday": _KNOWN_HOLIDAY,
}
RESIDUAL_BASES = ("blend", "last_day", "level")

_SCALE_FLOOR = 0.02  # of the mean absolute load of the last week
_TINY = 1e-6
_CHUNK = 8_192


@dataclass(frozen=True)
class FeatureSpec:
    """What the features of a model depend on beside the panel."""

    timezone: str = "UTC"
    holidays: tuple[int, ...] = ()  # local days since 1970-01-01
    covariates: tuple[str, ...] = ()

    def names(self) -> tuple[str, ...]:
        """Return the names of the feature columns, in order."""
        names = ("horizon", *CALENDAR, *BASE, *_HISTORY)
        names += HOLIDAY if self.holidays else ()
        names += _TEMPERATURE if "temperature" in self.covariates else ()
        return names + (_KNOWN_HOLIDAY if "is_holiday" in self.covariates else ())


@dataclass(frozen=True)
class Design:
    """Features of n forecasts with what turns the model's answer back into load.

    Attributes
    ----------
    features : ndarray of float32, shape (n, n_features)
    base : dict of ndarray, shape (n,)
        Simple forecasts [unit of the load] that a model may predict the difference to: ``blend`` (half the mean of the
        last seven same hours, half of the last four same weekday hours), ``last_day``, ``level`` (last week's mean).
    scale : ndarray, shape (n,)
        Spread of the last week before the origin [unit of the load], floored so that constant sensors do not explode.
    """

    features: NDArray[np.float32]
    base: dict[str, NDArray[np.float64]]
    scale: NDArray[np.float64]


def build_features(
    panel: Panel,
    sensor: NDArray[np.int64],
    origin: NDArray[np.int64],
    horizon: NDArray[np.int64],
    spec: FeatureSpec,
) -> Design:
    """Build the features of n forecasts.

    Parameters
    ----------
    panel : Panel
    sensor, origin, horizon : ndarray of int64, shape (n,)
        Number of the sensor, cell of its origin, lead time [h, 1…168].
    spec : FeatureSpec

    Returns
    -------
    Design
        A row depends on its own sensor's loads up to `origin` and on its covariates up to the target hour only, the
        holiday flag up to a day after it.
    """
    parts = [_build_chunk(panel, sensor[c], origin[c], horizon[c], spec) for c in _chunks(len(sensor))]
    return Design(
        np.concatenate([p.features for p in parts]),
        {name: np.concatenate([p.base[name] for p in parts]) for name in parts[0].base},
        np.concatenate([p.scale for p in parts]),
    )


def _chunks(n: int) -> Iterator[slice]:
    yield from (slice(i, i + _CHUNK) for i in range(0, max(n, 1), _CHUNK))


class _Reader:
    """Reads cells of a panel at given distances, seen from the forecasts of one chunk."""

    def __init__(self, panel: Panel, origin: NDArray[np.int64], horizon: NDArray[np.int64]) -> None:
        self._panel, self._origin = panel, origin
        self._target = origin + horizon
        self._last = len(panel.load) - 1

    def back(self, values: NDArray[np.float64], hours: Any) -> NDArray[np.float64]:
        """Values `hours` before the origin, shape (n, len(hours))."""
        found: NDArray[np.float64] = values[self._origin[:, None] - hours]
        return found

    def before_target(self, values: NDArray[np.float64], hours: NDArray[np.int64]) -> NDArray[np.float64]:
        """Values `hours` (n, k) before the target; NaN where that is after the origin."""
        cell = self._target[:, None] - hours
        return np.where(cell <= self._origin[:, None], values[np.minimum(cell, self._origin[:, None])], np.nan)

    def known(
        self, values: NDArray[np.float64], hours: NDArray[np.int64], end: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Known covariates `hours` (k,) before the target, past the origin too; NaN beyond the sensor's own `end`."""
        cell = self._target[:, None] - hours
        found: NDArray[np.float64] = np.where(cell < end[:, None], values[np.minimum(cell, self._last)], np.nan)
        return found


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the last axis of what is known; NaN where nothing is."""
    known = ~np.isnan(values)
    count = known.sum(axis=-1)
    total = np.where(known, values, 0.0).sum(axis=-1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _spread(values: NDArray[np.float64], mean: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.sqrt(_mean((values - mean[..., None]) ** 2))


def _build_chunk(
    panel: Panel, sensor: NDArray[np.int64], origin: NDArray[np.int64], horizon: NDArray[np.int64], spec: FeatureSpec
) -> Design:
    read = _Reader(panel, origin, horizon)
    week = read.back(panel.load, np.arange(HOURS_A_WEEK)[::-1])
    centre = _mean(week)
    scale = np.maximum(_spread(week, centre), np.maximum(_SCALE_FLOOR * _mean(np.abs(week)), _TINY))
    days, weeks = _lags(horizon)
    loads = _load_features(panel, read, week, days, weeks)
    bases = _bases(loads, centre)

    def scaled(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return (x - centre) / scale

    columns = {name: scaled(x) for name, x in loads.items()} | _differences(panel, read, week, scale)
    columns |= {"blend": scaled(bases["blend"]), "horizon": horizon.astype(np.float64)}
    columns |= {"count": _count_ratio(panel, read, days)}
    columns |= calendar_features(
        panel.hour(sensor, origin) + horizon, spec.timezone, np.array(spec.holidays, dtype=np.int64)
    )
    columns |= _covariate_features(panel, sensor, read, days, spec)
    features = np.empty((len(sensor), len(spec.names())), dtype=np.float32)
    for i, name in enumerate(spec.names()):
        features[:, i] = columns[name]
    return Design(features, bases, scale)


def _lags(horizon: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Distances [h] from the target to the 7 latest known same hours and the 4 latest same weekday hours."""
    first_day = -(-horizon // HOURS_A_DAY) * HOURS_A_DAY
    days = first_day[:, None] + HOURS_A_DAY * np.arange(7)
    first_week = -(-horizon // HOURS_A_WEEK) * HOURS_A_WEEK
    weeks = first_week[:, None] + HOURS_A_WEEK * np.arange(4)
    return days, weeks


def _load_features(
    panel: Panel, read: _Reader, week: NDArray[np.float64], days: NDArray[np.int64], weeks: NDArray[np.int64]
) -> dict[str, NDArray[np.float64]]:
    """Features in the unit of the load."""
    load, low, high = panel.load, panel.loads["min_value"], panel.loads["max_value"]
    same_hour, same_weekday = read.before_target(load, days), read.before_target(load, weeks)
    beside = read.before_target(load, weeks[:, :1] + np.array([1, -1]))
    columns = dict(zip(_DAYS, same_hour.T, strict=True)) | dict(zip(_WEEKS, same_weekday.T, strict=True))
    columns |= {
        "min_value": read.before_target(low, days[:, :1])[:, 0],
        "max_value": read.before_target(high, days[:, :1])[:, 0],
        "prev_hour_avg": week[:, -1],
        "prev_hour_min": read.back(low, [0])[:, 0],
        "prev_hour_max": read.back(high, [0])[:, 0],
        "rolling_avg_3h": _mean(week[:, -3:]),
        "rolling_avg_24h": _mean(week[:, -24:]),
        "day_mean": _mean(same_hour),
        "week_mean": _mean(same_weekday),
        "week_before_target": beside[:, 0],
        "week_after_target": beside[:, 1],
    }
    return columns


def _differences(
    panel: Panel, read: _Reader, week: NDArray[np.float64], scale: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """How the last hours differ from the same hours a day and a week before, and this week from the last four."""
    load, day, hours = panel.load, week[:, -24:], np.arange(HOURS_A_DAY)[::-1]
    to_week = day - read.back(load, hours + HOURS_A_WEEK)
    to_day = day - read.back(load, hours + HOURS_A_DAY)
    earlier = _mean(read.back(load, np.arange(HOURS_A_WEEK, 4 * HOURS_A_WEEK, 7)))
    return {
        "week_change_1h": to_week[:, -1] / scale,
        "week_change_3h": _mean(to_week[:, -3:]) / scale,
        "week_change_24h": _mean(to_week) / scale,
        "day_change_1h": to_day[:, -1] / scale,
        "day_change_24h": _mean(to_day) / scale,
        "month_change": (_mean(week) - earlier) / scale,
    }


def _bases(loads: dict[str, NDArray[np.float64]], centre: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    day, week = loads["day_mean"], loads["week_mean"]
    blend = np.where(np.isnan(week), day, np.where(np.isnan(day), week, 0.5 * (day + week)))
    known = np.where(np.isnan(blend), centre, blend)
    last_day = loads[_DAYS[0]]
    return {"blend": known, "last_day": np.where(np.isnan(last_day), known, last_day), "level": centre}


def _count_ratio(panel: Panel, read: _Reader, days: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the readings behind the last same hour, as a share of the usual number: how complete that hour is."""
    count = panel.loads["count"]
    usual = _mean(read.back(count, np.arange(HOURS_A_DAY)))
    return read.before_target(count, days[:, :1])[:, 0] / np.maximum(usual, 1.0)


def _covariate_features(
    panel: Panel, sensor: NDArray[np.int64], read: _Reader, days: NDArray[np.int64], spec: FeatureSpec
) -> dict[str, NDArray[np.float64]]:
    columns: dict[str, NDArray[np.float64]] = {}
    end = panel.first_cell[sensor] + panel.n_hours[sensor]

    def known(name: str) -> Callable[[Any], NDArray[np.float64]]:
        values = panel.covariates.get(name)
        if values is None:
            return lambda hours: np.full((len(sensor), len(hours)), np.nan)
        return lambda hours: read.known(values, np.asarray(hours), end)

    if "temperature" in spec.covariates:
        columns |= _temperature_features(known("temperature"), read, panel, days)
    if "is_holiday" in spec.covariates:
        columns |= _holiday_features(known("is_holiday"))
    return columns


def _temperature_features(
    known: Callable[[Any], NDArray[np.float64]], read: _Reader, panel: Panel, days: NDArray[np.int64]
) -> dict[str, NDArray[np.float64]]:
    values = panel.covariates.get("temperature")
    nothing = np.full(len(days), np.nan)
    target = known([0])[:, 0]
    usual = nothing if values is None else _mean(read.before_target(values, days))
    return {
        "temperature": target,
        "temperature_change": target - known([HOURS_A_DAY])[:, 0],
        "temperature_day": _mean(known(np.arange(HOURS_A_DAY))),
        "temperature_anomaly": target - usual,
        "temperature_origin": nothing if values is None else read.back(values, [0])[:, 0],
    }


def _holiday_features(known: Callable[[Any], NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
    return {
        "is_holiday": known([0])[:, 0],
        "is_holiday_day_lags": _mean(known(np.arange(1, 8) * HOURS_A_DAY)),
        "is_holiday_week_lag": known([HOURS_A_WEEK])[:, 0],
        "is_holiday_before": known([HOURS_A_DAY])[:, 0],
        "is_holiday_after": known([-HOURS_A_DAY])[:, 0],
    }


def seasonal_naive(
    panel: Panel, origin: NDArray[np.int64], horizon: NDArray[np.int64]
) -> dict[int, NDArray[np.float64]]:
    """Return the latest known load a whole number of days, and of weeks, before each target.

    Returns
    -------
    dict
        Lag [h] (24 and 168) → ndarray, shape (n,) [unit of the load]; NaN where that hour is not known.

    Notes
    -----
    Hyndman & Athanasopoulos, *Forecasting: Principles and Practice* (3rd ed.), section 5.2.
    """
    read = _Reader(panel, origin, horizon)
    days, weeks = _lags(horizon)
    return {
        HOURS_A_DAY: read.before_target(panel.load, days[:, :1])[:, 0],
        HOURS_A_WEEK: read.before_target(panel.load, weeks[:, :1])[:, 0],
    }
