"""A fitted model as an MLflow model: code, plain arrays, signature, example and exact pins; nothing pickled."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import mlflow
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.models.model import ModelInfo
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

import smartgrid_pyfunc
from smartgrid_pyfunc.lifecycle import integrity
from smartgrid_pyfunc.lifecycle.server import plain_errors
from smartgrid_pyfunc.schema import (
    ANOMALY_MODEL,
    HOURLY_OPTIONAL,
    HOURLY_REQUIRED,
    LOAD_MODEL,
    READING_OPTIONAL,
    READING_REQUIRED,
)

#: What the served model's environment needs; versions are those of the training environment.
SERVED = ("mlflow", "scikit-learn", "pandas", "numpy", "scipy", "cloudpickle", "tzdata")
#: What the load model needs to read fresh history, imported only where that is set up.
HISTORY = ("pyarrow", "psycopg", "psycopg-binary")
#: What of the package a served model is made of.
SERVED_CODE = ("__init__.py", "schema.py", "forest.py", "features", "models")

_PACKAGE = Path(smartgrid_pyfunc.__file__).parent
_CODE = "from mlflow.models import set_model\n\nfrom {module} import {name}\n\nset_model({name}())\n"

_LOAD_ANSWER = {
    "sensor_id": DataType.string,
    "origin": DataType.string,
    "horizon": DataType.long,
    "timestamp": DataType.string,
    "predicted_load": DataType.double,
    "lower": DataType.double,
    "upper": DataType.double,
    "model": DataType.string,
    "reason": DataType.string,
}
_LOAD_PARAMS = (
    ParamSpec("hours_ahead", DataType.long, 24),
    ParamSpec("use_ml", DataType.boolean, True),
    ParamSpec("level", DataType.double, 0.9),
    ParamSpec("explain", DataType.boolean, False),
)
_ANOMALY_ANSWER = {
    "sensor_id": DataType.string,
    "timestamp": DataType.string,
    "is_anomaly": DataType.boolean,
    "anomaly_score": DataType.double,
    "p_value": DataType.double,
    "expected_value": DataType.double,
    "lower": DataType.double,
    "upper": DataType.double,
    "reason": DataType.string,
    "profile": DataType.string,
}


class Packable(Protocol):
    """What a model must offer to be packed."""

    def save(self, folder: Path) -> None:
        """Write the fitted state into `folder`."""


def signature_of(model_name: str) -> ModelSignature:
    """Return the signature of a registered model's answer and parameters.

    Inputs are left to the model's own gate: with typed columns MLflow refuses whole numbers, time zones and pandas
    times, with columns of any type it cannot read CSV, and its refusals repeat the request. `input_columns` describes
    them in the model's metadata.
    """
    answer, params = {LOAD_MODEL: (_LOAD_ANSWER, _LOAD_PARAMS), ANOMALY_MODEL: (_ANOMALY_ANSWER, ())}[model_name]
    outputs: list[Any] = [ColSpec(kind, name, required=False) for name, kind in answer.items()]
    return ModelSignature(outputs=Schema(outputs), params=ParamSchema(list(params)))


def input_columns(model_name: str) -> dict[str, list[str]]:
    """Return the columns of a registered model's request: ``required`` and ``optional`` ones."""
    required, optional = {
        LOAD_MODEL: (("sensor_id",), (*HOURLY_REQUIRED[1:], *HOURLY_OPTIONAL)),
        ANOMALY_MODEL: (READING_REQUIRED, READING_OPTIONAL),
    }[model_name]
    return {"required": list(required), "optional": list(optional)}


def requirements(model_name: str) -> list[str]:
    """Return the exact pins of a registered model's environment."""
    names = {LOAD_MODEL: (*SERVED, *HISTORY), ANOMALY_MODEL: SERVED}[model_name]
    return [f"{name}=={version(name)}" for name in names]


@contextmanager
def _neutral_folder(model: Packable) -> Iterator[tuple[Path, Path, Path]]:
    """Lay out code file, package and state in a temporary folder, so that no path of this checkout is logged."""
    with tempfile.TemporaryDirectory(prefix="smartgrid-model-") as name:
        root = Path(name)
        code, package, state = root / "model_code.py", root / _PACKAGE.name, root / "state"
        code.write_text(_CODE.format(module=type(model).__module__, name=type(model).__name__), encoding="utf-8")
        package.mkdir()
        for part in SERVED_CODE:
            source = _PACKAGE / part
            if source.is_dir():
                shutil.copytree(source, package / part, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, package / part)
        state.mkdir()
        model.save(state)
        yield code, package, state


def log_model(
    model: Packable, model_name: str, example: pd.DataFrame, *, metadata: Mapping[str, Any] | None = None
) -> ModelInfo:
    """Log `model` to the active run as the artifact ``model``.

    Parameters
    ----------
    model : Packable
        A fitted model.
    model_name : str
        Registered name; decides on the signature.
    example : DataFrame
        A request that the model answers; logged as the input example and run once to check the package.
    metadata : mapping, optional
        Kept in the MLmodel file, beside the input columns and length and digest of the files made here.

    Raises
    ------
    LifecycleError
        If the store cannot be written, or does not hold every file whole afterwards.
    """
    with _neutral_folder(model) as (code, package, state), plain_errors("store the model"):
        files = integrity.manifest(state, "artifacts/state") | integrity.manifest(package, f"code/{package.name}")
        about = {"input_columns": input_columns(model_name), integrity.FILES: files, **(metadata or {})}
        info: ModelInfo = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(code),
            artifacts={"state": str(state)},
            code_paths=[str(package)],
            signature=signature_of(model_name),
            input_example=example,
            pip_requirements=requirements(model_name),
            metadata=about,
        )
    integrity.require_whole(info.model_uri)
    return info
