"""Looking versions up: by number, stage, alias or model URI, and which stage and alias each holds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from smartgrid_pyfunc.lifecycle.errors import LifecycleError
from smartgrid_pyfunc.lifecycle.server import bounded_wait, plain_errors
from smartgrid_pyfunc.schema import InputError

STAGES = ("None", "Staging", "Production", "Archived")
#: The alias that goes with each stage that is served.
ALIASES = {"Production": "champion", "Staging": "challenger"}

_PAGE = 1000
_URI = re.compile(r"models:/(?P<name>[^/@]+)(?:/(?P<place>[^/@]+)|@(?P<alias>[^/@]+))")


@dataclass(frozen=True)
class Named:
    """One version, found once: what a stage or alias points to may change a moment later.

    Attributes
    ----------
    name, version : str
        Registered name and number.
    variant : str
        ``champion``, ``challenger`` or empty: what its stage makes of it.
    run_id : str
        The run that made it; empty if it belongs to none.
    """

    name: str
    version: str
    variant: str
    run_id: str

    @property
    def uri(self) -> str:
        """The model URI by number."""
        return f"models:/{self.name}/{self.version}"


def find(model: str, version: str | None = None) -> Named:
    """Return the version that a model URI, or a registered name with a number, stage or alias, points to now.

    Parameters
    ----------
    model : str
        ``models:/NAME/3``, ``models:/NAME/Production``, ``models:/NAME@champion``, or a registered name.
    version : str, optional
        With a registered name: number, stage, alias or ``latest`` (default: the latest version).

    Raises
    ------
    InputError
        For a text that is neither a model URI nor a name.
    LifecycleError
        If nothing is there, or the registry cannot be asked.
    """
    name, place = _parts_of(model, version)
    with bounded_wait(), plain_errors(f"look up {model}"):
        versions = versions_of(name)
        number = _number_at(name, place, versions)
        entry = versions[number]
    return Named(name, number, ALIASES.get(stage_of(entry), ""), entry.run_id or "")


def _parts_of(model: str, version: str | None) -> tuple[str, str]:
    """Return registered name and number, stage, alias or latest."""
    text, given = model.strip(), (version or "").strip()
    if not text.startswith("models:/"):
        if ":/" in text or "/" in text or not text:
            raise InputError("model must be a model URI or a registered name", found=model, remedy=_remedy())
        return text, given or "latest"
    match = _URI.fullmatch(text)
    if match is None:
        raise InputError("a model URI must name one version", found=model, remedy=_remedy())
    return match["name"], given or match["place"] or match["alias"]


def _remedy() -> str:
    return "write models:/NAME/3, models:/NAME/Production or models:/NAME@champion"


def _number_at(name: str, place: str, versions: Mapping[str, ModelVersion]) -> str:
    if place.isdigit() or place.lower() == "latest":
        return choose(name, versions, place.lower())
    stage = next((known for known in STAGES if known.lower() == place.lower()), None)
    if stage is not None:
        number = holder(versions, stage)
    else:
        held = mlflow.MlflowClient().get_registered_model(name).aliases
        number = str(held[place]) if place in held else None
    if number is None or number not in versions:
        what = "in the stage" if stage else "with the alias"
        raise LifecycleError(
            f"{name} has no version {what} {stage or place}; promote one: `mlflow run . -e promote -P model={name}`."
        )
    return number


def versions_of(model: str) -> dict[str, ModelVersion]:
    """Return the versions of `model` by number, oldest first.

    Raises
    ------
    LifecycleError
        If no model of that name is registered.
    """
    try:
        mlflow.MlflowClient().get_registered_model(model)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        known = ", ".join(sorted(entry.name for entry in mlflow.search_registered_models(max_results=_PAGE)))
        raise LifecycleError(
            f"No model named {model!r} is registered; "
            + (f"there are: {known}." if known else "train one first: `mlflow run . -e main`.")
        ) from None
    return _sorted(model)


def _sorted(model: str) -> dict[str, ModelVersion]:
    found = mlflow.search_model_versions(filter_string=f"name = '{model}'")
    return {str(entry.version): entry for entry in sorted(found, key=lambda entry: int(entry.version))}


def production_version(model: str) -> str | None:
    """Return the version that ``models:/MODEL/Production`` serves, None if there is none.

    Raises
    ------
    LifecycleError
        If no model of that name is registered.
    """
    with bounded_wait(), plain_errors(f"look up {model}"):
        return holder(versions_of(model), "Production")


def version_in(model: str, stage: str) -> str | None:
    """Return the version of `model` that holds `stage`; None if none does or no such model is registered.

    Raises
    ------
    LifecycleError
        If the registry cannot be asked.
    """
    with bounded_wait(), plain_errors(f"look up {model}"):
        return holder(_sorted(model), stage)


def choose(model: str, versions: Mapping[str, ModelVersion], version: str | int | None) -> str:
    """Return the number of the version meant, the latest by default, which must be ready.

    Raises
    ------
    InputError
        If `version` is not a number.
    LifecycleError
        If there is no such version, or it is not ready.
    """
    if not versions:
        raise LifecycleError(f"{model} has no version; train one with register=true.")
    number = _parse_version(version) or list(versions)[-1]
    if number not in versions:
        raise LifecycleError(f"{model} has no version {number}; there are: {', '.join(versions)}.")
    if versions[number].status != "READY":
        raise LifecycleError(
            f"{model} version {number} is {versions[number].status}, not READY; wait, or register it again."
        )
    return number


def _parse_version(version: str | int | None) -> str | None:
    text = "" if version is None else str(version).strip()
    if text in ("", "latest"):
        return None
    if not re.fullmatch(r"[0-9]+", text):
        raise InputError("version must be a number", found=text, remedy="leave it empty for the latest")
    return str(int(text))


def parse_stage(stage: str) -> str:
    """Return `stage`, given in any case, as MLflow writes it."""
    for known in STAGES:
        if known.lower() == stage.strip().lower():
            return known
    raise InputError("stage must be Production, Staging, Archived or None", found=stage)


def stage_of(version: ModelVersion) -> str:
    """Return the stage of a version; "None" for one without."""
    return version.current_stage or "None"


def holder(versions: Mapping[str, ModelVersion], stage: str) -> str | None:
    """Return the newest version in `stage`: with several, it is the one that MLflow serves."""
    holders = [number for number, entry in versions.items() if stage_of(entry) == stage]
    return holders[-1] if holders else None


def aliases_on(model: str, version: str) -> set[str]:
    """Return those of our aliases that point to `version`; aliases of the user's own are left alone."""
    held = mlflow.MlflowClient().get_registered_model(model).aliases
    return {alias for alias in ALIASES.values() if str(held.get(alias, "")) == version}


def answer_columns(named: Named) -> list[str]:
    """Return the columns that a version says it answers with; none if its signature does not say."""
    with bounded_wait(), plain_errors(f"look at {named.uri}"):
        signature = mlflow.models.get_model_info(named.uri).signature
    outputs = signature.outputs if signature is not None else None
    return [str(name) for name in outputs.input_names()] if outputs is not None and outputs.has_input_names() else []
