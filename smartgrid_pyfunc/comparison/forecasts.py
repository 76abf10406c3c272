"""Forecasts of several load models for the same origins: the window, and what each version says about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smartgrid_pyfunc import schema
from smartgrid_pyfunc.comparison.fairness import SCORED, Answers, from_record, knows_nothing_of, unfair
from smartgrid_pyfunc.evaluation.backtest import midnight_origins, truth
from smartgrid_pyfunc.evaluation.comparison import KEYS
from smartgrid_pyfunc.features.panel import Panel, build_panel, parse_hourly
from smartgrid_pyfunc.lifecycle import evidence
from smartgrid_pyfunc.lifecycle.scoring import Scorer, open_scorer
from smartgrid_pyfunc.lifecycle.versions import Named
from smartgrid_pyfunc.predictions.batch import each_answer
from smartgrid_pyfunc.predictions.moments import Known, hours_of
from smartgrid_pyfunc.schema import HOURS_A_DAY, LOAD_MODEL, InputError
from smartgrid_pyfunc.sources import HourlyLoad, load_hourly

Say = Callable[[str], None]
Hours = NDArray[np.int64]

_TRUTH = [*KEYS, "timestamp", "actual", "naive_24", "naive_168"]
_HOUR = pd.Timedelta(hours=1)


@dataclass
class LoadData:
    """Hourly load that is read once, when somebody needs it.

    Attributes
    ----------
    place : str
        See `smartgrid_pyfunc.sources`.
    sensor_type : str
        Types of readings that count as load.
    say : callable
        Takes a sentence on the progress.
    """

    place: str
    sensor_type: str = "power,energy"
    say: Say = field(default=lambda sentence: None)

    @cached_property
    def load(self) -> HourlyLoad:
        """The hours, and covariates of hours without a value."""
        return load_hourly(self.place, sensor_type=self.sensor_type, with_ahead=True, on_progress=self.say)

    @cached_property
    def known(self) -> Known:
        """The hours, ready for the request of any past moment."""
        return Known(self.load.frame, self.load.ahead)


def newest_window(data: LoadData, days: int, hours_ahead: int, timezone: str) -> pd.DataFrame:
    """Return what happened in the last `days` of the data, for every local midnight and hour ahead.

    Returns
    -------
    DataFrame
        ``sensor_id, origin, horizon, timestamp, actual, naive_24, naive_168``; times in UTC.
    """
    panel = build_panel(parse_hourly(data.load.frame))
    last = (panel.hour(np.arange(len(panel.sensor_ids)), panel.origin)).max()
    end = panel.first_cell - panel.first_hour + last
    sensor, origin = midnight_origins(panel, end - days * HOURS_A_DAY + 1, end, timezone)
    horizon = np.tile(np.arange(1, hours_ahead + 1), len(origin))
    found = _truth(panel, np.repeat(sensor, hours_ahead), np.repeat(origin, hours_ahead), horizon)
    if found.empty:
        raise InputError("data must hold a local midnight with observed load", found=f"none in its last {days} days")
    return found


def truth_of(data: LoadData, keys: pd.DataFrame) -> pd.DataFrame:
    """Return what happened, as `newest_window` does, for forecasts given by sensor, origin and horizon."""
    panel = build_panel(parse_hourly(data.load.frame))
    sensor = pd.Index(panel.sensor_ids).get_indexer(pd.Index(keys["sensor_id"]))
    known = keys[sensor >= 0]
    sensor = sensor[sensor >= 0].astype(np.int64)
    origin = panel.first_cell[sensor] + hours_of(known["origin"]) - panel.first_hour[sensor]
    return _truth(panel, sensor, origin, known["horizon"].to_numpy(dtype=np.int64))


def _truth(panel: Panel, sensor: Hours, origin: Hours, horizon: Hours) -> pd.DataFrame:
    last = panel.first_cell[sensor] + panel.n_hours[sensor]
    inside = (origin >= panel.first_cell[sensor]) & (origin + horizon < last)
    return truth(panel, sensor[inside], origin[inside], horizon[inside])


def recorded_window(named: Named) -> pd.DataFrame | None:
    """Return the window of a version's own test, with what happened in it; None if its training recorded none."""
    found = evidence.recorded(LOAD_MODEL, named.run_id)
    return None if found is None else found[_TRUTH]


def answers(named: Named, window: pd.DataFrame, data: LoadData, *, level: float = 0.9) -> Answers:
    """Return a version's forecasts for the rows of `window`, made without knowledge of it.

    Raises
    ------
    Unfair
        If there are none.
    """
    start = window["origin"].min() + _HOUR
    if found := from_record(named, window, KEYS, "actual"):
        return found
    if not knows_nothing_of(named, start):
        raise unfair(named, start)
    with open_scorer(named.uri) as scorer:
        return Answers(_scored(scorer, window, data.known, level, data.say), SCORED)


def _scored(scorer: Scorer, window: pd.DataFrame, known: Known, level: float, say: Say) -> pd.DataFrame:
    """Return the version's forecasts from every moment of the window, each with what was known at it."""
    moments = np.unique(hours_of(window["origin"])) + 1
    hours_ahead, parts, refusals = int(window["horizon"].max()), list[pd.DataFrame](), list[str]()
    for number, moment in enumerate(moments, 1):
        for ask in known.asks(int(moment), hours_ahead)[0]:
            params = {"hours_ahead": ask.horizon, "level": level}

            def score(members: np.ndarray[Any, Any], ask: Any = ask, params: Any = params) -> pd.DataFrame:
                return scorer.predict(known.request(ask.part(members)), params)

            for _, answer in each_answer(score, np.arange(len(ask.sensor))):
                if isinstance(answer, str):
                    refusals.append(answer)
                else:
                    parts.append(answer)
        if number % 10 == 0 or number == len(moments):
            say(f"version {scorer.version}: {number} of {len(moments)} origins")
    if not parts:
        raise InputError(f"{scorer.uri} must answer for the window", found=refusals[0] if refusals else "no forecast")
    return _rows(pd.concat(parts, ignore_index=True))


def _rows(answer: pd.DataFrame) -> pd.DataFrame:
    frame = pd.DataFrame({"sensor_id": answer["sensor_id"], "horizon": answer["horizon"].astype(np.int64)})
    frame["origin"] = pd.DatetimeIndex(schema.parse_timestamps(answer["origin"], "origin"), tz="UTC")
    for name, column in (("predicted", "predicted_load"), ("lower", "lower"), ("upper", "upper")):
        frame[name] = schema.parse_numbers(answer[column], column)
    return frame
