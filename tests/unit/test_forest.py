"""Forests against the predictions of the libraries that trained them, scikit-learn and LightGBM."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import lightgbm
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.ensemble import ExtraTreesRegressor, IsolationForest, RandomForestRegressor

from smartgrid_pyfunc.forest import Forest, floor32
from smartgrid_pyfunc.models.isolation import isolation_paths

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
    forest, unit = isolation_paths(fitted)
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


@pytest.mark.parametrize("kind", ["random forest", "float64 leaves", "booster", "both"])
def test_a_row_is_worth_the_same_alone_and_in_any_company(kind: str) -> None:
    x = drawn(5_000, 0.1, seed=8)
    trees = [estimator.tree_ for estimator in regressor(0.1, 33).estimators_]
    forests = {
        "random forest": Forest.from_regressor(regressor(0.1, 33)),
        "float64 leaves": Forest.from_trees(trees, [tree.value[:, 0, 0] for tree in trees]),
        "booster": Forest.from_lightgbm(booster(0.1)),
    }
    forests["both"] = Forest.concatenate([forests["random forest"], forests["booster"]], [0.4, 0.6])
    forest = forests[kind]
    together = forest.mean(x)
    order = np.random.default_rng(9).permutation(len(x))
    assert np.array_equal(forest.mean(x[order]), together[order])
    assert np.array_equal(forest.mean(np.asfortranarray(x[:500])), together[:500])
    for size in (1, 24, 300):  # few rows and many take different ways
        assert np.array_equal(
            np.concatenate([forest.mean(x[i : i + size]) for i in range(0, 1_200, size)]), together[:1_200]
        )
    credits = forest.contributions(x[:1_200])
    assert np.array_equal(credits[7:8], forest.contributions(x[7:8]))
    assert np.array_equal(credits[500:], forest.contributions(x[500:1_200]))


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


def test_features_of_another_width_are_refused() -> None:
    forest = Forest.from_regressor(regressor(0.0, 3))
    for ask in (forest.mean, forest.contributions):
        with pytest.raises(ValueError, match=r"shape \(n, 6\)"):
            ask(np.zeros((4, 5), dtype=np.float32))


# ---------------------------------------------------------------------------------------------------------- LightGBM


def booster(missing: float, rounds: int = 30, x: Matrix | None = None, **options: Any) -> lightgbm.Booster:
    x = drawn(800, missing) if x is None else x
    settings = {"objective": "l2", "num_leaves": 31, "min_data_in_leaf": 5, "verbose": -1, "num_threads": 1, "seed": 0}
    return lightgbm.train(settings | options, lightgbm.Dataset(x, target(x) + 500), rounds)


def nodes_of(fitted: lightgbm.Booster) -> list[list[dict[str, Any]]]:
    """Return the nodes of each tree as LightGBM's own dump tells them, children before their parent."""

    def below(node: dict[str, Any]) -> list[dict[str, Any]]:
        children = [node[side] for side in ("left_child", "right_child") if side in node]
        return [found for child in children for found in below(child)] + [node]

    return [below(tree["tree_structure"]) for tree in fitted.dump_model()["tree_info"]]


def bound(fitted: lightgbm.Booster) -> float:
    """Return the largest error of a sum of leaves kept as float32, with a margin for the order of the sum."""
    largest = [max(abs(n["leaf_value"]) for n in nodes if "leaf_value" in n) for nodes in nodes_of(fitted)]
    return sum(largest) * BOUND * 1.001


def thresholds_of(fitted: lightgbm.Booster) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([n["threshold"] for nodes in nodes_of(fitted) for n in nodes if "threshold" in n])


OPTIONS: list[dict[str, Any]] = [
    {"objective": "l2"},
    {"objective": "l1"},
    {"objective": "huber"},
    {"objective": "fair"},
    {"objective": "quantile", "alpha": 0.9},
    {"objective": "mape"},
    {"boosting": "rf", "bagging_fraction": 0.5, "bagging_freq": 1},
    {"boosting": "dart"},
    {"boost_from_average": False},
    {"use_missing": False},
    {"extra_trees": True, "path_smooth": 1.0},
]


@pytest.mark.parametrize("missing", [0.0, 0.2])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_mean_is_lightgbms_prediction_within_float32_leaves(missing: float, options: dict[str, Any]) -> None:
    fitted = booster(missing, **options)
    forest = Forest.from_lightgbm(fitted)
    for n in (1, 24, 3_000):
        x = drawn(n, 0.2, seed=12)  # NaN comes in use also where there was none in training
        assert np.abs(forest.mean(x) - fitted.predict(x)).max() <= bound(fitted)


@pytest.mark.parametrize("missing", [0.0, 0.2])
@pytest.mark.parametrize("use_missing", [True, False])
def test_lightgbms_thresholds_are_not_rounded_across_a_value(missing: float, use_missing: bool) -> None:
    fitted = booster(missing, use_missing=use_missing)
    rng = np.random.default_rng(13)
    finite = thresholds_of(fitted)[np.abs(thresholds_of(fitted)) < 1e30]  # 1e300 stands for infinity
    x = rng.choice(finite, (5_000, 6)).astype(np.float32)
    x = np.nextafter(x, rng.choice(np.array([-np.inf, 0, np.inf], dtype=np.float32), x.shape))
    assert np.abs(Forest.from_lightgbm(fitted).mean(x) - fitted.predict(x)).max() <= bound(fitted)


@pytest.mark.parametrize("missing", [0.0, 0.2])
@pytest.mark.parametrize("use_missing", [True, False])
@pytest.mark.parametrize("n", [300, 6_000])
def test_values_around_zero_and_infinite_ones_go_lightgbms_way(missing: float, use_missing: bool, n: int) -> None:
    edge = np.float32(1e-35)  # up to here LightGBM takes a feature as zero
    positive = [0, 1e-45, 1e-40, 1e-36, np.nextafter(edge, 0), edge, np.nextafter(edge, 1), 2e-35, 1e-30, 1, np.inf]
    special = np.array([sign * value for value in positive for sign in (1, -1)], dtype=np.float32)
    rng = np.random.default_rng(14)
    x = rng.choice(special, (3_000, 6))
    x[rng.random(x.shape) < missing] = np.nan
    y = sum(np.sign(np.nan_to_num(x[:, i], nan=0.5)) * 3**i for i in range(6)) + rng.normal(0, 0.1, len(x))
    settings = {"verbose": -1, "num_threads": 1, "min_data_in_leaf": 1, "min_data_in_bin": 1, "num_leaves": 63}
    data = lightgbm.Dataset(x, y)
    fitted = lightgbm.train(settings | {"use_missing": use_missing}, data, 20)
    assert (np.abs(thresholds_of(fitted)) <= edge).any()
    asked = np.where(rng.random((n, 6)) < 0.1, np.float32(np.nan), rng.choice(special, (n, 6)))
    assert np.abs(Forest.from_lightgbm(fitted).mean(asked) - fitted.predict(asked)).max() <= bound(fitted)


def test_trees_after_the_best_iteration_are_left_out() -> None:
    fitted = booster(0.1)
    fitted.best_iteration = 7
    forest, x = Forest.from_lightgbm(fitted), drawn(100, 0.1, seed=15)
    assert forest.n_trees == 7
    assert np.abs(forest.mean(x) - fitted.predict(x)).max() <= bound(fitted)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_contributions_and_the_mean_root_make_lightgbms_prediction(options: dict[str, Any]) -> None:
    fitted = booster(0.1, **options)
    x = drawn(700, 0.1, seed=16)
    roots = []
    for nodes in nodes_of(fitted):
        leaves = [n for n in nodes if "leaf_value" in n]
        counts = [n.get("leaf_count", 1) for n in leaves]
        roots.append(np.average([n["leaf_value"] for n in leaves], weights=counts))
    root = np.mean(roots) if options.get("boosting") == "rf" else np.sum(roots)
    credits = Forest.from_lightgbm(fitted).contributions(x)
    assert np.abs(credits.sum(axis=1) + root - fitted.predict(x)).max() <= 2 * bound(fitted)


def test_an_inner_node_is_worth_the_mean_of_its_leaves() -> None:
    fitted = booster(0.1, 1)
    values = Forest.from_lightgbm(fitted).to_arrays()["value"]
    # With squared errors and no regularisation LightGBM's own inner values are those means, told with six digits.
    own = [n["internal_value"] for n in sorted(nodes_of(fitted)[0], key=lambda n: n.get("split_index", 1e9))[:30]]
    assert values[:30] == pytest.approx(own, rel=1e-5)


def test_a_booster_without_splits_gives_its_constant() -> None:
    fitted = lightgbm.train({"verbose": -1}, lightgbm.Dataset(drawn(50, 0.0), np.full(50, 2.5)), 5)
    forest = Forest.from_lightgbm(fitted)
    assert forest.mean(drawn(3, 0.0)).tolist() == [2.5] * 3
    assert not forest.contributions(drawn(3, 0.0)).any()


def test_the_model_text_is_all_that_is_needed() -> None:
    fitted, x = booster(0.1), drawn(50, 0.1, seed=17)
    text = fitted.model_to_string()
    read = Forest.from_lightgbm(SimpleNamespace(model_to_string=lambda: text))
    assert np.array_equal(read.mean(x), Forest.from_lightgbm(fitted).mean(x))
    loaded = Forest.from_arrays(read.to_arrays())
    assert np.array_equal(loaded.mean(x), read.mean(x))
    assert np.array_equal(loaded.contributions(x), read.contributions(x))


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"objective": "poisson"}, "poisson"),
        ({"objective": "tweedie"}, "tweedie"),
        ({"reg_sqrt": True}, "regression sqrt"),
        ({"objective": lambda predicted, data: (predicted - data.get_label(), np.ones(len(predicted)))}, "none"),
        ({"linear_tree": True}, "linear_tree"),
        ({"zero_as_missing": True}, "zero_as_missing"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_boosters_that_are_not_plain_sums_of_numeric_trees_are_refused(options: dict[str, Any], found: str) -> None:
    fitted = booster(0.0, 3, **options)
    with pytest.raises(ValueError, match=found):
        Forest.from_lightgbm(fitted)


def test_a_booster_with_categorical_splits_is_refused() -> None:
    x = np.repeat(np.arange(8.0), 50)[:, None]
    data = lightgbm.Dataset(x, np.cos(3 * x[:, 0]), categorical_feature=[0])
    fitted = lightgbm.train({"verbose": -1, "max_cat_to_onehot": 2, "min_data_per_group": 5}, data, 2)
    with pytest.raises(ValueError, match="categorical"):
        Forest.from_lightgbm(fitted)


def test_a_booster_of_several_outputs_is_refused() -> None:
    data = lightgbm.Dataset(drawn(90, 0.0), np.arange(90) % 3)
    fitted = lightgbm.train({"objective": "multiclass", "num_class": 3, "verbose": -1}, data, 2)
    with pytest.raises(ValueError, match="one output: found 3"):
        Forest.from_lightgbm(fitted)


def test_other_versions_of_the_model_text_are_refused() -> None:
    text = booster(0.0, 1).model_to_string().replace("version=v4", "version=v5")
    with pytest.raises(ValueError, match="found v5"):
        Forest.from_lightgbm(SimpleNamespace(model_to_string=lambda: text))


# ------------------------------------------------------------------------------------------------------ concatenation


def test_the_mean_of_joined_forests_is_their_weighted_sum() -> None:
    fitted, boosted, x = regressor(0.1, 7), booster(0.1), drawn(3_000, 0.1, seed=18)
    forests = [Forest.from_regressor(fitted), Forest.from_lightgbm(boosted)]
    joined = Forest.concatenate(forests, [0.3, 0.7])
    expected = 0.3 * fitted.predict(x) + 0.7 * boosted.predict(x)
    largest = max(np.abs(tree.tree_.value).max() for tree in fitted.estimators_)
    assert np.abs(joined.mean(x) - expected).max() <= 2 * (0.3 * largest * BOUND + 0.7 * bound(boosted))
    credits = 0.3 * forests[0].contributions(x[:50]) + 0.7 * forests[1].contributions(x[:50])
    assert joined.contributions(x[:50]) == pytest.approx(credits, abs=1e-3)
    loaded = Forest.from_arrays(joined.to_arrays())
    assert np.array_equal(loaded.mean(x), joined.mean(x))


def test_a_forest_joined_with_none_stays_itself() -> None:
    forest = Forest.from_regressor(regressor(0.1))
    arrays, joined = forest.to_arrays(), Forest.concatenate([forest], [1.0]).to_arrays()
    assert arrays.keys() == joined.keys()
    assert all(np.array_equal(arrays[name], joined[name]) for name in arrays)
    assert all(arrays[name].dtype == joined[name].dtype for name in arrays)


def test_forests_on_other_features_are_not_joined() -> None:
    narrow = RandomForestRegressor(2, random_state=0).fit(drawn(50, 0.0)[:, :3], np.arange(50.0))
    with pytest.raises(ValueError, match=r"found \[3, 6\]"):
        Forest.concatenate([Forest.from_regressor(regressor(0.0, 2)), Forest.from_regressor(narrow)], [0.5, 0.5])
