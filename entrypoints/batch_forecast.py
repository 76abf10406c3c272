"""Forecast every sensor with a registered version and write what is not there yet."""

from __future__ import annotations

import _command as cli
import click
from _predictions import now, tell, to

from smartgrid_pyfunc.schema import LOAD_MODEL, MAX_HORIZON


@cli.command()
@cli.data
@cli.option("--model", default=f"models:/{LOAD_MODEL}/Production", help="Model URI of the version that forecasts.")
@to
@cli.option("--hours-ahead", type=click.IntRange(1, MAX_HORIZON), default=24, help="Hours that are forecast [h].")
@cli.option(
    "--level",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.9,
    help="Probability of the interval.",
)
@cli.option("--since", default="", show_default=False, help="First time to forecast at (ISO 8601); empty: the newest.")
@cli.option("--until", default="", show_default=False, help="Times before this one; empty: as far as the data reach.")
@cli.option(
    "--every-hours", type=click.IntRange(1, 168), default=24, help="Between two forecasts [h], from 00:00 UTC on."
)
@now
@cli.option("--sensor-type", default="power,energy", help="Types of readings that count as load.")
def main(to: str, **settings: object) -> None:
    """Forecast every sensor of the data and write the forecasts into a table of predictions.

    Without since and until: once, from the newest complete hour. With them: at 00:00 UTC of each day (or every so many
    hours), each with what was known then. Nothing is written twice: a batch that was cut off is simply run again.
    """
    from smartgrid_pyfunc.predictions.forecasting import batch_forecast

    tell(batch_forecast(to=to, **settings), to, "origin(s)")


if __name__ == "__main__":
    main()
