"""The gate against the champion: not worse, no group badly worse, fast and small enough, the same requests."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from smartgrid_pyfunc.comparison.compare import Result, Rules, compare
from smartgrid_pyfunc.comparison.costs import Costs, incompatibilities
from smartgrid_pyfunc.evaluation.significance import BETTER, NOT_WORSE
from smartgrid_pyfunc.lifecycle.errors import LifecycleError
from smartgrid_pyfunc.lifecycle.gate import Comparison as Line
from smartgrid_pyfunc.lifecycle.gate import Verdict
from smartgrid_pyfunc.lifecycle.promotion import Paired
from smartgrid_pyfunc.lifecycle.versions import find
from smartgrid_pyfunc.schema import InputError

_FEWEST_FOR_A_GROUP = 14  # days, below which no group is called badly worse


@dataclass(frozen=True)
class Limits:
    """What a version must keep to replace the one in Production.

    Attributes
    ----------
    margin : float
        How much higher its loss may be, as a share.
    group_margin : float
        The same for a single group of sensors; counts where the group is also significantly worse.
    max_slowdown : float
        Largest latency, as a multiple of the champion's.
    max_size_mb : float
        Largest model [MB].
    alpha : float
        Error allowed for each verdict.

    Raises
    ------
    InputError
        For values out of range.
    """

    margin: float = 0.03
    group_margin: float = 0.10
    max_slowdown: float = 2.0
    max_size_mb: float = 100.0
    alpha: float = 0.05

    def __post_init__(self) -> None:
        """Check the values."""
        for name in ("group_margin", "max_slowdown", "max_size_mb"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name} must be above 0", found=getattr(self, name))
        Rules(margin=self.margin, alpha=self.alpha)


def against_champion(
    model: str, *, data: str = "", days: int = 28, limits: Limits | None = None
) -> Callable[[str, str], Paired]:
    """Return what `lifecycle.promotion.promote` calls with the numbers of champion and candidate.

    Parameters
    ----------
    model : str
        Registered name.
    data, days
        See `comparison.compare`.
    limits : Limits, optional
    """
    kept = limits or Limits()

    def held(champion: str, candidate: str) -> Paired:
        try:
            rules = Rules(margin=kept.margin, alpha=kept.alpha)
            result = compare(model, [champion, candidate], data=data, days=days, rules=rules)
        except (LifecycleError, InputError) as error:
            said = f"it could not be compared with version {champion} in Production: {error}"
            return Paired(Verdict(reasons=(said.rstrip("."),)))
        verdict = _quality(result, champion, kept) + _groups(result, champion, kept)
        verdict += _costs(result.costs, champion, candidate, kept) + _signature(model, champion, candidate)
        return Paired(verdict, result.run_id, {"comparison.csv": result.comparison.overall.to_csv(index=False)})

    return held


def _quality(result: Result, champion: str, limits: Limits) -> Verdict:
    name = next(iter(result.comparison.pairs))
    pair = result.comparison.pairs[name]
    passed = pair.verdict in (BETTER, NOT_WORSE)
    line = Line("loss_ratio", pair.ratio, "loss_ratio_allowed", 1 + limits.margin, passed)
    if passed:
        return Verdict((line,))
    said = re.sub(r"\*\*", "", result.words.split("\n\n")[0])
    return Verdict(
        (line,), (f"it is not shown to be at most {limits.margin:.0%} worse than version {champion}: {said}",)
    )


def _groups(result: Result, champion: str, limits: Limits) -> Verdict:
    table, name = result.comparison.tables["by_group"], next(iter(result.comparison.pairs))
    if "ratio" not in table:
        return Verdict()
    own, lines, reasons = table[table["version"] == name], [], []
    for _, row in own.iterrows():
        bad = _badly_worse(row, limits)
        group = re.sub(r"[^\w\-. /]", "_", str(row["group"]))
        lines.append(
            Line(f"loss_ratio/{group}", row["ratio"], f"loss_ratio_allowed/{group}", 1 + limits.group_margin, not bad)
        )
        if bad:
            reasons.append(f"the sensors {row['group']} are {row['ratio'] - 1:.0%} worse than with version {champion}")
    return Verdict(tuple(lines), tuple(reasons))


def _badly_worse(row: pd.Series, limits: Limits) -> bool:
    enough = row["days"] >= _FEWEST_FOR_A_GROUP
    return bool(enough and row["ratio"] > 1 + limits.group_margin and row["p_worse"] <= limits.alpha)


def _costs(costs: dict[str, Costs], champion: str, candidate: str, limits: Limits) -> Verdict:
    own, bound = costs[candidate], limits.max_slowdown * costs[champion].latency_ms
    lines, reasons = (
        [Line("size_mb", own.size_mb, "size_mb_allowed", limits.max_size_mb, own.size_mb <= limits.max_size_mb)],
        [],
    )
    if not lines[0].passed:
        reasons.append(f"its files are {own.size_mb:.0f} MB, above {limits.max_size_mb:.0f} MB")
    if not math.isnan(bound) and not math.isnan(own.latency_ms):
        lines.append(Line("latency_ms", own.latency_ms, "latency_ms_allowed", bound, own.latency_ms <= bound))
        if not lines[-1].passed:
            reasons.append(f"it takes {own.latency_ms:.1f} ms a request, above {bound:.1f} ms")
    return Verdict(tuple(lines), tuple(reasons))


def _signature(model: str, champion: str, candidate: str) -> Verdict:
    found = incompatibilities(find(model, champion), find(model, candidate))
    return Verdict(reasons=tuple(f"clients of version {champion} could not use it: {text}" for text in found))
