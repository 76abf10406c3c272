"""The steps of the nightly job and of a retraining: their commands, and which verdict of which run counts."""

from __future__ import annotations

import datetime as dt
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import click
import mlflow
import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run

_ROOT = Path(__file__).resolve().parents[2]
_ENTRY_POINTS = yaml.safe_load((_ROOT / "MLproject").read_text())["entry_points"]
_MODELS = ("LoadForecastingModel", "AnomalyDetectionModel")


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(sys, "path", list(sys.path))
    specification = importlib.util.spec_from_file_location("step", _ROOT / "deploy" / "airflow" / "step.py")
    assert specification and specification.loader
    module = importlib.util.module_from_spec(specification)
    monkeypatch.setitem(sys.modules, "step", module)
    specification.loader.exec_module(module)
    monkeypatch.setenv("SMARTGRID_LOAD_DATA", "load.csv")
    return module


def test_every_step_gives_its_entry_point_only_parameters_that_it_has(
    step: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in step.SETTINGS:
        monkeypatch.setenv(name, "1")
    for name in step.STEPS:
        for model in _MODELS:
            entry_point, given = step.parameters(name, model, "7")
            declared = _ENTRY_POINTS[entry_point]["parameters"]
            assert set(given) <= set(declared), name
            assert {key for key, about in declared.items() if "default" not in about} <= set(given), name


def test_settings_reach_the_parameters_and_empty_ones_are_left_to_the_entry_point(
    step: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMARTGRID_READINGS", "readings {odd}.csv")
    monkeypatch.setenv("SMARTGRID_PARAMS_TRAIN", "n_estimators=7 'max_depth=3' data=other.csv")
    assert step.parameters("train", _MODELS[0], "") == (
        "load_forecasting",
        {"data": "other.csv", "timezone": "UTC", "n_estimators": "7", "max_depth": "3"},
    )
    assert step.parameters("batch_detect", _MODELS[0], "")[1] == {"data": "readings {odd}.csv", "to": "predictions"}
    monkeypatch.setenv("SMARTGRID_REPORTS", "reports")
    places = {step.parameters("monitor", model, "")[1]["output"] for model in _MODELS}
    assert places == {f"reports/{model}" for model in _MODELS}
    assert step.parameters("to_staging", _MODELS[1], "7")[1]["version"] == "7"
    monkeypatch.setenv("SMARTGRID_LOAD_DATA", "")
    with pytest.raises(click.ClickException, match="SMARTGRID_LOAD_DATA"):
        step.parameters("train", _MODELS[0], "")


def test_steps_can_be_left_out_for_both_models_or_one_but_never_the_gate(
    step: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMARTGRID_LEAVE_OUT", "batch_detect, compare_anomaly,to_staging,to_production")
    left = {(name, model) for name in step.STEPS for model in _MODELS if step._left_out(name, model)}
    load, anomaly = _MODELS
    assert left == {
        ("batch_detect", load),
        ("batch_detect", anomaly),
        ("monitor", anomaly),  # nothing was scored
        ("compare", anomaly),
    }
    assert step.run_step("compare", anomaly, "7")["verdict"] == "left_out"


def _run(status: str, tags: dict[str, str]) -> Run:
    client = MlflowClient()
    run = client.create_run("0", tags={f"smartgrid.{name}": value for name, value in tags.items()})
    client.set_terminated(run.info.run_id, status)
    return client.get_run(run.info.run_id)


def test_the_verdict_is_that_of_the_launcher_or_of_a_whole_run_that_it_led_to(step: ModuleType, tracking: str) -> None:
    refused = _run("FAILED", {"verdict": "refused"})
    assert step._outcome(False, refused)["verdict"] == "refused"
    monitor = _run("FINISHED", {"verdict": "drift", "alerts": "level_shift"})
    outcome = step._outcome(False, _run("FAILED", {"run_id": monitor.info.run_id}))
    assert (outcome["verdict"], outcome["alerts"], outcome["run_id"]) == ("drift", "level_shift", monitor.info.run_id)
    broken = _run("FAILED", {"verdict": "ok", "error": "OSError: gone"})
    outcome = step._outcome(False, _run("FAILED", {"run_id": broken.info.run_id}))
    assert (outcome["verdict"], outcome["error"]) == ("", "OSError: gone")
    assert step._outcome(True, _run("FINISHED", {}))["verdict"] == "done"
    assert step._outcome(False, _run("FAILED", {}))["verdict"] == step._outcome(False, None)["verdict"] == ""


def test_only_a_retrained_version_is_due_and_only_after_its_canary_period(
    step: ModuleType, tracking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, model = MlflowClient(), _MODELS[0]
    assert step._due(model) == {"verdict": "none"}
    client.create_registered_model(model)
    with mlflow.start_run() as run:
        pass
    client.create_model_version(model, f"runs:/{run.info.run_id}/model", run.info.run_id)
    client.transition_model_version_stage(model, "1", "Staging")
    assert step._due(model) == {"verdict": "none"}
    since = dt.datetime.now(dt.UTC) - dt.timedelta(hours=10)
    client.set_model_version_tag(model, "1", "smartgrid.promoted_at", since.isoformat())
    client.set_model_version_tag(model, "1", "smartgrid.decision", _run("FINISHED", {"reason": "by hand"}).info.run_id)
    assert step._due(model) == {"verdict": "none"}
    retrained = _run("FINISHED", {"reason": "retrained"})
    client.set_model_version_tag(model, "1", "smartgrid.decision", retrained.info.run_id)
    for hours, verdict in (("11", "waiting"), ("9.5", "due"), ("0", "due")):
        monkeypatch.setenv("SMARTGRID_CANARY_HOURS", hours)
        found = step._due(model)
        assert (found["verdict"], found["version"]) == (verdict, "1")


def test_the_environment_of_airflow_is_pinned_exactly_and_knows_no_mlflow() -> None:
    text = (_ROOT / "deploy" / "airflow" / "requirements.txt").read_text()
    pins = dict(line.split("==") for line in text.splitlines() if not line.startswith("#"))
    assert len(pins) > 100 and all(version for version in pins.values())
    assert pins["apache-airflow"] == pins["apache-airflow-core"] and "mlflow" not in pins
