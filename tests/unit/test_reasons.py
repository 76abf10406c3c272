"""Reasons: the right kind of evidence, its unit, and the local weekday and hour."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from smartgrid_pyfunc.features.readings import ReadingContext, parse_readings, read_context
from smartgrid_pyfunc.models.isolation import EVIDENCE
from smartgrid_pyfunc.models.reasons import NO_VALUE, Found, explain, kind_of, say_conflicts


def _context(values: list[float], timezone: str = "UTC", step: str = "1h", **columns: object) -> ReadingContext:
    times = pd.date_range("2026-01-05", periods=len(values), freq=step, tz="UTC")  # a Monday
    frame = pd.DataFrame({"sensor_id": "a", "sensor_type": "power", "timestamp": times, "value": values})
    return read_context(parse_readings(frame.assign(**columns)), timezone)


def _last_reason(
    context: ReadingContext,
    kind: str,
    expected: float = 10.0,
    width: float = 2.0,
    zone: str = "UTC",
    nats: float = 9.0,
) -> str:
    """The reason of the last reading, flagged for the evidence `kind`."""
    n = len(context)
    flagged, evidence = np.arange(n) == n - 1, np.full((n, len(EVIDENCE)), 0.5)
    evidence[-1, EVIDENCE.index(kind)] = nats
    usual = np.full(n, expected)
    found = Found(flagged, evidence, usual, usual - width, usual + width, np.full(n, width / 2))
    reason = explain(context, found, zone)
    assert list(reason[:-1]) == [None] * (n - 1)
    return str(reason[-1])


@pytest.mark.parametrize(
    ("kind", "values", "says"),
    [
        ("value", [14.0, 18.0], "18 kW; usual for Monday 01:00 is 8…12 (about 8 × the spread)"),
        ("value", [10.4, 10.5], "10.5 kW; usual for Monday 01:00 is 8…12"),
        (
            "value",
            [9.0, 18.0],
            "jumped by 9 kW in 1 h to 18 kW; usual for Monday 01:00 is 8…12 (about 8 × the spread)",
        ),
        (
            "value",
            [10.0, 1.0],
            "jumped by -9 kW in 1 h to 1 kW; usual for Monday 01:00 is 8…12 (about 9 × the spread)",
        ),
        # A step back towards the usual value is no jump.
        ("value", [90.0, 18.0], "18 kW; usual for Monday 01:00 is 8…12 (about 8 × the spread)"),
        ("ratio", [9.0, 1.0], "1 kW; usual for Monday 01:00 is 8…12 (about 1/10 of 10 kW)"),
        ("ratio", [9.0, 40.0], "40 kW; usual for Monday 01:00 is 8…12 (about 4 of 10 kW)"),
        ("ratio", [9.0, 11.0], "11 kW; usual for Monday 01:00 is 8…12"),
        ("ratio", [9.0, -9.0], "-9 kW; usual for Monday 01:00 is 8…12 (the sign is turned)"),
        (
            "level",
            [9.0, 11.0],
            "11 kW; for 6 h further above the usual than normal; usual for Monday 01:00 is 8…12",
        ),
        ("flat_hours", [5.0] * 7, "unchanged at 5 kW for 6 h"),
        (
            "flat_hours",
            [5.0, 5.0, np.nan, np.nan, 5.0],
            "unchanged at 5 kW for 4 h; first reading after 3 h without any",
        ),
    ],
)
def test_the_strongest_evidence_is_told(kind: str, values: list[float], says: str):
    assert _last_reason(_context(values), kind) == says


def test_weak_evidence_is_said_to_be_strange_with_what_went_before():
    context = _context([1.0, 18.0])
    assert _last_reason(context, "value", nats=2.9).endswith("; strange together with the readings before")
    assert "together" not in _last_reason(context, "value", nats=3.1)


def test_weekday_and_hour_are_local_and_said_to_be():
    context = _context([1.0] * 20 + [18.0], "Australia/Melbourne")  # Monday 20:00 UTC, summer time: +11
    assert "usual for Tuesday 07:00 local time is 8…12" in _last_reason(context, "value", zone="Australia/Melbourne")


def test_the_unit_is_the_one_given_else_that_of_the_type_else_none():
    assert "to 18 MW;" in _last_reason(_context([8.0, 18.0], unit="MW"), "value")
    assert "to 18 V;" in _last_reason(_context([8.0, 18.0], sensor_type="voltage"), "value")
    assert "to 18;" in _last_reason(_context([8.0, 18.0], sensor_type="unheard"), "value")


@pytest.mark.parametrize(("step", "says"), [("10min", "in 10 min"), ("5s", "in 5 s"), ("36h", "in 36 h")])
def test_durations_take_a_unit_that_reads_well(step: str, says: str):
    assert f"jumped by 10 kW {says} to" in _last_reason(_context([8.0, 18.0], step=step), "value")


def test_a_usual_range_without_width_still_gives_a_sentence():
    assert "usual for Monday 01:00 is 10…10" in _last_reason(_context([1.0, 18.0]), "value", width=0.0)


def test_conflicts_are_said_beside_the_reason_and_alone():
    rows = {"sensor_id": "a", "sensor_type": "power", "timestamp": ["2026-01-05", "2026-01-05", "2026-01-06"]}
    context = read_context(parse_readings(pd.DataFrame(rows | {"value": [1.0, 2.0, 3.0]})), "UTC")
    reason = np.array([None, "strange", None], dtype=object)
    say_conflicts(reason, context)
    said = "another value was sent for the same time"
    assert reason.tolist() == [said, f"strange; {said}", None]


def test_the_kind_of_an_anomaly_follows_from_its_reason():
    told = {
        "stuck": _last_reason(_context([5.0] * 7), "flat_hours"),
        "jump": _last_reason(_context([9.0, 18.0]), "value"),
        "value": _last_reason(_context([90.0, 18.0]), "value", nats=1.0),
        "scale": _last_reason(_context([9.0, 1.0]), "ratio"),
        "turned": _last_reason(_context([9.0, -9.0]), "ratio"),
        "level": _last_reason(_context([9.0, 11.0]), "level"),
        "no value": NO_VALUE,
    }
    assert {kind: kind_of(reason) for kind, reason in told.items()} == {kind: kind for kind in told}
    assert kind_of(None) == kind_of("another value was sent for the same time") == ""
