"""One examination: all checks at one moment, from forecasts and hourly load."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from smartgrid_pyfunc.evaluation.metrics import Summary
from smartgrid_pyfunc.monitoring.accuracy import (
    NO_REFERENCE,
    Reference,
    accuracy_check,
    coverage_check,
    measures,
    reference_of_first_weeks,
    sequential_checks,
    window_of,
)
from smartgrid_pyfunc.monitoring.checks import EVERYWHERE, Check, check
from smartgrid_pyfunc.monitoring.diagnosis import diagnose
from smartgrid_pyfunc.monitoring.drift import Drift, input_drift
from smartgrid_pyfunc.monitoring.flags import anomaly_check, anomaly_table
from smartgrid_pyfunc.monitoring.grid import Grid
from smartgrid_pyfunc.monitoring.quality import data_checks
from smartgrid_pyfunc.monitoring.scored import DailyErrors, daily_errors
from smartgrid_pyfunc.schema import HOURS_A_DAY

LEAST_MOVE = 0.1
NOISES = 5.0
COMMON_MOVE = 0.25
LEAST_PSI = 0.2
_OTHER_SEASON = 0.25  # more may move where the reference is of another season


@dataclass(frozen=True)
class Examination:
    """What was found at one moment.

    Attributes
    ----------
    checks : list of Check
        One per kind.
    summary : Summary or None
        Measures of the window; None if nothing was scored in it.
    reference : Reference
    window : DataFrame
        Scored forecasts of the window.
    errors : DailyErrors or None
    drift : Drift or None
    flagged : DataFrame or None
        Readings and flags by sensor.
    """

    checks: list[Check]
    summary: Summary | None = None
    reference: Reference = NO_REFERENCE
    window: pd.DataFrame = field(default_factory=pd.DataFrame)
    errors: DailyErrors | None = None
    drift: Drift | None = None
    flagged: pd.DataFrame | None = None


def examine_data(grid: Grid, *, days: int, now: pd.Timestamp, repeated: float = 0.0) -> tuple[list[Check], Drift]:
    """Return the checks of the data alone, and their drift; parameters as in `examine`."""
    drift = input_drift(grid)
    return [*data_checks(grid, days, now, repeated=repeated), *diagnose(grid, days), drift_check(drift, grid)], drift


def examine(
    scored: pd.DataFrame,
    grid: Grid,
    *,
    days: int = 7,
    now: pd.Timestamp,
    timezone: str = "UTC",
    reference: Reference | None = None,
    repeated: float = 0.0,
    earlier: pd.DataFrame | None = None,
) -> Examination:
    """Examine forecasts and data at the end of `grid`.

    Parameters
    ----------
    scored : DataFrame
        See `scored.join`, of `grid`; all that the version has forecast, as errors are judged by those before.
    grid : Grid
        Hourly load up to the moment, with as much history as there is: a year and a month for drift against the same
        season.
    days : int
        Length of the window that is judged.
    now : Timestamp
        The present.
    timezone : str
        Of the table by hour of day.
    reference : Reference, optional
        Default: the first four weeks that were scored.
    repeated : float
        Share of the input's rows that repeat a sensor and a time.
    earlier : DataFrame, optional
        Scored forecasts of the versions before, which tell how errors usually vary.
    """
    window = window_of(scored, grid, days)
    known = window[window["actual"].notna() & window["predicted"].notna()]
    reference = reference or reference_of_first_weeks(scored)
    past = [scored] if earlier is None or earlier.empty else [earlier, scored]
    errors = daily_errors(pd.concat(past, ignore_index=True), grid)
    checks, drift = examine_data(grid, days=days, now=now, repeated=repeated)
    checks += [
        accuracy_check(window, reference, grid, days),
        coverage_check(scored, grid),
        *sequential_checks(errors, grid, days),
        forecast_check(scored, grid, days),
    ]
    summary = measures(known, timezone) if len(known) else None
    return Examination(checks, summary, reference, window, errors, drift)


def drift_check(drift: Drift, grid: Grid) -> Check:
    """Each sensor's own drift over what is usual for it, and that of all sensors together.

    An alert needs both distances: the load must have moved by more than a tenth of its size and five times what such
    means differ by chance (Wasserstein), and into other deciles (PSI).
    """
    least, common = LEAST_MOVE, COMMON_MOVE
    if drift.reference != "same season":
        least, common = least + _OTHER_SEASON, common + _OTHER_SEASON
    since = grid.time(max(grid.hours - 28 * HOURS_A_DAY, 0))
    rows = [
        (
            EVERYWHERE,
            abs(drift.common) / common,
            1.0,
            since,
            f"all together {drift.common:+.0%} from the {drift.reference}",
        )
    ]
    for sensor, row in drift.table.iterrows():
        allowed = least + NOISES * row["noise"]
        value = min(row["own_wasserstein"] / allowed, row["psi"] / LEAST_PSI) if np.isfinite(allowed) else np.nan
        detail = (
            f"{row['move']:+.0%} from the {drift.reference}, {row['own_move']:+.0%} beside the other sensors, "
            f"PSI {row['psi']:.2f}, Wasserstein {row['wasserstein']:.2f}"
        )
        rows.append((str(sensor), value, 1.0, since, detail))
    return check("input_drift", rows)


def forecast_check(scored: pd.DataFrame, grid: Grid, days: int) -> Check:
    """Share of the window's measured hours that no forecast reached, of the sensors that are forecast at all."""
    start = max(grid.hours - days * HOURS_A_DAY, 0)
    answered = scored[(scored["sensor"] >= 0) & scored["predicted"].notna()]
    sensors = np.unique(answered["sensor"].to_numpy(dtype=np.int64))
    if not len(sensors):
        return check(
            "missing_forecasts", [(EVERYWHERE, 1.0, 0.2, grid.time(start), "no forecast of any measured sensor")]
        )
    reached = np.zeros(grid.load.shape, dtype=bool)
    reached[answered["sensor"].to_numpy(), answered["column"].to_numpy()] = True
    measured = ~np.isnan(grid.load)
    begun = np.argmax(reached.any(axis=0))
    lacking = (measured & ~reached)[sensors, max(start, begun) :]
    share = float(lacking.sum()) / max(float(measured[sensors, max(start, begun) :].sum()), 1.0)
    first = np.flatnonzero(lacking.any(axis=0))
    since = grid.time(max(start, int(begun)) + int(first[0])) if len(first) else pd.NaT
    detail = f"{lacking.sum():,} measured hours without a forecast"
    return check("missing_forecasts", [(EVERYWHERE, share, 0.2, since, detail)])


def examine_detector(
    flags: pd.DataFrame,
    grid: Grid,
    *,
    days: int = 7,
    now: pd.Timestamp,
    budget: float,
    tested: float = float("nan"),
    repeated: float = 0.0,
) -> Examination:
    """Examine what a detector flagged in the window, and the quality of its readings.

    Parameters
    ----------
    flags : DataFrame
        Rows of the predictions table of the window.
    grid, days, now, repeated
        As for `examine`, of all types of sensors.
    budget, tested : float
        See `flags.anomaly_check`.
    """
    checks = data_checks(grid, days, now, repeated=repeated, of_load=False)
    lacking = float(flags.empty)
    since = grid.time(max(grid.hours - days * HOURS_A_DAY, 0))
    told = "no reading of the window was judged" if lacking else "the readings of the window were judged"
    checks += [
        check("missing_forecasts", [(EVERYWHERE, lacking, 0.2, since, told)]),
        anomaly_check(flags, budget, tested),
    ]
    return Examination(checks, flagged=anomaly_table(flags))
