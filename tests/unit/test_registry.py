"""Promotion and its gate against a real SQLite registry."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import mlflow
import pytest
from mlflow.models import Model

from smartgrid_pyfunc.lifecycle import integrity, registry
from smartgrid_pyfunc.lifecycle.errors import LifecycleError, PromotionRefused
from smartgrid_pyfunc.schema import ANOMALY_MODEL, LOAD_MODEL, InputError

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.integration
GOOD = {"test_mae": 1.0, "naive_mae": 2.0}
BAD = {"test_mae": 2.0, "naive_mae": 1.0}


@pytest.fixture
def store(tracking: str) -> mlflow.MlflowClient:
    return mlflow.MlflowClient()


def _version(
    store: mlflow.MlflowClient, metrics: dict[str, float], model: str = LOAD_MODEL, status: str = "FINISHED"
) -> str:
    """Register a version whose run holds `metrics`, with files that are whole."""
    run = store.create_run("0")
    for name, value in metrics.items():
        store.log_metric(run.info.run_id, name, value)
    store.set_terminated(run.info.run_id, status)
    if not store.search_registered_models(f"name = '{model}'"):
        store.create_registered_model(model)
    return str(store.create_model_version(model, _stored_model().as_uri(), run.info.run_id).version)


def _stored_model() -> Path:
    """Write a model that says what it is made of into the working folder, which is the test's own."""
    folder = Path("stored-model").resolve()
    if not folder.exists():
        state = folder / "artifacts" / "state"
        state.mkdir(parents=True)
        (state / "arrays.npz").write_bytes(b"123456789")
        files = integrity.manifest(state, "artifacts/state")
        Model(metadata={integrity.FILES: files}).save(str(folder / "MLmodel"))
    return folder


def _state(store: mlflow.MlflowClient, model: str = LOAD_MODEL) -> tuple[dict[str, str], dict[str, str]]:
    """Return stage by version and version by alias."""
    stages = {str(entry.version): entry.current_stage for entry in store.search_model_versions(f"name = '{model}'")}
    return stages, {alias: str(v) for alias, v in store.get_registered_model(model).aliases.items()}


def _tags(store: mlflow.MlflowClient, version: str, model: str = LOAD_MODEL) -> dict[str, str]:
    return store.get_model_version(model, version).tags


def _transition(store: mlflow.MlflowClient, version: str, stage: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        store.transition_model_version_stage(LOAD_MODEL, version, stage)


# ----------------------------------------------------------------------------------------------- the gate


def test_a_version_better_than_its_baseline_is_promoted(store):
    version = _version(store, GOOD)
    promotion = registry.promote(LOAD_MODEL, actor="ada")
    assert _state(store) == ({version: "Production"}, {"champion": version})
    assert (promotion.version, promotion.from_stage, promotion.stage) == (version, "None", "Production")
    assert (promotion.alias, promotion.former, promotion.forced) == ("champion", None, False)
    (line,) = promotion.verdict.comparisons
    assert (line.metric, line.value, line.baseline, line.bound) == ("test_mae", 1.0, "naive_mae", 2.0)
    tags = _tags(store, version)
    assert tags["smartgrid.promoted_by"] == "ada"
    assert (tags["smartgrid.promoted_from"], tags["smartgrid.promoted_to"]) == ("None", "Production")
    assert json.loads(tags["smartgrid.promotion_metrics"]) == GOOD
    assert tags["smartgrid.promotion_forced"] == "false"


@pytest.mark.parametrize(
    ("model", "metrics", "reason"),
    [
        (LOAD_MODEL, BAD, "test_mae 2 is not below naive_mae 1"),
        (LOAD_MODEL, {"test_mae": 1.0, "naive_mae": 1.0}, "not below"),
        (LOAD_MODEL, {}, "no usable test_mae and no usable naive_mae"),
        (LOAD_MODEL, {"test_mae": 1.0}, "no usable naive_mae"),
        (LOAD_MODEL, {"test_mae": math.nan, "naive_mae": 1.0}, "no usable test_mae"),
        (LOAD_MODEL, {"test_mae": 1.0, "naive_mae": math.nan}, "no usable naive_mae"),
        (ANOMALY_MODEL, {"test_average_precision": 0.2, "baseline_average_precision": 0.3}, "not above"),
        (ANOMALY_MODEL, {"test_average_precision": 0.2}, "no usable baseline_average_precision"),
        (
            ANOMALY_MODEL,
            {"test_average_precision": math.nan, "test_flagged_share": 0.01, "false_alarm_rate": 0.01},
            "no usable test_average_precision",
        ),
        (ANOMALY_MODEL, {"test_flagged_share": 0.04, "false_alarm_rate": 0.01}, "0.04 is not below"),
        (ANOMALY_MODEL, {"test_flagged_share": 0.04}, "no usable 3 x false_alarm_rate"),
        ("SomebodysModel", GOOD, f"no gate is known for it .*{LOAD_MODEL}, {ANOMALY_MODEL}"),
    ],
)
def test_a_version_without_better_evaluation_is_refused(store, model, metrics, reason):
    version = _version(store, metrics, model)
    for stage in ("Production", "Staging"):
        with pytest.raises(PromotionRefused, match=reason):
            registry.promote(model, stage=stage)
    assert _state(store, model) == ({version: "None"}, {})
    assert "promotion_refused" in "".join(_tags(store, version, model))


@pytest.mark.parametrize(
    "metrics",
    [
        {"test_average_precision": 0.4, "baseline_average_precision": 0.3, "test_flagged_share": 0.5},
        {"test_flagged_share": 0.02, "false_alarm_rate": 0.01},
        {"test_flagged_share": 0.75, "false_alarm_rate": 0.25},  # exactly three times the budget
    ],
)
def test_a_detector_is_held_against_labels_first_and_its_budget_else(store, metrics):
    version = _version(store, metrics, ANOMALY_MODEL)
    registry.promote(ANOMALY_MODEL)
    assert _state(store, ANOMALY_MODEL) == ({version: "Production"}, {"champion": version})


@pytest.mark.parametrize("status", ["FAILED", "KILLED"])
def test_a_run_that_did_not_finish_is_refused(store, status):
    _version(store, GOOD, status=status)
    with pytest.raises(PromotionRefused, match=f"{status}, not FINISHED"):
        registry.promote(LOAD_MODEL)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda file: file.unlink(), "artifacts/state/arrays.npz is missing"),
        (lambda file: file.write_bytes(b"1234"), "artifacts/state/arrays.npz has 4 bytes of 9"),
        (lambda file: (file.parents[2] / "MLmodel").unlink(), "MLmodel is missing"),
    ],
)
def test_no_version_with_missing_or_truncated_files_is_registered_or_promoted_even_by_force(store, damage, said):
    version = _version(store, GOOD)
    damage(_stored_model() / "artifacts" / "state" / "arrays.npz")
    with pytest.raises(LifecycleError, match=said):
        registry.promote(LOAD_MODEL, version=version, force=True)
    with pytest.raises(LifecycleError, match=said):
        registry.register(f"models:/{LOAD_MODEL}/{version}", LOAD_MODEL)
    assert _state(store) == ({version: "None"}, {})


def test_a_version_without_a_run_is_refused(store):
    store.create_registered_model(LOAD_MODEL)
    store.create_model_version(LOAD_MODEL, _stored_model().as_uri())
    with pytest.raises(PromotionRefused, match="no run"):
        registry.promote(LOAD_MODEL)


@pytest.mark.parametrize("metrics", [BAD, {}, {"test_mae": math.nan, "naive_mae": 1.0}])
def test_force_overrules_the_gate_and_says_so(store, metrics):
    version = _version(store, metrics)
    assert registry.promote(LOAD_MODEL, force=True).forced
    assert _state(store) == ({version: "Production"}, {"champion": version})
    tags = _tags(store, version)
    assert tags["smartgrid.promotion_forced"] == "true"
    assert "test_mae" in tags["smartgrid.promotion_objections"]


def test_force_on_a_good_version_is_not_recorded_as_forced(store):
    _version(store, GOOD)
    assert not registry.promote(LOAD_MODEL, force=True).forced


@pytest.mark.parametrize("stage", ["Archived", "None"])
def test_the_gate_does_not_stand_before_archive(store, stage):
    version = _version(store, {})
    assert registry.promote(LOAD_MODEL, stage=stage).alias is None
    assert _state(store) == ({version: stage}, {})


# ----------------------------------------------------------------------------------------------- stages and aliases


def test_the_former_champion_is_archived_and_loses_its_alias(store):
    first, second = _version(store, GOOD), _version(store, GOOD)
    registry.promote(LOAD_MODEL, version=first)
    promotion = registry.promote(LOAD_MODEL)
    assert promotion.former == first
    assert _state(store) == ({first: "Archived", second: "Production"}, {"champion": second})
    assert _tags(store, second)["smartgrid.replaced"] == first
    assert _tags(store, first)["smartgrid.replaced_by"] == second


def test_rolling_back_is_promoting_the_older_version(store):
    first, second = _version(store, GOOD), _version(store, GOOD)
    for version in (first, second, first):
        registry.promote(LOAD_MODEL, version=version)
    assert _state(store) == ({first: "Production", second: "Archived"}, {"champion": first})


def test_a_challenger_that_becomes_champion_leaves_its_alias(store):
    first, second = _version(store, GOOD), _version(store, GOOD)
    registry.promote(LOAD_MODEL, version=int(first))
    registry.promote(LOAD_MODEL, version=second, stage="staging")
    assert _state(store) == (
        {first: "Production", second: "Staging"},
        {"champion": first, "challenger": second},
    )
    assert registry.promote(LOAD_MODEL, version=second, stage="PRODUCTION").from_stage == "Staging"
    assert _state(store) == ({first: "Archived", second: "Production"}, {"champion": second})


@pytest.mark.parametrize("stage", ["Archived", "None"])
def test_a_champion_taken_down_loses_its_alias(store, stage):
    version = _version(store, GOOD)
    registry.promote(LOAD_MODEL)
    assert registry.production_version(LOAD_MODEL) == version
    registry.promote(LOAD_MODEL, stage=stage)
    assert _state(store) == ({version: stage}, {})
    assert registry.production_version(LOAD_MODEL) is None


def test_the_version_to_serve_is_the_one_that_holds_the_stage(store):
    assert registry.version_in(LOAD_MODEL, "Production") is None  # not even registered
    first, second = (_version(store, GOOD) for _ in range(2))
    assert registry.version_in(LOAD_MODEL, "Production") is None
    _transition(store, first, "Production")
    _transition(store, second, "Staging")
    assert [registry.version_in(LOAD_MODEL, stage) for stage in ("Production", "Staging")] == [first, second]


def test_a_registry_that_does_not_answer_is_no_registry_without_versions(tracking, monkeypatch):
    mlflow.set_tracking_uri("http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(LifecycleError, match="cannot be reached"):
        registry.version_in(LOAD_MODEL, "Production")


def test_promoting_twice_changes_nothing_more(store):
    version = _version(store, GOOD)
    registry.promote(LOAD_MODEL)
    again = registry.promote(LOAD_MODEL)
    assert (again.from_stage, again.stage, again.former) == ("Production", "Production", None)
    assert _state(store) == ({version: "Production"}, {"champion": version})


def test_aliases_of_the_users_own_are_left_alone(store):
    version = _version(store, GOOD)
    store.set_registered_model_alias(LOAD_MODEL, "blessed", version)
    registry.promote(LOAD_MODEL)
    registry.promote(LOAD_MODEL, stage="Archived")
    assert _state(store)[1] == {"blessed": version}


def test_the_latest_version_is_the_highest_number(store):
    versions = [_version(store, GOOD) for _ in range(11)]  # as text, 9 comes after 11
    assert registry.promote(LOAD_MODEL).version == versions[-1] == "11"


def test_stage_deprecation_is_silenced_and_nothing_else(store):
    _version(store, GOOD)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        registry.promote(LOAD_MODEL)
        warnings.warn("another", FutureWarning, stacklevel=1)
    assert [str(entry.message) for entry in caught if entry.category is FutureWarning] == ["another"]


# ----------------------------------------------------------------------------------------------- half-done promotions


def _promote_with(call: str, then: str, version: str, stage: str = "Production") -> int:
    """Promote in a process in which `then` happens at the registry's `call`; return its exit code."""
    code = f"""
        import os, sys
        sys.path.insert(0, {str(ROOT)!r})
        import mlflow
        from smartgrid_pyfunc.lifecycle import integrity, registry
        real = mlflow.MlflowClient.{call}
        def disturbed(*args, **settings):
            {then}
        mlflow.MlflowClient.{call} = disturbed
        registry.promote({LOAD_MODEL!r}, version={version!r}, stage={stage!r})
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], env=os.environ, timeout=60, check=False)
    return done.returncode


@pytest.mark.parametrize("call", ["set_registered_model_alias", "transition_model_version_stage"])
def test_a_promotion_killed_half_way_serves_the_former_and_is_completed_by_the_next(store, call):
    first, second = _version(store, GOOD), _version(store, GOOD)
    registry.promote(LOAD_MODEL, version=first)
    assert _promote_with(call, "os._exit(9)", second) == 9
    stages, aliases = _state(store)
    assert registry.production_version(LOAD_MODEL) == first
    assert all(stages[version] != "Archived" for version in aliases.values())
    registry.promote(LOAD_MODEL, version=second)
    assert _state(store) == ({first: "Archived", second: "Production"}, {"champion": second})


def test_a_champion_being_archived_never_leaves_its_alias_behind(store):
    version = _version(store, GOOD)
    registry.promote(LOAD_MODEL)
    then = "real(*args, **settings); os._exit(9)"
    assert _promote_with("transition_model_version_stage", then, version, "Archived") == 9
    assert _state(store) == ({version: "Archived"}, {})


def test_a_promotion_that_another_one_crosses_ends_with_stage_and_alias_agreeing(store):
    first, second = _version(store, GOOD), _version(store, GOOD)
    then = f"real(*args, **settings); args[0].set_registered_model_alias({LOAD_MODEL!r}, 'champion', {first!r})"
    assert _promote_with("transition_model_version_stage", then, second) == 0
    assert _state(store) == ({first: "None", second: "Production"}, {"champion": second})


def test_the_next_call_repairs_even_if_it_is_refused(store):
    first, second = _version(store, GOOD), _version(store, BAD)
    registry.promote(LOAD_MODEL, version=first)
    store.set_registered_model_alias(LOAD_MODEL, "champion", second)
    store.set_registered_model_alias(LOAD_MODEL, "challenger", first)
    with pytest.raises(PromotionRefused):
        registry.promote(LOAD_MODEL, version=second)
    assert _state(store) == ({first: "Production", second: "None"}, {"champion": first})


def test_an_alias_on_an_archived_version_is_removed(store):
    first, second = _version(store, GOOD), _version(store, GOOD)
    registry.promote(LOAD_MODEL, version=first)
    _transition(store, first, "Archived")  # by hand, in the UI
    registry.promote(LOAD_MODEL, version=second, stage="Staging")
    assert _state(store) == ({first: "Archived", second: "Staging"}, {"challenger": second})


# ----------------------------------------------------------------------------------------------- unknown names


def test_unknown_names_are_told_with_what_exists(store):
    with pytest.raises(LifecycleError, match="train one first"):
        registry.promote(LOAD_MODEL)
    _version(store, GOOD)
    with pytest.raises(LifecycleError, match=f"No model named 'LoadModel' .*{LOAD_MODEL}"):
        registry.promote("LoadModel")
    with pytest.raises(LifecycleError, match="no version 7; there are: 1"):
        registry.promote(LOAD_MODEL, version=7)
    with pytest.raises(InputError, match=r"version must be a number.*first"):
        registry.promote(LOAD_MODEL, version="first")
    with pytest.raises(InputError, match=r"Production, Staging, Archived or None.*prod"):
        registry.promote(LOAD_MODEL, stage="prod")
    with pytest.raises(LifecycleError, match="No model named"):
        registry.production_version("it's: odd/")


def test_a_model_without_versions_is_told(store):
    store.create_registered_model(LOAD_MODEL)
    with pytest.raises(LifecycleError, match="no version"):
        registry.promote(LOAD_MODEL)


# ----------------------------------------------------------------------------------------------- registering


def test_a_registered_version_is_ready_described_and_loads(store, tmp_path):
    code = tmp_path / "echo.py"
    code.write_text(
        "import mlflow\n"
        "class Echo(mlflow.pyfunc.PythonModel):\n"
        "    def predict(self, context, model_input, params=None):\n"
        "        return model_input\n"
        "mlflow.models.set_model(Echo())\n"
    )
    with mlflow.start_run() as run:
        info = mlflow.pyfunc.log_model(name="model", python_model=str(code), pip_requirements=["mlflow"])
    versions = [
        registry.register(info.model_uri, LOAD_MODEL, description="**first**", tags={"data": "demo"}),
        registry.register(run.info.run_id, LOAD_MODEL),
    ]
    assert versions == ["1", "2"]
    first = store.get_model_version(LOAD_MODEL, "1")
    assert (first.status, first.description, first.tags["data"]) == ("READY", "**first**", "demo")
    assert first.run_id == run.info.run_id
    assert "models:/LoadForecastingModel/Production" in store.get_registered_model(LOAD_MODEL).description
    assert mlflow.pyfunc.load_model(f"models:/{LOAD_MODEL}/2").predict([1, 2]) == [1, 2]


def test_registering_what_is_not_there_is_an_error(store):
    with pytest.raises(LifecycleError, match=r"Could not look at the files of runs:/0+/model: Run with id"):
        registry.register("0" * 32, LOAD_MODEL)


# ----------------------------------------------------------------------------------------------- the script


def _promote(*arguments: str) -> subprocess.CompletedProcess[str]:
    script = [sys.executable, str(ROOT / "entrypoints" / "promote.py"), *arguments]
    return subprocess.run(script, capture_output=True, text=True, timeout=60, check=False)


def test_the_script_tells_what_changed_and_takes_empty_values_as_not_given(store):
    version = _version(store, GOOD)
    done = _promote("--model", LOAD_MODEL, "--version", "", "--stage", "", "--force", "false")
    assert done.returncode == 0, done.stderr
    assert _state(store) == ({version: "Production"}, {"champion": version})
    for told in ("None -> Production", "champion", "naive_mae 2", f"mlflow models serve -m models:/{LOAD_MODEL}/Prod"):
        assert told in done.stdout
    assert done.stderr == ""


def test_the_scripts_exit_code_tells_a_refusal_from_a_failure_and_from_misuse(store, monkeypatch):
    _version(store, BAD)
    launcher = store.create_run("0").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", launcher)
    cases = [
        (("--model", LOAD_MODEL), 3, "is not promoted"),
        (("--model", "Nothing"), 1, "No model named"),
        (("--model", LOAD_MODEL, "--stage", "prod"), 2, "stage must be"),
    ]
    for arguments, code, told in cases:
        done = _promote(*arguments)
        assert (done.returncode, done.stdout) == (code, ""), done.stderr
        assert told in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert store.get_run(launcher).data.tags["smartgrid.verdict"] == "refused"
    assert _promote("--model", LOAD_MODEL, "--force", "true").returncode == 0
    assert store.get_run(launcher).data.tags["smartgrid.verdict"] == "forced"
