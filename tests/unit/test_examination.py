"""One finding for each check, whatever becomes of it."""

from __future__ import annotations

import threading
import time

import pytest

from smartgrid_pyfunc.doctor.examination import Check, Finding, State, examine
from smartgrid_pyfunc.lifecycle.errors import LifecycleError
from smartgrid_pyfunc.schema import InputError


def _raising(error: Exception) -> Check:
    def look() -> Finding:
        raise error

    return Check("part", look)


def _found(check: Check) -> Finding:
    (finding,) = examine([check])
    return finding


def test_a_check_that_hangs_fails_within_its_time_and_the_next_one_is_made() -> None:
    held = threading.Event()

    def hang() -> Finding:
        held.wait(30)
        return Finding("slow", State.OK, "")

    begun = time.monotonic()
    found = list(examine([Check("slow", hang, seconds=0.2), Check("next", lambda: Finding("next", State.OK, "fine"))]))
    assert time.monotonic() - begun < 5
    held.set()
    assert [(entry.check, entry.state) for entry in found] == [("slow", State.FAILED), ("next", State.OK)]
    assert found[0].said == "no answer within 0.2 s"


@pytest.mark.parametrize(
    ("error", "said", "remedy"),
    [
        (LifecycleError("The server is down; start it."), "The server is down", "start it."),
        (InputError("a rule", place="there", found="this", remedy="do that"), "there: this", "do that"),
        (RuntimeError("boom\nsecond line"), "RuntimeError: boom", "please report this"),
    ],
)
def test_what_a_check_raises_is_its_finding(error: Exception, said: str, remedy: str) -> None:
    found = _found(_raising(error))
    assert (found.check, found.state, found.said, found.remedy) == ("part", State.FAILED, said, remedy)


def test_no_finding_shows_a_secret() -> None:
    found = _found(_raising(LifecycleError("postgresql://me:secret@host/db is down; set password=secret right")))
    assert "secret" not in found.said + found.remedy
