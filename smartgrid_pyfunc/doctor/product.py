"""The product: training data, promoted models that load and answer, the gateway."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from smartgrid_pyfunc.doctor.examination import Check, Finding, State
from smartgrid_pyfunc.lifecycle import integrity, registry
from smartgrid_pyfunc.lifecycle.errors import LifecycleError
from smartgrid_pyfunc.schema import ANOMALY_MODEL, LOAD_MODEL

_LOAD_SECONDS = 120
_MODELS = (LOAD_MODEL, ANOMALY_MODEL)
# In a process of its own, since two versions in one process share the first one's code.
_ASK = """
import sys, mlflow
model = mlflow.pyfunc.load_model(sys.argv[1])
print("answered", len(model.predict(model.input_example)))
"""


def checks(data: str, gateway: str) -> list[Check]:
    """Return the checks of what the commands of this project need and leave; `gateway` is its URL."""
    models = [Check(name, lambda name=name: _model(name), seconds=_LOAD_SECONDS + 30) for name in _MODELS]  # type: ignore[misc]
    return [Check("data", lambda: _data(data), seconds=60), *models, Check("gateway", lambda: _gateway(gateway))]


def _data(data: str) -> Finding:
    if data == "demo":
        return Finding("data", State.OK, "demo (simulated)")
    from smartgrid_pyfunc.sources.inputs import kind_of_data

    return Finding("data", State.OK, f"{data} holds {kind_of_data(data)}; its rows are judged when they are read")


def _model(name: str) -> Finding:
    version = registry.version_in(name, "Production")
    if version is None:
        remedy = f"mlflow run . (trains and promotes), or mlflow run . -e promote -P model={name}"
        return Finding(name, State.WARNING, "no version is in Production", remedy)
    uri = f"models:/{name}/{version}"
    integrity.require_whole(uri)
    begun = time.monotonic()
    answered = _ask(uri)
    said = f"version {version} is in Production, loads and answers {answered} rows in {time.monotonic() - begun:.1f} s"
    return Finding(name, State.OK, said)


def _ask(uri: str) -> int:
    """Load the model as a server would, without this checkout on the path; return how many rows answer its example."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MLFLOW_RUN_ID")}
    try:
        done = subprocess.run(
            [sys.executable, "-c", _ASK, uri],
            env=environment | {"MLFLOW_TRACKING_URI": _tracking_uri()},
            cwd=Path(sys.prefix),
            capture_output=True,
            text=True,
            timeout=_LOAD_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise LifecycleError(f"{uri} does not load within {_LOAD_SECONDS} s; look at the artifact store") from None
    lines = [line for line in done.stdout.splitlines() if line.startswith("answered ")]
    if done.returncode or not lines:
        reason = (done.stderr.strip().splitlines() or ["no word"])[-1]
        raise LifecycleError(
            f"{uri} does not load: {reason}; promote another version, or pip install -r requirements.txt"
        )
    return int(lines[-1].split()[1])


def _tracking_uri() -> str:
    import mlflow

    return str(mlflow.get_tracking_uri())


def _gateway(url: str) -> Finding:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
            said = json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return Finding("gateway", State.FAILED, f"{url} answers with {error.code}", "look into the log of `serve`")
    except (OSError, ValueError):
        return Finding("gateway", State.UNUSED, f"nothing answers at {url}", "start it: mlflow run . -e serve")
    return Finding("gateway", State.OK, f"{url}: {said.get('status', 'answers')}")
