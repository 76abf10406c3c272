"""What each feature knows about: the words in which importances and drivers of a forecast are told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smartgrid_pyfunc.features.calendar import CALENDAR
from smartgrid_pyfunc.features.design import CHANGES, LINEAR_LEVELS, Design
from smartgrid_pyfunc.features.weather import TEMPERATURE

LAST_HOURS, DAYS, WEEKS = "last hours", "same hour of earlier days", "same hour of earlier weeks"
CLOCK, HOLIDAYS, WEATHER, OTHER = "hour and day", "holidays", "temperature", "horizon and the rest"
GROUPS = (LAST_HOURS, DAYS, WEEKS, CLOCK, HOLIDAYS, WEATHER, OTHER)

_PREFIXES = {
    "prev_hour": LAST_HOURS,
    "rolling": LAST_HOURS,
    "same_hour": DAYS,
    "same_weekday": WEEKS,
    "week_change": LAST_HOURS,
    "week_": WEEKS,
    "day_change": LAST_HOURS,
    "holiday": HOLIDAYS,
    "is_holiday": HOLIDAYS,
}
_NAMES = {
    **dict.fromkeys(("day_mean", "min_value", "max_value", "count", "blend"), DAYS),
    **dict.fromkeys(CALENDAR, CLOCK),
    **dict.fromkeys(TEMPERATURE, WEATHER),
    "day_of_week": CLOCK,
    "month_change": LAST_HOURS,
}
_AROUND = (*(LAST_HOURS,) * 30, *(DAYS,) * 6, *(WEEKS,) * 6)  # see features.load: the last day, then neighbours


def group_of(feature: str) -> str:
    """Return the group of a feature of `FeatureSpec.names`."""
    found = _NAMES.get(feature)
    return found or next((group for prefix, group in _PREFIXES.items() if feature.startswith(prefix)), OTHER)


@cache
def _history_groups() -> tuple[str, ...]:
    return tuple(map(group_of, (*LINEAR_LEVELS, *CHANGES)))


def input_groups(inputs: Mapping[str, NDArray[Any]]) -> dict[str, tuple[str, ...]]:
    """Return the group of every column of `Design.inputs`, by block."""
    fixed = {"history": _history_groups(), "around": _AROUND}
    alike = {"clock": CLOCK, "holiday": HOLIDAYS, "temperature": WEATHER, "past_temperature": WEATHER}
    return fixed | {name: (alike[name],) * block.shape[1] for name, block in inputs.items() if name in alike}


def shuffled(design: Design, names: Sequence[str], group: str, order: NDArray[np.int64]) -> Design:
    """Return `design` with what `group` knows taken from other rows: row i gets that of row ``order[i]``.

    Parameters
    ----------
    design : Design
    names : sequence of str
        Of its features.
    group : str
        One of `GROUPS`.
    order : ndarray of int64, shape (n,)
        A permutation.
    """
    changed = design.take(np.arange(len(order)))
    mine = [i for i, name in enumerate(names) if group_of(name) == group]
    changed.features[:, mine] = design.features[order][:, mine]
    for name, groups in input_groups(design.inputs).items():
        mine = [i for i, own in enumerate(groups) if own == group]
        changed.inputs[name][:, mine] = design.inputs[name][order][:, mine]
    if group == DAYS:
        relative = (design.base["last_day"] - design.base["level"]) / design.scale
        changed.base["last_day"] = design.base["level"] + design.scale * relative[order]
    return changed
