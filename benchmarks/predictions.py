"""Batch forecasts into both stores, and the stores alone beside what is least: rows/s, CPU time, memory.

    python benchmarks/predictions.py --sensors 500 --origins 30

Each line is a process of its own. The batches are the entry point as a user runs it, with the version in a second
process; the lines of stores write the same forecasts, origin by origin, from one process. The floors write them without
a key: `DataFrame.to_parquet`, a file per origin, and COPY into a table without an index.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_REPOSITORY = Path(__file__).resolve().parents[1]
_HISTORY_DAYS, _HOURS_AHEAD = 35, 24
_START = "2026-01-01T00:00Z"
_STORES = ("write_forecasts, folder", "write_forecasts, table")
_FLOORS = ("floor: DataFrame.to_parquet", "floor: COPY without a key")


def main() -> None:
    """Make data and version, run every line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sensors", type=int, default=500)
    parser.add_argument("--origins", type=int, default=30)
    parser.add_argument("--trees", type=int, default=100, help="of the load model")
    parser.add_argument("--port", type=int, default=5440, help="port of the database server")
    parser.add_argument("--measure", nargs=3, metavar=("METHOD", "FORECASTS", "PLACE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sys.path.insert(0, str(_REPOSITORY))
    if arguments.measure:
        print(json.dumps(_measure(*arguments.measure)))
        return
    with tempfile.TemporaryDirectory(prefix="smartgrid-benchmark-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # the database server runs as a user of its own
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder / 'mlflow.db'}"
        os.environ["_MLFLOW_SERVER_ARTIFACT_ROOT"] = (folder / "artifacts").as_uri()
        data = _make(folder, arguments.sensors, arguments.origins, arguments.trees)
        with _database(folder / "database", arguments.port) as address:
            _print_table(list(_lines(data, folder, address)), arguments)


# ------------------------------------------------------------------------------------------------------------ data


def _make(folder: Path, sensors: int, origins: int, trees: int) -> Path:
    """Write hourly load of `sensors` and register a version fitted to it; return the file."""
    import mlflow
    import numpy as np
    import pandas as pd

    from smartgrid_pyfunc.lifecycle.packaging import log_model
    from smartgrid_pyfunc.lifecycle.registry import promote, register
    from smartgrid_pyfunc.models.load_forecasting import LoadForecastingModel
    from smartgrid_pyfunc.schema import LOAD_MODEL

    rng, hours = np.random.default_rng(0), np.arange((_HISTORY_DAYS + origins) * 24)
    course = 2 + np.sin(hours / 24 * 2 * np.pi) + 0.3 * np.sin(hours / 168 * 2 * np.pi)
    load = rng.lognormal(1, 1, (sensors, 1)) * (course + rng.normal(0, 0.15, (sensors, len(hours))))
    frame = pd.DataFrame(
        {
            "sensor_id": np.repeat([f"meter-{number:05d}" for number in range(sensors)], len(hours)),
            "timestamp": np.tile(pd.Timestamp(_START) + pd.to_timedelta(hours, unit="h"), sensors),
            "avg_value": load.ravel(),
        }
    )
    frame["min_value"], frame["max_value"], frame["count"] = frame["avg_value"] * 0.9, frame["avg_value"] * 1.1, 4
    frame.to_parquet(folder / "load.parquet")
    model = LoadForecastingModel(n_estimators=trees).fit(frame[frame["sensor_id"] < "meter-00100"])
    with mlflow.start_run() as run:
        mlflow.log_metrics({"test_mae": 1.0, "naive_mae": 2.0})
        log_model(model, LOAD_MODEL, pd.DataFrame({"sensor_id": ["meter-00001"]}))
    promote(LOAD_MODEL, version=register(run.info.run_id, LOAD_MODEL))
    return folder / "load.parquet"


@contextmanager
def _database(folder: Path, port: int) -> Iterator[str]:
    """Run the server of ``deploy/local`` and yield the address of its database."""
    script = _REPOSITORY / "deploy" / "local" / "postgres.sh"
    with subprocess.Popen([str(script), str(folder), str(port)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            said = next((line for line in process.stdout if line.startswith("ready ")), "")
            if not said:
                sys.exit("the database did not start")
            os.environ["PGPASSWORD"] = (folder / "password").read_text()
            yield said.removeprefix("ready ").strip()
        finally:
            process.terminate()


# ----------------------------------------------------------------------------------------------------------- lines


def _lines(data: Path, folder: Path, address: str) -> Iterator[dict[str, Any]]:
    place = folder / "predictions"
    yield _batch("batch_forecast, folder", data, str(place))
    yield _batch("batch_forecast, table", data, address)
    yield _batch("batch_forecast, folder, again", data, str(place))
    forecasts = folder / "forecasts.parquet"
    from smartgrid_pyfunc.predictions import read_forecasts

    read_forecasts(str(place)).to_parquet(forecasts)
    for method in (*_STORES, *_FLOORS):
        of_table = "table" in method or "COPY" in method
        target = f"{address}?table=other" if of_table else str(folder / method.replace(" ", "-"))
        yield _in_own_process(method, forecasts, target)


def _batch(name: str, data: Path, to: str) -> dict[str, Any]:
    script = _REPOSITORY / "entrypoints" / "batch_forecast.py"
    command = [sys.executable, str(script), "--data", str(data), "--to", to, "--hours-ahead", str(_HOURS_AHEAD)]
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    with subprocess.Popen([*command, "--since", _first_origin()], stdout=subprocess.PIPE, text=True) as process:
        with _watched(process.pid) as peak:
            said = process.communicate()[0]
        if process.returncode:
            sys.exit(f"{name} ended with {process.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    result = {"method": name, "wall": time.perf_counter() - began, "cpu": cpu, **_of_run(said)}
    return result | {"megabytes": peak.get("batch", 0.0), "of_version": peak.get("version", 0.0)}


def _first_origin() -> str:
    import pandas as pd

    return f"{pd.Timestamp(_START) + pd.Timedelta(days=_HISTORY_DAYS + 1):%Y-%m-%d}"


def _of_run(said: str) -> dict[str, float]:
    """Return what the batch has logged."""
    import mlflow

    metrics = mlflow.get_run(said.strip().rsplit(" ", 1)[-1].rstrip(".")).data.metrics
    return {"rows": metrics["rows"], "work": metrics["seconds"], "scoring": metrics["scoring_seconds"]}


@contextmanager
def _watched(pid: int) -> Iterator[dict[str, float]]:
    """Measure the largest memory of a process and of its child [MB]."""
    import psutil

    peak: dict[str, float] = {}
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.05):
            try:
                parent = psutil.Process(pid)
                for name, processes in {"batch": [parent], "version": parent.children()}.items():
                    used = sum(process.memory_info().rss for process in processes) / 2**20
                    peak[name] = max(peak.get(name, 0.0), used)
            except psutil.Error:
                continue

    watch = threading.Thread(target=look)
    watch.start()
    try:
        yield peak
    finally:
        done.set()
        watch.join()


def _in_own_process(method: str, forecasts: Path, place: str) -> dict[str, Any]:
    shutil.rmtree(place, ignore_errors=True)
    command = [sys.executable, "-W", "ignore", __file__, "--measure", method, str(forecasts), place]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    return result


def _measure(method: str, forecasts: str, place: str) -> dict[str, Any]:
    import pandas as pd

    frame = pd.read_parquet(forecasts)
    parts = [part.reset_index(drop=True) for _, part in frame.groupby("origin")]
    write = _METHODS[method](place)
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    for number, part in enumerate(parts):
        write(part, number)
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    wall = time.perf_counter() - start
    return {"method": method, "rows": len(frame), "wall": wall, "cpu": cpu}


def _ours(place: str) -> Callable[[Any, int], Any]:
    from smartgrid_pyfunc.predictions import write_forecasts

    return lambda part, number: write_forecasts(place, part)


def _to_parquet(place: str) -> Callable[[Any, int], Any]:
    Path(place).mkdir()
    return lambda part, number: part.to_parquet(Path(place) / f"{number}.parquet")


def _copy(place: str) -> Callable[[Any, int], Any]:
    import psycopg
    import pyarrow as pa
    import pyarrow.csv

    address = place.partition("?")[0]
    with psycopg.connect(address) as con:
        con.execute("CREATE TABLE floor AS SELECT * FROM load_predictions WITH NO DATA")

    def write(part: Any, number: int) -> None:
        text = io.BytesIO()
        table = pa.Table.from_pandas(part, preserve_index=False)
        pa.csv.write_csv(table, text, pa.csv.WriteOptions(include_header=False))
        command = "COPY floor FROM STDIN (FORMAT CSV)"
        with psycopg.connect(address) as con, con.cursor() as cursor, cursor.copy(command) as copy:
            copy.write(text.getbuffer())

    return write


_METHODS: dict[str, Callable[[str], Callable[[Any, int], Any]]] = {
    _STORES[0]: _ours,
    _STORES[1]: _ours,
    _FLOORS[0]: _to_parquet,
    _FLOORS[1]: _copy,
}


def _print_table(results: list[dict[str, Any]], arguments: argparse.Namespace) -> None:
    import pandas as pd
    import psycopg
    import pyarrow as pa

    print(
        f"{arguments.sensors:,} sensors, {arguments.origins} origins, {_HOURS_AHEAD} h ahead, {arguments.trees} trees;"
    )
    print(f"Python {platform.python_version()}, pandas {pd.__version__}, pyarrow {pa.__version__},", end=" ")
    print(f"psycopg {psycopg.__version__}\n")
    heads = ["what", "rows", "time [s]", "of it the model [s]", "CPU [s]", "rows/s", "rows/CPU s"]
    heads += ["peak memory [MB]", "of the version [MB]"]
    print(f"| {' | '.join(heads)} |\n|---|{'---:|' * (len(heads) - 1)}")
    for result in results:
        scoring = f"{result['scoring']:.1f}" if "scoring" in result else ""
        memory = [f"{result[name]:.0f}" if name in result else "" for name in ("megabytes", "of_version")]
        print(
            f"| {result['method']} | {result['rows']:,.0f} | {result['wall']:.1f} | {scoring} | {result['cpu']:.1f} "
            f"| {result['rows'] / result['wall']:,.0f} | {result['rows'] / result['cpu']:,.0f} | {' | '.join(memory)} |"
        )


if __name__ == "__main__":
    main()
