"""Decisions, rollback and the audit trail on a real registry, with times of a replayed year."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
from mlflow.models import Model

from smartgrid_pyfunc.lifecycle import decisions, registry
from smartgrid_pyfunc.lifecycle.errors import LifecycleError, PromotionRefused
from smartgrid_pyfunc.schema import LOAD_MODEL, InputError

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def store(tracking: str) -> mlflow.MlflowClient:
    client = mlflow.MlflowClient()
    folder = Path("stored-model").resolve()
    folder.mkdir()
    Model().save(str(folder / "MLmodel"))
    client.create_registered_model(LOAD_MODEL)
    for value in (1.0, 1.0, 1.0, 3.0):
        run = client.create_run("0")
        for name, figure in {"test_mae": value, "naive_mae": 2.0}.items():
            client.log_metric(run.info.run_id, name, figure)
        client.set_terminated(run.info.run_id)
        client.create_model_version(LOAD_MODEL, folder.as_uri(), run.info.run_id)
    return client


def _at(time: str) -> str | None:
    held, _ = registry.audit(LOAD_MODEL, time)
    return held["Production"].version if "Production" in held else None


def test_the_audit_trail_answers_for_every_day_of_a_year(store):
    registry.promote(LOAD_MODEL, version=1, now="2026-03-10T09:00:00Z", actor="ada", reason="first")
    registry.promote(LOAD_MODEL, version=2, now="2026-06-20T09:00:00+02:00", actor="bob")
    with pytest.raises(PromotionRefused):
        registry.promote(LOAD_MODEL, version=4, now="2026-08-01")
    registry.rollback(LOAD_MODEL, now="2026-08-15T10:00:00Z", actor="cy", reason="complaints")
    days = ["2026-03-09", "2026-03-10", "2026-05-03", "2026-06-20T06:59:00Z", "2026-06-20T07:00:00Z", "2026-08-14", ""]
    assert [_at(day) for day in days] == [None, "1", "1", "1", "2", "2", "1"]
    _, taken = registry.audit(LOAD_MODEL)
    assert [(d.version, d.verdict, d.by) for d in taken if d.verdict != "refused"] == [
        ("1", "promoted", "ada"), ("2", "promoted", "bob"), ("1", "rolled_back", "cy"),
    ]  # fmt: skip
    refused = next(d for d in taken if d.verdict == "refused")
    assert "test_mae 3 is not below naive_mae 2" in refused.reason
    first = taken[0]
    run = store.get_run(first.run_id)
    assert (first.from_stage, first.to_stage, first.reason) == ("None", "Production", "first")
    assert first.evidence == store.get_model_version(LOAD_MODEL, "1").run_id
    assert first.recorded_at.year > 2000
    assert first.recorded_at != first.decided_at
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"test_mae": 1.0, "naive_mae": 2.0}
    assert "test_mae,1,naive_mae,2,true" in mlflow.artifacts.load_text(f"{run.info.artifact_uri}/gate.csv")


def test_rolling_back_twice_goes_two_versions_back(store):
    with pytest.raises(LifecycleError, match=r"No version .* was in Production before version none"):
        registry.rollback(LOAD_MODEL)
    for version in (1, 2, 3):
        registry.promote(LOAD_MODEL, version=version)
    found = registry.rollback(LOAD_MODEL)
    assert (found.version, found.former) == ("2", "3")
    assert str(store.get_registered_model(LOAD_MODEL).aliases["champion"]) == "2"
    assert store.get_model_version(LOAD_MODEL, "3").current_stage == "Archived"
    assert registry.rollback(LOAD_MODEL).version == "1"
    with pytest.raises(LifecycleError, match="before version 1"):
        registry.rollback(LOAD_MODEL)
    registry.promote(LOAD_MODEL, version=3)
    assert registry.rollback(LOAD_MODEL).version == "1"
    registry.promote(LOAD_MODEL, version=3)
    store.delete_model_version(LOAD_MODEL, "1")
    with pytest.raises(LifecycleError, match="version 1, which was in Production before, was deleted"):
        registry.rollback(LOAD_MODEL)


def test_what_was_moved_by_hand_is_found_and_recorded_by_repair(store):
    registry.promote(LOAD_MODEL, version=1)
    store.transition_model_version_stage(LOAD_MODEL, "1", "Archived")
    store.transition_model_version_stage(LOAD_MODEL, "2", "Production")
    found = registry.inconsistencies(LOAD_MODEL)
    assert found == [
        f"{LOAD_MODEL}: version 2 is in Production, but the alias champion points to version 1",
        f"{LOAD_MODEL}: version 2 is in Production, the decisions say 1",
    ]
    assert registry.repair(LOAD_MODEL) == found
    assert registry.inconsistencies(LOAD_MODEL) == registry.repair(LOAD_MODEL) == []
    assert str(store.get_registered_model(LOAD_MODEL).aliases["champion"]) == "2"
    assert decisions.of_model(LOAD_MODEL)[-1].verdict == "repaired"
    assert _at("") == "2"
    assert registry.rollback(LOAD_MODEL).version == "1"


def test_a_champion_that_changed_while_it_was_compared_refuses_the_promotion(store):
    registry.promote(LOAD_MODEL, version=1)

    def crossed(champion: str, version: str) -> registry.Paired:
        registry.promote(LOAD_MODEL, version=3)
        return registry.Paired(registry.Verdict(), "0" * 32)

    with pytest.raises(PromotionRefused, match="version 3 came into Production while it was compared with 1"):
        registry.promote(LOAD_MODEL, version=2, compare=crossed)
    assert registry.production_version(LOAD_MODEL) == "3"


def test_a_failed_comparison_leaves_a_failed_decision_and_moves_nothing(store):
    registry.promote(LOAD_MODEL, version=1)

    def broken(champion: str, version: str) -> registry.Paired:
        raise LifecycleError("The model of postgresql://me:secret@host does not load.")

    with pytest.raises(LifecycleError, match="does not load"):
        registry.promote(LOAD_MODEL, version=2, compare=broken)
    last = decisions.of_model(LOAD_MODEL)[-1]
    assert (last.verdict, last.version) == ("failed", "2")
    assert "secret" not in last.reason
    assert store.get_run(last.run_id).info.status == "FAILED"
    assert registry.inconsistencies(LOAD_MODEL) == []


@pytest.mark.parametrize("time", ["3 May", "2026-13-01", "tomorrow"])
def test_a_time_that_is_none_is_refused_before_anything_moves(store, time):
    with pytest.raises(InputError, match="ISO 8601"):
        registry.promote(LOAD_MODEL, version=1, now=time)
    assert decisions.of_model(LOAD_MODEL) == []


def _script(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "entrypoints" / f"{name}.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_the_scripts_roll_back_and_answer_what_was_in_production(store):
    registry.promote(LOAD_MODEL, version=1, now="2026-03-10T09:00:00Z")
    registry.promote(LOAD_MODEL, version=2, now="2026-06-20T09:00:00Z")
    done = _script("rollback", "--model", LOAD_MODEL, "--now", "2026-08-15", "--reason", "complaints")
    assert done.returncode == 0, done.stderr
    assert "version   1\nstage     Archived -> Production" in done.stdout
    told = _script("audit", "--model", LOAD_MODEL, "--at", "2026-07-01")
    assert told.returncode == 0, told.stderr
    assert "Production  version 2" in told.stdout
    assert "complaints" not in told.stdout
    assert "complaints" in _script("audit", "--model", LOAD_MODEL).stdout
    assert _script("audit", "--model", LOAD_MODEL, "--at", "3 May").returncode == 2
