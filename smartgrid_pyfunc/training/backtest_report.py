"""What a backtest leaves: metrics, tables and plots in its run, and the summary that a person reads."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from smartgrid_pyfunc import plots
from smartgrid_pyfunc.evaluation.metrics import Summary, pinball, summarise
from smartgrid_pyfunc.evaluation.rolling import MEMORY_DAYS, compare_intervals
from smartgrid_pyfunc.lifecycle import runs
from smartgrid_pyfunc.schema import LOAD_MODEL
from smartgrid_pyfunc.training.figures import errors, log_error_figures, log_error_tables, log_loads_figure

LEVELS = (0.8, 0.9, 0.95)  # at which the intervals are compared, beside the one asked for
_NAIVE = "seasonal_naive"  # in the column `model` of forecasts that the seasonal naive gave
_MOST_LOGGED_ROWS = 5_000_000  # of forecasts.parquet, some 200 MB
_SHOWN = ("mae", "naive_24_mae", "naive_168_mae", "skill", "rmse", "mase", "coverage", "pinball")
_COMPARED = ("coverage", "interval_width", "pinball")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BacktestOutcome:
    """A finished backtest: its run, what was done, the metrics as logged, the tables of windows and of intervals."""

    run_id: str
    about: str
    level: float
    timezone: str
    metrics: dict[str, float]
    by_window: pd.DataFrame
    intervals: pd.DataFrame


def levels_with(level: float) -> tuple[float, ...]:
    """Return the levels at which intervals are compared, `level` among them."""
    return tuple(sorted({*LEVELS, level}))


def metrics_of(forecasts: pd.DataFrame, summary: Summary, level: float, prefix: str) -> dict[str, float]:
    """Return the metrics of `summary`, the pinball loss at the interval's bounds and the naive forecasts' share."""
    tail = (1 - level) / 2
    lower = pinball(forecasts["actual"], forecasts["lower"], tail)
    upper = pinball(forecasts["actual"], forecasts["upper"], 1 - tail)
    losses = {"pinball_lower": lower, "pinball_upper": upper, "pinball": (lower + upper) / 2}
    more = losses | {"naive_share": float((forecasts["model"] == _NAIVE).mean())}
    return summary.overall | {f"{prefix}{name}": value for name, value in more.items()}


def log_backtest(
    forecasts: pd.DataFrame,
    by_window: pd.DataFrame,
    scales: pd.Series[float],
    *,
    run_id: str,
    about: str,
    level: float,
    timezone: str,
    seed: int,
) -> BacktestOutcome:
    """Log metrics, tables, plots and all forecasts of a backtest to the active run.

    Parameters
    ----------
    forecasts : DataFrame
        Of all windows, as `evaluation.backtest.forecast_window` makes them with `levels_with(level)`.
    by_window : DataFrame
        A row for each window.
    scales : Series
        Of `evaluation.metrics.mase`, by sensor.
    run_id, about : str
        The active run, and what was done, in a sentence.
    level : float
        Probability of the intervals in ``lower`` and ``upper``.
    timezone : str
        In which the hour of day is told.
    seed : int
        For the draw of the forecasts that are logged where there are too many.
    """
    summary = summarise(forecasts, scales=scales, timezone=timezone, prefix="backtest_")
    intervals = compare_intervals(forecasts, levels_with(level))
    metrics = metrics_of(forecasts, summary, level, "backtest_") | _interval_metrics(intervals, level)
    runs.log_results(metrics=metrics)
    runs.set_tags(_tags(by_window, about))
    _log_tables(summary, by_window, intervals, thinned(forecasts, _MOST_LOGGED_ROWS, seed))
    log_loads_figure(forecasts, level)
    log_error_figures(summary)
    runs.log_figure("plots/error_by_window.png", plots.error_by_window(errors(by_window)))
    runs.log_figure("plots/intervals.png", plots.interval_comparison(intervals))
    return BacktestOutcome(run_id, about, level, timezone, metrics, by_window, intervals)


def _interval_metrics(intervals: pd.DataFrame, level: float) -> dict[str, float]:
    """Return the figures of both intervals at `level` on the forecasts that have both."""
    rows = intervals[intervals["level"] == level].set_index("intervals")
    names = {"model": "compared", "rolling": "rolling"}
    found = {f"{names[kind]}_{name}": rows.at[kind, name] for kind in names for name in _COMPARED}
    return {
        f"backtest_{name}": float(value) for name, value in (found | {"rolling_rows": rows["rows"].iloc[0]}).items()
    }


def _log_tables(summary: Summary, by_window: pd.DataFrame, intervals: pd.DataFrame, forecasts: pd.DataFrame) -> None:
    log_error_tables(summary)
    runs.log_table("tables/by_window.csv", by_window)
    runs.log_table("tables/intervals.csv", intervals)
    buffer = io.BytesIO()
    forecasts.to_parquet(buffer, index=False)
    runs.log_bytes("tables/forecasts.parquet", buffer.getvalue())


def thinned(forecasts: pd.DataFrame, most: int, seed: int) -> pd.DataFrame:
    """Return all forecasts, or those of as many origins drawn at random as make about `most` rows and never more."""
    if len(forecasts) <= most:
        return forecasts
    origin = forecasts.groupby(["sensor_id", "origin"], sort=False).ngroup().to_numpy()
    order = np.random.default_rng(seed).permutation(int(origin.max()) + 1)
    rows = np.cumsum(np.bincount(origin)[order])
    chosen = np.isin(origin, order[rows <= most])
    _log.info("logging %d of %d forecasts, of origins drawn at random", chosen.sum(), len(forecasts))
    return forecasts[chosen]


def _tags(by_window: pd.DataFrame, about: str) -> dict[str, str]:
    foresight = by_window["covariates"].iloc[-1]
    tags = {"smartgrid.backtest": about}
    return tags | ({"smartgrid.perfect_foresight": f"{foresight} as measured"} if foresight else {})


# ------------------------------------------------------------------------------------------------ what a person reads


def report(outcome: BacktestOutcome) -> str:
    """Return the tables of windows, of all together beside both seasonal naives, and of intervals."""
    head = f"{'window':>8}  {'from':<10}  {'to':<10}{'sensors':>9}"
    head += "".join(f"{name:>11}" for name in _titles(outcome.level))
    lines = ["", f"Backtest of {LOAD_MODEL}: {outcome.about}", "", head]
    for row in outcome.by_window.to_dict("records"):
        first, last = (row[name].tz_convert(outcome.timezone) for name in ("first", "last"))
        days = f"{first:%Y-%m-%d}  {last:%Y-%m-%d}"
        lines.append(f"{row['window']:>8}  {days}{row['sensors']:>9}" + _figures(row, ""))
    lines.append(f"{'all':>8}  {'':<10}  {'':<10}{'':>9}" + _figures(outcome.metrics, "backtest_"))
    lines += ["", *_interval_lines(outcome.intervals)]
    lines += ["", f"Tables by sensor, horizon, hour and window, plots and forecasts: MLflow run {outcome.run_id}"]
    return "\n".join(lines)


def _titles(level: float) -> list[str]:
    return ["MAE", "naive 24", "naive 168", "skill", "RMSE", "MASE", f"in {level:.4g}", "pinball"]


def _figures(row: Mapping[Any, Any], prefix: str) -> str:
    values = (row[name if name.startswith("naive") else f"{prefix}{name}"] for name in _SHOWN)
    return "".join(f"{value:>11.4g}" for value in values)


def _interval_lines(intervals: pd.DataFrame) -> list[str]:
    if not intervals["rows"].any():
        return [f"Rolling intervals need forecasts of {MEMORY_DAYS} days before; these windows are too short for them."]
    lines = [
        f"Intervals of the model, and rolling ones from the errors of the last {MEMORY_DAYS} days, on the forecasts "
        "that have both:", "",
        f"{'level':>8}  {'intervals':<10}{'forecasts':>11}{'covered':>11}{'width':>11}{'pinball':>11}",
    ]  # fmt: skip
    for row in intervals[intervals["rows"] > 0].to_dict("records"):
        figures = "".join(f"{row[name]:>11.4g}" for name in _COMPARED)
        lines.append(f"{row['level']:>8.4g}  {row['intervals']:<10}{row['rows']:>11}" + figures)
    return lines
