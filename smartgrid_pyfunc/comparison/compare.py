"""Compare registered versions on the same window, and log figures, tests, plots and a verdict in words to one run."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pandas as pd

from smartgrid_pyfunc.comparison import detections, forecasts, online
from smartgrid_pyfunc.comparison.costs import Costs, example_of, measure
from smartgrid_pyfunc.comparison.report import log_comparison, words_of
from smartgrid_pyfunc.evaluation.comparison import (
    Comparison,
    compare_detectors,
    compare_forecasts,
    groups_of,
    join_forecasts,
)
from smartgrid_pyfunc.lifecycle import runs
from smartgrid_pyfunc.lifecycle.errors import LifecycleError, mask_secrets
from smartgrid_pyfunc.lifecycle.server import bounded_wait, plain_errors
from smartgrid_pyfunc.lifecycle.versions import Named, find
from smartgrid_pyfunc.schema import ANOMALY_MODEL, LOAD_MODEL, InputError

EXPERIMENT = "smartgrid-comparisons"

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rules:
    """What counts as a difference.

    Attributes
    ----------
    margin : float
        How much higher a loss may be to count as not worse, as a share of the reference's.
    effect : float
        Difference whose days are told, as a share.
    alpha : float
        Error allowed for each verdict.
    """

    margin: float = 0.03
    effect: float = 0.02
    alpha: float = 0.05

    def __post_init__(self) -> None:
        """Check the values."""
        for name in ("margin", "effect", "alpha"):
            if not 0 < getattr(self, name) < 1:
                raise InputError(f"{name} must lie between 0 and 1", found=getattr(self, name))


@dataclass(frozen=True)
class Result:
    """What a comparison found.

    Attributes
    ----------
    comparison : Comparison
    verdict : str
        Of the last version against the first: ``better``, ``not_worse``, ``worse``, ``undecided``.
    words : str
        The verdict as sentences.
    costs : dict of str to Costs
        By version number.
    run_id : str
        Where it is logged.
    """

    comparison: Comparison
    verdict: str
    words: str
    costs: dict[str, Costs]
    run_id: str


def compare(
    model: str,
    versions: Sequence[str],
    *,
    data: str = "",
    days: int = 28,
    hours_ahead: int = 24,
    timezone: str = "",
    sensor_type: str = "power,energy",
    groups: str = "",
    predictions: str = "",
    gateway_log: str = "",
    rules: Rules | None = None,
) -> Result:
    """Compare versions of a registered model with the first of them.

    Parameters
    ----------
    model : str
        Registered name.
    versions : sequence of str
        Numbers, stages or aliases; the first is the reference, the last the candidate.
    data : str
        Where to compare: the last `days` of it. Empty: the test days of the candidate's training.
    days, hours_ahead : int
        Window [days] and horizons 1…hours_ahead [h] from each local midnight, where `data` is given.
    timezone : str
        Local time of midnights and hours of the day; empty: that of the candidate's training.
    sensor_type : str
        Types of readings that count as load.
    groups : str
        CSV file with ``sensor_id`` and ``group``; empty: by the sensors' names, else thirds by size.
    predictions : str
        Place of a table of predictions: forecasts that were really made, instead of scoring anew; needs `data`.
    gateway_log : str
        Log of the gateway, whose requests and failures by version are told beside.
    rules : Rules, optional

    Raises
    ------
    InputError
        For bad parameters, or if the versions share no answer.
    LifecycleError
        For unknown versions, one that has learnt from the window (`fairness.Unfair`), or one that does not load.
    """
    rules = rules or Rules()
    _require_truth(predictions, data)
    served = online.by_version(Path(gateway_log), model) if gateway_log else None
    sensors = _groups(groups)
    named = _find(model, versions)
    title = f"{model}: " + " against ".join(f"version {n.version}" for n in reversed(named))
    with runs.tracked_run(EXPERIMENT, run_name=title, tags=_tags(model, named)) as run:
        settings = {"model": model, "versions": ",".join(versions), "data": mask_secrets(data), "days": days}
        settings |= {"margin": rules.margin, "alpha": rules.alpha, "predictions": mask_secrets(predictions)}
        runs.log_results(settings)
        if model == LOAD_MODEL:
            place = forecasts.LoadData(data or _trained_on(named[-1]), sensor_type, _LOG.info)
            zone = timezone or _param(named[-1], "timezone") or "UTC"
            found, how = _load(named, place, bool(data), days, hours_ahead, zone, sensors, predictions, rules)
        else:
            found, how = _detectors(named, data, days, rules)
        costs = measure(named, example_of(named[-1]))
        if served is not None:
            runs.log_table("tables/gateway.csv", served)
        words = words_of(found, rules.margin, rules.effect)
        verdict = found.pairs[found.names[len(named) - 1] if len(named) > 1 else found.names[-1]].verdict
        log_comparison(found, how, costs, words, verdict)
    return Result(found, verdict, words, costs, run.info.run_id)


def _require_truth(predictions: str, data: str) -> None:
    if predictions and not data:
        raise InputError(
            "predictions need data that tell what then happened", found="none", remedy="name it with data=…"
        )


def _find(model: str, versions: Sequence[str]) -> list[Named]:
    if model not in (LOAD_MODEL, ANOMALY_MODEL):
        raise InputError(f"model must be {LOAD_MODEL} or {ANOMALY_MODEL}", found=model)
    named = list({n.version: n for n in (find(model, text.strip()) for text in versions if text.strip())}.values())
    if not named or (model == ANOMALY_MODEL and len(named) < 2):
        raise InputError("versions must name at least two different versions", found=",".join(versions) or "none")
    return named


def _tags(model: str, named: Sequence[Named]) -> dict[str, str]:
    return {"smartgrid.model": model, "smartgrid.versions": ",".join(n.version for n in named)}


def label(named: Named) -> str:
    """Return the name of a version in tables and sentences."""
    return f"version {named.version}"


def _trained_on(named: Named) -> str:
    place = _param(named, "data")
    if not place:
        raise LifecycleError(f"{named.uri} does not say what it was trained on; name the data with data=…")
    return place


def _param(named: Named, name: str) -> str:
    if not named.run_id:
        return ""
    with bounded_wait(), plain_errors(f"read the run of {named.uri}"):
        return str(mlflow.get_run(named.run_id).data.params.get(name, ""))


def _load(
    named: Sequence[Named],
    data: forecasts.LoadData,
    given: bool,
    days: int,
    hours_ahead: int,
    timezone: str,
    groups: dict[str, str] | None,
    predictions: str,
    rules: Rules,
) -> tuple[Comparison, dict[str, str]]:
    if predictions:
        window, parts = online.forecasts_made(predictions, named, data)
        how = dict.fromkeys(parts, "as made and kept in the table of predictions")
    else:
        window = forecasts.newest_window(data, days, hours_ahead, timezone) if given else _test_of(named[-1])
        answers = {label(n): forecasts.answers(n, window, data) for n in named}
        parts, how = ({name: getattr(a, key) for name, a in answers.items()} for key in ("frame", "how"))
    joined = join_forecasts(parts, window)
    found = compare_forecasts(
        joined,
        [label(n) for n in named],
        groups=groups_of(joined, groups),
        timezone=timezone,
        margin=rules.margin,
        effect=rules.effect,
        alpha=rules.alpha,
    )
    return found, how


def _test_of(named: Named) -> pd.DataFrame:
    window = forecasts.recorded_window(named)
    if window is None:
        raise LifecycleError(
            f"The training of {named.uri} recorded no test answers to compare with; "
            "name newer data than it was trained on: data=…"
        )
    return window


def _groups(path: str) -> dict[str, str] | None:
    if not path:
        return None
    table = pd.read_csv(path, dtype=str)
    if not {"sensor_id", "group"} <= set(table.columns):
        raise InputError("groups must have the columns sensor_id and group", place=path, found=", ".join(table.columns))
    return dict(zip(table["sensor_id"], table["group"], strict=True))


def _detectors(named: Sequence[Named], data: str, days: int, rules: Rules) -> tuple[Comparison, dict[str, str]]:
    place = detections.ReadingsData(data or _trained_on(named[-1]))
    if data:
        window = detections.newest_window(place, days)
    else:
        recorded = detections.recorded_window(named[-1])
        if recorded is None:
            raise LifecycleError(
                f"The training of {named[-1].uri} recorded no labelled test; name labelled readings with data=…"
            )
        window = recorded
    answers = {label(n): detections.answers(n, window, place) for n in named}
    joined = detections.join({name: a.frame for name, a in answers.items()}, window)
    names = [label(n) for n in named]
    return compare_detectors(joined, names, margin=rules.margin, alpha=rules.alpha), {
        name: a.how for name, a in answers.items()
    }
