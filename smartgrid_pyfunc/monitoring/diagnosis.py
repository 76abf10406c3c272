"""Faults that look like drift but are errors of the data: another unit, a slipped clock, swapped sensors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from smartgrid_pyfunc.monitoring.checks import EVERYWHERE, Check, Row, check
from smartgrid_pyfunc.monitoring.grid import Flags, Floats, Grid, Whole, median_of
from smartgrid_pyfunc.schema import HOURS_A_DAY, HOURS_A_WEEK

RECENT_DAYS = 3
_WEEKS = 6
_MARGIN = 12  # hours by which a clock may have slipped
_FACTORS = {1000.0: "W instead of kW", 1e6: "W instead of MW", 60.0: "minutes instead of hours"}
_FACTOR_TOLERANCE = 1.3
_LEAST_DECADES = 1.5
_LEAST_KNOWN = 0.6
_TINY = 1e-9


@dataclass(frozen=True)
class _Courses:
    """The last days of each sensor and what they usually are.

    Attributes
    ----------
    recent : ndarray, shape (S, H)
    usual : ndarray, shape (S, H + 2 * _MARGIN)
        Median of the same hours of the week in the six weeks before the window, from `_MARGIN` hours earlier to
        `_MARGIN` hours later.
    first : int
        Column where `recent` begins.
    usable : ndarray of bool, shape (S,)
        Where both are known well enough.
    """

    recent: Floats
    usual: Floats
    first: int
    usable: Flags


def diagnose(grid: Grid, days: int) -> list[Check]:
    """Return the checks for a changed unit, a slipped clock and swapped sensors at the end of `grid`.

    The last three days are compared with the same hours of the week in the six weeks before the last `days` days.
    """
    courses = _courses(grid, days)
    if courses is None:
        return [check(kind, []) for kind in ("unit_change", "time_shift", "sensor_swap")]
    return [_unit_change(grid, courses), _time_shift(grid, courses), _sensor_swap(grid, courses)]


def _courses(grid: Grid, days: int) -> _Courses | None:
    hours = RECENT_DAYS * HOURS_A_DAY
    first = grid.hours - hours
    skip = -(-(days * HOURS_A_DAY - hours + _MARGIN) // HOURS_A_WEEK)  # weeks back until before the window
    skip = max(skip + 1, 1)
    oldest = first - _MARGIN - (skip + _WEEKS - 1) * HOURS_A_WEEK
    if oldest < 0:
        return None
    shown = np.arange(first - _MARGIN, first + hours + _MARGIN)
    weeks = shown - HOURS_A_WEEK * np.arange(skip, skip + _WEEKS)[:, None]
    past = grid.load[:, weeks]
    past = np.where(_on_holiday(grid, weeks), np.nan, past)
    usual = median_of(np.moveaxis(past, 1, -1))
    recent = np.where(_on_holiday(grid, shown[_MARGIN:-_MARGIN]), np.nan, grid.load[:, first:])
    known = np.mean(~np.isnan(recent), axis=1) >= _LEAST_KNOWN
    return _Courses(recent, usual, first, known & (np.mean(~np.isnan(usual), axis=1) >= _LEAST_KNOWN))


def _on_holiday(grid: Grid, columns: Whole) -> Flags:
    return np.isin(grid.day[np.clip(columns, 0, grid.hours - 1)], grid.holidays)


def _middle(courses: _Courses) -> Floats:
    return courses.usual[:, _MARGIN:-_MARGIN]


def _unit_change(grid: Grid, courses: _Courses) -> Check:
    """Check whether the last day's load over the usual one is near a factor between units."""
    day = slice(-HOURS_A_DAY, None)
    rows = []
    for i in np.flatnonzero(courses.usable):
        now, usual = np.abs(courses.recent[i, day]), np.abs(_middle(courses)[i, day])
        both = ~np.isnan(now) & (usual > 0)
        if both.sum() < HOURS_A_DAY // 2:
            continue
        ratio = float(np.median(now[both]) / np.median(usual[both]))
        name, decades = _nearest_unit(ratio)
        since = _since(grid, int(i), courses, ratio) if decades else pd.NaT
        detail = f"{ratio:.4g} times the usual load{name}"
        rows.append((grid.sensor_ids[i], decades, _LEAST_DECADES, since, detail))
    return check("unit_change", rows)


def _nearest_unit(ratio: float) -> tuple[str, float]:
    """Return what the factor stands for and its size in decades; 0 if it is none of the known ones."""
    size = max(ratio, 1 / max(ratio, _TINY))
    for factor, name in _FACTORS.items():
        if 1 / _FACTOR_TOLERANCE <= size / factor <= _FACTOR_TOLERANCE:
            return f", as with {name}" if ratio > 1 else f", as with {name} the other way round", float(np.log10(size))
    return "", 0.0


def _since(grid: Grid, sensor: int, courses: _Courses, ratio: float) -> pd.Timestamp:
    """Return the first hour of the last two weeks from which on the load has been nearer to the new scale."""
    start = max(grid.hours - 14 * HOURS_A_DAY, 0)
    usual = np.nanmedian(np.abs(_middle(courses)[sensor]))
    size = np.abs(grid.load[sensor, start:]) / max(usual, _TINY)
    new = size > np.sqrt(ratio) if ratio > 1 else size < np.sqrt(ratio)
    old = np.flatnonzero(~new & ~np.isnan(size))
    return grid.time(start + (int(old[-1]) + 1 if len(old) else 0))


# ----------------------------------------------------------------------------------------------- a slipped clock


def _time_shift(grid: Grid, courses: _Courses) -> Check:
    """Check whether the course of the day fits better when the clock is moved."""
    chosen = np.flatnonzero(courses.usable)
    if not len(chosen):
        return check("time_shift", [])
    alike = _likeness(courses, chosen)
    best = np.argmax(alike, axis=1) - _MARGIN
    gain = np.where(alike.max(axis=1) >= _LEAST_ALIKE, alike.max(axis=1) - alike[:, _MARGIN], 0.0)
    together = np.nanmean(alike, axis=0)
    shift = int(np.argmax(together)) - _MARGIN
    since = grid.time(courses.first)
    joint = float(together.max() - together[_MARGIN])
    agree = float(np.mean(best == shift)) if shift else 0.0
    detail = f"the load fits its usual course best {shift:+d} h later, at {agree:.0%} of the sensors"
    rows = [(EVERYWHERE, joint if agree >= _AGREE else 0.0, _JOINT_GAIN, since, detail)]
    rows += [
        (grid.sensor_ids[s], float(g), _OWN_GAIN, since, f"the load fits its usual course best {int(b):+d} h later")
        for s, g, b in zip(chosen, gain, best, strict=True)
    ]
    return check("time_shift", rows)


_AGREE, _JOINT_GAIN, _OWN_GAIN, _LEAST_ALIKE = 0.5, 0.05, 0.2, 0.75


def _likeness(courses: _Courses, chosen: Whole) -> Floats:
    """Return the correlation of hourly changes with the usual ones at each shift −12…12 h, shape (k, 25)."""
    recent = np.diff(courses.recent[chosen], axis=1)
    usual = np.diff(courses.usual[chosen], axis=1)
    hours = recent.shape[1]
    shifts = range(2 * _MARGIN, -1, -1)  # a load that comes later looks like the usual one of earlier hours
    return np.column_stack([_correlation(recent, usual[:, s : s + hours]) for s in shifts])


def _correlation(a: Floats, b: Floats) -> Floats:
    both = ~np.isnan(a) & ~np.isnan(b)
    a, b = np.where(both, a, 0.0), np.where(both, b, 0.0)
    size = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    return np.asarray((a * b).sum(axis=1) / np.maximum(size, _TINY))


# ----------------------------------------------------------------------------------------------- swapped sensors


def _sensor_swap(grid: Grid, courses: _Courses) -> Check:
    """Check for two sensors that are each unlike themselves and like the other."""
    own = _unlikeness(courses.recent, _middle(courses))
    changed = [int(i) for i in np.flatnonzero(courses.usable & (own >= _UNLIKE))]
    rows: list[Row] = [(EVERYWHERE, 0.0, _SWAP_RATIO, pd.NaT, "no sensor looks like another")]
    for position, a in enumerate(changed):
        for b in changed[position + 1 :]:
            there = _unlikeness(courses.recent[[a, b]], _middle(courses)[[b, a]])
            ratio = float(np.min(own[[a, b]] / np.maximum(there, _TINY)))
            if ratio >= 1:
                rows += _pair(grid, courses, a, b, ratio)
    return check("sensor_swap", rows)


_UNLIKE, _SWAP_RATIO = 0.08, 2.0


def _unlikeness(a: Floats, b: Floats) -> Floats:
    """Return Σ|a − b| / Σ(|a| + |b|) of each row: 0 for equal courses, 1 for courses without anything in common."""
    both = ~np.isnan(a) & ~np.isnan(b)
    a, b = np.where(both, a, 0.0), np.where(both, b, 0.0)
    return np.asarray(np.abs(a - b).sum(axis=1) / np.maximum((np.abs(a) + np.abs(b)).sum(axis=1), _TINY))


def _pair(grid: Grid, courses: _Courses, a: int, b: int, ratio: float) -> list[Row]:
    since = grid.time(courses.first)
    pairs = ((a, b), (b, a))
    return [
        (grid.sensor_ids[i], ratio, _SWAP_RATIO, since, f"runs as {grid.sensor_ids[j]} used to, and the reverse")
        for i, j in pairs
    ]
