"""Whether stages, aliases and decisions of a model agree, mending them, and what was where at any time."""

from __future__ import annotations

from collections.abc import Mapping

from mlflow.entities.model_registry import ModelVersion

from smartgrid_pyfunc.lifecycle import decisions, moving
from smartgrid_pyfunc.lifecycle.decisions import Decision
from smartgrid_pyfunc.lifecycle.server import bounded_wait, plain_errors
from smartgrid_pyfunc.lifecycle.versions import ALIASES, holder, stage_of, versions_of


def audit(model: str, at: str = "") -> tuple[dict[str, Decision], list[Decision]]:
    """Return which decision put a version into each stage held at a time, and all decisions up to then.

    Parameters
    ----------
    model : str
    at : str
        ISO 8601; a date stands for the end of that day; empty: now.
    """
    until = decisions.parse_time(at)
    with bounded_wait(), plain_errors(f"read the decisions on {model}"):
        versions_of(model)
        taken = [entry for entry in decisions.of_model(model) if entry.decided_at <= until]
        return decisions.stages_after(taken), taken


def inconsistencies(model: str) -> list[str]:
    """Return what is wrong with stages, aliases and decisions of `model`, a phrase each; changes nothing."""
    with bounded_wait(), plain_errors(f"look at {model}"):
        versions = versions_of(model)
        wrong = [fault for stage in ALIASES for fault in moving.faults(model, stage)]
        wrong += [
            f"the decision {entry.run_id} on version {entry.version} was cut off" for entry in decisions.pending(model)
        ]
        return [f"{model}: {entry}" for entry in wrong + _untold(model, versions)]


def repair(model: str) -> list[str]:
    """Bring stages, aliases and decisions of `model` into agreement; return what was wrong, a phrase each.

    What was changed by hand stays and is recorded as a decision, so that the audit trail tells it.
    """
    with bounded_wait(), plain_errors(f"repair {model}"):
        wrong = inconsistencies(model)
        settle(model)
        if wrong:
            _record_untold(model)
        return wrong


def settle(model: str) -> None:
    """Finish or undo what a process that died has left: stages, aliases and pending decisions."""
    moving.settle(model)
    for entry in decisions.pending(model):
        versions = versions_of(model)
        arrived = entry.version in versions and stage_of(versions[entry.version]) == entry.to_stage
        verdict, said = ("promoted", "was completed") if arrived else ("refused", "nothing had moved")
        decisions.end(entry.run_id, verdict, f"cut off half-way; {said}")


def _untold(model: str, versions: Mapping[str, ModelVersion]) -> list[str]:
    """Return where the registry is not what the decisions say: somebody changed it in another way."""
    told = decisions.stages_after(decisions.of_model(model))
    wrong = []
    for stage in ALIASES:
        is_there, said = holder(versions, stage) or "none", told[stage].version if stage in told else "none"
        if is_there != said:
            wrong.append(f"version {is_there} is in {stage}, the decisions say {said}")
    return wrong


def _record_untold(model: str) -> None:
    versions = versions_of(model)
    told = decisions.stages_after(decisions.of_model(model))
    for stage in ALIASES:
        present, said = holder(versions, stage) or "", told[stage].version if stage in told else ""
        if present != said:
            run_id = decisions.begin(
                model, present, from_stage="", to_stage=stage, by="repair", former=said,
            )  # fmt: skip
            decisions.end(run_id, "repaired", "found there; it was moved in another way than by a decision")
