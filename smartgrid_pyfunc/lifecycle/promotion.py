"""Promoting a version behind the gate, and rolling back: each a decision that is recorded before anything moves."""

from __future__ import annotations

import datetime as dt
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import mlflow
from mlflow.entities.model_registry import ModelVersion

from smartgrid_pyfunc.lifecycle import decisions, moving
from smartgrid_pyfunc.lifecycle.consistency import settle
from smartgrid_pyfunc.lifecycle.errors import LifecycleError, PromotionRefused
from smartgrid_pyfunc.lifecycle.gate import Verdict, judge
from smartgrid_pyfunc.lifecycle.integrity import require_whole
from smartgrid_pyfunc.lifecycle.server import bounded_wait, plain_errors
from smartgrid_pyfunc.lifecycle.versions import ALIASES, choose, holder, parse_stage, stage_of, versions_of

_TAG_LENGTH = 4000


@dataclass(frozen=True)
class Promotion:
    """What a promotion changed.

    Attributes
    ----------
    model, version : str
        The version that was moved.
    from_stage, stage : str
        Its stage before and now.
    alias : str or None
        The alias it now holds.
    former : str or None
        The version that held the stage before and is archived now.
    forced : bool
        True if the gate would have refused.
    verdict : Verdict
        What the gate found; without comparisons for Archived and None, which need none.
    decision : str
        The run that records it.
    """

    model: str
    version: str
    from_stage: str
    stage: str
    alias: str | None
    former: str | None
    forced: bool
    verdict: Verdict
    decision: str = ""


@dataclass(frozen=True)
class Paired:
    """What a comparison with the version in Production showed.

    Attributes
    ----------
    verdict : Verdict
    evidence : str
        The comparison's run; empty if none could be made.
    texts : Mapping
        Tables for the decision's run, by file name.
    """

    verdict: Verdict
    evidence: str = ""
    texts: Mapping[str, str] | None = None


#: Compares the version in Production with the one to be promoted (their numbers).
Compare = Callable[[str, str], Paired]


def promote(
    model: str,
    *,
    version: str | int | None = None,
    stage: str = "Production",
    force: bool = False,
    actor: str | None = None,
    reason: str = "",
    now: str = "",
    compare: Compare | None = None,
) -> Promotion:
    """Move a version to `stage`, together with the stage's alias, if the gate lets it; record the decision.

    Parameters
    ----------
    model : str
        Registered name.
    version : str or int, optional
        Default: the latest.
    stage : str
        Production, Staging, Archived or None, in any case. The gate stands before the first two only.
    force : bool
        Promote although the gate refuses; the version's tags and the decision say so.
    actor, reason : str, optional
        Who promotes, default: the user of this process; and why, in words.
    now : str
        Time of the decision (ISO 8601); empty: the clock's.
    compare : callable, optional
        Called before a move to Production with the number of the version there, if there is one, and of the other.
        Without it the version is held against its baseline alone.

    Returns
    -------
    Promotion
        What changed. The former holder of the stage is archived and loses its alias.

    Raises
    ------
    InputError
        For an unknown stage, a version that is not a number or a time that is none.
    PromotionRefused
        If the version's run did not finish, holds no evaluation, is not better than its baseline, fails the comparison,
        or if another version was promoted meanwhile.
    LifecycleError
        For an unknown model or version, if a file of it is missing or cut short in the artifact store (`force` changes
        nothing about that), or if the registry cannot be reached.

    Notes
    -----
    The decision's run is opened before anything moves and ended after: a process killed in between leaves it pending,
    the former version served, and `repair`, which each call for the model begins with, completes both.
    """
    stage, decided_at = parse_stage(stage), decisions.parse_time(now) if now.strip() else None
    with bounded_wait(), plain_errors(f"promote {model}"):
        versions = versions_of(model)
        chosen = versions[choose(model, versions, version)]
        settle(model)
        if stage in ALIASES:
            require_whole(_uri(chosen))
        by = actor or decisions.user()
        with _decision(chosen, stage, by, decided_at) as run_id:
            champion = holder(versions_of(model), "Production")
            paired = _judged(chosen, stage, champion, compare, force)
            verdict = paired.verdict
            if not verdict.passed and not force:
                _refuse(chosen, stage, verdict, paired, run_id)
            _require_same_champion(chosen, champion, stage, compare, run_id)
            return _move(chosen, stage, paired, by, reason, run_id)


def _uri(version: ModelVersion) -> str:
    """Return the model URI of `version` by number."""
    return f"models:/{version.name}/{version.version}"


def _judged(version: ModelVersion, stage: str, champion: str | None, compare: Compare | None, force: bool) -> Paired:
    """Hold `version` against its baseline and then, for Production, against the version there."""
    if stage not in ALIASES:
        return Paired(Verdict())
    own = judge(version.name, version)
    if not own.passed or compare is None or stage != "Production" or champion in (None, str(version.version)):
        return Paired(own, version.run_id or "")
    if force:
        unseen = Verdict(reasons=(f"it was not compared with version {champion} in Production",))
        return Paired(own + unseen, version.run_id or "")
    paired = compare(str(champion), str(version.version))
    return Paired(own + paired.verdict, paired.evidence or version.run_id or "", paired.texts)


def _require_same_champion(
    version: ModelVersion, champion: str | None, stage: str, compare: Compare | None, run_id: str
) -> None:
    """Refuse if the version in Production changed while it was compared: the evidence is about the former one."""
    if stage != "Production" or compare is None:
        return
    present = holder(versions_of(version.name), "Production")
    if present != champion:
        said = f"version {present or 'none'} came into Production while it was compared with {champion or 'none'}"
        _refuse(version, stage, Verdict(reasons=(said,)), Paired(Verdict()), run_id)


@contextmanager
def _decision(version: ModelVersion, stage: str, by: str, decided_at: dt.datetime | None) -> Iterator[str]:
    former = holder(versions_of(version.name), stage) if stage in ALIASES else None
    run_id = decisions.begin(
        version.name,
        str(version.version),
        from_stage=stage_of(version),
        to_stage=stage,
        by=by,
        decided_at=decided_at,
        former=former if former != str(version.version) else None,
        launcher=os.environ.get("MLFLOW_RUN_ID") or os.environ.get("SMARTGRID_LAUNCHER_RUN_ID") or "",
    )
    try:
        yield run_id
    except PromotionRefused:
        raise
    except BaseException as error:
        decisions.fail(run_id, error)
        raise


def _refuse(version: ModelVersion, stage: str, verdict: Verdict, paired: Paired, run_id: str) -> None:
    reason = "; ".join(verdict.reasons)
    _tag(version, {"promotion_refused": f"{_now()} {stage}: {reason}"})
    _end(run_id, "refused", reason, verdict, paired)
    raise PromotionRefused(
        f"{version.name} version {version.version} is not promoted to {stage}: {reason}; "
        "train a better version, or set force to true to promote it all the same."
    )


# ----------------------------------------------------------------------------------------------- moving a version


def _move(version: ModelVersion, stage: str, paired: Paired, actor: str, reason: str, run_id: str) -> Promotion:
    number, alias, verdict = str(version.version), ALIASES.get(stage), paired.verdict
    versions = versions_of(version.name)
    former = holder({key: entry for key, entry in versions.items() if key != number}, stage) if alias else None
    # Tags come first: no version may reach a stage without a trace of who put it there.
    _tag(version, _record(version, stage, verdict, actor, former) | {"decision": run_id})
    if former is not None:
        _tag(versions[former], {"replaced_by": number, "replaced_at": _now(), "replaced_in": stage})
    present = moving.move(version, stage)
    if alias and present != number:
        _refuse(
            version, stage, Verdict(reasons=(f"version {present} was promoted at the same moment",)), paired, run_id
        )
    forced = not verdict.passed
    objections = "; ".join(verdict.reasons)
    said = "; ".join(filter(None, (reason, objections))) if forced else reason or _why(verdict)
    _end(run_id, "forced" if forced else "promoted", said, verdict, paired)
    return Promotion(version.name, number, stage_of(version), stage, alias, former, forced, verdict, run_id)


def _end(run_id: str, outcome: str, reason: str, verdict: Verdict, paired: Paired) -> None:
    decisions.end(
        run_id,
        outcome,
        reason,
        evidence=paired.evidence,
        metrics=_figures(verdict),
        texts=_texts(verdict, paired),
    )


def _why(verdict: Verdict) -> str:
    return "; ".join(f"{c.metric} {c.value:.4g} against {c.baseline} {c.bound:.4g}" for c in verdict.comparisons)


def _figures(verdict: Verdict) -> dict[str, float]:
    lines = verdict.comparisons
    pairs = {line.metric: line.value for line in lines} | {line.baseline: line.bound for line in lines}
    return {name.replace("%", "percent"): value for name, value in pairs.items() if not math.isnan(value)}


def _texts(verdict: Verdict, paired: Paired) -> dict[str, str]:
    rows = ["metric,value,against,bound,passed"]
    rows += [
        f"{c.metric},{c.value:.6g},{c.baseline},{c.bound:.6g},{str(c.passed).lower()}" for c in verdict.comparisons
    ]
    return {"gate.csv": "\n".join(rows) + "\n", **(paired.texts or {})}


def _record(version: ModelVersion, stage: str, verdict: Verdict, actor: str, former: str | None) -> dict[str, str]:
    figures = {}
    for line in verdict.comparisons:
        figures.update({line.metric: line.value, line.baseline: line.bound})
    return {
        "promoted_by": actor,
        "promoted_at": _now(),
        "promoted_from": stage_of(version),
        "promoted_to": stage,
        "promotion_metrics": json.dumps({name: None if math.isnan(x) else x for name, x in figures.items()}),
        "promotion_forced": str(not verdict.passed).lower(),
        "promotion_objections": "; ".join(verdict.reasons),
        "replaced": former or "",
    }


def _tag(version: ModelVersion, tags: Mapping[str, str]) -> None:
    client = mlflow.MlflowClient()
    for name, value in tags.items():
        client.set_model_version_tag(version.name, str(version.version), f"smartgrid.{name}", value[:_TAG_LENGTH])


# ----------------------------------------------------------------------------------------------- going back


def rollback(model: str, *, actor: str | None = None, reason: str = "", now: str = "") -> Promotion:
    """Put the version back that was in Production before the present one; record the decision.

    No gate stands before it: the version has passed it before. Rolling back twice goes two versions back.

    Raises
    ------
    LifecycleError
        If there is no former version, it was deleted, or files of it are missing in the store.
    """
    decided_at = decisions.parse_time(now) if now.strip() else None
    with bounded_wait(), plain_errors(f"roll {model} back"):
        versions = versions_of(model)
        settle(model)
        target = versions[_former(model, versions)]
        require_whole(_uri(target))
        by = actor or decisions.user()
        with _decision(target, "Production", by, decided_at) as run_id:
            present = holder(versions_of(model), "Production")
            _tag(target, _record(target, "Production", Verdict(), by, present) | {"decision": run_id})
            moving.move(target, "Production")
            decisions.end(run_id, "rolled_back", reason or f"instead of version {present or 'none'}")
        number = str(target.version)
        return Promotion(model, number, stage_of(target), "Production", "champion", present, False, Verdict(), run_id)


def _former(model: str, versions: Mapping[str, ModelVersion]) -> str:
    """Return the version in Production before the present one: by the decisions, else by the tags of versions."""
    present = holder(versions, "Production")
    path = decisions.production_path(decisions.of_model(model))
    if present in path:
        earlier = path[: len(path) - 1 - path[::-1].index(present)]
        former = earlier[-1] if earlier else ""
    elif path:  # nothing is in Production: back to what was
        former = path[-1]
    else:
        former = versions[present].tags.get("smartgrid.replaced", "") if present else ""
    if not former:
        raise LifecycleError(
            f"No version of {model} was in Production before version {present or 'none'}; promote one by its number: "
            f"`mlflow run . -e promote -P model={model} -P version=…`."
        )
    if former not in versions:
        raise LifecycleError(
            f"{model} version {former}, which was in Production before, was deleted; promote another one: "
            f"`mlflow run . -e promote -P model={model} -P version=…`."
        )
    return former


def _now() -> str:
    return decisions.stamp(dt.datetime.now(dt.UTC))
