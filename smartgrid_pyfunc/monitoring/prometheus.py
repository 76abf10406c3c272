"""The findings as Prometheus text, under the names that ``deploy/prometheus`` and ``deploy/grafana`` ask for."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from smartgrid_pyfunc.monitoring.checks import KINDS, Gauge

_HELP = {
    "smartgrid_alert": "1 if the monitor raised this alert, else 0.",
    "smartgrid_alert_value": "Worst value of what the alert looks at.",
    "smartgrid_alert_threshold": "Value from which it is an alert.",
    "smartgrid_alert_since_timestamp_seconds": "When what the alert is about began; 0 without an alert.",
    "smartgrid_forecast_mae": "Mean absolute error of the window [unit of the load].",
    "smartgrid_forecast_rmse": "Root mean squared error of the window [unit of the load].",
    "smartgrid_forecast_skill": "1 - error / error of the better seasonal naive.",
    "smartgrid_forecast_bias": "Mean of forecast - actual [unit of the load].",
    "smartgrid_forecast_coverage": "Share of hours inside their interval.",
    "smartgrid_anomaly_rate": "Share of readings flagged in the window.",
    "smartgrid_monitor_timestamp_seconds": "When the monitor ran.",
}

Sample = tuple[str, Mapping[str, str], float]


def metrics_text(
    model: str, version: str, gauges: Sequence[Gauge], figures: Mapping[str, float], ran: pd.Timestamp
) -> str:
    """Return the text of one report.

    Parameters
    ----------
    model, version : str
        Registered name and number, the labels.
    gauges : sequence of Gauge
        One a kind of alert.
    figures : Mapping
        ``forecast_mae``, ``forecast_skill``, ``forecast_bias``, ``forecast_coverage``, ``anomaly_rate`` as far as
        known; others are left out.
    ran : Timestamp
        Time of the clock at which the monitor ran, also when a past year is replayed.
    """
    samples = [sample for found in gauges for sample in _of_alert(model, found)]
    known = {name: value for name, value in figures.items() if f"smartgrid_{name}" in _HELP}
    samples += [(f"smartgrid_{name}", {"model": model, "version": version}, value) for name, value in known.items()]
    samples.append(("smartgrid_monitor_timestamp_seconds", {"model": model}, ran.timestamp()))
    return _text(sample for sample in samples if math.isfinite(sample[2]))


def _of_alert(model: str, found: Gauge) -> list[Sample]:
    labels = {"model": model, "alert": found.kind}
    since = found.since.timestamp() if found.since is not None and not pd.isna(found.since) else 0.0
    return [
        ("smartgrid_alert", labels | {"severity": KINDS[found.kind].severity}, float(found.alert)),
        ("smartgrid_alert_value", labels, found.value),
        ("smartgrid_alert_threshold", labels, found.threshold),
        ("smartgrid_alert_since_timestamp_seconds", labels, since),
    ]


def _text(samples: Iterable[Sample]) -> str:
    by_name: dict[str, list[Sample]] = {}
    for sample in samples:
        by_name.setdefault(sample[0], []).append(sample)
    lines = []
    for name, entries in by_name.items():
        lines += [f"# HELP {name} {_HELP[name]}", f"# TYPE {name} gauge"]
        lines += [f"{name}{{{_labels(labels)}}} {value!r}" for _, labels, value in entries]
    return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, str]) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
