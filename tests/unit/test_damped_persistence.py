"""Damped persistence: what is left of the last hour's deviation after 1…168 hours."""

from __future__ import annotations

import numpy as np
import pytest

from smartgrid_pyfunc.features.design import CHANGES, LINEAR_LEVELS, Design
from smartgrid_pyfunc.models.damped_persistence import DampedPersistence, smoothed_by_horizon


def design_of(change: np.ndarray, horizon: np.ndarray) -> Design:
    n = len(change)
    history = np.zeros((n, len(LINEAR_LEVELS) + len(CHANGES)), dtype=np.float32)
    history[:, len(LINEAR_LEVELS) + CHANGES.index("day_change_1h")] = change
    base = {"last_day": np.full(n, 50.0), "level": np.full(n, 40.0)}
    sensor = np.full(n, "a", dtype=object)
    return Design(np.zeros((n, 1), dtype=np.float32), {"history": history}, base, np.full(n, 10.0), horizon, sensor)


def drawn(n: int) -> tuple[Design, np.ndarray]:
    """Rows whose deviation halves every six hours."""
    rng = np.random.default_rng(1)
    horizon, change = rng.integers(1, 169, n), rng.normal(size=n)
    load = 50 + 10 * change * 0.5 ** (horizon / 6) + rng.normal(size=n)
    return design_of(change, horizon), load


def test_the_decay_of_a_deviation_is_found() -> None:
    design, load = drawn(200_000)
    share = DampedPersistence.fit(design, load).share
    hours = np.array([1, 2, 3, 6, 12, 24, 168])
    np.testing.assert_allclose(share[hours - 1], 0.5 ** (hours / 6), atol=0.03)


def test_the_forecast_is_the_last_day_and_what_is_left_of_the_deviation() -> None:
    design = design_of(np.array([2.0, 2.0, 9.0]), np.array([1, 168, 1]))
    share = np.linspace(1.0, 0.0, 168)
    # a change of nine spreads is a fault: four of them count
    np.testing.assert_allclose(DampedPersistence(share).predict(design), [50 + 20, 50, 50 + 40])


def test_without_evidence_it_is_the_last_day() -> None:
    design = design_of(np.zeros(5), np.arange(1, 6))
    np.testing.assert_allclose(DampedPersistence.fit(design, np.full(5, 70.0)).predict(design), 50.0)


def test_sums_near_a_horizon_are_those_of_the_kernel() -> None:
    horizon, values = np.array([1, 1, 2, 100, 110]), np.array([1.0, 2.0, 5.0, 7.0, 9.0])
    found = smoothed_by_horizon(values, horizon)
    assert found[0] == pytest.approx(3 + 5 * np.exp(-0.5 * (1 / 0.25) ** 2))
    assert found[99] == pytest.approx(7 + 9 * np.exp(-0.5), rel=1e-6)


def test_saved_equals_loaded() -> None:
    design, load = drawn(2_000)
    fitted = DampedPersistence.fit(design, load)
    again = DampedPersistence.from_arrays(fitted.to_arrays())
    np.testing.assert_array_equal(again.predict(design), fitted.predict(design))
