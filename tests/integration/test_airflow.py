"""The DAGs in an Airflow of the test's own, and the same jobs by a shell script, with real steps of the project."""

from __future__ import annotations

import json
import os
import queue
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest

from smartgrid_pyfunc.lifecycle import registry
from smartgrid_pyfunc.schema import ANOMALY_MODEL, LOAD_MODEL
from smartgrid_pyfunc.training.anomaly_detection import train_anomaly_model
from smartgrid_pyfunc.training.load_forecasting import train_load_model
from tests.conftest import _copy_store, _forget_mlflow_state

pytestmark = pytest.mark.integration

_ROOT = Path(__file__).resolve().parents[2]
_DAGS = _ROOT / "deploy" / "airflow" / "dags"
_CHAIN = _ROOT / "deploy" / "cron" / "chain.sh"
_SECONDS = 900


# ------------------------------------------------------------------------------------------- data, registry, webhook


def _readings(noise: float, doubled_days: int = 0) -> pd.DataFrame:
    """Return 40 days of hourly readings of two sensors: a daily course, and noise that no model foresees.

    With noise the mean of many days errs less than one day: any sensible model beats the seasonal naive. Without noise
    the naive does not err at all, and nothing can be better. The last `doubled_days` are twice as high.
    """
    rng, hour = np.random.default_rng(0), np.arange(40 * 24)
    times = pd.Timestamp("2026-01-05", tz="UTC") + pd.to_timedelta(hour, unit="h")
    level = np.where(hour >= len(hour) - 24 * doubled_days, 2, 1)
    course = 10 + np.round(3 * np.sin(hour / 24 * 2 * np.pi), 3)
    frames = [
        pd.DataFrame(
            {
                "sensor_id": f"feeder-{size}",
                "sensor_type": "power",
                "timestamp": times.strftime("%Y-%m-%dT%H:%M:%SZ"),
                "value": size * level * (course + noise * rng.normal(0, 1, len(hour))),
            }
        )
        for size in (1, 5)
    ]
    return pd.concat(frames, ignore_index=True)


class _Listener(ThreadingHTTPServer):
    """Takes alerts as a pager would."""

    def __init__(self) -> None:
        self.said: queue.Queue[dict[str, Any]] = queue.Queue()
        said = self.said

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                said.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)

    def alerts(self) -> list[dict[str, Any]]:
        """Return the alerts of all messages since the last call."""
        return [alert for _ in range(self.said.qsize()) for alert in self.said.get_nowait()["alerts"]]


@dataclass(frozen=True)
class _World:
    """A registry with both models in Production, and the settings of the jobs."""

    folder: Path
    settings: dict[str, str]
    listener: _Listener

    def versions(self, model: str = LOAD_MODEL) -> dict[str, str]:
        """Return the stage of each version."""
        found = self.client.search_model_versions(f"name = '{model}'")
        return {str(entry.version): entry.current_stage for entry in found}

    def decisions(self, version: str) -> list[str]:
        """Return what was decided on a version of the load model, oldest first."""
        tags = {"model": LOAD_MODEL, "version": version}
        found = self.client.search_runs(
            [self.client.get_experiment_by_name("smartgrid-decisions").experiment_id],
            " and ".join(f"tags.`smartgrid.{name}` = '{value}'" for name, value in tags.items()),
            order_by=["start_time ASC"],
        )
        told = [{name: run.data.tags[f"smartgrid.{name}"] for name in ("reason", "from", "to")} for run in found]
        return [f"{entry['reason']}: {entry['from']} -> {entry['to']}" for entry in told]

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Make the registry that of this process."""
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.folder)
            for name in ("MLFLOW_TRACKING_URI", "_MLFLOW_SERVER_ARTIFACT_ROOT"):
                patch.setenv(name, self.settings[name])
            _forget_mlflow_state()  # what earlier tests of this process have set counts more than the environment
            yield
        _forget_mlflow_state()

    @property
    def client(self) -> mlflow.MlflowClient:
        return mlflow.MlflowClient(self.settings["MLFLOW_TRACKING_URI"])


@pytest.fixture(scope="module")
def world(_migrated_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[_World]:
    folder = tmp_path_factory.mktemp("jobs")
    _copy_store(_migrated_store, folder / "mlflow.db", folder / "artifacts")
    _readings(1.5).to_csv(folder / "noisy.csv", index=False)
    _readings(0).to_csv(folder / "periodic.csv", index=False)
    _readings(1.5, doubled_days=16).to_csv(folder / "doubled.csv", index=False)
    listener = _Listener()
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    settings = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder),
        "OMP_NUM_THREADS": "1",
        "MPLBACKEND": "Agg",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
        "_MLFLOW_SERVER_ARTIFACT_ROOT": (folder / "artifacts").as_uri(),
        "SMARTGRID_PYTHON": sys.executable,
        "SMARTGRID_PROJECT": str(_ROOT),
        "SMARTGRID_LOAD_DATA": str(folder / "noisy.csv"),
        "SMARTGRID_PREDICTIONS": str(folder / "predictions"),
        "SMARTGRID_REPORTS": str(folder / "reports"),
        "SMARTGRID_WEBHOOK": f"http://127.0.0.1:{listener.server_port}/alerts",
        "SMARTGRID_CANARY_HOURS": "0",
        "SMARTGRID_RETRIES": "1",
        "SMARTGRID_RETRY_SECONDS": "1",
        "SMARTGRID_LOCKS": str(folder),
        "SMARTGRID_PARAMS_TRAIN": "n_estimators=3 test_days=7",
    }
    made = _World(folder, settings, listener)
    with made.entered():
        train_load_model(settings["SMARTGRID_LOAD_DATA"], test_days=7, n_estimators=3)
        train_anomaly_model(settings["SMARTGRID_LOAD_DATA"], n_estimators=10, contamination=0.05)
        for model in (LOAD_MODEL, ANOMALY_MODEL):
            registry.promote(model, force=True, reason="for a test")
    yield made
    listener.shutdown()
    listener.server_close()


# ------------------------------------------------------------------------------------------- Airflow


@dataclass(frozen=True)
class _Airflow:
    """An Airflow with a database of its own."""

    programs: Path
    settings: dict[str, str]

    @property
    def _database(self) -> Path:
        return Path(self.settings["AIRFLOW_HOME"]) / "airflow.db"

    def run(self, *command: str, **settings: str) -> subprocess.CompletedProcess[str]:
        program, *arguments = command
        return subprocess.run(
            [str(self.programs / program), *arguments],
            env=self.settings | settings,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_SECONDS,
            check=False,
        )

    def test(self, dag: str, **settings: str) -> tuple[str, dict[str, tuple[str, int]], str]:
        """Run a DAG once; return its state, the state of each task with the number of tries, and what was written."""
        done = self.run("airflow", "dags", "test", dag, "2026-02-14", **settings)
        with closing(sqlite3.connect(self._database)) as database:
            run_id, state = database.execute(
                "SELECT run_id, state FROM dag_run WHERE dag_id = ? ORDER BY id DESC LIMIT 1", (dag,)
            ).fetchone()
            tasks = database.execute(
                "SELECT task_id, state, try_number FROM task_instance WHERE dag_id = ? AND run_id = ?", (dag, run_id)
            ).fetchall()
        return state, {task: (how, tries) for task, how, tries in tasks}, done.stdout

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        """Return what the database answers; changes are kept."""
        with closing(sqlite3.connect(self._database)) as database, database:
            return database.execute(query).fetchall()


@pytest.fixture(scope="module")
def airflow(world: _World) -> _Airflow:
    named = os.environ.get("SMARTGRID_AIRFLOW", str(_ROOT / ".venv-airflow"))
    programs = Path(named) / "bin"
    if not (programs / "airflow").is_file():
        pytest.skip(
            f"Airflow is missing in {named}: python3.11 -m venv {named} && {named}/bin/pip install "
            "-r deploy/airflow/requirements.txt; SMARTGRID_AIRFLOW names another folder"
        )
    home = world.folder / "airflow"
    found = _Airflow(
        programs,
        world.settings
        | {
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(_DAGS),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "false",
        },
    )
    for command in (("db", "migrate"), ("dags", "reserialize")):
        done = found.run("airflow", *command)
        assert done.returncode == 0, done.stdout[-4000:]
    return found


_DESCRIBE = """
import json, sys
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(sys.argv[1])
def timing(dag):
    either = getattr(dag.timetable, "asset_condition", None)
    found = [asset.name for asset in either.objects] if either else []
    return getattr(dag.timetable, "timetable", dag.timetable).expression, found
print("DAGS", json.dumps({
    "errors": bag.import_errors,
    "mlflow": sorted(name for name in sys.modules if name.split(".")[0] in ("mlflow", "smartgrid_pyfunc", "pandas")),
    "dags": {name: {
        "timing": timing(dag), "max_active_runs": dag.max_active_runs, "catchup": dag.catchup,
        "tasks": {task.task_id: {"retries": task.retries, "alert": bool(task.on_failure_callback),
                                 "after": sorted(task.upstream_task_ids)} for task in dag.tasks},
    } for name, dag in bag.dags.items()},
}))
"""


def test_the_dags_are_read_without_the_project_and_are_scheduled_retried_and_watched(airflow: _Airflow) -> None:
    done = airflow.run("python", "-c", _DESCRIBE, str(_DAGS))
    assert done.returncode == 0, done.stdout[-4000:]
    found = json.loads(done.stdout.split("DAGS ", 1)[1].splitlines()[0])
    assert found["errors"] == {} and found["mlflow"] == []
    dags = found["dags"]
    assert set(dags) == {"smartgrid_nightly", "smartgrid_retrain_load", "smartgrid_retrain_anomaly"}
    assert dags["smartgrid_nightly"]["timing"] == ["30 1 * * *", []]
    for name, model, schedule in (("load", LOAD_MODEL, "0 3 * * 0"), ("anomaly", ANOMALY_MODEL, "0 3 1 * *")):
        dag = dags[f"smartgrid_retrain_{name}"]
        assert dag["timing"] == [schedule, [f"smartgrid-drift-{model}"]]
        assert dag["tasks"]["canary"]["after"] == ["is_in_staging"]
        assert dag["tasks"]["stop"]["after"] == ["is_good_enough", "is_in_production", "is_in_staging"]
    assert dags["smartgrid_nightly"]["tasks"]["monitor_load"]["after"] == ["batch_detect", "batch_forecast"]
    steps = {
        "batch_forecast",
        "batch_detect",
        "monitor_load",
        "monitor_anomaly",
        "train",
        "compare",
        "to_staging",
        "to_production",
        "withdraw",
    }
    for dag in dags.values():
        assert dag["max_active_runs"] == 1 and dag["catchup"] is False
        assert all(task["alert"] for task in dag["tasks"].values())
        assert all(dag["tasks"][name]["retries"] == 1 for name in steps & set(dag["tasks"]))


def test_a_retraining_leads_through_staging_and_the_canary_period_to_production(
    airflow: _Airflow, world: _World
) -> None:
    state, tasks, said = airflow.test("smartgrid_retrain_load")
    assert state == "success", said[-8000:]
    expected = {"train", "compare", "is_good_enough", "to_staging", "is_in_staging", "canary", "to_production"}
    passed = {name for name, (how, _) in tasks.items() if how == "success"}
    assert passed == expected | {"is_in_production", "done"}, said[-8000:]
    assert {name for name, (how, _) in tasks.items() if how == "skipped"} == {"stop", "withdraw"}
    assert world.versions() == {"1": "Archived", "2": "Production"}
    assert world.listener.alerts() == []
    assert world.decisions("2") == ["retrained: None -> Staging", "passed its canary period: Staging -> Production"]


def test_a_refusal_stops_the_retraining_tells_a_person_and_leaves_production_alone(
    airflow: _Airflow, world: _World
) -> None:
    before = world.versions()
    (held,) = [version for version, stage in before.items() if stage == "Production"]
    state, tasks, said = airflow.test(
        "smartgrid_retrain_load",
        SMARTGRID_LOAD_DATA=str(world.folder / "periodic.csv"),
        SMARTGRID_LEAVE_OUT="compare",  # the gate itself is to say no
    )
    assert state == "success", said[-8000:]
    assert tasks["to_staging"] == ("success", 1)
    assert {name for name, (how, _) in tasks.items() if how == "skipped"} == {
        "canary",
        "to_production",
        "is_in_production",
        "done",
    }
    assert world.versions() == {**before, str(len(before) + 1): "Archived"}
    assert world.versions()[held] == "Production"
    (alert,) = world.listener.alerts()
    assert alert["alert"] == "retraining_stopped" and alert["severity"] == "warning"
    assert "to_staging says refused" in alert["text"] and "smartgrid_retrain_load" in alert["where"]
    assert alert["command"] == f"mlflow run . -e audit -P model={LOAD_MODEL}" and alert["since"]


def test_a_failing_step_is_tried_again_then_fails_the_run_and_tells_a_person(airflow: _Airflow, world: _World) -> None:
    state, tasks, said = airflow.test(
        "smartgrid_nightly", SMARTGRID_LOAD_DATA=str(world.folder / "missing.csv"), SMARTGRID_LEAVE_OUT="batch_detect"
    )
    assert state == "failed", said[-8000:]
    assert tasks["batch_forecast"] == ("failed", 2)
    assert tasks["monitor_load"][0] == tasks["announce_drift_load"][0] == "upstream_failed"
    (alert,) = world.listener.alerts()
    assert alert["alert"] == "step_failed" and alert["severity"] == "critical"
    assert alert["where"] == "smartgrid_nightly, task batch_forecast" and "try 2" in alert["text"]


def test_a_night_forecasts_detects_and_monitors_and_drift_starts_a_retraining(airflow: _Airflow, world: _World) -> None:
    state, tasks, said = airflow.test(
        "smartgrid_nightly",
        SMARTGRID_PARAMS_BATCH_FORECAST="since=2026-01-31 until=2026-02-13 now=2026-02-13",
        SMARTGRID_PARAMS_BATCH_DETECT="now=2026-02-13",
        SMARTGRID_PARAMS_MONITOR=f"now=2026-02-14T00:00:00Z data={world.folder / 'doubled.csv'}",
    )
    assert state == "success", said[-8000:]
    assert {name for name, (how, _) in tasks.items() if how != "success"} <= {"announce_drift_anomaly"}
    for kind in ("load", "anomaly"):
        assert list((world.folder / "predictions" / kind).glob("day=*/*.parquet"))
    assert (world.folder / "reports" / LOAD_MODEL / "report.html").is_file()
    told = world.listener.alerts()
    assert "accuracy" in {alert["alert"] for alert in told} and all(alert["command"] for alert in told)
    asset = f"smartgrid-drift-{LOAD_MODEL}"
    events = airflow.ask(
        "SELECT event.source_task_id, event.extra FROM asset_event event JOIN asset ON asset.id = event.asset_id "
        f"WHERE asset.name = '{asset}'"
    )
    assert [task for task, _ in events] == ["announce_drift_load"] and "accuracy" in json.loads(events[0][1])["alerts"]

    airflow.ask("UPDATE slot_pool SET slots = 0")  # runs are made, and wait for a free worker
    airflow.run("airflow", "scheduler", "--num-runs", "5")
    made = airflow.ask("SELECT dag_id FROM dag_run WHERE run_type = 'asset_triggered'")
    assert made == [("smartgrid_retrain_load",)]


def test_a_step_uses_the_project_s_python_whatever_the_login_shell_of_the_worker_prefers(
    world: _World, tmp_path: Path
) -> None:
    (tmp_path / ".bashrc").write_text('PATH="$HOME/elsewhere:$PATH"\n')
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "python").write_text("#!/bin/sh\necho the wrong python\nexit 1\n")
    (tmp_path / "elsewhere" / "python").chmod(0o755)
    near, far = socket.socketpair()  # what a supervised task of Airflow has as stdin
    with near, far:
        done = subprocess.run(
            [sys.executable, str(_ROOT / "deploy" / "airflow" / "step.py"), "to_staging", "--version", "99"],
            env=world.settings | {"HOME": str(tmp_path)},
            stdin=near,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_SECONDS,
            check=False,
        )
    assert done.returncode == 1 and json.loads(done.stdout.splitlines()[-1])["verdict"] == ""
    assert "99" in done.stdout and "Error: " in done.stdout and "the wrong python" not in done.stdout, done.stdout


# ------------------------------------------------------------------------------------------- cron and systemd


def _chain(world: _World, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(_CHAIN), *arguments],
        env=world.settings | settings,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=_SECONDS,
        check=False,
    )


def test_cron_a_night_ends_a_canary_period_and_scores_with_the_new_version(world: _World) -> None:
    with world.entered():
        registry.promote(ANOMALY_MODEL, version="1", stage="Staging", reason="retrained")
    assert world.versions(ANOMALY_MODEL) == {"1": "Staging"}
    place = world.folder / "of-cron"
    done = _chain(world, "nightly", SMARTGRID_LEAVE_OUT="batch_forecast", SMARTGRID_PREDICTIONS=str(place))
    assert done.returncode == 0, done.stdout[-8000:]
    assert world.versions(ANOMALY_MODEL) == {"1": "Production"}
    assert list(place.glob("anomaly/day=*/*.parquet")) and not (place / "load").exists()
    assert "nightly: done" in done.stdout
    assert not {alert["alert"] for alert in world.listener.alerts()} & {"step_failed", "retraining_stopped"}


def test_cron_a_failing_step_is_tried_again_then_the_job_fails_and_tells_a_person(world: _World) -> None:
    done = _chain(world, "retrain", LOAD_MODEL, SMARTGRID_LOAD_DATA="")
    assert done.returncode == 1 and done.stdout.count("SMARTGRID_LOAD_DATA is not set") == 2, done.stdout
    (alert,) = world.listener.alerts()
    assert alert["alert"] == "step_failed" and "train failed in try 2" in alert["text"]


def test_cron_a_job_that_runs_is_not_started_again(world: _World) -> None:
    lock = world.folder / f"smartgrid-retrain-{LOAD_MODEL}.lock"
    holder = subprocess.Popen(["flock", str(lock), "sh", "-c", "echo held; read line"], stdin=-1, stdout=-1, text=True)
    assert holder.stdout and holder.stdout.readline() == "held\n"
    done = _chain(world, "retrain", LOAD_MODEL)
    holder.communicate("end\n")
    assert done.returncode == 75 and "running already" in done.stdout


def test_the_units_are_what_systemd_understands(tmp_path: Path) -> None:
    units = sorted((_ROOT / "deploy" / "cron").glob("*.service")) + sorted((_ROOT / "deploy" / "cron").glob("*.timer"))
    assert len(units) == 4
    for unit in units:
        text = unit.read_text().replace("/opt/smartgrid/", f"{_ROOT}/")
        (tmp_path / unit.name.replace("@", f"@{LOAD_MODEL}")).write_text(text)
        if unit.suffix == ".timer":
            assert re.search(r"OnCalendar=.* UTC$", text, re.MULTILINE)
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is missing: apt-get install systemd")
    done = subprocess.run(
        ["systemd-analyze", "verify", *map(str, sorted(tmp_path.iterdir()))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
