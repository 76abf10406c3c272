"""Out-of-sample errors of the load model: what its intervals and its fallbacks to the seasonal naive rest on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smartgrid_pyfunc.features.design import Design, FeatureSpec
from smartgrid_pyfunc.features.load import seasonal_naive
from smartgrid_pyfunc.features.panel import Panel
from smartgrid_pyfunc.models.intervals import Conditions, ResidualQuantiles
from smartgrid_pyfunc.models.load_training import Samples
from smartgrid_pyfunc.schema import HOURS_A_DAY, HOURS_A_WEEK

ML, NAIVE = "ml", "seasonal_naive"  # the estimator, whichever it is, and what it falls back to

_BLOCK = 14 * HOURS_A_DAY
_ONLY_BLOCK = 28 * HOURS_A_DAY  # where the data reach back for one block only
_SPACING = 61 * HOURS_A_DAY  # a sixth of a year from one block's end to the next one's
_MOST_BLOCKS = 6
_LEFT = 70 * HOURS_A_DAY  # hours that must be left before a block for it to be held out
_TINY = 1e-9
_FEWEST_TO_JUDGE = 100  # forecasts below which a sensor keeps the estimator
_HOPELESS, _MARGIN = 3.0, 0.02


def held_out(panel: Panel, samples: Samples) -> NDArray[np.bool_]:
    """Return which samples have their target in a held-out block of their sensor, shape (n,).

    The last two weeks are held out and, as far as the data reach back, two weeks of every second month of the year
    before: errors of one season alone would make intervals too narrow or too wide in the next. With a shorter history
    it is the last four weeks, and at most a quarter of a sensor's hours.
    """
    hours = panel.n_hours[samples.sensor]
    age = panel.origin[samples.sensor] - samples.target
    block = age // _SPACING
    reached = (block == 0) | ((block < _MOST_BLOCKS) & (hours > block * _SPACING + _BLOCK + _LEFT))
    length = np.where(hours > _SPACING + _BLOCK + _LEFT, _BLOCK, _ONLY_BLOCK)
    inside = age % _SPACING < np.minimum(length, hours // 4)
    chosen: NDArray[np.bool_] = reached & inside
    return chosen


def preferred_naive(naive: Mapping[int, NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the value a whole number of weeks before, else of days."""
    return np.where(np.isnan(naive[HOURS_A_WEEK]), naive[HOURS_A_DAY], naive[HOURS_A_WEEK])


_COLUMNS = ("horizon", "hour_of_day", "day_of_week", "temperature", "temperature_anomaly", "is_holiday", "holiday")
_SIZES = ("week_change_1h", "week_change_24h", "day_change_24h", "month_change", "temperature_change")
_SEASONAL = 2  # last columns of the conditions


def conditions(design: Design, predicted: NDArray[np.float64], spec: FeatureSpec) -> Conditions:
    """Return what the size of the errors of n forecasts may depend on, all of it known when they are made.

    Horizon, clock, weather and holidays; how unusual the last hours are; how far the same hours of earlier days
    differ among each other and the forecast from simple ones. The columns are the same for every `spec`.
    """
    names, scale = spec.names(), design.scale
    features = dict(zip(names, design.features.T, strict=True))
    unknown = np.full(len(scale), np.nan, dtype=np.float32)
    level = design.base["level"]
    phase = 2 * np.pi * features["month"] / 12
    with np.errstate(invalid="ignore", divide="ignore"):
        columns = [
            *(features.get(name, unknown) for name in _COLUMNS),
            *(np.abs(features.get(name, unknown)) for name in _SIZES),
            *(_spread([features[n] for n in names if n.startswith(p)]) for p in ("same_hour_", "same_weekday_hour_")),
            *(np.abs(predicted - design.base[name]) / scale for name in ("blend", "last_day")),
            (predicted - level) / scale,
            np.log(scale / np.maximum(np.abs(level), _TINY)),
            np.cos(phase),
            np.sin(phase),
        ]
    stacked = np.column_stack(columns).astype(np.float32)
    return Conditions(stacked, tuple(range(stacked.shape[1] - _SEASONAL, stacked.shape[1])))


def _spread(columns: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
    """Return the standard deviation of what is known in each row; NaN where nothing is."""
    values = np.column_stack(columns).astype(np.float64)
    known = ~np.isnan(values)
    count = known.sum(axis=1)
    mean = np.where(known, values, 0.0).sum(axis=1) / count
    square = np.where(known, (values - mean[:, None]) ** 2, 0.0).sum(axis=1) / count
    spread: NDArray[np.float64] = np.sqrt(square)
    return spread


@dataclass(frozen=True)
class Validation:
    """Errors of n forecasts that the model had not seen.

    Attributes
    ----------
    table : DataFrame
        ``sensor``, ``horizon`` [h], ``week`` (number of the target's week) and the scaled errors ``ml`` and
        ``seasonal_naive`` (actual - forecast, in units of the design's scale).
    conditions : Conditions, optional
        What the size of the model's own errors may depend on.
    """

    table: pd.DataFrame
    conditions: Conditions | None = None

    @classmethod
    def of(
        cls,
        panel: Panel,
        samples: Samples,
        design: Design,
        predicted: NDArray[np.float64],
        spec: FeatureSpec | None = None,
    ) -> Validation:
        """Compare `predicted` with what then happened; without `spec`, no conditions are kept."""
        actual = panel.load[samples.target]
        naive = seasonal_naive(panel, samples.origin, samples.horizon)
        columns = {
            "sensor": panel.sensor_ids[samples.sensor],
            "horizon": samples.horizon,
            "week": panel.hour(samples.sensor, samples.target) // HOURS_A_WEEK,
            ML: (actual - predicted) / design.scale,
            NAIVE: (actual - preferred_naive(naive)) / design.scale,
        }
        return cls(pd.DataFrame(columns), conditions(design, predicted, spec) if spec else None)

    def joined(self, other: Validation) -> Validation:
        """Return the errors of both, with conditions if both have them."""
        table = pd.concat([self.table, other.table], ignore_index=True)
        if self.conditions is None or other.conditions is None:
            return Validation(table)
        columns = np.concatenate([self.conditions.columns, other.conditions.columns])
        return Validation(table, Conditions(columns, self.conditions.seasonal))

    def quantiles(self) -> dict[str, ResidualQuantiles]:
        """Return the quantiles of the scaled errors of the model and of the seasonal naive."""
        sensor, horizon = self.table["sensor"].to_numpy(dtype=object), self.table["horizon"].to_numpy()
        week = self.table["week"].to_numpy()
        own = ResidualQuantiles.fit(self.table[ML].to_numpy(), horizon, sensor, self.conditions, week)
        return {ML: own, NAIVE: ResidualQuantiles.fit(self.table[NAIVE].to_numpy(), horizon, sensor)}

    def fallback(self) -> frozenset[str]:
        """Return the sensors for which the seasonal naive that would answer was clearly better.

        Clearly: by over 2 % of the mean absolute scaled error. Hours that no forecast can meet (errors of more than
        three times the load's spread) count alike for both.
        """
        known = self.table[["sensor", ML, NAIVE]].dropna()
        errors = known[[ML, NAIVE]].abs().clip(upper=_HOPELESS).groupby(known["sensor"])
        mean, count = errors.mean(), errors.size()
        worse = mean[ML] > (1 + _MARGIN) * mean[NAIVE]
        return frozenset(str(name) for name in mean.index[worse & (count >= _FEWEST_TO_JUDGE)])
