"""Runs against a real SQLite store: where they are opened, how they end, what they say."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import git
import mlflow
import numpy as np
import pandas as pd
import pytest

from smartgrid_pyfunc import __version__
from smartgrid_pyfunc.lifecycle import runs
from smartgrid_pyfunc.lifecycle.errors import LifecycleError, mask_secrets
from smartgrid_pyfunc.lifecycle.server import bounded_wait

ROOT = Path(__file__).resolve().parents[2]
integration = pytest.mark.integration
EXPERIMENT = "smartgrid-test"


@pytest.fixture
def store(tracking: str) -> mlflow.MlflowClient:
    return mlflow.MlflowClient()


def _fail(error: BaseException) -> str:
    """Return the id of a run whose block raised `error`."""
    with pytest.raises(type(error)), runs.tracked_run(EXPERIMENT, run_name="fails") as run:
        raise error
    return run.info.run_id


def _launcher(store: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch, experiment: str = "0") -> str:
    """Do what ``mlflow run`` does before it starts the script."""
    run_id = store.create_run(experiment).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", experiment)
    return run_id


def _name(store: mlflow.MlflowClient, run: mlflow.entities.Run) -> str:
    return store.get_experiment(run.info.experiment_id).name


# ----------------------------------------------------------------------------------------------- how a run ends


@integration
def test_a_run_that_returns_is_finished_and_says_where_it_comes_from(store):
    with runs.tracked_run(EXPERIMENT, run_name="one", tags={"mine": "1"}, description="*note*") as run:
        pass
    run = store.get_run(run.info.run_id)
    tags = run.data.tags
    assert (run.info.status, run.info.run_name, _name(store, run)) == ("FINISHED", "one", EXPERIMENT)
    assert (tags["mine"], tags["mlflow.note.content"], tags["smartgrid.version"]) == ("1", "*note*", __version__)
    assert tags["mlflow.source.git.commit"] == git.Repo(ROOT).head.commit.hexsha
    assert tags["smartgrid.reproduce"].startswith("python ")
    assert "smartgrid.error" not in tags
    assert mlflow.active_run() is None


@integration
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("no such column\nsecond line"), "ValueError: no such column"),
        (OSError("postgresql://me:s3cret@db/x is away"), "OSError: postgresql://***@db/x is away"),
        (KeyboardInterrupt(), "interrupted from the keyboard"),
        (SystemExit(3), "exited with 3"),
        (SystemExit("bad data"), "exited with bad data"),
    ],
)
def test_a_run_that_raises_is_failed_with_the_reason(store, error, reason):
    run = store.get_run(_fail(error))
    assert (run.info.status, run.data.tags["smartgrid.error"]) == ("FAILED", reason)
    assert run.info.end_time is not None


@integration
def test_leaving_with_exit_code_zero_is_no_failure(store):
    run = store.get_run(_fail(SystemExit(0)))
    assert run.info.status == "FINISHED"
    assert "smartgrid.error" not in run.data.tags


@integration
def test_a_run_ended_inside_the_block_still_fails_with_it(store):
    with pytest.raises(ValueError, match="late"), runs.tracked_run(EXPERIMENT, run_name="early") as run:
        mlflow.end_run()
        raise ValueError("late")
    assert store.get_run(run.info.run_id).info.status == "FAILED"


@integration
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_the_run_failed(store, number):
    code = f"""
        import sys, time
        sys.path.insert(0, {str(ROOT)!r})
        from smartgrid_pyfunc.lifecycle.runs import tracked_run
        with tracked_run({EXPERIMENT!r}, run_name="signalled") as run:
            print(run.info.run_id, flush=True)
            time.sleep(60)
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        run_id = process.stdout.readline().strip()
        process.send_signal(number)
        code = process.wait(timeout=60)
    run = store.get_run(run_id)
    assert code != 0
    assert run.info.status == "FAILED"
    assert ("keyboard" if number == signal.SIGINT else number.name) in run.data.tags["smartgrid.error"]


@integration
def test_signal_handlers_are_put_back(store):
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)]
    with runs.tracked_run(EXPERIMENT, run_name="polite"):
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)] == before


# ----------------------------------------------------------------------------------------------- which run is opened


@integration
def test_a_launcher_in_default_is_left_and_linked_both_ways(store, monkeypatch):
    launcher = _launcher(store, monkeypatch)
    ids = []
    for experiment in (EXPERIMENT, EXPERIMENT + "-2"):
        with runs.tracked_run(experiment, run_name="own") as run:
            ids.append(run.info.run_id)
        own = store.get_run(run.info.run_id)
        assert _name(store, own) == experiment
        assert own.data.tags["smartgrid.launcher_run_id"] == launcher
    left = store.get_run(launcher)
    assert left.data.tags["smartgrid.run_id"].split(",") == ids
    assert left.info.status == "RUNNING"  # it is the launcher's to end
    assert "MLFLOW_RUN_ID" not in os.environ


@integration
def test_a_launcher_in_a_chosen_experiment_is_used_once_then_has_children(store, monkeypatch):
    chosen = store.create_experiment(f"chosen-{time.time_ns()}")
    launcher = _launcher(store, monkeypatch, chosen)
    with runs.tracked_run(EXPERIMENT, run_name="first", tags={"mine": "1"}) as first:
        mlflow.log_param("n", 1)
    with runs.tracked_run(EXPERIMENT, run_name="second") as second:
        mlflow.log_param("n", 2)
    assert first.info.run_id == launcher
    used, child = store.get_run(launcher), store.get_run(second.info.run_id)
    assert (used.info.status, used.info.experiment_id, used.data.tags["mine"]) == ("FINISHED", chosen, "1")
    assert (child.info.experiment_id, child.data.tags["mlflow.parentRunId"]) == (chosen, launcher)


@integration
def test_nested_runs_are_children_of_a_launcher_in_a_chosen_experiment(store, monkeypatch):
    chosen = store.create_experiment(f"chosen-{time.time_ns()}")
    launcher = _launcher(store, monkeypatch, chosen)
    ids = []
    for name in ("load", "anomaly"):
        with runs.tracked_run(EXPERIMENT, run_name=name, nested=True) as run:
            ids.append(run.info.run_id)
    parents = [store.get_run(run_id).data.tags["mlflow.parentRunId"] for run_id in ids]
    assert parents == [launcher, launcher]
    assert store.get_run(launcher).data.tags["smartgrid.run_id"].split(",") == ids


@integration
def test_mlflow_run_leads_to_a_run_in_the_named_experiment(store, tmp_path):
    """The real launcher, on a project of one script."""
    (tmp_path / "MLproject").write_text("name: t\nentry_points:\n  main:\n    command: python train.py\n")
    (tmp_path / "train.py").write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n"
        "from smartgrid_pyfunc.lifecycle.runs import tracked_run\n"
        f"with tracked_run({EXPERIMENT!r}, run_name='launched'):\n    raise ValueError('on purpose')\n"
    )
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        [sys.executable, "-m", "mlflow", "run", str(tmp_path), "--env-manager", "local"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode != 0
    launcher = store.search_runs(["0"], order_by=["attributes.start_time DESC"], max_results=1)[0]
    own = store.get_run(launcher.data.tags["smartgrid.run_id"])
    assert (launcher.info.status, own.info.status) == ("FAILED", "FAILED")
    assert _name(store, own) == EXPERIMENT
    assert own.data.tags["smartgrid.launcher_run_id"] == launcher.info.run_id
    assert own.data.tags["smartgrid.error"] == "ValueError: on purpose"


# ----------------------------------------------------------------------------------------------- what cannot be opened


@integration
def test_a_deleted_experiment_is_told_in_a_sentence(store):
    name = f"gone-{time.time_ns()}"
    identifier = store.create_experiment(name)
    store.delete_experiment(identifier)
    with (
        pytest.raises(LifecycleError, match=f"'{name}' is deleted; restore it .*{identifier}"),
        runs.tracked_run(name, run_name="x"),
    ):
        pass


@integration
def test_an_unreachable_server_is_told_within_seconds_and_without_its_password(store):
    mlflow.set_tracking_uri("http://me:s3cret@127.0.0.1:9")
    start = time.monotonic()
    with pytest.raises(LifecycleError, match="cannot be reached") as caught, runs.tracked_run("x", run_name="x"):
        pass
    assert time.monotonic() - start < 20
    assert "s3cret" not in str(caught.value)
    assert "MLFLOW_TRACKING_URI" in str(caught.value)


def test_the_users_own_bounds_are_kept(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    with bounded_wait():
        assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"
        assert int(os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"]) < 7
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ


# ----------------------------------------------------------------------------------------------- what is logged


@integration
def test_params_and_metrics_beyond_one_request_all_arrive(store):
    params = {f"p{i}": i for i in range(230)}
    metrics = {f"m{i}": float(i) for i in range(1100)} | {"undefined": float("nan")}
    with runs.tracked_run(EXPERIMENT, run_name="many") as run:
        runs.log_results(params, metrics)
    data = store.get_run(run.info.run_id).data
    assert data.params == {name: str(value) for name, value in params.items()}
    assert np.isnan(data.metrics.pop("undefined"))
    assert data.metrics == {f"m{i}": float(i) for i in range(1100)}


@integration
def test_tables_and_figures_come_back_from_the_store(store):
    from matplotlib.figure import Figure

    table = pd.DataFrame({"sensor_id": ["a", "b"], "mae": [1.5, np.nan]})
    with runs.tracked_run(EXPERIMENT, run_name="files") as run:
        runs.log_table("tables/by_sensor.csv", table)
        runs.log_table("by_sensor.json", table)
        runs.log_figure("plot.png", Figure())
        with pytest.raises(ValueError, match="csv"):
            runs.log_table("by_sensor.xlsx", table)
    folder = Path(mlflow.artifacts.download_artifacts(run_id=run.info.run_id))
    pd.testing.assert_frame_equal(pd.read_csv(folder / "tables/by_sensor.csv"), table)
    assert json.loads((folder / "by_sensor.json").read_text())[1] == {"sensor_id": "b", "mae": None}
    assert (folder / "plot.png").read_bytes().startswith(b"\x89PNG")


@integration
def test_the_input_dataset_is_recorded_without_secrets(store):
    frame = pd.DataFrame({"sensor_id": ["a"] * 3000, "value": 1.0, "count": 2})
    with runs.tracked_run(EXPERIMENT, run_name="data") as run:
        runs.log_input(frame, name="grid", digest="d" * 64, source="postgresql://me:s3cret@db/grid")
    (entry,) = store.get_run(run.info.run_id).inputs.dataset_inputs
    assert (entry.dataset.name, entry.dataset.digest) == ("grid", "d" * 36)
    assert json.loads(entry.dataset.profile) == {"num_rows": 3000, "num_elements": 9000}
    assert "s3cret" not in entry.dataset.source
    assert [(tag.key, tag.value) for tag in entry.tags] == [("mlflow.data.context", "training")]
    columns = {entry["name"]: entry["type"] for entry in json.loads(entry.dataset.schema)["mlflow_colspec"]}
    assert columns == {"sensor_id": "string", "value": "double", "count": "long"}


def test_logging_without_a_run_says_what_to_do():
    with pytest.raises(LifecycleError, match="tracked_run"):
        runs.log_results({"a": 1})


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("postgresql://user:pass@host/db", "postgresql://***@host/db"),
        ("mysql+pymysql://user:p@ss@host/db?x=1", "mysql+pymysql://***@host/db?x=1"),
        ("postgresql://user:pa/ss@host/db", "postgresql://***@host/db"),
        ("https://token@host/path", "https://***@host/path"),
        ("--data s3://bucket/key?password=abc&x=1", "--data s3://bucket/key?password=***&x=1"),
        ("--api-token abc --model x", "--api-token *** --model x"),
        ("http://localhost:5000/a.parquet b@c", "http://localhost:5000/a.parquet b@c"),
        ("s3://bucket/2026/*.parquet", "s3://bucket/2026/*.parquet"),
    ],
)
def test_secrets_are_masked_and_nothing_else(text, masked):
    assert mask_secrets(text) == masked


@pytest.mark.integration
def test_params_that_mlflow_run_logged_as_typed_stay(store: mlflow.MlflowClient):
    with runs.tracked_run("typed", run_name="r") as run:
        store.log_param(run.info.run_id, "max_depth", "''")
        runs.log_results({"max_depth": None, "n_estimators": 5})
    assert store.get_run(run.info.run_id).data.params == {"max_depth": "''", "n_estimators": "5"}
