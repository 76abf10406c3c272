"""Look at everything the commands need, and say what is wrong and what mends it."""

from __future__ import annotations

import os
import sys

import _command as cli
import click

_MARKS = {"ok": "ok", "unused": "--", "warning": "!!", "failed": "XX"}
_COLOURS = {"ok": "green", "unused": None, "warning": "yellow", "failed": "red"}


@cli.command()
@cli.data
@cli.option("--gateway", default="http://127.0.0.1:5000", help="URL of the gateway.")
def main(data: str, gateway: str) -> None:
    """Check the machine, the platform, the data, the promoted models and the gateway.

    One line each: ok, -- (not in use), !! (works, but look at it) or XX (does not work), and below it what mends it.
    Exit code 1 if anything does not work. It writes one artifact into the experiment smartgrid-doctor and deletes it.
    """
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"  # the run of the round trip is gone again
    from smartgrid_pyfunc.doctor import machine, platform, product
    from smartgrid_pyfunc.doctor.examination import State, examine

    ports = [("port", 5000), ("champion_port", 5101), ("challenger_port", 5102), ("anomaly_port", 5103)]
    checks = [*machine.checks(ports), *platform.checks(data), *product.checks(data, gateway)]
    width = max(len(check.name) for check in checks)
    failed = 0
    for found in examine(checks):
        mark = click.style(_MARKS[found.state], fg=_COLOURS[found.state])
        click.echo(f"{mark}  {found.check:<{width}}  {found.said}")
        if found.remedy:
            click.echo(f"    {'':<{width}}  -> {found.remedy}")
        failed += found.state is State.FAILED
    click.echo(f"\n{failed} of {len(checks)} checks failed." if failed else "\nNothing stands in the way.")
    sys.exit(cli.FAILED if failed else 0)


if __name__ == "__main__":
    main()
