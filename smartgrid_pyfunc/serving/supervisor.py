"""Serving on one machine: champion, challenger, anomaly model and gateway, kept running and up to date."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from smartgrid_pyfunc.lifecycle.registry import version_in
from smartgrid_pyfunc.schema import ANOMALY_MODEL, LOAD_MODEL, InputError
from smartgrid_pyfunc.serving.configuration import Upstreams
from smartgrid_pyfunc.serving.errors import ServingError
from smartgrid_pyfunc.serving.gateway import Gateway
from smartgrid_pyfunc.serving.model_server import ModelServer, Served
from smartgrid_pyfunc.serving.ports import LOOPBACK, require_free
from smartgrid_pyfunc.serving.processes import adopt_orphans
from smartgrid_pyfunc.serving.role import Place, Role
from smartgrid_pyfunc.serving.settings import GatewaySettings, ServerSettings

_log = logging.getLogger(__name__)

_STEP_SECONDS = 0.2
_PROGRESS_SECONDS = 10.0
_ATTEMPTS = 2  # to start a server, before it is given up at the start
_PAUSE_SECONDS = 5.0  # between attempts to bring nginx up to date

Versions = Mapping[str, str | None]
"""Version by place (its variant's name and model's); None where no version holds the stage."""


def places(settings: ServerSettings) -> dict[str, Place]:
    """Return the places behind the gateway by name."""
    return {
        "champion": Place(LOAD_MODEL, "Production", "champion", settings.champion),
        "challenger": Place(LOAD_MODEL, "Staging", "challenger", settings.challenger, optional=True),
        "anomaly": Place(ANOMALY_MODEL, "Production", "champion", settings.anomaly),
    }


def serve(gateway: GatewaySettings, servers: ServerSettings, folder: Path) -> None:
    """Serve until SIGINT or SIGTERM, then stop everything that was started.

    Parameters
    ----------
    gateway, servers : GatewaySettings, ServerSettings
    folder : Path
        For configuration and logs.

    Raises
    ------
    LifecycleError
        If something cannot be started: no version promoted, a port in use, nginx missing; or the registry not asked.
    InputError
        If the tokens file is missing or broken.
    """
    with _until_asked() as asked, running(gateway, servers, folder, asked) as supervisor:
        if not asked():
            _log.info("serving on %s; Ctrl-C stops", gateway.url)
        while not asked():
            supervisor.tick()
            time.sleep(_STEP_SECONDS)
        _log.info("stopping")


def _never() -> bool:
    return False


@contextmanager
def running(
    gateway: GatewaySettings, servers: ServerSettings, folder: Path, asked: Callable[[], bool] = _never
) -> Iterator[Supervisor]:
    """Start everything, yield its `Supervisor` once all of it answers, and stop it at the end.

    See `serve` for parameters and errors; `asked` tells when to stop waiting. Between start and end somebody has to
    call `Supervisor.tick` for what ends to be restarted and what is promoted to be taken up.
    """
    supervisor = Supervisor(gateway, servers, folder)
    try:
        supervisor.start(asked)
        yield supervisor
    finally:
        supervisor.stop()


class Supervisor:
    """What runs on this machine; see `serve` for the parameters."""

    def __init__(self, gateway: GatewaySettings, servers: ServerSettings, folder: Path) -> None:
        self._settings, self._servers, self._folder = gateway, servers, folder.resolve()
        self._places = places(servers)
        self._gateway = Gateway(gateway, self._folder)
        self._roles = {
            name: Role(place, self._start_server, startup=servers.startup, timeout=gateway.timeout)
            for name, place in self._places.items()
        }
        self._registry = _RegistryWatch(self._places, servers.poll)
        self._upstreams: Upstreams | None = None
        self._tokens = 0  # when the tokens file was changed
        self._outdated = False  # what was read since is not yet in nginx
        self._retired: list[ModelServer] = []
        self._gateway_after = 0.0

    def start(self, asked: Callable[[], bool] = _never) -> None:
        """Start all and return when each answers, or when `asked` to stop."""
        adopt_orphans()
        if self._settings.in_the_clear:
            _log.warning("without TLS tokens cross the network in the clear: give tls_certificate and tls_key")
        self._read_tokens()
        wanted = self._registry.ask()
        _require_champion(wanted)
        self._require_ports(wanted)
        self._tell_missing(wanted)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # logs tell what was asked for
        self._await_servers(wanted, asked)
        if not asked():
            self._start_gateway()

    def _await_servers(self, wanted: Versions, asked: Callable[[], bool]) -> None:
        began = told = time.monotonic()
        while (late := self._late(wanted)) and not asked():
            now = time.monotonic()
            for name in late:
                self._roles[name].tick(now, wanted[name])
            if self._roles["champion"].failures >= _ATTEMPTS:
                raise ServingError(f"The champion does not start; see the logs in {self._folder / 'logs'}.")
            if now - told > _PROGRESS_SECONDS:
                told = now
                _log.info("%.0f s: waiting for %s", now - began, ", ".join(self._places[name].name for name in late))
            time.sleep(_STEP_SECONDS)

    def _late(self, wanted: Versions) -> list[str]:
        """Return whom to wait for; a challenger or anomaly model that does not start keeps nobody from the champion."""
        roles = self._roles.items()
        return [n for n, role in roles if wanted[n] and role.serving is None and role.failures < _ATTEMPTS]

    def tick(self) -> None:
        """Look once after everything: restart what ended, take up what was promoted, read changed tokens."""
        now = time.monotonic()
        wanted = self._registry.latest(now)
        for name, role in self._roles.items():
            try:
                self._retired += role.tick(now, wanted[name])
            except OSError as error:  # a full disk or no more processes: what runs goes on
                _log.error("the %s cannot be looked after: %s", role.place.name, error)
        self._watch_tokens()
        if now >= self._gateway_after:
            self._watch_gateway(now)
        if self._retired and self._upstreams == self._current() and self._gateway.drained():
            self._retire()

    def stop(self) -> None:
        """Stop all of it, the gateway first; nothing is left when this returns."""
        self._registry.close()
        self._gateway.stop()
        for server in self._retired:
            server.stop()
        for role in self._roles.values():
            role.stop()

    def version(self, name: str) -> str | None:
        """Return the version that ``champion``, ``challenger`` or ``anomaly`` serves now."""
        serving = self._roles[name].serving
        return serving.served.version if serving else None

    # ------------------------------------------------------------------------------------------------- start

    def _start_server(self, served: Served, port: int) -> ModelServer:
        return ModelServer(served, port, self._servers, self._settings.timeout, self._folder)

    def _require_ports(self, wanted: Versions) -> None:
        require_free(self._settings.port, self._settings.host, "gateway", "port")
        for name, place in self._places.items():
            if wanted[name]:
                require_free(place.port, LOOPBACK, place.name, f"{name}_port")

    def _tell_missing(self, wanted: Versions) -> None:
        if wanted["anomaly"] is None:
            _log.warning(
                "no version of %s is in Production, so anomalies are answered with 502 until one is: "
                "`mlflow run . -e promote -P model=%s`",
                *(ANOMALY_MODEL, ANOMALY_MODEL),
            )
        if wanted["challenger"] is None and self._settings.canary > 0:
            _log.info("no version of %s is in Staging: the champion answers all clients until one is", LOAD_MODEL)

    def _start_gateway(self) -> None:
        self._upstreams = self._current()
        self._gateway.configure(self._upstreams)
        self._gateway.start()

    # ------------------------------------------------------------------------------------------------ changes

    def _current(self) -> Upstreams:
        """Return where everything is served; a server that is being restarted keeps its former place."""
        former = self._upstreams

        def address(name: str) -> str:
            known = getattr(former, name) if former else f"{LOOPBACK}:{self._places[name].port}"
            return self._roles[name].address or known

        return Upstreams(address("champion"), address("anomaly"), self._roles["challenger"].address)

    def _read_tokens(self) -> None:
        self._tokens = _stamp(self._settings.tokens)
        self._gateway.read_tokens()

    def _watch_tokens(self) -> None:
        """Read the tokens file when it changes; while it is broken the former tokens stay valid."""
        if self._tokens == _stamp(self._settings.tokens):
            return
        try:
            self._read_tokens()
            self._outdated = True
            _log.info("the tokens file changed and was read")
        except (InputError, OSError) as error:
            _log.error("the former tokens stay valid: %s", error)

    def _watch_gateway(self, now: float) -> None:
        """Start nginx again if it has ended, and bring it up to date."""
        upstreams = self._current()
        try:
            if not self._gateway.running:
                _log.error("the gateway has ended: it is started again")
                self._gateway.stop()
                self._start_gateway()
            elif self._outdated or self._upstreams != upstreams:
                self._gateway.configure(upstreams)
                self._gateway.reload()
            self._upstreams, self._outdated = upstreams, False
        except (ServingError, OSError) as error:
            self._gateway_after = now + _PAUSE_SECONDS
            _log.error("%s", error)

    def _retire(self) -> None:
        for server in self._retired:
            _log.info("version %s on port %s has answered its last request", server.served.version, server.port)
            server.stop()
        self._retired.clear()


class _RegistryWatch:
    """Asks the registry now and then, in a thread: one that does not answer must not hold up everything else."""

    def __init__(self, places: Mapping[str, Place], seconds: float) -> None:
        self._places, self._seconds = places, seconds
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="registry")
        self._known: Versions = dict.fromkeys(places)
        self._asked: Future[Versions] | None = None
        self._next = 0.0
        self._failing = False

    def ask(self) -> Versions:
        """Return the versions that hold the stages now."""
        self._known = self._look_up()
        self._next = time.monotonic() + self._seconds
        return self._known

    def latest(self, now: float) -> Versions:
        """Return what the last answer was, and ask anew when it is time."""
        if self._asked is None and now >= self._next:
            self._asked = self._thread.submit(self._look_up)
        if self._asked is not None and self._asked.done():
            self._take(self._asked)
            self._asked, self._next = None, now + self._seconds
        return self._known

    def close(self) -> None:
        """Ask no more."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _take(self, answer: Future[Versions]) -> None:
        try:
            self._known = answer.result()
            self._failing = False
        except Exception as error:  # whatever the registry has, what is served must not end by it
            if not self._failing:
                _log.error("%s What is served stays as it is.", error)
            self._failing = True

    def _look_up(self) -> Versions:
        return {name: version_in(place.model, place.stage) for name, place in self._places.items()}


def _stamp(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _require_champion(wanted: Versions) -> None:
    if wanted["champion"] is None:
        raise ServingError(
            f"No version of {LOAD_MODEL} is in Production: train one with `mlflow run . -e load_forecasting` and "
            f"promote it with `mlflow run . -e promote -P model={LOAD_MODEL}`, or set MLFLOW_TRACKING_URI to the store "
            "that holds one."
        )


@contextmanager
def _until_asked() -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether SIGINT or SIGTERM has come meanwhile."""
    seen: list[int] = []
    former = {number: signal.signal(number, lambda n, _: seen.append(n)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(seen)
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
