"""What the benchmarks of serving share: models to serve, servers of them, a request and the check of its answer."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

HISTORY, AHEAD = 672, 24  # h in a request, h asked for
_PATIENCE = 240  # s until a server answers
_ECHO = '''
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel


class Echo(PythonModel):
    """Answers the first rows of a request, with the columns of a forecast."""

    def predict(self, context, model_input, params=None):
        rows = model_input.iloc[: params["hours_ahead"]]
        load = rows["avg_value"]
        return pd.DataFrame({
            "sensor_id": rows["sensor_id"], "origin": rows["timestamp"], "horizon": range(1, len(rows) + 1),
            "timestamp": rows["timestamp"], "predicted_load": load, "lower": load, "upper": load,
            "model": "echo", "reason": None,
        })


set_model(Echo())
'''


def logged_model(folder: Path, estimator: str) -> Path:
    """Fit the load model with its defaults to the demo, log it as training does, and return its folder."""
    import mlflow

    from smartgrid_pyfunc.lifecycle import packaging
    from smartgrid_pyfunc.models.load_forecasting import LoadForecastingModel
    from smartgrid_pyfunc.schema import LOAD_MODEL
    from smartgrid_pyfunc.sources import load_hourly
    from smartgrid_pyfunc.training.load_forecasting import example_request

    hourly = load_hourly("demo").frame
    fitted = LoadForecastingModel(estimator=estimator).fit(hourly)
    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    mlflow.create_experiment("request", str(folder / "artifacts"))
    mlflow.set_experiment("request")
    with mlflow.start_run():
        info = packaging.log_model(fitted, LOAD_MODEL, example_request(hourly))
    return Path(mlflow.artifacts.download_artifacts(info.model_uri))


def logged_echo(folder: Path) -> Path:
    """Log a model with the load model's signature that hands back the first rows of a request."""
    import mlflow

    from smartgrid_pyfunc.lifecycle.packaging import signature_of
    from smartgrid_pyfunc.schema import LOAD_MODEL

    code, target = folder / "echo.py", folder / "echo"
    code.write_text(_ECHO, encoding="utf-8")
    mlflow.pyfunc.save_model(
        target, python_model=str(code), signature=signature_of(LOAD_MODEL), pip_requirements=["mlflow"]
    )
    return target


def request_body(orient: str) -> bytes:
    """Return the body of a request: four weeks of made-up load of a sensor that no model has seen."""
    import pandas as pd

    rng, hour = np.random.default_rng(0), np.arange(HISTORY)
    load = 300 + 80 * np.sin(hour / 24 * 2 * np.pi) + 30 * np.sin(hour / 168 * 2 * np.pi) + rng.normal(0, 8, HISTORY)
    times = pd.date_range("2026-03-02", periods=HISTORY, freq="h").strftime("%Y-%m-%dT%H:%M:%SZ")
    rows = pd.DataFrame({"sensor_id": "substation 7", "timestamp": times, "avg_value": np.round(load, 2)})
    table = json.loads(rows.to_json(orient=orient, index=False) if orient == "split" else rows.to_json(orient=orient))
    return json.dumps({f"dataframe_{orient}": table, "params": {"hours_ahead": AHEAD}}).encode()


@dataclass(frozen=True)
class Server:
    """A running server: its port, the process that leads its group, and how long it took to answer [s]."""

    port: int
    process: subprocess.Popen[bytes]
    started_in: float


@contextmanager
def served(model: Path, folder: Path, workers: int = 1, **variables: str) -> Iterator[Server]:
    """Serve `model` on a free port; stop the server, which leads a process group of its own, at the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(model), "--env-manager", "local"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", str(workers)]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    start = time.monotonic()
    with (folder / f"server-{port}.log").open("w") as log:
        server = subprocess.Popen(
            command, stdout=log, stderr=log, start_new_session=True, env=os.environ | {"PATH": path} | variables
        )
    try:
        _wait(server, port)
        yield Server(port, server, time.monotonic() - start)
    finally:
        try:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # ended by itself


def _wait(server: subprocess.Popen[bytes], port: int) -> None:
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until and server.poll() is None:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/ping")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.5)
    raise RuntimeError(f"The server on port {port} does not answer: exit code {server.poll()}.")


def as_asked(rows: list[dict[str, Any]]) -> bool:
    """Return whether an answer has a row for each hour asked for, none of them by the fallback."""
    return len(rows) == AHEAD and all(row["model"] not in (None, "seasonal_naive") for row in rows)
