"""Reasons: the right kind of evidence, its unit, and the local weekday and hour."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from smartgrid_pyfunc.features.profile import DEVIATIONS
from smartgrid_pyfunc.features.readings import ReadingContext, parse_readings, read_context
from smartgrid_pyfunc.models.reasons import explain, say_conflicts


def _context(values: list[float], timezone: str = "UTC", step: str = "1h", **columns: object) -> ReadingContext:
    times = pd.date_range("2026-01-05", periods=len(values), freq=step, tz="UTC")  # a Monday
    frame = pd.DataFrame({"sensor_id": "a", "sensor_type": "power", "timestamp": times, "value": values})
    return read_context(parse_readings(frame.assign(**columns)), timezone)


def _last_reason(
    context: ReadingContext, kind: str, expected: float = 10.0, width: float = 2.0, zone: str = "UTC"
) -> str:
    """The reason of the last reading, flagged for the deviation `kind`."""
    n = len(context.rows)
    flagged, surprise = np.arange(n) == n - 1, np.full((n, len(DEVIATIONS)), np.nan)
    surprise[:, 0] = 1.0
    surprise[-1, DEVIATIONS.index(kind)] = 9.0
    reason = explain(context, flagged, surprise, np.full(n, expected), np.full(n, width), zone)
    assert list(reason[:-1]) == [None] * (n - 1)
    return str(reason[-1])


@pytest.mark.parametrize(
    ("kind", "values", "says"),
    [
        ("value", [1.0, 18.0], "18 kW; usual for Monday 01:00 is 8…12 (about 4 × the usual range)"),
        ("value", [1.0, 11.0], "11 kW; usual for Monday 01:00 is 8…12"),
        ("step", [1.0, 18.0], "jumped by 17 kW to 18 kW in 1 h"),
        ("step", [18.0, 1.0], "jumped by -17 kW to 1 kW in 1 h"),
        ("flat_hours", [5.0] * 7, "unchanged at 5 kW for 6 h"),
        ("gap_hours", [5.0, np.nan, np.nan, 6.0], "first reading after 3 h without any"),
        ("day_change", [4.0] * 24 + [9.0], "9 kW, 5 kW higher than a day before"),
        ("week_change", [4.0] * 168 + [1.0], "1 kW, 3 kW lower than a week before"),
    ],
)
def test_the_most_surprising_deviation_is_told(kind: str, values: list[float], says: str):
    assert _last_reason(_context(values), kind) == says


def test_weekday_and_hour_are_local_and_said_to_be():
    context = _context([1.0] * 20 + [18.0], "Australia/Melbourne")  # Monday 20:00 UTC, summer time: +11
    assert "usual for Tuesday 07:00 local time is 8…12" in _last_reason(context, "value", zone="Australia/Melbourne")


def test_the_unit_is_the_one_given_else_that_of_the_type_else_none():
    assert _last_reason(_context([1.0, 18.0], unit="MW"), "value").startswith("18 MW;")
    assert _last_reason(_context([1.0, 18.0], sensor_type="voltage"), "value").startswith("18 V;")
    assert _last_reason(_context([1.0, 18.0], sensor_type="unheard"), "value").startswith("18;")


@pytest.mark.parametrize(("step", "says"), [("10min", "in 10 min"), ("5s", "in 5 s"), ("36h", "in 36 h")])
def test_durations_take_a_unit_that_reads_well(step: str, says: str):
    assert _last_reason(_context([1.0, 18.0], step=step), "step").endswith(says)


def test_a_usual_range_without_width_still_gives_a_sentence():
    assert "usual for Monday 01:00 is 10…10" in _last_reason(_context([1.0, 18.0]), "value", width=0.0)


def test_conflicts_are_said_beside_the_reason_and_alone():
    rows = {"sensor_id": "a", "sensor_type": "power", "timestamp": ["2026-01-05", "2026-01-05", "2026-01-06"]}
    context = read_context(parse_readings(pd.DataFrame(rows | {"value": [1.0, 2.0, 3.0]})), "UTC")
    reason = np.array([None, "strange", None], dtype=object)
    say_conflicts(reason, context)
    said = "another value was sent for the same time"
    assert reason.tolist() == [said, f"strange; {said}", None]
