"""Promote a registered version to a stage, if it is better than its baseline."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from _command import command, option

from smartgrid_pyfunc.lifecycle.errors import PromotionRefused
from smartgrid_pyfunc.schema import ANOMALY_MODEL, LOAD_MODEL

if TYPE_CHECKING:
    from smartgrid_pyfunc.lifecycle.registry import Promotion


@command()
@option("--model", required=True, help=f"Registered name: {LOAD_MODEL} or {ANOMALY_MODEL}.")
@option("--version", default=None, help="Version to promote; empty: the latest.")
@option("--stage", default="Production", help="Production, Staging, Archived or None.")
@option("--force", type=click.BOOL, default=False, help="true: promote even if the gate refuses.")
def main(model: str, version: str | None, stage: str, force: bool) -> None:
    """Promote a version of a registered model: stage and alias together, the former one archived.

    Refused (exit code 3) without a logged evaluation or if the version is not better than its baseline.
    """
    from smartgrid_pyfunc.lifecycle import registry, runs

    try:
        promotion = registry.promote(model, version=version, stage=stage, force=force)
    except PromotionRefused:
        # `mlflow run` turns every exit code but 0 into 1: its run tells a refusal from a failure.
        runs.tag_launcher({"smartgrid.verdict": "refused"})
        raise
    runs.tag_launcher({"smartgrid.verdict": "forced" if promotion.forced else "promoted"})
    click.echo(describe(promotion))


def describe(promotion: Promotion) -> str:
    """Return what changed, as a table, and the next command."""
    rows = [
        ("model", promotion.model),
        ("version", promotion.version),
        ("stage", f"{promotion.from_stage} -> {promotion.stage}"),
        ("alias", promotion.alias or "none"),
        ("archived", f"version {promotion.former}" if promotion.former else "none"),
        *(
            (line.metric, f"{line.value:.4g} ({line.baseline} {line.bound:.4g})")
            for line in promotion.verdict.comparisons
        ),
    ]
    if promotion.forced:
        rows.append(("forced", "; ".join(promotion.verdict.reasons)))
    width = max(len(name) for name, _ in rows)
    table = "\n".join(f"{name:<{width}}  {value}" for name, value in rows)
    return table + _next(promotion)


def _next(promotion: Promotion) -> str:
    if promotion.alias is None:
        return ""
    return f"\n\nServe it:\n    mlflow models serve -m models:/{promotion.model}/{promotion.stage}"


if __name__ == "__main__":
    main()
