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
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from servers import AHEAD, HISTORY, as_asked, logged_echo, logged_model, request_body, served

_TARGET_RATIO, _TARGET_MB, _TARGET_LOAD = 1.5, 25.0, 0.5
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
        _print_profile(arguments.profile, request_body(arguments.orient))
        return
    with tempfile.TemporaryDirectory(prefix="smartgrid-request-") as name:
        folder = Path(name)
        os.chdir(folder)  # where MLflow lays its store
        model = Path(arguments.model).resolve() if arguments.model else logged_model(folder, arguments.estimator)
        body = request_body(arguments.orient)
        _print_head(body, arguments.orient)
        with served(logged_echo(folder), folder) as echo, served(model, folder) as ours:
            _print_times(*_in_turn([echo.port, ours.port], body, arguments.requests))
        _profiled(model, arguments.orient)
        _print_weight(model)


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
            if answer.status != 200 or not as_asked(json.loads(text)["predictions"]):
                raise RuntimeError(f"The server on port {ports[j]} answered {answer.status}: {text[:300]!r}")
    return spent[0], spent[1]


def _print_head(body: bytes, orient: str) -> None:
    packages = ("mlflow", "pandas", "numpy", "scikit-learn")
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in packages)
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, {versions}, {platform.machine()};", end=" "
    )
    print(f"{HISTORY} hours of one sensor, dataframe_{orient}, {len(body) / 1e3:.0f} kB; {AHEAD} h ahead\n")


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
