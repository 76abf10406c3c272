"""The whole of serving in the way users start it, with small models in a store of its own."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from mlflow import MlflowClient

from tests.e2e.support import free_port

LOAD, ANOMALY = "LoadForecastingModel", "AnomalyDetectionModel"
FORECAST, ANOMALIES = "/api/v1/analytics/predictive/load-forecast", "/api/v1/analytics/anomalies/ml"
_STARTUP_SECONDS = 300


def register(uri: str, models: Mapping[str, Path]) -> None:
    """Register three versions of the load model (1 in Production, 2 in Staging) and one of the anomaly model."""
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    for name, versions in ((LOAD, 3), (ANOMALY, 1)):
        client.create_registered_model(name)
        for _ in range(versions):
            client.create_model_version(name, str(models[name]))
    for name, version, stage in ((LOAD, 1, "Production"), (LOAD, 2, "Staging"), (ANOMALY, 1, "Production")):
        client.transition_model_version_stage(name, str(version), stage)


def promote(uri: str, name: str, version: int, stage: str = "Production") -> None:
    """Promote as users do, in a process of its own; what the decision's run keeps lies beside the store."""
    script, store = _repo() / "entrypoints" / "promote.py", Path(uri.removeprefix("sqlite:///"))
    done = subprocess.run(
        [sys.executable, str(script), "--model", name, "--version", str(version), "--stage", stage, "--force", "true"],
        cwd=store.parent, env=os.environ | {"MLFLOW_TRACKING_URI": uri}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def add_client(tokens: Path, client: str, action: str = "add") -> str:
    """Change the tokens file as users do; return the new token."""
    done = subprocess.run(
        [sys.executable, "entrypoints/tokens.py", "--client", client, "--tokens", str(tokens), "--action", action],
        cwd=_repo(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip()


def _repo() -> Path:
    return Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Answer:
    """Status, headers by lower-case name, text."""

    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        """The parsed text."""
        return json.loads(self.text)


@dataclass(frozen=True)
class Served:
    """A running `serve`: its process, the gateway's port, the folders and files it uses."""

    process: subprocess.Popen[bytes]
    port: int
    folder: Path
    tokens: Path
    uri: str
    output: Path

    def ask(self, path: str, token: str, body: Any = None, content_type: str = "application/json") -> Answer:
        """GET, or POST where there is a body (JSON-able, or bytes as they are)."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {token}"} | ({"Content-Type": content_type} if data is not None else {})
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request("GET" if data is None else "POST", path, data, headers)
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read().decode())
        finally:
            connection.close()

    def said(self) -> str:
        """Return what it has printed."""
        return self.output.read_text()

    def wait_for(self, text: str, seconds: float = _STARTUP_SECONDS) -> None:
        """Wait until it has printed `text`."""
        end = time.monotonic() + seconds
        while text not in self.said():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < end, self.said() + self.logs()
            time.sleep(0.1)

    def logs(self) -> str:
        """Return the ends of the servers' logs, for messages of failed tests."""
        files = sorted((self.folder / "logs").glob("*.log"))
        return "".join(f"\n--- {file.name}\n{file.read_text()[-2000:]}" for file in files)

    def log(self) -> list[dict[str, Any]]:
        """Return the gateway's access log."""
        return [json.loads(line) for line in (self.folder / "logs" / "access.log").read_text().splitlines()]

    def descendants(self) -> list[psutil.Process]:
        """Return every process that it has started, directly or not."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def server(self, variant: str, model: str = LOAD) -> list[psutil.Process]:
        """Return the processes that serve a variant."""
        wanted = f"X-Model-Name:{model} X-Model-Version:"
        found = [p for p in self.descendants() if p.name() != "nginx"]
        return [p for p in found if wanted in _headers(p) and _headers(p).endswith(f"Variant:{variant}")]


def _headers(process: psutil.Process) -> str:
    try:
        return process.environ().get("UVICORN_HEADERS", "")
    except psutil.Error:
        return ""


def options(tokens: Path, folder: Path, **more: Any) -> dict[str, Any]:
    """Return parameters of `serve` with free ports; those of `more` on top."""
    ports = {name: free_port() for name in ("port", "champion_port", "challenger_port", "anomaly_port")}
    return {**ports, "tokens": tokens, "folder": folder, "poll_seconds": 0.5, **more}


@contextmanager
def serving_all(command: list[str], chosen: Mapping[str, Any], uri: str, output: Path) -> Iterator[Served]:
    """Run a command that serves, until it says so; at the end nothing of it is left, whatever the test did."""
    environment = os.environ | {"MLFLOW_TRACKING_URI": uri, "PATH": _path(), "SMARTGRID_MAX_ROWS": "20000"}
    with output.open("w") as sink:
        process = subprocess.Popen(
            command, stdout=sink, stderr=subprocess.STDOUT, cwd=_repo(), env=environment, start_new_session=True
        )
    served = Served(process, chosen["port"], chosen["folder"], chosen["tokens"], uri, output)
    try:
        served.wait_for("serving on http")
        yield served
    finally:
        left = served.descendants() if process.poll() is None else []
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) == 0, served.said()
        _, alive = psutil.wait_procs(left, timeout=20)
        for one in alive:
            one.kill()
        assert alive == [], "processes were left behind"


def _path() -> str:
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def script(chosen: Mapping[str, Any]) -> list[str]:
    """Return the command line of the entry point's script."""
    return [sys.executable, "entrypoints/serve.py", *(w for n, v in chosen.items() for w in (f"--{n}", str(v)))]


def project(chosen: Mapping[str, Any]) -> list[str]:
    """Return the command line with `mlflow run`."""
    parameters = [w for n, v in chosen.items() for w in ("-P", f"{n}={v}")]
    return [sys.executable, "-m", "mlflow", "run", ".", "-e", "serve", "--env-manager", "local", *parameters]
