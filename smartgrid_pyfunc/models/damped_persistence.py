"""The last day, moved by a part of how far the last hour was from that day: what short horizons need most."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smartgrid_pyfunc.features.design import CHANGES, LINEAR_LEVELS, Design
from smartgrid_pyfunc.schema import MAX_HORIZON

_CLIP = 4.0  # scaled changes beyond this are faults
_TARGET_CLIP = 8.0
_PENALTY = 30.0  # rows' worth of a deviation that is forgotten at once
_COLUMN = len(LINEAR_LEVELS) + CHANGES.index("day_change_1h")  # of the history
_NARROWEST, _WIDTH = 0.25, 0.1  # of the kernel over horizons: [h], and as a share of the horizon


class DampedPersistence:
    """Load of the last same hour plus ``share[h - 1]`` of the last hour's difference to the same hour a day before it.

    Parameters
    ----------
    share : ndarray, shape (168,)
        Of the difference that is left after 1…168 h.

    Notes
    -----
    The damped trend of Gardner & McKenzie (1985), "Forecasting trends in time series", on seasonal differences.
    """

    def __init__(self, share: NDArray[np.float64]) -> None:
        self.share = share

    @classmethod
    def fit(cls, design: Design, load: NDArray[np.float64]) -> DampedPersistence:
        """Fit by least squares in each neighbourhood of horizons to n rows and the loads that followed."""
        change = _change(design)
        target = np.clip((load - design.base["last_day"]) / design.scale, -_TARGET_CLIP, _TARGET_CLIP)
        product = smoothed_by_horizon(change * target, design.horizon)
        return cls(product / (smoothed_by_horizon(change**2, design.horizon) + _PENALTY))

    def predict(self, design: Design) -> NDArray[np.float64]:
        """Return the load [unit of the load], shape (n,)."""
        load: NDArray[np.float64] = design.base["last_day"] + design.scale * self.moved(design)
        return load

    def moved(self, design: Design) -> NDArray[np.float64]:
        """Return what the last hour adds to the last day, scaled, shape (n,)."""
        return self.share[design.horizon - 1] * _change(design)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the state as arrays."""
        return {"share": self.share}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> DampedPersistence:
        """Undo `to_arrays`."""
        return cls(arrays["share"])


def smoothed_by_horizon(values: NDArray[np.float64], horizon: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the sum of `values` near each horizon 1…168 h, weighted by distance, shape (168,)."""
    sums = np.bincount(horizon - 1, values, minlength=MAX_HORIZON)
    hours = np.arange(1, MAX_HORIZON + 1)
    width = np.maximum(_NARROWEST, _WIDTH * hours)[:, None]
    smoothed: NDArray[np.float64] = np.exp(-0.5 * ((hours[None, :] - hours[:, None]) / width) ** 2) @ sums
    return smoothed


def _change(design: Design) -> NDArray[np.float64]:
    return np.clip(design.inputs["history"][:, _COLUMN].astype(np.float64), -_CLIP, _CLIP)
