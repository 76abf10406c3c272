"""Residual quantiles: the share of later residuals inside is the level asked for."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from smartgrid_pyfunc.models.intervals import Conditions, Difficulty, ResidualQuantiles

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


# ------------------------------------------------------------------------------------------------------- difficulty


def hard_and_easy(rng: np.random.Generator, n: int, weeks: int = 10) -> tuple[np.ndarray, Conditions, np.ndarray]:
    """Residuals whose spread is e^x under the condition x; the second condition says nothing; weeks in order."""
    x = rng.uniform(-1, 1, n)
    columns = np.column_stack([x, rng.random(n)]).astype(np.float32)
    return rng.normal(0, np.exp(x)), Conditions(columns), np.arange(n) * weeks // n


def fitted_on(rng: np.random.Generator, n: int, weeks: int = 10) -> ResidualQuantiles:
    residuals, conditions, week = hard_and_easy(rng, n, weeks)
    return ResidualQuantiles.fit(residuals, np.full(n, 12), np.full(n, "a", dtype=object), conditions, week)


def bounds_of(quantiles: ResidualQuantiles, level: float, conditions: Conditions) -> tuple[np.ndarray, np.ndarray]:
    n = len(conditions.columns)
    return quantiles.bounds(level, np.full(n, 12), np.full(n, "a", dtype=object), conditions)


@pytest.mark.parametrize("level", LEVELS)
def test_coverage_is_nominal_in_hard_and_in_easy_conditions(level: float) -> None:
    rng = np.random.default_rng(10)
    quantiles = fitted_on(rng, 12_000)
    residuals, conditions, _ = hard_and_easy(rng, 20_000)
    low, high = bounds_of(quantiles, level, conditions)
    inside = (low <= residuals) & (residuals <= high)
    assert inside.mean() == pytest.approx(level, abs=0.015)
    for part in (conditions.columns[:, 0] < -0.5, conditions.columns[:, 0] > 0.5):
        assert inside[part].mean() == pytest.approx(level, abs=0.04)


def test_widths_follow_the_difficulty() -> None:
    quantiles = fitted_on(np.random.default_rng(11), 12_000)
    low, high = bounds_of(quantiles, 0.9, Conditions(np.array([[-0.9, 0.5], [0.9, 0.5]], dtype=np.float32)))
    assert (
        4 < (high - low)[1] / (high - low)[0] < np.exp(1.8) * 1.2
    )  # trees that draw their features shrink it a little


@pytest.mark.parametrize("level", LEVELS)
def test_conditions_that_tell_weeks_apart_but_nothing_else_leave_coverage_nominal(level: float) -> None:
    """Each week has its own size of errors, which nothing foretells: a later week's is not known."""
    rng = np.random.default_rng(12)
    size = np.exp(rng.normal(0, 0.5, 400))

    def weeks(first: int, count: int) -> tuple[np.ndarray, Conditions, np.ndarray]:
        week = np.repeat(np.arange(first, first + count), 100)
        mark = np.random.default_rng(13).random(400)[week]
        return rng.normal(0, size[week]), Conditions(mark[:, None].astype(np.float32)), week

    residuals, conditions, week = weeks(0, 40)
    horizon, sensor = np.full(len(week), 12), np.full(len(week), "a", dtype=object)
    quantiles = ResidualQuantiles.fit(residuals, horizon, sensor, conditions, week)
    later, marks, _ = weeks(40, 360)
    low, high = bounds_of(quantiles, level, marks)
    assert np.mean((low <= later) & (later <= high)) == pytest.approx(level, abs=0.05)


def test_the_season_counts_half() -> None:
    """Of two equally telling conditions, a seasonal one is seen by half of the trees only."""
    rng = np.random.default_rng(14)
    x = rng.uniform(-1, 1, 8_000)
    columns, residuals = x[:, None].astype(np.float32), rng.normal(0, np.exp(x))
    ends = np.array([[-0.9], [0.9]], dtype=np.float32)
    plain, seasonal = (
        np.log(Difficulty.fit(Conditions(columns, columns_of_season), residuals).of(Conditions(ends)))
        for columns_of_season in ((), (0,))
    )
    assert np.diff(seasonal)[0] == pytest.approx(np.diff(plain)[0] / 2, rel=0.15)


@pytest.mark.parametrize(("n", "weeks"), [(300, 10), (5_000, 1)])
def test_few_residuals_or_weeks_teach_no_difficulty(n: int, weeks: int) -> None:
    low, high = bounds_of(
        fitted_on(np.random.default_rng(15), n, weeks), 0.9, Conditions(np.array([[-1.0, 0], [1, 0]]))
    )
    assert low[0] == low[1]
    assert high[0] == high[1]


def test_unknown_conditions_give_an_interval() -> None:
    quantiles = fitted_on(np.random.default_rng(16), 4_000)
    low, high = bounds_of(quantiles, 0.9, Conditions(np.full((1, 2), np.nan, dtype=np.float32)))
    assert -10 < low[0] < 0 < high[0] < 10


def test_a_condition_never_known_teaches_nothing() -> None:
    residuals, conditions, week = hard_and_easy(np.random.default_rng(17), 4_000)
    conditions.columns[:, 1] = np.nan
    horizon, sensor = np.full(4_000, 12), np.full(4_000, "a", dtype=object)
    quantiles = ResidualQuantiles.fit(residuals, horizon, sensor, conditions, week)
    asked = [Conditions(np.array([[0.5, value]], dtype=np.float32)) for value in (np.nan, 0.0, 9.0)]
    assert len({bounds_of(quantiles, 0.9, conditions)[1][0] for conditions in asked}) == 1


def test_a_learnt_difficulty_needs_conditions() -> None:
    quantiles = fitted_on(np.random.default_rng(18), 4_000)
    with pytest.raises(ValueError, match="conditions"):
        quantiles.bounds(0.9, np.array([12]), np.array(["a"], dtype=object))


def test_difficulty_is_saved_and_loaded_bit_for_bit() -> None:
    rng = np.random.default_rng(19)
    quantiles = fitted_on(rng, 4_000)
    _, conditions, _ = hard_and_easy(rng, 500)
    loaded = ResidualQuantiles.from_arrays(quantiles.to_arrays())
    assert np.array_equal(bounds_of(quantiles, 0.83, conditions), bounds_of(loaded, 0.83, conditions))
    assert all(values.dtype.kind in "fiuO" for values in quantiles.to_arrays().values())


def test_constant_sensors_leave_the_difficulty_of_the_others_alone() -> None:
    rng = np.random.default_rng(20)
    n = 6_000
    residuals, conditions, week = hard_and_easy(rng, n)
    both = Conditions(np.concatenate([conditions.columns, rng.random((3 * n, 2)).astype(np.float32)]))
    sensor = np.array(["a"] * n + ["dead"] * 3 * n, dtype=object)
    weeks, errors = np.concatenate([week, *[week] * 3]), np.concatenate([residuals, np.zeros(3 * n)])
    mixed = ResidualQuantiles.fit(errors, np.full(4 * n, 12), sensor, both, weeks)
    later, asked, _ = hard_and_easy(rng, 10_000)
    low, high = bounds_of(mixed, 0.9, asked)
    assert np.mean((low <= later) & (later <= high)) == pytest.approx(0.9, abs=0.03)
    low, high = bounds_of(mixed, 0.9, Conditions(np.array([[-0.9, 0.5], [0.9, 0.5]], dtype=np.float32)))
    assert (high - low)[1] / (high - low)[0] > 3.5
