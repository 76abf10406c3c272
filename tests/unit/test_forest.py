"""The joined forest against scikit-learn's own prediction."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.ensemble import ExtraTreesRegressor, IsolationForest, RandomForestRegressor

from smartgrid_pyfunc.forest import Forest, floor32
from smartgrid_pyfunc.models.anomaly_detection import _paths

Matrix = np.ndarray[Any, np.dtype[np.float32]]
BOUND = 2.0**-24  # relative error of a leaf value kept as float32


def drawn(n: int, missing: float, seed: int = 0) -> Matrix:
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 1, (n, 6)).astype(np.float32)
    x[:, 2] = rng.integers(0, 24, n)  # ties with thresholds are likely
    x[rng.random((n, 6)) < missing] = np.nan
    return x


def target(x: Matrix) -> np.ndarray[Any, np.dtype[np.float64]]:
    known = np.nan_to_num(x.astype(float), nan=-1.0)
    return 100 * np.sin(known[:, 0]) + known[:, 1] * known[:, 2]


def regressor(missing: float, trees: int = 20, kind: Any = RandomForestRegressor, **options: Any) -> Any:
    x = drawn(800, missing)
    return kind(n_estimators=trees, random_state=1, **options).fit(x, target(x))


@pytest.mark.parametrize("missing", [0.0, 0.2])
@pytest.mark.parametrize("n", [1, 24, 5_000])
def test_the_mean_is_scikit_learns_within_float32_leaves(missing: float, n: int) -> None:
    fitted = regressor(missing, min_samples_leaf=2, max_features=0.5)
    x = drawn(n, missing, seed=2)
    largest = max(np.abs(tree.tree_.value).max() for tree in fitted.estimators_)
    found = Forest.from_regressor(fitted).mean(x)
    assert found.shape == (n,)
    assert np.abs(found - fitted.predict(x)).max() <= largest * BOUND


@pytest.mark.parametrize("trees", [1, 2, 3, 7, 64])
def test_any_number_of_trees_is_joined(trees: int) -> None:
    fitted = regressor(0.1, trees)
    x = drawn(50, 0.1, seed=3)
    assert Forest.from_regressor(fitted).mean(x) == pytest.approx(fitted.predict(x), rel=1e-6)


def test_random_thresholds_are_not_rounded_across_a_value() -> None:
    fitted = regressor(0.0, 30, ExtraTreesRegressor)
    thresholds = np.concatenate([t.tree_.threshold[t.tree_.feature >= 0] for t in fitted.estimators_])
    rng = np.random.default_rng(4)
    # Rows that lie next to thresholds: a threshold rounded up to float32 would send some of them the other way.
    x = rng.choice(thresholds, (5_000, 6)).astype(np.float32)
    x = np.nextafter(x, rng.choice(np.array([-np.inf, 0, np.inf], dtype=np.float32), x.shape))
    largest = max(np.abs(tree.tree_.value).max() for tree in fitted.estimators_)
    assert np.abs(Forest.from_regressor(fitted).mean(x) - fitted.predict(x)).max() <= largest * BOUND


@given(st.floats(-3.4e38, 3.4e38), st.floats(width=32, allow_nan=False))
def test_floor32_keeps_every_comparison(threshold: float, feature: float) -> None:
    kept = float(floor32(np.array([threshold]))[0])
    assert (np.float32(feature) <= kept) == (feature <= threshold)


@pytest.mark.parametrize("missing", [0.0, 0.2])
@pytest.mark.parametrize("n", [1, 24, 5_000])
def test_isolation_scores_are_scikit_learns(missing: float, n: int) -> None:
    fitted = IsolationForest(n_estimators=50, random_state=5, max_samples=200).fit(drawn(1_000, missing))
    x = 2 * drawn(n, missing, seed=6)
    forest, unit = _paths(fitted)
    # scikit-learn gives the opposite of the paper's score.
    assert np.abs(np.exp2(-forest.mean(x) / unit) + fitted.score_samples(x)).max() <= 1e-12


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_contributions_and_the_mean_root_make_the_prediction(missing: float) -> None:
    fitted = regressor(missing)
    forest, x = Forest.from_regressor(fitted), drawn(200, missing, seed=7)
    root = np.mean([tree.tree_.value[0, 0, 0] for tree in fitted.estimators_])
    credits = forest.contributions(x)
    assert credits.shape == x.shape
    assert np.abs(credits.sum(axis=1) + root - fitted.predict(x)).max() < 1e-4
    assert forest.contributions(x[:0]).shape == (0, x.shape[1])


def test_a_feature_without_splits_gets_no_credit() -> None:
    x = drawn(500, 0.0)
    x[:, 4] = 0
    fitted = RandomForestRegressor(10, random_state=0).fit(x, target(x))
    credits = Forest.from_regressor(fitted).contributions(x)
    assert np.all(credits[:, 4] == 0)
    assert np.abs(credits[:, 0]).max() > 1


def test_a_row_is_worth_the_same_alone_and_in_any_company() -> None:
    forest, x = Forest.from_regressor(regressor(0.1, 33)), drawn(5_000, 0.1, seed=8)
    together = forest.mean(x)
    order = np.random.default_rng(9).permutation(len(x))
    assert np.array_equal(forest.mean(x[order]), together[order])
    assert np.array_equal(forest.mean(np.asfortranarray(x[:500])), together[:500])
    alone = [forest.mean(x[i : i + 1])[0] for i in range(0, len(x), 500)]
    assert alone == together[::500].tolist()


def test_no_rows_give_no_values() -> None:
    assert Forest.from_regressor(regressor(0.0, 3)).mean(np.empty((0, 6), dtype=np.float32)).shape == (0,)


def test_a_forest_of_leaves_only_gives_their_mean() -> None:
    x = drawn(50, 0.0)
    fitted = RandomForestRegressor(5, random_state=0).fit(x, np.full(50, 2.5))
    forest = Forest.from_regressor(fitted)
    assert forest.mean(x).tolist() == [2.5] * 50
    assert not forest.contributions(x).any()


def test_saved_equals_loaded() -> None:
    forest, x = Forest.from_regressor(regressor(0.1)), drawn(100, 0.1, seed=10)
    loaded = Forest.from_arrays(forest.to_arrays())
    assert np.array_equal(loaded.mean(x), forest.mean(x))
    assert np.array_equal(loaded.contributions(x), forest.contributions(x))
    assert all(
        np.array_equal(a, b) for a, b in zip(forest.to_arrays().values(), loaded.to_arrays().values(), strict=True)
    )


def test_rows_and_arrays_stay_as_they_were() -> None:
    forest, x = Forest.from_regressor(regressor(0.1)), drawn(100, 0.1, seed=11)
    before = x.copy()
    forest.mean(x)
    forest.contributions(x)
    assert np.array_equal(x, before, equal_nan=True)
