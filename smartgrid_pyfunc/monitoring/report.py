"""The report: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from smartgrid_pyfunc.monitoring.checks import KINDS, Alert, Check, gauge

_MOST_ROWS = 50
_STYLE = """
body { font: 15px/1.45 sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin-bottom: 1.5rem; } caption { text-align: left; color: #555; }
th, td { text-align: left; padding: .25rem .8rem; border-bottom: 1px solid #ddd; vertical-align: top; }
td.n { text-align: right; font-variant-numeric: tabular-nums; } img { max-width: 100%; }
.critical { color: #b00020; font-weight: bold; } .warning { color: #a15c00; } .ok { color: #1b6e3c; }
code { background: #f4f4f4; padding: .1rem .3rem; overflow-wrap: anywhere; }
"""


@dataclass(frozen=True)
class Content:
    """What the report shows.

    Attributes
    ----------
    title : str
    about : sequence of str
        Sentences below the title.
    verdict : str
    alerts, checks : sequences
    tables : Mapping of str to DataFrame
        By heading.
    figures : Mapping of str to Figure
        By heading.
    """

    title: str
    about: Sequence[str]
    verdict: str
    alerts: Sequence[Alert]
    checks: Sequence[Check]
    tables: Mapping[str, pd.DataFrame]
    figures: Mapping[str, Figure]


def html(content: Content) -> str:
    """Return the report; pictures are part of the text."""
    parts = [
        f"<h1>{escape(content.title)}</h1>",
        *(f"<p>{escape(sentence)}</p>" for sentence in content.about),
        f"<h2>{_headline(content)}</h2>",
        _alerts(content.alerts),
        "<h2>All checks</h2>",
        _table(overview(content.checks), ""),
        *(f"<h2>{escape(name)}</h2>{_picture(figure, name)}" for name, figure in content.figures.items()),
        *(f"<h2>{escape(name)}</h2>{_table(table, name)}" for name, table in content.tables.items()),
    ]
    head = f'<meta charset="utf-8"><title>{escape(content.title)}</title><style>{_STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n' + "\n".join(parts) + "\n</body></html>\n"


def overview(checks: Sequence[Check]) -> pd.DataFrame:
    """Return the worst value of every kind beside its threshold."""
    rows = [
        {
            "check": found.kind,
            "alert": "yes" if found.alert else "no",
            "value": found.value,
            "threshold": found.threshold,
            "measure": KINDS[found.kind].measure,
        }
        for found in map(gauge, checks)
    ]
    return pd.DataFrame(rows)


def _headline(content: Content) -> str:
    said = {
        "ok": '<span class="ok">Nothing is wrong.</span>',
        "alerts": f'<span class="critical">{len(content.alerts)} alert(s).</span>',
        "drift": f'<span class="critical">{len(content.alerts)} alert(s); training again is advised.</span>',
    }
    return said[content.verdict]


def _alerts(alerts: Sequence[Alert]) -> str:
    if not alerts:
        return ""
    head = "<tr><th>what</th><th>where</th><th>since (UTC)</th><th>how bad</th><th>look closer</th></tr>"
    return f"<table>{head}{''.join(map(_alert, alerts))}</table>"


def _alert(found: Alert) -> str:
    shown = ", ".join(found.sensors[:8]) + (f" and {len(found.sensors) - 8} more" if len(found.sensors) > 8 else "")
    return (
        f'<tr><td class="{found.severity}">{escape(found.kind)} ({found.severity})</td><td>{escape(shown)}</td>'
        f"<td>{found.since:%Y-%m-%d %H:%M}</td>"
        f"<td>{escape(found.text)}</td>"
        f"<td><code>{escape(found.command)}</code></td></tr>"
    )


def _picture(figure: Figure, name: str) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    text = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{escape(name)}" src="data:image/png;base64,{text}">'


def _table(table: pd.DataFrame, name: str) -> str:
    more = f"<caption>{_MOST_ROWS} of {len(table):,} rows</caption>" if len(table) > _MOST_ROWS else ""
    head = "".join(f"<th>{escape(str(column))}</th>" for column in table.columns)
    rows = ("".join(_cell(value) for value in row) for row in table.head(_MOST_ROWS).itertuples(index=False))
    return f"<table>{more}<tr>{head}</tr>" + "".join(f"<tr>{row}</tr>" for row in rows) + "</table>"


def _cell(value: object) -> str:
    if isinstance(value, (float, np.floating)):
        return f'<td class="n">{"" if not np.isfinite(value) else f"{value:.4g}"}</td>'
    if isinstance(value, (int, np.integer)):
        return f'<td class="n">{value}</td>'
    return f"<td>{escape(str(value))}</td>"
