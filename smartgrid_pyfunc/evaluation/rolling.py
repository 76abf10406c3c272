"""Rolling conformal intervals: their width follows the errors of the last weeks, as known at each origin.

A served model answers without memory, so its intervals are those of its training. Whoever keeps forecasts and later
measurements can do this instead; a backtest shows both on the same forecasts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smartgrid_pyfunc.evaluation.metrics import coverage, interval_width, pinball
from smartgrid_pyfunc.schema import HOURS_A_DAY

MEMORY_DAYS = 28
_MEMORY = MEMORY_DAYS * HOURS_A_DAY
_APART = 1 << 32  # hours: more than lie between any two times, so that groups never meet in one sorted array
_ROWS_AT_ONCE = 200_000


def rolling_bounds(forecasts: pd.DataFrame, levels: Sequence[float]) -> dict[float, NDArray[np.float64]]:
    """Return intervals around the forecasts from earlier errors of the same sensor and horizon.

    Parameters
    ----------
    forecasts : DataFrame
        n rows as `evaluation.backtest.backtest` makes them: ``sensor_id, origin, horizon, timestamp, actual,
        predicted, scale``.
    levels : sequence of float
        Probabilities.

    Returns
    -------
    dict
        Level → lower and upper bound, shape (n, 2) [unit of the load]; NaN where fewer errors are known than the level
        needs (four at 80 %, 19 at 95 %).

    Notes
    -----
    Split conformal prediction with the absolute error over the sensor's spread as its score (Lei et al., 2018, *JASA*
    113, section 2.2): of n scores the one of rank ⌈(n + 1) · level⌉. The scores slide along: those whose target hour
    lies in the 28 days up to the origin, the origin included, as in Xu & Xie (2021), *ICML*, "Conformal prediction
    interval for dynamic time-series". An hour after the origin has not been observed and is never used.
    """
    predicted, scale = (forecasts[name].to_numpy(dtype=np.float64) for name in ("predicted", "scale"))
    scores, first, last = _known_scores(forecasts, predicted, scale)
    widths = {level: np.full(len(forecasts), np.nan) for level in levels}
    for start in range(0, len(forecasts), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        ordered = _ordered(scores, first[part], last[part])
        for level in levels:
            widths[level][part] = _ranked(ordered, last[part] - first[part], level)
    reach = {level: width * scale for level, width in widths.items()}
    return {level: np.column_stack([predicted - r, predicted + r]) for level, r in reach.items()}


def _known_scores(
    forecasts: pd.DataFrame, predicted: NDArray[np.float64], scale: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Return all known scores in one array, and from where up to where (excluded) each forecast may look in it."""
    score = np.abs(forecasts["actual"].to_numpy(dtype=np.float64) - predicted) / scale
    group = forecasts.groupby(["sensor_id", "horizon"], sort=False).ngroup().to_numpy() * _APART
    target, origin = (group + _hours(forecasts[name]) for name in ("timestamp", "origin"))
    known = np.flatnonzero(~np.isnan(score))
    known = known[np.argsort(target[known], kind="stable")]
    first, last = (np.searchsorted(target[known], at, side="right") for at in (origin - _MEMORY, origin))
    return score[known], first, last


def _hours(times: pd.Series[pd.Timestamp]) -> NDArray[np.int64]:
    return pd.DatetimeIndex(times).tz_localize(None).to_numpy().astype("datetime64[h]").astype(np.int64)


def _ordered(scores: NDArray[np.float64], first: NDArray[np.int64], last: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return each forecast's scores in a row, ascending; what a row has too few of is NaN, at its end."""
    at = first[:, None] + np.arange(max(1, int((last - first).max(initial=0))))
    rows = np.where(at < last[:, None], np.append(scores, np.nan)[np.minimum(at, len(scores))], np.nan)
    return np.sort(rows, axis=1)


def _ranked(ordered: NDArray[np.float64], count: NDArray[np.int64], level: float) -> NDArray[np.float64]:
    rank = np.ceil(np.round((count + 1) * level, 9)).astype(np.int64)
    found = np.take_along_axis(ordered, np.clip(rank, 1, ordered.shape[1])[:, None] - 1, axis=1)[:, 0]
    return np.where(rank <= count, found, np.nan)


def compare_intervals(forecasts: pd.DataFrame, levels: Sequence[float]) -> pd.DataFrame:
    """Return how the model's own intervals and the rolling ones do on the forecasts that have both.

    Parameters
    ----------
    forecasts : DataFrame
        As for `rolling_bounds`, with the model's bounds as ``lower_LEVEL`` and ``upper_LEVEL``.
    levels : sequence of float

    Returns
    -------
    DataFrame
        Two rows a level: ``level``, ``intervals`` (``model`` or ``rolling``), ``rows``, ``coverage``,
        ``interval_width`` [unit of the load] and ``pinball`` (mean of both bounds).
    """
    table = []
    for level, bounds in rolling_bounds(forecasts, levels).items():
        both = ~np.isnan(bounds[:, 0]) & forecasts[f"lower_{level}"].notna() & forecasts["actual"].notna()
        own = forecasts.loc[both, [f"lower_{level}", f"upper_{level}"]].to_numpy()
        for name, (lower, upper) in (("model", own.T), ("rolling", bounds[both].T)):
            figures = _figures(forecasts.loc[both, "actual"], lower, upper, level)
            table.append({"level": level, "intervals": name, "rows": int(both.sum()), **figures})
    return pd.DataFrame(table)


def _figures(
    actual: pd.Series[float], lower: NDArray[np.float64], upper: NDArray[np.float64], level: float
) -> dict[str, float]:
    losses = pinball(actual, lower, (1 - level) / 2), pinball(actual, upper, (1 + level) / 2)
    return {
        "coverage": coverage(actual, lower, upper),
        "interval_width": interval_width(lower, upper),
        "pinball": float(np.mean(losses)),
    }
