"""Database and artifacts backed up together, lost, and restored on other parts: the same model answers the same."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient

from smartgrid_pyfunc.lifecycle import registry
from smartgrid_pyfunc.lifecycle.packaging import log_model
from smartgrid_pyfunc.models.anomaly_detection import AnomalyDetectionModel
from smartgrid_pyfunc.schema import ANOMALY_MODEL
from smartgrid_pyfunc.simulation import simulate
from tests.e2e.support import free_port
from tests.parts import PASSWORD, object_store, postgres, started

pytestmark = pytest.mark.integration
SCRIPT = Path(__file__).resolve().parents[2] / "deploy" / "backup.py"


@contextmanager
def _platform() -> Iterator[dict[str, str]]:
    """A database and a store of their own, as the variables of a tracking server."""
    with postgres() as database, object_store() as store:
        yield store | {"MLFLOW_BACKEND_STORE_URI": database.address, "MLFLOW_ARTIFACTS_DESTINATION": "s3://mlflow"}


@contextmanager
def _served(settings: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with started("tracking-server.sh", free_port(), **settings, MLFLOW_SERVER_OPTIONS="--workers 1") as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
        mlflow.set_tracking_uri(server.address)
        yield
        mlflow.set_tracking_uri(None)


def _backup(action: str, folder: Path, settings: dict[str, str]) -> tuple[int, str]:
    environment = {**os.environ, **settings}
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    environment["PATH"] = os.pathsep.join([*map(str, found), environment["PATH"]])
    done = subprocess.run(
        [sys.executable, str(SCRIPT), action, str(folder)], env=environment, capture_output=True, text=True, timeout=120
    )
    said = done.stdout + done.stderr
    assert "Traceback" not in said and PASSWORD not in said, said
    return done.returncode, said


def test_what_is_restored_elsewhere_serves_by_stage_what_was_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulate(tmp_path / "grid", sensors=2, days=30, step_minutes=60, seed=3)
    readings = pd.read_parquet(tmp_path / "grid" / "readings").drop(columns="is_anomaly", errors="ignore")
    asked, backup = readings.head(200), tmp_path / "backup"
    with _platform() as first:
        with _served(first, monkeypatch):
            with mlflow.start_run():
                info = log_model(AnomalyDetectionModel(n_estimators=5).fit(readings), ANOMALY_MODEL, asked.head(3))
                mlflow.log_metrics({"test_flagged_share": 0.01, "false_alarm_rate": 0.01})
            registry.register(info.model_uri, ANOMALY_MODEL)
            registry.promote(ANOMALY_MODEL)
            before = mlflow.pyfunc.load_model(f"models:/{ANOMALY_MODEL}/Production").predict(asked)
            code, said = _backup("backup", backup, first)  # while the server runs
            assert code == 0, said
        code, said = _backup("backup", backup, first)
        assert (code, "name a new folder" in said) == (1, True)  # no good backup is replaced
        code, said = _backup("restore", backup, first)
        assert (code, "not empty" in said) == (1, True)

    with _platform() as second:
        code, said = _backup("restore", backup, second)
        assert code == 0, said
        with _served(second, monkeypatch):
            after = mlflow.pyfunc.load_model(f"models:/{ANOMALY_MODEL}/Production").predict(asked)
            assert MlflowClient().get_registered_model(ANOMALY_MODEL).aliases == {"champion": "1"}
    pd.testing.assert_frame_equal(after, before)

    (state,) = backup.rglob("arrays.npz")
    state.write_bytes(state.read_bytes()[:-1])
    code, said = _backup("verify", backup, {})
    assert (code, "is damaged" in said, "arrays.npz" in said) == (1, True, True)


def test_a_backup_that_breaks_off_is_not_taken_for_one(tmp_path: Path) -> None:
    settings = {
        "MLFLOW_BACKEND_STORE_URI": f"postgresql://me:{'s3cret'}@127.0.0.1:{free_port()}/mlflow",
        "MLFLOW_ARTIFACTS_DESTINATION": str(tmp_path / "artifacts"),
    }
    code, said = _backup("backup", tmp_path / "backup", settings)
    assert (code, "pg_dump failed" in said, "s3cret" in said) == (1, True, False)
    assert not (tmp_path / "backup").exists()
    code, said = _backup("restore", tmp_path / "backup.partial", settings)
    assert (code, "is no whole backup" in said) == (1, True)
