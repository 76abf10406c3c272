"""Tell what was in Production and Staging at a time, and every decision that led there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from _command import command, option

from smartgrid_pyfunc.schema import ANOMALY_MODEL, LOAD_MODEL

if TYPE_CHECKING:
    from smartgrid_pyfunc.lifecycle.decisions import Decision


@command()
@option("--model", required=True, help=f"Registered name: {LOAD_MODEL} or {ANOMALY_MODEL}.")
@option("--at", default="", show_default=False, help="ISO 8601; a date means the end of that day (UTC); empty: now.")
def main(model: str, at: str) -> None:
    """Tell which version held each stage at a time: who put it there, when, why, and on what evidence."""
    from smartgrid_pyfunc.lifecycle import registry

    held, taken = registry.audit(model, at)
    click.echo(f"{model} at {at or 'present'}\n")
    for stage in ("Production", "Staging"):
        click.echo(f"{stage:<10}  {_holder(held.get(stage))}")
    click.echo("\nDecisions until then:" if taken else "\nNo decision was recorded until then.")
    for decision in taken:
        click.echo(_line(decision))
    if not at:
        for wrong in registry.inconsistencies(model):
            click.echo(f"\nNot as recorded: {wrong}")


def _holder(decision: Decision | None) -> str:
    if decision is None:
        return "no version"
    return f"version {decision.version}, by {decision.by} on {decision.decided_at:%Y-%m-%d %H:%M} UTC"


def _line(d: Decision) -> str:
    moved = f"version {d.version or 'none'}: {d.from_stage or '?'} -> {d.to_stage}"
    lines = [f"{d.decided_at:%Y-%m-%d %H:%M}  {d.verdict:<11}  {moved}  by {d.by}"]
    lines += [f"    why       {d.reason}"] if d.reason else []
    lines += [f"    instead of version {d.former}"] if d.former else []
    lines += [f"    evidence  run {d.evidence}"] if d.evidence else []
    return "\n".join([*lines, f"    recorded  {d.recorded_at:%Y-%m-%d %H:%M} UTC, run {d.run_id}"])


if __name__ == "__main__":
    main()
