"""Measures of point and interval forecasts, and the tables made of them.

Every function drops the pairs in which a value is missing, and returns NaN where nothing is left or where the
measure is undefined: a metric is never made up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from smartgrid_pyfunc.schema import HOURS_A_DAY, HOURS_A_WEEK, require_columns

_LAGS = (HOURS_A_DAY, HOURS_A_WEEK)
_COLUMNS = ("sensor_id", "horizon", "timestamp", "actual", "predicted", "lower", "upper", "naive_24", "naive_168")


def _complete(*columns: ArrayLike) -> list[NDArray[np.float64]]:
    arrays = np.broadcast_arrays(*(np.asarray(column, dtype=np.float64) for column in columns))
    keep = ~np.logical_or.reduce([np.isnan(array) for array in arrays])
    return [array[keep] for array in arrays]


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if values.size else float("nan")


def _ratio(top: float, bottom: float) -> float:
    return top / bottom if bottom > 0 else float("nan")


def mae(actual: ArrayLike, predicted: ArrayLike) -> float:
    """Return the mean absolute error [unit of the readings]."""
    a, p = _complete(actual, predicted)
    return _mean(np.abs(p - a))


def rmse(actual: ArrayLike, predicted: ArrayLike) -> float:
    """Return the root mean squared error [unit of the readings]."""
    a, p = _complete(actual, predicted)
    return float(np.sqrt(_mean((p - a) ** 2)))


def r2(actual: ArrayLike, predicted: ArrayLike) -> float:
    """Return the coefficient of determination, 1 − SSE / SST; NaN for a constant actual."""
    a, p = _complete(actual, predicted)
    if not a.size or np.ptp(a) == 0:
        return float("nan")
    return 1 - float(((p - a) ** 2).sum() / ((a - a.mean()) ** 2).sum())


def bias(actual: ArrayLike, predicted: ArrayLike) -> float:
    """Return the mean error, predicted − actual: positive where the forecast is too high."""
    a, p = _complete(actual, predicted)
    return _mean(p - a)


def wape(actual: ArrayLike, predicted: ArrayLike) -> float:
    """Return the weighted absolute percentage error, Σ|e| / Σ|actual|, as a fraction (Kolassa & Schütz 2007)."""
    a, p = _complete(actual, predicted)
    return _ratio(float(np.abs(p - a).sum()), float(np.abs(a).sum()))


def mase(errors: ArrayLike, scale: float) -> float:
    """Return the mean absolute scaled error: mean |error| over the naive forecast's error on the training data.

    Hyndman & Koehler (2006), Another look at measures of forecast accuracy, IJF 22(4), section 3.

    Parameters
    ----------
    errors : array_like, shape (n,)
        Forecast errors of one sensor.
    scale : float
        Mean absolute seasonal difference of its training data: see `naive_scales`.
    """
    (e,) = _complete(errors)
    return _ratio(_mean(np.abs(e)), scale)


def skill(error: float, baseline_error: float) -> float:
    """Return 1 − error / baseline error: 0 is as good as the baseline, 1 perfect, negative worse."""
    return 1 - _ratio(error, baseline_error)


def pinball(actual: ArrayLike, predicted: ArrayLike, level: float) -> float:
    """Return the mean pinball loss of quantile forecasts (Koenker & Bassett 1978).

    Parameters
    ----------
    actual, predicted : array_like, shape (n,)
        Observed values and forecast quantiles.
    level : float
        The quantile's level, between 0 and 1.
    """
    a, q = _complete(actual, predicted)
    return _mean(np.maximum(level * (a - q), (level - 1) * (a - q)))


def coverage(actual: ArrayLike, lower: ArrayLike, upper: ArrayLike) -> float:
    """Return the share of values inside their interval, ends included."""
    a, low, high = _complete(actual, lower, upper)
    return _mean(((low <= a) & (a <= high)).astype(np.float64))


def interval_width(lower: ArrayLike, upper: ArrayLike) -> float:
    """Return the mean width of the intervals [unit of the readings]."""
    low, high = _complete(lower, upper)
    return _mean(high - low)


def naive_scales(hourly: pd.DataFrame, lag: int = HOURS_A_WEEK) -> pd.Series[float]:
    """Return the mean absolute seasonal difference of each sensor, the scale of `mase`.

    Parameters
    ----------
    hourly : pandas.DataFrame
        Training data: `sensor_id`, `timestamp` (unique per sensor), `avg_value`. Hours may be missing.
    lag : int
        Season [h].

    Returns
    -------
    pandas.Series
        Scale by `sensor_id`; NaN for a sensor without two values `lag` hours apart.
    """
    require_columns(hourly.columns, ("sensor_id", "timestamp", "avg_value"))
    now = hourly[["sensor_id", "timestamp", "avg_value"]]
    before = now.assign(timestamp=now["timestamp"] + pd.Timedelta(hours=lag))
    both = now.merge(before, on=["sensor_id", "timestamp"], how="left", suffixes=("", "_before"))
    difference = (both["avg_value"] - both["avg_value_before"]).abs()
    return difference.groupby(both["sensor_id"]).mean()


@dataclass(frozen=True)
class Summary:
    """What a set of forecasts is worth.

    Attributes
    ----------
    overall : dict of str to float
        Metrics under the names they are logged by.
    by_sensor, by_horizon, by_hour : pandas.DataFrame
        One row per group: `n`, `mae`, `rmse`, `bias`, `wape`, `coverage`, `interval_width`, `naive_24_mae`,
        `naive_168_mae`, `naive_mae` (the better lag in that group), `skill`; by sensor also `mase`.
    """

    overall: dict[str, float]
    by_sensor: pd.DataFrame
    by_horizon: pd.DataFrame
    by_hour: pd.DataFrame


def summarise(
    forecasts: pd.DataFrame,
    *,
    scales: Mapping[str, float] | pd.Series[float] | None = None,
    timezone: str = "UTC",
    prefix: str = "test_",
) -> Summary:
    """Return metrics and tables of a long frame of forecasts.

    Parameters
    ----------
    forecasts : pandas.DataFrame
        A row per sensor, origin and horizon: `sensor_id`, `horizon` [h], `timestamp` (of the target hour), `actual`,
        `predicted`, `lower`, `upper`, `naive_24`, `naive_168`.
    scales : Mapping of sensor_id to float, optional
        See `naive_scales`; without it there is no MASE.
    timezone : str
        In which the hour of day is told.
    prefix : str
        Stands before the names of the model's own metrics; the baseline's are always `naive_mae`, `naive_24_mae`
        and `naive_168_mae`.

    Returns
    -------
    Summary
        Model and baselines are scored on the same rows: those in which actual, forecast and both naive forecasts
        are known (a lag that is nowhere known is left out). `naive_mae` is the better lag's. MASE is the mean over
        sensors, as their loads differ in size. `test_scored_share` tells how many of the rows with an actual count.

    Raises
    ------
    InputError
        If a column is missing.
    """
    require_columns(forecasts.columns, _COLUMNS)
    scored = _scored(forecasts)
    rows = _contributions(scored)
    clock = pd.DatetimeIndex(pd.to_datetime(scored["timestamp"], utc=True)).tz_convert(timezone)
    by_sensor = _table(rows, scored["sensor_id"])
    by_sensor["mase"] = by_sensor["mae"] / _positive(scales, by_sensor.index)
    overall = _overall(scored, prefix)
    if scales is not None:
        overall[f"{prefix}mase"] = float(by_sensor["mase"].mean())
    known = int(forecasts["actual"].notna().sum())
    overall[f"{prefix}scored_share"] = len(scored) / known if known else float("nan")
    hour = pd.Series(clock.hour, index=scored.index, name="hour_of_day")
    return Summary(overall, by_sensor, _table(rows, scored["horizon"]), _table(rows, hour))


def _scored(forecasts: pd.DataFrame) -> pd.DataFrame:
    lags = [f"naive_{lag}" for lag in _LAGS if forecasts[f"naive_{lag}"].notna().any()]
    return forecasts.dropna(subset=["actual", "predicted", *lags])


def _overall(scored: pd.DataFrame, prefix: str) -> dict[str, float]:
    actual, predicted = scored["actual"], scored["predicted"]
    naive = {f"naive_{lag}_mae": mae(actual, scored[f"naive_{lag}"]) for lag in _LAGS}
    best = _smaller(*naive.values())
    own = {
        "mae": mae(actual, predicted),
        "rmse": rmse(actual, predicted),
        "r2": r2(actual, predicted),
        "bias": bias(actual, predicted),
        "wape": wape(actual, predicted),
        "skill": skill(mae(actual, predicted), best),
        "coverage": coverage(actual, scored["lower"], scored["upper"]),
        "interval_width": interval_width(scored["lower"], scored["upper"]),
        "rows": float(len(scored)),
    }
    return {f"{prefix}{name}": value for name, value in own.items()} | naive | {"naive_mae": best}


def _smaller(first: float, second: float) -> float:
    return float(np.fmin(first, second))


def _contributions(scored: pd.DataFrame) -> pd.DataFrame:
    """Return what each row adds to each measure, so that one grouped mean makes a table."""
    actual = scored["actual"].astype(float)
    error = scored["predicted"] - actual
    inside = (scored["lower"] <= actual) & (actual <= scored["upper"])
    width = scored["upper"] - scored["lower"]
    columns = {
        "mae": error.abs(),
        "square": error**2,
        "bias": error,
        "size": actual.abs(),
        "coverage": inside.astype(float).where(width.notna()),
        "interval_width": width,
    }
    return pd.DataFrame(columns | {f"naive_{lag}_mae": (scored[f"naive_{lag}"] - actual).abs() for lag in _LAGS})


def _table(rows: pd.DataFrame, key: pd.Series) -> pd.DataFrame:
    groups = rows.groupby(key)
    table = groups.mean()
    table.insert(0, "n", groups.size())
    table["rmse"] = np.sqrt(table.pop("square"))
    table["wape"] = table["mae"] / table.pop("size").replace(0, np.nan)
    table["naive_mae"] = table[[f"naive_{lag}_mae" for lag in _LAGS]].min(axis=1)
    table["skill"] = 1 - table["mae"] / table["naive_mae"].replace(0, np.nan)
    return table


def _positive(scales: Mapping[str, float] | pd.Series[float] | None, sensors: pd.Index) -> pd.Series[float]:
    series = pd.Series(dict(scales) if scales is not None else {}, dtype=float).reindex(sensors)
    return series.where(series > 0)
