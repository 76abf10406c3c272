"""One promotion as both `promote` and the former command line do it: promote, leave the verdict, tell what changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from smartgrid_pyfunc.lifecycle.errors import PromotionRefused

if TYPE_CHECKING:
    from smartgrid_pyfunc.lifecycle.promotion import Compare
    from smartgrid_pyfunc.lifecycle.registry import Promotion


def promote_and_tell(
    model: str,
    version: str | None,
    stage: str = "Production",
    force: bool = False,
    *,
    reason: str = "",
    now: str = "",
    compare: Compare | None = None,
) -> None:
    """Promote, tag the launcher's run with the verdict and print what changed.

    Without `compare` a version that is to replace one in Production is compared with it by the default limits.
    """
    from smartgrid_pyfunc.comparison import against_champion
    from smartgrid_pyfunc.lifecycle import registry, runs

    held = compare or against_champion(model)
    try:
        promotion = registry.promote(
            model, version=version, stage=stage, force=force, reason=reason, now=now, compare=held
        )
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
