"""Find the runs, models and versions that name a sensor, and delete them."""

from __future__ import annotations

import logging
import sys

import _command as cli
import click

_LOG = logging.getLogger("erase")


@cli.command()
@cli.option("--sensor-id", required=True, help="Sensors to erase, separated by commas.")
@cli.option("--delete", type=click.BOOL, default=False, help="true: delete what was found; else it is only listed.")
def main(sensor_id: str, delete: bool) -> None:
    """Find every run, model and version of the product that names a sensor; with delete=true delete them.

    Nothing is deleted while a version that names it is served (exit code 1): first train without it, and promote.
    MLflow keeps what is deleted until whoever runs the server runs `mlflow gc`.
    """
    from smartgrid_pyfunc.lifecycle import erasure

    holders = erasure.find([name.strip() for name in sensor_id.split(",")], _LOG.info)
    for holder in holders:
        shown = ", ".join([f"{v.name} version {v.version}" for v in holder.versions]) or "no version"
        click.echo(f"{holder.experiment}  run {holder.run_id}  {holder.name}  ({shown})")
        click.echo(f"    {', '.join(holder.places[:6])}" + (" …" if len(holder.places) > 6 else ""))
    if not holders:
        click.echo("No run or model names it. Tables of readings and predictions are not looked at.")
        return
    if not delete:
        click.echo(f"\n{len(holders)} run(s) name it. Nothing was deleted; delete with: -P delete=true")
        return
    for line in erasure.erase(holders):
        click.echo(line)
    kept = sum(holder.kept for holder in holders)
    if kept:
        click.echo(f"{kept} decision(s) name it and were kept for the audit trail.")
    click.echo("\nFree the files, on the machine of the server: mlflow gc --backend-store-uri … (docs/privacy.md).")
    sys.exit(0)


if __name__ == "__main__":
    main()
