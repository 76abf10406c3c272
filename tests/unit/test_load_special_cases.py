"""Days that come once in four years, days of 23 and 25 hours, and load that changes its sign."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest

from smartgrid_pyfunc.features.calendar import holiday_days
from smartgrid_pyfunc.features.design import Design, FeatureSpec
from smartgrid_pyfunc.features.load import build_features, seasonal_naive
from smartgrid_pyfunc.features.panel import HISTORY_HOURS, build_panel, parse_hourly
from smartgrid_pyfunc.models.load_forecasting import LoadForecastingModel

HOUR = pd.Timedelta(hours=1)
LEAP = pd.Timestamp("2024-02-29T00:00:00Z")
START = pd.Timestamp("2023-12-20T00:00:00Z")
LONDON = {"spring": pd.Timestamp("2024-03-31T01:00:00Z"), "autumn": pd.Timestamp("2024-10-27T01:00:00Z")}
OPTIONS = {"n_estimators": 12, "max_rows": 3_000, "timezone": "Europe/London"}


def grid(first: pd.Timestamp, last: pd.Timestamp, seed: int = 0) -> pd.DataFrame:
    """A house, and one with so many panels on its roof that it feeds in at noon."""
    rng = np.random.default_rng(seed)
    times = pd.date_range(first, last, freq="h")
    hour, workday = times.hour.to_numpy(), (times.day_of_week < 5).astype(float)
    house = 2 + np.sin(2 * np.pi * (hour - 10) / 24) + 0.3 * workday
    sun = 6 * np.clip(np.cos(2 * np.pi * (hour - 12) / 24), 0, None)
    loads = {"house": house, "feed-in": house - sun}
    return pd.concat(
        [
            pd.DataFrame({"sensor_id": name, "timestamp": times, "avg_value": load + rng.normal(0, 0.1, len(times))})
            for name, load in loads.items()
        ],
        ignore_index=True,
    )


@pytest.fixture(scope="module")
def model() -> LoadForecastingModel:
    """Knows everything up to the end of 27 February 2024."""
    return LoadForecastingModel(**OPTIONS).fit(grid(START, LEAP - 24 * HOUR - HOUR))


def asked(model: LoadForecastingModel, rows: pd.DataFrame, **params: Any) -> pd.DataFrame:
    answer = model.predict(None, rows, params)
    return answer.assign(time=pd.to_datetime(answer["timestamp"]))


def design_at(rows: pd.DataFrame, origin: pd.Timestamp, horizons: list[int], spec: FeatureSpec) -> tuple[Design, Any]:
    """Features of one sensor's forecasts, and its panel with the pairs asked for."""
    panel = build_panel(parse_hourly(rows))
    n = len(horizons)
    cell = panel.first_cell[0] + int(origin.timestamp() // 3600) - panel.first_hour[0]
    pairs = np.zeros(n, dtype=np.int64), np.full(n, cell), np.array(horizons)
    return build_features(panel, *pairs, spec), (panel, pairs)


# --- 29 February ------------------------------------------------------------------------------------------------------


def test_a_forecast_over_the_leap_day_has_every_hour_of_it_once(model: LoadForecastingModel) -> None:
    answer = asked(model, pd.DataFrame({"sensor_id": ["house"]}), hours_ahead=72)
    assert answer["time"].tolist() == pd.date_range("2024-02-28", periods=72, freq="h", tz="UTC").tolist()
    assert answer["timestamp"][24] == "2024-02-29T00:00:00Z"
    assert answer["timestamp"][48] == "2024-03-01T00:00:00Z"


def test_the_leap_day_is_forecast_as_well_as_the_day_before(model: LoadForecastingModel) -> None:
    answer = asked(model, pd.DataFrame({"sensor_id": ["house"]}), hours_ahead=48)
    truth = grid(LEAP - 24 * HOUR, LEAP + 23 * HOUR, seed=7)
    error = (answer["predicted_load"] - truth.loc[truth["sensor_id"] == "house", "avg_value"].to_numpy()).abs()
    assert error[24:].mean() < 1.5 * error[:24].mean() + 0.05
    assert set(answer["model"]) == {"random_forest"}


@pytest.mark.parametrize("year", [2023, 2024, 2100])
def test_the_hour_a_week_before_is_168_hours_away_in_every_year(year: int) -> None:
    """Over the end of February: by date it would be off by a day in a leap year."""
    first = pd.Timestamp(f"{year}-02-01T00:00:00Z")
    times = pd.date_range(first, periods=29 * 24, freq="h")
    rows = pd.DataFrame({"sensor_id": "a", "timestamp": times, "avg_value": np.arange(len(times), dtype=float)})
    _, (panel, pairs) = design_at(rows, times[-1], [1, 24, 168], FeatureSpec())
    naive = seasonal_naive(panel, pairs[1], pairs[2])
    target = len(times) - 1 + np.array([1, 24, 168])
    assert naive[168].tolist() == (target - 168).tolist()
    assert naive[24].tolist() == (target - [24, 24, 168]).tolist()


def test_a_history_that_starts_on_the_leap_day_gives_the_features_of_a_longer_one() -> None:
    origin = LEAP + (HISTORY_HOURS - 1) * HOUR
    rows = grid(LEAP - 20 * 24 * HOUR, origin + 24 * HOUR)
    rows = rows[rows["sensor_id"] == "house"]
    spec = FeatureSpec("Europe/London", tuple(holiday_days("GB", 2023, 2025).tolist()))
    whole, _ = design_at(rows, origin, [1, 24, 168], spec)
    late, _ = design_at(rows[rows["timestamp"] >= LEAP], origin, [1, 24, 168], spec)
    np.testing.assert_array_equal(whole.features, late.features)
    for name, block in whole.inputs.items():
        np.testing.assert_array_equal(block, late.inputs[name])


def test_a_request_whose_history_starts_on_the_leap_day_is_answered_by_the_model(model: LoadForecastingModel) -> None:
    rows = grid(LEAP, LEAP + pd.Timedelta(days=9)).query("sensor_id == 'house'").assign(sensor_id="new")
    answer = asked(model, rows)
    assert set(answer["model"]) == {"random_forest"}
    assert np.isfinite(answer[["predicted_load", "lower", "upper"]].astype(float)).all(axis=None)


def test_the_phase_of_the_year_does_not_jump_at_the_turn_of_a_leap_year() -> None:
    hours = pd.date_range("2024-12-31T12:00:00Z", periods=24, freq="h")
    rows = grid(hours[0] - 672 * HOUR, hours[0]).query("sensor_id == 'house'")
    design, _ = design_at(rows, hours[0], list(range(1, 25)), FeatureSpec())
    phase = design.inputs["clock"][:, 2].astype(float)
    steps = np.diff(phase)
    assert steps == pytest.approx(np.full(23, 2 * np.pi / (365.2425 * 24)), abs=1e-4)


def test_fitting_on_a_history_with_the_leap_day_in_it_works() -> None:
    fitted = LoadForecastingModel(**OPTIONS).fit(grid(LEAP - pd.Timedelta(days=40), LEAP + pd.Timedelta(days=10)))
    answer = asked(fitted, pd.DataFrame({"sensor_id": ["house"]}))
    assert answer["time"].iloc[0] == LEAP + pd.Timedelta(days=10) + HOUR


# --- days of 23 and 25 hours ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("season", "hours"), [("spring", 23), ("autumn", 25)])
def test_the_day_of_a_clock_change_has_its_own_number_of_hours_and_each_only_once(season: str, hours: int) -> None:
    change = LONDON[season]
    rows = grid(change - 800 * HOUR, change + 48 * HOUR).query("sensor_id == 'house'")
    design, _ = design_at(rows, change - 30 * HOUR, list(range(1, 97)), FeatureSpec("Europe/London"))
    features = dict(zip(FeatureSpec("Europe/London").names(), design.features.T, strict=True))
    local = [(change + (h - 30) * HOUR).tz_convert("Europe/London") for h in range(1, 97)]
    assert features["hour_of_day"].tolist() == [time.hour for time in local]
    assert features["day_of_week"].tolist() == [time.day_of_week for time in local]
    on_the_day = [time for time in local if time.date() == change.tz_convert("Europe/London").date()]
    assert len(on_the_day) == hours


@pytest.mark.parametrize("season", ["spring", "autumn"])
def test_answers_over_a_clock_change_are_an_hour_apart_in_utc(model: LoadForecastingModel, season: str) -> None:
    rows = grid(LONDON[season] - 700 * HOUR, LONDON[season] - 5 * HOUR).query("sensor_id == 'house'")
    answer = asked(model, rows, hours_ahead=48)
    assert all(b - a == HOUR for a, b in itertools.pairwise(answer["time"]))
    assert np.isfinite(answer["predicted_load"]).all()


# --- feed-in ----------------------------------------------------------------------------------------------------------


def test_load_that_turns_into_feed_in_is_forecast_with_its_sign(model: LoadForecastingModel) -> None:
    answer = asked(model, pd.DataFrame({"sensor_id": ["feed-in"]}))
    truth = grid(LEAP - 24 * HOUR, LEAP - HOUR, seed=7).query("sensor_id == 'feed-in'")["avg_value"].to_numpy()
    assert truth.min() < -1 < 1 < truth.max()
    assert np.abs(answer["predicted_load"] - truth).mean() < 0.5
    clear = np.abs(truth) > 1
    assert (np.sign(answer["predicted_load"][clear]) == np.sign(truth[clear])).all()
    assert (answer["lower"] < 0).any()
    assert (answer["lower"] < answer["upper"]).all()


def test_an_interval_around_zero_is_not_cut_there(model: LoadForecastingModel) -> None:
    """A meter that runs both ways has no floor at zero."""
    answer = asked(model, pd.DataFrame({"sensor_id": ["feed-in"]}), level=0.99)
    crossing = (answer["lower"] < 0) & (answer["upper"] > 0)
    assert crossing.any()
    assert not (answer[["lower", "upper"]] == 0).any(axis=None)
