"""Monitor a registered version: read, examine, log one MLflow run, and tell others."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from smartgrid_pyfunc.features.calendar import holiday_days
from smartgrid_pyfunc.lifecycle import decisions, runs
from smartgrid_pyfunc.lifecycle.errors import LifecycleError, mask_secrets
from smartgrid_pyfunc.monitoring import delivery, prometheus, report
from smartgrid_pyfunc.monitoring.checks import Alert, Gauge, alert, gauge, verdict
from smartgrid_pyfunc.monitoring.evidence import Watched, watched_version
from smartgrid_pyfunc.monitoring.examination import Examination, examine, examine_detector
from smartgrid_pyfunc.monitoring.grid import Grid, Whole, build_grid
from smartgrid_pyfunc.monitoring.pictures import figures
from smartgrid_pyfunc.monitoring.scored import join
from smartgrid_pyfunc.monitoring.tables import figures_of, tables
from smartgrid_pyfunc.predictions import read_flags, read_forecasts
from smartgrid_pyfunc.schema import ANOMALY_MODEL, LOAD_MODEL, UNITS, InputError
from smartgrid_pyfunc.sources import HourlyLoad, load_hourly

EXPERIMENT = "smartgrid-monitoring"
_PAST_DAYS = 273  # of forecasts that are read: errors of half a year, judged by the three months before each
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """What is watched and where it is told.

    Attributes
    ----------
    predictions : str
        Folder or ``postgresql://…`` of the predictions.
    data : str
        Hourly load or readings; see `smartgrid_pyfunc.sources`.
    model : str
        Registered name (its version in Production) or model URI.
    days : int
        Length of the window that is judged.
    timezone, country : str
        The sensors' local clock and public holidays.
    now : str
        ISO 8601; empty: the clock's time. Nothing after it is looked at.
    webhook, pushgateway : str
        URLs, or empty.
    output : str
        Folder for report.html, metrics.prom and alerts.json, or empty.
    sensors : str
        Sensors to draw, separated by commas; empty: the worst.
    sensor_type : str
        Types of readings that count as load.
    """

    predictions: str = "predictions"
    data: str = "demo"
    model: str = LOAD_MODEL
    days: int = 7
    timezone: str = "UTC"
    country: str | None = None
    now: str = ""
    webhook: str = ""
    pushgateway: str = ""
    output: str = ""
    sensors: str = ""
    sensor_type: str = "power,energy"

    @property
    def shown(self) -> list[str]:
        """Return the sensors to draw."""
        return [name.strip() for name in self.sensors.split(",") if name.strip()]


@dataclass(frozen=True)
class Outcome:
    """What one run of the monitor found.

    Attributes
    ----------
    model, version, run_id, verdict : str
    alerts : list of Alert
    gauges : list of Gauge
    figures : dict
        As in `prometheus.metrics_text`.
    """

    model: str
    version: str
    run_id: str
    verdict: str
    alerts: list[Alert] = field(default_factory=list)
    gauges: list[Gauge] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)


def monitor(settings: Settings) -> Outcome:
    """Examine a version in use and log what was found to one run; then tell webhook and Pushgateway.

    Raises
    ------
    InputError
        For a bad URL or time, before a run is opened, and for bad data.
    LifecycleError
        If there is no such version; and, after the run is logged, if webhook or Pushgateway cannot be reached.
    """
    now = pd.Timestamp(decisions.parse_time(settings.now))
    for name in ("webhook", "pushgateway"):
        delivery.check_address(getattr(settings, name), name)
    watched = watched_version(settings.model)
    if watched.named.name not in (LOAD_MODEL, ANOMALY_MODEL):
        raise InputError(f"model must be {LOAD_MODEL} or {ANOMALY_MODEL}", found=watched.named.name)
    named = watched.named
    tags = {
        "smartgrid.model": named.name,
        "smartgrid.model_version": named.version,
        "smartgrid.model_run_id": named.run_id,
    }
    title = f"{named.name} version {named.version}, {settings.days} days to {now:%Y-%m-%d}"
    with runs.tracked_run(EXPERIMENT, run_name=title, tags=tags) as run:
        outcome, texts = _logged(settings, watched, now, run.info.run_id)
    _write(settings.output, texts)
    _tell(settings, outcome, texts["metrics.prom"])
    return outcome


def _logged(settings: Settings, watched: Watched, now: pd.Timestamp, run_id: str) -> tuple[Outcome, dict[str, str]]:
    runs.log_results(_params(settings, now))
    source = _data(settings, watched.named.name, now)
    grid = build_grid(source.frame, timezone=settings.timezone, holidays=_holidays(settings, source.frame))
    found = _examined(settings, watched, now, source, grid)
    fill = _fill(settings, watched.named.name, now)
    alerts = [entry for entry in (alert(check, fill, now) for check in found.checks) if entry is not None]
    alerts.sort(key=lambda entry: (entry.severity != "critical", entry.kind))
    outcome = Outcome(
        watched.named.name, watched.named.version, run_id, verdict(alerts), alerts,
        [gauge(check) for check in found.checks], figures_of(found),
    )  # fmt: skip
    return outcome, _log(settings, outcome, found, watched, grid, now)


def _params(settings: Settings, now: pd.Timestamp) -> dict[str, Any]:
    names = ("predictions", "data", "model", "days", "timezone", "country", "sensors", "sensor_type")
    return {name: mask_secrets(str(getattr(settings, name) or "")) for name in names} | {"now": now.isoformat()}


def _data(settings: Settings, model: str, now: pd.Timestamp) -> HourlyLoad:
    """Return the hours before `now`: a replay of a past day must not see what came later."""
    types = settings.sensor_type if model == LOAD_MODEL else ",".join(UNITS)
    source = load_hourly(settings.data, sensor_type=types, on_progress=_LOG.info)
    frame = source.frame[source.frame["timestamp"] + pd.Timedelta(hours=1) <= now]
    if frame.empty:
        raise InputError("data must hold an hour before now", found=f"{now:%Y-%m-%d %H:%M}", remedy="check now")
    runs.log_input(
        frame, name=f"hourly of {source.report.sensors} sensors", digest=source.report.digest, source=settings.data,
        context="monitoring",
    )  # fmt: skip
    return HourlyLoad(frame.reset_index(drop=True), source.report)


def _holidays(settings: Settings, frame: pd.DataFrame) -> Whole | None:
    if not settings.country:
        return None
    return holiday_days(settings.country, frame["timestamp"].min().year, frame["timestamp"].max().year + 1)


def _examined(settings: Settings, watched: Watched, now: pd.Timestamp, source: HourlyLoad, grid: Grid) -> Examination:
    named, end = watched.named, grid.time(grid.hours)
    counts = source.report
    repeated = (counts.duplicates_dropped + counts.conflicts) / max(counts.rows, 1)
    if named.name == ANOMALY_MODEL:
        since = end - pd.Timedelta(days=settings.days)
        flags = read_flags(settings.predictions, since=since, until=now, model=named.name, version=named.version)
        return examine_detector(
            flags, grid, days=settings.days, now=now, budget=watched.budget, tested=watched.tested_rate,
            repeated=repeated,
        )  # fmt: skip
    since = end - pd.Timedelta(days=_PAST_DAYS)
    rows = read_forecasts(settings.predictions, since=since, until=end, model=named.name)
    own, earlier = _of_version(rows, named.version)
    reference = watched.reference if watched.reference.source != "none" else None
    return examine(
        join(own, grid), grid, days=settings.days, now=now, timezone=settings.timezone, reference=reference,
        repeated=repeated, earlier=join(earlier, grid),
    )  # fmt: skip


def _of_version(rows: pd.DataFrame, version: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the version's own forecasts, and those of the champions before its first one."""
    mine = rows["version"] == version
    first = rows.loc[mine, "timestamp"].min()
    before = ~mine & (rows["variant"] == "champion")
    if pd.notna(first):
        before &= rows["timestamp"] < first
    return rows[mine], rows[before]


def _fill(settings: Settings, model: str, now: pd.Timestamp) -> dict[str, str]:
    return {
        "predictions": mask_secrets(settings.predictions),
        "data": mask_secrets(settings.data),
        "model": model,
        "now": f"{now:%Y-%m-%dT%H:%M:%SZ}",
    }


# ------------------------------------------------------------------------------------------------------ the run


def _log(
    settings: Settings, outcome: Outcome, found: Examination, watched: Watched, grid: Grid, now: pd.Timestamp
) -> dict[str, str]:
    """Log everything to the active run; return the texts by name."""
    listed, drawn = tables(found, grid), figures(found, outcome.alerts, grid, settings.shown)
    content = report.Content(
        title=f"{outcome.model} version {outcome.version}",
        about=_about(settings, found, watched, grid, now),
        verdict=outcome.verdict,
        alerts=outcome.alerts,
        checks=found.checks,
        tables={name.replace("_", " ").capitalize(): table for name, table in listed.items()},
        figures={name.replace("_", " ").capitalize(): figure for name, figure in drawn.items()},
    )
    texts = {
        "report.html": report.html(content),
        "metrics.prom": prometheus.metrics_text(
            outcome.model, outcome.version, outcome.gauges, outcome.figures, pd.Timestamp.now("UTC")
        ),
        "alerts.json": json.dumps(message(outcome, now), indent=1) + "\n",
    }
    for name, text in texts.items():
        runs.log_text(name, text)
    for name, table in listed.items():
        runs.log_table(f"tables/{name}.csv", table)
    for name, figure in drawn.items():
        runs.log_figure(f"plots/{name}.png", figure)
    runs.log_results(metrics=_metrics(outcome))
    kinds = ",".join(entry.kind for entry in outcome.alerts)
    tags = {"smartgrid.verdict": outcome.verdict, "smartgrid.alerts": kinds, runs.TAG_DESCRIPTION: _note(outcome)}
    runs.set_tags(tags)
    return texts


def _about(settings: Settings, found: Examination, watched: Watched, grid: Grid, now: pd.Timestamp) -> list[str]:
    end = grid.time(grid.hours)
    begin = end - pd.Timedelta(days=settings.days)
    told = [f"Judged: {begin:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC, as known at {now:%Y-%m-%d %H:%M} UTC."]
    if watched.named.name == LOAD_MODEL:
        told.append(f"Reference of the errors: {found.reference.source}.")
    return told


def _metrics(outcome: Outcome) -> dict[str, float]:
    values = {f"value_{entry.kind}": entry.value for entry in outcome.gauges if np.isfinite(entry.value)}
    raised = {f"alert_{entry.kind}": float(entry.alert) for entry in outcome.gauges}
    return {**outcome.figures, **values, **raised, "alerts": float(len(outcome.alerts))}


def _note(outcome: Outcome) -> str:
    lines = [f"- **{entry.kind}** ({entry.severity}): {entry.text}\n  `{entry.command}`" for entry in outcome.alerts]
    return "\n".join(lines) or "Nothing is wrong."


def message(outcome: Outcome, now: pd.Timestamp) -> dict[str, Any]:
    """Return what a webhook gets and alerts.json holds; ``text`` is what chat programs show."""
    lines = [f"{entry.text}. {entry.command}" for entry in outcome.alerts]
    head = f"{outcome.model} version {outcome.version}: {outcome.verdict}"
    return {
        "text": "\n".join([head, *lines]),
        "model": outcome.model,
        "version": outcome.version,
        "verdict": outcome.verdict,
        "at": now.isoformat(),
        "run_id": outcome.run_id,
        "alerts": [entry.as_dict() for entry in outcome.alerts],
    }


# ----------------------------------------------------------------------------------------------- telling others


def _write(output: str, texts: Mapping[str, str]) -> None:
    if not output:
        return
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        aside = folder / f".{name}.part"
        aside.write_text(text, encoding="utf-8")
        aside.replace(folder / name)  # a collector of metrics.prom must not read half of it


def _tell(settings: Settings, outcome: Outcome, metrics: str) -> None:
    """Push and post; both are tried before either failure is raised."""
    failures: list[LifecycleError] = []
    at = pd.Timestamp(decisions.parse_time(settings.now))
    if settings.pushgateway:
        _try(failures, delivery.push_metrics, settings.pushgateway.strip(), outcome.model, metrics)
    if settings.webhook and outcome.alerts:
        _try(failures, delivery.post_alerts, settings.webhook.strip(), message(outcome, at))
    if failures:
        raise LifecycleError(" ".join(str(failure) for failure in failures))


def _try(failures: list[LifecycleError], send: Any, *arguments: Any) -> None:
    try:
        send(*arguments)
    except LifecycleError as failure:
        failures.append(failure)


def summary(outcome: Outcome) -> str:
    """Return what the command line says."""
    figures: Sequence[str] = [f"{name} {value:.4g}" for name, value in outcome.figures.items()]
    lines = [
        f"{outcome.model} version {outcome.version}: {outcome.verdict}"
        + (f" ({', '.join(figures)})" if figures else "")
    ]
    for entry in outcome.alerts:
        lines += [f"  {entry.severity}: {entry.text}", f"    {entry.command}"]
    return "\n".join([*lines, f"  run {outcome.run_id}"])
