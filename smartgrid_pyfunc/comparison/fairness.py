"""Which answers of a version count on a window: only those that it gave without having seen the window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smartgrid_pyfunc.lifecycle import evidence
from smartgrid_pyfunc.lifecycle.errors import LifecycleError
from smartgrid_pyfunc.lifecycle.versions import Named

SCORED, RECORDED = "scored in a process of its own", "as recorded by its training, by a fit that did not see these days"
_ENOUGH = 0.9  # of the window's rows, that recorded answers must cover
_TIMES = "%Y-%m-%d %H:%M"


class Unfair(LifecycleError):
    """A version has learnt from the window, so its errors there say nothing about the future."""


@dataclass(frozen=True)
class Answers:
    """The answers of one version.

    Attributes
    ----------
    frame : DataFrame
        Keys and answers.
    how : str
        Where they come from.
    """

    frame: pd.DataFrame
    how: str


def knows_nothing_of(named: Named, start: pd.Timestamp) -> bool:
    """Return whether the data that a version learnt from end before `start`; false if it is not recorded."""
    until = evidence.horizon_of_knowledge(named.run_id)
    return until is not None and until < start


def from_record(named: Named, window: pd.DataFrame, keys: Sequence[str], truth: str) -> Answers | None:
    """Return what the version's training recorded for the rows of `window`, if that covers nearly all of them.

    Raises
    ------
    Unfair
        If it recorded another `truth` for the same keys: its training and the window are of different data.
    """
    found = evidence.recorded(named.name, named.run_id)
    if found is None:
        return None
    seen = window[[*keys, truth]].drop_duplicates(list(keys)).rename(columns={truth: "seen"})
    if truth not in found:
        return None
    kept = found.drop_duplicates(list(keys)).merge(seen, on=list(keys))
    if len(kept) < _ENOUGH * len(window):
        return None
    _require_same(named, kept[truth].to_numpy(dtype=float), kept.pop("seen").to_numpy(dtype=float))
    return Answers(kept, RECORDED)


def _require_same(named: Named, recorded: NDArray[np.float64], seen: NDArray[np.float64]) -> None:
    other = ~np.isclose(recorded, seen, rtol=1e-4, equal_nan=True)
    if other.mean() > 1 - _ENOUGH:
        raise Unfair(
            f"{named.name} version {named.version} was tested on the same hours of other data ({other.mean():.0%} of "
            "what was measured differs); name data that are right, and newer than what both learnt from, with data=…"
        )


def unfair(named: Named, start: pd.Timestamp) -> Unfair:
    """Return the error for a version without answers that count."""
    until = evidence.horizon_of_knowledge(named.run_id)
    told = f"knew data until {until:{_TIMES}}" if until is not None else "does not say how far its data reached"
    return Unfair(
        f"{named.name} version {named.version} cannot be judged on the window that begins at {start:{_TIMES}} UTC: its "
        f"training {told}, and recorded no test answers for it; give newer data with data=…"
    )
