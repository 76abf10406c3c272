"""The load model on public data: accuracy against the naive forecasts of the same run, and files as they are found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from smartgrid_pyfunc.evaluation.backtest import backtest, midnight_origins
from smartgrid_pyfunc.evaluation.metrics import mae
from smartgrid_pyfunc.features.panel import Panel, build_panel, parse_hourly
from smartgrid_pyfunc.models.load_forecasting import LoadForecastingModel
from smartgrid_pyfunc.sources import load_hourly

pytestmark = pytest.mark.integration

_WEEKS = 8


@pytest.fixture(scope="module")
def plain(real_data: Callable[[str], Path]) -> tuple[LoadForecastingModel, Panel]:
    """A model of Victoria without covariates, fitted without the last 8 weeks, and all hours."""
    hourly = load_hourly(str(real_data("vic_electricity_hourly"))).frame
    training = hourly[hourly["timestamp"] <= hourly["timestamp"].max() - pd.Timedelta(weeks=_WEEKS)]
    model = LoadForecastingModel(timezone="Australia/Melbourne", covariates="none").fit(training)
    return model, build_panel(parse_hourly(hourly))


@pytest.fixture(scope="module")
def victoria(plain: tuple[LoadForecastingModel, Panel]) -> pd.DataFrame:
    """Forecasts 24 h ahead from each midnight UTC of the last 8 weeks, without covariates."""
    model, panel = plain
    window = midnight_origins(panel, panel.origin - _WEEKS * 168 + 1, panel.origin, "UTC")
    return backtest(model, panel, window, 24)


@pytest.mark.parametrize("horizon", [1, 168])
def test_both_ends_of_the_horizon_are_no_worse_than_the_last_hour_repeated(
    plain: tuple[LoadForecastingModel, Panel], horizon: int
) -> None:
    """At one hour that is persistence, at a week the seasonal naive."""
    model, panel = plain
    origin = panel.origin[0] - horizon - np.arange(0, _WEEKS * 168 - horizon, 5)
    nothing = np.zeros(len(origin), dtype=np.int64)
    found = model.forecast(panel, nothing, origin, nothing + horizon)
    actual, last = panel.load[origin + horizon], panel.load[origin]
    ours, naive = mae(actual, found.values["predicted_load"]), mae(actual, last)
    print(f"Victoria, {horizon} h ahead: MAE {ours:.1f}, the last hour repeated {naive:.1f}")
    assert ours <= naive


def test_victoria_beats_the_weekly_naive_by_far(victoria: pd.DataFrame) -> None:
    model, naive = (mae(victoria["actual"], victoria[name]) for name in ("predicted", "naive_168"))
    print(f"Victoria: MAE {model:.1f}, seasonal naive (168 h) {naive:.1f}, ratio {model / naive:.3f}")
    assert len(victoria) > 55 * 24 - 24
    assert naive == pytest.approx(317, abs=3)  # published for the same window
    assert model <= 0.62 * naive


def test_a_request_without_temperature_is_nearly_as_good_as_a_model_without_it(
    real_data: Callable[[str], Path], victoria: pd.DataFrame
) -> None:
    hourly = load_hourly(str(real_data("vic_electricity_hourly"))).frame
    training = hourly[hourly["timestamp"] <= hourly["timestamp"].max() - pd.Timedelta(weeks=_WEEKS)]
    model = LoadForecastingModel(timezone="Australia/Melbourne", covariates="temperature").fit(training)
    panel = build_panel(parse_hourly(hourly.drop(columns="temperature")))
    window = midnight_origins(panel, panel.origin - _WEEKS * 168 + 1, panel.origin, "UTC")
    found = backtest(model, panel, window, 24)
    lacking, without = (mae(frame["actual"], frame["predicted"]) for frame in (found, victoria))
    print(f"Victoria: MAE {lacking:.1f} of a model with temperature that gets none, {without:.1f} of one without")
    assert lacking <= 1.03 * without


@pytest.mark.parametrize(
    ("name", "sensor_type"),
    [
        ("london_smartmeters_readings_30min_sample8", "power,energy"),
        ("household_readings_1min", "power,energy"),
        ("transformer_dtm_readings_15min", "current"),
        ("etth1_readings_hourly", "power,energy"),
        ("household_4years_hourly", "power,energy"),
    ],
)
def test_files_as_they_are_found_train_and_answer(
    real_data: Callable[[str], Path], name: str, sensor_type: str
) -> None:
    hourly = load_hourly(str(real_data(name)), sensor_type=sensor_type).frame
    model = LoadForecastingModel(n_estimators=10, max_rows=20_000).fit(hourly)
    answer = model.predict(None, pd.DataFrame({"sensor_id": ["all"]}), {"hours_ahead": 168})
    assert set(answer.groupby("sensor_id").size()) == {168}
    known = answer.dropna(subset="predicted_load")
    assert len(known) > 0.9 * len(answer)
    bounds = hourly.groupby("sensor_id")["avg_value"].agg(["min", "max"]).loc[known["sensor_id"]]
    spread = np.maximum(bounds["max"] - bounds["min"], 1e-6).to_numpy()
    predicted = known["predicted_load"].to_numpy(dtype=float)
    assert (predicted >= bounds["min"].to_numpy() - spread).all()
    assert (predicted <= bounds["max"].to_numpy() + spread).all()
