"""Registering versions and promoting them, behind a gate that asks for better results than a baseline.

A stage and its alias are one thing here: Production is `champion`, Staging is `challenger`, and both are set together.
``models:/NAME/Production`` is what gets served, so where the two disagree the stage is the truth.
"""

from __future__ import annotations

import datetime as dt
import getpass
import json
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from smartgrid_pyfunc.lifecycle.errors import PromotionRefused
from smartgrid_pyfunc.lifecycle.integrity import require_whole
from smartgrid_pyfunc.lifecycle.server import bounded_wait, plain_errors
from smartgrid_pyfunc.lifecycle.versions import (
    ALIASES,
    STAGES,
    aliases_on,
    choose,
    holder,
    inconsistencies,
    parse_stage,
    production_version,
    stage_of,
    version_in,
    versions_of,
)
from smartgrid_pyfunc.schema import ANOMALY_MODEL, LOAD_MODEL

__all__ = ["STAGES", "inconsistencies", "production_version", "version_in"]

_BUDGETS = 3.0  # a detector without labels may flag up to this many times its false-alarm budget
_REGISTRATION_SECONDS = 300
_TAG_LENGTH = 4000


@dataclass(frozen=True)
class Comparison:
    """One line of a verdict: what was measured on the test period, beside what it must beat.

    Attributes
    ----------
    metric, baseline : str
        Names of both, as logged.
    value, bound : float
        Both figures; NaN where the run has none.
    passed : bool
        True if `value` is on the right side of `bound`; never with a NaN.
    """

    metric: str
    value: float
    baseline: str
    bound: float
    passed: bool


@dataclass(frozen=True)
class Verdict:
    """What the gate found: the comparisons made, and why a version is refused (empty if it is not)."""

    comparisons: tuple[Comparison, ...] = ()
    reasons: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """True if nothing speaks against the version."""
        return not self.reasons


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
    """

    model: str
    version: str
    from_stage: str
    stage: str
    alias: str | None
    former: str | None
    forced: bool
    verdict: Verdict


def _judge_load(metrics: Mapping[str, float]) -> Verdict:
    return _verdict(metrics, "test_mae", "naive_mae", lower_is_better=True)


def _judge_anomaly(metrics: Mapping[str, float]) -> Verdict:
    """Hold the detector against median/MAD where labels exist, else against its false-alarm budget."""
    if "test_average_precision" in metrics:
        return _verdict(metrics, "test_average_precision", "baseline_average_precision", lower_is_better=False)
    allowed = {**metrics, "3 x false_alarm_rate": _BUDGETS * metrics.get("false_alarm_rate", math.nan)}
    return _verdict(allowed, "test_flagged_share", "3 x false_alarm_rate", lower_is_better=True, equal_passes=True)


def _verdict(
    metrics: Mapping[str, float], name: str, baseline: str, *, lower_is_better: bool, equal_passes: bool = False
) -> Verdict:
    value, bound = metrics.get(name, math.nan), metrics.get(baseline, math.nan)
    better = value < bound if lower_is_better else value > bound
    passed = better or (equal_passes and value == bound)
    comparison = (Comparison(name, value, baseline, bound, passed),)
    if math.isnan(value) or math.isnan(bound):
        missing = [entry for entry, figure in ((name, value), (baseline, bound)) if math.isnan(figure)]
        return Verdict(comparison, (f"its run has no usable {' and no usable '.join(missing)}",))
    if not passed:
        side = "below" if lower_is_better else "above"
        return Verdict(comparison, (f"{name} {value:.4g} is not {side} {baseline} {bound:.4g}",))
    return Verdict(comparison)


@dataclass(frozen=True)
class _Policy:
    """What the product knows about a registered name: its page in the registry and its gate."""

    about: str
    judge: Callable[[Mapping[str, float]], Verdict]


_SERVE = (
    "Serve it: `mlflow models serve -m models:/{name}/Production`. "
    "Promote a version: `mlflow run . -e promote -P model={name}`."
)

_POLICIES = {
    LOAD_MODEL: _Policy(
        "**Hourly load forecasts** per sensor for the next 1 to 168 hours, with intervals.\n\n"
        "Send rows of hourly load, or a `sensor_id` alone; get a row per sensor and hour. A version is promoted if its "
        "`test_mae` is below the seasonal naive's (`naive_mae`).\n\n" + _SERVE.format(name=LOAD_MODEL),
        _judge_load,
    ),
    ANOMALY_MODEL: _Policy(
        "**Readings that are wrong or strange**, with a score, a p-value and a reason.\n\n"
        "Send readings; get a row for each. A version is promoted if it ranks labelled faults better than median/MAD "
        "by sensor and hour, or, without labels, if it keeps to three times its false-alarm budget.\n\n"
        + _SERVE.format(name=ANOMALY_MODEL),
        _judge_anomaly,
    ),
}


def register(model: str, name: str, *, description: str = "", tags: Mapping[str, str] | None = None) -> str:
    """Register a logged model as the next version of `name` and wait until it is ready.

    Parameters
    ----------
    model : str
        A model URI (``models:/m-…``, ``runs:/<run>/model``) or a run id, whose artifact `model` is meant.
    name : str
        Registered name; created with a description of its own the first time.
    description : str
        Markdown for the version's page.
    tags : Mapping, optional
        Tags of the version.

    Returns
    -------
    str
        The version's number.

    Raises
    ------
    LifecycleError
        If a file of the model is missing in the store or cut short, if the registry refuses, or if the version is not
        ready within five minutes.
    """
    uri = model if ":" in model else f"runs:/{model}/model"
    require_whole(uri)
    with plain_errors(f"register {uri} as {name}"):
        _ensure_registered(name)
        entry = mlflow.register_model(
            uri, name, await_registration_for=_REGISTRATION_SECONDS, tags=dict(tags) if tags else None
        )
        if description:
            mlflow.MlflowClient().update_model_version(name, str(entry.version), description)
    return str(entry.version)


def promote(
    model: str,
    *,
    version: str | int | None = None,
    stage: str = "Production",
    force: bool = False,
    actor: str | None = None,
) -> Promotion:
    """Move a version to `stage`, together with the stage's alias, if it is better than its baseline.

    Parameters
    ----------
    model : str
        Registered name.
    version : str or int, optional
        Default: the latest.
    stage : str
        Production, Staging, Archived or None, in any case. The gate stands before the first two only.
    force : bool
        Promote although the gate refuses; the version's tags say so.
    actor : str, optional
        Who promotes; default: the user of this process.

    Returns
    -------
    Promotion
        What changed. The former holder of the stage is archived and loses its alias.

    Raises
    ------
    InputError
        For an unknown stage or a version that is not a number.
    PromotionRefused
        If the version's run did not finish, holds no evaluation, or is not better than its baseline.
    LifecycleError
        For an unknown model or version, if a file of it is missing or cut short in the artifact store (`force` changes
        nothing about that), or if the registry cannot be reached.

    Notes
    -----
    The alias moves first, then stage and archiving change in one transaction: a process killed in between leaves the
    former version served, and the next call for the model puts back every alias that disagrees with its stage.
    """
    stage = parse_stage(stage)
    with bounded_wait(), plain_errors(f"promote {model}"):
        versions = versions_of(model)
        chosen = versions[choose(model, versions, version)]
        _repair(model, versions)
        if stage in ALIASES:
            require_whole(f"models:/{model}/{chosen.version}")
        verdict = judge(model, chosen) if stage in ALIASES else Verdict()
        if not verdict.passed and not force:
            _refuse(chosen, stage, verdict)
        return _move(chosen, versions, stage, verdict, actor or _user())


def judge(model: str, version: ModelVersion) -> Verdict:
    """Return what the gate says about `version`: policy, state of the run and logged evaluation."""
    policy = _POLICIES.get(model)
    if policy is None:
        return Verdict(reasons=(f"no gate is known for it (known: {', '.join(_POLICIES)})",))
    if not version.run_id:
        return Verdict(reasons=("it belongs to no run, so there is no evaluation",))
    try:
        run = mlflow.get_run(version.run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return Verdict(reasons=(f"its run {version.run_id} does not exist any more",))
    verdict = policy.judge(run.data.metrics)
    if run.info.status != "FINISHED":
        return Verdict(verdict.comparisons, (f"its run is {run.info.status}, not FINISHED", *verdict.reasons))
    return verdict


def _refuse(version: ModelVersion, stage: str, verdict: Verdict) -> None:
    reason = "; ".join(verdict.reasons)
    _tag(version, {"promotion_refused": f"{_now()} {stage}: {reason}"})
    raise PromotionRefused(
        f"{version.name} version {version.version} is not promoted to {stage}: {reason}; "
        "train a better version, or set force to true to promote it all the same."
    )


# ----------------------------------------------------------------------------------------------- moving a version


def _move(
    version: ModelVersion, versions: Mapping[str, ModelVersion], stage: str, verdict: Verdict, actor: str
) -> Promotion:
    number, alias = str(version.version), ALIASES.get(stage)
    former = holder({key: entry for key, entry in versions.items() if key != number}, stage) if alias else None
    forced = not verdict.passed
    # Tags come first: no version may reach a stage without a trace of who put it there.
    _tag(version, _record(version, stage, verdict, actor, former))
    if former is not None:
        _tag(versions[former], {"replaced_by": number, "replaced_at": _now(), "replaced_in": stage})
    _set_stage(version, stage, alias)
    _repair(version.name, versions_of(version.name))
    return Promotion(version.name, number, stage_of(version), stage, alias, former, forced, verdict)


def _set_stage(version: ModelVersion, stage: str, alias: str | None) -> None:
    client = mlflow.MlflowClient()
    number = str(version.version)
    if alias:
        client.set_registered_model_alias(version.name, alias, number)
    for other in aliases_on(version.name, number) - {alias}:
        client.delete_registered_model_alias(version.name, other)
    with _stages_allowed():
        client.transition_model_version_stage(version.name, number, stage)
        # Not by MLflow's own archive_existing_versions: on PostgreSQL with psycopg 3 it compares a number with a text.
        for other in _others_in(version.name, number, stage) if alias else ():
            client.transition_model_version_stage(version.name, other, "Archived")


def _others_in(model: str, number: str, stage: str) -> list[str]:
    return [other for other, entry in versions_of(model).items() if other != number and stage_of(entry) == stage]


def _repair(model: str, versions: Mapping[str, ModelVersion]) -> None:
    """Make every alias point to the version that holds its stage, and to none where none does."""
    client = mlflow.MlflowClient()
    held = client.get_registered_model(model).aliases
    for stage, alias in ALIASES.items():
        serving = holder(versions, stage)
        current = str(held[alias]) if alias in held else None
        if serving is None and current is not None:
            client.delete_registered_model_alias(model, alias)
        elif serving is not None and serving != current:
            client.set_registered_model_alias(model, alias, serving)


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


def _ensure_registered(name: str) -> None:
    about = _POLICIES[name].about if name in _POLICIES else None
    try:
        mlflow.MlflowClient().create_registered_model(name, description=about)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


@contextmanager
def _stages_allowed() -> Iterator[None]:
    """Silence MLflow's notice that stages are deprecated, and no other warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*transition_model_version_stage.*", category=FutureWarning)
        yield


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no user name in a bare container
        return "unknown"


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
