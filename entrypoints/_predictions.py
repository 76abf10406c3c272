"""What the two batches share: their options and what they say at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from _command import option

if TYPE_CHECKING:
    from smartgrid_pyfunc.predictions.batch import Written

to = option("--to", default="predictions", help="Folder or postgresql://user@host/database?table=… of the predictions.")
now = option(
    "--now", default="", show_default=False, help="Time of the batch (ISO 8601, for replays); empty: the clock's."
)


def tell(written: Written, to: str, unit: str) -> None:
    """Say what was scored and where it is."""
    from smartgrid_pyfunc.lifecycle.errors import mask_secrets

    found = written.metrics
    click.echo(
        f"{written.model} version {written.version}: {found['rows']:,.0f} rows of {found['sensors']:,.0f} sensor(s), "
        f"{found['steps']:,.0f} {unit}, {found['new_rows']:,.0f} rows new in {mask_secrets(to)}; "
        f"{found['seconds']:.0f} s, run {written.run_id}."
    )
