"""How time and memory of fitting the load model grow with the number of sensors.

    python benchmarks/fit_cost.py --sensors 10 100 1000

Hourly load of made-up sensors over a year; each size in a process of its own. See `LoadParams.max_rows` for the
sampling rule: beyond that many pairs of origin and target hour, pairs are drawn uniformly. "features" is the share
of the CPU time that building them takes. What a fit adds to the memory of the data is compared with the feature matrix
(the trees' features and the linear base's inputs) twice: with the one that is built, and with the one that all
sensor-hours would make without the sampling rule. Below the table stands what each step of the fit had in memory at
most, data and libraries included.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

_HEAD = (
    "| sensors | sensor-hours | fit [CPU-s] | fit [s] | features | peak memory [MB] | with data alone [MB] "
    "| matrix built [MB] | ratio | matrix of all hours [MB] | ratio |"
)
_STEPS = ("parse_hourly", "build_panel", "draw_samples", "build_features", "fit_estimator", "linear base")


def main() -> None:
    """Fit for every number of sensors and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sensors", type=int, nargs="+", default=[10, 100, 1000], help="numbers of sensors")
    parser.add_argument("--days", type=int, default=365, help="of hourly load for each")
    parser.add_argument("--estimator", default="random_forest", help="random_forest or lightgbm")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(_measure(**json.loads(arguments.worker))))
        return
    print(_HEAD, "|---:" * 11 + "|", sep="\n", flush=True)
    found: list[dict[str, Any]] = []
    for sensors in arguments.sensors:
        job = {"sensors": sensors, "days": arguments.days, "estimator": arguments.estimator}
        command = [sys.executable, "-W", "ignore", __file__, "--worker", json.dumps(job)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found.append(json.loads(done.stdout.splitlines()[-1]))
        print(_row(found[-1]), flush=True)
    print(f"\nMost in memory [MB]: {_steps(found)}")
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("scikit-learn", "lightgbm", "numpy"))
    print(f"\nPython {platform.python_version()}, {versions}; {os.cpu_count()} cores; {arguments.estimator}.")


def _row(found: dict[str, Any]) -> str:
    used = found["peak"] - found["data"]
    return (
        f"| {found['sensors']:.0f} | {found['hours']:,.0f} | {found['cpu']:.0f} | {found['wall']:.0f} "
        f"| {found['seconds'] / found['cpu']:.1%} | {found['peak']:,.0f} | {found['data']:,.0f} "
        f"| {found['built']:,.0f} | {used / found['built']:.1f} | {found['all']:,.0f} | {used / found['all']:.1f} |"
    )


def _steps(found: list[dict[str, Any]]) -> str:
    parts = [
        f"{row['sensors']} sensors: " + ", ".join(f"{step} {row['steps'][step]:,.0f}" for step in (*_STEPS, "rest"))
        for row in found
    ]
    return "; ".join(parts) + "."


def _measure(sensors: int, days: int, estimator: str) -> dict[str, Any]:
    from smartgrid_pyfunc.models import load_estimator, load_forecasting, load_training

    frame = _made_up(sensors, days * 24)
    held = _memory("VmRSS")
    meter = _Meter()
    for module in (load_forecasting, load_training):
        for step in _STEPS:
            if hasattr(module, step):
                setattr(module, step, meter.watched(step, getattr(module, step)))
    linear = load_estimator.LinearBase
    linear.fit = staticmethod(meter.watched("linear base", linear.fit))  # type: ignore[method-assign]
    start, cpu = time.perf_counter(), time.process_time()
    load_forecasting.LoadForecastingModel(estimator=estimator).fit(frame)
    used = {"wall": time.perf_counter() - start, "cpu": time.process_time() - cpu}
    meter.note("rest")
    return used | {
        "sensors": sensors,
        "hours": len(frame),
        "seconds": meter.seconds["build_features"],
        "peak": max(meter.peak.values()),
        "data": held,
        "built": meter.matrix,
        "all": meter.matrix / meter.rows * len(frame),
        "steps": meter.peak,
    }


class _Meter:
    """CPU time and peak memory [MB] of steps, a step within another one counted to itself alone, and the matrix."""

    def __init__(self) -> None:
        self.seconds, self.peak = dict.fromkeys(_STEPS, 0.0), dict.fromkeys((*_STEPS, "rest"), 0.0)
        self.matrix, self.rows = 0.0, 1
        self._outer = "rest"

    def note(self, step: str) -> None:
        """Count the memory since the last call to `step`."""
        self.peak[step] = max(self.peak[step], _memory("VmHWM"))
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the kernel's peak starts anew

    def watched(self, step: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            outer, self._outer = self._outer, step
            self.note(outer)
            start = time.process_time()
            made = function(*arguments, **options)
            self.seconds[step] += time.process_time() - start
            self.note(step)
            self._outer = outer
            if step == "build_features" and len(made.features) > self.rows:
                blocks = (made.features, *made.inputs.values())
                self.matrix, self.rows = sum(block.nbytes for block in blocks) / 1e6, len(made.features)
            return made

        return run


def _made_up(sensors: int, hours: int) -> Any:
    import numpy as np
    import pandas as pd

    rng, hour = np.random.default_rng(0), np.arange(hours)
    shape = 3 + np.sin(hour / 24 * 2 * np.pi) + 0.5 * np.sin(hour / 168 * 2 * np.pi)
    load = rng.lognormal(1, 1, (sensors, 1)) * shape * rng.lognormal(0, 0.1, (sensors, hours))
    names = pd.Categorical.from_codes(np.repeat(np.arange(sensors), hours), [f"meter-{i:05d}" for i in range(sensors)])
    times = np.tile(pd.date_range("2024-01-01", periods=hours, freq="h").to_numpy(), sensors)
    return pd.DataFrame({"sensor_id": names, "timestamp": times, "avg_value": load.ravel()})


def _memory(name: str) -> float:
    """Return a figure of this process [MB] as the kernel counts it."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


if __name__ == "__main__":
    main()
