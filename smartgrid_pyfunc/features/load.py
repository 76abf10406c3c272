"""Features of one load forecast: a sensor, an origin and a horizon; nothing after the origin but known covariates.

Every loads-valued feature is centred and scaled by the sensor's own last week before the origin, so that one model
serves a household and a feeder alike. The one function `build_features` serves fit, predict and backtest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from smartgrid_pyfunc.features.calendar import HOLIDAY, calendar_features
from smartgrid_pyfunc.features.cells import CellReader, known_mean, known_spread, season_lags
from smartgrid_pyfunc.features.design import (
    CHANGES,
    KNOWN_HOLIDAY,
    LINEAR_LEVELS,
    SAME_HOURS,
    SAME_WEEKDAY_HOURS,
    Design,
    FeatureSpec,
)
from smartgrid_pyfunc.features.panel import Panel
from smartgrid_pyfunc.features.weather import TemperaturePath
from smartgrid_pyfunc.schema import HOURS_A_DAY, HOURS_A_WEEK

_RADIANS_AN_HOUR = 2 * np.pi / (365.2425 * HOURS_A_DAY)

_SCALE_FLOOR = 0.02  # of the mean absolute load of the last week
_TINY = 1e-6
_TAIL, _MARGIN = 0.03, 2.0  # of the last week: share of its hours at each end, widths of what is between
_CHUNK = 8_192


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
        {name: np.concatenate([p.inputs[name] for p in parts]) for name in parts[0].inputs},
        {name: np.concatenate([p.base[name] for p in parts]) for name in parts[0].base},
        np.concatenate([p.scale for p in parts]),
        horizon,
        panel.sensor_ids[sensor],
    )


def _chunks(n: int) -> Iterator[slice]:
    yield from (slice(i, i + _CHUNK) for i in range(0, max(n, 1), _CHUNK))


def _limits(week: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the limits beyond which a load is taken for a fault, shape (n, 1) each.

    Twice the width of the central 94 % of the last week's loads, below and above it; none where that width is 0. A
    spike of a few hours would otherwise rule centre, scale and the features of a month (winsorising: Dixon, 1960).
    """
    ordered, known = np.sort(week, axis=1), (~np.isnan(week)).sum(axis=1, keepdims=True)  # NaN is sorted last
    tail = np.floor(_TAIL * known).astype(np.int64)
    low = np.take_along_axis(ordered, tail, axis=1)
    high = np.take_along_axis(ordered, np.maximum(known - 1 - tail, 0), axis=1)
    margin = np.where(high > low, _MARGIN * (high - low), np.inf)
    return np.nan_to_num(low - margin, nan=-np.inf), np.nan_to_num(high + margin, nan=np.inf)


class _Origins:
    """What is known at the distinct origins of a chunk: computed once for each, read by every horizon."""

    def __init__(self, panel: Panel, sensor: NDArray[np.int64], origin: NDArray[np.int64]) -> None:
        self.cell, first, self._row = np.unique(origin, return_index=True, return_inverse=True)
        zero = np.zeros(len(self.cell), dtype=np.int64)
        self._read = CellReader(panel, sensor[first], self.cell, zero)
        self._load = panel.load
        week = self._read.back(panel.load, np.arange(HOURS_A_WEEK)[::-1])
        self._low, self._high = _limits(week)
        self._week = np.clip(week, self._low, self._high)
        self._centre = known_mean(self._week)
        floor = np.maximum(_SCALE_FLOOR * known_mean(np.abs(self._week)), _TINY)
        self._scale = np.maximum(known_spread(self._week, self._centre), floor)
        self.centre, self.scale = self._centre[self._row], self._scale[self._row]

    def within(self, loads: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return loads (n, k) of the forecasts, those far outside the last week's range brought to its limits."""
        return np.clip(loads, self._low[self._row], self._high[self._row])

    def _back(self, hours: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.clip(self._read.back(self._load, hours), self._low, self._high)

    def last_hours(self) -> dict[str, NDArray[np.float64]]:
        """Columns in the unit of the load."""
        columns = {
            "prev_hour_avg": self._week[:, -1],
            "rolling_avg_3h": known_mean(self._week[:, -3:]),
            "rolling_avg_24h": known_mean(self._week[:, -24:]),
        }
        return {name: column[self._row] for name, column in columns.items()}

    def changes(self) -> dict[str, NDArray[np.float64]]:
        """How the last hours differ from the same hours a day and a week before, and this week from the last four."""
        day, hours = self._week[:, -24:], np.arange(HOURS_A_DAY)[::-1]
        to_week = day - self._back(hours + HOURS_A_WEEK)
        to_day = day - self._back(hours + HOURS_A_DAY)
        earlier = known_mean(self._back(np.arange(HOURS_A_WEEK, 4 * HOURS_A_WEEK, 7)))
        columns = {
            "week_change_1h": to_week[:, -1],
            "week_change_3h": known_mean(to_week[:, -3:]),
            "week_change_24h": known_mean(to_week),
            "day_change_1h": to_day[:, -1],
            "day_change_24h": known_mean(to_day),
            "month_change": self._centre - earlier,
        }
        return {name: (column / self._scale)[self._row] for name, column in columns.items()}

    def profile(self) -> NDArray[np.float64]:
        """Return the scaled loads of the last day, and of the first hours of the same day a week before, (n, 30)."""
        week_ago = self._back(HOURS_A_WEEK + np.arange(6))
        loads = np.hstack([self._week[:, -24:], week_ago])
        scaled: NDArray[np.float64] = ((loads - self._centre[:, None]) / self._scale[:, None])[self._row]
        return scaled


def _build_chunk(
    panel: Panel, sensor: NDArray[np.int64], origin: NDArray[np.int64], horizon: NDArray[np.int64], spec: FeatureSpec
) -> Design:
    read, origins = CellReader(panel, sensor, origin, horizon), _Origins(panel, sensor, origin)
    days, weeks = season_lags(horizon)
    loads = origins.last_hours() | _same_hours(panel, read, origins, days, weeks)
    bases = _bases(loads, origins.centre)

    def scaled(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return (x - origins.centre) / origins.scale

    columns = {name: scaled(x) for name, x in loads.items()} | origins.changes()
    columns |= {"blend": scaled(bases["blend"]), "horizon": horizon.astype(np.float64)}
    columns |= {"count": _count_ratio(panel, read, days)}
    hours = panel.hour(sensor, origin) + horizon
    columns |= calendar_features(hours, spec.timezone, np.array(spec.holidays, dtype=np.int64))
    path = TemperaturePath(panel, read) if "temperature" in spec.covariates else None
    columns |= path.features() if path else {}
    columns |= _holiday_features(read) if "is_holiday" in spec.covariates else {}
    around = origins.within(_around(panel, read, days, weeks))
    around = np.hstack([origins.profile(), (around - origins.centre[:, None]) / origins.scale[:, None]])
    inputs = _linear_inputs(columns, around, hours, path)
    features = _stacked(columns, spec.names())
    return Design(features, inputs, bases, origins.scale, horizon, panel.sensor_ids[sensor])


def _stacked(columns: Mapping[str, NDArray[np.float64]], names: Sequence[str]) -> NDArray[np.float32]:
    stacked = np.empty((len(columns["horizon"]), len(names)), dtype=np.float32)
    for i, name in enumerate(names):
        stacked[:, i] = columns[name]
    return stacked


def _linear_inputs(
    columns: dict[str, NDArray[np.float64]],
    around: NDArray[np.float64],
    hours: NDArray[np.int64],
    path: TemperaturePath | None,
) -> dict[str, NDArray[np.float32]]:
    """Return `Design.inputs`: an unknown level counts as the blend of the known ones, an unknown change as none."""
    known = np.nan_to_num(columns["blend"])
    filled = {name: np.where(np.isnan(columns[name]), known, columns[name]) for name in LINEAR_LEVELS}
    changes = {name: np.nan_to_num(columns[name]) for name in CHANGES}
    clock = {"hour": columns["hour_of_day"], "weekday": columns["day_of_week"], "phase": hours * _RADIANS_AN_HOUR}
    flags = [columns[name] for name in (*HOLIDAY, *KNOWN_HOLIDAY) if name in columns]
    inputs = {
        "history": np.column_stack([*filled.values(), *changes.values()]),
        "around": np.nan_to_num(around),
        "clock": np.column_stack(list(clock.values())),
        "holiday": np.nan_to_num(np.column_stack(flags)) if flags else np.empty((len(hours), 0)),
    }
    if path:
        inputs |= {"temperature": path.response(), "past_temperature": path.past_response()}
    return {name: block.astype(np.float32) for name, block in inputs.items()}


def _same_hours(
    panel: Panel, read: CellReader, origins: _Origins, days: NDArray[np.int64], weeks: NDArray[np.int64]
) -> dict[str, NDArray[np.float64]]:
    """Return loads at the target's own hour on earlier days [unit of the load]."""

    def known(name: str, hours: NDArray[np.int64]) -> NDArray[np.float64]:
        return origins.within(read.before_target(panel.loads[name], hours))

    def last(name: str) -> NDArray[np.float64]:
        return origins.within(read.back(panel.loads[name], [0]))[:, 0]

    same_hour, same_weekday = known("avg_value", days), known("avg_value", weeks)
    beside = known("avg_value", weeks[:, :1] + np.array([1, -1]))
    columns = dict(zip(SAME_HOURS, same_hour.T, strict=True)) | dict(
        zip(SAME_WEEKDAY_HOURS, same_weekday.T, strict=True)
    )
    return columns | {
        "min_value": known("min_value", days[:, :1])[:, 0],
        "max_value": known("max_value", days[:, :1])[:, 0],
        "prev_hour_min": last("min_value"),
        "prev_hour_max": last("max_value"),
        "day_mean": known_mean(same_hour),
        "week_mean": known_mean(same_weekday),
        "week_before_target": beside[:, 0],
        "week_after_target": beside[:, 1],
    }


def _around(panel: Panel, read: CellReader, days: NDArray[np.int64], weeks: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return loads up to three hours beside the last same hour and the last same weekday hour, shape (n, 12)."""
    beside = np.array([1, 2, 3, -1, -2, -3])
    return read.before_target(panel.load, np.hstack([days[:, :1] + beside, weeks[:, :1] + beside]))


def _bases(loads: dict[str, NDArray[np.float64]], centre: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    day, week = loads["day_mean"], loads["week_mean"]
    blend = np.where(np.isnan(week), day, np.where(np.isnan(day), week, 0.5 * (day + week)))
    known = np.where(np.isnan(blend), centre, blend)
    last_day = loads[SAME_HOURS[0]]
    return {"blend": known, "last_day": np.where(np.isnan(last_day), known, last_day), "level": centre}


def _count_ratio(panel: Panel, read: CellReader, days: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the readings behind the last same hour, as a share of the usual number: how complete that hour is."""
    count = panel.loads["count"]
    usual = known_mean(read.back(count, np.arange(HOURS_A_DAY)))
    return read.before_target(count, days[:, :1])[:, 0] / np.maximum(usual, 1.0)


def _holiday_features(read: CellReader) -> dict[str, NDArray[np.float64]]:
    def flag(*hours: int) -> NDArray[np.float64]:
        return read.covariate("is_holiday", hours)

    return {
        "is_holiday": flag(0)[:, 0],
        "is_holiday_day_lags": known_mean(flag(*(day * HOURS_A_DAY for day in range(1, 8)))),
        "is_holiday_week_lag": flag(HOURS_A_WEEK)[:, 0],
        "is_holiday_before": flag(HOURS_A_DAY)[:, 0],
        "is_holiday_after": flag(-HOURS_A_DAY)[:, 0],
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
    read = CellReader(panel, np.zeros_like(origin), origin, horizon)
    days, weeks = season_lags(horizon)
    return {
        HOURS_A_DAY: read.before_target(panel.load, days[:, :1])[:, 0],
        HOURS_A_WEEK: read.before_target(panel.load, weeks[:, :1])[:, 0],
    }
