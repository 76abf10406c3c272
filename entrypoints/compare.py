"""Compare versions of a registered model, each scored in its own process, and tell luck from a difference."""

from __future__ import annotations

import click
from _command import ZONE, command, option

from smartgrid_pyfunc.schema import ANOMALY_MODEL, LOAD_MODEL, MAX_HORIZON

_SHARE = click.FloatRange(0, 1, min_open=True, max_open=True)


@command()
@option("--model", required=True, help=f"Registered name: {LOAD_MODEL} or {ANOMALY_MODEL}.")
@option("--versions", default="Production,Staging", help="Numbers, stages or aliases; the first is the reference.")
@option("--data", default="", show_default=False, help="Where to compare, newer than what the versions learnt from; "
        "empty: the test days of the last version's training.")  # fmt: skip
@option("--days", type=click.IntRange(min=1), default=28, help="Last days of data.")
@option("--hours-ahead", type=click.IntRange(1, MAX_HORIZON), default=24, help="Horizon from each midnight [h].")
@option(
    "--timezone",
    type=ZONE,
    default=None,
    show_default=False,
    help="Local time; empty: as the last version was trained.",
)
@option("--sensor-type", default="power,energy", help="Types of readings that count as load, separated by commas.")
@option("--groups", default="", show_default=False, help="CSV file with sensor_id and group; empty: by name or size.")
@option("--predictions", default="", show_default=False, help="Table of predictions: compare forecasts that were made.")
@option("--gateway-log", default="", show_default=False, help="Log of the gateway: requests and failures by version.")
@option("--margin", type=_SHARE, default=0.03, help="How much higher an error may be to count as not worse.")
@option("--effect", type=_SHARE, default=0.02, help="Difference for which the days needed are told.")
@option("--alpha", type=_SHARE, default=0.05, help="Error allowed for each verdict.")
def main(
    model: str,
    versions: str,
    data: str,
    days: int,
    hours_ahead: int,
    timezone: str | None,
    sensor_type: str,
    groups: str,
    predictions: str,
    gateway_log: str,
    margin: float,
    effect: float,
    alpha: float,
) -> None:
    """Compare versions on the same window: figures with intervals, by group, hour and horizon, and a verdict in words.

    Verdicts on the last version: better, not_worse, worse, undecided; also as the tag smartgrid.verdict of the run.
    """
    from smartgrid_pyfunc.comparison.compare import Rules, compare
    from smartgrid_pyfunc.comparison.report import shown
    from smartgrid_pyfunc.lifecycle import runs

    found = compare(
        model,
        versions.split(","),
        data=data,
        days=days,
        hours_ahead=hours_ahead,
        timezone=timezone or "",
        sensor_type=sensor_type,
        groups=groups,
        predictions=predictions,
        gateway_log=gateway_log,
        rules=Rules(margin, effect, alpha),
    )
    runs.tag_launcher({"smartgrid.verdict": found.verdict})
    click.echo(f"{shown(found.comparison)}\n\n{found.words.replace('**', '')}\n\nRun {found.run_id}")


if __name__ == "__main__":
    main()
