"""Sequential tests: standardised daily errors, the Page–Hinkley sum, and lasting steps of the level."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smartgrid_pyfunc.monitoring.grid import Flags, Floats, Whole, mean_of, median_of

MEMORY_DAYS = 84
LEAST_DAYS = 21
_MAD = 1.4826
CLIP = 4.0  # standard deviations that one day may count for
_ALLOWANCE = 0.5
_CAP = 1.5  # of the threshold: how far the sum climbs beyond it, and so how long it takes to fall again
_USUAL_SENSORS = 12
_WEEKDAY_PRIOR = 8.0  # weeks that the overall mean counts for against that of a weekday
_TINY = 1e-12
_DAYS_AT_ONCE = 28  # of all sensors, in memory
_RECURRING_CLIP, _RECURRING_LEAST = 6.0, 2.0


@dataclass(frozen=True)
class Path:
    """The Page–Hinkley sum of each series over time.

    Attributes
    ----------
    sums : ndarray, shape (S, D)
        The larger of the upward and the downward sum; NaN before the first standardised day.
    began : ndarray of int64, shape (S, D)
        Index of the day on which the present climb began: the estimate of when the change happened.
    up : ndarray of bool, shape (S, D)
        Whether the upward sum is the larger one.
    """

    sums: Floats
    began: Whole
    up: Flags


def standardise(values: Floats, *, memory: int = MEMORY_DAYS, least: int = LEAST_DAYS, first: int = 0) -> Floats:
    """Return daily `values` in standard deviations from what the days before lead to expect.

    Parameters
    ----------
    values : ndarray, shape (S, D)
        One value a day; NaN where there is none.
    memory, least : int
        Days before that count, at most and at least.
    first : int
        Days before it are not needed (NaN).

    Returns
    -------
    ndarray, shape (S, D)
        (y[d] − c·y[d−1]) / s with y the value less the mean of the days before, that of its weekday included, c their
        autocorrelation at one day (0…0.9) and s the standard deviation of these innovations: for a series without
        change about independent, mean 0, variance 1.

    Notes
    -----
    A self-starting chart (Hawkins, 1987, *The Statistician* 36) on whitened residuals, as autocorrelation would
    otherwise raise false alarms (Alwan & Roberts, 1988, *JBES* 6). Days before count for at most 3 robust deviations.
    """
    result = np.full(values.shape, np.nan)
    padded = np.concatenate([np.full((len(values), memory), np.nan), values], axis=1)
    before = np.lib.stride_tricks.sliding_window_view(padded, memory, axis=1)  # [:, d] are the days before day d
    begin = max(least, first)
    for start in range(begin, values.shape[1], _DAYS_AT_ONCE):
        part = slice(start, min(start + _DAYS_AT_ONCE, values.shape[1]))
        chosen = before[:, part]
        enough = (~np.isnan(chosen)).sum(axis=-1) >= least
        result[:, part][enough] = _standardised(values[:, part][enough], chosen[enough])
    return result


def _standardised(value: Floats, before: Floats) -> Floats:
    usual, spread = _robust(before)
    cleaned = np.clip(before - usual, -3 * spread, 3 * spread)
    mean = mean_of(cleaned)[:, None]
    centred = cleaned - mean
    same = centred[:, -7::-7]
    weeks = (~np.isnan(same)).sum(axis=1)
    weekday = np.nan_to_num(mean_of(same)) * weeks / (weeks + _WEEKDAY_PRIOR)
    pairs = np.nansum(centred[:, 1:] * centred[:, :-1], axis=1)
    carry = np.clip(pairs / np.maximum(np.nansum(centred**2, axis=1), _TINY), 0.0, 0.9)
    innovations = centred[:, 1:] - carry[:, None] * centred[:, :-1]
    scale = np.sqrt(mean_of((innovations - mean_of(innovations)[:, None]) ** 2))
    innovation = value - usual[:, 0] - mean[:, 0] - weekday - carry * np.nan_to_num(centred[:, -1])
    return np.asarray(np.where(scale > 0, innovation / np.where(scale > 0, scale, 1.0), np.nan))


def _robust(values: Floats) -> tuple[Floats, Floats]:
    median = median_of(values)[:, None]
    return median, _MAD * median_of(np.abs(values - median))[:, None]


def page_hinkley(z: Floats, threshold: float, *, two_sided: bool = True, clip: float = CLIP) -> Path:
    """Return the Page–Hinkley sums of standardised series.

    Parameters
    ----------
    z : ndarray, shape (S, D)
        Standardised values; NaN adds nothing.
    threshold : float
        Only bounds the sums, at 1.5 times of it, so that they fall again after a change that was taken up.
    two_sided : bool
        False looks for growth only.
    clip : float
        Standard deviations that one day counts for at most, so that no single day raises an alarm.

    Notes
    -----
    Page (1954), *Biometrika* 41; Hinkley (1971), *Biometrika* 58: S ← max(0, S + z − ½).
    """
    sums = np.full(z.shape, np.nan)
    began = np.zeros(z.shape, dtype=np.int64)
    up = np.ones(z.shape, dtype=bool)
    state = np.zeros((2, len(z)))
    start = np.zeros((2, len(z)), dtype=np.int64)
    for day in range(z.shape[1]):
        step = np.clip(z[:, day], -clip, clip)
        known = ~np.isnan(step)
        moved = np.stack([step, -step if two_sided else np.full_like(step, -np.inf)]) - _ALLOWANCE
        start = np.where((state == 0) & known, day, start)
        state = np.where(known, np.clip(state + moved, 0.0, _CAP * threshold), state)
        up[:, day] = state[0] >= state[1]
        side = np.where(up[:, day], 0, 1)
        index = np.arange(len(z))
        sums[:, day], began[:, day] = state[side, index], start[side, index]
    return Path(np.where(np.isnan(z), np.nan, sums), began, up)


def for_many(threshold: float, sensors: int) -> float:
    """Return the Page–Hinkley threshold for more sensors than those it was chosen on, at the same rate of alarms.

    The mean time between false alarms grows with exp(2 · ½ · threshold) (Siegmund, 1985, *Sequential Analysis*).
    """
    return threshold + math.log(max(sensors, _USUAL_SENSORS) / _USUAL_SENSORS)


def quantile_for_many(threshold: float, sensors: int) -> float:
    """Return a threshold in standard deviations for more sensors, at the same rate of alarms (normal tails)."""
    many = max(sensors, _USUAL_SENSORS)
    return threshold * math.sqrt(math.log(365 * many) / math.log(365 * _USUAL_SENSORS))


def recurring(z: Floats) -> tuple[Floats, Whole]:
    """Return how surely the same weekday has become worse, shape (S, D), and the index of its first bad day.

    The sum of the last two or three values of the same weekday over the square root of their number, each within 6 and
    none below 2: for independent standard normal values a standard normal one, kept only where all are large.
    """
    best, first = np.full(z.shape, np.nan), np.zeros(z.shape, dtype=np.int64)
    bounded = np.minimum(z, _RECURRING_CLIP)
    day = np.arange(z.shape[1])
    for times in (2, 3):
        same = np.stack([_earlier(bounded, 7 * back) for back in range(times)])
        score = np.where((same >= _RECURRING_LEAST).all(axis=0), same.sum(axis=0) / math.sqrt(times), 0.0)
        score = np.where(np.isnan(z), np.nan, score)
        better = np.isnan(best) | (score > best)
        best, first = np.where(better, score, best), np.where(better, day - 7 * (times - 1), first)
    return best, np.maximum(first, 0)


def _earlier(values: Floats, days: int) -> Floats:
    padding = np.full((len(values), min(days, values.shape[1])), np.nan)
    return np.concatenate([padding, values[:, : max(values.shape[1] - days, 0)]], axis=1)


# ------------------------------------------------------------------------------------------------- lasting steps


@dataclass(frozen=True)
class Steps:
    """The likeliest step of each sensor's level among the last days.

    Attributes
    ----------
    score : ndarray, shape (S,)
        The smaller of surprise and lasting change, both in standard deviations; NaN if nothing could be said.
    day : ndarray of int64, shape (S,)
        Index of the first day of the new level.
    change : ndarray, shape (S,)
        New level less old one [unit of the load].
    """

    score: Floats
    day: Whole
    change: Floats


_WEEKS = 6
_AFTER = (5, 9, 13)  # days of the new level that are looked at
_LEAST_AFTER = 4
_LEAST_PAST = 42  # days over which the usual changes of level are learnt


def lasting_steps(surprise: Floats, level: Floats, *, newest: int = 1) -> Steps:
    """Return how surely the level of each sensor has changed for good within the last days.

    Parameters
    ----------
    surprise : ndarray, shape (S, D)
        Standardised daily errors of the forecasts, for the days of `level`.
    level : ndarray, shape (S, D)
        Daily mean load; NaN on days that do not count.
    newest : int
        Ends to look from: the last day, the day before it, …

    Notes
    -----
    A forecast that knows yesterday has taken a step up after a day, so its errors alone do not tell a step from one
    strange day; the level alone changes with weather and season. A step must show in both: a surprising first day, and
    at least five days whose mean differs from the same weekdays of the six weeks before by more than such means usually
    do (their robust standard deviation over the past year). The first day counts for the surprise only, so the two are
    nearly independent without a change.
    """
    sensors, days = level.shape
    best = Steps(np.full(sensors, np.nan), np.zeros(sensors, dtype=np.int64), np.full(sensors, np.nan))
    usual = _usual_levels(level)
    for after in _AFTER:
        lasting = _changes(level, usual, after, days - newest - after)
        for end in range(days - newest, days):
            best = _better(best, surprise, lasting, end - after)
    return best


def _better(best: Steps, surprise: Floats, lasting: tuple[Floats, Floats], day: int) -> Steps:
    changes, spread = lasting
    if day < 1:
        return best
    change = changes[:, day]
    with np.errstate(invalid="ignore"):
        score = np.minimum(np.abs(surprise[:, day]), np.abs(change) / spread)
        score = np.where(surprise[:, day] * change > 0, score, np.where(np.isnan(score), np.nan, 0.0))
        new = (score > best.score) | (np.isnan(best.score) & ~np.isnan(score))
    return Steps(np.where(new, score, best.score), np.where(new, day, best.day), np.where(new, change, best.change))


def _changes(level: Floats, usual: Floats, after: int, first_needed: int) -> tuple[Floats, Floats]:
    """Return for each day the mean change over the `after` days that follow it, and its usual spread, shape (S,)."""
    days = level.shape[1]
    result = np.full(level.shape, np.nan)
    if days > after:
        steps = np.stack(
            [level[:, j : days - after + j] - usual[j % 7, :, : days - after] for j in range(1, after + 1)], -1
        )
        enough = (~np.isnan(steps)).sum(axis=-1) >= _LEAST_AFTER
        result[:, : days - after] = np.where(enough, mean_of(steps), np.nan)
    past = result[:, max(0, first_needed - 365 - after) : max(0, first_needed - after)]
    spread = _MAD * median_of(np.abs(past))
    enough = (~np.isnan(past)).sum(axis=1) >= _LEAST_PAST
    return result, np.where(enough & (spread > 0), spread, np.nan)


def _usual_levels(level: Floats) -> Floats:
    """Return what the weekdays of each day and of the six that follow had in the six weeks before it, (7, S, D)."""
    sensors, days = level.shape
    padded = np.concatenate([np.full((sensors, 7 * _WEEKS), np.nan), level, np.full((sensors, 7), np.nan)], axis=1)
    back = [7 * _WEEKS - 7 * week for week in range(1, _WEEKS + 1)]
    return np.stack([median_of(np.stack([padded[:, b + j : b + j + days] for b in back], -1)) for j in range(7)])


def spread_of(values: Floats) -> NDArray[np.float64]:
    """Return the robust standard deviation of each row's known values."""
    return _robust(values)[1][:, 0]
