"""Tests on paired losses: they err as rarely as they promise, also where days depend on each other."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from statsmodels.tsa.stattools import diebold_mariano_test

from smartgrid_pyfunc.evaluation.significance import (
    BETTER,
    NOT_WORSE,
    UNDECIDED,
    WORSE,
    block_bootstrap,
    confidence_sequence,
    days_needed,
    long_run_deviation,
    paired,
    ratio_interval,
)


def losses(days: int, ratio: float, seed: int, noise: float = 0.05) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Daily losses of two models: a common part that varies from day to day, and an autocorrelated difference."""
    rng = np.random.default_rng(seed)
    common = 10 + np.abs(rng.normal(0, 2, days)) + 2 * (np.arange(days) % 7 >= 5)
    own = np.zeros(days)
    for day in range(1, days):
        own[day] = 0.3 * own[day - 1] + rng.normal(0, noise * 10)
    return common, np.maximum(common * ratio + own, 0)


def test_a_clear_winner_and_a_clear_loser_are_told():
    reference, candidate = losses(56, 0.9, seed=1)
    assert paired(reference, candidate).verdict == BETTER
    found = paired(candidate, reference)
    assert found.verdict == WORSE
    assert found.low > 1.03
    assert found.ratio == pytest.approx(reference.mean() / candidate.mean())


def test_the_same_losses_are_not_worse_and_an_unsteady_few_days_decide_nothing():
    reference, _ = losses(28, 1.0, seed=2)
    same = paired(reference, reference)
    assert (same.verdict, same.ratio) == (NOT_WORSE, 1.0)
    few = paired(*losses(8, 1.0, seed=3, noise=0.6))
    assert few.verdict == UNDECIDED
    assert paired(reference[:5], reference[:5] * 2).verdict == UNDECIDED  # too few for any test
    assert paired([], []).verdict == UNDECIDED


def test_the_p_value_is_never_below_that_of_statsmodels():
    for seed in range(20):
        reference, candidate = losses(40, 0.99, seed=seed)
        theirs = diebold_mariano_test(np.zeros(40), candidate, reference, criterion=lambda _, f: f, harvey_adj=True)
        ours = paired(reference, candidate)
        assert 2 * min(ours.p_better, ours.p_worse) >= theirs.pvalue - 1e-12


def test_verdicts_are_wrong_no_more_often_than_promised():
    equal = [paired(*losses(56, 1.0, seed=seed), alpha=0.05) for seed in range(300)]
    assert np.mean([found.p_better <= 0.05 for found in equal]) <= 0.075
    assert np.mean([found.p_worse <= 0.05 for found in equal]) <= 0.075
    on_the_margin = [paired(*losses(56, 1.03, seed=seed), margin=0.03) for seed in range(300)]
    assert np.mean([found.verdict in (BETTER, NOT_WORSE) for found in on_the_margin]) <= 0.075


def test_the_interval_of_the_ratio_covers_what_it_promises():
    inside = 0
    for seed in range(300):
        low, high = ratio_interval(*losses(84, 0.95, seed=seed), level=0.9, draws=300)
        inside += low <= 0.95 <= high
    assert 0.80 < inside / 300 < 0.96


def test_days_on_which_a_loss_is_missing_are_left_out():
    reference, candidate = losses(40, 0.9, seed=5)
    gap = reference.copy()
    gap[3] = np.nan
    assert paired(gap, candidate).n == 39
    assert paired(gap, candidate) == paired(np.delete(reference, 3), np.delete(candidate, 3))


def test_as_many_days_as_are_needed_show_the_difference_about_as_often_as_promised():
    pilot = losses(400, 1.0, seed=6)
    days = days_needed(*pilot, effect=0.02)
    assert days is not None
    seen = np.mean([paired(*losses(days, 0.98, seed=seed)).verdict == BETTER for seed in range(200)])
    assert 0.7 < seen < 0.93
    assert (days_needed(*pilot, effect=0.01) or 0) == pytest.approx(4 * days, rel=0.25)
    assert days_needed([1.0] * 3, [1.0] * 3, effect=0.02) is None


def test_looking_on_every_day_errs_no_more_often_than_promised():
    wrong, daily = 0, 0
    for seed in range(100):
        reference, candidate = losses(150, 1.0, seed=1000 + seed)
        low, high = confidence_sequence(candidate - reference, alpha=0.05)
        wrong += bool(((low > 0) | (high < 0)).any())
        looks = [paired(reference[:n], candidate[:n]) for n in range(28, 150, 10)]
        daily += any(min(look.p_better, look.p_worse) <= 0.025 for look in looks)
    assert wrong <= 5
    assert daily >= 10  # what a plain test does to someone who looks again and again


def test_a_difference_is_seen_in_time_and_the_future_moves_no_earlier_bound():
    reference, candidate = losses(120, 0.95, seed=7)
    low, high = confidence_sequence(candidate - reference)
    assert 0 < np.argmax(high < 0) < 70
    again = confidence_sequence((candidate - reference)[:50])
    np.testing.assert_array_equal(again[1], high[:50])
    assert np.isneginf(low[:27]).all()
    assert np.isfinite(low[27:]).all()


def test_the_long_run_deviation_counts_what_days_have_in_common():
    rng = np.random.default_rng(8)
    white = rng.normal(0, 1, 5000)
    assert long_run_deviation(white)[0] == pytest.approx(1, abs=0.15)
    walk = np.convolve(white, np.ones(5), mode="valid")  # each value with its neighbours': five times the deviation
    assert long_run_deviation(walk)[0] == pytest.approx(5, rel=0.15)


def test_blocks_are_drawn_whole():
    groups = np.array(["a", "b", "a", "c", "b"])
    seen = []
    block_bootstrap(groups, lambda rows: seen.append(sorted(rows.tolist())) or 0.0, draws=50)
    for rows in seen:
        assert rows.count(0) == rows.count(2)
        assert rows.count(1) == rows.count(4)
    assert len(block_bootstrap(groups, lambda rows: float("nan"), draws=5)) == 0
