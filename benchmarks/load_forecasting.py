"""Load forecasts a day ahead: ours beside both seasonal naives, skforecast, mlforecast and OpenSTEF.

    python benchmarks/load_forecasting.py --data FOLDER --peers-python /opt/sgpeers/bin/python

Same data, origins (each midnight UTC), horizon (24 h) and known covariates for all; fitted once before each window of
four weeks. Each (set, window, method) runs in a process of its own, on one thread, in the environment that has the
library; its forecasts are kept, so that a run goes on where it stopped. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import datetime as dt
import hashlib
import importlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

_HERE = Path(__file__).resolve().parent
_REPOSITORY = _HERE.parent
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
_ROUNDS = 100  # of our boosted estimator: the default
_FEATURE_SOURCES = ("features", "evaluation/backtest.py", "schema.py")
_OUR_SOURCES = ("features", "models", "forest.py", "evaluation/backtest.py", "schema.py")


@dataclass(frozen=True)
class Method:
    """A row of the table: an adapter of `peers/`, its options, the environment that it needs."""

    name: str
    adapter: str
    environment: str
    family: str
    options: dict[str, Any] = field(default_factory=dict)
    most_sensors: int | None = None


def _methods() -> list[Method]:
    light, forest = {"estimator": "lightgbm"}, {"estimator": "random_forest"}
    return [
        Method("ours RF", "ours", "ours", "forest", forest),
        Method("ours LightGBM", "ours", "ours", "boosting", light),
        Method("skforecast LightGBM", "skforecast_peer", "peers", "boosting", light),
        Method("skforecast RF", "skforecast_peer", "peers", "forest", forest),
        Method("mlforecast LightGBM", "mlforecast_peer", "peers", "boosting", light),
        Method(
            "mlforecast LightGBM, 24 h differences",
            "mlforecast_peer",
            "peers",
            "boosting",
            light | {"differences": True},
        ),
        Method("mlforecast RF", "mlforecast_peer", "peers", "forest", forest),
        # A model per sensor: hours of CPU for sets of many sensors.
        Method("OpenSTEF LightGBM", "openstef_peer", "openstef", "boosting", {"estimator": "lgb"}, 10),
        Method("OpenSTEF XGBoost", "openstef_peer", "openstef", "boosting", {"estimator": "xgb"}, 10),
        # For their intervals, on our features.
        Method("LightGBM quantiles", "quantile_peer", "peers", "quantiles", light),
        Method("quantile forest", "quantile_peer", "peers", "quantiles", {"estimator": "quantile_forest"}),
    ]


def main() -> None:
    """Run what is missing, score everything, print the table and save it."""
    arguments = _parse()
    if arguments.worker:
        _work(json.loads(arguments.worker))
        return
    sys.path.insert(0, str(_HERE))
    from peers.report import tables
    from peers.task import SETS

    pythons = _pythons(arguments)
    methods = [m for m in _methods() + _variants(arguments.variant) if m.environment in pythons]
    methods = [m for m in methods if not arguments.only or any(part in m.name for part in arguments.only)]
    names = arguments.sets or list(SETS)
    jobs = [
        _job(arguments, set_name, window, method)
        for set_name in names
        for window in _windows(list(SETS[set_name].windows), arguments)
        for method in methods
    ]
    for number, job in enumerate(jobs, 1):
        if not arguments.table_only:
            _run(job, pythons[job["environment"]], f"[{number}/{len(jobs)}]", arguments.timeout)
    text = tables(jobs)
    target = Path(arguments.output) / (
        "final.md" if arguments.final else "quick.md" if arguments.quick else "choice.md"
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")
    print(text)
    print(f"Saved as {target}", file=sys.stderr)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("SMARTGRID_DATA", ""), help="folder of the public data sets")
    parser.add_argument("--output", default=str(Path(tempfile.gettempdir()) / "smartgrid-benchmark"), help="of results")
    parser.add_argument("--peers-python", help="interpreter with requirements-peers.txt; without it peers are skipped")
    parser.add_argument("--openstef-python", help="interpreter with openstef; without it OpenSTEF is skipped")
    parser.add_argument("--sets", nargs="+", help="sets to run; all by default")
    parser.add_argument("--windows", nargs="+", help="windows to run, of those that are open")
    parser.add_argument("--only", nargs="+", metavar="TEXT", help="methods whose name has one of these texts")
    parser.add_argument("--final", action="store_true", help="open the final windows; choices are made without them")
    parser.add_argument("--quick", action="store_true", help="one window, three sensors, a year of history, few trees")
    parser.add_argument("--trees", type=int, default=60, help="of every random forest")
    parser.add_argument("--years", type=float, default=3.0, help="of history that every method learns from, at most")
    parser.add_argument(
        "--variant",
        action="append",
        default=[],
        metavar="NAME:KEY=VALUE,…",
        help="one more row of ours with other parameters; may be repeated",
    )
    parser.add_argument("--timeout", type=float, default=7200, help="of one (set, window, method) [s]")
    parser.add_argument("--table-only", action="store_true", help="run nothing, print the table of what is there")
    parser.add_argument("--any-code", action="store_true", help="keep results whose sources have changed since")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.worker and not Path(arguments.data or "absent").is_dir():
        parser.error("--data (or SMARTGRID_DATA) must name the folder of the data sets, see benchmarks/README.md")
    return arguments


def _pythons(arguments: argparse.Namespace) -> dict[str, str]:
    pythons = {"ours": sys.executable}
    wanted = (("peers", arguments.peers_python, "peers"), ("openstef", arguments.openstef_python, "openstef"))
    for environment, python, file in wanted:
        if python:
            pythons[environment] = python
            continue
        print(
            f"{environment} skipped: uv venv --python 3.11 /tmp/{environment} && uv pip install "
            f"--python /tmp/{environment}/bin/python -r benchmarks/requirements-{file}.txt, "
            f"then --{environment}-python /tmp/{environment}/bin/python",
            file=sys.stderr,
        )
    return pythons


def _variants(texts: list[str]) -> list[Method]:
    found = []
    for text in texts:
        name, _, rest = text.partition(":")
        pairs = (part.split("=", 1) for part in rest.split(",") if part)
        found.append(Method(f"ours {name}", "ours", "ours", "variant", {key: _value(value) for key, value in pairs}))
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _windows(every: list[str], arguments: argparse.Namespace) -> list[str]:
    choice = [name for name in every if name.startswith("choice")]
    if arguments.quick:
        return choice[:1]
    opened = every if arguments.final else choice
    return [name for name in opened if not arguments.windows or name in arguments.windows]


def _job(arguments: argparse.Namespace, set_name: str, window: str, method: Method) -> dict[str, Any]:
    """Return everything that a worker needs; `settings` is what a kept result must have been made with."""
    trees = min(arguments.trees, 20) if arguments.quick else arguments.trees
    seed = 42
    if method.adapter == "ours":
        options = {
            "n_estimators": trees if "forest" in method.family else _ROUNDS,
            "random_state": seed,
        } | method.options
    elif method.adapter == "openstef_peer":
        options = method.options
    else:
        options = {"trees": trees, "boosting_rounds": 100 if arguments.quick else 400, "seed": seed} | method.options
    settings = {
        "years": 1.0 if arguments.quick else arguments.years,
        "most_sensors": 3 if arguments.quick else None,
        "options": options,
        "code": _digest(method.adapter),
    }
    folder = Path(arguments.output).resolve() / ("quick" if arguments.quick else "full") / set_name / window
    return {
        "set": set_name,
        "window": window,
        "method": method.name,
        "adapter": method.adapter,
        "environment": method.environment,
        "family": method.family,
        "most_sensors_of_set": method.most_sensors,
        "data": str(Path(arguments.data).resolve()),
        "target": str(folder / "".join(c if c.isalnum() else "-" for c in method.name)),
        "settings": settings,
        "any_code": arguments.any_code,
    }


def _digest(adapter: str) -> str:
    """Fingerprint of the sources that make a result: adapter and task, for ours also the model."""
    files = [_HERE / "peers" / f"{name}.py" for name in (adapter, "task")]
    if adapter in ("skforecast_peer", "mlforecast_peer"):
        files.append(_HERE / "peers" / "estimators.py")
    sources = {"ours": _OUR_SOURCES, "quantile_peer": _FEATURE_SOURCES}.get(adapter, ())
    if sources:
        package = _REPOSITORY / "smartgrid_pyfunc"
        for name in sources:
            files += sorted((package / name).glob("*.py")) if (package / name).is_dir() else [package / name]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


def _run(job: dict[str, Any], python: str, place: str, timeout: float) -> None:
    from peers.results import read_figures

    label = f"{place} {job['set']}, {job['window']}, {job['method']}"
    if read_figures(job):
        print(f"{label}: kept", file=sys.stderr)
        return
    environment = os.environ | dict.fromkeys(_ONE_THREAD, "1")
    command = [python, "-W", "ignore", __file__, "--worker", json.dumps(job)]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout)
        said = (done.stderr.strip() or done.stdout.strip()).splitlines() if done.returncode else []
        outcome = (
            f"FAILED: {said[-1] if said else done.returncode}" if done.returncode else done.stdout.splitlines()[-1]
        )
    except subprocess.TimeoutExpired:
        outcome = f"FAILED: not done within {timeout:.0f} s"
    print(f"{label}: {outcome}", file=sys.stderr)


def _work(job: dict[str, Any]) -> None:
    """Fit and forecast one window in this process; write forecasts, then figures."""
    sys.path.insert(0, str(_HERE))
    from peers.task import Task

    settings = job["settings"]
    task = Task.make(job["set"], job["window"], Path(job["data"]), settings["years"], settings["most_sensors"])
    _ = task.train, task.grid  # laid out before the clock starts
    if job["most_sensors_of_set"] and len(task.starts) > job["most_sensors_of_set"]:
        print("left out: more sensors than this method fits in reasonable time")
        return
    method = importlib.import_module(f"peers.{job['adapter']}").create(settings["options"])
    forecasts, figures = _measure(method, task)
    target = Path(job["target"])
    target.parent.mkdir(parents=True, exist_ok=True)
    forecasts.to_parquet(f"{target}.parquet", index=False)
    figures |= {name: job[name] for name in ("set", "window", "method", "settings")}
    target.with_name(target.name + ".json").write_text(json.dumps(figures, indent=1), encoding="utf-8")
    print(f"fit {figures['fit_cpu_s']:.1f} CPU-s, {figures['forecast_cpu_ms']:.1f} CPU-ms a forecast")


def _measure(method: Any, task: Any) -> tuple[Any, dict[str, Any]]:
    import pandas as pd
    from peers.task import WINDOW_DAYS

    start = time.process_time()
    method.fit(task)
    fitted = time.process_time()
    days = [method.forecast(task, day) for day in range(WINDOW_DAYS)]
    done = time.process_time()
    forecasts = pd.concat(days, ignore_index=True)
    for level in getattr(method, "levels", ()):  # not on the clock: the peers give no intervals here
        bounds = pd.concat([method.forecast(task, day, level) for day in range(WINDOW_DAYS)], ignore_index=True)
        forecasts[f"lower_{level}"], forecasts[f"upper_{level}"] = bounds["lower"], bounds["upper"]
    figures = {
        "fit_cpu_s": fitted - start,
        "forecast_cpu_ms": (done - fitted) / (WINDOW_DAYS * len(task.starts)) * 1000,
        "peak_mb": _peak_memory(),
        "versions": _versions(method.packages),
        "date": dt.date.today().isoformat(),
    }
    return forecasts, figures


def _versions(packages: tuple[str, ...]) -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "absent"
    return versions


def _peak_memory() -> float:
    """Return the peak resident memory of this process [MB]; the kernel's own figure, which starts anew at exec."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return float("nan")


if __name__ == "__main__":
    main()
