"""The detector: the share of readings it flags against its budget of false alarms."""

from __future__ import annotations

import numpy as np
import pandas as pd

from smartgrid_pyfunc.monitoring.checks import EVERYWHERE, Check, check
from smartgrid_pyfunc.schema import require_columns

BUDGETS = 3.0  # times the budget that the flagged share may reach
SENSOR_BUDGETS = 20.0
_LEAST_READINGS = 200
_LEAST_SENSOR_READINGS = 48


def anomaly_table(flags: pd.DataFrame) -> pd.DataFrame:
    """Return readings, flagged ones and their share by ``sensor_id``, the largest share first."""
    require_columns(flags.columns, ("sensor_id", "timestamp", "is_anomaly"))
    groups = flags.assign(is_anomaly=flags["is_anomaly"].astype(float)).groupby("sensor_id")["is_anomaly"]
    table = pd.DataFrame({"readings": groups.size(), "flagged": groups.sum(), "rate": groups.mean()})
    return table.sort_values("rate", ascending=False, kind="stable")


def anomaly_check(flags: pd.DataFrame, budget: float, reference: float = float("nan")) -> Check:
    """Return the check of the flagged share.

    Parameters
    ----------
    flags : DataFrame
        Rows of the window: ``sensor_id, timestamp, is_anomaly``.
    budget : float
        Share of normal readings that may be flagged (the version's `false_alarm_rate`).
    reference : float
        Share flagged where the version was tested; true anomalies are part of it, so it counts where it is larger.

    Notes
    -----
    Flags come in runs and on several sensors at once, so their count is no binomial variable: the limits are 3 times
    the usual share over all sensors and 20 times over one, not a significance.
    """
    table = anomaly_table(flags)
    usual = max(budget, reference) if np.isfinite(reference) else budget
    total = int(table["readings"].sum())
    if total < _LEAST_READINGS:
        return check("anomaly_rate", [])
    share = float(table["flagged"].sum()) / total
    first = flags.loc[flags["is_anomaly"].astype(bool), "timestamp"].min() if share else pd.NaT
    detail = f"{share:.2%} of {total:,} readings flagged, budget {budget:.2%}"
    rows = [(EVERYWHERE, share / usual, BUDGETS, first, detail)]
    for sensor, row in table[table["readings"] >= _LEAST_SENSOR_READINGS].iterrows():
        own = flags[(flags["sensor_id"] == sensor) & flags["is_anomaly"].astype(bool)]
        since = own["timestamp"].min() if len(own) else pd.NaT
        rows.append((str(sensor), row["rate"] / usual, SENSOR_BUDGETS, since, f"{row['rate']:.1%} of its readings"))
    return check("anomaly_rate", rows)
