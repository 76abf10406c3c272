"""Profiles against numbers by hand and pandas' medians and quantiles."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from smartgrid_pyfunc.features.profile import DEVIATIONS, Profile, trailing_mean
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


def _fit(frame: pd.DataFrame) -> Profile:
    return Profile.fit(_context(frame))[0]


def _folded(profile: Profile, frame: pd.DataFrame) -> pd.DataFrame:
    """Deviations by name."""
    context = _context(frame)
    folded = profile.deviations(profile.knowledge(context), context).folded
    return pd.DataFrame(folded, columns=list(DEVIATIONS))


def _surprise(profile: Profile, frame: pd.DataFrame) -> pd.DataFrame:
    context = _context(frame)
    what = profile.knowledge(context)
    table = profile.tails.surprise(what.group, profile.deviations(what, context).folded)
    return pd.DataFrame(table, columns=list(DEVIATIONS))


def _group(profile: Profile, sensor: str, kind: str) -> tuple[int, int]:
    group, level = profile.levels(parse_readings(_series(sensor, 1.0, 1, kind)))
    return int(group[0]), int(level[0])


def test_centres_are_pandas_medians_by_hour_of_the_week_at_every_level(grid: pd.DataFrame):
    profile = _fit(grid)
    hour = grid["timestamp"].dt.day_of_week * 24 + grid["timestamp"].dt.hour
    for (sensor, kind), chosen in {
        ("b", "power"): grid["sensor_id"] == "b",
        ("?", "power"): grid["sensor_type"] == "power",
        ("?", "?"): grid["value"].notna(),
    }.items():
        expected = grid[chosen].groupby(hour[chosen])["value"].median().to_numpy()
        np.testing.assert_allclose(profile.tables.centre[_group(profile, sensor, kind)[0]], expected)


def test_spreads_are_scaled_median_absolute_deviations_by_hour_of_the_day(grid: pd.DataFrame):
    profile = _fit(grid)
    own = grid[grid["sensor_id"] == "a"].set_index("timestamp")["value"]
    residual = (own - own.groupby([own.index.day_of_week, own.index.hour]).transform("median")).abs()
    group = _group(profile, "a", "power")[0]
    np.testing.assert_allclose(profile.tables.spread[group], 1.4826 * residual.groupby(residual.index.hour).median())
    assert profile.tables.scale[group] == pytest.approx(1.4826 * residual.median())


def test_a_quarter_of_the_time_is_judged_by_the_others(grid: pd.DataFrame):
    own = grid[grid["sensor_id"] == "a"].reset_index(drop=True)
    _, folded, _ = Profile.fit(_context(own))
    block = np.arange(len(own)) * 4 // len(own)
    hour = own["timestamp"].dt.day_of_week * 24 + own["timestamp"].dt.hour
    for b in range(4):
        others = own[block != b]
        usual = others.groupby(hour[block != b])["value"].median()
        residual = (others["value"] - hour[block != b].map(usual)).abs()
        of_day = others["timestamp"].dt.hour
        spread = 1.4826 * residual.groupby(of_day).median()
        judged = own[block == b]
        expected = (judged["value"] - hour[block == b].map(usual)) / judged["timestamp"].dt.hour.map(spread)
        np.testing.assert_allclose(folded[block == b, 0], expected)


def test_days_are_compared_with_the_mean_and_the_median_of_the_same_hours_before(grid: pd.DataFrame):
    own = grid[grid["sensor_id"] == "a"]
    table = _folded(_fit(grid), own)
    off = table["value"].to_numpy().reshape(-1, 24)  # days of hours
    for day in (2, 3, 5, 30):
        before = off[max(0, day - 7) : day]
        found = table["day_value"].to_numpy().reshape(-1, 24)[day]
        expected = off[day] - before.mean(axis=0) if len(before) >= 3 else np.full(24, np.nan)
        np.testing.assert_allclose(found, expected, atol=1e-5)
    ratio = table["ratio"].to_numpy().reshape(-1, 24)
    np.testing.assert_allclose(
        table["day_ratio"].to_numpy().reshape(-1, 24)[9], ratio[9] - np.median(ratio[2:9], axis=0), atol=1e-12
    )


def test_the_level_is_the_mean_over_six_hours_and_the_reading(grid: pd.DataFrame):
    table = _folded(_fit(grid), grid[grid["sensor_id"] == "b"])
    expected = table["day_value"].clip(-8, 8).rolling(7).mean()
    np.testing.assert_allclose(table["level"][200:], expected[200:], atol=1e-5)


def test_a_new_season_is_not_strange_for_longer_than_a_week(grid: pd.DataFrame):
    own = grid[grid["sensor_id"] == "a"].head(4 * 168)
    shifted = own.assign(value=own["value"].where(np.arange(len(own)) < 336, own["value"] + 4.0))
    table = _folded(_fit(grid), shifted)
    assert table["value"][336:].median() > 3
    assert table["day_value"][336:360].median() > 3
    assert abs(table["day_value"][336 + 168 :].median()) < 0.5


def test_ratios_are_logarithmic_and_know_the_sign():
    values = np.random.default_rng(0).permutation(np.tile([50.0, 100.0, 200.0], 560))
    profile = _fit(_series("a", values, 1680))
    once, tenfold, turned = (_folded(profile, _series("a", v, 1))["ratio"][0] for v in (1e3, 1e4, -1e3))
    assert tenfold - once == pytest.approx(math.log(10), abs=0.01)
    usual = math.asinh(profile.tables.centre[0, 0] / profile.tables.unit[0])
    assert turned == pytest.approx(-once - 2 * usual)


def test_an_unknown_sensor_with_history_is_compared_with_its_types_shape_scaled_to_it():
    shape = 1 + np.sin(np.arange(8 * 168) * 2 * np.pi / 24)
    known = [_series(f"s{i}", 10.0**i * (shape + 0.02 * _noise(len(shape), i, 0)), len(shape)) for i in range(4)]
    profile = _fit(pd.concat(known, ignore_index=True))
    new = _series("new", 37.0 * shape[:336], 336)
    context = _context(new)
    what = profile.knowledge(context)
    found = profile.deviations(what, context)
    assert set(what.level) == {1}
    # After three days of its own the new sensor's usual values are the shape times its size.
    assert np.abs(found.expected[96:] / 37.0 - shape[96:336]).max() < 0.25
    assert np.abs(found.folded[96:, 0]).max() < 15
    # No row of it sees a later one: the scale comes from the first 24, 48, 96 … readings.
    changed = new.assign(value=new["value"].where(np.arange(336) < 200, 1e6))
    context = _context(changed)
    again = profile.deviations(profile.knowledge(context), context)
    np.testing.assert_array_equal(again.folded[:200], found.folded[:200])


def test_unknown_sensors_without_history_are_compared_with_all_values_of_their_type(grid: pd.DataFrame):
    profile = _fit(grid)
    table = _folded(profile, _series("new", 10.0, 1))
    group = _group(profile, "new", "power")[0]
    expected = (10.0 - profile.tables.centre[group, 0]) / profile.tables.spread[group, 0]
    assert table["value"][0] == pytest.approx(expected)


def test_trailing_means_by_hand():
    first, end = np.array([0, 0, 0, 0, 4, 4]), np.array([0, 1, 2, 3, 4, 5])
    values = np.array([1.0, 2.0, 90.0, 4.0, 5.0, 7.0])
    found = trailing_mean(values, first, end, 2, 10.0)
    np.testing.assert_allclose(found, [np.nan, 1.5, 6.0, 7.0, np.nan, 6.0], atol=1e-6)


def test_an_hour_of_the_week_with_few_readings_takes_the_hour_of_the_day():
    # Three weeks: three readings an hour of the week are not trusted, 21 an hour of the day are.
    n = 3 * 168
    values = np.where(np.arange(n) % 24 == 7, 5.0, 1.0) + np.where(np.arange(n) % 168 == 7, 100.0, 0.0)
    profile = _fit(_series("a", values, n))
    assert profile.tables.centre[0].tolist() == [5.0 if h % 24 == 7 else 1.0 for h in range(168)]


def test_hours_never_seen_take_the_median_over_all():
    frame = _series("a", np.tile([1.0, 2.0, 4.0], 40), 120, step="1D")  # midnights only
    profile = _fit(frame)
    assert profile.tables.centre[0, 5] == 2.0


def test_few_readings_are_known_by_their_type_and_few_of_a_type_by_all(grid: pd.DataFrame):
    few = [_series("new", 3.0, 47), _series("c", 3.0, 47, "current"), _series("known", 3.0, 48)]
    profile = _fit(pd.concat([grid, *few], ignore_index=True))
    assert [_group(profile, *who)[1] for who in (("known", "power"), ("new", "power"), ("c", "current"))] == [0, 1, 2]
    assert profile.sensors.tolist() == ["a", "b", "known", "v"]


def test_no_sensor_and_no_type_may_be_known():
    frame = pd.concat([_series(f"s{i}", _noise(40, i), 40, f"type{i}") for i in range(4)], ignore_index=True)
    profile = _fit(frame)
    group, level = profile.levels(parse_readings(frame))
    assert set(level) == {2}
    assert set(group) == {0}
    assert profile.tables.location[0] == pytest.approx(frame["value"].median())


@pytest.mark.parametrize("constant", [0.0, 7.0, -1e-6, 1e9])
def test_a_constant_sensor_is_not_surprised_by_its_value_and_is_by_another(constant: float):
    frame = _series("a", constant, 400)
    profile = _fit(frame)
    assert _surprise(profile, frame)[["value", "ratio", "day_value"]].max().max() == 0.0
    strange = _surprise(profile, _series("a", constant + max(1e-3, abs(constant)), 3))["value"]
    assert np.isfinite(strange).all()
    assert strange.min() > 10


def test_a_sensor_that_stands_still_most_of_the_time_has_a_spread():
    values = np.zeros(500)
    values[::10] = 20.0  # the median absolute deviation is 0, the mean absolute deviation is 2
    profile = _fit(_series("a", values, 500))
    assert profile.tables.scale[0] == pytest.approx(2.0)


def test_what_is_not_known_has_no_surprise(grid: pd.DataFrame):
    found = _surprise(_fit(grid), _series("a", 10.0, 1)).iloc[0]
    assert found.isna().to_dict() == {name: name not in ("value", "ratio") for name in DEVIATIONS}


def test_values_at_the_end_of_the_floating_point_range_stay_finite(grid: pd.DataFrame):
    profile = _fit(grid)
    far = _series("a", np.array([1.7e308, -1.7e308] * 60), 120)
    assert not np.isinf(_folded(profile, far)).any(axis=None)
    assert not np.isinf(_surprise(profile, far)).any(axis=None)
    assert not np.isinf(_surprise(profile, far.assign(sensor_id="new"))).any(axis=None)


def test_arrays_hold_the_whole_profile(grid: pd.DataFrame):
    profile = _fit(grid)
    again = Profile.from_arrays(profile.to_arrays())
    for asked in (grid, grid.assign(sensor_id="new-" + grid["sensor_id"])):
        pd.testing.assert_frame_equal(_surprise(again, asked), _surprise(profile, asked))
    assert again.sensors.tolist() == profile.sensors.tolist() == ["a", "b", "v"]


def test_six_hours_that_go_on_alike_need_days_to_tell_a_tail():
    def knows_level(days: int) -> bool:
        n = days * 288
        frame = _series("a", _noise(n), n, step="5min")
        return bool(_surprise(_fit(frame), frame)["level"].notna().any())

    # The first three days have no level, and twelve stretches of six hours are three more.
    assert [knows_level(days) for days in (5, 7)] == [False, True]
