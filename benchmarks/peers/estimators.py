"""The estimators that every recursive peer gets, with settings that suit hourly load."""

from __future__ import annotations

from typing import Any

#: Hours back that go into the features of skforecast and mlforecast, up to two weeks.
LAGS = [1, 2, 3, 4, 6, 12, 23, 24, 25, 47, 48, 49, 72, 96, 120, 144, 167, 168, 169, 192, 240, 264, 288, 312, 335, 336]
_FOREST_ROWS = 40_000  # drawn for each tree; ours draws half as many


def make(estimator: str, rows: int, trees: int, boosting_rounds: int, seed: int) -> Any:
    """Return an unfitted ``lightgbm`` or ``random_forest`` regressor on one thread."""
    if estimator == "lightgbm":
        from lightgbm import LGBMRegressor

        return LGBMRegressor(
            n_estimators=boosting_rounds,
            learning_rate=0.05,
            num_leaves=63,
            min_child_samples=30,
            subsample=0.8,
            subsample_freq=1,
            colsample_bytree=0.6,
            n_jobs=1,
            random_state=seed,
            verbose=-1,
        )
    from sklearn.ensemble import RandomForestRegressor

    return RandomForestRegressor(
        n_estimators=trees,
        min_samples_leaf=3,
        max_features=0.33,
        max_samples=min(1.0, _FOREST_ROWS / rows),
        n_jobs=1,
        random_state=seed,
    )
