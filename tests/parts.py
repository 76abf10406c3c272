"""Real parts that tests talk to, started by the scripts of ``deploy/local``: a database, an object store."""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest

PASSWORD = "s3cret/päss@:"

_LOCAL = Path(__file__).resolve().parents[1] / "deploy" / "local"


def free_port() -> int:
    """Return a port of the loopback that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def part_folder() -> Iterator[Path]:
    """A folder that another user of this machine may enter: servers that refuse to run as root change to theirs."""
    with tempfile.TemporaryDirectory(prefix="smartgrid-part-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        yield Path(name)


@dataclass
class Part:
    """A script of ``deploy/local`` that runs: what it says after "ready" is its `address`."""

    script: str
    folder: Path
    port: int
    environment: dict[str, str]
    address: str = ""
    _process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Run the script and wait until it is ready; after `kill` it finds what it has kept."""
        self._process = subprocess.Popen(
            [str(_LOCAL / self.script), str(self.folder), str(self.port)],
            env=os.environ | self.environment,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._process.stdout
        said = next((line for line in self._process.stdout if line.startswith("ready ")), "")
        assert said, f"{self.script} ended with {self._process.wait()}"
        self.address = self.address or said.removeprefix("ready ").strip()

    def stop(self) -> None:
        """Ask the script to end, and wait for it."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill everything at once (SIGKILL), as the end of a machine would."""
        assert self._process
        inside = psutil.Process(self._process.pid).children(recursive=True)
        for process in inside:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(inside, timeout=10)  # a new server refuses to start beside one that is still ending
        self._end(signal.SIGKILL)

    def _end(self, number: int) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)
            self._process.wait(timeout=60)
            assert self._process.stdout
            self._process.stdout.close()
            self._process = None


@contextmanager
def started(script: str, port: int, **environment: str) -> Iterator[Part]:
    """Run a script of ``deploy/local`` until the block ends."""
    with part_folder() as folder:
        part = Part(script, folder, port, environment)
        try:
            part.start()
            yield part
        finally:
            part.stop()


@contextmanager
def postgres() -> Iterator[Part]:
    """A database server of the test's own; the address is that of an empty database, with its password."""
    if not (shutil.which("initdb") or list(Path("/usr/lib/postgresql").glob("*/bin/initdb"))):
        pytest.skip("PostgreSQL is missing: apt-get install postgresql")
    with started("postgres.sh", free_port(), POSTGRES_PASSWORD=PASSWORD) as part:
        part.address = part.address.replace("smartgrid@", f"smartgrid:{quote(PASSWORD, safe='')}@")
        yield part


@contextmanager
def object_store(**environment: str) -> Iterator[dict[str, str]]:
    """An S3 object store of the test's own; gives the environment variables with which clients reach it."""
    if not all(shutil.which(f"swift-{kind}-server") for kind in ("proxy", "account", "container", "object")):
        pytest.skip("Swift is missing: apt-get install swift-proxy swift-account swift-container swift-object")
    secret = "a/secret+of-the-test"
    with started("object-store.sh", free_ports(4), AWS_SECRET_ACCESS_KEY=secret, **environment) as part:
        yield {
            "MLFLOW_S3_ENDPOINT_URL": part.address,
            "AWS_ACCESS_KEY_ID": "smartgrid:smartgrid",
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }


def free_ports(number: int) -> int:
    """Return the first of `number` neighbouring ports that nobody uses at this moment."""
    while True:
        first = free_port()
        try:
            for port in range(first, first + number):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first


@contextmanager
def wire(target: int) -> Iterator[Wire]:
    """A connection to the port `target` of the loopback that can be cut."""
    cable = Wire(target)
    try:
        yield cable
    finally:
        cable.close()


class Wire:
    """Passes on what comes to `port`, until `limit` bytes have gone to the target; then it drops every connection."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.sent = 0
        self.limit: int | None = None
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Accept nothing any more."""
        self.limit = 0
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                threading.Thread(target=self._join, args=(near,), daemon=True).start()

    def _join(self, near: socket.socket) -> None:
        with near, suppress(OSError), socket.create_connection(("127.0.0.1", self._target)) as far:
            ends = {near: far, far: near}
            while True:
                for end in select.select(list(ends), [], [])[0]:
                    data = end.recv(65536)
                    if not data or (end is near and self._cut(len(data))):
                        return
                    ends[end].sendall(data)

    def _cut(self, size: int) -> bool:
        self.sent += size
        return self.limit is not None and self.sent > self.limit
