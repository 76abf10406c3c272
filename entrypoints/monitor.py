"""Watch a version in use: what its forecasts were worth, drift, quality of the data; alerts end with exit code 4."""

from __future__ import annotations

import _command as cli
import click

from smartgrid_pyfunc.schema import ANOMALY_MODEL, LOAD_MODEL


@cli.command()
@cli.option(
    "--predictions", default="predictions", help="Folder or postgresql://user@host/database?table=… of the predictions."
)
@cli.data
@cli.option(
    "--model", default=LOAD_MODEL, help=f"{LOAD_MODEL} or {ANOMALY_MODEL} (its version in Production), or a model URI."
)
@cli.option("--days", type=click.IntRange(1, 90), default=7, help="Length of the window that is judged.")
@cli.timezone
@cli.country
@cli.option("--now", default="", show_default=False, help="The present (ISO 8601, for replays); empty: the clock's.")
@cli.option("--webhook", default="", show_default=False, help="URL that gets the alerts as JSON, if there are any.")
@cli.option("--pushgateway", default="", show_default=False, help="URL of a Prometheus Pushgateway.")
@cli.option("--output", default="", show_default=False, help="Folder for report.html, metrics.prom and alerts.json.")
@cli.option("--sensors", default="", show_default=False, help="Sensors to draw, separated by commas; empty: the worst.")
@cli.option("--sensor-type", default="power,energy", help="Types of readings that count as load.")
def main(**given: object) -> int:
    """Join predictions with what then happened, and look for errors, drift and faults of the data.

    One run in the experiment smartgrid-monitoring holds the tables, the plots and the report. Exit code 4: there are
    alerts; each says what, where, since when, how bad, and the command to look closer.
    """
    from smartgrid_pyfunc.monitoring.run import Settings, monitor, summary

    outcome = monitor(Settings(**given))  # type: ignore[arg-type]
    click.echo(summary(outcome))
    return cli.ALERTS if outcome.alerts else 0


if __name__ == "__main__":
    main()
