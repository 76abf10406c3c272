"""Rolling conformal intervals: the right rank among the right errors, and nothing of the future."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from smartgrid_pyfunc.evaluation import rolling
from smartgrid_pyfunc.evaluation.rolling import compare_intervals, rolling_bounds

LEVELS = (0.5, 0.8, 0.95)
HOUR = pd.Timedelta(hours=1)


def forecasts_of(sensors: int = 2, days: int = 50, hours_ahead: int = 30, seed: int = 0) -> pd.DataFrame:
    """Daily origins, with gaps among them and among the actual values; errors of any shape."""
    rng = np.random.default_rng(seed)
    start = pd.Timestamp("2024-02-10T23:00:00Z")
    rows = [
        {"sensor_id": f"s{s}", "origin": start + pd.Timedelta(days=d), "horizon": h}
        for s in range(sensors) for d in range(days) for h in range(1, hours_ahead + 1) if rng.random() > 0.05
    ]  # fmt: skip
    frame = pd.DataFrame(rows)
    frame["timestamp"] = frame["origin"] + frame["horizon"] * HOUR
    n = len(frame)
    frame["predicted"], frame["scale"] = rng.uniform(50, 100, n), rng.uniform(0.5, 4, n)
    frame["actual"] = frame["predicted"] + frame["scale"] * rng.standard_t(3, n)
    frame.loc[rng.random(n) < 0.05, "actual"] = np.nan
    for level in LEVELS:
        frame[f"lower_{level}"], frame[f"upper_{level}"] = frame["predicted"] - level, frame["predicted"] + level
    return frame


def slow_width(frame: pd.DataFrame, row: pd.Series, level: float) -> float:
    """Return the half width of one interval by its definition, in units of the scale."""
    same = frame[(frame["sensor_id"] == row["sensor_id"]) & (frame["horizon"] == row["horizon"])]
    seen = same[(same["timestamp"] <= row["origin"]) & (same["timestamp"] > row["origin"] - pd.Timedelta(days=28))]
    scores = sorted(((seen["actual"] - seen["predicted"]).abs() / seen["scale"]).dropna())
    rank = math.ceil(round((len(scores) + 1) * level, 9))
    return scores[rank - 1] if rank <= len(scores) else math.nan


def test_bounds_are_those_of_the_definition_row_by_row() -> None:
    frame = forecasts_of()
    found = rolling_bounds(frame, LEVELS)
    for level in LEVELS:
        for i in np.random.default_rng(1).choice(len(frame), 250, replace=False):
            row = frame.iloc[i]
            reach = slow_width(frame, row, level) * row["scale"]
            expected = [row["predicted"] - reach, row["predicted"] + reach]
            assert found[level][i] == pytest.approx(expected, nan_ok=True)
        assert 0.1 < np.isfinite(found[level]).mean() < 1


def test_changing_what_happened_after_an_origin_moves_none_of_its_bounds() -> None:
    frame = forecasts_of()
    since = frame["origin"].min() + pd.Timedelta(days=35)
    changed = frame.copy()
    later = changed["timestamp"] > since
    changed.loc[later, "actual"] = changed.loc[later, "actual"] * 7 + 100
    known = (frame["origin"] <= since).to_numpy()
    before, after = rolling_bounds(frame, LEVELS), rolling_bounds(changed, LEVELS)
    for level in LEVELS:
        np.testing.assert_array_equal(before[level][known], after[level][known])
        assert np.isfinite(before[level][known]).any()
        assert not np.allclose(before[level][~known], after[level][~known], equal_nan=True)


def test_the_hour_of_the_origin_counts_and_the_one_28_days_before_it_does_not() -> None:
    """At horizon 24 h the newest known error is that of the forecast whose target is the origin itself."""
    origin = pd.date_range("2024-01-01T23:00:00Z", periods=40, freq="D")
    frame = pd.DataFrame({"sensor_id": "a", "origin": origin, "horizon": 24, "timestamp": origin + 24 * HOUR})
    frame = frame.assign(predicted=0.0, scale=1.0, actual=1.0)
    frame.loc[10, "actual"] = 9.0  # its target is the origin of row 11
    (bounds,) = rolling_bounds(frame, [28 / 29]).values()  # of 28 errors the largest
    assert np.isnan(bounds[:28]).all()
    assert bounds[28:, 1].tolist() == [9.0] * 11 + [1.0]


@pytest.mark.parametrize(("level", "fewest"), [(0.5, 1), (0.8, 4), (0.9, 9), (0.95, 19)])
def test_a_level_needs_as_many_errors_as_its_rank(level: float, fewest: int) -> None:
    origin = pd.date_range("2024-01-01T23:00:00Z", periods=25, freq="D")
    frame = pd.DataFrame({"sensor_id": "a", "origin": origin, "horizon": 1, "timestamp": origin + HOUR})
    bounds = rolling_bounds(frame.assign(predicted=0.0, scale=1.0, actual=1.0), [level])[level]
    assert np.flatnonzero(np.isfinite(bounds[:, 0]))[0] == fewest


def test_sensors_and_the_order_of_rows_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = forecasts_of()
    whole = rolling_bounds(frame, LEVELS)
    order = np.random.default_rng(2).permutation(len(frame))
    shuffled = rolling_bounds(frame.iloc[order], LEVELS)
    one = (frame["sensor_id"] == "s1").to_numpy()
    alone = rolling_bounds(frame[one], LEVELS)
    monkeypatch.setattr(rolling, "_ROWS_AT_ONCE", 77)
    parts = rolling_bounds(frame, LEVELS)
    for level in LEVELS:
        np.testing.assert_array_equal(shuffled[level], whole[level][order])
        np.testing.assert_array_equal(alone[level], whole[level][one])
        np.testing.assert_array_equal(parts[level], whole[level])


def test_exchangeable_errors_are_covered_as_promised() -> None:
    """The guarantee of conformal prediction: coverage of at least the level, at most 1 / (n + 1) more."""
    frame = forecasts_of(sensors=20, days=70, hours_ahead=24, seed=5)
    table = compare_intervals(frame, LEVELS).set_index(["intervals", "level"])
    for level in LEVELS:
        covered = table.at[("rolling", level), "coverage"]
        assert level - 0.01 < covered < level + 0.05


def test_both_kinds_of_intervals_are_compared_on_the_same_forecasts() -> None:
    frame = forecasts_of()
    bounds = rolling_bounds(frame, [0.8])[0.8]
    own, moving = compare_intervals(frame, [0.8]).to_dict("records")
    both = np.isfinite(bounds[:, 0]) & frame["actual"].notna().to_numpy()
    assert own["rows"] == moving["rows"] == both.sum()
    actual = frame.loc[both, "actual"]
    assert own["coverage"] == pytest.approx(((actual - frame.loc[both, "predicted"]).abs() <= 0.8).mean())
    assert own["interval_width"] == pytest.approx(1.6)
    assert moving["interval_width"] == pytest.approx((bounds[both, 1] - bounds[both, 0]).mean())
    below, above = actual - bounds[both, 0], actual - bounds[both, 1]
    losses = np.maximum(0.1 * below, -0.9 * below).mean(), np.maximum(0.9 * above, -0.1 * above).mean()
    assert moving["pinball"] == pytest.approx(sum(losses) / 2)
