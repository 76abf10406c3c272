"""The history that forecasts start from while a model is served: the newest of a store, else what the model keeps."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Lock, Thread

import numpy as np
from numpy.typing import NDArray

from smartgrid_pyfunc.features.panel import build_panel
from smartgrid_pyfunc.models.history_store import Store, open_store
from smartgrid_pyfunc.models.load_history import StoredHistory

HISTORY_VARIABLE = "SMARTGRID_HISTORY"
_INTERVAL, _TIMEOUT = 60.0, 30.0  # s between reads; s after which one is given up
#: Longest that a request waits for a read [s], without and with the result of one of the last two minutes.
_PATIENCE, _LITTLE_PATIENCE = 5.0, 0.5

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class KnownHistory:
    """A history to forecast from, and what there is to say of it.

    Attributes
    ----------
    history : StoredHistory
        Of every sensor the newest that is known.
    fresh : frozenset of str
        Sensors whose history was read from the store.
    failure : str, optional
        Why the store was not read last time.
    store : str, optional
        Its name in an answer; None without a store.
    """

    history: StoredHistory
    fresh: frozenset[str] = frozenset()
    failure: str | None = None
    store: str | None = None

    def note(self, sensors: NDArray[np.object_], origin: NDArray[np.float64], now: float) -> NDArray[np.object_]:
        """Return for each sensor why its history is not the newest, and how old it is; None where nothing is to say.

        Parameters
        ----------
        sensors : ndarray of str, shape (n,)
        origin : ndarray, shape (n,)
            Last observed hour [hours since 1970-01-01 UTC].
        now : float
            [s since 1970-01-01 UTC]
        """
        notes = np.full(len(sensors), None, dtype=object)
        if self.store is None:
            return notes
        for i, (sensor, hour) in enumerate(zip(sensors, origin.tolist(), strict=True)):
            read = sensor in self.fresh
            why = self.failure or (None if read else f"{self.store} has no newer load of this sensor")
            kept = "read from it before" if read else "stored with the model"
            age = max(0, int(now / 3600 - hour - 1))
            notes[i] = why and f"{why}: forecast from the history {kept}, which ended {age} h ago"
        return notes


class FreshHistory:
    """Reads a store at most once a minute, for all requests that wait for it together.

    Parameters
    ----------
    store : Store
    kept : StoredHistory
        What the model keeps; answers for what the store lacks.
    interval, patience : float
        Least time between two reads, and longest that a request waits for the first one [s].
    clock : callable
        Seconds that only grow.
    """

    def __init__(
        self,
        store: Store,
        kept: StoredHistory,
        *,
        interval: float = _INTERVAL,
        patience: float = _PATIENCE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._kept, self._interval, self._patience, self._clock = store, kept, interval, patience, clock
        self._lock = Lock()
        self._known = KnownHistory(kept, store=store.name)
        self._reading: Future[KnownHistory] | None = None
        self._started = self._read_at = -np.inf

    def current(self) -> KnownHistory:
        """Return the newest history known; waits for a read that is due or under way, but not long.

        A read that fails leaves the last one in force.
        """
        with self._lock:
            if self._reading is None and self._clock() - self._started >= self._interval:
                self._started, self._reading = self._clock(), Future()
                # A thread of its own: a file system that hangs cannot be interrupted, only left behind.
                Thread(target=self._read, args=(self._reading,), daemon=True, name="smartgrid-history").start()
            reading, waited = self._reading, self._clock() - self._started
            known, recent = self._known, self._clock() - self._read_at < 2 * self._interval
        if reading is None:
            return known
        try:
            return reading.result(timeout=max(0.0, (_LITTLE_PATIENCE if recent else self._patience) - waited))
        except TimeoutError:
            return known if recent else self._failed("did not answer in time")

    def _read(self, reading: Future[KnownHistory]) -> None:
        try:
            hours = self._store.read(time.time(), _TIMEOUT)
            fresh = StoredHistory.from_panel(build_panel(hours)) if len(hours) else None
            merged, names = self._kept.updated(fresh)
            known = KnownHistory(merged, names, store=self._store.name)
        except BaseException as error:  # whatever a driver raises: requests must be answered
            _log.warning("%s cannot be read: %s", self._store.name, self._store.masked(error))
            known = self._failed("cannot be read")
        with self._lock:
            self._known, self._reading = known, None
            self._read_at = self._clock() if known.failure is None else self._read_at
        reading.set_result(known)

    def _failed(self, what: str) -> KnownHistory:
        before = self._known
        return KnownHistory(before.history, before.fresh, f"{self._store.name} {what}", self._store.name)


def history_of_environment(kept: StoredHistory) -> FreshHistory | None:
    """Return a reader of the store that the environment variable ``SMARTGRID_HISTORY`` names; None without it.

    Raises
    ------
    InputError
        For a URL of another kind than ``postgresql://``.
    """
    address = os.environ.get(HISTORY_VARIABLE, "").strip()
    return FreshHistory(open_store(address), kept) if address else None
