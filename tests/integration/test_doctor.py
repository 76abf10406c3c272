"""`doctor` on a machine where everything works, and with one thing broken at a time."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
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
from tests.parts import free_port

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parents[2]


def _doctor(*options: str, **environment: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, str(ROOT / "entrypoints" / "doctor.py"), *options],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    return done.returncode, done.stdout


def _line(said: str, check: str) -> tuple[str, str]:
    """Return the mark of a check and what was said, the remedy included."""
    lines = said.splitlines()
    (at,) = (number for number, line in enumerate(lines) if line[4:].startswith(f"{check}  "))
    remedy = lines[at + 1] if "-> " in lines[at + 1] else ""
    return lines[at][:2].strip(), lines[at][4:] + remedy


@pytest.fixture
def detector(tracking: str, tmp_path: Path) -> str:
    """A detector in Production; the version's number."""
    simulate(tmp_path / "grid", sensors=2, days=30, step_minutes=60, seed=3)
    readings = pd.read_parquet(tmp_path / "grid" / "readings").drop(columns="is_anomaly", errors="ignore")
    with mlflow.start_run() as run:
        info = log_model(AnomalyDetectionModel(n_estimators=5).fit(readings), ANOMALY_MODEL, readings.head(3))
        mlflow.log_metrics({"test_flagged_share": 0.01, "false_alarm_rate": 0.01})
    assert run
    version = registry.register(info.model_uri, ANOMALY_MODEL)
    registry.promote(ANOMALY_MODEL, version=version)
    return version


def test_everything_that_works_is_ok_and_what_is_not_in_use_is_no_fault(detector: str) -> None:
    code, said = _doctor("--gateway", f"http://127.0.0.1:{free_port()}")
    assert code == 0, said
    for check in ("python", "packages", "tracking server", "registry", "artifacts", "data", ANOMALY_MODEL):
        assert _line(said, check)[0] == "ok", said
    for check in ("database", "object store", "gateway"):
        assert _line(said, check)[0] == "--", said
    assert f"version {detector} is in Production, loads and answers 3 rows" in said
    client = MlflowClient()
    experiment = client.get_experiment_by_name("smartgrid-doctor")
    assert client.search_runs([experiment.experiment_id]) == []


def test_a_promotion_that_was_cut_short_is_found_and_mended_by_the_next(detector: str) -> None:
    MlflowClient().delete_registered_model_alias(ANOMALY_MODEL, "champion")
    code, said = _doctor()
    assert code == 1
    mark, line = _line(said, "registry")
    assert (mark, "the alias champion points to nothing" in line, "-e promote" in line) == ("XX", True, True), line
    registry.promote(ANOMALY_MODEL, version=detector)
    assert registry.inconsistencies(ANOMALY_MODEL) == []


def test_a_model_whose_files_are_damaged_is_found(detector: str, tmp_path: Path) -> None:
    (state,) = (tmp_path / "mlartifacts").rglob("arrays.npz")
    state.write_bytes(state.read_bytes()[:100])
    code, said = _doctor()
    mark, line = _line(said, ANOMALY_MODEL)
    assert (code, mark) == (1, "XX")
    assert "artifacts/state/arrays.npz has 100 bytes of" in line


def test_a_server_that_is_down_fails_what_needs_it_and_says_how_to_start_it(tmp_path: Path) -> None:
    code, said = _doctor(MLFLOW_TRACKING_URI=f"http://127.0.0.1:{free_port()}")
    assert code == 1
    for check in ("tracking server", "registry", "artifacts"):
        mark, line = _line(said, check)
        assert mark == "XX"
        assert "cannot be reached" in line and "set MLFLOW_TRACKING_URI" in line
    assert _line(said, "python")[0] == "ok"


def test_a_database_an_object_store_and_data_that_are_not_there_are_said_without_secrets(tracking: str) -> None:
    address = f"postgresql://me:hidden@127.0.0.1:{free_port()}/load"
    environment = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "hidden", "SMARTGRID_HISTORY": address}
    endpoint = f"http://127.0.0.1:{free_port()}"
    code, said = _doctor("--data", "nowhere.csv", MLFLOW_S3_ENDPOINT_URL=endpoint, **environment)
    assert code == 1
    assert "hidden" not in said
    marks = {check: _line(said, check) for check in ("database", "object store", "data")}
    assert {mark for mark, _ in marks.values()} == {"XX"}
    assert "SMARTGRID_HISTORY" in marks["database"][1] and "PGPASSWORD" in marks["database"][1]
    assert endpoint in marks["object store"][1]
    assert "nowhere.csv" in marks["data"][1]


def test_a_port_in_use_is_told_with_the_parameter_that_chooses_another(tracking: str) -> None:
    with socket.socket() as taken:
        try:
            taken.bind(("127.0.0.1", 5101))
        except OSError:
            pytest.skip("port 5101 is in use here")
        taken.listen()
        mark, line = _line(_doctor()[1], "ports")
    assert (mark, "5101 (champion_port)" in line) == ("!!", True)
