"""Write a seeded synthetic grid: readings with labelled faults, hourly load, weather; or its readings to a table."""

from __future__ import annotations

import logging
import math
import tempfile
from pathlib import Path
from typing import Any

import click
from _command import command, option

_LOG = logging.getLogger("simulate")
_SCHEMA = Path(__file__).resolve().parents[1] / "deploy" / "postgres" / "sensor_data.sql"


@command()
@option("--to", required=True, help="New or empty folder, or postgresql://…/database?table=sensor_data.")
@option("--sensors", type=click.IntRange(min=1), default=20, help="Number of sensors, of all types together.")
@option("--days", type=click.IntRange(min=1), default=240, help="Length of the period.")
@option("--seed", type=click.IntRange(min=0), default=42, help="Equal seeds give equal data.")
@option("--step-minutes", type=click.IntRange(1, 60), default=30, help="Time between readings; a divisor of 60.")
@option("--start", default="2025-01-06", help="First whole hour, ISO 8601; UTC unless an offset is given.")
@option("--fault-rate", type=click.FloatRange(0, 0.3), default=0.01, help="Share of readings that faults cover.")
@option("--file-format", type=click.Choice(["parquet", "csv"]), default="parquet", help="Format of all files.")
def main(
    to: str, sensors: int, days: int, seed: int, step_minutes: int, start: str, fault_rate: float, file_format: str
) -> None:
    """Write a synthetic grid to disk: readings of several sensor types with labelled faults, hourly load, weather.

    The same seed gives the same data, and a sensor's data do not depend on the number of sensors.
    """
    settings = {
        "sensors": sensors,
        "days": days,
        "seed": seed,
        "step_minutes": step_minutes,
        "start": start,
        "faults": fault_rate > 0 or math.isnan(fault_rate),  # NaN is refused there
        "fault_rate": fault_rate,
        "on_progress": lambda done, total: _LOG.info("%d of %d sensors simulated", done, total),
    }
    click.echo(_to_table(to, settings) if "://" in to else _to_folder(to, file_format, settings))


def _to_folder(to: str, file_format: str, settings: dict[str, Any]) -> str:
    from smartgrid_pyfunc.simulation import simulate

    result = simulate(to, file_format="csv" if file_format == "csv" else "parquet", **settings)
    return f"{result.rows:,} readings of {result.sensors:,} sensors with {result.faults:,} faults: {result.folder}"


def _to_table(to: str, settings: dict[str, Any]) -> str:
    from smartgrid_pyfunc.simulation import simulate
    from smartgrid_pyfunc.sources.database import parse_address
    from smartgrid_pyfunc.sources.table_writer import fill_table

    place = parse_address(to).place
    with tempfile.TemporaryDirectory(prefix="smartgrid-simulated-") as folder:
        simulate(Path(folder, "grid"), **settings)
        rows = fill_table(to, Path(folder, "grid", "readings"), _SCHEMA, _LOG.info)
    return f"{rows:,} readings of {settings['sensors']:,} sensors: {place}"


if __name__ == "__main__":
    main()
