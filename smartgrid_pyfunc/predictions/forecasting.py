"""Batch forecasts: every sensor, from one origin or from many in a row, each with what was known at it."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import pandas as pd

from smartgrid_pyfunc import schema
from smartgrid_pyfunc.lifecycle import runs
from smartgrid_pyfunc.predictions.batch import Job, Written, each_answer, log_report, open_job, require_answer
from smartgrid_pyfunc.predictions.columns import FORECASTS
from smartgrid_pyfunc.predictions.moments import Ask, Known, hours_of, moments
from smartgrid_pyfunc.predictions.table import parse_time
from smartgrid_pyfunc.sources import load_hourly

_ANSWER = ("sensor_id", "origin", "horizon", "timestamp", "predicted_load", "lower", "upper", "model", "reason")
_LOG = logging.getLogger(__name__)


def batch_forecast(
    data: str,
    *,
    model: str,
    to: str,
    hours_ahead: int = 24,
    level: float = 0.9,
    since: str = "",
    until: str = "",
    every_hours: int = 24,
    now: str = "",
    sensor_type: str = "power,energy",
) -> Written:
    """Forecast every sensor of `data` with a registered version and write what is not there yet.

    A forecast is made at a moment (00:00 UTC, say) for the `hours_ahead` hours that begin then. It knows the load of
    the hours before, so that the origin of a sensor that is not late is the hour before the moment; of later hours only
    the covariates. Sensors that are late are forecast from their own last hour, up to 168 h ahead of it.

    Parameters
    ----------
    data : str
        See `smartgrid_pyfunc.sources`.
    model : str
        Model URI.
    to : str
        Place of the predictions.
    hours_ahead : int
        [h]
    level : float
        Probability of the interval.
    since, until : str
        ISO 8601, UTC without an offset: moments in [since, until). Both empty: the one after the newest complete hour.
    every_hours : int
        Between two moments [h], counted from 00:00 UTC of the first day.
    now : str
        ISO 8601: the time that the rows get as ``made_at``, and after which no hour is known where `since` and `until`
        are empty; empty: the clock's time.
    sensor_type : str
        Types of readings that count as load, separated by commas.

    Raises
    ------
    InputError
        For bad input, and where no moment is left.
    LifecycleError
        If the version cannot be loaded or fails.
    """
    settings = {
        "data": data,
        "hours_ahead": hours_ahead,
        "level": level,
        "since": since,
        "until": until,
        "every_hours": every_hours,
        "sensor_type": sensor_type,
    }
    first, last = parse_time(since, "since"), parse_time(until, "until")
    with open_job(FORECASTS, model, _ANSWER, to, now, settings) as (job, written):
        source = load_hourly(data, sensor_type=sensor_type, with_ahead=True, on_progress=_LOG.info)
        log_report(source.report, source.frame, data)
        known = Known(source.frame, source.ahead)
        del source
        found = moments(known, first, last, every_hours, parse_time(now, "now"))
        if known.covariates and found[0] <= known.newest:
            runs.set_tags({"smartgrid.perfect_foresight": f"{', '.join(known.covariates)} as measured"})
        work = _Forecasts(job, known, hours_ahead, level)
        for moment in job.steps(found, "origins"):
            work.make(moment)
        work.count()
    return written


@dataclass
class _Forecasts:
    """The forecasts of one batch."""

    job: Job
    known: Known
    hours_ahead: int
    level: float
    silent: int = 0
    without_value: int = 0

    def make(self, moment: int) -> None:
        """Forecast at one moment and write what comes of it, unless all of it is there."""
        asks, silent = self.known.asks(moment, self.hours_ahead)
        self.silent = max(self.silent, silent)
        if not asks or self.job.holds(self._keys(asks)):
            return
        frame = pd.concat([part for ask in asks for part in self._answers(ask)], ignore_index=True)
        ahead = hours_of(frame["timestamp"]) - moment
        frame = frame[(ahead >= 0) & (ahead < self.hours_ahead)]
        self.without_value += int(frame["predicted_load"].isna().sum())
        self.job.add(frame.assign(level=self.level))

    def count(self) -> None:
        """Add what was found to the metrics."""
        self.job.counts["sensors"] = len(self.known.sensors)
        self.job.counts["silent_sensors"] = self.silent
        self.job.counts["rows_without_value"] = self.without_value
        if self.silent:
            _LOG.warning("%d sensors have had no load for a week and were not forecast", self.silent)
        if self.without_value:
            _LOG.warning("%d forecasts have no value; the column reason says why", self.without_value)

    def _keys(self, asks: list[Ask]) -> dict[str, object]:
        parts = [(ask.sensor[row], hours, ask.origin[row]) for ask in asks for row, hours in [ask.targets()]]
        sensor, hours, origin = (np.concatenate(column) for column in zip(*parts, strict=True))
        times = (column.astype("datetime64[h]").astype("datetime64[us]") for column in (hours, origin))
        return {"sensor_id": self.known.sensors[sensor], **dict(zip(("timestamp", "origin"), times, strict=True))}

    def _answers(self, ask: Ask) -> list[pd.DataFrame]:
        params = {"hours_ahead": ask.horizon, "level": self.level}

        def score(members: np.ndarray) -> pd.DataFrame:
            return self.job.predict(self.known.request(ask.part(members)), params)

        return [
            self._refused(ask.part(members), found) if isinstance(found, str) else _rows(found)
            for members, found in each_answer(score, np.arange(len(ask.sensor)))
        ]

    def _refused(self, ask: Ask, reason: str) -> pd.DataFrame:
        """Return rows without a value for a sensor whose request was refused."""
        row, hours = ask.targets()
        origin = ask.origin[row]
        frame = pd.DataFrame({"sensor_id": self.known.sensors[ask.sensor[row]], "horizon": hours - origin})
        for name, column in (("timestamp", hours), ("origin", origin)):
            frame[name] = column.astype("datetime64[h]").astype("datetime64[us]")
        return frame.assign(predicted_load=np.nan, lower=np.nan, upper=np.nan, method=None, reason=reason)


def _rows(answer: pd.DataFrame) -> pd.DataFrame:
    """Return a version's answer with the names and types of the table."""
    require_answer(answer.columns, _ANSWER)
    frame = answer[list(_ANSWER)].rename(columns={"model": "method"})
    for name in ("timestamp", "origin"):
        frame[name] = schema.parse_timestamps(frame[name], name)
    for name in ("predicted_load", "lower", "upper"):
        frame[name] = schema.parse_numbers(frame[name], name)
    return frame
