"""skforecast: ForecasterRecursive for one series, ForecasterRecursiveMultiSeries (each series scaled) for several."""

from __future__ import annotations

from typing import Any

import pandas as pd
from skforecast.preprocessing import RollingFeatures
from skforecast.recursive import ForecasterRecursive, ForecasterRecursiveMultiSeries
from sklearn.preprocessing import StandardScaler

from peers.estimators import LAGS, make
from peers.task import Task

_WINDOW_HOURS = 24 * 15


def create(options: dict[str, Any]) -> SkforecastPeer:
    return SkforecastPeer(options)


class SkforecastPeer:
    packages = ("skforecast", "lightgbm", "scikit-learn", "pandas", "numpy")

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = dict(options)

    def fit(self, task: Task) -> None:
        rows = task.before(task.grid, 0)
        rolling = RollingFeatures(stats=["mean", "std", "mean"], window_sizes=[24, 24, 168])
        common = {"estimator": make(rows=len(rows), **self._options), "lags": LAGS, "window_features": rolling}
        series, known = _by_sensor(rows, "avg_value"), _by_sensor(rows, task.known)
        if len(series) == 1:
            (self._single,) = series
            self._forecaster = ForecasterRecursive(**common)
            self._forecaster.fit(y=series[self._single], exog=known[self._single])
        else:
            self._single = None
            scaler = StandardScaler()
            self._forecaster = ForecasterRecursiveMultiSeries(**common, encoding="ordinal", transformer_series=scaler)
            self._forecaster.fit(series=series, exog=known)

    def forecast(self, task: Task, day: int) -> pd.DataFrame:
        past, ahead = task.before(task.grid, day, _WINDOW_HOURS), task.during(task.grid, day)
        load, known = _by_sensor(past, "avg_value"), _by_sensor(ahead, task.known)
        if self._single is not None:
            (window,), (exog,) = load.values(), known.values()
            predicted = self._forecaster.predict(24, last_window=window, exog=exog)
            return pd.DataFrame({"sensor_id": self._single, "timestamp": predicted.index, "predicted": predicted})
        # Only series whose windows end together can be forecast together.
        groups = [list(sensors) for sensors in task.starts.groupby(task.starts).groups.values()]
        return pd.concat([self._forecast_group(load, known, sensors) for sensors in groups], ignore_index=True)

    def _forecast_group(self, load: dict[str, Any], known: dict[str, Any], sensors: list[str]) -> pd.DataFrame:
        window = pd.DataFrame({sensor: load[sensor] for sensor in sensors})
        exog = {sensor: known[sensor] for sensor in sensors}
        predicted = self._forecaster.predict(24, levels=sensors, last_window=window, exog=exog)
        named = predicted.rename_axis("timestamp").reset_index()
        return named.rename(columns={"level": "sensor_id", "pred": "predicted"})


def _by_sensor(rows: pd.DataFrame, columns: str | list[str]) -> dict[str, Any]:
    """Return a series (or frame) per sensor with an hourly index."""
    return {s: part.set_index("timestamp")[columns].asfreq("h") for s, part in rows.groupby("sensor_id")}
