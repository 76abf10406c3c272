"""Whether the files of a logged model are in the artifact store, as long as they were when they were made."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypedDict

import mlflow
from mlflow.entities import FileInfo
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from smartgrid_pyfunc.lifecycle.errors import LifecycleError
from smartgrid_pyfunc.lifecycle.server import plain_errors

#: Where the MLmodel file keeps what `manifest` found.
FILES = "files"
_SHOWN = 3


class FileEntry(TypedDict):
    """Length [bytes] and SHA-256 of a file."""

    bytes: int
    sha256: str


def manifest(folder: Path, prefix: str) -> dict[str, FileEntry]:
    """Return length and digest of every file below `folder`, by its path below `prefix` in the model."""
    found: dict[str, FileEntry] = {}
    for path in sorted(entry for entry in folder.rglob("*") if entry.is_file()):
        content = path.read_bytes()
        name = f"{prefix}/{path.relative_to(folder).as_posix()}"
        found[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    return found


def require_whole(uri: str) -> None:
    """Raise if a file of the model at `uri` is missing in the store or has another length than it had when made.

    Parameters
    ----------
    uri : str
        A model URI: ``models:/m-…``, ``models:/NAME/VERSION`` or ``runs:/RUN/NAME``.

    Raises
    ------
    LifecycleError
        Naming the files, or if the store cannot be asked.
    """
    wrong = faults(uri)
    if wrong:
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise LifecycleError(
            f"The artifact store does not hold the whole model {uri}: {'; '.join(wrong[:_SHOWN])}{more}; "
            "check the store (space, rights, its log) and train again."
        )


def faults(uri: str) -> list[str]:
    """Return what is wrong with the stored files of the model at `uri`, a phrase each; nothing if it is whole.

    A model that was logged without a list of its files is only asked for its MLmodel file.
    """
    with plain_errors(f"look at the files of {uri}"):
        if uri.startswith("runs:/"):  # a run lists its models elsewhere
            uri = f"models:/{mlflow.models.get_model_info(uri).model_id}"
        # mlflow.artifacts.list_artifacts takes models:/m-… for a registered name.
        stored = {entry.path: int(entry.file_size or 0) for entry in _walk(get_artifact_repository(uri), None)}
        if "MLmodel" not in stored:
            return ["MLmodel is missing"]
        expected = listed(uri)
    return [fault for path, entry in expected.items() if (fault := _fault(path, entry, stored))]


def listed(uri: str) -> Mapping[str, FileEntry]:
    """Return the files that the model at `uri` says it is made of; empty for a model logged without such a list."""
    metadata: Mapping[str, Any] = mlflow.models.get_model_info(uri).metadata or {}
    found: Mapping[str, FileEntry] = metadata.get(FILES) or {}
    return found


def _fault(path: str, entry: FileEntry, stored: Mapping[str, int]) -> str | None:
    if path not in stored:
        return f"{path} is missing"
    if stored[path] != entry["bytes"]:
        return f"{path} has {stored[path]} bytes of {entry['bytes']}"
    return None


def _walk(store: ArtifactRepository, path: str | None) -> Iterator[FileInfo]:
    for entry in store.list_artifacts(path):
        if entry.is_dir:
            yield from _walk(store, entry.path)
        else:
            yield entry
