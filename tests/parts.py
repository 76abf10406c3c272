"""Real parts that tests talk to, started by the scripts of ``deploy/local``: a database."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

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


@contextmanager
def started(script: str, folder: Path, port: int, **environment: str) -> Iterator[str]:
    """Run a script of ``deploy/local`` until the block ends; gives what it says after "ready"."""
    process = subprocess.Popen(
        [str(_LOCAL / script), str(folder), str(port)],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout
    try:
        said = next((line for line in process.stdout if line.startswith("ready ")), "")
        assert said, f"{script} ended with {process.wait()}"
        yield said.removeprefix("ready ").strip()
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
        process.stdout.close()


@contextmanager
def postgres() -> Iterator[str]:
    """A database server of the test's own; gives the URL of an empty database, with its password."""
    if not (shutil.which("initdb") or list(Path("/usr/lib/postgresql").glob("*/bin/initdb"))):
        pytest.skip("PostgreSQL is missing: apt-get install postgresql")
    with part_folder() as folder, started("postgres.sh", folder, free_port(), POSTGRES_PASSWORD="s3cret/@:") as url:
        yield url.replace("smartgrid@", "smartgrid:s3cret%2F%40%3A@")


@contextmanager
def object_store(**environment: str) -> Iterator[dict[str, str]]:
    """An S3 object store of the test's own; gives the environment variables with which clients reach it."""
    if not all(shutil.which(f"swift-{kind}-server") for kind in ("proxy", "account", "container", "object")):
        pytest.skip("Swift is missing: apt-get install swift-proxy swift-account swift-container swift-object")
    secret = "a/secret+of-the-test"
    with (
        part_folder() as folder,
        started("object-store.sh", folder, free_ports(4), AWS_SECRET_ACCESS_KEY=secret, **environment) as url,
    ):
        yield {
            "MLFLOW_S3_ENDPOINT_URL": url,
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
