"""Quantile models on this repository's features: LightGBM with the quantile loss, and a quantile regression forest.

For intervals only. They get the same features, scaling and origins as ours, and all their rows at horizons of 1…24 h.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from peers.task import Task
from smartgrid_pyfunc.evaluation.backtest import midnight_origins
from smartgrid_pyfunc.features.design import Design, FeatureSpec
from smartgrid_pyfunc.features.load import build_features
from smartgrid_pyfunc.features.panel import Panel, build_panel, parse_hourly

_LEVELS = (0.8, 0.9, 0.95)
_QUANTILES = sorted({0.5, *((1 - level) / 2 for level in _LEVELS), *((1 + level) / 2 for level in _LEVELS)})
_ROWS = 80_000
_CLIP = 8.0  # scaled residuals beyond this are faults; ours are clipped alike
_DAY, _WEEK = 24, 168


def create(options: dict[str, Any]) -> QuantilePeer:
    return QuantilePeer(**options)


class QuantilePeer:
    levels = _LEVELS
    packages = ("lightgbm", "quantile-forest", "scikit-learn", "pandas", "numpy")

    def __init__(self, estimator: str, trees: int, boosting_rounds: int, seed: int) -> None:
        self._estimator, self._trees, self._rounds, self._seed = estimator, trees, boosting_rounds, seed
        self._days: dict[int, pd.DataFrame] = {}

    def fit(self, task: Task) -> None:
        self._panel = build_panel(parse_hourly(task.frame))
        self._spec = FeatureSpec(task.timezone, (), task.covariates)
        starts = task.starts.reindex(self._panel.sensor_ids).to_numpy().astype("datetime64[h]").astype("int64")
        self._start = self._panel.first_cell + starts - self._panel.first_hour
        sensor, origin, horizon = _pairs(self._panel, self._start, np.random.default_rng(self._seed))
        design = build_features(self._panel, sensor, origin, horizon, self._spec)
        residual = (self._panel.load[origin + horizon] - design.base["blend"]) / design.scale
        learn = _boosters if self._estimator == "lightgbm" else _forest
        self._predict = learn(design.features, np.clip(residual, -_CLIP, _CLIP), self._trees, self._rounds, self._seed)

    def forecast(self, task: Task, day: int, level: float = 0.9) -> pd.DataFrame:
        if day not in self._days:
            self._days[day] = self._quantiles(day)
        found = self._days[day]
        bounds = (_QUANTILES.index((1 - level) / 2), _QUANTILES.index((1 + level) / 2))
        return found[["sensor_id", "timestamp", "predicted"]].assign(
            lower=found[f"q{bounds[0]}"], upper=found[f"q{bounds[1]}"]
        )

    def _quantiles(self, day: int) -> pd.DataFrame:
        first = self._start + day * _DAY
        sensor, origin = midnight_origins(self._panel, first, first + _DAY - 1, "UTC")
        sensor, origin = np.repeat(sensor, _DAY), np.repeat(origin, _DAY)
        horizon = np.tile(np.arange(1, _DAY + 1), len(sensor) // _DAY)
        inside = origin + horizon < self._panel.first_cell[sensor] + self._panel.n_hours[sensor]
        sensor, origin, horizon = sensor[inside], origin[inside], horizon[inside]
        design = build_features(self._panel, sensor, origin, horizon, self._spec)
        loads = self._loads(design)
        times = (self._panel.hour(sensor, origin) + horizon).astype("datetime64[h]").astype("datetime64[ns]")
        table = {"sensor_id": self._panel.sensor_ids[sensor], "timestamp": times}
        columns = {f"q{i}": loads[:, i] for i in range(len(_QUANTILES))}
        return pd.DataFrame(table | {"predicted": loads[:, _QUANTILES.index(0.5)]} | columns)

    def _loads(self, design: Design) -> np.ndarray[Any, Any]:
        """Return the quantiles of the load, (n, quantiles), sorted: separate boosters may cross."""
        if not len(design.features):  # every origin of this day lies in a gap
            return np.empty((0, len(_QUANTILES)))
        scaled = np.sort(self._predict(design.features), axis=1)
        return design.base["blend"][:, None] + design.scale[:, None] * scaled


def _pairs(panel: Panel, start: np.ndarray[Any, Any], rng: np.random.Generator) -> tuple[np.ndarray[Any, Any], ...]:
    """Draw targets before each sensor's `start`, each with an observed origin 1…24 h before it."""
    owner = panel.sensor_of_cell()
    known = ~np.isnan(panel.load)
    cells = np.flatnonzero(known & (np.arange(len(owner)) < start[owner]))
    cells = np.tile(cells, -(-2 * _ROWS // len(cells)))
    horizon = rng.integers(1, _DAY + 1, len(cells))
    origin, sensor = cells - horizon, owner[cells]
    usable = np.flatnonzero((origin >= panel.first_cell[sensor] + _WEEK - 1) & known[np.maximum(origin, 0)])
    usable = rng.choice(usable, min(_ROWS, len(usable)), replace=False)
    usable = usable[np.argsort(origin[usable], kind="stable")]
    return sensor[usable], origin[usable], horizon[usable]


def _boosters(features: np.ndarray[Any, Any], target: np.ndarray[Any, Any], trees: int, rounds: int, seed: int) -> Any:
    from lightgbm import LGBMRegressor

    options = {
        "n_estimators": rounds // 2,
        "learning_rate": 0.08,
        "num_leaves": 31,
        "min_child_samples": 50,
        "subsample": 0.8,
        "subsample_freq": 1,
        "colsample_bytree": 0.6,
        "n_jobs": 1,
        "random_state": seed,
        "verbose": -1,
    }
    models = [LGBMRegressor(objective="quantile", alpha=q, **options).fit(features, target) for q in _QUANTILES]
    return lambda rows: np.column_stack([model.predict(rows) for model in models])


def _forest(features: np.ndarray[Any, Any], target: np.ndarray[Any, Any], trees: int, rounds: int, seed: int) -> Any:
    """Meinshausen (2006), "Quantile regression forests", JMLR 7: all training values of the leaves are kept."""
    from quantile_forest import RandomForestQuantileRegressor

    model = RandomForestQuantileRegressor(
        n_estimators=trees,
        min_samples_leaf=5,
        max_features=0.33,
        max_samples=min(20_000, len(target)),
        max_samples_leaf=None,
        n_jobs=1,
        random_state=seed,
    )
    usual = np.nan_to_num(np.nanmedian(features, axis=0))  # it takes no missing values

    def filled(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.where(np.isnan(rows), usual, rows)

    model.fit(filled(features), target)
    return lambda rows: model.predict(filled(rows), quantiles=_QUANTILES)
