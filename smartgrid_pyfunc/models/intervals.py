"""Prediction intervals from scaled residuals of a calibration window, by horizon and sensor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_FIRST_HOURS = np.array([1, 2, 3, 5, 9, 17, 25, 49, 97])  # first horizon [h] of each group that shares quantiles
_PROBABILITIES = np.linspace(0.0, 1.0, 401)
_FEWEST = 50  # residuals that a group needs for quantiles of its own
_SHRINK = 100.0  # residuals that count as much as the sensor's own when its width is estimated
_TAIL = 0.95  # probability beyond which a sensor's residuals may be faults: they should not set its width
_DEAD = 1e-3  # of the widest sensor's width: a constant sensor tells nothing about the others


class ResidualQuantiles:
    """Quantiles of (actual - forecast) / scale by group of horizons, times a width for each sensor.

    Split conformal prediction (Lei et al., 2018, *JASA* 113, "Distribution-free predictive inference for regression")
    with residuals normalised by the sensor's spread. Nothing changes at request time.

    Parameters
    ----------
    table : ndarray, shape (groups of horizons, probabilities)
    widths : mapping of str to float
        Factor per sensor; a sensor not in it has the factor 1.
    """

    def __init__(self, table: NDArray[np.float64], widths: Mapping[str, float]) -> None:
        self._table, self._widths = table, dict(widths)

    @classmethod
    def fit(
        cls, residuals: NDArray[np.float64], horizon: NDArray[np.int64], sensor: NDArray[np.object_]
    ) -> ResidualQuantiles:
        """Estimate from n out-of-sample scaled residuals (NaN is left out), their horizons [h] and sensors."""
        known = ~np.isnan(residuals)
        residuals, horizon, sensor = residuals[known], horizon[known], sensor[known]
        widths, living = _sensor_widths(residuals, sensor)
        relative = (residuals / np.array([widths[s] for s in sensor], dtype=float))[living]
        group = _group(horizon[living])
        rows = [_quantiles(relative[group == g], relative) for g in range(len(_FIRST_HOURS))]
        return cls(np.array(rows), widths)

    def bounds(
        self, level: float, horizon: NDArray[np.int64], sensor: NDArray[np.object_]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return lower and upper scaled residuals of the central interval of probability `level`, shape (n,) each."""
        width = np.array([self._widths.get(s, 1.0) for s in sensor])
        group = _group(horizon)
        low, high = (
            np.array([np.interp(p, _PROBABILITIES, row) for row in self._table])
            for p in ((1 - level) / 2, (1 + level) / 2)
        )
        return low[group] * width, high[group] * width

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the state as arrays."""
        names = np.array(list(self._widths), dtype=object)
        return {"table": self._table, "sensor": names, "width": np.array(list(self._widths.values()), dtype=float)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> ResidualQuantiles:
        """Undo `to_arrays`."""
        return cls(arrays["table"], dict(zip(arrays["sensor"], arrays["width"].tolist(), strict=True)))


def _group(horizon: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.searchsorted(_FIRST_HOURS, horizon, side="right") - 1


def _sensor_widths(
    residuals: NDArray[np.float64], sensor: NDArray[np.object_]
) -> tuple[dict[str, float], NDArray[np.bool_]]:
    """Mean absolute residual of each sensor relative to all, drawn towards 1 where a sensor has few.

    Constant sensors are left out of "all": among many of them the residuals of the others would look huge. The second
    array marks the residuals of the other sensors. A mean, not a median: that of a sensor often at rest is 0.
    """
    names, code = np.unique(sensor.astype(str), return_inverse=True)
    size, count = np.abs(residuals), np.bincount(code, minlength=len(names))
    parts = np.split(size[np.argsort(code, kind="stable")], np.cumsum(count)[:-1]) if len(names) else []
    own = np.array([np.minimum(part, np.quantile(part, _TAIL)).mean() for part in parts])
    living = (own >= _DEAD * own.max(initial=0.0))[code]
    overall = max(float(np.average(own, weights=count * (own >= _DEAD * own.max()))), 1e-9) if len(own) else 1.0
    share = count / (count + _SHRINK)
    widths = np.maximum(share * own / overall + (1 - share), 1e-3)
    return dict(zip(names.tolist(), widths.tolist(), strict=True)), living


def _quantiles(own: NDArray[np.float64], every: NDArray[np.float64]) -> NDArray[np.float64]:
    residuals = own if len(own) >= _FEWEST else every
    return np.quantile(residuals, _PROBABILITIES) if len(residuals) else np.full(len(_PROBABILITIES), np.nan)
