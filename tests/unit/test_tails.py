"""Tails against numpy's quantiles, the normal and the exponential distribution."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from smartgrid_pyfunc.features.tails import STRANGEST, SURPRISE, TAIL, Tails

BOTH, LARGE = np.array([False]), np.array([True])


def _fit(values: np.ndarray, one_sided: np.ndarray = BOTH) -> Tails:
    return Tails.fit(values[:, None], [np.arange(len(values))], one_sided)


def _surprise(tails: Tails, values: list[float] | np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    return tails.surprise(np.zeros(len(values), dtype=np.int64), values[:, None])[:, 0]


def test_nodes_are_numpys_quantiles_as_distances_from_the_median():
    values = np.random.default_rng(0).normal(5.0, 2.0, 4_000)
    tails = _fit(values)
    assert tails.median[0, 0] == pytest.approx(np.median(values))
    for k in range(4):  # the others are cut where they are heavier than the bulk
        assert tails.nodes[k, 0, 0, 0] == pytest.approx(np.quantile(values, 1 - TAIL[k]) - np.median(values))
        assert tails.nodes[k, 0, 0, 1] == pytest.approx(np.median(values) - np.quantile(values, TAIL[k]))


def test_surprise_is_the_negative_log_of_the_two_sided_tail_probability():
    tails = _fit(stats.norm.ppf((np.arange(8_000) + 0.5) / 8_000))
    asked = np.array([-3.0, -1.0, 0.0, 0.5, 2.0, 2.8])
    np.testing.assert_allclose(_surprise(tails, asked), -np.log(2 * stats.norm.sf(np.abs(asked))), atol=0.12)


def test_sides_have_tails_of_their_own():
    values = np.random.default_rng(1).exponential(1.0, 8_000)  # nothing below 0
    tails = _fit(values)
    low, high = _surprise(tails, [-1.0, np.median(values) + 1.0 + np.median(values)])
    assert low > 10
    assert high < 2


def test_durations_are_strange_only_where_they_are_long():
    values = np.random.default_rng(2).exponential(1.0, 8_000)
    tails = _fit(values, LARGE)
    assert _surprise(tails, [0.0]).tolist() == [0.0]
    asked = np.array([0.5, 1.0, 3.0])
    np.testing.assert_allclose(_surprise(tails, asked), asked, atol=0.3)  # -log exp(-x)


def test_beyond_the_last_node_the_tail_is_a_generalised_pareto_one():
    tails = _fit(np.random.default_rng(3).laplace(0.0, 1.0, 8_000))
    near, far = tails.nodes[-1, 0, 0, 0], np.array([10.0, 20.0])
    # Of the exponential tail's scale, which is 1, and shape 0.5.
    tail = stats.genpareto.logsf(tails.median[0, 0] + far - near, 0.5)
    np.testing.assert_allclose(_surprise(tails, far), SURPRISE[-1] - tail, rtol=0.05)
    assert SURPRISE[-1] < _surprise(tails, [1e12])[0] <= STRANGEST


def test_faults_in_training_do_not_hide_others():
    rng = np.random.default_rng(4)
    clean = rng.normal(size=4_000)
    faulty = np.where(np.arange(4_000) % 50 == 0, 100.0, clean)  # 2 % at 100 spreads
    assert _surprise(_fit(faulty), [50.0])[0] > SURPRISE[-1] + 4
    stuck = np.maximum(np.arange(4_000) - 3_984.0, 0.0)  # for 15 readings in a row, 0.4 %
    once, long = _surprise(_fit(stuck, LARGE), [1.0, 15.0])
    assert once == pytest.approx(SURPRISE[-1])  # two equal values happen by chance
    assert long > SURPRISE[-1] + 4
    assert _surprise(_fit(np.zeros(4_000), LARGE), [1.0])[0] > SURPRISE[-1] + 4  # never seen


def test_surprise_never_falls_away_from_the_median():
    tails = _fit(np.round(np.random.default_rng(5).normal(size=500), 1))
    asked = np.linspace(0, 50, 5_001)
    for side in (1, -1):
        assert (np.diff(_surprise(tails, tails.median[0, 0] + side * asked)) >= 0).all()


def test_ties_take_the_larger_tail():
    values = np.repeat([0.0, 1.0, 2.0], [900, 85, 15])
    assert _surprise(_fit(values), [0.0]).tolist() == [0.0]
    # The nodes of the shares 5 % and 2 % are both 1.
    assert _surprise(_fit(values), [1.0])[0] == pytest.approx(-np.log(2 * 0.05))


def test_few_readings_tell_no_tail_and_unknown_deviations_have_no_surprise():
    few, enough = (_fit(np.r_[np.arange(n, dtype=float), np.full(9, np.nan)]) for n in (29, 30))
    assert np.isnan(_surprise(few, [3.0])).all()
    assert np.isnan(_surprise(enough, [3.0, np.nan])).tolist() == [False, True]


def test_many_rows_are_judged_as_few():
    rng = np.random.default_rng(6)
    tails = Tails.fit(rng.normal(size=(300, 2)), [np.arange(150), np.arange(150, 300)], np.array([False, True]))
    asked, group = rng.normal(size=(40_000, 2)), rng.integers(0, 2, 40_000)
    whole = tails.surprise(group, asked)
    parts = [tails.surprise(group[i : i + 999], asked[i : i + 999]) for i in range(0, 40_000, 999)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))


@pytest.mark.parametrize("share", [0.2, 0.05, 0.01])
def test_limits_leave_the_share_asked_for_outside(share: float):
    values = np.random.default_rng(7).normal(3.0, 1.0, 8_000)
    low, high = _fit(values).limits(-np.log(share))
    outside = (values < low[0, 0]) | (values > high[0, 0])
    assert outside.mean() == pytest.approx(share, rel=0.1)


def test_joined_tails_are_their_parts():
    rng = np.random.default_rng(8)
    parts = [_fit(rng.normal(size=100)), _fit(rng.normal(size=100))]
    joined = Tails.from_arrays(Tails.join(parts).to_arrays())
    for g, part in enumerate(parts):
        found = joined.surprise(np.array([g]), np.array([[1.5]]))
        assert found[0, 0] == _surprise(part, [1.5])[0]
    assert len(SURPRISE) == len(TAIL)


def test_a_group_needs_the_number_of_readings_asked_for():
    values = np.random.default_rng(9).normal(size=(300, 2))
    members = [np.arange(100), np.arange(300)]
    tails = Tails.fit(values, members, np.array([False, False]), np.array([[0, 200], [0, 200]]))
    assert np.isnan(tails.median).tolist() == [[False, True], [False, False]]
