"""Fresh clones, their environments and model servers, as a user would have them."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_STARTUP_SECONDS = 180


@dataclass(frozen=True)
class Clone:
    """A fresh clone with the environment that the README's command made in it."""

    folder: Path
    output: str
    seconds: float

    @property
    def uri(self) -> str:
        """The MLflow store that the command left in the clone."""
        return f"sqlite:///{self.folder / 'mlflow.db'}"

    def environment(self) -> dict[str, str]:
        """Return the variables of a shell in which the clone's environment is active."""
        venv = self.folder / ".venv"
        clean = clean_environment()
        return clean | {"VIRTUAL_ENV": str(venv), "PATH": f"{venv / 'bin'}{os.pathsep}{clean['PATH']}"}

    def run(self, *command: str, **settings: Any) -> subprocess.CompletedProcess[str]:
        """Run a command in the clone as a user would, and return what it printed."""
        merged = {"cwd": self.folder, "env": self.environment(), "timeout": 900, **settings}
        return subprocess.run(command, text=True, capture_output=True, check=False, **merged)


def clean_environment() -> dict[str, str]:
    """Return the environment without what the test runner's own Python and MLflow put there."""
    dropped = {"VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "MPLBACKEND"}
    kept = {n: v for n, v in os.environ.items() if n not in dropped and not n.lstrip("_").startswith("MLFLOW_")}
    own = os.environ.get("VIRTUAL_ENV")
    parts = [p for p in kept["PATH"].split(os.pathsep) if not own or not p.startswith(own)]
    return kept | {"PATH": os.pathsep.join(parts)}


def fresh_clone(repo: Path, target: Path) -> Path:
    """Clone what is committed, without the checkout's ignored files."""
    subprocess.run(["git", "clone", "--quiet", str(repo), str(target)], check=True)
    return target


def readme_command(repo: Path, name: str) -> str:
    """Return the command in the README's block of that name."""
    found = re.search(rf"<!-- command: {name} -->\n```\w*\n(.*?)\n```", (repo / "README.md").read_text(), re.DOTALL)
    assert found, name
    return found.group(1)


def free_port() -> int:
    """Return a port on which nothing listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Server:
    """A running `mlflow models serve`."""

    port: int

    def post(self, body: Any, content_type: str = "application/json") -> tuple[int, Any]:
        """Send `body` (JSON-able, or bytes as they are) and return the status and the parsed answer."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/invocations", data, {"Content-Type": content_type}
        )
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return answer.status, _strict_json(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, _strict_json(error.read())


def _strict_json(text: bytes) -> Any:
    def refuse(name: str) -> Any:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


@contextmanager
def serving(command: list[str], port: int, **settings: Any) -> Iterator[Server]:
    """Start a server, wait until it answers, and stop its whole process group afterwards."""
    log = settings.pop("log")
    with log.open("w") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT, start_new_session=True, **settings)
    try:
        _wait_until_healthy(process, port, log)
        yield Server(port)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=30)


def _wait_until_healthy(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + _STARTUP_SECONDS * 3
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()[-4000:]
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise AssertionError(f"the server did not answer: {log.read_text()[-4000:]}")
