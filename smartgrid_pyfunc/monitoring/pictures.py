"""The pictures of one examination."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from smartgrid_pyfunc import plots
from smartgrid_pyfunc.monitoring.checks import EVERYWHERE, Alert, gauge
from smartgrid_pyfunc.monitoring.examination import Examination
from smartgrid_pyfunc.monitoring.grid import Grid
from smartgrid_pyfunc.monitoring.scored import freshest
from smartgrid_pyfunc.monitoring.tables import daily_table

_MOST = 6
_SHOWN_DAYS = 90
_NAMES = {"mae": "model", "naive_24_mae": "naive_24", "naive_168_mae": "naive_168"}


def figures(found: Examination, alerts: Sequence[Alert], grid: Grid, shown: Sequence[str]) -> dict[str, Figure]:
    """Return the figures by name; those of single sensors show `shown`, else those with alerts, else the first."""
    gauges = [gauge(check) for check in found.checks]
    drawn = {"checks": plots.alert_levels([g.kind for g in gauges], [g.value / g.threshold for g in gauges])}
    sensors = _chosen(alerts, shown, grid)
    if len(found.window):
        drawn["forecast_against_actual"] = plots.forecast_against_actual(_forecasts(found, sensors[:4]))
    if found.summary is not None:
        table = found.summary.by_horizon.reset_index().rename(columns=_NAMES)
        drawn["error_by_horizon"] = plots.error_by_horizon(table)
    if found.errors is not None and len(found.errors.days):
        drawn["daily_errors"] = plots.daily_errors(_daily(found, grid, sensors), _since(alerts))
    return drawn


def _chosen(alerts: Sequence[Alert], shown: Sequence[str], grid: Grid) -> list[str]:
    bad = [sensor for entry in alerts for sensor in entry.sensors if sensor != EVERYWHERE]
    wanted = list(shown) or list(dict.fromkeys([*bad, *grid.sensor_ids]))
    known = set(grid.sensor_ids)
    return [sensor for sensor in wanted if sensor in known][:_MOST]


def _forecasts(found: Examination, sensors: Sequence[str]) -> pd.DataFrame:
    rows = freshest(found.window[found.window["sensor_id"].isin(sensors)])
    return rows.sort_values(["sensor_id", "timestamp"])


def _daily(found: Examination, grid: Grid, sensors: Sequence[str]) -> pd.DataFrame:
    table = daily_table(found, grid)
    recent = table["timestamp"] >= grid.time(grid.hours) - pd.Timedelta(days=_SHOWN_DAYS)
    rows = table[recent & table["sensor_id"].isin(sensors)]
    return rows.sort_values(
        "sensor_id", key=lambda names: names.map({s: i for i, s in enumerate(sensors)}), kind="stable"
    )


def _since(alerts: Sequence[Alert]) -> dict[str, pd.Timestamp]:
    return {sensor: entry.since.tz_localize(None) for entry in alerts for sensor in entry.sensors}
