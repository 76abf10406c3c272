"""Residual quantiles: the share of later residuals inside is the level asked for."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from smartgrid_pyfunc.models.intervals import ResidualQuantiles

LEVELS = [0.5, 0.8, 0.9, 0.95]


def drawn(rng: np.random.Generator, n: int, scale: dict[str, float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Skewed residuals that widen with the horizon and differ by sensor."""
    horizon = rng.integers(1, 169, n)
    sensor = rng.choice(np.array(list(scale), dtype=object), n)
    width = np.array([scale[s] for s in sensor])
    residuals = (rng.gamma(2.0, 1.0, n) - 1.5) * width * np.sqrt(1 + horizon / 24)
    return residuals, horizon, sensor


def share_inside(
    quantiles: ResidualQuantiles, level: float, sample: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> float:
    residuals, horizon, sensor = sample
    low, high = quantiles.bounds(level, horizon, sensor)
    return float(np.mean((low <= residuals) & (residuals <= high)))


@pytest.mark.parametrize("level", LEVELS)
def test_coverage_is_nominal_on_exchangeable_residuals(level: float) -> None:
    rng = np.random.default_rng(0)
    scale = {"a": 0.3, "b": 1.0, "c": 4.0}
    quantiles = ResidualQuantiles.fit(*drawn(rng, 40_000, scale))
    later = drawn(rng, 40_000, scale)
    assert share_inside(quantiles, level, later) == pytest.approx(level, abs=0.015)
    for name in scale:
        own = tuple(values[later[2] == name] for values in later)
        assert share_inside(quantiles, level, own) == pytest.approx(level, abs=0.03)  # type: ignore[arg-type]
    for first, last in [(1, 24), (25, 168)]:
        part = tuple(values[(later[1] >= first) & (later[1] <= last)] for values in later)
        assert share_inside(quantiles, level, part) == pytest.approx(level, abs=0.03)  # type: ignore[arg-type]


def test_a_tail_holds_half_of_what_is_outside() -> None:
    rng = np.random.default_rng(1)
    quantiles = ResidualQuantiles.fit(*drawn(rng, 40_000, {"a": 1.0}))
    residuals, horizon, sensor = drawn(rng, 40_000, {"a": 1.0})
    low, high = quantiles.bounds(0.9, horizon, sensor)
    assert np.mean(residuals < low) == pytest.approx(0.05, abs=0.01)
    assert np.mean(residuals > high) == pytest.approx(0.05, abs=0.01)


def test_intervals_widen_with_the_level() -> None:
    quantiles = ResidualQuantiles.fit(*drawn(np.random.default_rng(2), 5_000, {"a": 1.0, "b": 2.0}))
    horizon, sensor = np.arange(1, 169), np.array(["a", "b"] * 84, dtype=object)
    levels = [0.01, 0.3, 0.5, 0.9, 0.99, 0.999]
    bounds = [quantiles.bounds(level, horizon, sensor) for level in levels]
    for (low, high), (lower, higher) in itertools.pairwise(bounds):
        assert np.all(lower <= low)
        assert np.all(higher >= high)
        assert np.all(low <= high)


def test_a_restless_sensor_has_wider_intervals_and_an_unknown_one_those_of_all() -> None:
    rng = np.random.default_rng(3)
    quantiles = ResidualQuantiles.fit(*drawn(rng, 30_000, {"calm": 0.5, "usual": 1.0, "restless": 2.0}))
    names = np.array(["calm", "usual", "restless", "never seen"], dtype=object)
    low, high = quantiles.bounds(0.9, np.full(4, 12), names)
    width = high - low
    assert width[0] / width[1] == pytest.approx(0.5, rel=0.1)
    assert width[2] / width[1] == pytest.approx(2.0, rel=0.1)
    assert width[0] < width[3] < width[2]


def test_few_residuals_hardly_move_a_sensors_width() -> None:
    rng = np.random.default_rng(4)
    residuals = np.concatenate([rng.normal(0, 1, 20_000), rng.normal(0, 50, 5)])
    sensor = np.array(["many"] * 20_000 + ["few"] * 5, dtype=object)
    quantiles = ResidualQuantiles.fit(residuals, np.ones(20_005, dtype=int), sensor)
    low, high = quantiles.bounds(0.9, np.array([1, 1]), np.array(["many", "few"], dtype=object))
    assert 1 < (high - low)[1] / (high - low)[0] < 5


def test_missing_residuals_count_for_nothing() -> None:
    residuals, horizon, sensor = drawn(np.random.default_rng(5), 3_000, {"a": 1.0, "b": 2.0})
    with_gaps = np.concatenate([residuals, np.full(500, np.nan)])
    longer = (np.concatenate([horizon, horizon[:500]]), np.concatenate([sensor, sensor[:500]]))
    asked = (0.9, horizon, sensor)
    plain = ResidualQuantiles.fit(residuals, horizon, sensor).bounds(*asked)
    gappy = ResidualQuantiles.fit(with_gaps, *longer).bounds(*asked)
    assert np.array_equal(plain, gappy)


def test_without_any_residual_the_bounds_are_unknown() -> None:
    quantiles = ResidualQuantiles.fit(np.array([np.nan]), np.array([1]), np.array(["a"], dtype=object))
    low, high = quantiles.bounds(0.9, np.array([1, 168]), np.array(["a", "b"], dtype=object))
    assert np.isnan([low, high]).all()


@pytest.mark.parametrize("dead", [1, 3, 9])
def test_dead_sensors_do_not_shrink_the_intervals_of_the_living(dead: int) -> None:
    rng = np.random.default_rng(6)
    n = 4_000
    sensor = np.array(["alive"] * n + [f"dead {i}" for i in range(dead) for _ in range(n)], dtype=object)
    residuals = np.concatenate([rng.normal(0, 1, n), np.zeros(dead * n)])
    quantiles = ResidualQuantiles.fit(residuals, np.ones(len(sensor), dtype=int), sensor)
    later = rng.normal(0, 1, n)
    for name in ("alive", "never seen"):
        low, high = quantiles.bounds(0.9, np.ones(n, dtype=int), np.full(n, name, dtype=object))
        assert np.mean((low <= later) & (later <= high)) == pytest.approx(0.9, abs=0.03), name


def test_a_sensor_that_often_rests_does_not_spoil_the_others() -> None:
    rng = np.random.default_rng(7)
    n = 4_000
    sensor = np.array(["steady"] * n + ["rests"] * n, dtype=object)
    resting = np.where(rng.random(n) < 0.6, 0.0, rng.normal(0, 1, n))
    quantiles = ResidualQuantiles.fit(np.concatenate([rng.normal(0, 1, n), resting]), np.ones(2 * n, dtype=int), sensor)
    low, high = quantiles.bounds(0.9, np.array([1]), np.array(["steady"], dtype=object))
    assert (high - low)[0] == pytest.approx(2 * 1.645, rel=0.35)


def test_saved_equals_loaded() -> None:
    horizon, sensor = np.arange(1, 169), np.array(["a", "b"] * 84, dtype=object)
    fitted = ResidualQuantiles.fit(*drawn(np.random.default_rng(8), 3_000, {"a": 1.0, "b": 2.0}))
    loaded = ResidualQuantiles.from_arrays(fitted.to_arrays())
    assert np.array_equal(fitted.bounds(0.83, horizon, sensor), loaded.bounds(0.83, horizon, sensor))
