"""Profiles against numbers by hand and pandas' medians and quantiles."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from smartgrid_pyfunc.features.profile import DEVIATIONS, Profile
from smartgrid_pyfunc.features.readings import ReadingContext, parse_readings, read_context


def _context(frame: pd.DataFrame, timezone: str = "UTC") -> ReadingContext:
    return read_context(parse_readings(frame), timezone)


def _series(sensor: str, values: np.ndarray | float, n: int, kind: str = "power", step: str = "1h") -> pd.DataFrame:
    times = pd.date_range("2026-01-05", periods=n, freq=step, tz="UTC")  # a Monday
    return pd.DataFrame({"sensor_id": sensor, "sensor_type": kind, "timestamp": times, "value": values})


def _noise(n: int, seed: int = 0, mean: float = 10.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, 1.0, n)


@pytest.fixture(scope="module")
def grid() -> pd.DataFrame:
    """Two power sensors and one voltage sensor, eight weeks."""
    n = 8 * 168
    return pd.concat(
        [
            _series("a", _noise(n, 1), n),
            _series("b", _noise(n, 2, 50.0), n),
            _series("v", _noise(n, 3, 230.0), n, "voltage"),
        ],
        ignore_index=True,
    )


def _group(profile: Profile, sensor: str, kind: str) -> tuple[int, int]:
    group, level = profile.group_of(pd.DataFrame({"sensor_id": [sensor], "sensor_type": [kind]}))
    return int(group[0]), int(level[0])


def test_centres_are_pandas_medians_by_hour_of_the_week_at_every_level(grid: pd.DataFrame):
    profile = Profile.fit(_context(grid))
    hour = grid["timestamp"].dt.day_of_week * 24 + grid["timestamp"].dt.hour
    for (sensor, kind), chosen in {
        ("b", "power"): grid["sensor_id"] == "b",
        ("?", "power"): grid["sensor_type"] == "power",
        ("?", "?"): grid["value"].notna(),
    }.items():
        expected = grid[chosen].groupby(hour[chosen])["value"].median().to_numpy()
        np.testing.assert_allclose(profile.centre[_group(profile, sensor, kind)[0]], expected)


def test_spreads_are_scaled_median_absolute_deviations_by_hour_of_the_day(grid: pd.DataFrame):
    profile = Profile.fit(_context(grid))
    own = grid[grid["sensor_id"] == "a"].set_index("timestamp")["value"]
    residual = (own - own.groupby([own.index.day_of_week, own.index.hour]).transform("median")).abs()
    group = _group(profile, "a", "power")[0]
    np.testing.assert_allclose(profile.spread[group], 1.4826 * residual.groupby(residual.index.hour).median())
    assert profile.scale[group] == pytest.approx(1.4826 * residual.median())


def test_tails_are_pandas_quantiles_of_the_deviations(grid: pd.DataFrame):
    context = _context(grid)
    profile = Profile.fit(context)
    group = profile.group_of(context.rows)[0]
    table = pd.DataFrame(profile.deviations(group, context), columns=list(DEVIATIONS))[group == 1]
    for j, name in enumerate(DEVIATIONS):
        for k, tail in ((2, 0.5), (7, 0.01), (10, 0.001)):
            assert profile.tails[1, j, k] == pytest.approx(table[name].quantile(1 - tail)), name


def test_surprise_is_the_negative_log_of_the_share_that_deviates_as_much(grid: pd.DataFrame):
    context = _context(grid)
    profile = Profile.fit(context)
    group = profile.group_of(context.rows)[0]
    deviations = profile.deviations(group, context)
    surprise = profile.surprise(group, deviations)[group == 0, 0]
    own = deviations[group == 0, 0]
    share = np.array([(own >= x).mean() for x in own])
    usual = share > 0.01
    assert np.abs(surprise[usual] + np.log(share[usual])).max() < 0.3  # interpolated between the quantiles kept


def test_half_width_is_exceeded_by_the_share_asked_for(grid: pd.DataFrame):
    context = _context(grid)
    profile = Profile.fit(context)
    group = profile.group_of(context.rows)[0]
    for tail in (0.01, 0.05, 0.2):
        width = profile.half_width(group, context.hour_of_week, tail)
        off = np.abs(context.rows["value"] - profile.expected(group, context.hour_of_week))
        assert (off > width).mean() == pytest.approx(tail, rel=0.1)


def test_an_hour_of_the_week_with_few_readings_takes_the_hour_of_the_day():
    # Three weeks: three readings an hour of the week are not trusted, 21 an hour of the day are.
    n = 3 * 168
    values = np.where(np.arange(n) % 24 == 7, 5.0, 1.0) + np.where(np.arange(n) % 168 == 7, 100.0, 0.0)
    profile = Profile.fit(_context(_series("a", values, n)))
    assert profile.centre[0].tolist() == [5.0 if h % 24 == 7 else 1.0 for h in range(168)]


def test_hours_never_seen_take_the_median_over_all():
    frame = _series("a", np.tile([1.0, 2.0, 4.0], 40), 120, step="1D")  # midnights only
    profile = Profile.fit(_context(frame))
    assert profile.centre[0, 5] == 2.0


def test_few_readings_are_known_by_their_type_and_few_of_a_type_by_all(grid: pd.DataFrame):
    few = [_series("new", 3.0, 47), _series("c", 3.0, 47, "current"), _series("known", 3.0, 48)]
    profile = Profile.fit(_context(pd.concat([grid, *few], ignore_index=True)))
    assert [_group(profile, *who)[1] for who in (("known", "power"), ("new", "power"), ("c", "current"))] == [0, 1, 2]
    assert profile.sensors.tolist() == ["a", "b", "known", "v"]


def test_no_sensor_and_no_type_may_be_known():
    frame = pd.concat([_series(f"s{i}", _noise(40, i), 40, f"type{i}") for i in range(4)], ignore_index=True)
    context = _context(frame)
    profile = Profile.fit(context)
    group, level = profile.group_of(context.rows)
    assert set(level) == {2}
    assert set(group) == {0}
    assert profile.location[0] == pytest.approx(frame["value"].median())


@pytest.mark.parametrize("constant", [0.0, 7.0, -1e-6, 1e9])
def test_a_constant_sensor_is_not_surprised_by_its_value_and_is_by_another(constant: float):
    context = _context(_series("a", constant, 400))
    profile = Profile.fit(context)
    group = np.zeros(400, dtype=np.int64)
    assert profile.surprise(group, profile.deviations(group, context))[:, 0].max() == 0.0
    other = _context(_series("a", constant + max(1e-3, abs(constant)), 3))
    strange = profile.surprise(group[:3], profile.deviations(group[:3], other))[:, 0]
    assert np.isfinite(strange).all()
    assert strange.min() > 10


def test_a_sensor_that_stands_still_most_of_the_time_has_a_spread():
    values = np.zeros(500)
    values[::10] = 20.0  # the median absolute deviation is 0, the mean absolute deviation is 2
    profile = Profile.fit(_context(_series("a", values, 500)))
    assert profile.scale[0] == pytest.approx(2.0)


def test_what_is_not_known_has_no_surprise(grid: pd.DataFrame):
    profile = Profile.fit(_context(grid))
    surprise = profile.surprise(np.array([0]), np.array([[1.0, math.nan, math.nan, math.nan, math.nan, math.nan]]))
    assert np.isnan(surprise).tolist() == [[False, True, True, True, True, True]]


def test_surprise_never_falls_when_a_deviation_grows(grid: pd.DataFrame):
    profile = Profile.fit(_context(grid))
    for group in range(len(profile.tails)):
        deviation = np.tile(np.linspace(0, 50, 5_001)[:, None], len(DEVIATIONS))
        surprise = profile.surprise(np.full(5_001, group), deviation)
        assert (np.diff(surprise, axis=0) >= 0).all()


def test_values_at_the_end_of_the_floating_point_range_stay_finite(grid: pd.DataFrame):
    profile = Profile.fit(_context(grid))
    context = _context(_series("a", np.array([1.7e308, -1.7e308] * 20), 40))
    group = np.zeros(40, dtype=np.int64)
    deviations = profile.deviations(group, context)
    assert not np.isinf(deviations).any()
    assert not np.isinf(profile.surprise(group, deviations)).any()


def test_arrays_hold_the_whole_profile(grid: pd.DataFrame):
    context = _context(grid)
    profile = Profile.fit(context)
    again = Profile.from_arrays(profile.to_arrays())
    group, level = again.group_of(context.rows)
    np.testing.assert_array_equal(level, profile.group_of(context.rows)[1])
    np.testing.assert_array_equal(again.deviations(group, context), profile.deviations(group, context))
    np.testing.assert_array_equal(again.tails, profile.tails)
