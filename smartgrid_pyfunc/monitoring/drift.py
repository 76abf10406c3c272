"""Drift of the inputs: how far the load of the last weeks is from that of the same season."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from smartgrid_pyfunc.monitoring.grid import Floats, Grid
from smartgrid_pyfunc.monitoring.sequential import spread_of
from smartgrid_pyfunc.schema import HOURS_A_DAY, HOURS_A_WEEK

WINDOW_DAYS = 28
_YEAR = 364 * HOURS_A_DAY  # 52 weeks: the same weekdays
_BEFORE_WEEKS = 8
_EARLY_OR_LATE = (-3, 0, 3)  # weeks that a season may come before or after last year's
_BINS, _FLOOR, _QUANTILES = 10, 0.005, 200
_LEAST_KNOWN = 0.5
_LEAST_LEFT = 0.1  # of the load, by which a move of all sensors is taken out


@dataclass(frozen=True)
class Drift:
    """Drift of each sensor against its reference.

    Attributes
    ----------
    reference : str
        ``same season`` (the same weeks a year before and a week on either side) or ``weeks before``.
    table : DataFrame
        By ``sensor_id``: ``psi``, ``wasserstein`` [share of the reference's mean absolute load], ``own_wasserstein``
        (after the move that all sensors share is taken out, to the nearest of the same season, three weeks before it
        and three weeks after it) and its usual size ``noise`` (one standard deviation),
        ``move`` (mean less mean) and ``own_move`` [same unit].
    common : float
        The median sensor's move.
    """

    reference: str
    table: pd.DataFrame
    common: float


def psi(current: Floats, reference: Floats) -> float:
    """Return the population stability index over the deciles of `reference`; NaN without values.

    Σ (c − r) · ln(c / r) over the shares c and r of ten bins (Yurdakul & Naranjo, 2020, *J. Risk Model Validation*),
    each at least 0.5 %.
    """
    current, reference = current[~np.isnan(current)], reference[~np.isnan(reference)]
    if not len(current) or not len(reference):
        return float("nan")
    edges = np.quantile(reference, np.linspace(0, 1, _BINS + 1)[1:-1])
    c, r = (_shares(values, edges) for values in (current, reference))
    return float(((c - r) * np.log(c / r)).sum())


def _shares(values: Floats, edges: Floats) -> Floats:
    counts = np.bincount(np.searchsorted(edges, values), minlength=_BINS)
    return np.maximum(counts / len(values), _FLOOR)


def wasserstein(current: Floats, reference: Floats) -> float:
    """Return the mean distance between the quantiles of two samples (Wasserstein-1) [their unit]."""
    current, reference = current[~np.isnan(current)], reference[~np.isnan(reference)]
    if not len(current) or not len(reference):
        return float("nan")
    at = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    return float(np.abs(np.quantile(current, at) - np.quantile(reference, at)).mean())


def input_drift(grid: Grid, *, days: int = WINDOW_DAYS) -> Drift:
    """Compare the last `days` of `grid` with the same season.

    The reference is the same weeks of the year before, and a week on either side, where at least half of the sensors
    were measured then; otherwise the eight weeks before the window. Both hold whole weeks, so every hour of the week
    counts alike. No significance of a difference between distributions is tested: at thousands of dependent hours any
    such test alarms on nothing.
    """
    hours = days * HOURS_A_DAY
    now = grid.load[:, max(grid.hours - hours, 0) :]
    season = _same_season(grid, hours)
    past = season if season is not None else _weeks_before(grid, hours)
    rows = [_row(now[i], past[i]) for i in range(len(now))]
    table = pd.DataFrame(rows, columns=["psi", "wasserstein", "move", "size"], index=list(grid.sensor_ids))
    common = float(table["move"].median()) if table["move"].notna().any() else 0.0
    table["own_move"] = table["move"] - common
    shifted = now / max(1 + common, _LEAST_LEFT)
    seasons = [past] if season is None else [_same_season(grid, hours, shift) for shift in _EARLY_OR_LATE]
    own = [[wasserstein(a, b) for a, b in zip(shifted, each, strict=True)] for each in seasons if each is not None]
    table["own_wasserstein"] = np.min(own, axis=0) / table["size"]
    table["noise"] = _noise(grid, days) / table["size"]
    return Drift("same season" if season is not None else "weeks before", table.rename_axis("sensor_id"), common)


def _row(now: Floats, past: Floats) -> tuple[float, float, float, float]:
    known = np.mean(~np.isnan(now)) if now.size else 0.0
    size = float(np.nanmean(np.abs(past))) if np.isfinite(past).any() else 0.0
    if known < _LEAST_KNOWN or not size > 0 or np.mean(~np.isnan(past)) < _LEAST_KNOWN:
        return (float("nan"), float("nan"), float("nan"), float("nan"))
    move = float(np.nanmean(now) - np.nanmean(past))
    return psi(now, past), wasserstein(now, past) / size, move / size, size


def _same_season(grid: Grid, hours: int, shift: int = 0) -> Floats | None:
    first = grid.hours - hours - _YEAR - HOURS_A_WEEK + shift * HOURS_A_WEEK
    if first < 0:
        return None
    found = grid.load[:, first : first + hours + 2 * HOURS_A_WEEK]
    measured = np.mean(~np.isnan(found), axis=1) >= _LEAST_KNOWN
    return found if measured.mean() >= 0.5 else None


def _weeks_before(grid: Grid, hours: int) -> Floats:
    stop = max(grid.hours - hours, 0)
    return grid.load[:, max(stop - _BEFORE_WEEKS * HOURS_A_WEEK, 0) : stop]


def _noise(grid: Grid, days: int) -> Floats:
    """Return how far means of the window are apart by chance, shape (S,) [unit of the load].

    From the differences between consecutive weeks of the year before the window: two means of w weeks with about
    independent weeks differ with √(2/w) of the weekly standard deviation, a tenth more for what dependence is left.
    """
    whole = grid.load[:, : max(grid.hours - days * HOURS_A_DAY, 0)]
    weeks = whole.shape[1] // HOURS_A_WEEK
    recent = whole[:, whole.shape[1] - weeks * HOURS_A_WEEK :].reshape(len(whole), weeks, HOURS_A_WEEK)[:, -52:]
    known = (~np.isnan(recent)).sum(axis=2)
    means = np.where(known > HOURS_A_WEEK / 2, np.nansum(recent, axis=2) / np.maximum(known, 1), np.nan)
    if weeks < 4:
        return np.full(len(whole), np.nan)
    weekly = spread_of(np.diff(means, axis=1)) / np.sqrt(2)
    return np.asarray(1.1 * weekly * np.sqrt(2 * 7 / days))
