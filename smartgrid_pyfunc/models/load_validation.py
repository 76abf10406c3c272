"""Out-of-sample errors of the load model: what its intervals and its fallbacks to the seasonal naive rest on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smartgrid_pyfunc.features.load import Design, seasonal_naive
from smartgrid_pyfunc.features.panel import Panel
from smartgrid_pyfunc.models.intervals import ResidualQuantiles
from smartgrid_pyfunc.models.load_training import Samples
from smartgrid_pyfunc.schema import HOURS_A_DAY, HOURS_A_WEEK

ML, NAIVE = "random_forest", "seasonal_naive"

_BLOCK = 28 * HOURS_A_DAY
_SPACING = 122 * HOURS_A_DAY  # a third of a year from one block's end to the next one's
_MOST_BLOCKS = 3
_LEFT = 84 * HOURS_A_DAY  # hours that must be left before a block for it to be held out
_FEWEST_TO_JUDGE = 100  # forecasts below which a sensor keeps the forest


def held_out(panel: Panel, samples: Samples) -> NDArray[np.bool_]:
    """Return which samples have their target in a held-out block of their sensor, shape (n,).

    The last four weeks are held out (at most a quarter of a sensor's hours) and, as far as the data reach back, four
    weeks a third and two thirds of a year before: errors of one season alone would make intervals too narrow or too
    wide in the next.
    """
    hours = panel.n_hours[samples.sensor]
    age = panel.origin[samples.sensor] - samples.target
    block = age // _SPACING
    reached = (block == 0) | ((block < _MOST_BLOCKS) & (hours > block * _SPACING + _BLOCK + _LEFT))
    inside = age % _SPACING < np.minimum(_BLOCK, hours // 4)
    chosen: NDArray[np.bool_] = reached & inside
    return chosen


def preferred_naive(naive: Mapping[int, NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the value a whole number of weeks before, else of days."""
    return np.where(np.isnan(naive[HOURS_A_WEEK]), naive[HOURS_A_DAY], naive[HOURS_A_WEEK])


@dataclass(frozen=True)
class Validation:
    """Errors of n forecasts that the model had not seen.

    Attributes
    ----------
    table : DataFrame
        ``sensor``, ``horizon`` [h], the scaled errors ``random_forest`` and ``seasonal_naive`` (actual - forecast, in
        units of the design's scale), and the absolute errors ``model``, ``lag_24`` and ``lag_168`` [unit of the load].
    """

    table: pd.DataFrame

    @classmethod
    def of(cls, panel: Panel, samples: Samples, design: Design, predicted: NDArray[np.float64]) -> Validation:
        """Compare `predicted` with what then happened."""
        actual = panel.load[samples.target]
        naive = seasonal_naive(panel, samples.origin, samples.horizon)
        columns = {
            "sensor": panel.sensor_ids[samples.sensor],
            "horizon": samples.horizon,
            ML: (actual - predicted) / design.scale,
            NAIVE: (actual - preferred_naive(naive)) / design.scale,
            "model": np.abs(actual - predicted),
            **{f"lag_{lag}": np.abs(actual - value) for lag, value in naive.items()},
        }
        return cls(pd.DataFrame(columns))

    def joined(self, other: Validation) -> Validation:
        """Return the errors of both."""
        return Validation(pd.concat([self.table, other.table], ignore_index=True))

    def quantiles(self) -> dict[str, ResidualQuantiles]:
        """Return the quantiles of the scaled errors of the forest and of the seasonal naive."""
        sensor, horizon = self.table["sensor"].to_numpy(dtype=object), self.table["horizon"].to_numpy()
        return {name: ResidualQuantiles.fit(self.table[name].to_numpy(), horizon, sensor) for name in (ML, NAIVE)}

    def fallback(self) -> frozenset[str]:
        """Return the sensors whose mean absolute error is not below that of the better naive, where all three exist."""
        lags = ["lag_24", "lag_168"]
        by_sensor = self.table.dropna(subset=["model", *lags]).groupby("sensor")[["model", *lags]]
        mean, count = by_sensor.mean(), by_sensor.size()
        worse = mean["model"] >= mean[lags].min(axis=1)
        return frozenset(str(name) for name in mean.index[worse & (count >= _FEWEST_TO_JUDGE)])
