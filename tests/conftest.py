"""What all tests share: the checkout, real data where present, and an MLflow store of the test's own."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import hypothesis
import pytest

# Before numpy is imported, here and in what tests start: threads that wait for each other cost more than they bring
# to matrices of this size, above all where several workers share the cores.
for _library in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")

REPO = Path(__file__).resolve().parents[1]

# The first example may pay for imports and caches, so time says nothing; in CI the same examples every time.
hypothesis.settings.register_profile("local", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")

_OF_THE_MAIN_JOB = {"tests/e2e/test_main_job.py", "tests/e2e/test_entry_points.py"}

#: Settings of MLflow that a test inherits; all others would point tests at somebody's server or run.
_INHERITED = {"MLFLOW_ENV_ROOT", "MLFLOW_DISABLE_TELEMETRY"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the journeys first, since they take longest."""
    items.sort(key=lambda item: item.get_closest_marker("e2e") is None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Workers (``-n``) share no fixtures: a file goes to one of them, and all files that need the main job to one."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::", 1)[0]
            return "main job" if file in _OF_THE_MAIN_JOB else file

    config.option.loadscopereorder = False
    return ByFile(config, log)


@pytest.fixture(scope="session")
def repo() -> Path:
    """The checkout's top folder."""
    return REPO


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """``real_data("vic_electricity_hourly")`` is that file's path; the test is skipped where it is missing."""

    def find(name: str) -> Path:
        named = os.environ.get("SMARTGRID_DATA")
        folder = Path(named) if named else REPO.parent / "shared" / "data"
        path = folder / (name if name.endswith(".parquet") else f"{name}.parquet")
        if not path.is_file():
            pytest.skip(f"real data {path.name} is missing: looked in {folder}; SMARTGRID_DATA names another folder")
        return path

    return find


@pytest.fixture(autouse=True)
def _own_environment() -> Iterator[None]:
    """No test sees the user's MLflow settings, and none leaves a variable changed for the next."""
    before = dict(os.environ)
    for name in before:
        if name.lstrip("_").startswith("MLFLOW_") and name not in _INHERITED:
            del os.environ[name]
    os.environ["MPLBACKEND"] = "Agg"
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def _migrated_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database; creating one takes seconds, copying it milliseconds."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("mlflow-template") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def tracking(_migrated_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URI of an isolated MLflow store (tracking and registry) in `tmp_path`, also for the processes a test starts.

    The working folder is `tmp_path`, so that nothing relative lands in the checkout.
    """
    store, artifacts = tmp_path / "mlflow.db", tmp_path / "mlartifacts"
    _copy_store(_migrated_store, store, artifacts)
    uri = f"sqlite:///{store}"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    # Without it a client of a database writes artifacts to ./mlruns, which for `mlflow run` is the project's folder.
    monkeypatch.setenv("_MLFLOW_SERVER_ARTIFACT_ROOT", artifacts.as_uri())
    _forget_mlflow_state()
    yield uri
    _forget_mlflow_state()


def _copy_store(source: Path, target: Path, artifacts: Path) -> None:
    with closing(sqlite3.connect(source)) as template, closing(sqlite3.connect(target)) as copy:
        template.backup(copy)
        copy.execute("UPDATE experiments SET artifact_location = ? || '/' || experiment_id", (artifacts.as_uri(),))
        copy.commit()


def _forget_mlflow_state() -> None:
    """End runs left open and undo ``set_tracking_uri``, ``set_registry_uri`` and ``set_experiment`` in this process."""
    import mlflow

    while mlflow.active_run() is not None:
        mlflow.end_run()
    state: list[tuple[Any, str]] = [
        (mlflow.tracking._tracking_service.utils, "_tracking_uri"),
        (mlflow.tracking._model_registry.utils, "_registry_uri"),
        (mlflow.tracking.fluent, "_active_experiment_id"),
    ]
    for module, name in state:
        assert hasattr(module, name), f"{module.__name__}.{name} is gone: tests would leak into each other"
        setattr(module, name, None)
