"""Readings to hourly load: `load_hourly` beside a pandas groupby, on the same simulated file, each in its own process.

    python benchmarks/aggregation.py --rows 10000000

Both apply the same rules: repeated readings count once, contradicting ones by the mean of their distinct values.
The file holds 50 sensors at one-minute steps, shuffled; one row in 1,000 is repeated, one contradicted.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

_REPOSITORY = Path(__file__).resolve().parents[1]
_SENSORS = 50


def main() -> None:
    """Generate the file, run both and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000, help="readings to generate")
    parser.add_argument("--step", nargs=2, metavar=("STEP", "FILE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        step, path = arguments.step
        print(json.dumps(_generate(path, arguments.rows) if step == "generate" else _measure(step, path)))
        return
    with tempfile.TemporaryDirectory(prefix="aggregation-") as folder:
        file = Path(folder) / "readings.parquet"
        # Generated in a process of its own too: Linux counts the memory of the parent at the fork as a child's peak.
        rows = _in_own_process("generate", file, arguments.rows)
        _print_table(rows, [_in_own_process(method, file, arguments.rows) for method in _METHODS])


def _generate(file: str, rows: int) -> int:
    import duckdb

    per_sensor = max(rows // _SENSORS // 60, 1) * 60  # whole hours
    with duckdb.connect(config={"threads": 2, "memory_limit": "1GB", "temp_directory": str(Path(file).parent)}) as con:
        con.execute(
            f"""COPY (
                SELECT 'meter-' || lpad((i // {per_sensor})::VARCHAR, 4, '0') AS sensor_id, 'power' AS sensor_type,
                    TIMESTAMPTZ '2025-01-01 00:00:00+00' + INTERVAL (i % {per_sensor}) MINUTE AS timestamp,
                    round(5 + 3 * sin(i / 229.0) + (hash(i) % 1000) / 1000 + extra, 3) AS value
                FROM range({per_sensor * _SENSORS}) AS r(i), (VALUES (0.0), (NULL), (0.5)) AS e(shift),
                    (SELECT 0) AS z, LATERAL (SELECT coalesce(shift, 0.0) AS extra)
                WHERE shift = 0.0 OR hash(i) % 1000 = CASE WHEN shift IS NULL THEN 1 ELSE 2 END
                ORDER BY hash(i)
            ) TO '{file}' (FORMAT parquet)"""
        )
        counted = con.execute("SELECT count(*) FROM read_parquet(?)", [file]).fetchone()
    return int(counted[0]) if counted else 0


def _in_own_process(step: str, file: Path, rows: int) -> Any:
    command = [sys.executable, "-W", "ignore", __file__, "--rows", str(rows), "--step", step, str(file)]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(answer.stdout.splitlines()[-1])


def _measure(method: str, file: str) -> dict[str, Any]:
    sys.path.insert(0, str(_REPOSITORY))
    start = time.perf_counter()
    hours, checksum = _METHODS[method](file)
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "method": method,
        "hours": hours,
        "checksum": checksum,
        "wall": time.perf_counter() - start,
        "cpu": used.ru_utime + used.ru_stime,
        "megabytes": used.ru_maxrss / 1024,
    }


def _sources(file: str) -> tuple[int, float]:
    from smartgrid_pyfunc.sources import load_hourly

    frame = load_hourly(file).frame
    return len(frame), float(frame["avg_value"].sum())


def _pandas(file: str) -> tuple[int, float]:
    import pandas as pd

    frame = pd.read_parquet(file, columns=["sensor_id", "timestamp", "value"])
    frame = frame.drop_duplicates()
    frame = frame.groupby(["sensor_id", "timestamp"], as_index=False)["value"].mean()
    keys = ["sensor_id", frame["timestamp"].dt.floor("h")]
    hours = frame.groupby(keys)["value"].agg(["mean", "min", "max", "count"])
    return len(hours), float(hours["mean"].sum())


_METHODS = {"load_hourly": _sources, "pandas groupby": _pandas}


def _print_table(rows: int, results: list[dict[str, Any]]) -> None:
    import duckdb
    import pandas as pd

    print(f"{rows:,} readings, {_SENSORS} sensors, shuffled Parquet; Python {platform.python_version()},", end=" ")
    print(f"DuckDB {duckdb.__version__}, pandas {pd.__version__}\n")
    print("| method | hours | sum of averages | time [s] | CPU [s] | peak memory [MB] |")
    print("|---|---:|---:|---:|---:|---:|")
    for result in results:
        print(
            f"| {result['method']} | {result['hours']:,} | {result['checksum']:.6f} | {result['wall']:.1f} "
            f"| {result['cpu']:.1f} | {result['megabytes']:.0f} |"
        )


if __name__ == "__main__":
    main()
