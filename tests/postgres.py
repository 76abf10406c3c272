"""A throwaway PostgreSQL cluster on loopback, which a test may kill."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

PASSWORD = "s3cret/päss"


@dataclass(frozen=True)
class Cluster:
    """A cluster below `folder`, listening on `port`."""

    folder: Path
    port: int

    @property
    def url(self) -> str:
        """A URL with a password, which the cluster does not ask for."""
        return f"postgresql://postgres:s3cret%2Fp%C3%A4ss@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start the cluster and wait until it takes connections."""
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        _as_postgres(
            "pg_ctl", "-w", "-D", str(self.folder / "data"), "-l", str(self.folder / "log"), "-o", options, "start"
        )

    def kill(self) -> None:
        """Kill the postmaster at once (SIGKILL) with its children, as the end of a machine would."""
        postmaster = int((self.folder / "data" / "postmaster.pid").read_text().splitlines()[0])
        children = subprocess.run(["pgrep", "-P", str(postmaster)], capture_output=True, text=True, check=False)
        for pid in (postmaster, *map(int, children.stdout.split())):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        end = time.monotonic() + 10
        while time.monotonic() < end and any(Path(f"/proc/{pid}").exists() for pid in children.stdout.split()):
            time.sleep(0.05)  # a new postmaster refuses to start beside a child that is still ending

    def stop(self) -> None:
        """Stop the cluster, if it runs."""
        subprocess.run(
            _command("pg_ctl", "-m", "immediate", "-D", str(self.folder / "data"), "stop"),
            cwd=self.folder, capture_output=True, check=False,
        )  # fmt: skip


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """Make and start a cluster in the existing `folder`; the test is skipped where PostgreSQL is not installed."""
    if not _binaries():
        pytest.skip("PostgreSQL is missing: apt-get install postgresql")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        made = Cluster(folder, int(probe.getsockname()[1]))
    if os.getuid() == 0:
        _open_to_postgres(folder)
    _as_postgres("initdb", "-D", str(folder / "data"), "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8")
    made.start()
    try:
        yield made
    finally:
        made.stop()


def _binaries() -> Path | None:
    """Return the folder of the newest installed server."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).resolve().parent if on_path else None


def _open_to_postgres(folder: Path) -> None:
    shutil.chown(folder, "postgres", "postgres")
    for parent in folder.parents:
        if parent != Path("/") and not parent.stat().st_mode & 0o001 and parent.owner() == "root":
            parent.chmod(parent.stat().st_mode | 0o011)


def _command(program: str, *arguments: str) -> list[str]:
    as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.getuid() == 0 else []
    return [*as_user, f"{_binaries()}/{program}", *arguments]


def _as_postgres(program: str, *arguments: str) -> None:
    folder = arguments[arguments.index("-D") + 1]
    done = subprocess.run(
        _command(program, *arguments), cwd=Path(folder).parent, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
