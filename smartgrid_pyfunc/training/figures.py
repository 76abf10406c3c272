"""What training and backtest draw alike."""

from __future__ import annotations

import pandas as pd

from smartgrid_pyfunc import plots
from smartgrid_pyfunc.evaluation.metrics import Summary
from smartgrid_pyfunc.lifecycle import runs
from smartgrid_pyfunc.schema import HOURS_A_DAY

_SHOWN_DAYS = 7
_NAMES = {"mae": "model", "naive_24_mae": "naive_24", "naive_168_mae": "naive_168"}


def log_loads_figure(forecasts: pd.DataFrame, level: float) -> None:
    """Log the last week's forecasts beside what was measured to the active run."""
    runs.log_figure(
        "plots/forecast_against_actual.png", plots.forecast_against_actual(_last_week(forecasts), level=level)
    )


def log_error_figures(summary: Summary) -> None:
    """Log the errors by horizon and by hour of day to the active run."""
    runs.log_figure("plots/error_by_horizon.png", plots.error_by_horizon(errors(summary.by_horizon.reset_index())))
    runs.log_figure("plots/error_by_hour.png", plots.error_by_hour(errors(summary.by_hour.reset_index())))


def log_error_tables(summary: Summary) -> None:
    """Log the tables by sensor, horizon and hour of day to the active run."""
    for name in ("by_sensor", "by_horizon", "by_hour"):
        runs.log_table(f"tables/{name}.csv", getattr(summary, name).reset_index())


def errors(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of errors with the names that `plots` gives to the model and the naive forecasts."""
    return table.drop(columns="model", errors="ignore").rename(columns=_NAMES)


def _last_week(forecasts: pd.DataFrame) -> pd.DataFrame:
    """Return the day ahead of each origin in each sensor's last week: these do not overlap."""
    end = forecasts.groupby("sensor_id")["timestamp"].transform("max")
    week = forecasts["timestamp"] > end - pd.Timedelta(days=_SHOWN_DAYS)
    return forecasts[week & (forecasts["horizon"] <= HOURS_A_DAY)]
