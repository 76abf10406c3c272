"""Forecasts joined with what then happened."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from smartgrid_pyfunc.monitoring.grid import Floats, Grid, Whole, at, hours_of, lagged, mean_by
from smartgrid_pyfunc.schema import HOURS_A_DAY, HOURS_A_WEEK, require_columns

FORECAST_COLUMNS = ("sensor_id", "origin", "timestamp", "horizon", "predicted_load", "lower", "upper")
_TINY = 1e-9


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
        Logarithm of the mean absolute error, in the same unit.
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
    column: Whole = hours_of(rows["timestamp"]) - grid.first
    inside = (column >= 0) & (column < grid.hours)
    rows = rows[inside].reset_index(drop=True)
    column = np.asarray(column[inside], dtype=np.int64)
    number = {name: i for i, name in enumerate(grid.sensor_ids)}
    sensor = rows["sensor_id"].map(number).fillna(-1).to_numpy(dtype=np.int64)
    horizon = rows["horizon"].to_numpy(dtype=np.int64)
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
    error, width = np.full(grid.load.shape, np.nan), np.full(grid.load.shape, np.nan)
    place = rows["sensor"].to_numpy(), rows["column"].to_numpy()
    error[place] = (rows["actual"] - rows["predicted"]).to_numpy()
    width[place] = ((rows["upper"] - rows["lower"]) / 2).to_numpy()
    first = int(grid.day[place[1].min()])
    kept = np.flatnonzero(grid.day >= first)
    group, count = grid.day[kept] - first, int(grid.day[-1]) - first + 1
    error, width = error[:, kept], width[:, kept]
    unit = _unit(error, mean_by(width, group, count))
    size = mean_by(np.abs(error), group, count) / unit
    signed = mean_by(error, group, count) / unit
    days = np.arange(first, first + count)
    return DailyErrors(grid.sensor_ids, days, signed, np.log(np.maximum(size, _TINY)))


def _unit(error: Floats, width: Floats) -> Floats:
    """Return the unit of each sensor and day: the mean half width, or the sensor's mean absolute error without one."""
    known = ~np.isnan(error)
    usual = np.where(known, np.abs(error), 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    usual = np.where(usual > 0, usual, 1.0)[:, None]
    return np.asarray(np.where(width > 0, width, usual))
