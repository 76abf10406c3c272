"""Temperature as load answers to it: degrees beyond several thresholds, now, lately, and at the hours compared with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from smartgrid_pyfunc.features.cells import CellReader, known_mean
from smartgrid_pyfunc.features.panel import Panel
from smartgrid_pyfunc.schema import HOURS_A_DAY, HOURS_A_WEEK

TEMPERATURE = (
    "temperature",
    "temperature_change",
    "temperature_day",
    "temperature_anomaly",
    "temperature_origin",
    "temperature_before_1h",
    "temperature_before_3h",
    "temperature_smoothed_12h",
    "temperature_smoothed_48h",
)
_THRESHOLDS = np.array([8.0, 12.0, 15.0, 18.0, 21.0, 24.0, 28.0, 32.0])  # °C: heating below the lower, cooling above
_HOURS = np.arange(8 * HOURS_A_DAY + 1)  # before the target
_HALF_LIVES = {3: 24, 12: 72, 48: HOURS_A_WEEK}  # h, and the hours summed over


def _smoothed(path: NDArray[np.float64], half_life: int, lag: int = 0) -> NDArray[np.float64]:
    """Exponentially weighted mean of the temperatures up to `lag` hours before the target, shape (n,)."""
    part = path[:, lag : lag + _HALF_LIVES[half_life]]
    weights = 0.5 ** (np.arange(part.shape[1]) / half_life)
    # einsum adds a row's products in one order, whatever the other rows are
    smoothed: NDArray[np.float64] = np.einsum("ij,j->i", part, weights / weights.sum())
    return smoothed


def _degrees(temperature: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the temperature and its excess over each threshold, one more axis of length 9."""
    excess = np.maximum(temperature[..., None] - _THRESHOLDS, 0.0)
    return np.concatenate([temperature[..., None], excess], axis=-1)


def _mean_degrees(temperatures: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean of `_degrees` over the hours (n, k) of each row; one threshold at a time, which is light."""
    excess = [np.maximum(temperatures - threshold, 0.0).mean(axis=1) for threshold in _THRESHOLDS]
    return np.column_stack([temperatures.mean(axis=1), *excess])


class TemperaturePath:
    """Temperatures of the eight days before each of n targets, and of the week before each origin.

    Hours that nobody sent count as the mean of the known ones; where the target's own temperature is not known,
    everything is.
    """

    def __init__(self, panel: Panel, read: CellReader) -> None:
        path = read.covariate("temperature", _HOURS)
        usual = known_mean(path)[:, None]
        self._unknown = np.isnan(path[:, 0])
        self._path = np.where(np.isnan(path), usual, path)
        self.target = path[:, 0]
        values = panel.covariates.get("temperature")
        week = (
            np.full((len(path), HOURS_A_WEEK), np.nan) if values is None else read.back(values, np.arange(HOURS_A_WEEK))
        )
        self.origin = week[:, 0]
        self._week = np.where(np.isnan(week), usual, week)

    def features(self) -> dict[str, NDArray[np.float64]]:
        """Return the columns `TEMPERATURE` [°C], NaN where the target's temperature is not known."""
        path, target = self._path, self.target
        columns = {
            "temperature": target,
            "temperature_change": target - path[:, HOURS_A_DAY],
            "temperature_day": path[:, :HOURS_A_DAY].mean(axis=1),
            "temperature_anomaly": target - path[:, HOURS_A_DAY::HOURS_A_DAY].mean(axis=1),
            "temperature_origin": self.origin,
            "temperature_before_1h": path[:, 1],
            "temperature_before_3h": path[:, 3],
            "temperature_smoothed_12h": _smoothed(path, 12),
            "temperature_smoothed_48h": _smoothed(path, 48),
        }
        return {name: np.where(self._unknown, np.nan, column) for name, column in columns.items()}

    def response(self) -> NDArray[np.float64]:
        """Return degrees at the target and smoothed over the hours before: what load answers to now, shape (n, 36)."""
        parts = [self.target, *(_smoothed(self._path, half_life) for half_life in _HALF_LIVES)]
        return self._blanked(np.hstack([_degrees(part) for part in parts]))

    def past_response(self) -> NDArray[np.float64]:
        """Return the same of the hours compared with: days and a week before, the origin's week."""
        path = self._path
        days = path[:, HOURS_A_DAY::HOURS_A_DAY][:, :7]
        parts = [
            _degrees(path[:, :HOURS_A_DAY].mean(axis=1)),
            _degrees(path[:, HOURS_A_DAY : 2 * HOURS_A_DAY].mean(axis=1)),
            path[:, :HOURS_A_DAY].max(axis=1, keepdims=True),
            path[:, :HOURS_A_DAY].min(axis=1, keepdims=True),
            _degrees(path[:, HOURS_A_DAY]),
            _mean_degrees(days),
            _degrees(path[:, HOURS_A_WEEK]),
            _degrees(_smoothed(path, 12, HOURS_A_DAY)),
            _degrees(_smoothed(path, 12, 6 * HOURS_A_DAY)),
            _mean_degrees(self._week),
            _mean_degrees(self._week[:, :3]),
        ]
        return self._blanked(np.hstack(parts))

    def _blanked(self, columns: NDArray[np.float64]) -> NDArray[np.float64]:
        columns[self._unknown] = np.nan
        return columns
