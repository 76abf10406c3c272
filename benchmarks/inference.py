"""Cost of predictions: `Forest` beside scikit-learn's and LightGBM's own `predict`, one thread each, in one run.

    python benchmarks/inference.py

Trains random forests with the load model's defaults (100 trees, 20,000 rows a tree, leaves of 3 rows; also of 10) and a
booster of 400 trees with 63 leaves on an artificial load: its lags, means, temperature and calendar, 5 % missing. All
are asked for the same held-out rows in turn, other rows each time, so that no cache is warmer than in use. Times are
CPU milliseconds for one call, best and median; targets look at the best, ratios at the best of each.
"""

from __future__ import annotations

import argparse
import io
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_REPOSITORY = Path(__file__).resolve().parents[1]
_HELD_OUT = 30_000
_REPEATS = {1: 200, 24: 200, 1_000: 20, 10_000: 7}  # number of rows: calls
_BEFORE = 336  # hours that the features look back

Predict = Callable[[NDArray[np.float32]], NDArray[np.float64]]


@dataclass(frozen=True)
class Pair:
    """One fitted model, asked in two ways."""

    name: str
    forest: Any
    library: Predict


def main() -> None:
    """Train the models and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000, help="rows to train on")
    parser.add_argument("--trees", type=int, default=100, help="trees of a random forest")
    parser.add_argument("--rounds", type=int, default=400, help="trees of the booster")
    parser.add_argument("--leaves", type=int, nargs="+", default=[3, 10], help="min_samples_leaf of the random forests")
    arguments = parser.parse_args()
    sys.path.insert(0, str(_REPOSITORY))
    features, load = _draw(arguments.rows + _HELD_OUT)
    known, asked = slice(arguments.rows), features[arguments.rows :]
    pairs = [_random_forest(features[known], load[known], arguments.trees, leaf) for leaf in arguments.leaves]
    pairs.append(_booster(features[known], load[known], arguments.rounds))
    _print_table(pairs, asked, features[known].shape)


def _draw(n: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return features, shape (n, 42), and what is to be forecast: the difference to the load of a week before."""
    from scipy.signal import lfilter

    rng = np.random.default_rng(seed)
    hours = np.arange(n + _BEFORE)
    hour, weekday, year = hours % 24, hours // 24 % 7, 2 * np.pi * hours / 8766
    slow = lfilter([0.5], [1, -0.98], rng.normal(size=len(hours)))
    temperature = 10 - 10 * np.cos(year) + 5 * np.sin(2 * np.pi * (hour - 9) / 24) + slow
    daily = np.sin(2 * np.pi * (hour - 7) / 24) + 0.5 * np.sin(4 * np.pi * (hour - 3) / 24) * (weekday < 5)
    drift = lfilter([0.3], [1, -0.95], rng.normal(size=len(hours)))
    load = 3 + daily - 0.3 * (weekday >= 5) + 0.04 * np.maximum(15 - temperature, 0) + drift
    total = np.concatenate([[0.0], load.cumsum()])
    at = hours[_BEFORE:]
    lags = [*range(24, 31), 36, 42, *range(47, 50), 72, 96, 120, 144, *range(167, 170), 192, 216, 240, 264, 312, 336]
    columns = [hour[at], weekday[at], weekday[at] >= 5, np.sin(year[at]), np.cos(year[at])]
    columns += [temperature[at - lag] for lag in (0, 1, 24)] + [load[at - lag] for lag in lags]
    columns += [(total[at - 23] - total[at - 23 - width]) / width for width in (24, 48, 72, 168, 312)]
    columns += [rng.integers(1, 169, n), *rng.normal(size=(42 - len(columns) - 1, n))]
    features = np.column_stack(columns).astype(np.float32)
    features[rng.random(features.shape) < 0.05] = np.nan
    return features, load[at] - load[at - 168] + rng.normal(0, 0.1, n)


def _random_forest(features: NDArray[np.float32], load: NDArray[np.float64], trees: int, leaf: int) -> Pair:
    from sklearn.ensemble import RandomForestRegressor

    from smartgrid_pyfunc.forest import Forest

    drawn = min(20_000, len(load))
    options = {"min_samples_leaf": leaf, "max_samples": drawn, "max_features": 0.33, "random_state": 0}
    fitted = RandomForestRegressor(trees, n_jobs=-1, **options).fit(features, load)
    fitted.n_jobs = 1
    return Pair(f"scikit-learn random forest, leaves of {leaf}", Forest.from_regressor(fitted), fitted.predict)


def _booster(features: NDArray[np.float32], load: NDArray[np.float64], rounds: int) -> Pair:
    import lightgbm

    from smartgrid_pyfunc.forest import Forest

    options = {"objective": "l2", "num_leaves": 63, "learning_rate": 0.05, "verbose": -1}
    fitted = lightgbm.train(options, lightgbm.Dataset(features, load), rounds)

    def predict(rows: NDArray[np.float32]) -> NDArray[np.float64]:
        return np.asarray(fitted.predict(rows, num_threads=1))

    return Pair("LightGBM booster, 63 leaves", Forest.from_lightgbm(fitted), predict)


def _print_table(pairs: list[Pair], asked: NDArray[np.float32], trained: tuple[int, ...]) -> None:
    import lightgbm
    import sklearn

    print(f"{datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, NumPy {np.__version__},", end=" ")
    print(f"scikit-learn {sklearn.__version__}, LightGBM {lightgbm.__version__}, {platform.machine()};", end=" ")
    print(f"trained on {trained[0]:,} rows × {trained[1]} features\n")
    print("| model | trees | nodes | rows | ours [CPU-ms] | library [CPU-ms] | ours / library | target | met |")
    print("|---|---:|---:|---:|---:|---:|---:|---|---|")
    for pair in pairs:
        nodes = len(pair.forest.to_arrays()["left"])
        for rows, repeats in _REPEATS.items():
            ours, library = _measure([pair.forest.mean, pair.library], asked, rows, repeats)
            target, met = _judge(rows, ours, library)
            print(
                f"| {pair.name} | {pair.forest.n_trees:,} | {nodes:,} | {rows:,} | {_shown(ours)} | {_shown(library)} "
                f"| {ours.min() / library.min():.2f} | {target} | {met} |"
            )
    print()
    for pair in pairs:
        print(f"- {pair.name}: {_also(pair, asked)}")


def _measure(ways: list[Predict], asked: NDArray[np.float32], rows: int, repeats: int) -> list[NDArray[np.float64]]:
    """Return the CPU time of each call [ms]; the ways take turns on the same rows."""
    rng = np.random.default_rng(rows)
    spent = np.empty((len(ways), repeats))
    for i in range(-1, repeats):  # the first round warms up and is overwritten
        first = rng.integers(0, len(asked) - rows + 1)
        batch = asked[first : first + rows].copy()
        for j, predict in enumerate(ways):
            start = time.process_time()
            predict(batch)
            spent[j, i] = 1e3 * (time.process_time() - start)
    return list(spent)


def _judge(rows: int, ours: NDArray[np.float64], library: NDArray[np.float64]) -> tuple[str, str]:
    if rows == 24:
        return "≤ 1 ms", "yes" if ours.min() <= 1 else "no"
    if rows == 10_000:
        return "≤ 1.0 × library", "yes" if ours.min() <= library.min() else "no"
    return "–", "–"


def _shown(spent: NDArray[np.float64]) -> str:
    return f"{spent.min():,.2f} / {np.median(spent):,.2f}"


def _also(pair: Pair, asked: NDArray[np.float32]) -> str:
    """Return equality, size and the cost to load as a sentence."""
    from smartgrid_pyfunc.forest import Forest

    apart = np.abs(pair.forest.mean(asked) - pair.library(asked)).max()
    file = io.BytesIO()
    np.savez_compressed(file, **pair.forest.to_arrays())
    start = time.process_time()
    with np.load(io.BytesIO(file.getvalue())) as stored:
        Forest.from_arrays({name: stored[name] for name in stored.files})
    spent = time.process_time() - start
    return (
        f"largest difference {apart:.1e} over {len(asked):,} held-out rows; {len(file.getvalue()) / 1e6:.1f} MB stored "
        f"(target ≤ 25: {'met' if len(file.getvalue()) <= 25e6 else 'missed'}), {spent:.2f} CPU-s to load "
        f"(target ≤ 0.5: {'met' if spent <= 0.5 else 'missed'})"
    )


if __name__ == "__main__":
    main()
