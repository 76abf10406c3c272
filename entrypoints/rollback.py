"""Put the version back that was in Production before."""

from __future__ import annotations

import click
from _command import command, option
from _promotion import describe

from smartgrid_pyfunc.schema import ANOMALY_MODEL, LOAD_MODEL


@command()
@option("--model", required=True, help=f"Registered name: {LOAD_MODEL} or {ANOMALY_MODEL}.")
@option("--reason", default="", show_default=False, help="Why, for the audit trail.")
@option("--now", default="", show_default=False, help="Time of the decision (ISO 8601); empty: the clock's.")
def main(model: str, reason: str, now: str) -> None:
    """Put the version back that was in Production before the present one; twice goes two versions back."""
    from smartgrid_pyfunc.lifecycle import registry, runs

    done = registry.rollback(model, reason=reason, now=now)
    runs.tag_launcher({"smartgrid.verdict": "rolled_back", "smartgrid.decision_run_id": done.decision})
    click.echo(describe(done))


if __name__ == "__main__":
    main()
