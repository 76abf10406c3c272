"""The registry as the rest of the product uses it: registering versions, and the other modules' calls by one name.

A stage and its alias are one thing here: Production is `champion`, Staging is `challenger`, and both are set together.
``models:/NAME/Production`` is what gets served, so where the two disagree the stage is the truth.
"""

from __future__ import annotations

from collections.abc import Mapping

import mlflow
from mlflow.exceptions import MlflowException

from smartgrid_pyfunc.lifecycle.consistency import audit, inconsistencies, repair
from smartgrid_pyfunc.lifecycle.gate import Comparison, Verdict, about, judge
from smartgrid_pyfunc.lifecycle.integrity import require_whole
from smartgrid_pyfunc.lifecycle.promotion import Paired, Promotion, promote, rollback
from smartgrid_pyfunc.lifecycle.server import plain_errors
from smartgrid_pyfunc.lifecycle.versions import ALIASES, STAGES, production_version, version_in

__all__ = [
    "ALIASES",
    "STAGES",
    "Comparison",
    "Paired",
    "Promotion",
    "Verdict",
    "audit",
    "inconsistencies",
    "judge",
    "production_version",
    "promote",
    "register",
    "repair",
    "rollback",
    "version_in",
]

_REGISTRATION_SECONDS = 300


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


def _ensure_registered(name: str) -> None:
    page = about(name)
    try:
        mlflow.MlflowClient().create_registered_model(name, description=page)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
