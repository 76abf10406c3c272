"""Quality of the data: what is missing, late, stuck, out of range, new or gone."""

from __future__ import annotations

import numpy as np
import pandas as pd

from smartgrid_pyfunc.monitoring.checks import EVERYWHERE, Check, Row, check
from smartgrid_pyfunc.monitoring.grid import Flags, Floats, Grid, Whole
from smartgrid_pyfunc.schema import HOURS_A_DAY

_LEAST_PAST = 7 * HOURS_A_DAY  # hours that a sensor must have been known for
_YEAR = 365 * HOURS_A_DAY
_NEVER = pd.NaT


def data_checks(
    grid: Grid, days: int, now: pd.Timestamp, *, repeated: float = 0.0, of_load: bool = True
) -> list[Check]:
    """Return the checks of the last `days` of `grid` against all that came before.

    Parameters
    ----------
    grid : Grid
        Hourly load up to the end of the examination.
    days : int
        Length of the window.
    now : Timestamp
        The present.
    repeated : float
        Share of the input's rows that repeat a sensor and a time.
    of_load : bool
        False leaves out the range, which is that of loads.
    """
    checks = [
        _missing(grid, days),
        _vanished(grid, days),
        _new(grid, days),
        _stuck(grid, days),
        _late(grid, now),
        check("duplicates", [(EVERYWHERE, repeated, 0.01, now, f"{repeated:.1%} of the rows repeat another")]),
    ]
    return [*checks, _out_of_range(grid, days)] if of_load else checks


def _split(grid: Grid, days: int) -> tuple[Floats, Floats, int]:
    """Return the load before the window (at most a year) and in it, and the window's first column."""
    start = max(grid.hours - days * HOURS_A_DAY, 0)
    return grid.load[:, max(start - _YEAR, 0) : start], grid.load[:, start:], start


def _known_before(past: Floats) -> Flags:
    return np.asarray((~np.isnan(past)).sum(axis=1) >= min(_LEAST_PAST, max(past.shape[1] // 2, 1)))


def _first_and_last(load: Floats) -> tuple[Whole, Whole]:
    known = ~np.isnan(load)
    last = load.shape[1] - 1 - np.argmax(known[:, ::-1], axis=1)
    return np.argmax(known, axis=1), np.where(known.any(axis=1), last, -1)


def _missing(grid: Grid, days: int) -> Check:
    """Check for hours without a value: more than a tenth, and three times what the sensor lacked before."""
    past, now, start = _split(grid, days)
    rows: list[Row] = []
    if past.shape[1] == 0:
        return check("missing_data", rows)
    first, _ = _first_and_last(past)
    for i in np.flatnonzero(_known_before(past)):
        gaps = np.isnan(now[i])
        usual = float(np.isnan(past[i, first[i] :]).mean())
        since = grid.time(start + int(np.argmax(gaps))) if gaps.any() else _NEVER
        threshold = min(max(0.1, 3 * usual), 0.95)
        rows.append((grid.sensor_ids[i], float(gaps.mean()), threshold, since, f"{int(gaps.sum())} hours missing"))
    return check("missing_data", rows)


def _vanished(grid: Grid, days: int) -> Check:
    """Check for sensors that are silent while others are not: a day, and half as long again as their gaps were."""
    past, _, _ = _split(grid, days)
    _, last = _first_and_last(grid.load)
    rows = []
    for i in np.flatnonzero(_known_before(past)):
        silent = grid.hours - 1 - int(last[i])
        threshold = max(24.0, 1.5 * _longest_gap(past[i]))
        since = grid.time(int(last[i]) + 1) if silent else _NEVER
        rows.append((grid.sensor_ids[i], float(silent), threshold, since, f"no value for {silent} hours"))
    return check("vanished_sensors", rows)


def _longest_gap(values: Floats) -> int:
    known = np.flatnonzero(~np.isnan(values))
    return int(np.diff(known).max(initial=1)) - 1


def _new(grid: Grid, days: int) -> Check:
    past, now, start = _split(grid, days)
    if past.shape[1] < _LEAST_PAST:
        return check("new_sensors", [])
    seen = (~np.isnan(grid.load[:, :start])).any(axis=1)
    fresh = np.flatnonzero(~seen & (~np.isnan(now)).any(axis=1))
    first, _ = _first_and_last(now)
    names = [(grid.sensor_ids[i], 1.0, 1.0, grid.time(start + int(first[i])), "never seen before") for i in fresh]
    return check("new_sensors", names or [(EVERYWHERE, 0.0, 1.0, _NEVER, "no new sensor")])


def _stuck(grid: Grid, days: int) -> Check:
    """Check for runs of one value: at least a day, and half as long again as the longest of the sensor before."""
    past, now, _ = _split(grid, days)
    longest_past, _ = _longest_runs(past)
    longest, end = _longest_runs(np.concatenate([past[:, -_LEAST_PAST:], now], axis=1))
    offset = grid.hours - now.shape[1] - min(past.shape[1], _LEAST_PAST)
    rows = []
    for i in np.flatnonzero(_known_before(past)):
        inside = offset + end[i] >= grid.hours - now.shape[1]
        run = float(longest[i]) if inside else 1.0
        threshold = max(24.0, 1.5 * float(longest_past[i]))
        since = grid.time(int(offset + end[i] - run + 1)) if run > 1 else _NEVER
        rows.append((grid.sensor_ids[i], run, threshold, since, f"the same value for {run:.0f} hours"))
    return check("stuck", rows)


def _longest_runs(load: Floats) -> tuple[Whole, Whole]:
    """Return the length of the longest run of equal values of each row, and the column where the last such ends."""
    if not load.shape[1]:
        return np.zeros(len(load), dtype=np.int64), np.zeros(len(load), dtype=np.int64)
    column = np.arange(load.shape[1])
    breaks = np.ones(load.shape, dtype=bool)
    breaks[:, 1:] = load[:, 1:] != load[:, :-1]
    run = column - np.maximum.accumulate(np.where(breaks, column, 0), axis=1) + 1
    run = np.where(np.isnan(load), 0, run)
    end = load.shape[1] - 1 - np.argmax(run[:, ::-1], axis=1)
    return run.max(axis=1), end


def _out_of_range(grid: Grid, days: int) -> Check:
    """Check for hours beyond the range of the past year by more than that range: three of them."""
    past, now, start = _split(grid, days)
    rows = []
    for i in np.flatnonzero(_known_before(past)):
        low, high = _limits(past[i])
        out = (now[i] < low) | (now[i] > high)
        since = grid.time(start + int(np.argmax(out))) if out.any() else _NEVER
        detail = f"{int(out.sum())} hours outside {low:.4g}…{high:.4g}"
        rows.append((grid.sensor_ids[i], float(out.sum()), 3.0, since, detail))
    return check("out_of_range", rows)


def _limits(past: Floats) -> tuple[float, float]:
    known = past[~np.isnan(past)]
    low, high = np.quantile(known, [0.001, 0.999])
    width = max(high - low, 0.1 * abs(high), 1e-9)
    lowest = max(low - width, 0.0) if low >= 0 else low - width
    return float(lowest - 1e-9), float(high + width)


def _late(grid: Grid, now: pd.Timestamp) -> Check:
    hours = (now - grid.time(grid.hours)) / pd.Timedelta(hours=1)
    since = grid.time(grid.hours) if hours > 0 else _NEVER
    detail = f"the newest value is of {grid.time(grid.hours - 1):%Y-%m-%d %H:%M} UTC"
    return check("late", [(EVERYWHERE, max(float(hours), 0.0), 26.0, since, detail)])
