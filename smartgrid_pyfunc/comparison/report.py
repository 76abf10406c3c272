"""A comparison as people read it: sentences, tables and plots in one run."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd

from smartgrid_pyfunc import plots
from smartgrid_pyfunc.comparison.costs import Costs
from smartgrid_pyfunc.evaluation.comparison import Comparison
from smartgrid_pyfunc.evaluation.significance import BETTER, NOT_WORSE, WORSE, Paired
from smartgrid_pyfunc.lifecycle import runs

_SAID = {
    BETTER: "is better than",
    NOT_WORSE: "is not worse than",
    WORSE: "is worse than",
}


def words_of(found: Comparison, margin: float, effect: float) -> str:
    """Return the verdict on each name but the reference as Markdown, a paragraph each."""
    reference, what = found.names[0], "error" if len(found.daily) else "1 − average precision"
    return "\n\n".join(_words(name, pair, reference, what, found, margin, effect) for name, pair in found.pairs.items())


def _words(name: str, pair: Paired, reference: str, what: str, found: Comparison, margin: float, effect: float) -> str:
    unit = "days" if len(found.daily) else "sensor-weeks"
    said = _SAID.get(pair.verdict, "cannot be told apart from")
    text = f"**{name} {said} {reference}**: its {what} is {_change(pair)}, {pair.n} {unit}"
    text += f", p = {_p(pair)})." if not math.isnan(pair.p_better) else ", too few for a test)."
    if pair.verdict == NOT_WORSE:
        text += f" If it is higher at all, then by less than {margin:.0%}."
    if needed := found.needed.get(name):
        text += f" To see {effect:.0%}, about {needed} days are needed."
    return text + _daily(name, reference, found.daily)


def _change(pair: Paired) -> str:
    change, side = abs(1 - pair.ratio), "lower" if pair.ratio < 1 else "higher"
    low, high = sorted((pair.low - 1, pair.high - 1))
    interval = "" if math.isnan(low) else f"{low:+.1%} to {high:+.1%}"
    return f"{change:.1%} {side} ({interval}"


def _p(pair: Paired) -> str:
    value = {BETTER: pair.p_better, NOT_WORSE: pair.p_not_worse, WORSE: pair.p_worse}.get(
        pair.verdict, min(pair.p_better, pair.p_worse)
    )
    return f"{value:.2g}" if value >= 1e-4 else "below 0.0001"


def _daily(name: str, reference: str, daily: pd.DataFrame) -> str:
    """Say since when someone who looks on every day would have known."""
    if f"high {name}" not in daily:
        return ""
    for side, sure in (("better", daily[f"high {name}"] < 0), ("worse", daily[f"low {name}"] > 0)):
        if sure.any():
            return f" Looking every day, it was surely {side} from {sure.idxmax():%d %B %Y} on."
    return ""


def log_comparison(
    found: Comparison, how: Mapping[str, str], costs: Mapping[str, Costs], words: str, verdict: str
) -> None:
    """Log figures, tables, plots, the verdict and where each version's answers come from to the active run."""
    sources = "\n".join(f"- {name}: {text}" for name, text in how.items())
    runs.set_tags({"smartgrid.verdict": verdict, runs.TAG_DESCRIPTION: f"{words}\n\nAnswers\n\n{sources}"})
    runs.log_text("verdict.md", f"{words}\n\n{sources}\n")
    table = _with_costs(found.overall, costs)
    runs.log_table("tables/overall.csv", table)
    for name, part in found.tables.items():
        runs.log_table(f"tables/{name}.csv", part)
    if len(found.daily):
        runs.log_table("tables/daily.csv", found.daily.reset_index(names="day"))
        runs.log_figure("plots/daily_difference.png", plots.daily_difference(found.daily, found.names))
        runs.log_figure("plots/ratio_by_horizon.png", plots.ratio_lines(found.tables["by_horizon"], "horizon"))
        runs.log_figure("plots/ratio_by_hour.png", plots.ratio_lines(found.tables["by_hour"], "hour_of_day"))
        runs.log_figure("plots/ratio_by_group.png", plots.ratio_intervals(found.tables["by_group"], "group"))
    runs.log_results(metrics=_metrics(table))


def _with_costs(overall: pd.DataFrame, costs: Mapping[str, Costs]) -> pd.DataFrame:
    table = overall.copy()
    numbers = table["version"].str.removeprefix("version ")
    for name in ("latency_ms", "load_seconds", "size_mb"):
        table[name] = [getattr(costs[number], name) if number in costs else float("nan") for number in numbers]
    return table


def _metrics(table: pd.DataFrame) -> dict[str, float]:
    """Return figures as ``mae/version_2``: the UI draws those of one name beside each other."""
    shown = ("mae", "skill", "bias", "coverage", "ratio", "average_precision", "event_recall", "latency_ms", "size_mb")
    return {
        f"{column}/{row['version'].replace(' ', '_')}": float(row[column])
        for _, row in table.iterrows()
        for column in shown
        if column in table and pd.notna(row[column])
    }


def shown(found: Comparison) -> str:
    """Return the overall table as text for a terminal."""
    columns = [c for c in ("version", "mae", "bias", "skill", "coverage", "average_precision", "event_recall",
                           "ratio", "low", "high", "verdict") if c in found.overall]  # fmt: skip
    table = found.overall[columns].rename(columns={"ratio": "loss ratio", "low": "from", "high": "to"})
    return table.to_string(index=False, na_rep="", float_format=lambda value: f"{value:.4g}")
