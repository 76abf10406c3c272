"""Forecasts joined with what then happened."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from smartgrid_pyfunc.monitoring.grid import Floats, Grid, Whole, at, hours_of, lagged, mean_by, mean_of
from smartgrid_pyfunc.schema import HOURS_A_DAY, HOURS_A_WEEK, require_columns

FORECAST_COLUMNS = ("sensor_id", "origin", "timestamp", "horizon", "predicted_load", "lower", "upper")
_TINY = 1e-9
_CONTROL = 0.5  # of the naive's error that is taken out of the size of a day's error


@dataclass(frozen=True)
class DailyErrors:
    """Errors of the freshest forecast of each hour, by local day; NaN where nothing was scored.

    Attributes
    ----------
    sensor_ids : tuple of str, length S
    days : ndarray of int64, shape (D,)
        Local days [days since 1970-01-01], consecutive.
    signed : ndarray, shape (S, D)
        Mean of actual − predicted, in half widths of the interval (in mean absolute errors without one).
    size : ndarray, shape (S, D)
        Logarithm of the mean absolute error, in the same unit, less half that of the weekly naive forecast: what makes
        a day hard for everybody counts less.
    """

    sensor_ids: tuple[str, ...]
    days: Whole
    signed: Floats
    size: Floats


def join(forecasts: pd.DataFrame, grid: Grid) -> pd.DataFrame:
    """Put the measured load and both seasonal naives beside each forecast.

    Parameters
    ----------
    forecasts : DataFrame
        Rows of the predictions table: `FORECAST_COLUMNS`, and ``version``, ``level``, ``reason`` where known.
    grid : Grid
        Hourly load, ending where the examination ends.

    Returns
    -------
    DataFrame
        The rows with a target hour inside `grid`: ``sensor_id, origin, horizon, timestamp, actual`` (NaN where not
        measured), ``predicted, lower, upper, naive_24, naive_168``, ``level, version`` where known, and ``sensor`` and
        ``column`` of `grid` (−1 for a sensor that was never measured).

    Raises
    ------
    InputError
        If a column is missing.

    Notes
    -----
    Both naives know nothing after the origin, as the forecast: see `evaluation.metrics.summarise`.
    """
    require_columns(forecasts.columns, FORECAST_COLUMNS)
    rows = forecasts.rename(columns={"predicted_load": "predicted"})
    every = hours_of(rows["timestamp"]) - grid.first
    inside = (every >= 0) & (every < grid.hours)
    rows = rows[inside].reset_index(drop=True)
    column: Whole = np.asarray(every[inside], dtype=np.int64)
    number = {name: i for i, name in enumerate(grid.sensor_ids)}
    sensor: Whole = np.asarray(rows["sensor_id"].map(number).fillna(-1), dtype=np.int64)
    horizon: Whole = np.asarray(rows["horizon"], dtype=np.int64)
    kept = [name for name in ("level", "version", "variant", "reason") if name in rows]
    found = rows[["sensor_id", "origin", "horizon", "timestamp", "predicted", "lower", "upper", *kept]].copy()
    found[["predicted", "lower", "upper"]] = found[["predicted", "lower", "upper"]].astype(float)
    found["actual"] = at(grid, sensor, column)
    for season in (HOURS_A_DAY, HOURS_A_WEEK):
        found[f"naive_{season}"] = lagged(grid, sensor, column, horizon, season)
    return found.assign(sensor=sensor, column=column)


def freshest(scored: pd.DataFrame) -> pd.DataFrame:
    """Return the forecast with the smallest horizon of each sensor and hour."""
    ordered = scored.sort_values(["sensor", "column", "horizon"], kind="stable")
    return ordered.drop_duplicates(["sensor", "column"])


def daily_errors(scored: pd.DataFrame, grid: Grid) -> DailyErrors:
    """Return the errors by sensor and local day; see `DailyErrors`.

    The width of the interval is the model's own word on how uncertain an hour is: errors in that unit change less
    with season and size of a sensor than errors in kW.
    """
    rows = freshest(scored[(scored["sensor"] >= 0) & scored["actual"].notna() & scored["predicted"].notna()])
    if rows.empty:
        nothing = np.full((len(grid.sensor_ids), 0), np.nan)
        return DailyErrors(grid.sensor_ids, np.empty(0, dtype=np.int64), nothing, nothing)
    first = int(grid.day[rows["column"].min()])
    start = int(np.searchsorted(grid.day, first))
    days = np.arange(first, int(grid.day[-1]) + 1)

    def by_day(values: pd.Series[float]) -> Floats:
        matrix = np.full((len(grid.sensor_ids), grid.hours - start), np.nan)
        matrix[rows["sensor"].to_numpy(), rows["column"].to_numpy() - start] = values.to_numpy(dtype=np.float64)
        return mean_by(matrix, grid.day[start:] - first, len(days))

    error = rows["actual"] - rows["predicted"]
    absolute = by_day(error.abs())
    unit = _unit(absolute, by_day((rows["upper"] - rows["lower"]) / 2))
    naive = by_day((rows["actual"] - rows["naive_168"]).abs())
    size = np.log(np.maximum(absolute / unit, _TINY)) - _CONTROL * np.log(np.maximum(naive / unit, _TINY))
    return DailyErrors(grid.sensor_ids, days, by_day(error) / unit, size)


def _unit(absolute: Floats, width: Floats) -> Floats:
    """Return the unit of each sensor and day: the mean half width, or the sensor's mean absolute error without one."""
    usual = mean_of(absolute)[:, None]
    usual = np.where(usual > 0, usual, 1.0)
    return np.asarray(np.where(width > 0, width, usual))
