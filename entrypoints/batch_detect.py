"""Judge readings with a registered version and write what is not there yet."""

from __future__ import annotations

import _command as cli
from _predictions import now, tell, to

from smartgrid_pyfunc.schema import ANOMALY_MODEL


@cli.command()
@cli.data
@cli.option("--model", default=f"models:/{ANOMALY_MODEL}/Production", help="Model URI of the version that judges.")
@to
@cli.option("--since", default="", show_default=False, help="First reading (ISO 8601); empty: the newest two days.")
@cli.option("--until", default="", show_default=False, help="Readings before this time; empty: to the newest.")
@now
def main(to: str, **settings: str) -> None:
    """Judge the readings of the data and write flags, scores and reasons into a table of predictions.

    Without since and until: the newest reading's day (UTC) and the day before. Nothing is written twice: a batch that
    was cut off is simply run again.
    """
    from smartgrid_pyfunc.predictions.detecting import batch_detect

    tell(batch_detect(to=to, **settings), to, "part(s)")


if __name__ == "__main__":
    main()
