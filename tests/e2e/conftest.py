"""The README's first command in a fresh clone, once for all tests, and servers of what it promoted."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.support import Clone, Server, clean_environment, free_port, fresh_clone, readme_command, serving


@pytest.fixture(scope="session")
def main_job(repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """The README's first command, exactly as written, in a fresh clone."""
    if shutil.which("python3.11") is None:
        pytest.skip("python3.11 is not on PATH")
    folder = fresh_clone(repo, tmp_path_factory.mktemp("main-job") / "clone")
    start = time.monotonic()
    done = subprocess.run(
        ["bash", "-c", readme_command(repo, "run")],
        cwd=folder,
        env=clean_environment(),
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=2400,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:]
    return Clone(folder, done.stdout, time.monotonic() - start)


@pytest.fixture(scope="session")
def serve(main_job: Clone, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Server]]:
    """``serve("LoadForecastingModel")`` is the server of its Production version, started on first use."""
    running: dict[str, Server] = {}
    contexts = []

    def start(model: str) -> Server:
        if model not in running:
            port = free_port()
            command = ["mlflow", "models", "serve", "-m", f"models:/{model}/Production", "-p", str(port)]
            environment = main_job.environment() | {"MLFLOW_TRACKING_URI": main_job.uri}
            log = tmp_path_factory.mktemp("server") / f"{model}.log"
            context = serving([*command, "--env-manager", "local"], port, log=log, env=environment, cwd=log.parent)
            running[model] = context.__enter__()
            contexts.append(context)
        return running[model]

    yield start
    for context in contexts:
        context.__exit__(None, None, None)
