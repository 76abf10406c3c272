"""The commands against a team's MLflow: PostgreSQL, an S3 store and a server, whole and with one part broken."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from smartgrid_pyfunc.schema import ANOMALY_MODEL, LOAD_MODEL
from smartgrid_pyfunc.simulation import simulate
from tests.e2e.support import free_port, serving
from tests.parts import Part, object_store, postgres, started, wire

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parents[2]
Environment = dict[str, str]


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("grid") / "grid"
    simulate(folder, sensors=3, days=60, step_minutes=60, seed=7)
    return folder


@pytest.fixture(scope="module")
def database() -> Iterator[Part]:
    with postgres() as part:
        yield part


@pytest.fixture(scope="module")
def store() -> Iterator[Environment]:
    with object_store() as environment:
        yield environment


@pytest.fixture(scope="module")
def settings(database: Part, store: Environment) -> Environment:
    """What a tracking server must know."""
    return store | {
        "MLFLOW_BACKEND_STORE_URI": database.address,
        "MLFLOW_ARTIFACTS_DESTINATION": "s3://mlflow",
        "MLFLOW_SERVER_OPTIONS": "--workers 1",
    }


@pytest.fixture(scope="module")
def server(settings: Environment) -> Iterator[Part]:
    with _server(settings) as part:
        yield part


@pytest.fixture(scope="module")
def guarded(settings: Environment) -> Iterator[Part]:
    """A server that asks for passwords, on the same database and store."""
    with _server(settings, ACCOUNTS="1") as part:
        yield part


@contextmanager
def _server(settings: Environment, **changed: str) -> Iterator[Part]:
    with started("tracking-server.sh", free_port(), **(settings | changed)) as part:
        yield part


def _account(guarded: Part, name: str) -> Environment:
    password = (guarded.folder / f"{name}-password").read_text()
    return {"MLFLOW_TRACKING_USERNAME": name, "MLFLOW_TRACKING_PASSWORD": password}


def _command(script: str, *options: str, uri: str, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, f"entrypoints/{script}.py", *options]
    known = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=known | {"MLFLOW_TRACKING_URI": uri} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _run(script: str, *options: str, uri: str, **environment: str) -> tuple[int, str]:
    process = _command(script, *options, uri=uri, **environment)
    said, _ = process.communicate(timeout=300)
    return process.returncode, said


def _train_detector(grid: Path, uri: str, **environment: str) -> tuple[int, str]:
    return _run("anomaly_detection", "--data", str(grid / "readings"), "--n-estimators", "5", uri=uri, **environment)


def _runs(uri: str, experiment: str = "smartgrid-anomaly-detection") -> list[Run]:
    client = MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    return list(client.search_runs([found.experiment_id])) if found else []


def _versions(uri: str, model: str = ANOMALY_MODEL) -> set[str]:
    return {entry.version for entry in MlflowClient(uri).search_model_versions(f"name = '{model}'")}


# ----------------------------------------------------------------------------------------------- everything works


def test_a_trainer_trains_and_promotes_and_a_server_may_only_read_and_serves(
    guarded: Part, grid: Path, tmp_path: Path
) -> None:
    uri, trainer, reader = guarded.address, _account(guarded, "trainer"), _account(guarded, "server")
    hourly = str(grid / "hourly_load")
    options = ("--data", hourly, "--n-estimators", "3", "--test-days", "7")
    code, said = _run("load_forecasting", *options, uri=uri, **trainer)
    assert code == 0, said
    promotion = ("--model", LOAD_MODEL, "--force", "true")
    code, said = _run("promote", *promotion, uri=uri, **reader)
    assert (code, "does not allow this; use an account that may write" in said) == (1, True), said
    code, said = _run("promote", *promotion, uri=uri, **trainer)
    assert code == 0, said

    port, known = free_port(), {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", f"models:/{LOAD_MODEL}/Production"]
    command += ["-p", str(port), "--env-manager", "local"]
    environment = known | {"MLFLOW_TRACKING_URI": uri} | reader
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
    with serving(command, port, log=tmp_path / "server.log", env=environment, cwd=tmp_path) as served:
        status, answer = served.post({"dataframe_records": [{"sensor_id": "all"}], "params": {"hours_ahead": 2}})
    sensors = pd.read_parquet(hourly)["sensor_id"].nunique()
    assert (status, len(answer["predictions"])) == (200, 2 * sensors)


def test_a_wrong_account_is_refused_with_the_remedy_and_leaves_no_run(guarded: Part, server: Part, grid: Path) -> None:
    before = len(_runs(server.address))
    wrong = {"MLFLOW_TRACKING_USERNAME": "trainer", "MLFLOW_TRACKING_PASSWORD": "wrong-secret"}
    code, said = _train_detector(grid, guarded.address, **wrong)
    assert code == 1
    assert "does not know this account; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" in said
    assert "wrong-secret" not in said and "Traceback" not in said
    assert len(_runs(server.address)) == before


def test_a_host_that_is_not_allowed_is_refused(settings: Environment, grid: Path) -> None:
    options = settings["MLFLOW_SERVER_OPTIONS"] + " --allowed-hosts mlflow.example.com"
    with _server(settings, MLFLOW_SERVER_OPTIONS=options) as strict:
        code, said = _train_detector(grid, strict.address)
    assert code == 1
    assert "does not allow this" in said


def test_the_doctor_finds_every_part_of_a_whole_platform_well(server: Part, store: Environment, database: Part) -> None:
    data = f"{database.address}?table=runs"
    _, said = _run("doctor", "--data", data, uri=server.address, **store)
    marks = {line[4:].split("  ")[0]: line[:2] for line in said.splitlines() if line[2:4] == "  "}
    for check in ("tracking server", "registry", "database", "object store"):
        assert marks[check] == "ok", said
    assert marks["artifacts"] == "!!" and "written and read" in said  # Swift lets boto3 delete nothing
    assert marks["data"] == "XX"  # a table of MLflow's, without the columns of readings


# ----------------------------------------------------------------------------------------------- one part is broken


def _refused_while_storing(uri: str, grid: Path, healthy: str) -> str:
    """Train against `uri`, where artifacts cannot be stored; return what was said."""
    versions, before = _versions(healthy), len(_runs(healthy))
    code, said = _train_detector(grid, uri, MLFLOW_HTTP_REQUEST_MAX_RETRIES="2")
    assert code == 1, said
    assert "Traceback" not in said
    runs = _runs(healthy)
    assert len(runs) == before + 1
    assert (runs[0].info.status, runs[0].data.tags["smartgrid.error"][:16]) == ("FAILED", "LifecycleError: ")
    assert _versions(healthy) == versions
    return said


def test_a_wrong_key_of_the_store_fails_the_run_and_registers_nothing(
    settings: Environment, server: Part, grid: Path
) -> None:
    with _server(settings, AWS_SECRET_ACCESS_KEY="wrong") as broken:
        said = _refused_while_storing(broken.address, grid, server.address)
        _, examined = _run("doctor", uri=broken.address)
    assert "artifact store" in said
    assert "XX  artifacts " in examined and "XX  tracking server" not in examined


def test_a_missing_bucket_fails_the_run_and_registers_nothing(settings: Environment, server: Part, grid: Path) -> None:
    with _server(settings, MLFLOW_ARTIFACTS_DESTINATION="s3://no-such-bucket") as broken:
        said = _refused_while_storing(broken.address, grid, server.address)
    assert "artifact store" in said


def test_an_upload_that_breaks_off_half_way_fails_the_run_and_registers_nothing(
    settings: Environment, server: Part, grid: Path
) -> None:
    port = int(settings["MLFLOW_S3_ENDPOINT_URL"].rsplit(":", 1)[1])
    with wire(port) as cable, _server(settings, MLFLOW_S3_ENDPOINT_URL=f"http://127.0.0.1:{cable.port}") as broken:
        cable.limit = 200_000  # plots and tables pass, the model does not
        said = _refused_while_storing(broken.address, grid, server.address)
        assert cable.sent > cable.limit
    assert "artifact store" in said


def test_a_wrong_password_of_the_database_is_said_by_server_and_client_without_it(
    settings: Environment, database: Part, grid: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    wrong = database.address.replace("smartgrid:", "smartgrid:not-", 1)
    password = wrong.split("smartgrid:", 1)[1].split("@")[0]
    part = Part(
        "tracking-server.sh", database.folder / "refused", free_port(), settings | {"MLFLOW_BACKEND_STORE_URI": wrong}
    )
    with pytest.raises(AssertionError, match=r"tracking-server\.sh ended with 1"):
        part.start()
    assert "password authentication failed" in capfd.readouterr().err
    code, said = _train_detector(grid, wrong)
    assert code == 1
    assert "password authentication failed" in said and "MLFLOW_TRACKING_URI" in said
    assert password not in said and "Traceback" not in said


def test_a_server_that_is_down_is_said_within_half_a_minute(grid: Path) -> None:
    begun = time.monotonic()
    code, said = _train_detector(grid, f"http://127.0.0.1:{free_port()}")
    assert code == 1
    assert "cannot be reached" in said and "Traceback" not in said
    assert time.monotonic() - begun < 30


def test_a_training_outlives_a_restart_of_the_server(server: Part, grid: Path) -> None:
    versions = _versions(server.address)
    options = ("--data", str(grid / "readings"), "--n-estimators", "5")
    process = _command("anomaly_detection", *options, uri=server.address)
    while not any(run.info.status == "RUNNING" for run in _runs(server.address)):
        assert process.poll() is None, process.communicate()
        time.sleep(0.2)
    server.kill()
    time.sleep(3)
    server.start()
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert len(_versions(server.address)) == len(versions) + 1
    assert _runs(server.address)[0].info.status == "FINISHED"
