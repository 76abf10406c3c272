"""Checks run one after the other, each within a time of its own, and what they found."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from smartgrid_pyfunc.lifecycle.errors import LifecycleError, mask_secrets
from smartgrid_pyfunc.schema import InputError


class State(StrEnum):
    """How a check ended: only `FAILED` stands in the way of somebody's work."""

    OK = "ok"
    UNUSED = "unused"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, how it is, and what mends it.

    Attributes
    ----------
    check : str
        What was looked at.
    state : State
    said : str
        What was found, without secrets.
    remedy : str
        A command or an action; empty where nothing is wrong.
    """

    check: str
    state: State
    said: str
    remedy: str = ""


@dataclass(frozen=True)
class Check:
    """A named look at one part.

    Attributes
    ----------
    name : str
    look : callable
        Returns the finding; what it raises is one too.
    seconds : float
        After which it counts as failed [s].
    """

    name: str
    look: Callable[[], Finding]
    seconds: float = 30.0


def examine(checks: Iterable[Check]) -> Iterator[Finding]:
    """Yield the finding of each check as soon as it is there; none is waited for longer than its time."""
    for check in checks:
        yield _within_time(check)


def _within_time(check: Check) -> Finding:
    answers: queue.Queue[Finding] = queue.Queue()
    # A daemon: what hangs in a system call cannot be ended, but it does not keep the process from ending.
    threading.Thread(target=lambda: answers.put(_safely(check)), daemon=True).start()
    try:
        return answers.get(timeout=check.seconds)
    except queue.Empty:
        said = f"no answer within {check.seconds:g} s"
        return Finding(check.name, State.FAILED, said, "look at what it waits for: network, server, disk")


def _safely(check: Check) -> Finding:
    try:
        found = check.look()
    except InputError as error:
        found = Finding(check.name, State.FAILED, f"{error.place}: {error.found}" if error.place else str(error.found),
                        error.remedy or error.rule)  # fmt: skip
    except LifecycleError as error:
        said, _, remedy = str(error).partition("; ")
        found = Finding(check.name, State.FAILED, said, remedy)
    except Exception as error:  # a check that breaks is a finding, not the end of the examination
        said = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        found = Finding(check.name, State.FAILED, said, "please report this")
    return Finding(found.check, found.state, mask_secrets(found.said), mask_secrets(found.remedy))
