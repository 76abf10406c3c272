"""One `mlflow models serve` of one version on loopback."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smartgrid_pyfunc.schema import ANOMALY_MODEL, LOAD_MODEL
from smartgrid_pyfunc.serving.ports import LOOPBACK
from smartgrid_pyfunc.serving.processes import Process
from smartgrid_pyfunc.serving.settings import ServerSettings

_PING_SECONDS = 5.0
_STOP_SECONDS = 20.0
# What a server is asked before clients are: the first request pays for caches.
_FIRST_REQUESTS: Mapping[str, dict[str, Any]] = {
    LOAD_MODEL: {"dataframe_records": [{"sensor_id": "all"}], "params": {"hours_ahead": 1}},
    ANOMALY_MODEL: {
        "dataframe_records": [
            {"sensor_id": "warm-up", "sensor_type": "power", "timestamp": "2026-01-01T00:00:00Z", "value": 1.0}
        ]
    },
}


@dataclass(frozen=True)
class Served:
    """What a server is to serve: a version of a registered model, as which variant (champion, challenger)."""

    model: str
    version: str
    variant: str


class ModelServer:
    """A running server of one version.

    Parameters
    ----------
    served : Served
    port : int
        On loopback.
    settings : ServerSettings
    timeout : int
        Longest time of a request [s].
    folder : Path
        For its log and, until it stops, its temporary files.
    """

    def __init__(self, served: Served, port: int, settings: ServerSettings, timeout: int, folder: Path) -> None:
        self.served, self.port = served, port
        self.log = folder / "logs" / f"{served.model}-{served.variant}.log"
        self._scratch = folder / "temp" / f"server-{port}"
        for place in (self.log.parent, self._scratch):
            place.mkdir(parents=True, exist_ok=True)
        command = _command(served, port, settings, timeout)
        self._process = Process(command, self.log, _environment(served, self._scratch))

    @property
    def address(self) -> str:
        """Host and port."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def running(self) -> bool:
        """False once the server has ended."""
        return self._process.running

    def answers(self) -> bool:
        """Tell whether the server says that it has loaded its model."""
        return self._status("GET", "/ping", None, _PING_SECONDS) == 200

    def warm_up(self, seconds: float) -> bool:
        """Ask it what clients will ask; False if it fails on that."""
        body = json.dumps(_FIRST_REQUESTS[self.served.model])
        status = self._status("POST", "/invocations", body, seconds)
        return status is not None and status < 500

    def _status(self, method: str, path: str, body: str | None, seconds: float) -> int | None:
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=seconds)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def said(self) -> str:
        """Return the last lines of its log."""
        return self._process.said()

    def stop(self) -> None:
        """End it; requests that it works on are answered first."""
        self._process.stop(_STOP_SECONDS)
        shutil.rmtree(self._scratch, ignore_errors=True)


def _command(served: Served, port: int, settings: ServerSettings, timeout: int) -> list[str]:
    return [
        *(sys.executable, "-m", "mlflow", "models", "serve"),
        *("--model-uri", f"models:/{served.model}/{served.version}"),
        *("--host", LOOPBACK, "--port", str(port), "--workers", str(settings.workers)),
        # The gateway gives up first, so that its own words reach the client.
        *("--timeout", str(timeout + 5), "--env-manager", settings.env_manager),
    ]


def _environment(served: Served, scratch: Path) -> dict[str, str]:
    """Return the server's environment; its answers name the version and variant that gave them."""
    names = {"Name": served.model, "Version": served.version, "Variant": served.variant}
    own = {
        "UVICORN_HEADERS": " ".join(f"X-Model-{name}:{value}" for name, value in names.items()),
        "UVICORN_ACCESS_LOG": "false",  # the gateway has one
        "UVICORN_TIMEOUT_GRACEFUL_SHUTDOWN": str(int(_STOP_SECONDS) - 5),
        "TMPDIR": str(scratch),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
    }
    # The run of the launcher is not the server's.
    return {name: value for name, value in os.environ.items() if name != "MLFLOW_RUN_ID"} | own
