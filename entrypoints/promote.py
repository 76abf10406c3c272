"""Promote a registered version to a stage, if it is better than its baseline."""

from __future__ import annotations

import click
from _command import command, option
from _promotion import promote_and_tell

from smartgrid_pyfunc.schema import ANOMALY_MODEL, LOAD_MODEL

_SHARE = click.FloatRange(0, 1, min_open=True, max_open=True)
_POSITIVE = click.FloatRange(0, min_open=True)


@command()
@option("--model", required=True, help=f"Registered name: {LOAD_MODEL} or {ANOMALY_MODEL}.")
@option("--version", default=None, help="Version to promote; empty: the latest.")
@option("--stage", default="Production", help="Production, Staging, Archived or None.")
@option("--force", type=click.BOOL, default=False, help="true: promote even if the gate refuses.")
@option("--reason", default="", show_default=False, help="Why, for the audit trail.")
@option("--now", default="", show_default=False, help="Time of the decision (ISO 8601); empty: the clock's.")
@option("--data", default="", show_default=False, help="Where it is compared with Production, newer than what "
        "both learnt from; empty: the test days of its training.")  # fmt: skip
@option("--days", type=click.IntRange(min=1), default=28, help="Last days of data.")
@option("--margin", type=_SHARE, default=0.03, help="How much worse than Production it may be.")
@option("--group-margin", type=_SHARE, default=0.1, help="The same for every group of sensors.")
@option("--max-slowdown", type=_POSITIVE, default=2.0, help="Longest request, as a multiple of Production's.")
@option("--max-size-mb", type=_POSITIVE, default=100.0, help="Largest model [MB].")
def main(
    model: str,
    version: str | None,
    stage: str,
    force: bool,
    reason: str,
    now: str,
    data: str,
    days: int,
    **limits: float,
) -> None:
    """Promote a version of a registered model: stage and alias together, the former one archived.

    Refused (exit code 3) without a logged evaluation, if the version is not better than its baseline or, for
    Production, if it is not shown to keep the limits against the version there.
    """
    from smartgrid_pyfunc.comparison import Limits, against_champion

    compare = against_champion(model, data=data, days=days, limits=Limits(**limits))
    promote_and_tell(model, version, stage, force, reason=reason, now=now, compare=compare)


if __name__ == "__main__":
    main()
