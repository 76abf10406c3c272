"""The tables and figures of one examination, as they are logged."""

from __future__ import annotations

import numpy as np
import pandas as pd

from smartgrid_pyfunc.monitoring.checks import Check
from smartgrid_pyfunc.monitoring.examination import Examination
from smartgrid_pyfunc.monitoring.grid import Grid
from smartgrid_pyfunc.monitoring.report import overview

_QUALITY = ("missing_data", "vanished_sensors", "stuck", "out_of_range", "unit_change")


def tables(found: Examination, grid: Grid) -> dict[str, pd.DataFrame]:
    """Return the tables by name; those that an examination cannot fill are left out."""
    named = {"checks": overview(found.checks), "findings": _findings(found.checks), "quality": _quality(found.checks)}
    if found.summary is not None:
        by_sensor = found.summary.by_sensor.join(found.reference.by_sensor.add_prefix("reference_"))
        named["by_sensor"] = by_sensor.reset_index()
        named["by_horizon"] = found.summary.by_horizon.reset_index()
        named["by_hour"] = found.summary.by_hour.reset_index()
    if found.drift is not None:
        named["drift"] = found.drift.table.reset_index().assign(reference=found.drift.reference)
    if found.flagged is not None:
        named["flags"] = found.flagged.reset_index()
    if found.errors is not None and len(found.errors.days):
        named["daily_errors"] = daily_table(found, grid)
    return named


def _findings(checks: list[Check]) -> pd.DataFrame:
    """Return all rows of all checks that are alerts."""
    parts = [check.rows[check.rows["value"] >= check.rows["threshold"]].assign(alert=check.kind) for check in checks]
    found = pd.concat(parts, ignore_index=True)
    return found[["alert", "sensor_id", "value", "threshold", "since", "detail"]]


def _quality(checks: list[Check]) -> pd.DataFrame:
    """Return the values of the checks of quality by sensor."""
    parts = [
        check.rows.set_index("sensor_id")["value"].rename(check.kind) for check in checks if check.kind in _QUALITY
    ]
    return pd.concat(parts, axis=1).rename_axis("sensor_id").reset_index()


def daily_table(found: Examination, grid: Grid) -> pd.DataFrame:
    """Return the daily errors as rows: ``sensor_id, timestamp, error, size``."""
    errors = found.errors
    assert errors is not None
    inside = errors.days[(errors.days >= grid.days[0]) & (errors.days <= grid.days[-1])]
    starts = [grid.day_start(int(day)) for day in inside]
    rows = pd.DataFrame(
        {
            "sensor_id": np.repeat(errors.sensor_ids, len(starts)),
            "timestamp": pd.DatetimeIndex(np.tile(np.array(starts, dtype=object), len(errors.sensor_ids))),
            "error": errors.signed[:, : len(starts)].ravel(),
            "size": np.exp(errors.size[:, : len(starts)]).ravel(),
        }
    )
    return rows.dropna(subset=["error"]).reset_index(drop=True)


def figures_of(found: Examination) -> dict[str, float]:
    """Return the headline figures under the names of their metrics."""
    if found.flagged is not None:
        total = float(found.flagged["readings"].sum())
        return {"anomaly_rate": float(found.flagged["flagged"].sum()) / total} if total else {}
    if found.summary is None:
        return {}
    names = {"mae": "mae", "rmse": "rmse", "skill": "skill", "bias": "bias", "coverage": "coverage"}
    overall = found.summary.overall
    return {f"forecast_{name}": overall[key] for name, key in names.items() if key in overall}
