"""What a fitted model consists of, on disk: a compressed ``.npz`` of plain arrays and a JSON file; nothing pickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from mlflow.pyfunc.model import PythonModel
from numpy.typing import NDArray

from smartgrid_pyfunc.models.boundary import max_rows, refusing_bad_input
from smartgrid_pyfunc.models.scoring_server import hide_requests_in_errors

_ARRAYS, _SETTINGS = "arrays.npz", "settings.json"


def save_state(folder: Path, arrays: Mapping[str, NDArray[Any]], settings: Mapping[str, Any]) -> None:
    """Write `arrays` and JSON-able `settings` into the existing `folder`."""
    plain = {name: value.astype(str) if value.dtype == object else value for name, value in arrays.items()}
    np.savez_compressed(folder / _ARRAYS, allow_pickle=False, **plain)
    (folder / _SETTINGS).write_text(json.dumps(settings, indent=1, sort_keys=True), encoding="utf-8")


def load_state(folder: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Read what `save_state` wrote; text comes back as object arrays of str."""
    with np.load(folder / _ARRAYS, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    settings = json.loads((folder / _SETTINGS).read_text(encoding="utf-8"))
    return {n: a.astype(object) if a.dtype.kind == "U" else a for n, a in arrays.items()}, settings


def with_prefix(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return `arrays` with each name put under ``prefix/``."""
    return {f"{prefix}/{name}": value for name, value in arrays.items()}


def under_prefix(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return the arrays whose names stand under ``prefix/``, without it."""
    start = prefix + "/"
    return {name.removeprefix(start): value for name, value in arrays.items() if name.startswith(start)}


class StoredModel(PythonModel):
    """A model whose fitted state is a folder that `_restore` reads, stored by MLflow as the artifact ``state``."""

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return the model whose state was saved into `folder`."""
        model = cls()
        model._restore(folder)
        return model

    def load_context(self, context: Any) -> None:
        """Read the state that MLflow stored beside the code; refuse settings that no request could be answered with.

        Raises
        ------
        MlflowException
            For an environment variable of this product with a value that makes no sense.
        """
        with refusing_bad_input():
            max_rows()
        hide_requests_in_errors()
        self._restore(Path(context.artifacts["state"]))

    def _restore(self, folder: Path) -> None:
        raise TypeError(f"{type(self).__name__} does not say how its state is read")
