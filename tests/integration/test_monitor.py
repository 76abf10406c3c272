"""The monitor as a user starts it: real versions, real tables of predictions, real listeners."""

from __future__ import annotations

import json
import queue
import re
import shutil
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.entities import Run

from smartgrid_pyfunc.evaluation.backtest import backtest, midnight_origins
from smartgrid_pyfunc.evaluation.metrics import summarise
from smartgrid_pyfunc.features.panel import build_panel, parse_hourly
from smartgrid_pyfunc.lifecycle import registry, runs
from smartgrid_pyfunc.lifecycle.errors import LifecycleError
from smartgrid_pyfunc.lifecycle.packaging import log_model
from smartgrid_pyfunc.models.anomaly_detection import AnomalyDetectionModel
from smartgrid_pyfunc.models.load_forecasting import LoadForecastingModel
from smartgrid_pyfunc.monitoring.checks import KINDS
from smartgrid_pyfunc.monitoring.run import EXPERIMENT, Outcome, Settings, monitor
from smartgrid_pyfunc.predictions import read_forecasts, write_flags, write_forecasts
from smartgrid_pyfunc.schema import ANOMALY_MODEL, LOAD_MODEL, InputError
from smartgrid_pyfunc.simulation import simulate
from tests.parts import free_port

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
START = pd.Timestamp("2025-01-06", tz="UTC")
TESTED, USED, DAYS = 62, 90, 150  # days from which forecasts are tested and then used, and of data
NOW = START + pd.Timedelta(days=DAYS, hours=1)
VALUES = ["avg_value", "min_value", "max_value"]


@dataclass
class _World:
    """A store with both models in Production, hourly load, and the forecasts of sixty days."""

    uri: str
    hourly: pd.DataFrame
    predictions: str
    folder: Path

    def data(self, hourly: pd.DataFrame) -> str:
        path = self.folder / f"hourly-{abs(hash(hourly['avg_value'].sum()))}.parquet"
        hourly.to_parquet(path)
        return str(path)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_World]:
    folder = tmp_path_factory.mktemp("watched")
    simulate(folder / "grid", sensors=7, days=DAYS, step_minutes=60, faults=False)
    hourly = pd.concat([pd.read_parquet(path) for path in sorted((folder / "grid" / "hourly_load").iterdir())])
    hourly = hourly.reset_index(drop=True)
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    mlflow.set_tracking_uri(uri)
    names = ("load-forecasting", "anomaly-detection", "decisions", "predictions", "monitoring")
    for name in names:
        mlflow.create_experiment(f"smartgrid-{name}", (folder / "artifacts").as_uri())
    world = _World(uri, hourly, str(folder / "predictions"), folder)
    fitted = LoadForecastingModel(n_estimators=8, max_rows=4_000, covariates="is_holiday").fit(
        hourly[hourly["timestamp"] < START + pd.Timedelta(days=TESTED)]
    )
    forecasts = forecast(fitted, hourly)
    test = summarise(forecasts[forecasts["timestamp"] < START + pd.Timedelta(days=USED)])
    with mlflow.start_run(experiment_id=experiment("load-forecasting")) as run:
        runs.log_results(metrics=test.overall)
        runs.log_table("tables/by_sensor.csv", test.by_sensor.reset_index())
        log_model(fitted, LOAD_MODEL, pd.DataFrame({"sensor_id": [hourly["sensor_id"].iloc[0]]}))
    version = registry.register(run.info.run_id, LOAD_MODEL)
    registry.promote(LOAD_MODEL, version=version, force=True)
    used = forecasts[forecasts["timestamp"] >= START + pd.Timedelta(days=USED)]
    write_forecasts(world.predictions, table_of(used, version))
    mlflow.set_tracking_uri("")
    yield world


def experiment(name: str) -> str:
    found = mlflow.get_experiment_by_name(f"smartgrid-{name}")
    assert found is not None
    return str(found.experiment_id)


def forecast(model: LoadForecastingModel, hourly: pd.DataFrame) -> pd.DataFrame:
    """Return the day ahead of every midnight that `model` has not seen."""
    panel = build_panel(parse_hourly(hourly))
    first = np.full(len(panel.sensor_ids), TESTED * 24) + panel.first_cell
    origins = midnight_origins(panel, first, panel.first_cell + DAYS * 24 - 1, "UTC")
    return backtest(model, panel, origins, 24)


def table_of(forecasts: pd.DataFrame, version: str) -> pd.DataFrame:
    """Return forecasts as rows of the table of predictions."""
    renamed = forecasts.rename(columns={"predicted": "predicted_load"})
    about = {"model": LOAD_MODEL, "version": version, "variant": "champion", "made_at": NOW, "level": 0.9}
    return renamed.assign(**about, method="random_forest", reason=None)


@pytest.fixture
def world(made: _World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[_World]:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", made.uri)
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(made.uri)
    yield made
    mlflow.set_tracking_uri("")


@pytest.fixture
def listener() -> Iterator[tuple[str, queue.Queue[dict[str, Any]]]]:
    """A webhook of the test's own: its address and what it has got."""
    got: queue.Queue[dict[str, Any]] = queue.Queue()

    class Webhook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200 if self.path == "/hook" else 500)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Webhook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", got
    server.shutdown()
    server.server_close()


def settings(world: _World, hourly: pd.DataFrame, **more: Any) -> Settings:
    return Settings(predictions=world.predictions, data=world.data(hourly), now=NOW.isoformat(), **more)


def in_watts(hourly: pd.DataFrame, sensor: str, hours: int = 48) -> pd.DataFrame:
    changed = hourly.copy()
    late = changed["timestamp"] >= changed["timestamp"].max() - pd.Timedelta(hours=hours - 1)
    changed.loc[late & (changed["sensor_id"] == sensor), VALUES] *= 1000.0
    return changed


def run_of(outcome: Outcome) -> Run:
    run = mlflow.get_run(outcome.run_id)
    assert mlflow.get_experiment(run.info.experiment_id).name == EXPERIMENT
    assert run.info.status == "FINISHED"
    return run


def artifact(outcome: Outcome, path: str) -> str:
    return mlflow.artifacts.load_text(f"runs:/{outcome.run_id}/{path}")


def test_nothing_is_wrong_with_faultless_data_and_every_figure_follows_from_the_predictions(world: _World) -> None:
    outcome = monitor(settings(world, world.hourly))
    run = run_of(outcome)
    assert (outcome.verdict, outcome.alerts) == ("ok", [])
    assert run.data.tags["smartgrid.verdict"] == "ok" and run.data.tags["smartgrid.alerts"] == ""
    rows = read_forecasts(world.predictions, since=NOW - pd.Timedelta(days=7, hours=1), until=NOW)
    both = rows.merge(world.hourly[["sensor_id", "timestamp", "avg_value"]], on=["sensor_id", "timestamp"])
    error = both["predicted_load"] - both["avg_value"]
    inside = (both["lower"] <= both["avg_value"]) & (both["avg_value"] <= both["upper"])
    assert len(both) == 7 * 24 * world.hourly["sensor_id"].nunique()
    assert run.data.metrics["forecast_mae"] == pytest.approx(error.abs().mean())
    assert run.data.metrics["forecast_bias"] == pytest.approx(error.mean())
    assert run.data.metrics["forecast_coverage"] == pytest.approx(inside.mean())
    assert set(KINDS) - {"anomaly_rate"} == {check.kind for check in outcome.gauges}
    assert "Reference of the errors: promotion." in artifact(outcome, "report.html")
    by_sensor = pd.read_csv(_local(outcome, "tables/by_sensor.csv"))
    assert by_sensor["reference_mae"].notna().all() and len(by_sensor) == world.hourly["sensor_id"].nunique()


def _local(outcome: Outcome, path: str) -> str:
    return str(mlflow.artifacts.download_artifacts(run_id=outcome.run_id, artifact_path=path))


def test_an_alert_says_what_where_since_when_how_bad_and_the_command_and_the_exit_code_is_four(
    world: _World, tmp_path: Path, listener: tuple[str, queue.Queue[dict[str, Any]]]
) -> None:
    sensor = world.hourly["sensor_id"].iloc[0]
    data = world.data(in_watts(world.hourly, sensor))
    done = subprocess.run(
        [
            sys.executable, ROOT / "entrypoints" / "monitor.py", "--predictions", world.predictions, "--data", data,
            "--now", NOW.isoformat(), "--webhook", f"{listener[0]}/hook", "--output", str(tmp_path / "out"),
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 4, done.stderr[-3000:]
    got = listener[1].get(timeout=10)
    assert got == json.loads((tmp_path / "out" / "alerts.json").read_text())
    found = {entry["alert"]: entry for entry in got["alerts"]}
    unit = found["unit_change"]
    assert unit["sensors"] == [sensor] and unit["severity"] == "critical"
    assert pd.Timestamp(unit["since"]) == world.hourly["timestamp"].max() - pd.Timedelta(hours=47)
    assert unit["value"] == pytest.approx(3.0, abs=0.1) and unit["value"] >= unit["threshold"]
    assert "W instead of kW" in unit["text"] and unit["command"].startswith("mlflow run . -e monitor ")
    assert got["verdict"] == "alerts"  # training again on such data would harm
    page = (tmp_path / "out" / "report.html").read_text()
    assert "unit_change" in page and sensor in page
    assert not re.search(r"""(?:src|href)=["'](?!data:)""", page), "the report needs other files"
    run = mlflow.get_run(got["run_id"])
    assert "unit_change" in run.data.tags["smartgrid.alerts"].split(",")


def test_a_webhook_or_pushgateway_that_fails_is_told_after_the_run_is_logged(
    world: _World, listener: tuple[str, queue.Queue[dict[str, Any]]]
) -> None:
    changed = in_watts(world.hourly, world.hourly["sensor_id"].iloc[0])
    closed = f"http://127.0.0.1:{free_port()}"
    before = _finished()
    with pytest.raises(LifecycleError, match=r"run is logged, but the Pushgateway at 127.0.0.1 .*webhook .* 500"):
        monitor(settings(world, changed, webhook=f"{listener[0]}/secret", pushgateway=closed))
    assert _finished() == before + 1
    with pytest.raises(InputError, match="webhook must be an http"):
        monitor(settings(world, changed, webhook="ftp://somewhere/x"))
    assert _finished() == before + 1


def _finished() -> int:
    experiment = mlflow.get_experiment_by_name(EXPERIMENT)
    return len(mlflow.MlflowClient().search_runs([experiment.experiment_id], "status = 'FINISHED'"))


def test_what_is_pushed_has_exactly_the_names_and_labels_that_rules_and_dashboards_ask_for(world: _World) -> None:
    program = shutil.which("prometheus-pushgateway")
    if program is None:
        pytest.skip("missing: apt-get install prometheus-pushgateway")
    port = free_port()
    process = subprocess.Popen(
        [program, f"--web.listen-address=127.0.0.1:{port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _wait_for(f"http://127.0.0.1:{port}/-/ready")
        monitor(settings(world, world.hourly, pushgateway=f"http://127.0.0.1:{port}"))
        text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
    finally:
        process.terminate()
        process.wait(timeout=10)
    pushed = {line.split("{")[0] for line in text.splitlines() if line.startswith("smartgrid_")}
    asked: set[str] = set()
    for name in ("prometheus/rules.yml", "prometheus/consoles/smartgrid.html", "grafana/smartgrid.json"):
        asked |= set(re.findall(r"smartgrid_[a-z_]+", (ROOT / "deploy" / name).read_text()))
    assert asked & pushed == asked - {"smartgrid_anomaly_rate"}
    level = next(line for line in text.splitlines() if "smartgrid_alert{" in line and "level_shift" in line)
    assert 'model="LoadForecastingModel"' in level and 'severity="critical"' in level and level.endswith(" 0")


def _wait_for(address: str) -> None:
    for _ in range(100):
        try:
            urllib.request.urlopen(address, timeout=1).close()
            return
        except OSError:
            threading.Event().wait(0.1)
    raise AssertionError(f"{address} does not answer")


def test_nothing_after_now_is_looked_at(world: _World) -> None:
    early = NOW - pd.Timedelta(days=20)
    spoilt = in_watts(world.hourly, world.hourly["sensor_id"].iloc[0])
    first, second = (
        monitor(Settings(predictions=world.predictions, data=world.data(frame), now=early.isoformat()))
        for frame in (world.hourly, spoilt)
    )
    assert "unit_change" not in {entry.kind for entry in second.alerts}
    assert first.verdict == second.verdict
    assert first.figures == second.figures
    values = [{entry.kind: entry.value for entry in outcome.gauges} for outcome in (first, second)]
    assert values[0] == pytest.approx(values[1], nan_ok=True)


def test_a_night_without_forecasts_is_an_alert(world: _World, tmp_path: Path) -> None:
    place = str(tmp_path / "until-tuesday")
    write_forecasts(place, read_forecasts(world.predictions, until=NOW - pd.Timedelta(days=3)))
    outcome = monitor(Settings(predictions=place, data=world.data(world.hourly), now=NOW.isoformat()))
    (found,) = (entry for entry in outcome.alerts if entry.kind == "missing_forecasts")
    assert found.since == NOW - pd.Timedelta(days=3)
    assert found.value == pytest.approx(71 / 168)  # the newest hour measured is that before 00:00


def detector(world: _World) -> str:
    """Put a detector into Production and return its version."""
    readings = world.hourly.rename(columns={"avg_value": "value"}).assign(sensor_type="power").head(2_000)
    example = readings[["sensor_id", "sensor_type", "timestamp", "value"]].head(3).astype({"timestamp": "str"})
    with mlflow.start_run(experiment_id=experiment("anomaly-detection")) as run:
        mlflow.log_metric("false_alarm_rate", 0.01)
        log_model(AnomalyDetectionModel(n_estimators=10).fit(readings), ANOMALY_MODEL, example)
    version = registry.register(run.info.run_id, ANOMALY_MODEL)
    registry.promote(ANOMALY_MODEL, version=version, force=True)
    return version


def test_a_detector_that_flags_many_times_its_budget_is_an_alert(world: _World, tmp_path: Path) -> None:
    place, version = str(tmp_path / "flags"), detector(world)
    week = world.hourly[world.hourly["timestamp"] >= world.hourly["timestamp"].max() - pd.Timedelta(days=6, hours=23)]
    rng = np.random.default_rng(0)
    rows = week[["sensor_id", "timestamp"]].assign(
        model=ANOMALY_MODEL, version=version, variant="champion", made_at=NOW, sensor_type="power",
        value=week["avg_value"], is_anomaly=rng.uniform(size=len(week)) < 0.1,
    )  # fmt: skip
    for name in ("anomaly_score", "p_value", "expected_value", "lower", "upper"):
        rows[name] = 0.5
    write_flags(place, rows.assign(reason=None, profile="sensor"))
    outcome = monitor(
        Settings(predictions=place, data=world.data(world.hourly), model=ANOMALY_MODEL, now=NOW.isoformat())
    )
    assert [entry.kind for entry in outcome.alerts] == ["anomaly_rate"]
    assert outcome.figures == {"anomaly_rate": pytest.approx(rows["is_anomaly"].mean())}
    assert 'smartgrid_anomaly_rate{model="AnomalyDetectionModel",version="1"}' in artifact(outcome, "metrics.prom")
