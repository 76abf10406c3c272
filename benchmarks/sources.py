"""Hourly load of many readings, from a PostgreSQL table and from Parquet files partitioned by day: time and memory.

    python benchmarks/sources.py --rows 50000000 --folder /somewhere/with/20/GB

Each line is a process of its own: ours (`load_hourly`, which checks every cell first), what one would write with pandas
for the same hours, and the floor: reading the values once. A folder that holds the data already is used again.
The sensors report every five minutes; one reading in 1,000 is repeated, one contradicted.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_REPOSITORY = Path(__file__).resolve().parents[1]
_SENSORS = 500
_STEP = 5  # minutes
_COLUMNS = "sensor_id, sensor_type, timestamp, value"


def main() -> None:
    """Make the data where it is absent, run every line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000_000, help="readings to generate")
    parser.add_argument("--folder", type=Path, required=True, help="where data and database are kept")
    parser.add_argument("--port", type=int, default=5439, help="port of the database server")
    parser.add_argument("--only", default="", help="comma-separated parts of the names of the lines to run")
    parser.add_argument("--measure", nargs=2, metavar=("METHOD", "PLACE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(_measure(*arguments.measure)))
        return
    files = arguments.folder / f"readings-{arguments.rows}"
    if not files.exists():
        _generate(files, arguments.rows)
    with _database(arguments.folder / f"database-{arguments.rows}", arguments.port) as (address, server):
        rows = _fill(address, files)
        results = [
            _in_own_process(name, str(files) if name.endswith("Parquet") else address, server)
            for name in _METHODS
            if any(part in name for part in arguments.only.split(","))
        ]
    _print_table(rows, results)


# ------------------------------------------------------------------------------------------------------------ data


def _generate(files: Path, rows: int) -> None:
    """Write a file a day into folders ``day=…``, whole or not at all."""
    import duckdb

    a_day = _SENSORS * 24 * 60 // _STEP
    half = files.with_suffix(".half")
    shutil.rmtree(half, ignore_errors=True)
    with duckdb.connect(config={"threads": 2, "memory_limit": "1GB"}) as con:
        for day in range(max(rows // a_day, 1)):
            folder = half / f"day={dt.date(2025, 1, 1) + dt.timedelta(days=day)}"
            folder.mkdir(parents=True)
            con.execute(
                _DAY.format(a_day=a_day, day=day, sensors=_SENSORS, step=_STEP, file=folder / "readings.parquet")
            )
    half.replace(files)


_DAY = """COPY (
    SELECT 'meter-' || lpad((i % {sensors})::VARCHAR, 4, '0') AS sensor_id, 'power' AS sensor_type,
        TIMESTAMPTZ '2025-01-01 00:00:00+00' + INTERVAL {day} DAY + INTERVAL ((i // {sensors}) * {step}) MINUTE
            AS timestamp,
        round(5 + 3 * sin(i / 229.0) + (hash(i, {day}) % 1000) / 1000 + coalesce(shift, 0), 3) AS value
    FROM range({a_day}) AS r(i), (VALUES (0.0), (NULL), (0.5)) AS e(shift)
    WHERE shift = 0.0 OR hash(i, {day}) % 1000 = CASE WHEN shift IS NULL THEN 1 ELSE 2 END
    ORDER BY timestamp, hash(i)
) TO '{file}' (FORMAT parquet)"""


@contextmanager
def _database(folder: Path, port: int) -> Iterator[tuple[str, int]]:
    """Run the server of ``deploy/local`` and yield the address of its database and the process of the script."""
    script = _REPOSITORY / "deploy" / "local" / "postgres.sh"
    with subprocess.Popen([str(script), str(folder), str(port)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            said = next((line for line in process.stdout if line.startswith("ready ")), "")
            if not said:
                sys.exit("the database did not start")
            os.environ["PGPASSWORD"] = (folder / "password").read_text()
            yield said.removeprefix("ready ").strip(), process.pid
        finally:
            process.terminate()


def _fill(address: str, files: Path) -> int:
    """Copy the files into an empty table with its indices; return its rows."""
    import psycopg

    sys.path.insert(0, str(_REPOSITORY))
    from smartgrid_pyfunc.sources.database import parse_address
    from smartgrid_pyfunc.sources.table_writer import _copy

    schema = _REPOSITORY / "deploy" / "postgres" / "sensor_data.sql"
    with psycopg.connect(address) as con:
        con.execute(schema.read_bytes())
        if not con.execute("SELECT 1 FROM sensor_data LIMIT 1").fetchone():
            began, table = time.perf_counter(), parse_address(address)
            for file in sorted(files.rglob("*.parquet")):
                _copy(con, table, file)
            print(f"filled in {time.perf_counter() - began:.0f} s", file=sys.stderr)
        con.commit()
        con.autocommit = True
        con.execute("VACUUM ANALYZE sensor_data")
        found = con.execute("SELECT count(*) FROM sensor_data").fetchone()
    return int(found[0]) if found else 0


# --------------------------------------------------------------------------------------------------------- methods


def _ours(place: str) -> tuple[int, float]:
    from smartgrid_pyfunc.sources import load_hourly

    frame = load_hourly(place).frame
    return len(frame), float(frame["avg_value"].sum())


def _ours_one_day(address: str) -> tuple[int, float]:
    return _ours(f"{address}?since=2025-01-03T00:00:00Z&until=2025-01-04T00:00:00Z")


def _pandas_of_parquet(files: str) -> tuple[int, float]:
    import pandas as pd

    frame = pd.read_parquet(files, columns=["sensor_id", "timestamp", "value"])
    frame = frame.drop_duplicates().groupby(["sensor_id", "timestamp"], as_index=False, observed=True)["value"].mean()
    keys = ["sensor_id", frame["timestamp"].dt.floor("h")]
    hours = frame.groupby(keys, observed=True)["value"].agg(["mean", "min", "max", "count"])
    return len(hours), float(hours["mean"].sum())


def _read_sql(address: str) -> tuple[int, float]:
    import pandas as pd
    import sqlalchemy

    engine = sqlalchemy.create_engine(address.replace("postgresql://", "postgresql+psycopg://"))
    query = """SELECT sensor_id, date_trunc('hour', timestamp) AS hour, avg(value), min(value), max(value), count(*)
        FROM (SELECT sensor_id, timestamp, avg(DISTINCT value) AS value FROM sensor_data GROUP BY 1, 2) AS r
        GROUP BY 1, 2 ORDER BY 1, 2"""
    with engine.connect() as con:
        frame = pd.read_sql(sqlalchemy.text(query), con)
    return len(frame), float(frame["avg"].sum())


def _scan_table(address: str) -> tuple[int, float]:
    import psycopg

    with psycopg.connect(address) as con:
        found = con.execute("SELECT count(*), sum(value) FROM sensor_data").fetchone() or (0, 0.0)
    return int(found[0]), float(found[1])


def _scan_files(files: str) -> tuple[int, float]:
    import duckdb

    with duckdb.connect(config={"threads": 2}) as con:
        query = f"SELECT count(*), sum(value) FROM read_parquet('{files}/**/*.parquet')"
        found = con.execute(query).fetchone() or (0, 0.0)
    return int(found[0]), float(found[1])


_METHODS: dict[str, Callable[[str], tuple[int, float]]] = {
    "load_hourly, Parquet": _ours,
    "pandas groupby, Parquet": _pandas_of_parquet,
    "floor: sum of the values, Parquet": _scan_files,
    "load_hourly, table": _ours,
    "load_hourly, one day of the table": _ours_one_day,
    "SQL and pandas.read_sql, table": _read_sql,
    "floor: sum of the values, table": _scan_table,
}


def _in_own_process(method: str, place: str, server: int) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", __file__, "--folder", ".", "--measure", method, place]
    with _watched(server) as seen:
        answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    print(result, seen, file=sys.stderr)
    return result | seen


@contextmanager
def _watched(server: int) -> Iterator[dict[str, float]]:
    """Measure what the database server uses meanwhile: CPU [s] and largest memory, shared pages once [MB]."""
    import psutil

    seen, done = {"server_cpu": 0.0, "server_megabytes": 0.0}, threading.Event()
    cpu: dict[int, float] = {}

    def look() -> None:
        while not done.wait(0.2):
            used = 0
            for process in psutil.Process(server).children(recursive=True):
                try:
                    times = process.cpu_times()
                    cpu[process.pid] = times.user + times.system
                    used += process.memory_full_info().pss
                except psutil.Error:
                    continue
            seen["server_megabytes"] = max(seen["server_megabytes"], used / 2**20)

    began = sum(
        times.user + times.system
        for times in (process.cpu_times() for process in psutil.Process(server).children(recursive=True))
    )
    watch = threading.Thread(target=look)
    watch.start()
    try:
        yield seen
    finally:
        done.set()
        watch.join()
        seen["server_cpu"] = sum(cpu.values()) - began


def _measure(method: str, place: str) -> dict[str, Any]:
    sys.path.insert(0, str(_REPOSITORY))
    start = time.perf_counter()
    rows, checksum = _METHODS[method](place)
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "method": method,
        "rows": rows,
        "checksum": checksum,
        "wall": time.perf_counter() - start,
        "cpu": used.ru_utime + used.ru_stime,
        "megabytes": used.ru_maxrss / 1024,
    }


def _print_table(rows: int, results: list[dict[str, Any]]) -> None:
    import duckdb
    import pandas as pd
    import psycopg

    print(
        f"{rows:,} readings of {_SENSORS} sensors every {_STEP} minutes; Python {platform.python_version()},", end=" "
    )
    print(f"DuckDB {duckdb.__version__}, psycopg {psycopg.__version__}, pandas {pd.__version__}\n")
    print(
        "| method | rows given | sum of averages | time [s] | CPU [s] | peak memory [MB] "
        "| CPU of the server [s] | its memory [MB] |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for result in results:
        of_server = result["method"].endswith("table")
        print(
            f"| {result['method']} | {result['rows']:,} | {result['checksum']:.6f} | {result['wall']:.1f} "
            f"| {result['cpu']:.1f} | {result['megabytes']:.0f} "
            + (f"| {result['server_cpu']:.0f} | {result['server_megabytes']:.0f} |" if of_server else "| | |")
        )


if __name__ == "__main__":
    main()
