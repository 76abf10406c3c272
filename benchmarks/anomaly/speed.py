"""What a reading costs: alone, in bulk, in the forest alone, and what fitting on ten million costs.

    python benchmarks/anomaly/speed.py single|bulk|forest|fit FILE

Each measurement runs in a process of its own and prints JSON; `speed_table` runs them and sets the table.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

sys.path[:0] = [str(Path(__file__).resolve().parents[n]) for n in (2, 1)]

_READINGS = ["sensor_id", "sensor_type", "timestamp", "value", "latitude", "longitude"]
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_MANY = {"sensors": 200, "days": 1042, "seed": 5, "step_minutes": 30}  # ten million readings
_CALLS = 1_000
_REPEATS = 5
_FEATURES, _FOREST_ROWS, _FOREST_TRAIN = 14, 100_000, 20_000
_WEEK = 337  # half-hourly readings: one, and a week before it

Figures = dict[str, float]


def speed_table(simulated: Path, output: Path, code: str, fit_10m: bool) -> str:
    """Return the Markdown table; figures of the same code are kept in `output`."""
    tasks = dict.fromkeys(("single", "bulk", "forest"), simulated)
    if fit_10m:
        tasks["fit"] = _ten_million(output / "data" / "ten-million")
    found = {name: _kept(name, path, output / f"speed-{name}-{code}.json") for name, path in tasks.items()}
    lines = ["### Speed, one thread", "", "| what | figure |", "|---|---:|"]
    lines += [f"| {what} | {figure:,.4g} |" for figures in found.values() for what, figure in figures.items()]
    return "\n".join([*lines, ""])


def _ten_million(folder: Path) -> Path:
    from smartgrid_pyfunc.simulation import simulate

    if not folder.is_dir():
        simulate(folder, **_MANY)
    return folder / "readings"


def _kept(name: str, path: Path, target: Path) -> Figures:
    if not target.is_file():
        command = [sys.executable, "-W", "ignore", __file__, name, str(path)]
        environment = os.environ | dict.fromkeys(_ONE_THREAD, "1")
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            print(f"speed, {name}: FAILED: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
            return {}
        target.write_text(done.stdout.splitlines()[-1], encoding="utf-8")
    figures: Figures = json.loads(target.read_text(encoding="utf-8"))
    return figures


def _cpu(call: Callable[[], Any], times: int) -> tuple[float, float]:
    """Return best and median CPU seconds of a call."""
    spent = []
    for _ in range(times):
        start = time.process_time()
        call()
        spent.append(time.process_time() - start)
    return min(spent), float(np.median(spent))


def _model(path: Path) -> tuple[Any, pd.DataFrame]:
    from smartgrid_pyfunc.models.anomaly_detection import AnomalyDetectionModel

    frame = pd.read_parquet(path)
    train = frame["part"] == "train"
    return AnomalyDetectionModel().fit(frame[train][_READINGS]), frame[~train][_READINGS].reset_index(drop=True)


def single(path: Path) -> Figures:
    """One reading asked for, without and with a week of history."""
    model, rows = _model(path)
    figures: Figures = {}
    for name, size in (("one reading without history", 1), ("one reading after a week of history", _WEEK)):
        request = rows.iloc[1000 : 1000 + size].reset_index(drop=True)
        request = request.assign(timestamp=request["timestamp"].dt.strftime("%Y-%m-%dT%H:%M:%SZ"))
        best, median = _cpu(lambda asked=request: model.predict(None, asked), _CALLS)
        figures[f"{name}, best [CPU-ms]"], figures[f"{name}, median [CPU-ms]"] = 1e3 * best, 1e3 * median
    return figures


def bulk(path: Path) -> Figures:
    """Return the whole pipeline's readings per CPU-s, strings to answers."""
    model, rows = _model(path)
    best, median = _cpu(lambda: model.predict(None, rows), _REPEATS)
    return {
        f"readings per CPU-s, whole pipeline, {len(rows):,} rows, best": len(rows) / best,
        "readings per CPU-s, whole pipeline, median": len(rows) / median,
    }


def forest(path: Path) -> Figures:
    """Compare the flat forest with scikit-learn's `score_samples`: same trees, same rows, same number of features."""
    from sklearn.ensemble import IsolationForest

    from smartgrid_pyfunc.models.isolation import isolation_paths

    rng = np.random.default_rng(0)
    rows = rng.normal(size=(_FOREST_ROWS, _FEATURES)) * rng.exponential(size=(_FOREST_ROWS, 1))
    rows = rows.astype(np.float32)
    fitted = IsolationForest(n_estimators=100, random_state=0, n_jobs=1).fit(rows[:_FOREST_TRAIN])
    ours, unit = isolation_paths(fitted)
    flat, _ = _cpu(lambda: np.exp2(-ours.mean(rows) / unit), _REPEATS)
    library, _ = _cpu(lambda: fitted.score_samples(rows), _REPEATS)
    gap = np.abs(np.exp2(-ours.mean(rows) / unit) + fitted.score_samples(rows)).max()
    alone, _ = _cpu(lambda: np.exp2(-ours.mean(rows[:1]) / unit), _CALLS)
    library_alone, _ = _cpu(lambda: fitted.score_samples(rows[:1]), _CALLS)
    return {
        f"forest alone, rows per CPU-s, {_FEATURES} features": len(rows) / flat,
        "… scikit-learn's score_samples": len(rows) / library,
        "… ours / scikit-learn": library / flat,
        "largest difference of the scores": float(gap),
        "forest alone, one row [CPU-ms]": 1e3 * alone,
        "… scikit-learn's score_samples [CPU-ms]": 1e3 * library_alone,
    }


def fit(path: Path) -> Figures:
    """Fit on ten million readings: CPU and peak memory of the process."""
    from smartgrid_pyfunc.models.anomaly_detection import AnomalyDetectionModel

    frame = pd.read_parquet(path, columns=_READINGS)
    before, start = _memory("VmRSS"), time.process_time()
    AnomalyDetectionModel().fit(frame)
    return {
        "fit, readings": float(len(frame)),
        "fit [CPU-s]": time.process_time() - start,
        "memory before the fit [GB]": before,
        "peak memory of the fit [GB]": _memory("VmHWM"),
    }


def _memory(field: str) -> float:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024**2
    return float("nan")


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](Path(sys.argv[2]))))
