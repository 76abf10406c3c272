"""Why a reading is flagged, in its unit and local time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smartgrid_pyfunc.features.readings import HOUR, RECENT_HOURS, ReadingContext
from smartgrid_pyfunc.models.isolation import EVIDENCE

NO_VALUE = "no value"
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_SUDDEN = 0.8  # of the distance from the usual value came with the last step
_LONG_GAP = 3  # times the step before
_WEAK = 3.0  # nats: evidence that one of twenty readings gives
_TINY = 1e-12
_BEFORE = "; strange together with the readings before"


@dataclass(frozen=True)
class Found:
    """What is known of m readings.

    Attributes
    ----------
    flagged : ndarray of bool, shape (m,)
    evidence : ndarray, shape (m, len(EVIDENCE))
        -log tail probabilities.
    expected, lower, upper, spread : ndarray, shape (m,)
        Usual value, the ends of the usual range, and the usual spread [unit of the reading].
    """

    flagged: NDArray[np.bool_]
    evidence: NDArray[np.float64]
    expected: NDArray[np.float64]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    spread: NDArray[np.float64]


@dataclass(frozen=True)
class _Reading:
    """One flagged reading: numbers in its unit, times in hours; `step` and `gap` are NaN without a reading before."""

    value: float
    unit: str
    when: str
    expected: float
    lower: float
    upper: float
    spread: float
    step: float
    gap: float
    flat: float


def explain(context: ReadingContext, found: Found, timezone: str) -> NDArray[np.object_]:
    """Return a sentence for each flagged reading, from its strongest evidence, and None for the others.

    Parameters
    ----------
    context : ReadingContext
        m readings.
    found : Found
    timezone : str
        Zone of the local times named.
    """
    reason = np.full(len(context), None, dtype=object)
    rows = np.flatnonzero(found.flagged)
    if not len(rows):
        return reason
    top = found.evidence[rows].argmax(axis=1)
    weak = found.evidence[rows].max(axis=1) < _WEAK
    long = _after_a_long_gap(context, rows)
    for reading, row, j, is_weak, is_long in zip(
        _readings(context, found, rows, timezone), rows, top, weak, long, strict=True
    ):
        text = _SENTENCES[EVIDENCE[j]](reading)
        text += _BEFORE if is_weak else ""
        reason[row] = text + (f"; first reading after {_duration(reading.gap)} without any" if is_long else "")
    return reason


def _readings(context: ReadingContext, found: Found, rows: NDArray[np.int64], timezone: str) -> list[_Reading]:
    clock = "" if timezone == "UTC" else " local time"
    hours = context.hour_of_week[rows]
    when = [f"{_DAYS[hour // 24]} {hour % 24:02d}:00{clock}" for hour in hours.tolist()]
    known, before = context.end[rows] > context.first[rows], context.end[rows] - 1
    value, time = context.rows.value, context.rows.time.astype(np.int64)
    with np.errstate(over="ignore"):
        step = np.where(known, value[rows] - value[before], np.nan)
    gap = np.where(known, (time[rows] - time[before]) / HOUR, np.nan)
    usual = (column[rows].tolist() for column in (found.expected, found.lower, found.upper, found.spread))
    units = context.rows.unit.take(rows).values()
    flat = context.flat_hours[rows].tolist()
    columns = (value[rows].tolist(), units, when, *usual, step.tolist(), gap.tolist(), flat)
    return [_Reading(*cells) for cells in zip(*columns, strict=True)]


def _after_a_long_gap(context: ReadingContext, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    time, before = context.rows.time.astype(np.int64), context.end[rows] - 1
    enough = before - context.first[rows] >= 1
    last = np.where(enough, time[before] - time[np.maximum(before - 1, 0)], 1)
    long: NDArray[np.bool_] = enough & (time[rows] - time[before] >= _LONG_GAP * np.maximum(last, 1))
    return long


def _with_unit(number: float, unit: str) -> str:
    return f"{number:.4g} {unit}".rstrip()


def _range(r: _Reading) -> str:
    return f"usual for {r.when} is {r.lower:.4g}…{r.upper:.4g}"


def _value(r: _Reading) -> str:
    off = r.value - r.expected
    # A return to the usual value is a step too, but not one away from it.
    sudden = abs(r.step) >= _SUDDEN * abs(off) and r.step * off > 0
    start = f"jumped by {_with_unit(r.step, r.unit)} in {_duration(r.gap)} to " if sudden else ""
    times = abs(off) / max(r.spread, _TINY)
    text = f"{start}{_with_unit(r.value, r.unit)}; {_range(r)}"
    return f"{text} (about {times:.2g} × the spread)" if times > 1 else text


def _ratio(r: _Reading) -> str:
    text = f"{_with_unit(r.value, r.unit)}; {_range(r)}"
    if r.expected * r.value < 0:
        return f"{text} (the sign is turned)"
    small, large = sorted((abs(r.value), abs(r.expected)))
    if large < 1.5 * small or small < _TINY * large:
        return text
    share = f"{large / small:.2g}"
    return f"{text} (about {share if abs(r.value) == large else '1/' + share} of {_with_unit(r.expected, r.unit)})"


def _level(r: _Reading) -> str:
    side = "above" if r.value >= r.expected else "below"
    return f"{_with_unit(r.value, r.unit)}; for {RECENT_HOURS} h further {side} the usual than normal; {_range(r)}"


def _flat(r: _Reading) -> str:
    return f"unchanged at {_with_unit(r.value, r.unit)} for {_duration(r.flat)}"


def _duration(hours: float) -> str:
    if hours >= 1:
        return f"{hours:.3g} h"
    return f"{hours * 60:.3g} min" if hours * 60 >= 1 else f"{hours * 3600:.3g} s"


_SENTENCES: dict[str, Callable[[_Reading], str]] = {
    "value": _value,
    "ratio": _ratio,
    "level": _level,
    "flat_hours": _flat,
}


#: How a sentence of each kind of anomaly is told from others, the first that fits counting.
_SIGNS = (
    ("no value", NO_VALUE),
    ("stuck", "unchanged at "),
    ("jump", "jumped by "),
    ("turned", "(the sign is turned)"),
    ("level", " the usual than normal"),
    ("scale", " of "),
    ("value", "usual for "),
)


def kind_of(reason: str | None) -> str:
    """Return the kind of anomaly that a reason tells, in a word; an empty text without a reason."""
    return next((kind for kind, sign in _SIGNS if sign in (reason or "").replace(_BEFORE, "")), "")


def say_conflicts(reason: NDArray[np.object_], context: ReadingContext) -> None:
    """Add to `reason`, in place, that another value of the same sensor and instant was sent."""
    for row in np.flatnonzero(context.conflicting):
        text = "another value was sent for the same time"
        reason[row] = f"{reason[row]}; {text}" if reason[row] else text
