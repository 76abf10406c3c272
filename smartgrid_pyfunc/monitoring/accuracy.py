"""What the forecasts were worth, against the reference of the promotion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from smartgrid_pyfunc.evaluation.metrics import Summary, summarise
from smartgrid_pyfunc.monitoring.checks import EVERYWHERE, Check, Row, check
from smartgrid_pyfunc.monitoring.grid import Floats, Grid, Whole, mean_of
from smartgrid_pyfunc.monitoring.scored import DailyErrors
from smartgrid_pyfunc.monitoring.sequential import (
    Path,
    for_many,
    lasting_steps,
    page_hinkley,
    quantile_for_many,
    recurring,
    standardise,
)
from smartgrid_pyfunc.schema import HOURS_A_DAY

FIRST_WEEKS = 4
ERROR_RATIO = 1.5
BIAS_SUM = 15.0
PATTERN_SUM = 16.0
RECURRING = 5.25
STEP_SCORE = 4.25
COVERAGE_POINTS = 0.1
COVERAGE_DAYS = 28
_HISTORY_DAYS = 182  # of daily errors that are looked at
_LEAST_COVERAGE_DAYS = 14
_LEAST_ROWS = 24
_CLIP_TOGETHER = 6.0  # strange days of single sensors are averaged out already
_LEAST_SENSORS = 3
_LEAST_TOGETHER = 42  # days that tell how the mean over sensors varies


@dataclass(frozen=True)
class Reference:
    """What the forecasts were worth when the version was promoted.

    Attributes
    ----------
    source : str
        ``promotion`` (the version's own test), ``first weeks`` (the first that were scored) or ``none``.
    overall : dict
        ``mae, naive_mae, rmse, bias, coverage``, as far as known.
    by_sensor : DataFrame
        ``mae, naive_mae`` by ``sensor_id``.
    """

    source: str
    overall: dict[str, float]
    by_sensor: pd.DataFrame

    @property
    def ratio(self) -> float:
        """Mean over sensors of the error over that of the better naive: sensors count alike, whatever their size."""
        return error_ratio(self.by_sensor)


NO_REFERENCE = Reference("none", {}, pd.DataFrame(columns=["mae", "naive_mae"]))


def error_ratio(by_sensor: pd.DataFrame) -> float:
    """Return the geometric mean over sensors of ``mae / naive_mae``; NaN without any."""
    ratio = (by_sensor["mae"] / by_sensor["naive_mae"]).to_numpy(dtype=np.float64)
    known = ratio[np.isfinite(ratio) & (ratio > 0)]
    return float(np.exp(np.log(known).mean())) if len(known) else float("nan")


def reference_of_first_weeks(scored: pd.DataFrame, weeks: int = FIRST_WEEKS) -> Reference:
    """Return the reference that the first scored weeks give; `NO_REFERENCE` with less than a week."""
    known = scored[scored["actual"].notna() & scored["predicted"].notna()]
    if known.empty:
        return NO_REFERENCE
    first = known["timestamp"].min()
    chosen = known[known["timestamp"] < first + pd.Timedelta(weeks=weeks)]
    if chosen["timestamp"].max() - first < pd.Timedelta(days=6, hours=12):
        return NO_REFERENCE
    found = measures(chosen)
    return Reference("first weeks", _plain(found.overall), found.by_sensor[["mae", "naive_mae"]])


def measures(scored: pd.DataFrame, timezone: str = "UTC") -> Summary:
    """Return metrics and tables of the scored forecasts; see `evaluation.metrics.summarise`."""
    return summarise(scored, timezone=timezone, prefix="")


def _plain(overall: dict[str, float]) -> dict[str, float]:
    return {name: overall[name] for name in ("mae", "naive_mae", "rmse", "bias", "coverage") if name in overall}


def window_of(scored: pd.DataFrame, grid: Grid, days: int) -> pd.DataFrame:
    """Return the scored forecasts of the last `days` of `grid`."""
    return scored[scored["column"] >= grid.hours - days * HOURS_A_DAY]


def accuracy_check(window: pd.DataFrame, reference: Reference, grid: Grid, days: int) -> Check:
    """Error over naive error in the window, against the same ratio of the reference.

    The naive's error in the same hours takes out what makes a week hard for everybody. Never an alert while the model
    is a fifth better than the better naive and within 1.5 times the reference.
    """
    known = window[window["actual"].notna() & window["predicted"].notna()]
    if len(known) < _LEAST_ROWS or not np.isfinite(reference.ratio):
        return check("accuracy", [])
    now = measures(known).by_sensor
    both = now.index.intersection(reference.by_sensor.index)
    if not len(both):
        return check("accuracy", [])
    ratio, usual = error_ratio(now.loc[both]), error_ratio(reference.by_sensor.loc[both])
    since = grid.time(max(grid.hours - days * HOURS_A_DAY, 0))
    detail = f"error {ratio:.2f} of the naive's, {usual:.2f} in the {reference.source}"
    return check("accuracy", [(EVERYWHERE, ratio / usual, ERROR_RATIO, since, detail)])


def coverage_check(scored: pd.DataFrame, grid: Grid) -> Check:
    """Share of the last four weeks' hours inside their interval, against its level: off by ten points or more.

    Intervals that are too wide count less: half of what is left above the level.
    """
    known = window_of(scored, grid, COVERAGE_DAYS).dropna(subset=["actual", "lower", "upper"])
    days = grid.day[known["column"].to_numpy(dtype=np.int64)]
    if len(np.unique(days)) < _LEAST_COVERAGE_DAYS:
        return check("coverage", [])
    level = float(known["level"].astype(float).median()) if "level" in known else 0.9
    share = float(((known["lower"] <= known["actual"]) & (known["actual"] <= known["upper"])).mean())
    off = level - share if share <= level else (share - level) * COVERAGE_POINTS / (0.75 * (1 - level))
    since = grid.day_start(int(days.min()))
    detail = f"{share:.1%} of the hours inside their {level:.0%} interval"
    return check("coverage", [(EVERYWHERE, off, COVERAGE_POINTS, since, detail)])


# ------------------------------------------------------------------------------------------------ daily errors


def sequential_checks(errors: DailyErrors, grid: Grid, days: int) -> list[Check]:
    """Return the checks of bias, course and level from daily errors; holidays and the days after them do not count."""
    if not len(errors.days):
        return [check(kind, []) for kind in ("bias", "pattern_shift", "level_shift")]
    quiet = ~np.isin(errors.days, grid.days[grid.special])
    signed, size = (np.where(quiet, part, np.nan) for part in (errors.signed, errors.size))
    first = max(len(errors.days) - _HISTORY_DAYS, 0)
    z_signed, z_size = (standardise(part, first=first) for part in (signed, size))
    return [
        _bias(z_signed, errors, grid, days),
        _pattern(z_size, errors, grid, days),
        _level(z_signed, errors, grid, days),
    ]


def _bias(z: Floats, errors: DailyErrors, grid: Grid, days: int) -> Check:
    """Return the largest Page–Hinkley sum of signed errors in the window."""
    limit = for_many(BIAS_SUM, len(z))
    path = _climb(z, limit, two_sided=True)
    rows = [_peak(name, path.sums[i], path.began[i], limit, errors, grid, days) for i, name in _named(errors)]
    ways = np.where(path.up[:, -1], "above", "below")
    found = [(*row, f"loads {way} what the forecasts expect") for row, way in zip(rows, ways, strict=True) if row]
    return check("bias", found)


def _pattern(z: Floats, errors: DailyErrors, grid: Grid, days: int) -> Check:
    """Return the largest growth of errors in the window: of all days, or of one weekday again and again."""
    limits = for_many(PATTERN_SUM, len(z)), quantile_for_many(RECURRING, len(z))
    path = _climb(z, limits[0], two_sided=False)
    again, first = recurring(np.vstack([z, _together(z)]))
    found = []
    for i, name in _named(errors):
        steady = _peak(name, path.sums[i] / limits[0], path.began[i], 1.0, errors, grid, days)
        weekly = _peak(name, again[i] / limits[1], first[i], 1.0, errors, grid, days)
        if weekly and (not steady or weekly[1] > steady[1]):
            found.append((*weekly, "errors have grown on one weekday again and again"))
        elif steady:
            found.append((*steady, "errors have grown"))
    return check("pattern_shift", found)


def _named(errors: DailyErrors) -> list[tuple[int, str]]:
    return list(enumerate((*errors.sensor_ids, EVERYWHERE)))


def _climb(z: Floats, threshold: float, *, two_sided: bool) -> Path:
    """Return the Page–Hinkley sums of each sensor and, below them, of all together."""
    each = page_hinkley(z, threshold, two_sided=two_sided)
    together = page_hinkley(_together(z), threshold, two_sided=two_sided, clip=_CLIP_TOGETHER)
    pairs = [(getattr(each, name), getattr(together, name)) for name in ("sums", "began", "up")]
    return Path(*(np.vstack(pair) for pair in pairs))


def _together(z: Floats) -> Floats:
    """Return the mean over sensors of each day in its own usual deviations: what many sensors do at once, (1, D)."""
    count = (~np.isnan(z)).sum(axis=0)
    mean = np.where(count >= _LEAST_SENSORS, mean_of(z.T), np.nan)
    return standardise(mean[None, :], least=_LEAST_TOGETHER)


def _peak(
    name: str, values: Floats, began: Whole, threshold: float, errors: DailyErrors, grid: Grid, days: int
) -> Row | None:
    """Return sensor, value, threshold and since of the largest value of the last days."""
    recent = values[-days:]
    if np.isnan(recent).all():
        return None
    at = len(values) - len(recent) + int(np.nanargmax(recent))
    return name, float(values[at]), threshold, grid.day_start(int(errors.days[began[at]]))


def _level(z: Floats, errors: DailyErrors, grid: Grid, days: int) -> Check:
    level = np.where(grid.special, np.nan, grid.daily)
    surprise = np.full(level.shape, np.nan)
    surprise[:, np.searchsorted(grid.days, errors.days)] = z
    steps = lasting_steps(surprise, level, newest=min(days, 7))
    threshold = quantile_for_many(STEP_SCORE, len(level))
    usual = np.nanmean(np.abs(level), axis=1)
    rows = [
        (name, steps.score[i], threshold, grid.day_start(int(grid.days[steps.day[i]])),
         f"the level changed by {steps.change[i]:+.4g} ({steps.change[i] / usual[i]:+.0%})")
        for i, name in enumerate(grid.sensor_ids)
        if np.isfinite(steps.score[i])
    ]  # fmt: skip
    return check("level_shift", rows)
