"""The features of a load forecast: their names, what they depend on, and the table that holds them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smartgrid_pyfunc.features.calendar import CALENDAR, HOLIDAY
from smartgrid_pyfunc.features.weather import TEMPERATURE

BASE = (
    "min_value",
    "max_value",
    "count",
    "prev_hour_avg",
    "prev_hour_min",
    "prev_hour_max",
    "rolling_avg_3h",
    "rolling_avg_24h",
)
#: Differences between known hours, scaled.
CHANGES = (
    "week_change_1h",
    "week_change_3h",
    "week_change_24h",
    "day_change_1h",
    "day_change_24h",
    "month_change",
)
SAME_HOURS = tuple(f"same_hour_{j + 1}" for j in range(7))
SAME_WEEKDAY_HOURS = tuple(f"same_weekday_hour_{j + 1}" for j in range(4))
HISTORY = (
    *SAME_HOURS,
    *SAME_WEEKDAY_HOURS,
    "day_mean",
    "week_mean",
    "week_before_target",
    "week_after_target",
    *CHANGES,
    "blend",
)
#: Features that are loads of known hours, centred and scaled.
LEVELS = tuple(name for name in (*BASE, *HISTORY) if name not in (*CHANGES, "count"))
KNOWN_HOLIDAY = ("is_holiday", "is_holiday_day_lags", "is_holiday_week_lag", "is_holiday_before", "is_holiday_after")

#: Features that a request may lack, by what is missing; training blanks some of each group to cope with that.
OPTIONAL_GROUPS = {
    "min_value": ("min_value", "max_value", "count", "prev_hour_min", "prev_hour_max"),
    "temperature": TEMPERATURE,
    "is_holiday": KNOWN_HOLIDAY,
}

#: Levels that the linear model reads beside the changes.
LINEAR_LEVELS = tuple(name for name in LEVELS if not name.endswith(("min_value", "max_value", "hour_min", "hour_max")))


@dataclass(frozen=True)
class FeatureSpec:
    """What the features of a model depend on beside the panel."""

    timezone: str = "UTC"
    holidays: tuple[int, ...] = ()  # local days since 1970-01-01
    covariates: tuple[str, ...] = ()
    annual: bool = False  # the history is long enough to tell the season from the trend

    def names(self) -> tuple[str, ...]:
        """Return the names of the feature columns, in order."""
        names = ("horizon", *CALENDAR, *BASE, *HISTORY)
        names += HOLIDAY if self.holidays else ()
        names += TEMPERATURE if "temperature" in self.covariates else ()
        return names + (KNOWN_HOLIDAY if "is_holiday" in self.covariates else ())


@dataclass(frozen=True)
class Design:
    """Features of n forecasts with what turns the model's answer back into load.

    Attributes
    ----------
    features : ndarray of float32, shape (n, n_features)
        For trees: `FeatureSpec.names`.
    inputs : dict of ndarray of float32, shape (n, k)
        For the linear model: ``history`` (scaled loads and changes), ``around`` (scaled loads of single hours),
        ``clock`` (local hour of the day, weekday, phase of the year [rad]), ``holiday`` and, as the spec has them,
        ``temperature`` and ``past_temperature``.
    base : dict of ndarray, shape (n,)
        Simple forecasts [unit of the load] that a model may predict the difference to: ``blend`` (half the mean of the
        last seven same hours, half of the last four same weekday hours), ``last_day``, ``level`` (last week's mean).
    scale : ndarray, shape (n,)
        Spread of the last week before the origin [unit of the load], floored so that constant sensors do not explode.
    horizon : ndarray of int64, shape (n,)
        Lead time [h].
    sensor : ndarray of str, shape (n,)
    """

    features: NDArray[np.float32]
    inputs: dict[str, NDArray[np.float32]]
    base: dict[str, NDArray[np.float64]]
    scale: NDArray[np.float64]
    horizon: NDArray[np.int64]
    sensor: NDArray[np.object_]

    def take(self, index: NDArray[Any] | slice) -> Design:
        """Return the rows at `index`, a mask, positions or a slice."""
        return Design(
            self.features[index],
            {name: block[index] for name, block in self.inputs.items()},
            {name: base[index] for name, base in self.base.items()},
            self.scale[index],
            self.horizon[index],
            self.sensor[index],
        )
