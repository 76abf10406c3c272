"""Promote a registered version to a stage, if it is better than its baseline."""

from __future__ import annotations

import click
from _command import command, option
from _promotion import promote_and_tell

from smartgrid_pyfunc.schema import ANOMALY_MODEL, LOAD_MODEL


@command()
@option("--model", required=True, help=f"Registered name: {LOAD_MODEL} or {ANOMALY_MODEL}.")
@option("--version", default=None, help="Version to promote; empty: the latest.")
@option("--stage", default="Production", help="Production, Staging, Archived or None.")
@option("--force", type=click.BOOL, default=False, help="true: promote even if the gate refuses.")
@option("--reason", default="", show_default=False, help="Why, for the audit trail.")
@option("--now", default="", show_default=False, help="Time of the decision (ISO 8601); empty: the clock's.")
def main(model: str, version: str | None, stage: str, force: bool, reason: str, now: str) -> None:
    """Promote a version of a registered model: stage and alias together, the former one archived.

    Refused (exit code 3) without a logged evaluation or if the version is not better than its baseline.
    """
    promote_and_tell(model, version, stage, force, reason=reason, now=now)


if __name__ == "__main__":
    main()
