"""Why a reading is flagged, in its unit and local time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from smartgrid_pyfunc.features.profile import DEVIATIONS
from smartgrid_pyfunc.features.readings import CONTEXT, ReadingContext

NO_VALUE = "no value"
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def explain(
    context: ReadingContext,
    flagged: NDArray[np.bool_],
    surprise: NDArray[np.float64],
    expected: NDArray[np.float64],
    width: NDArray[np.float64],
    timezone: str,
) -> NDArray[np.object_]:
    """Return a sentence for each flagged reading, from its most surprising deviation, and None for the others.

    Parameters
    ----------
    context : ReadingContext
        m readings.
    flagged : ndarray of bool, shape (m,)
    surprise : ndarray, shape (m, len(DEVIATIONS))
        -log tail probabilities, NaN where unknown.
    expected, width : ndarray, shape (m,)
        Usual value and half of the usual range [unit of the reading].
    timezone : str
        Zone of the local times named.
    """
    reason = np.full(len(flagged), None, dtype=object)
    rows = np.flatnonzero(flagged)
    top = np.argmax(np.nan_to_num(surprise[rows], nan=-1.0), axis=1)
    value, units = context.rows["value"].to_numpy(), context.rows["unit"].to_numpy()
    clock = "" if timezone == "UTC" else " local time"
    for row, j in zip(rows, top, strict=True):
        measures = dict(zip(CONTEXT, context.context[row], strict=True))
        hour = int(context.hour_of_week[row])
        when = f"{_DAYS[hour // 24]} {hour % 24:02d}:00{clock}"
        usual = (expected[row] - width[row], expected[row] + width[row])
        reason[row] = _SENTENCES[DEVIATIONS[j]](value[row], units[row], measures, when, usual)
    return reason


def _with_unit(number: float, unit: str) -> str:
    return f"{number:.4g} {unit}".rstrip()


def _value(value: float, unit: str, measures: dict[str, float], when: str, usual: tuple[float, float]) -> str:
    half = max((usual[1] - usual[0]) / 2, 1e-12)
    times = abs(value - (usual[0] + usual[1]) / 2) / half
    text = f"{_with_unit(value, unit)}; usual for {when} is {usual[0]:.4g}…{usual[1]:.4g}"
    return f"{text} (about {times:.2g} × the usual range)" if times > 1 else text


def _changed(since: str, name: str) -> Callable[..., str]:
    def sentence(value: float, unit: str, measures: dict[str, float], when: str, usual: tuple[float, float]) -> str:
        change = measures[name]
        direction = "higher" if change > 0 else "lower"
        return f"{_with_unit(value, unit)}, {_with_unit(abs(change), unit)} {direction} than {since}"

    return sentence


def _jumped(value: float, unit: str, measures: dict[str, float], when: str, usual: tuple[float, float]) -> str:
    step, hours = _with_unit(measures["step"], unit), _duration(measures["gap_hours"])
    return f"jumped by {step} to {_with_unit(value, unit)} in {hours}"


def _flat(value: float, unit: str, measures: dict[str, float], when: str, usual: tuple[float, float]) -> str:
    return f"unchanged at {_with_unit(value, unit)} for {_duration(measures['flat_hours'])}"


def _late(value: float, unit: str, measures: dict[str, float], when: str, usual: tuple[float, float]) -> str:
    return f"first reading after {_duration(measures['gap_hours'])} without any"


def _duration(hours: float) -> str:
    if hours >= 1:
        return f"{hours:.3g} h"
    return f"{hours * 60:.3g} min" if hours * 60 >= 1 else f"{hours * 3600:.3g} s"


_SENTENCES: dict[str, Callable[..., str]] = {
    "value": _value,
    "day_change": _changed("a day before", "day_change"),
    "week_change": _changed("a week before", "week_change"),
    "step": _jumped,
    "flat_hours": _flat,
    "gap_hours": _late,
}


def say_conflicts(reason: NDArray[np.object_], context: ReadingContext) -> None:
    """Add to `reason`, in place, that another value of the same sensor and instant was sent."""
    for row in np.flatnonzero(context.conflicting):
        text = "another value was sent for the same time"
        reason[row] = f"{reason[row]}; {text}" if reason[row] else text
