"""Erasing sensors: the runs, models and versions that name one are found in the store itself and deleted."""

from __future__ import annotations

import re
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion

from smartgrid_pyfunc.lifecycle import decisions
from smartgrid_pyfunc.lifecycle.errors import LifecycleError
from smartgrid_pyfunc.lifecycle.server import bounded_wait, plain_errors
from smartgrid_pyfunc.lifecycle.versions import ALIASES, stage_of, versions_of
from smartgrid_pyfunc.schema import ANOMALY_MODEL, LOAD_MODEL, InputError

_OURS = "smartgrid-"  # how the names of the product's experiments begin
_PAGE = 200


@dataclass(frozen=True)
class Holder:
    """A run that names a sensor, with the model that it made.

    Attributes
    ----------
    run_id, experiment, name : str
        The run.
    places : tuple of str
        Files, parameters and tags that name the sensor.
    models : tuple of str
        Logged models of the run, by id.
    versions : tuple of ModelVersion
        Registered versions made by it.
    """

    run_id: str
    experiment: str
    name: str
    places: tuple[str, ...]
    models: tuple[str, ...]
    versions: tuple[ModelVersion, ...]

    @property
    def served(self) -> tuple[str, ...]:
        """Its versions in Production or Staging, as ``NAME version NUMBER (STAGE)``."""
        return tuple(_shown(v) for v in self.versions if stage_of(v) in ALIASES)

    @property
    def kept(self) -> bool:
        """True for a decision: the audit trail needs it."""
        return self.experiment == decisions.EXPERIMENT


def find(sensors: Sequence[str], say: Callable[[str], None]) -> list[Holder]:
    """Return the runs of the product's experiments that name one of `sensors`, themselves or in what they made.

    Parameters
    ----------
    sensors : sequence of str
        Names, looked for as whole words in parameters, tags, text files and the arrays of models.
    say : callable
        Called with one sentence for each experiment.

    Raises
    ------
    InputError
        Without a sensor.
    LifecycleError
        If the server or the artifact store cannot be asked.

    Notes
    -----
    Pictures cannot be searched: they go with the run, whose tables or model name the sensors that it was made of.
    """
    wanted = [sensor for sensor in sensors if sensor.strip()]
    if not wanted:
        raise InputError("sensor_id must name at least one sensor", found="none")
    words = re.compile("|".join(rf"(?<![\w.-]){re.escape(sensor)}(?![\w-])" for sensor in wanted))
    with bounded_wait(), plain_errors("look for the sensor"):
        made_by = _versions_by_run()
        holders = []
        for experiment, run in _runs(say):
            models = tuple(output.model_id for output in run.outputs.model_outputs) if run.outputs else ()
            places = tuple(_places(run, models, words, frozenset(wanted)))
            if places:
                name = run.info.run_name or run.info.run_id
                versions = tuple(made_by.get(run.info.run_id, ()))
                holders.append(Holder(run.info.run_id, experiment, name, places, models, versions))
        return holders


def erase(holders: Sequence[Holder]) -> list[str]:
    """Delete what `find` found, version by version, model by model, run by run; return a line for each.

    MLflow keeps what is deleted until ``mlflow gc`` is run by whoever runs the server.

    Raises
    ------
    LifecycleError
        If one of the versions is served; then nothing is deleted.
    """
    served = [version for holder in holders for version in holder.served]
    if served:
        raise LifecycleError(
            f"{', '.join(served)} still holds it; train without the sensor, promote the new version "
            "(or archive the old one), then erase again. Nothing was deleted."
        )
    done, client = [], mlflow.MlflowClient()
    with bounded_wait(), plain_errors("erase the sensor"):
        for holder in holders:
            if holder.kept:
                continue
            for version in holder.versions:
                client.delete_model_version(version.name, str(version.version))
                done.append(f"deleted {_shown(version)}")
            for model_id in holder.models:
                client.delete_logged_model(model_id)
            client.delete_run(holder.run_id)
            done.append(f"deleted run {holder.run_id} ({holder.name})")
    return done


def _shown(version: ModelVersion) -> str:
    return f"{version.name} version {version.version} ({stage_of(version)})"


def _versions_by_run() -> dict[str, list[ModelVersion]]:
    registered = {entry.name for entry in mlflow.search_registered_models(max_results=_PAGE)}
    found: dict[str, list[ModelVersion]] = {}
    for model in sorted(registered & {LOAD_MODEL, ANOMALY_MODEL}):
        for version in versions_of(model).values():
            found.setdefault(version.run_id or "", []).append(version)
    return found


def _runs(say: Callable[[str], None]) -> Iterator[tuple[str, Run]]:
    client = mlflow.MlflowClient()
    for experiment in client.search_experiments(filter_string=f"name LIKE '{_OURS}%'"):
        say(f"searching {experiment.name}")
        token = None
        while True:
            page = client.search_runs([experiment.experiment_id], max_results=_PAGE, page_token=token)
            yield from ((experiment.name, run) for run in page)
            token = page.token
            if not token:
                break


def _places(run: Run, models: Sequence[str], words: re.Pattern[str], names: frozenset[str]) -> Iterator[str]:
    for kind, entries in (("parameter", run.data.params), ("tag", run.data.tags)):
        yield from (f"{kind} {name}" for name, value in entries.items() if words.search(value))
    with tempfile.TemporaryDirectory(prefix="smartgrid-erase-") as folder:
        for number, uri in enumerate([f"runs:/{run.info.run_id}/", *(f"models:/{model}" for model in models)]):
            place = Path(folder, str(number))
            place.mkdir()
            try:
                mlflow.artifacts.download_artifacts(uri, dst_path=str(place))
            except mlflow.exceptions.MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
            files = sorted(path for path in place.rglob("*") if path.is_file())
            yield from (str(path.relative_to(place)) for path in files if _names(path, words, names))


def _names(path: Path, words: re.Pattern[str], names: frozenset[str]) -> bool:
    """Return whether a text file, a table or an array of a model names a sensor."""
    if path.suffix == ".parquet":
        return any(not names.isdisjoint(column.to_pylist()) for column in _texts(pq.read_table(path)))
    if path.suffix == ".npz" and zipfile.is_zipfile(path):
        with np.load(path, allow_pickle=False) as arrays:
            texts = (arrays[name] for name in arrays.files)
            return any(not names.isdisjoint(array.tolist()) for array in texts if array.dtype.kind == "U")
    return words.search(path.read_bytes().decode("utf-8", errors="replace")) is not None


def _texts(table: pa.Table) -> Iterator[pa.Array]:
    """Yield the distinct values of each column of text."""
    for column in table.columns:
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            yield column.unique()
