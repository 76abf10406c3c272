"""`mlflow run` of every entry point on data of the user's own, and what happens when it goes wrong."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.e2e.support import Clone

pytestmark = pytest.mark.e2e


def run(job: Clone, store: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``mlflow run .`` in the clone against a store of the test's own."""
    environment = job.environment() | {"MLFLOW_TRACKING_URI": store}
    environment |= {n: v for n, v in os.environ.items() if n == "_MLFLOW_SERVER_ARTIFACT_ROOT"}
    return job.run("mlflow", "run", ".", "--env-manager", "local", *arguments, env=environment)


@pytest.fixture(scope="module")
def grid(main_job: Clone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small simulated grid, made by the entry point."""
    folder = tmp_path_factory.mktemp("simulated") / "grid"
    store = f"sqlite:///{folder.parent / 'mlflow.db'}"
    done = run(
        main_job, store, "-e", "simulate", "-P", f"to={folder}", "-P", "sensors=4", "-P", "days=70",
        "-P", "step_minutes=60", "-P", "file_format=csv",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_simulated_files_train_both_models_in_a_chosen_experiment(main_job: Clone, grid: Path, tracking: str) -> None:
    load = run(
        main_job, tracking, "-e", "load_forecasting", "-P", f"data={grid / 'hourly_load'}", "-P", "n_estimators=20",
        "-P", "test_days=14", "-P", "timezone=Australia/Melbourne", "-P", "country=AU-VIC",
        "--experiment-name", "mine",
    )  # fmt: skip
    assert load.returncode == 0, load.stderr[-3000:]
    anomaly = run(
        main_job, tracking, "-e", "anomaly_detection", "-P", f"data={grid / 'readings'}", "-P", "n_estimators=20",
        "-P", "false_alarm_rate=0.02", "--experiment-name", "mine",
    )  # fmt: skip
    assert anomaly.returncode == 0, anomaly.stderr[-3000:]
    api = MlflowClient(tracking_uri=tracking)
    runs = api.search_runs([api.get_experiment_by_name("mine").experiment_id])
    assert len(runs) == 2  # the launcher's own run is used, not a second one
    assert {entry.info.status for entry in runs} == {"FINISHED"}
    assert {entry.data.params.get("country") for entry in runs} == {"AU-VIC", None}
    assert {"temperature", "is_holiday"} <= set(
        next(e.data.tags["smartgrid.perfect_foresight"] for e in runs if "country" in e.data.params)
        .replace(" as measured", "")
        .split(", ")
    )


def test_bad_data_fail_the_run_with_a_sentence(main_job: Clone, tracking: str, tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text("sensor_id,timestamp,avg_value\na,2026-01-01T00:00:00Z,12\na,1767225600,x\n")
    done = run(main_job, tracking, "-e", "load_forecasting", "-P", f"data={tmp_path / 'bad.csv'}")
    assert done.returncode != 0
    assert "bad.csv" in done.stderr
    assert "Traceback" not in done.stderr.split("mlflow.exceptions")[0].split("ERROR mlflow.cli")[0]
    runs = MlflowClient(tracking_uri=tracking).search_runs(
        [e.experiment_id for e in MlflowClient(tracking_uri=tracking).search_experiments()]
    )
    assert {entry.info.status for entry in runs} == {"FAILED"}
    assert len(runs) == 2


@pytest.mark.parametrize(
    ("parameter", "value"),
    [("n_estimators", "0"), ("hours_ahead", "169"), ("timezone", "Mars/Olympus"), ("covariates", "wind"),
     ("country", "XX"), ("test_days", "-1"), ("max_depth", "deep"), ("register", "perhaps")],
)  # fmt: skip
def test_bad_parameters_are_refused_by_name(main_job: Clone, grid: Path, parameter: str, value: str) -> None:
    done = main_job.run(
        "python", "entrypoints/load_forecasting.py", "--data", str(grid / "hourly_load"), f"--{parameter}", value,
        env=main_job.environment() | {"MLFLOW_TRACKING_URI": f"sqlite:///{grid.parent / 'refused.db'}"},
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert value in done.stderr


@pytest.mark.parametrize("name", ["main", "load_forecasting", "anomaly_detection", "promote", "simulate",
                                  "training_pipeline"])  # fmt: skip
def test_every_entry_point_explains_itself(main_job: Clone, name: str) -> None:
    done = main_job.run("python", f"entrypoints/{name}.py", "--help")
    assert done.returncode == 0
    assert "--" in done.stdout


def test_the_former_command_line_trains(main_job: Clone, grid: Path, tracking: str) -> None:
    environment = main_job.environment() | {n: v for n, v in os.environ.items() if "MLFLOW_" in n}
    done = main_job.run(
        "python", "entrypoints/training_pipeline.py", "--model", "anomaly_detection", "--data", str(grid / "readings"),
        env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert MlflowClient(tracking_uri=tracking).get_model_version("AnomalyDetectionModel", "1").status == "READY"
