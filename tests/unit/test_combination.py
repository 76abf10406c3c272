"""Weights of several forecasts, by horizon."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize

from smartgrid_pyfunc.models.combination import Combination

PRIOR = np.array([0.0, 0.5, 0.5])


def errors_of(n: int, spreads: tuple[float, ...]) -> np.ndarray:
    return np.random.default_rng(2).normal(size=(n, len(spreads))) * np.array(spreads)


def test_weights_are_the_constrained_least_squares_of_a_slow_solver() -> None:
    errors = errors_of(5_000, (0.4, 0.25, 0.5))
    products = errors.T @ errors / len(errors)
    pull = 0.1 * np.trace(products) / 3
    slow = minimize(
        lambda w: w @ products @ w + pull * ((w - PRIOR) ** 2).sum(),
        PRIOR,
        bounds=[(0, 1)] * 3,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        tol=1e-12,
    )
    found = Combination.fit(errors, np.full(5_000, 168), PRIOR).weights
    # the last group is drawn to the weights over all horizons, which here are its own rows
    again = minimize(
        lambda w: w @ products @ w + pull * ((w - slow.x) ** 2).sum(),
        PRIOR,
        bounds=[(0, 1)] * 3,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        tol=1e-12,
    )
    np.testing.assert_allclose(found[0], slow.x, atol=2e-4)
    np.testing.assert_allclose(found[-1], again.x, atol=2e-4)


def test_weights_are_convex_and_follow_the_horizon() -> None:
    near, far = errors_of(4_000, (0.2, 1.0, 1.0)), errors_of(4_000, (2.0, 0.3, 1.0))
    horizon = np.repeat([1, 100], 4_000)
    found = Combination.fit(np.vstack([near, far]), horizon, PRIOR)
    weights = found.by_row(np.array([1, 100]))
    assert (found.weights >= 0).all()
    np.testing.assert_allclose(found.weights.sum(axis=1), 1.0)
    assert weights[0].argmax() == 0 and weights[1].argmax() == 1


def test_equal_forecasts_get_the_prior_weights() -> None:
    same = np.repeat(errors_of(1_000, (1.0,)), 3, axis=1)
    np.testing.assert_allclose(Combination.fit(same, np.full(1_000, 5), PRIOR).weights[4], PRIOR, atol=1e-4)


def test_few_or_unknown_errors_leave_the_prior() -> None:
    unknown = np.full((900, 3), np.nan)
    for errors in (errors_of(50, (0.1, 1.0, 1.0)), unknown, np.zeros((900, 3))):
        found = Combination.fit(errors, np.full(len(errors), 1), PRIOR)
        np.testing.assert_array_equal(found.weights, np.tile(PRIOR, (8, 1)))


def test_one_fault_does_not_decide() -> None:
    errors = errors_of(4_000, (0.3, 1.0, 1.0))
    errors[0, 0] = 1e6
    assert Combination.fit(errors, np.full(4_000, 3), PRIOR).weights[2].argmax() == 0


def test_the_combined_forecast_is_the_weighted_mean() -> None:
    combination = Combination.prior(np.array([0.25, 0.25, 0.5]))
    found = combination.of(np.array([[4.0, 8.0, 10.0], [0.0, 0.0, 2.0]]), np.array([1, 168]))
    np.testing.assert_allclose(found, [8.0, 1.0])
