"""Batch detection: every reading of a stretch of time, judged in the light of its sensor's earlier ones."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smartgrid_pyfunc import schema
from smartgrid_pyfunc.predictions.batch import Job, Written, each_answer, log_report, open_job, require_answer
from smartgrid_pyfunc.predictions.columns import FLAGS
from smartgrid_pyfunc.predictions.table import parse_time
from smartgrid_pyfunc.schema import InputError
from smartgrid_pyfunc.sources import load_readings

#: Readings of so many days before are sent along. A score looks back a week, to readings that look back a week each;
#: only a sensor that stands still for longer than this is judged the same, by a slightly different score.
HISTORY_DAYS = 28

_STRETCH_DAYS = 28  # judged in one request
_ROWS_AT_ONCE = 500_000  # of a request, as far as whole sensors allow
_REQUEST = ("sensor_id", "sensor_type", "timestamp", "value", "latitude", "longitude")
_ANSWER = ("is_anomaly", "anomaly_score", "p_value", "expected_value", "lower", "upper", "reason", "profile")
_NUMBERS = ("anomaly_score", "p_value", "expected_value", "lower", "upper")
_LOG = logging.getLogger(__name__)


def batch_detect(data: str, *, model: str, to: str, since: str = "", until: str = "", now: str = "") -> Written:
    """Judge readings of `data` with a registered version and write what is not there yet.

    Of different values of one sensor, type and time the strangest is kept.

    Parameters
    ----------
    data : str
        See `smartgrid_pyfunc.sources`; hourly load is read as readings of the type power.
    model : str
        Model URI.
    to : str
        Place of the predictions.
    since, until : str
        ISO 8601, UTC without an offset: readings in [since, until). Both empty: those of the newest reading's day (UTC)
        and the day before, so that a daily batch misses none, whenever it runs.
    now : str
        ISO 8601: the time that the rows get as ``made_at``, and after which no reading is known where `since` and
        `until` are empty; empty: the clock's time.

    Raises
    ------
    InputError
        For bad input, and where no reading is left.
    LifecycleError
        If the version cannot be loaded or fails.
    """
    first, last = parse_time(since, "since"), parse_time(until, "until")
    settings = {"data": data, "since": since, "until": until}
    with open_job(FLAGS, model, _ANSWER, to, now, settings) as (job, written):
        source = load_readings(data, hourly_as="power", on_progress=_LOG.info)
        log_report(source.report, source.frame, data)
        work = _Flags(job, source.frame)
        limits = _limits(work.time, first, last, parse_time(now, "now"))
        del source
        for stretch in job.steps(work.stretches(*limits), "parts"):
            work.judge(*stretch)
        work.count()
    return written


def _limits(
    time: NDArray[np.datetime64], since: pd.Timestamp | None, until: pd.Timestamp | None, now: pd.Timestamp | None
) -> tuple[np.datetime64, np.datetime64]:
    """Return which readings are judged, half open."""
    end = time.max() + np.timedelta64(1, "us")
    if since is None and until is None:
        known = time if now is None else time[time <= _plain(now)]
        if not len(known):
            raise InputError("data must begin before now", found=str(time.min()))
        newest = known.max()
        return newest.astype("datetime64[D]") - np.timedelta64(1, "D"), newest + np.timedelta64(1, "us")
    return (time.min() if since is None else _plain(since)), (end if until is None else min(end, _plain(until)))


def _plain(time: pd.Timestamp) -> np.datetime64:
    return time.tz_localize(None).as_unit("us").to_datetime64()


class _Flags:
    """The judged readings of one batch.

    Parameters
    ----------
    job : Job
    readings : DataFrame
        Sorted by sensor and time.
    """

    def __init__(self, job: Job, readings: pd.DataFrame) -> None:
        self._job, self._readings = job, readings[list(_REQUEST)]
        self.time = readings["timestamp"].dt.tz_localize(None).to_numpy().astype("datetime64[us]")
        code, names = pd.factorize(readings["sensor_id"])
        self._starts = np.append(np.searchsorted(code, np.arange(len(names))), len(code))
        self._flagged = self._judged = self._refused = 0

    def stretches(self, since: np.datetime64, until: np.datetime64) -> list[tuple[_Stretch, NDArray[np.int64]]]:
        """Return the requests: a stretch of time, and the numbers of the sensors that are judged in it."""
        found, step = [], np.timedelta64(_STRETCH_DAYS, "D")
        while since < until:
            stretch = _Stretch(since, min(since + step, until))
            found += [(stretch, sensors) for sensors in self._groups(stretch)]
            since += step
        if not found:
            raise InputError(
                "since and until must leave at least one reading of the data",
                found=" to ".join(
                    f"{pd.Timestamp(time):%Y-%m-%d %H:%M}" for time in (self.time.min(), self.time.max())
                ),
            )
        return found

    def judge(self, stretch: _Stretch, sensors: NDArray[np.int64]) -> None:
        """Judge the readings of some sensors in a stretch and write them, unless all of them are there."""
        judged = self._rows(sensors, stretch.since, stretch.until)
        keys = self._readings.iloc[judged]
        if self._job.holds(
            {name: keys[name].reset_index(drop=True) for name in ("sensor_id", "sensor_type", "timestamp")}
        ):
            return
        for members, found in each_answer(lambda some: self._answer(stretch, some), sensors):
            if isinstance(found, str):
                self._refused += 1
                name = self._readings["sensor_id"].iat[self._starts[members[0]]]
                _LOG.warning("sensor %s was refused: %s", name, found)
            else:
                self._flagged += int(found["is_anomaly"].sum())
                self._judged += len(found)
                self._job.add(found)

    def count(self) -> None:
        """Add what was found to the metrics."""
        self._job.counts["sensors"] = len(self._starts) - 1
        self._job.counts["sensors_refused"] = self._refused
        self._job.counts["anomaly_rate"] = self._flagged / self._judged if self._judged else float("nan")

    # ----------------------------------------------------------------------------------------------- pieces

    def _groups(self, stretch: _Stretch) -> list[NDArray[np.int64]]:
        """Return the sensors with readings in `stretch`, as many together as a request holds."""
        number = range(len(self._starts) - 1)
        counts = np.array([self._between(sensor, stretch.history, stretch.until) for sensor in number])
        judged = np.array([self._between(sensor, stretch.since, stretch.until) for sensor in number])
        sensors = np.flatnonzero(judged)
        group = (np.cumsum(counts[sensors]) - 1) // _ROWS_AT_ONCE
        return [sensors[group == number] for number in np.unique(group)]

    def _between(self, sensor: int, since: np.datetime64, until: np.datetime64) -> int:
        begin, end = self._limits(sensor, since, until)
        return end - begin

    def _limits(self, sensor: int, since: np.datetime64, until: np.datetime64) -> tuple[int, int]:
        start, stop = self._starts[sensor], self._starts[sensor + 1]
        begin, end = np.searchsorted(self.time[start:stop], [since, until])
        return int(start + begin), int(start + end)

    def _rows(self, sensors: NDArray[np.int64], since: np.datetime64, until: np.datetime64) -> NDArray[np.int64]:
        return np.concatenate([np.arange(*self._limits(sensor, since, until)) for sensor in sensors])

    def _answer(self, stretch: _Stretch, sensors: NDArray[np.int64]) -> pd.DataFrame:
        rows = self._rows(sensors, stretch.history, stretch.until)
        request = self._readings.iloc[rows].reset_index(drop=True)
        answer = _checked(self._job.predict(request, {}), len(request))
        judged = self.time[rows] >= stretch.since
        columns = ["sensor_id", "sensor_type", "timestamp", "value"]
        frame = pd.concat([request.loc[judged, columns], answer[judged]], axis=1)
        return _strangest(frame.reset_index(drop=True))


@dataclass(frozen=True)
class _Stretch:
    """Readings judged together: those in [since, until)."""

    since: np.datetime64
    until: np.datetime64

    @property
    def history(self) -> np.datetime64:
        """From when on readings are sent along."""
        return self.since - np.timedelta64(HISTORY_DAYS, "D")


def _checked(answer: pd.DataFrame, rows: int) -> pd.DataFrame:
    """Return the part of a version's answer that the table takes, with numbers for nulls."""
    require_answer(answer.columns, _ANSWER)
    if len(answer) != rows:
        raise InputError("the version must answer row for row", found=f"{len(answer)} rows for {rows}")
    frame = answer[list(_ANSWER)].copy()
    for name in _NUMBERS:
        frame[name] = schema.parse_numbers(frame[name], name)
    return frame


def _strangest(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each key: of different values of one instant the strangest."""
    key = ["sensor_id", "sensor_type", "timestamp"]
    if not frame.duplicated(key).any():
        return frame
    order = frame.sort_values(["p_value", "value"], kind="stable", na_position="last")
    return order.drop_duplicates(key).sort_index()
