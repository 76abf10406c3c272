"""Train, evaluate, log and register the load model."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from smartgrid_pyfunc import plots
from smartgrid_pyfunc.evaluation.backtest import backtest, midnight_origins
from smartgrid_pyfunc.evaluation.metrics import Summary, naive_scales, summarise
from smartgrid_pyfunc.features.panel import Panel, build_panel, parse_hourly
from smartgrid_pyfunc.lifecycle import evidence, packaging, registry, runs
from smartgrid_pyfunc.lifecycle.errors import mask_secrets
from smartgrid_pyfunc.lifecycle.model_card import write_card
from smartgrid_pyfunc.models.load_forecasting import LoadForecastingModel
from smartgrid_pyfunc.models.load_validation import NAIVE
from smartgrid_pyfunc.schema import HOURS_A_DAY, LOAD_EXPERIMENT, LOAD_MODEL, InputError, format_timestamps
from smartgrid_pyfunc.sources import HourlyLoad, load_hourly
from smartgrid_pyfunc.training.cleaning import cleaned
from smartgrid_pyfunc.training.figures import log_error_figures, log_error_tables, log_loads_figure
from smartgrid_pyfunc.training.outcome import Outcome, describe_origin, log_report
from smartgrid_pyfunc.training.repeatable import one_thread_in_linear_algebra

_LEVEL = 0.9
_FEWEST_TRAINING_DAYS = 21
_IMPORTANCE_ROWS = 4_000
_EXAMPLE_HOURS = 200  # of one sensor, in the logged input example

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Evaluation:
    """What the model fitted without the last days is worth in them, and in as many days before (in sample)."""

    forecasts: pd.DataFrame
    test: Summary
    train: Summary
    importance: dict[str, float]


@one_thread_in_linear_algebra
def train_load_model(
    data: str,
    *,
    sensor_type: str = "power,energy",
    hours_ahead: int = 24,
    test_days: int = 28,
    clean_with: str | None = None,
    register: bool = True,
    store_history: bool = True,
    nested: bool = False,
    **params: Any,
) -> Outcome:
    """Train on `data`, evaluate on its last `test_days`, refit on all of it, log and register.

    Parameters
    ----------
    data : str
        See `smartgrid_pyfunc.sources`.
    sensor_type : str
        Types of readings that count as load, separated by commas.
    hours_ahead : int
        Horizon of the evaluation [h]; the model always answers 1…168.
    test_days : int
        Length of the evaluation at the end of each sensor's data [days].
    clean_with : str, optional
        URI of an anomaly model; readings that it flags are left out, see `training.cleaning`.
    register : bool
        Make the logged model a new version of `LoadForecastingModel`.
    store_history : bool
        Keep each sensor's last weeks in the model. Without it neither model nor run holds an hour of the data: requests
        have to bring their history, the logged example is made up, and no forecast is drawn or recorded beside what was
        measured.
    nested : bool
        See `runs.tracked_run`.
    **params
        Of `LoadForecastingModel`.
    """
    model = LoadForecastingModel(**params)
    with runs.tracked_run(LOAD_EXPERIMENT, run_name=_run_name(model, hours_ahead), nested=nested) as run:
        with cleaned(data, clean_with, sensor_type, _log.info) as (kept, cleaning):
            source = load_hourly(kept, sensor_type=sensor_type, on_progress=_log.info)
        log_report(source.report, source.frame, data)
        evaluation = _evaluate(model, source.frame, hours_ahead, test_days)
        metrics = _metrics(evaluation, model) | cleaning
        settings = {
            "hours_ahead": hours_ahead,
            "test_days": test_days,
            "sensor_type": sensor_type,
            "data": mask_secrets(data),
            "clean_with": clean_with or "",
            "store_history": store_history,
        }
        runs.log_results(model.get_params() | settings, metrics)
        _log.info("refitting on all hours")
        final = model.refit(source.frame)
        _log_artifacts(evaluation, final, draw_loads=store_history)
        example = example_request(source.frame if store_history else _made_up())
        if not store_history:
            final.forget_history()
        info = packaging.log_model(final, LOAD_MODEL, example)
        card = _card(final, metrics, source, settings)
        learnt = evidence.learnt_until(source.frame)
        runs.set_tags(_tags(final, test_days) | learnt | {runs.TAG_DESCRIPTION: card})
        version = registry.register(info.model_uri, LOAD_MODEL, description=card) if register else None
        return Outcome(LOAD_MODEL, run.info.run_id, info.model_uri, version, metrics)


def _run_name(model: LoadForecastingModel, hours_ahead: int) -> str:
    params = model.params
    return f"{params.estimator.replace('_', ' ')} of {params.n_estimators} trees, {hours_ahead} h ahead"


def _evaluate(model: LoadForecastingModel, hourly: pd.DataFrame, hours_ahead: int, test_days: int) -> _Evaluation:
    last = hourly.groupby("sensor_id")["timestamp"].transform("max")
    before = hourly["timestamp"] <= last - pd.Timedelta(days=test_days)
    train = hourly[before]
    _check_length(train, test_days)
    _log.info("evaluating on the last %d days", test_days)
    model.fit(train)
    panel = build_panel(parse_hourly(hourly))
    timezone = model.params.timezone
    forecasts, known = (
        backtest(model, panel, _origins(panel, timezone, test_days, weeks_back), hours_ahead, level=_LEVEL)
        for weeks_back in (0, 1)
    )
    if forecasts.empty:
        raise InputError(
            "the evaluation needs a local midnight with observed load in the last days",
            found=f"none in {test_days} days",
            remedy="give more days of test_days",
        )
    test = summarise(forecasts, scales=naive_scales(train), timezone=timezone)
    importance = _permutation_importance(model, panel, _origins(panel, timezone, test_days, 0), hours_ahead)
    return _Evaluation(forecasts, test, summarise(known, timezone=timezone, prefix="train_"), importance)


def _permutation_importance(
    model: LoadForecastingModel, panel: Panel, origins: tuple[Any, Any], hours_ahead: int
) -> dict[str, float]:
    """Return `LoadForecastingModel.permutation_importance` on random horizons of the test."""
    rng = np.random.default_rng(model.params.random_state)
    chosen = rng.integers(0, len(origins[0]), _IMPORTANCE_ROWS)
    sensor, origin = origins[0][chosen], origins[1][chosen]
    horizon = rng.integers(1, hours_ahead + 1, _IMPORTANCE_ROWS)
    observed = origin + horizon <= panel.origin[sensor]
    return model.permutation_importance(panel, sensor[observed], origin[observed], horizon[observed])


def _check_length(train: pd.DataFrame, test_days: int) -> None:
    span = train.groupby("sensor_id")["timestamp"].agg(lambda t: t.max() - t.min()) if len(train) else pd.Series([])
    days = span.max() / pd.Timedelta(days=1) if len(span) else 0.0
    if days < _FEWEST_TRAINING_DAYS:
        raise InputError(
            f"training needs at least {_FEWEST_TRAINING_DAYS} days before the last {test_days} days of a sensor",
            found=f"{days:.0f} days",
            remedy="give more data or a smaller test_days",
        )


def _origins(panel: Panel, timezone: str, days: int, windows_back: int) -> Any:
    """Origins in the last `days`, or in as many days further back."""
    last = panel.origin - windows_back * days * HOURS_A_DAY
    return midnight_origins(panel, last - days * HOURS_A_DAY + 1, last, timezone)


def _metrics(evaluation: _Evaluation, model: LoadForecastingModel) -> dict[str, float]:
    train = {name: value for name, value in evaluation.train.overall.items() if name.startswith("train_")}
    by_naive = float((evaluation.forecasts["model"] == NAIVE).mean())
    extra = {"fallback_sensors": float(len(model.fallback_sensors)), "test_naive_share": by_naive}
    return train | evaluation.test.overall | extra


def _log_artifacts(evaluation: _Evaluation, model: LoadForecastingModel, *, draw_loads: bool) -> None:
    ordered = sorted(model.feature_importances_.items(), key=lambda item: -item[1])
    runs.log_text("feature_importance.txt", "".join(f"{name}\t{share:.6f}\n" for name, share in ordered))
    runs.log_figure("plots/feature_importance.png", _importance_figure(ordered))
    runs.log_table("tables/permutation_importance.csv", _named_table(evaluation.importance))
    runs.log_figure("plots/permutation_importance.png", plots.permutation_importance(evaluation.importance))
    if draw_loads:
        log_loads_figure(evaluation.forecasts, _LEVEL)
        evidence.record(LOAD_MODEL, evaluation.forecasts)
    log_error_figures(evaluation.test)
    log_error_tables(evaluation.test)


def _named_table(importance: dict[str, float]) -> pd.DataFrame:
    return pd.DataFrame({"features": list(importance), "error_increase": list(importance.values())})


def _importance_figure(ordered: list[tuple[str, float]]) -> Figure:
    return plots.feature_importance([name for name, _ in ordered], [share for _, share in ordered])


def example_request(hourly: pd.DataFrame) -> pd.DataFrame:
    """Return the last hours of the first sensor as a client would send them."""
    first = hourly[hourly["sensor_id"] == hourly["sensor_id"].iloc[0]]
    rows: pd.DataFrame = first.tail(_EXAMPLE_HOURS).dropna(axis="columns", how="all").reset_index(drop=True)
    rows["timestamp"] = format_timestamps(rows["timestamp"].dt.tz_localize(None).to_numpy())
    return rows


def _made_up() -> pd.DataFrame:
    """Return hours of a sensor that does not exist."""
    hour = np.arange(_EXAMPLE_HOURS)
    times = pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(hour, unit="h")
    load = 10.0 + 2.0 * np.sin(2 * np.pi * hour / HOURS_A_DAY)
    return pd.DataFrame({"sensor_id": "made-up", "timestamp": times, "avg_value": load})


def _tags(model: LoadForecastingModel, test_days: int) -> dict[str, str]:
    foresight = ", ".join(model.covariates)
    tags = {"smartgrid.metrics_describe": f"a fit without the last {test_days} days; the logged model is fitted on all"}
    return tags | ({"smartgrid.perfect_foresight": f"{foresight} as measured"} if foresight else {})


def _card(model: LoadForecastingModel, metrics: dict[str, float], source: HourlyLoad, settings: dict[str, Any]) -> str:
    params = model.get_params()
    shown = {name: params[name] for name in ("estimator", "n_estimators", "timezone", "country", "covariates")}
    notes = [f"{len(model.fallback_sensors)} sensor(s) stay with the seasonal naive: validation found it better."]
    if model.covariates:
        notes.append(f"The figures know {', '.join(model.covariates)} of the hours ahead as measured.")
    if not settings["store_history"]:
        notes.append("It keeps no history: requests bring theirs.")
    return write_card(LOAD_MODEL, describe_origin(source.report, settings["data"], shown), metrics, notes)
