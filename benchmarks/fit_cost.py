"""How time and memory of fitting the load model grow with the number of sensors.

    python benchmarks/fit_cost.py --sensors 10 100 1000

Hourly load of made-up sensors over a year; each size in a process of its own. See `LoadParams.max_rows` for the
sampling rule: beyond that many pairs of origin and target hour, pairs are drawn uniformly. "features" is the share
of the CPU time that building them takes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

_HEAD = "| sensors | sensor-hours | fit [CPU-s] | fit [s] | features | peak memory [MB] | with data alone [MB] |"


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
    print(_HEAD, "|---:" * 7 + "|", sep="\n", flush=True)
    for sensors in arguments.sensors:
        job = {"sensors": sensors, "days": arguments.days, "estimator": arguments.estimator}
        command = [sys.executable, "-W", "ignore", __file__, "--worker", json.dumps(job)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        print(_row(json.loads(done.stdout.splitlines()[-1])), flush=True)
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("scikit-learn", "lightgbm", "numpy"))
    print(f"\nPython {platform.python_version()}, {versions}; {os.cpu_count()} cores; {arguments.estimator}.")


def _row(found: dict[str, float]) -> str:
    return (
        f"| {found['sensors']:.0f} | {found['hours']:,.0f} | {found['cpu']:.0f} | {found['wall']:.0f} "
        f"| {found['features'] / found['cpu']:.1%} | {found['peak']:,.0f} | {found['data']:,.0f} |"
    )


def _measure(sensors: int, days: int, estimator: str) -> dict[str, Any]:
    from smartgrid_pyfunc.models import load_forecasting, load_training

    frame = _made_up(sensors, days * 24)
    held = _memory("VmRSS")
    spent = 0.0
    build = load_training.build_features

    def timed(*arguments: Any) -> Any:
        nonlocal spent
        start = time.process_time()
        design = build(*arguments)
        spent += time.process_time() - start
        return design

    load_training.build_features = load_forecasting.build_features = timed
    start, cpu = time.perf_counter(), time.process_time()
    load_forecasting.LoadForecastingModel(estimator=estimator).fit(frame)
    return {
        "sensors": sensors,
        "hours": len(frame),
        "wall": time.perf_counter() - start,
        "cpu": time.process_time() - cpu,
        "features": spent,
        "peak": _memory("VmHWM"),
        "data": held,
    }


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
