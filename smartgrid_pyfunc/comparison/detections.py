"""Scores of several detectors on the same labelled readings."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from smartgrid_pyfunc.comparison.fairness import SCORED, Answers, from_record, knows_nothing_of, unfair
from smartgrid_pyfunc.lifecycle import evidence
from smartgrid_pyfunc.lifecycle.scoring import open_scorer
from smartgrid_pyfunc.lifecycle.versions import Named
from smartgrid_pyfunc.schema import ANOMALY_MODEL, LABEL, InputError
from smartgrid_pyfunc.sources import load_readings

KEYS = ["sensor_id", "sensor_type", "timestamp"]

_CONTEXT = pd.Timedelta(days=28)  # of earlier readings that are sent along
_REQUEST = [*KEYS, "value", "latitude", "longitude"]


@dataclass
class ReadingsData:
    """Readings that are read once, when somebody needs them.

    Attributes
    ----------
    place : str
        See `smartgrid_pyfunc.sources`; hourly load is read as readings of the type power.
    """

    place: str

    @cached_property
    def frame(self) -> pd.DataFrame:
        """The readings, sorted by sensor and time."""
        return load_readings(self.place, hourly_as="power").frame


def newest_window(data: ReadingsData, days: int) -> pd.DataFrame:
    """Return keys and labels of the readings of the last `days`.

    Raises
    ------
    InputError
        If the readings have no labels.
    """
    readings = data.frame
    if LABEL not in readings:
        raise InputError(
            "detectors are compared on labelled readings",
            found=f"no column {LABEL}",
            remedy="add it, or name other data",
        )
    recent = readings[readings["timestamp"] > readings["timestamp"].max() - pd.Timedelta(days=days)]
    return _truth(recent)


def recorded_window(named: Named) -> pd.DataFrame | None:
    """Return keys and labels of a version's own test; None if its training recorded none with labels."""
    found = evidence.recorded(ANOMALY_MODEL, named.run_id)
    return None if found is None or LABEL not in found or not found[LABEL].any() else _truth(found)


def _truth(rows: pd.DataFrame) -> pd.DataFrame:
    columns = [*KEYS, LABEL, *(["fault"] if "fault" in rows else [])]
    return rows[columns].drop_duplicates(KEYS).reset_index(drop=True)


def answers(named: Named, window: pd.DataFrame, data: ReadingsData) -> Answers:
    """Return a version's scores and flags for the rows of `window`, given without knowledge of it.

    Raises
    ------
    Unfair
        If there are none.
    """
    start = window["timestamp"].min()
    if found := from_record(named, window, KEYS, LABEL):
        return found
    if not knows_nothing_of(named, start):
        raise unfair(named, start)
    sent = data.frame.loc[data.frame["timestamp"] >= start - _CONTEXT, _REQUEST].reset_index(drop=True)
    with open_scorer(named.uri) as scorer:
        answer = scorer.predict(sent)
    scored = sent[KEYS].assign(
        score=answer["anomaly_score"].to_numpy(dtype=float), flag=answer["is_anomaly"].to_numpy(dtype=bool)
    )
    return Answers(scored.drop_duplicates(KEYS).merge(window[KEYS], on=KEYS), SCORED)


def join(parts: dict[str, pd.DataFrame], window: pd.DataFrame) -> pd.DataFrame:
    """Return the window with ``score NAME`` and ``flag NAME`` of every version."""
    joined = window
    for name, part in parts.items():
        own = part[[*KEYS, "score", "flag"]].rename(columns={"score": f"score {name}", "flag": f"flag {name}"})
        joined = joined.merge(own, on=KEYS, validate="one_to_one")
    if joined.empty:
        raise InputError("the versions must share judged readings", found="none")
    return joined
