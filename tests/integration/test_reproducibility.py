"""A training repeated from what its run page says gives the same model, bit for bit, on the same environment."""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from smartgrid_pyfunc.simulation import simulate

pytestmark = pytest.mark.integration

_ROOT = Path(__file__).resolve().parents[2]
#: Files of a logged model that name the run itself, its time or its identifier.
_OF_THE_RUN = {"MLmodel"}


def _train(command: list[str], experiment: str, hash_seed: str, threads: str) -> Run:
    """Run `command` in a process with a hash seed and a number of threads of its own; return the run it made."""
    known = {run.info.run_id for run in _runs(experiment)}
    environment = {
        **os.environ,
        "PYTHONHASHSEED": hash_seed,
        "OMP_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
    }
    done = subprocess.run(
        [sys.executable, *command[1:]], cwd=_ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    (run,) = (run for run in _runs(experiment) if run.info.run_id not in known)
    return run


def _runs(experiment: str) -> list[Run]:
    found = MlflowClient().get_experiment_by_name(experiment)
    return list(MlflowClient().search_runs([found.experiment_id])) if found else []


def _digests(run: Run) -> dict[str, str]:
    """Return the SHA-256 of every file of the run's model, by its path in the model."""
    (output,) = run.outputs.model_outputs
    folder = Path(mlflow.artifacts.download_artifacts(f"models:/{output.model_id}"))
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in _OF_THE_RUN
    }


def _environment(run: Run) -> set[str]:
    text = Path(
        mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="environment.txt")
    ).read_text()
    assert text.startswith("# Python 3.11.")
    return set(text.splitlines()[1:])


@pytest.mark.parametrize(
    ("script", "experiment", "part"),
    [
        ("load_forecasting", "smartgrid-load-forecasting", "hourly_load"),
        ("anomaly_detection", "smartgrid-anomaly-detection", "readings"),
    ],
)
def test_the_reproduce_tag_run_again_gives_the_same_model_bit_for_bit(
    tmp_path: Path, tracking: str, script: str, experiment: str, part: str
) -> None:
    simulate(tmp_path / "grid", sensors=4, days=80, step_minutes=60, seed=7)
    data = str(tmp_path / "grid" / part)
    command = ["python", f"entrypoints/{script}.py", "--data", data, "--n_estimators", "8", "--register", "false"]
    first = _train(command, experiment, "1", "1")
    again = _train(shlex.split(first.data.tags["smartgrid.reproduce"]), experiment, "2", "2")

    assert "artifacts/state/arrays.npz" in _digests(first)
    assert _digests(again) == _digests(first)
    assert again.data.metrics == first.data.metrics
    pins = [_environment(run) for run in (first, again)]
    assert pins[0] == pins[1]
    pinned = {line for line in (_ROOT / "requirements.txt").read_text().splitlines() if "==" in line}
    assert {line.lower() for line in pinned} <= pins[0]
    (described,), (repeated,) = first.inputs.dataset_inputs, again.inputs.dataset_inputs
    assert described.dataset.digest == repeated.dataset.digest
