"""Moving a version between stages so that processes at once, or killed half-way, end with one holder of each stage.

The registry has no compare-and-set. One tag of the registered model, which each write replaces whole, names the version
wanted in a stage. Every process that moves something works towards the version named there, not towards its own, and
ends only after it has read, behind its last write, that the registry agrees: one holder, its alias on it. The process
that writes last therefore sees the final state and mends it. One that is killed leaves the rest to the next call.
"""

from __future__ import annotations

import json
import re
import secrets
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from smartgrid_pyfunc.lifecycle.errors import LifecycleError
from smartgrid_pyfunc.lifecycle.versions import ALIASES, aliases_on, holder, stage_of, versions_of

_WANTED = "smartgrid.wanted_in_{}"
_TRIES = 20
_PAUSE_SECONDS = 0.05
# What a database says, through MLflow, of two transactions that wrote one row: SQLite, PostgreSQL, SQLAlchemy.
_COLLISION = re.compile(r"UNIQUE constraint failed|duplicate key value|StaleDataError|expected to (?:delete|update)")


def move(version: ModelVersion, stage: str) -> str | None:
    """Move `version` to `stage` with the alias of the stage, archive the former holder, and verify.

    Returns
    -------
    str or None
        The version that holds the stage now: another one if it was promoted at the same moment. None for a stage
        without an alias.

    Raises
    ------
    LifecycleError
        If the registry does not settle.
    """
    model, number = version.name, str(version.version)
    if stage not in ALIASES:
        _forget_wanted(model, number)
        _set_stage(model, number, stage)
        settle(model)
        return None
    mine = {"version": number, "key": secrets.token_hex(8), "done": False}
    _want(model, stage, mine)
    for attempt in range(_TRIES):
        wanted = _wanted(model, stage) or mine
        if not _bring(model, stage, str(wanted["version"])):
            if wanted["key"] == mine["key"]:
                _want(model, stage, {**mine, "done": True})
            settle(model)
            return holder(versions_of(model), stage)
        time.sleep(_PAUSE_SECONDS * attempt)
    raise LifecycleError(
        f"{model} does not settle on a version in {stage}: others keep changing it; try again when they have ended."
    )


def settle(model: str) -> list[str]:
    """Bring `model` to one holder of each stage, with its alias; return what was wrong, a phrase each.

    With several holders the one that was wanted last stays, else the newest, which is what MLflow serves. A stage that
    nobody holds since a promotion was cut off gets the version that had passed the gate. Where somebody has moved a
    version by hand, the stage is the truth and the alias follows.
    """
    found: list[str] = []
    for stage in ALIASES:
        wrong = faults(model, stage)
        if wrong:
            _mend(model, stage)
        found += wrong
    return found


def faults(model: str, stage: str) -> list[str]:
    """Return in which ways stage and alias disagree, a phrase each; nothing if all is well."""
    versions, alias = versions_of(model), ALIASES[stage]
    holders = [number for number, entry in versions.items() if stage_of(entry) == stage]
    aliased = _aliased(model, alias)
    if len(holders) > 1:
        return [f"versions {', '.join(holders)} are all in {stage}"]
    if not holders and (cut_off := _cut_off(model, stage, versions)):
        return [f"no version is in {stage}: the promotion of version {cut_off} was cut off"]
    if not holders and aliased is not None:
        return [f"the alias {alias} points to version {aliased}, but no version is in {stage}"]
    if holders and aliased != holders[0]:
        points = f"points to version {aliased}" if aliased else "points to nothing"
        return [f"version {holders[0]} is in {stage}, but the alias {alias} {points}"]
    return []


def _mend(model: str, stage: str) -> None:
    for _ in range(_TRIES):
        versions = versions_of(model)
        holders = [number for number, entry in versions.items() if stage_of(entry) == stage]
        wanted = str((_wanted(model, stage) or {}).get("version", ""))
        if len(holders) > 1 and wanted in holders:
            target: str | None = wanted
        else:
            target = holders[-1] if holders else _cut_off(model, stage, versions)
        if target is None:
            if _aliased(model, ALIASES[stage]) is not None:
                mlflow.MlflowClient().delete_registered_model_alias(model, ALIASES[stage])
            return
        if not _bring(model, stage, target):
            return
    raise LifecycleError(f"{model} does not settle on a version in {stage}; try again when others have ended.")


def _bring(model: str, stage: str, number: str) -> bool:
    """Do what is missing for `number` to be the one holder of `stage`; False if nothing was missing."""
    versions, alias = versions_of(model), ALIASES[stage]
    others = [other for other, entry in versions.items() if other != number and stage_of(entry) == stage]
    if number not in versions:
        raise LifecycleError(f"{model} version {number} was deleted while it was being moved to {stage}.")
    moved = stage_of(versions[number]) == stage
    if moved and not others and _aliased(model, alias) == number:
        return False
    with _collisions_allowed():
        # The alias moves first: a process killed in between leaves the former version in the stage, which is served.
        mlflow.MlflowClient().set_registered_model_alias(model, alias, number)
        if not moved:
            _set_stage(model, number, stage, keep=alias)
        # Not by MLflow's own archive_existing_versions: on PostgreSQL with psycopg 3 it compares a number with a text.
        for other in others:
            _set_stage(model, other, "Archived", keep=alias)
    return True


def _set_stage(model: str, number: str, stage: str, keep: str | None = None) -> None:
    client = mlflow.MlflowClient()
    for alias in aliases_on(model, number) - {keep}:
        client.delete_registered_model_alias(model, alias)
    with _stages_allowed():
        client.transition_model_version_stage(model, number, stage)


def _aliased(model: str, alias: str) -> str | None:
    held = mlflow.MlflowClient().get_registered_model(model).aliases
    return str(held[alias]) if alias in held else None


# ------------------------------------------------------------------------------------- the version that is wanted


def _want(model: str, stage: str, wanted: Mapping[str, object]) -> None:
    mlflow.MlflowClient().set_registered_model_tag(model, _WANTED.format(stage), json.dumps(wanted))


def _wanted(model: str, stage: str) -> dict[str, object] | None:
    text = mlflow.MlflowClient().get_registered_model(model).tags.get(_WANTED.format(stage))
    try:
        found = json.loads(text) if text else None
    except ValueError:  # written by hand
        return None
    return found if isinstance(found, dict) and {"version", "key", "done"} <= found.keys() else None


def _cut_off(model: str, stage: str, versions: Mapping[str, ModelVersion]) -> str | None:
    """Return the version of a promotion that began and never ended, if it is still there."""
    wanted = _wanted(model, stage)
    number = str(wanted["version"]) if wanted is not None and not wanted["done"] else ""
    return number if number in versions and stage_of(versions[number]) != "Production" else None


def _forget_wanted(model: str, number: str) -> None:
    """Forget that `number` was wanted anywhere: nothing shall bring back a version that is taken down."""
    for stage in ALIASES:
        wanted = _wanted(model, stage)
        if wanted is not None and wanted["version"] == number:
            try:
                mlflow.MlflowClient().delete_registered_model_tag(model, _WANTED.format(stage))
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise


@contextmanager
def _collisions_allowed() -> Iterator[None]:
    """Let a write be lost to another process that wrote the same row at the same moment: the next look tells."""
    try:
        yield
    except MlflowException as error:
        if not _COLLISION.search(str(error)):
            raise


@contextmanager
def _stages_allowed() -> Iterator[None]:
    """Silence MLflow's notice that stages are deprecated, and no other warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*transition_model_version_stage.*", category=FutureWarning)
        yield
