"""Anomaly detection: ours beside the six-feature forest, PyOD, isotree, median/MAD and a rolling z, in one run.

    python benchmarks/anomaly_detection.py --data FOLDER --peers-python /tmp/peers/bin/python

The first half of each sensor trains, the second half is scored, labels are not looked at (SKAB: 400 rows of each run
train; NAB by its own protocol: its probationary period does). With ``--first-half`` the same happens inside the first
half only: choices are made there. Each (set, method) runs in a process of its own, on one thread, in the environment
that has the library; its scores are kept, so that a run goes on where it stopped. See docs/anomaly-benchmark.md.
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
_OUR_SOURCES = ("features", "models", "forest.py", "schema.py")
_RATES = (0.01, 0.02)  # nominal shares of false alarms


@dataclass(frozen=True)
class Method:
    """A row of the tables: an adapter of `anomaly/`, its options, the environment that it needs."""

    name: str
    adapter: str
    environment: str = "ours"
    options: dict[str, Any] = field(default_factory=dict)


def _methods() -> list[Method]:
    return [
        Method("ours", "ours"),
        Method("six features, scikit-learn IsolationForest", "sklearn_forest"),
        Method("median/MAD by sensor and hour", "baselines", options={"baseline": "median"}),
        Method("rolling z, 7 d", "baselines", options={"baseline": "rolling"}),
        _pyod("IForest", n_estimators=100, random_state=42, n_jobs=1),
        _pyod("LOF", n_neighbors=20),
        _pyod("LOF", ", 100 neighbours", n_neighbors=100),
        _pyod("KNN", n_neighbors=20),
        _pyod("ECOD"),
        _pyod("HBOS"),
        Method("isotree", "isotree_peer", "peers", {"scope": "sensor"}),
        Method("chance", "baselines", options={"baseline": "random"}),
    ]


def _pyod(detector: str, note: str = "", **options: Any) -> Method:
    return Method(f"PyOD {detector}{note}", "pyod_peer", "peers", {"detector": detector, **options})


def main() -> None:
    """Run what is missing, score everything, print the tables and save them."""
    arguments = _parse()
    if arguments.worker:
        _work(json.loads(arguments.worker))
        return
    sys.path.insert(0, str(_HERE))
    from anomaly.report import tables
    from anomaly.speed import speed_table
    from anomaly.task import lay_out

    output = Path(arguments.output).resolve()
    jobs = _jobs(arguments)
    for number, job in enumerate(jobs, 1):
        if not arguments.table_only:
            _run(job, f"[{number}/{len(jobs)}]", arguments.timeout)
    text = tables(jobs, _mode(arguments))
    if arguments.speed or arguments.fit_10m:
        simulated = lay_out("simulator", Path(arguments.data), output / "data", arguments.first_half, arguments.quick)
        text += "\n" + speed_table(simulated, output, _digest("ours") + _mode(arguments), arguments.fit_10m)
    target = output / f"{_mode(arguments)}.md"
    target.write_text(text, encoding="utf-8")
    if arguments.doc:
        _into(Path(arguments.doc), text)
    print(text)
    print(f"Saved as {target}", file=sys.stderr)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("SMARTGRID_DATA", ""), help="folder of the public data sets")
    parser.add_argument("--output", default=str(Path(tempfile.gettempdir()) / "smartgrid-anomaly"), help="of results")
    parser.add_argument(
        "--peers-python", help="interpreter with requirements-anomaly-peers.txt; else these are skipped"
    )
    parser.add_argument("--sets", nargs="+", help="sets to run; all by default")
    parser.add_argument("--only", nargs="+", metavar="TEXT", help="methods whose name has one of these texts")
    parser.add_argument("--first-half", action="store_true", help="split the first half alone: choices are made there")
    parser.add_argument("--quick", action="store_true", help="few sensors of five sets: minutes")
    parser.add_argument("--speed", action="store_true", help="also the table of speed")
    parser.add_argument("--fit-10m", action="store_true", help="also fit on 10 million readings: minutes")
    parser.add_argument(
        "--variant",
        action="append",
        default=[],
        metavar="NAME:ADAPTER:KEY=VALUE,…",
        help="one more row: of ours (ADAPTER ours) or of a peer with other options; may be repeated",
    )
    parser.add_argument("--doc", help="document below whose marker the tables are put, as docs/anomaly-benchmark.md")
    parser.add_argument("--timeout", type=float, default=7200, help="of one (set, method) [s]")
    parser.add_argument("--table-only", action="store_true", help="run nothing, print the tables of what is there")
    parser.add_argument("--any-code", action="store_true", help="keep results whose sources have changed since")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.worker and not Path(arguments.data or "absent").is_dir():
        parser.error("--data (or SMARTGRID_DATA) must name the folder of the data sets, see docs/anomaly-benchmark.md")
    return arguments


def _into(document: Path, text: str) -> None:
    """Put the tables below the document's marker, in place of those there."""
    above, marker, _ = document.read_text(encoding="utf-8").partition("<!-- tables -->\n")
    if not marker:
        raise SystemExit(f"{document} has no line <!-- tables -->")
    document.write_text(f"{above}{marker}\n{text.rstrip()}\n", encoding="utf-8")


def _mode(arguments: argparse.Namespace) -> str:
    return ("first-half" if arguments.first_half else "final") + ("-quick" if arguments.quick else "")


def _jobs(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    from anomaly.task import QUICK_SETS, SETS, lay_out

    pythons = {"ours": sys.executable} | ({"peers": arguments.peers_python} if arguments.peers_python else {})
    if not arguments.peers_python:
        print(
            "PyOD and isotree skipped: uv venv --python 3.11 /tmp/peers && uv pip install --python "
            "/tmp/peers/bin/python -r benchmarks/requirements-anomaly-peers.txt, then --peers-python "
            "/tmp/peers/bin/python",
            file=sys.stderr,
        )
    methods = [*_methods(), *(_variant(text) for text in arguments.variant)]
    methods = [m for m in methods if m.environment in pythons]
    methods = [m for m in methods if not arguments.only or any(part in m.name for part in arguments.only)]
    output, jobs = Path(arguments.output).resolve(), []
    for name in arguments.sets or (QUICK_SETS if arguments.quick else SETS):
        data = lay_out(name, Path(arguments.data), output / "data", arguments.first_half, arguments.quick)
        jobs += [_job(arguments, output, name, data, m, pythons[m.environment]) for m in methods if _fits(m, name)]
    return jobs


def _fits(method: Method, name: str) -> bool:
    """Where SKAB's runs are fitted together, only what is fitted on many sensors at once differs."""
    return name != "skab_pooled" or method.adapter in ("ours", "sklearn_forest")


def _job(
    arguments: argparse.Namespace, output: Path, name: str, data: Path, method: Method, python: str
) -> dict[str, Any]:
    """Return everything that a worker needs; `settings` is what a kept result must have been made with."""
    from anomaly.task import fingerprint

    folder = output / _mode(arguments) / name
    return {
        "set": name,
        "method": method.name,
        "adapter": method.adapter,
        "python": python,
        "data": str(data),
        "target": str(folder / "".join(c if c.isalnum() else "-" for c in method.name)),
        "settings": {"options": method.options, "data": fingerprint(data), "code": _digest(method.adapter)},
        "any_code": arguments.any_code,
    }


def _variant(text: str) -> Method:
    name, adapter, rest = [*text.split(":", 2), "", ""][:3]
    options = {key: _value(value) for key, value in (part.split("=", 1) for part in rest.split(",") if part)}
    environment = "peers" if adapter in ("pyod_peer", "isotree_peer") else "ours"
    return Method(name, adapter or "ours", environment, options)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _digest(adapter: str) -> str:
    """Fingerprint of the sources that make a result: the adapter, for ours also the model."""
    files = [_HERE / "anomaly" / f"{adapter}.py"]
    if adapter in ("sklearn_forest", "pyod_peer", "isotree_peer"):
        files.append(_HERE / "anomaly" / "six_features.py")
    package = _REPOSITORY / "smartgrid_pyfunc"
    if adapter == "baselines":
        files.append(package / "evaluation" / "detection.py")
    if adapter == "ours":
        for name in _OUR_SOURCES:
            files += sorted((package / name).glob("*.py")) if (package / name).is_dir() else [package / name]
    # The load model's files do not make an anomaly score.
    files = [
        file for file in files if not file.stem.startswith(("load", "intervals", "linear_base", "panel", "weather"))
    ]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


def _run(job: dict[str, Any], place: str, timeout: float) -> None:
    from peers.results import read_figures

    label = f"{place} {job['set']}, {job['method']}"
    if read_figures(job):
        print(f"{label}: kept", file=sys.stderr)
        return
    environment = os.environ | dict.fromkeys(_ONE_THREAD, "1")
    command = [job["python"], "-W", "ignore", __file__, "--worker", json.dumps(job)]
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
    """Fit and score one set in this process; write scores, then figures."""
    sys.path.insert(0, str(_HERE))
    import pandas as pd
    from anomaly.task import READINGS, SETS

    frame = pd.read_parquet(job["data"])
    timezone = SETS[job["set"]].timezone
    adapter = importlib.import_module(f"anomaly.{job['adapter']}")
    figures = {"fit_cpu_s": 0.0, "score_cpu_s": 0.0, "train_rows": 0, "test_rows": 0}
    found = []
    for _, run in frame.groupby("run", sort=False):
        method = adapter.create(dict(job["settings"]["options"]))
        found.append(_measure(method, run[READINGS], (run["part"] == "train").to_numpy(), timezone, figures))
    scores = pd.concat(found).sort_values("row")
    target = Path(job["target"])
    target.parent.mkdir(parents=True, exist_ok=True)
    scores.to_parquet(f"{target}.parquet", index=False)
    about = {"peak_mb": _peak_memory(), "versions": _versions(method.packages), "date": dt.date.today().isoformat()}
    kept = figures | about | {name: job[name] for name in ("set", "method", "settings")}
    target.with_name(target.name + ".json").write_text(json.dumps(kept, indent=1), encoding="utf-8")
    print(f"fit {figures['fit_cpu_s']:.1f} CPU-s, scored {figures['test_rows']} in {figures['score_cpu_s']:.1f} CPU-s")


def _measure(method: Any, readings: Any, train: Any, timezone: str, figures: dict[str, Any]) -> Any:
    """Fit on `readings[train]`, score the others; add to `figures`, return scores and flags by row."""
    import pandas as pd

    rows = readings.index.to_numpy()[~train]
    plain = readings.reset_index(drop=True)
    start = time.process_time()
    method.fit(plain[train].reset_index(drop=True), timezone)
    fitted = time.process_time()
    score = method.score(plain, ~train)
    done = time.process_time()
    figures["fit_cpu_s"] += fitted - start
    figures["score_cpu_s"] += done - fitted
    figures["train_rows"] += int(train.sum())
    figures["test_rows"] += len(rows)
    columns = {"row": rows, "score": score} | {f"flag_{rate:g}": method.flags(rate) for rate in _RATES}
    if hasattr(method, "p_values"):
        columns["p_value"] = method.p_values()
    return pd.DataFrame(columns)


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
