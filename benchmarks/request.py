"""A whole forecast request over HTTP: the load model beside an echo model with the same signature, in turn.

    python benchmarks/request.py

Fits the model with its defaults to the demo's load, logs it and an echo model, and serves both by `mlflow models serve`
(one worker, loopback). Each request holds four weeks of hourly load of one sensor in JSON and asks for 24 hours. What
is printed beside the times of both servers: where the time of a request goes, in process; the artifact's size; CPU
time to load it in a fresh process, beyond the imports.
"""

from __future__ import annotations

import argparse
import functools
import http.client
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

_REPOSITORY = Path(__file__).resolve().parents[1]
_HISTORY, _AHEAD = 672, 24
_PATIENCE = 120  # s until a server answers
_TARGET_RATIO, _TARGET_MB, _TARGET_LOAD = 1.5, 25.0, 0.5
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
_LOAD = """
import os, resource, sys, time
import mlflow, mlflow.pyfunc, numpy, pandas, scipy.stats, sklearn.ensemble
sys.path.insert(0, sys.argv[2])
import smartgrid_pyfunc.models.load_forecasting
start = time.process_time()
mlflow.pyfunc.load_model(sys.argv[1])
print(time.process_time() - start)
"""


def main() -> None:
    """Make or take a model, serve, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder of a logged model; by default one is fitted to the demo and logged")
    parser.add_argument("--estimator", default="random_forest", help="of the model fitted: random_forest or lightgbm")
    parser.add_argument("--requests", type=int, default=400, help="to each server")
    parser.add_argument("--orient", default="split", choices=["split", "records"], help="of the table in JSON")
    parser.add_argument("--profile", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.profile:
        _print_profile(arguments.profile, _request(arguments.orient))
        return
    sys.path.insert(0, str(_REPOSITORY))
    with tempfile.TemporaryDirectory(prefix="smartgrid-request-") as name:
        folder = Path(name)
        os.chdir(folder)  # where MLflow lays its store
        model = Path(arguments.model).resolve() if arguments.model else _logged_model(folder, arguments.estimator)
        body = _request(arguments.orient)
        _print_head(body, arguments.orient)
        with _served(_logged_echo(folder), folder) as echo, _served(model, folder) as ours:
            _print_times(*_in_turn([echo, ours], body, arguments.requests))
        _profiled(model, arguments.orient)
        _print_weight(model)


def _logged_model(folder: Path, estimator: str) -> Path:
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


def _logged_echo(folder: Path) -> Path:
    import mlflow

    from smartgrid_pyfunc.lifecycle.packaging import signature_of
    from smartgrid_pyfunc.schema import LOAD_MODEL

    code, target = folder / "echo.py", folder / "echo"
    code.write_text(_ECHO, encoding="utf-8")
    mlflow.pyfunc.save_model(
        target, python_model=str(code), signature=signature_of(LOAD_MODEL), pip_requirements=["mlflow"]
    )
    return target


def _request(orient: str) -> bytes:
    """Return the body of a request: four weeks of made-up load of a sensor that no model has seen."""
    import pandas as pd

    rng, hour = np.random.default_rng(0), np.arange(_HISTORY)
    load = 300 + 80 * np.sin(hour / 24 * 2 * np.pi) + 30 * np.sin(hour / 168 * 2 * np.pi) + rng.normal(0, 8, _HISTORY)
    times = pd.date_range("2026-03-02", periods=_HISTORY, freq="h").strftime("%Y-%m-%dT%H:%M:%SZ")
    rows = pd.DataFrame({"sensor_id": "substation 7", "timestamp": times, "avg_value": np.round(load, 2)})
    table = json.loads(rows.to_json(orient=orient, index=False) if orient == "split" else rows.to_json(orient=orient))
    return json.dumps({f"dataframe_{orient}": table, "params": {"hours_ahead": _AHEAD}}).encode()


@contextmanager
def _served(model: Path, folder: Path) -> Iterator[int]:
    """Serve `model` on a free port; stop the server, which leads a process group of its own, at the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(model), "--env-manager", "local"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    with (folder / f"server-{port}.log").open("w") as log:
        server = subprocess.Popen(
            command, stdout=log, stderr=log, start_new_session=True, env=os.environ | {"PATH": path}
        )
    try:
        _wait(server, port)
        yield port
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=30)


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


def _in_turn(ports: list[int], body: bytes, requests: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the times of `requests` to each server [ms]; a fifth more before them, not counted, warms both up."""
    connections = [http.client.HTTPConnection("127.0.0.1", port, timeout=60) for port in ports]
    spent = np.empty((2, requests))
    for i in range(-requests // 5, requests):
        for j, connection in enumerate(connections):
            start = time.perf_counter()
            connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
            if i >= 0:
                spent[j, i] = 1e3 * (time.perf_counter() - start)
            if answer.status != 200 or not _as_asked(json.loads(text)["predictions"]):
                raise RuntimeError(f"The server on port {ports[j]} answered {answer.status}: {text[:300]!r}")
    return spent[0], spent[1]


def _as_asked(rows: list[dict[str, Any]]) -> bool:
    return len(rows) == _AHEAD and all(row["model"] not in (None, "seasonal_naive") for row in rows)


def _print_head(body: bytes, orient: str) -> None:
    packages = ("mlflow", "pandas", "numpy", "scikit-learn")
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in packages)
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, {versions}, {platform.machine()};", end=" "
    )
    print(f"{_HISTORY} hours of one sensor, dataframe_{orient}, {len(body) / 1e3:.0f} kB; {_AHEAD} h ahead\n")


def _print_times(echo: np.ndarray, ours: np.ndarray) -> None:
    print("| over HTTP | p50 [ms] | p95 [ms] |\n|---|---:|---:|")
    for name, spent in (("echo", echo), ("load model", ours)):
        print(f"| {name} | {np.median(spent):.1f} | {np.quantile(spent, 0.95):.1f} |")
    ratio, pairs = np.median(ours) / np.median(echo), np.median(ours / echo)
    print(
        f"\nLoad model / echo: {ratio:.2f} of the medians (median of the ratios of {len(ours)} pairs {pairs:.2f}); "
        f"target ≤ {_TARGET_RATIO}: {'met' if ratio <= _TARGET_RATIO else 'missed'}\n"
    )


def _profiled(model: Path, orient: str) -> None:
    """Print the profile from a process of its own, which reads the code logged with the model, as the server does."""
    command = [sys.executable, "-W", "ignore", __file__, "--profile", str(model), "--orient", orient]
    print(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def _print_profile(model: str, body: bytes, repeats: int = 200) -> None:
    """Print where the CPU time of a request goes; a part's own parts are counted to it alone."""
    import mlflow
    from mlflow.pyfunc import scoring_server

    loaded = mlflow.pyfunc.load_model(model)
    clock = _Clock()
    for part, place, name in _parts(loaded):
        setattr(place, name, clock.timed(part, getattr(place, name)))
    answer = clock.timed("MLflow: JSON of the answer, the rest", scoring_server.invocations)
    text = body.decode()
    for i in range(repeats + 20):
        if i == 20:
            clock.spent.clear()
        answer(text, "application/json", loaded, None)
    whole = sum(clock.spent.values())
    print(f"| part of a request in process (mean of {repeats}) | CPU [ms] | share |\n|---|---:|---:|")
    for part, spent in sorted(clock.spent.items(), key=lambda item: -item[1]):
        print(f"| {part} | {1e3 * spent / repeats:.2f} | {spent / whole:.0%} |")
    print(f"| whole | {1e3 * whole / repeats:.2f} | 100% |")


def _parts(loaded: Any) -> list[tuple[str, Any, str]]:
    from mlflow.pyfunc import scoring_server

    own = loaded.unwrap_python_model()
    served, request, intervals = (
        sys.modules[f"smartgrid_pyfunc.models.{name}"] for name in ("load_forecasting", "load_request", "intervals")
    )
    return [
        ("MLflow: JSON to a table", scoring_server, "infer_and_parse_data"),
        ("MLflow: schema and parameters", loaded, "predict"),
        ("checks and the rest of predict", own, "predict"),
        ("request: read and check rows", served, "parse_request"),
        ("request: columns parsed", request, "hourly_columns"),
        ("request: panel", request, "build_panel"),
        ("features", served, "build_features"),
        ("estimator: what the trees correct", own._estimator, "predict"),
        *(("estimator: trees", forest, "mean") for forest in own._estimator.forests),
        ("intervals", own, "_interval"),
        ("intervals: difficulty", intervals.Difficulty, "of"),
        ("seasonal naive", served, "seasonal_naive"),
        ("answer", served, "answer_frame"),
    ]


class _Clock:
    """Own CPU time of named parts that call each other."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self._inner: list[float] = []

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def run(*arguments: Any, **options: Any) -> Any:
            self._inner.append(0.0)
            start = time.process_time()
            try:
                return function(*arguments, **options)
            finally:
                took = time.process_time() - start
                self.spent[part] = self.spent.get(part, 0.0) + took - self._inner.pop()
                if self._inner:
                    self._inner[-1] += took

        return run


def _print_weight(model: Path) -> None:
    size = sum(file.stat().st_size for file in model.rglob("*") if file.is_file()) / 1e6
    largest = max((file for file in model.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)
    command = [sys.executable, "-W", "ignore", "-c", _LOAD, str(model), str(model / "code")]
    spent = [
        float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
        for _ in range(3)
    ]
    print(
        f"Artifact {size:.1f} MB ({largest.relative_to(model)}: {largest.stat().st_size / 1e6:.1f}); "
        f"target ≤ {_TARGET_MB:.0f}: {'met' if size <= _TARGET_MB else 'missed'}. Load beyond imports "
        f"{min(spent):.2f} CPU-s (best of {len(spent)}); target ≤ {_TARGET_LOAD}: "
        f"{'met' if min(spent) <= _TARGET_LOAD else 'missed'}."
    )


if __name__ == "__main__":
    main()
