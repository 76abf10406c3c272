"""Every line of the table of odd requests, against `mlflow models serve` of both models."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.odd_requests import ANOMALY, LOAD, MAX_ROWS, TABLE, Endpoint, Odd, hours, page, records, verify
from tests.e2e.small_models import STORED_SENSOR, saved_models
from tests.e2e.support import free_port, serving

pytestmark = pytest.mark.e2e


def _serve(model: Path, port: int) -> list[str]:
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(model), "-p", str(port)]
    return [*command, "--env-manager", "local"]


def _environment(**variables: str) -> dict[str, str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return os.environ | {"PATH": path} | variables


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return saved_models(tmp_path_factory.mktemp("small-models"))


@pytest.fixture(scope="session")
def direct(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """Both models, served by MLflow alone, with a limit of rows."""
    folder = tmp_path_factory.mktemp("odd-requests")
    environment = _environment(SMARTGRID_MAX_ROWS=str(MAX_ROWS))
    with ExitStack() as stack:
        ports = {name: free_port() for name in (LOAD, ANOMALY)}
        for name, port in ports.items():
            log = folder / f"{name}.log"
            stack.enter_context(serving(_serve(models[name], port), port, log=log, env=environment, cwd=folder))
        yield Endpoint({name: f"http://127.0.0.1:{port}" for name, port in ports.items()})


@pytest.mark.parametrize("odd", TABLE, ids=lambda odd: odd.name)
def test_an_odd_request_is_answered_as_the_table_says(odd: Odd, direct: Endpoint) -> None:
    verify(odd, direct, STORED_SENSOR)


def test_a_slow_client_keeps_nobody_waiting(direct: Endpoint) -> None:
    slow = Endpoint(direct.base, stall=8.0)
    waiting = threading.Thread(target=slow.post, args=(LOAD, records(hours())), kwargs={"slowly": True})
    waiting.start()
    time.sleep(0.5)
    start = time.monotonic()
    status, _ = direct.post(LOAD, records([{"sensor_id": STORED_SENSOR}]))
    spent = time.monotonic() - start
    assert waiting.is_alive()
    assert status == 200
    assert spent < 5
    waiting.join()


def test_names_are_unique() -> None:
    names = [odd.name for odd in TABLE]
    assert len(set(names)) == len(names)


def test_the_page_is_the_table(repo: Path) -> None:
    assert (repo / "docs" / "odd-requests.md").read_text(encoding="utf-8") == page()


@pytest.mark.parametrize("value", ["abc", "0", "-5", "1e6"])
def test_a_senseless_limit_of_rows_stops_the_server_at_its_start(
    value: str, models: dict[str, Path], tmp_path: Path
) -> None:
    done = subprocess.run(
        _serve(models[LOAD], free_port()), env=_environment(SMARTGRID_MAX_ROWS=value), cwd=tmp_path, timeout=180,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert (
        f"SMARTGRID_MAX_ROWS must be a whole number above 0 (environment): found '{value}'; "
        "set it to the most rows that a request may hold, or unset it."
    ) in done.stdout
