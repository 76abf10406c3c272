"""The load model on public data: accuracy against the naive forecasts of the same run, and files as they are found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from smartgrid_pyfunc.evaluation.backtest import backtest, midnight_origins
from smartgrid_pyfunc.evaluation.metrics import mae
from smartgrid_pyfunc.features.panel import build_panel, parse_hourly
from smartgrid_pyfunc.models.load_forecasting import LoadForecastingModel
from smartgrid_pyfunc.sources import load_hourly

pytestmark = pytest.mark.integration

_WEEKS = 8


@pytest.fixture(scope="module")
def victoria(real_data: Callable[[str], Path]) -> pd.DataFrame:
    """Forecasts 24 h ahead from each midnight UTC of the last 8 weeks, without covariates."""
    hourly = load_hourly(str(real_data("vic_electricity_hourly"))).frame
    training = hourly[hourly["timestamp"] <= hourly["timestamp"].max() - pd.Timedelta(weeks=_WEEKS)]
    model = LoadForecastingModel(timezone="Australia/Melbourne", covariates="none").fit(training)
    panel = build_panel(parse_hourly(hourly))
    window = midnight_origins(panel, panel.origin - _WEEKS * 168 + 1, panel.origin, "UTC")
    return backtest(model, panel, window, 24)


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
