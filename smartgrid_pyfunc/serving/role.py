"""One place behind the gateway: the server that answers there, and the one that is to take its place.

A role never waits: `Role.tick` looks once and returns, so that one loop watches all of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from smartgrid_pyfunc.serving.model_server import ModelServer, Served
from smartgrid_pyfunc.serving.ports import spare

_log = logging.getLogger(__name__)

_LEAST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0  # between attempts to start a server [s]
_STEADY_SECONDS = 120.0  # after which a server that ends counts as a first failure again
_PING_EVERY, _PINGS_MISSED = 5.0, 6  # a busy server answers late; one that hangs never does

StartServer = Callable[[Served, int], ModelServer]


@dataclass(frozen=True)
class Place:
    """What a role stands for: the version of `model` in `stage` is served as `variant`, first on `port`."""

    model: str
    stage: str
    variant: str
    port: int
    optional: bool = False

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.variant} of {self.model}"


class Role:
    """The servers of one place.

    Parameters
    ----------
    place : Place
    start : callable
        Starts a server of what it is given on a port.
    startup, timeout : float
        Longest time to start, and for the first request [s].
    """

    def __init__(self, place: Place, start: StartServer, *, startup: float, timeout: float) -> None:
        self.place = place
        self.serving: ModelServer | None = None
        self._start, self._startup, self._timeout = start, startup, timeout
        self._coming: ModelServer | None = None
        self._since = self._next_start = self._next_ping = 0.0
        self._pause, self._missed = _LEAST_PAUSE, 0
        self.failures = 0

    @property
    def address(self) -> str | None:
        """Where the place is served now."""
        return self.serving.address if self.serving else None

    @property
    def waiting(self) -> str | None:
        """The version that is starting."""
        return self._coming.served.version if self._coming else None

    def tick(self, now: float, wanted: str | None) -> list[ModelServer]:
        """Look after the servers once.

        Parameters
        ----------
        now : float
            Monotonic clock [s].
        wanted : str or None
            The version that holds the stage.

        Returns
        -------
        list of ModelServer
            Servers that the gateway must not use any more and that are to be stopped once it does not.
        """
        self._watch(now)
        leaving = self._finish_start(now)
        if self._coming is None and now >= self._next_start and self._lacks(wanted):
            self._begin(str(wanted), now)
        if wanted is None and self.place.optional:
            leaving += self._leave()
        return leaving

    def stop(self) -> None:
        """End its servers."""
        for server in (self._coming, self.serving):
            if server is not None:
                server.stop()
        self._coming = self.serving = None

    def _lacks(self, wanted: str | None) -> bool:
        return wanted is not None and (self.serving is None or self.serving.served.version != wanted)

    def _begin(self, version: str, now: float) -> None:
        place = self.place
        port = spare(place.port)
        _log.info("starting the %s: version %s on port %s", place.name, version, port)
        self._coming = self._start(Served(place.model, version, place.variant), port)
        self._since = now

    def _finish_start(self, now: float) -> list[ModelServer]:
        coming = self._coming
        if coming is None:
            return []
        if not coming.running:
            self._fail(coming, "ended while it started", now)
        elif coming.answers():
            if coming.warm_up(self._timeout):
                return self._take_over(coming, now)
            self._fail(coming, "failed on its first request", now)
        elif now - self._since > self._startup:
            self._fail(coming, f"did not answer within {self._startup:.0f} s", now)
        return []

    def _take_over(self, coming: ModelServer, now: float) -> list[ModelServer]:
        former, self.serving, self._coming = self.serving, coming, None
        self._since, self._missed, self._next_ping = now, 0, now + _PING_EVERY
        _log.info("the %s is version %s now", self.place.name, coming.served.version)
        return [former] if former else []

    def _watch(self, now: float) -> None:
        """See whether the server that answers still does."""
        serving = self.serving
        if serving is None:
            return
        if serving.running and now >= self._next_ping:
            self._next_ping = now + _PING_EVERY
            self._missed = 0 if serving.answers() else self._missed + 1
        if not serving.running or self._missed >= _PINGS_MISSED:
            if now - self._since > _STEADY_SECONDS:
                self._pause = _LEAST_PAUSE
            self.serving = None
            self._fail(serving, "ended" if not serving.running else "does not answer any more", now)

    def _fail(self, server: ModelServer, what: str, now: float) -> None:
        lines = server.said().splitlines()
        _log.error(
            "the %s, version %s, %s; next attempt in %.0f s; its log %s ends: %s",
            *(self.place.name, server.served.version, what, self._pause, server.log, lines[-1] if lines else "(empty)"),
        )
        server.stop()
        if server is self._coming:
            self._coming = None
        self.failures += 1
        self._next_start = now + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def _leave(self) -> list[ModelServer]:
        leaving = [server for server in (self._coming, self.serving) if server is not None]
        if leaving:
            _log.info("no version of %s is in %s any more: its %s stops", *self._names())
        self._coming = self.serving = None
        return leaving

    def _names(self) -> tuple[str, str, str]:
        return self.place.model, self.place.stage, self.place.variant
