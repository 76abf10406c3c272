"""Backtest the load model over several windows at the end of the data, and log the tables to one MLflow run."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from typing import Any

import mlflow
import pandas as pd

from smartgrid_pyfunc.evaluation.backtest import Window, first_times, forecast_window, known_before, windows_at_end
from smartgrid_pyfunc.evaluation.metrics import naive_scales, summarise
from smartgrid_pyfunc.features.panel import Panel, build_panel, parse_hourly
from smartgrid_pyfunc.lifecycle import registry, runs
from smartgrid_pyfunc.lifecycle.errors import LifecycleError, mask_secrets
from smartgrid_pyfunc.lifecycle.server import plain_errors
from smartgrid_pyfunc.models.load_forecasting import LoadForecastingModel
from smartgrid_pyfunc.schema import LOAD_EXPERIMENT, LOAD_MODEL, MAX_HORIZON, InputError, parse_timestamps
from smartgrid_pyfunc.sources import load_hourly
from smartgrid_pyfunc.training.backtest_report import BacktestOutcome, levels_with, log_backtest, metrics_of
from smartgrid_pyfunc.training.outcome import log_report
from smartgrid_pyfunc.training.repeatable import one_thread_in_linear_algebra

_FEWEST_TRAINING_DAYS = 21

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """What is forecast, from where and by which fits.

    Attributes
    ----------
    windows, window_days : int
        Number and length [days] of the evaluation windows, end to end at the end of the data; the same for all
        sensors.
    hours_ahead : int
        Horizons 1…hours_ahead [h] from every local midnight.
    refit : bool
        Fit anew before each window on what was known then; otherwise once, before the first window.
    level : float
        Probability of the intervals.
    jobs : int
        Windows fitted at a time, each in a process of its own with its share of the processors.

    Raises
    ------
    InputError
        For values out of range.
    """

    windows: int = 4
    window_days: int = 28
    hours_ahead: int = 24
    refit: bool = True
    level: float = 0.9
    jobs: int = 1

    def __post_init__(self) -> None:
        """Check the values."""
        for name in ("windows", "window_days", "hours_ahead", "jobs"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1", found=getattr(self, name))
        if self.hours_ahead > MAX_HORIZON:
            raise InputError(f"hours_ahead must be at most {MAX_HORIZON}", found=self.hours_ahead)
        if not 0 < self.level < 1:
            raise InputError("level must lie between 0 and 1", found=self.level, remedy="0.9 asks for 90 %")


@dataclass(frozen=True)
class WindowResult:
    """What one window gave: its forecasts and what is to be said of the fit behind them."""

    window: int
    forecasts: pd.DataFrame
    fit: dict[str, Any]


# ------------------------------------------------------------------------------------------------------- the backtest


@one_thread_in_linear_algebra
def backtest_load_model(
    data: str, *, plan: Plan | None = None, sensor_type: str = "power,energy", model: str = "", **params: Any
) -> BacktestOutcome:
    """Backtest `LoadForecastingModel` on `data` and log metrics, tables, plots and all forecasts to one run.

    Parameters
    ----------
    data : str
        See `smartgrid_pyfunc.sources`.
    plan : Plan, optional
    sensor_type : str
        Types of readings that count as load, separated by commas.
    model : str
        Empty: fit afresh. Otherwise a model URI, or a version, stage or alias of the registered model, which is
        evaluated as it is: without any fit, and with its own parameters instead of `params`.
    **params
        Of `LoadForecastingModel`.

    Raises
    ------
    InputError
        For too little data before the first window, none in the windows, or windows that `model` has learnt from.
    """
    plan, own = plan or Plan(), LoadForecastingModel(**params)
    with runs.tracked_run(LOAD_EXPERIMENT, run_name=_run_name(plan, model)) as run:
        registered = _registered(model) if model else None
        source = load_hourly(data, sensor_type=sensor_type, on_progress=_log.info)
        log_report(source.report, source.frame, data)
        job = _Job.prepare(source.frame, plan, (registered or own).get_params())
        settings = {"sensor_type": sensor_type, "data": mask_secrets(data), "model": model}
        runs.log_results(job.params | asdict(plan) | settings)
        results = _in_order(job, _as_is(job, registered) if registered else _fitted(job))
        return log_backtest(
            pd.concat([result.forecasts for result, _ in results], ignore_index=True),
            pd.DataFrame([row for _, row in results]),
            naive_scales(job.before(job.windows[0])),
            run_id=run.info.run_id,
            about=_about(plan, job.timezone, model),
            level=plan.level,
            timezone=job.timezone,
            seed=job.params["random_state"],
        )


@dataclass(frozen=True)
class _Job:
    """What all windows share."""

    hourly: pd.DataFrame
    panel: Panel
    windows: list[Window]
    plan: Plan
    params: dict[str, Any]

    @classmethod
    def prepare(cls, hourly: pd.DataFrame, plan: Plan, params: dict[str, Any]) -> _Job:
        panel = build_panel(parse_hourly(hourly))
        return cls(hourly, panel, windows_at_end(panel, plan.windows, plan.window_days), plan, params)

    @property
    def timezone(self) -> str:
        return str(self.params["timezone"])

    def before(self, window: Window) -> pd.DataFrame:
        return known_before(self.hourly, self.panel, window)

    def fit(self, window: Window) -> tuple[LoadForecastingModel, dict[str, Any]]:
        """Fit to what was known before `window` and say how."""
        known, began = self.before(window), time.perf_counter()
        model = LoadForecastingModel(**self.params).fit(known)
        seconds = time.perf_counter() - began
        about = {"fitted_rows": len(known), "fitted_until": known["timestamp"].max(), "fit_seconds": round(seconds, 2)}
        return model, about

    def forecast(self, model: LoadForecastingModel, window: Window, fit: dict[str, Any]) -> WindowResult:
        plan = self.plan
        found = forecast_window(
            model,
            self.panel,
            window,
            plan.hours_ahead,
            timezone=self.timezone,
            level=plan.level,
            more_levels=levels_with(plan.level),
        )
        about = {"fallback_sensors": len(model.fallback_sensors), "covariates": ", ".join(model.covariates)}
        return WindowResult(window.number, found, fit | about)


def run_windows(hourly: pd.DataFrame, plan: Plan, **params: Any) -> list[WindowResult]:
    """Fit and forecast as `plan` says, without MLflow; `params` are those of `LoadForecastingModel`."""
    job = _Job.prepare(hourly, plan, LoadForecastingModel(**params).get_params())
    return sorted(_fitted(job), key=lambda result: result.window)


def _fitted(job: _Job) -> Iterator[WindowResult]:
    """Yield the result of each window as soon as it is there."""
    _check_length(job)
    if not job.plan.refit:
        model, about = job.fit(job.windows[0])
        yield from (job.forecast(model, window, about) for window in job.windows)
    elif min(job.plan.jobs, job.plan.windows) == 1:
        yield from (_refitted(job, window) for window in job.windows)
    else:
        yield from _in_processes(job)


def _refitted(job: _Job, window: Window) -> WindowResult:
    model, about = job.fit(window)
    return job.forecast(model, window, about)


def _in_processes(job: _Job) -> Iterator[WindowResult]:
    count = min(job.plan.jobs, job.plan.windows)
    # A forked process may hang on a lock that another thread held.
    pool = ProcessPoolExecutor(count, get_context("spawn"), initializer=_share_processors, initargs=(count,))
    try:
        for future in as_completed([pool.submit(_refitted, job, window) for window in job.windows]):
            yield future.result()
    except BrokenProcessPool:
        raise LifecycleError("A process of the backtest died, maybe for want of memory: try fewer jobs.") from None
    except InputError as error:  # its sentence is made once more where the process's exception is read
        raise InputError(error.rule, place=error.place, found=error.found, remedy=error.remedy) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _share_processors(count: int) -> None:
    """Leave each of `count` processes its share of the processors: a forest takes all that joblib counts."""
    os.environ["LOKY_MAX_CPU_COUNT"] = str(max(1, (os.cpu_count() or 1) // count))


def _check_length(job: _Job) -> None:
    known = job.before(job.windows[0])
    spans = known.groupby("sensor_id")["timestamp"].agg(lambda t: t.max() - t.min())
    days = spans.max() / pd.Timedelta(days=1) if len(spans) else 0.0
    if days < _FEWEST_TRAINING_DAYS:
        raise InputError(
            f"a backtest needs at least {_FEWEST_TRAINING_DAYS} days of a sensor before the first of "
            f"{job.plan.windows} windows of {job.plan.window_days} days",
            found=f"{days:.0f} days",
            remedy="give more data, fewer windows or smaller window_days",
        )


# ------------------------------------------------------------------------------------------------ a registered version


def _registered(named: str) -> LoadForecastingModel:
    uri = _uri(named)
    with plain_errors(f"load {uri}"):
        loaded = mlflow.pyfunc.load_model(uri).unwrap_python_model()
    if not isinstance(loaded, LoadForecastingModel):
        raise InputError(f"model must be a version of {LOAD_MODEL}", found=uri)
    return loaded


def _uri(named: str) -> str:
    if ":" in named:
        return named
    return f"models:/{LOAD_MODEL}{'/' if named.isdigit() or named in registry.STAGES else '@'}{named}"


def _as_is(job: _Job, model: LoadForecastingModel) -> Iterator[WindowResult]:
    _check_unseen(job, model)
    yield from (job.forecast(model, window, {}) for window in job.windows)


def _check_unseen(job: _Job, model: LoadForecastingModel) -> None:
    """Refuse windows that the model has learnt from: its errors there would say nothing about the future."""
    stored = model.predict(None, pd.DataFrame({"sensor_id": ["all"]}), {"hours_ahead": 1})
    learnt = pd.Series(parse_timestamps(stored["origin"]), index=stored["sensor_id"]).dt.tz_localize("UTC")
    start = first_times(job.panel, job.windows[0])
    seen = learnt.reindex(start.index) >= start
    if seen.any():
        sensor = seen.idxmax()
        raise InputError(
            "the windows must lie after the last hour that the version learnt from",
            place=f"sensor {sensor}: the windows begin at {start[sensor]:%Y-%m-%d %H:%M}",
            found=f"{learnt[sensor]:%Y-%m-%d %H:%M}",
            remedy="give newer data, fewer windows or smaller window_days, or leave model empty to fit afresh",
        )


# ------------------------------------------------------------------------------------------------- window by window


def _in_order(job: _Job, results: Iterator[WindowResult]) -> list[tuple[WindowResult, dict[str, Any]]]:
    """Return each window's result and its row of the table; say and log each as soon as it is there."""
    scales = naive_scales(job.before(job.windows[0]))  # the same for all windows, so that their MASE can be compared
    done: list[tuple[WindowResult, dict[str, Any]]] = []
    began = time.perf_counter()
    for result in results:
        row = _row(result, job, scales)
        done.append((result, row))
        _log.info(
            "window %d of %d: MAE %.4g, better seasonal naive %.4g (%d done in %.0f s)", result.window,
            len(job.windows), row["mae"], row["naive_mae"], len(done), time.perf_counter() - began,
        )  # fmt: skip
    return sorted(done, key=lambda entry: entry[0].window)


def _row(result: WindowResult, job: _Job, scales: pd.Series[float]) -> dict[str, Any]:
    found = result.forecasts
    if found.empty:
        raise InputError(
            "every window needs a local midnight with observed load",
            place=f"window {result.window}",
            found="none",
            remedy="give fewer windows or larger window_days",
        )
    summary = summarise(found, scales=scales, timezone=job.timezone, prefix="")
    metrics = metrics_of(found, summary, job.plan.level, "")
    place = {"first": found["timestamp"].min(), "last": found["timestamp"].max()}
    row = {"window": result.window, **place, "sensors": found["sensor_id"].nunique(), **metrics, **result.fit}
    with plain_errors("log the metrics of a window"):
        mlflow.log_metrics({f"window_{name}": value for name, value in metrics.items()}, step=result.window)
    return row


def _run_name(plan: Plan, model: str) -> str:
    return f"backtest {plan.windows} x {plan.window_days} days, {plan.hours_ahead} h ahead" + (
        f", {model}" if model else ""
    )


def _about(plan: Plan, timezone: str, model: str) -> str:
    fits = f"{model} as it is" if model else f"fitted {'anew before each' if plan.refit else 'once before the first'}"
    return (
        f"{plan.windows} window(s) of {plan.window_days} days, {plan.hours_ahead} h ahead from each midnight of "
        f"{timezone}, {fits}"
    )
