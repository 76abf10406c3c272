"""Reading cells of a panel as seen from forecasts: what was known at each origin, and nothing later."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from smartgrid_pyfunc.features.panel import Panel
from smartgrid_pyfunc.schema import HOURS_A_DAY, HOURS_A_WEEK


class CellReader:
    """Reads cells of a panel at given distances, seen from n forecasts.

    Parameters
    ----------
    panel : Panel
    sensor, origin, horizon : ndarray of int64, shape (n,)
        Number of the sensor, cell of its origin, lead time [h].
    """

    def __init__(
        self, panel: Panel, sensor: NDArray[np.int64], origin: NDArray[np.int64], horizon: NDArray[np.int64]
    ) -> None:
        self._panel, self._origin = panel, origin
        self._target = origin + horizon
        self._end = panel.first_cell[sensor] + panel.n_hours[sensor]
        self._last = len(panel.load) - 1

    def back(self, values: NDArray[np.float64], hours: Any) -> NDArray[np.float64]:
        """Return values `hours` before the origin, shape (n, len(hours))."""
        found: NDArray[np.float64] = values[self._origin[:, None] - hours]
        return found

    def before_target(self, values: NDArray[np.float64], hours: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return values `hours` (n, k) before the target; NaN where that is after the origin."""
        cell = self._target[:, None] - hours
        return np.where(cell <= self._origin[:, None], values[np.minimum(cell, self._origin[:, None])], np.nan)

    def covariate(self, name: str, hours: Any) -> NDArray[np.float64]:
        """Return a covariate `hours` (k,) before the target, past the origin too; NaN beyond the sensor's own rows."""
        cell = self._target[:, None] - np.asarray(hours)
        values = self._panel.covariates.get(name)
        if values is None:
            return np.full(cell.shape, np.nan)
        return np.where(cell < self._end[:, None], values[np.minimum(cell, self._last)], np.nan)


def known_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the last axis of what is known; NaN where nothing is."""
    known = ~np.isnan(values)
    count = known.sum(axis=-1)
    total = np.where(known, values, 0.0).sum(axis=-1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def known_spread(values: NDArray[np.float64], mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """Root mean square distance from `mean` over the last axis, of what is known."""
    return np.sqrt(known_mean((values - mean[..., None]) ** 2))


def season_lags(horizon: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Distances [h] from the target to the 7 latest known same hours and the 4 latest same weekday hours."""
    first_day = -(-horizon // HOURS_A_DAY) * HOURS_A_DAY
    days = first_day[:, None] + HOURS_A_DAY * np.arange(7)
    first_week = -(-horizon // HOURS_A_WEEK) * HOURS_A_WEEK
    weeks = first_week[:, None] + HOURS_A_WEEK * np.arange(4)
    return days, weeks
