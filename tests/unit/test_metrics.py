"""Point, interval and table metrics against hand-computed numbers and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import mean_absolute_error, mean_pinball_loss, r2_score, root_mean_squared_error

from smartgrid_pyfunc.evaluation import metrics
from smartgrid_pyfunc.schema import InputError

ACTUAL = [10.0, 20.0, 30.0, np.nan, 50.0]
PREDICTED = [12.0, 19.0, 33.0, 40.0, np.nan]


def test_pairs_with_a_missing_side_are_dropped():
    assert metrics.mae(ACTUAL, PREDICTED) == pytest.approx((2 + 1 + 3) / 3)
    assert metrics.rmse(ACTUAL, PREDICTED) == pytest.approx(math.sqrt((4 + 1 + 9) / 3))
    assert metrics.bias(ACTUAL, PREDICTED) == pytest.approx((2 - 1 + 3) / 3)
    assert metrics.wape(ACTUAL, PREDICTED) == pytest.approx(6 / 60)


def test_complete_pairs_agree_with_scikit_learn():
    rng = np.random.default_rng(5)
    actual, predicted = rng.normal(size=(2, 200))
    assert metrics.mae(actual, predicted) == pytest.approx(mean_absolute_error(actual, predicted))
    assert metrics.rmse(actual, predicted) == pytest.approx(root_mean_squared_error(actual, predicted))
    assert metrics.r2(actual, predicted) == pytest.approx(r2_score(actual, predicted))
    for level in (0.05, 0.5, 0.9):
        expected = mean_pinball_loss(actual, predicted, alpha=level)
        assert metrics.pinball(actual, predicted, level) == pytest.approx(expected)


@pytest.mark.parametrize("measure", [metrics.mae, metrics.rmse, metrics.r2, metrics.bias, metrics.wape])
def test_nothing_to_score_is_nan(measure):
    assert math.isnan(measure([], []))
    assert math.isnan(measure([np.nan, 1.0], [1.0, np.nan]))


def test_undefined_measures_are_nan_not_infinite():
    assert math.isnan(metrics.r2([5.0, 5.0], [4.0, 6.0]))
    assert math.isnan(metrics.wape([0.0, 0.0], [1.0, 1.0]))
    assert math.isnan(metrics.mase([1.0], 0.0))
    assert math.isnan(metrics.skill(1.0, 0.0))
    assert math.isnan(metrics.skill(1.0, float("nan")))


def test_skill_is_zero_at_the_baseline_and_negative_behind_it():
    assert metrics.skill(2.0, 2.0) == 0.0
    assert metrics.skill(1.0, 4.0) == 0.75
    assert metrics.skill(3.0, 2.0) == -0.5


def test_interval_ends_count_as_covered():
    lower, upper = [0.0, 0.0, 0.0, np.nan], [1.0, 1.0, 1.0, 1.0]
    assert metrics.coverage([0.0, 1.0, 1.5, 0.5], lower, upper) == pytest.approx(2 / 3)
    assert metrics.interval_width(lower, [1.0, 2.0, 3.0, 9.0]) == pytest.approx(2.0)


def test_mase_is_scaled_by_the_seasonal_difference_of_the_training_data():
    # Hours 0..4 of one sensor with a gap at 2; lag 2 pairs: (0, -), (1, 3), (2 is absent) -> |9 - 1| = 8, (4, -).
    hours = pd.to_datetime(["2026-01-01T00:00Z", "2026-01-01T01:00Z", "2026-01-01T03:00Z", "2026-01-01T04:00Z"])
    hourly = pd.DataFrame({"sensor_id": "a", "timestamp": hours, "avg_value": [5.0, 1.0, 9.0, 7.0]})
    hourly = pd.concat([hourly, hourly.assign(sensor_id="b").head(1)])
    scales = metrics.naive_scales(hourly, lag=2)
    assert scales["a"] == 8.0
    assert math.isnan(scales["b"])
    assert metrics.mase([4.0, -4.0], scales["a"]) == 0.5


def _forecasts() -> pd.DataFrame:
    """Two sensors, two hours each; the last row has no naive_168 and is not scored."""
    columns = ["sensor_id", "horizon", "timestamp", "actual", "predicted", "lower", "upper", "naive_24", "naive_168"]
    rows = [
        ["small", 1, "2026-01-01T23:00:00Z", 1.0, 1.5, 0.0, 2.0, 3.0, 1.0],
        ["small", 2, "2026-01-02T00:00:00Z", 2.0, 2.5, 3.0, 4.0, 2.0, 5.0],
        ["large", 1, "2026-01-01T23:00:00Z", 100.0, 90.0, 80.0, 120.0, 140.0, 130.0],
        ["large", 2, "2026-01-02T00:00:00Z", 200.0, 999.0, 150.0, 250.0, 200.0, np.nan],
    ]
    return pd.DataFrame(rows, columns=columns)


def test_summary_scores_model_and_baselines_on_the_same_rows():
    overall = metrics.summarise(_forecasts()).overall
    assert overall["test_mae"] == pytest.approx(11 / 3)  # 0.5, 0.5, 10; the 799 has no rival and does not count
    assert overall["naive_24_mae"] == pytest.approx(42 / 3)
    assert overall["naive_168_mae"] == pytest.approx(33 / 3)
    assert overall["naive_mae"] == overall["naive_168_mae"]
    assert overall["test_skill"] == pytest.approx(1 - 11 / 33)
    assert overall["test_coverage"] == pytest.approx(2 / 3)
    assert overall["test_interval_width"] == pytest.approx((2 + 1 + 40) / 3)
    assert overall["test_scored_share"] == 0.75
    assert overall["test_rows"] == 3


def test_summary_mase_weighs_sensors_alike():
    summary = metrics.summarise(_forecasts(), scales={"small": 0.25, "large": 10.0})
    assert summary.by_sensor["mase"].to_dict() == {"large": 1.0, "small": 2.0}
    assert summary.overall["test_mase"] == 1.5
    assert "test_mase" not in metrics.summarise(_forecasts()).overall


def test_summary_tables_agree_with_hand_numbers():
    summary = metrics.summarise(_forecasts())
    small = summary.by_sensor.loc["small"]
    assert (small["n"], small["mae"], small["rmse"], small["bias"]) == (2, 0.5, 0.5, 0.5)
    assert (small["naive_24_mae"], small["naive_168_mae"], small["naive_mae"]) == (1.0, 1.5, 1.0)
    assert (small["skill"], small["coverage"]) == (0.5, 0.5)
    assert small["wape"] == pytest.approx(1 / 3)
    assert summary.by_horizon["n"].to_dict() == {1: 2, 2: 1}
    assert summary.by_hour["n"].to_dict() == {0: 1, 23: 2}


def test_hour_of_day_is_local():
    table = metrics.summarise(_forecasts(), timezone="Australia/Melbourne").by_hour  # UTC+11 in January
    assert table["n"].to_dict() == {10: 2, 11: 1}


def test_a_lag_that_is_nowhere_known_is_left_out():
    overall = metrics.summarise(_forecasts().assign(naive_168=np.nan)).overall
    assert math.isnan(overall["naive_168_mae"])
    assert overall["naive_mae"] == overall["naive_24_mae"] == pytest.approx(42 / 4)


def test_no_forecasts_give_nan_not_an_error():
    summary = metrics.summarise(_forecasts().head(0))
    assert math.isnan(summary.overall["test_mae"])
    assert math.isnan(summary.overall["naive_mae"])
    assert summary.by_sensor.empty


def test_whole_equals_parts_in_any_row_order():
    forecasts = _forecasts()
    shuffled = metrics.summarise(forecasts.sample(frac=1, random_state=3)).by_sensor
    pd.testing.assert_frame_equal(shuffled, metrics.summarise(forecasts).by_sensor)
    alone = metrics.summarise(forecasts[forecasts["sensor_id"] == "small"]).by_sensor
    pd.testing.assert_frame_equal(alone, shuffled.loc[["small"]])


def test_a_missing_column_is_named():
    with pytest.raises(InputError, match="naive_24"):
        metrics.summarise(_forecasts().drop(columns="naive_24"))
