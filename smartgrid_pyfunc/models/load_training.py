"""Training samples of the load model and the estimator fitted to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smartgrid_pyfunc.features.design import OPTIONAL_GROUPS, Design, FeatureSpec
from smartgrid_pyfunc.features.load import build_features
from smartgrid_pyfunc.features.panel import Panel
from smartgrid_pyfunc.models.load_estimator import LoadEstimator
from smartgrid_pyfunc.schema import HOURS_A_DAY, HOURS_A_WEEK, MAX_HORIZON, InputError

MIN_ROWS = 200
_MOST_ORIGINS = 12  # of one target hour
_BLANKED = 0.15  # share of training rows that lack each optional group of features


@dataclass(frozen=True)
class Samples:
    """Pairs of an origin and a target hour: sensor numbers, cells of the panel and lead times [h], shape (n,) each."""

    sensor: NDArray[np.int64]
    origin: NDArray[np.int64]
    horizon: NDArray[np.int64]

    @property
    def target(self) -> NDArray[np.int64]:
        """Cell of the target hour."""
        return self.origin + self.horizon

    def take(self, index: NDArray[Any]) -> Samples:
        """Return the samples at `index`, a mask or positions."""
        return Samples(self.sensor[index], self.origin[index], self.horizon[index])


def draw_samples(panel: Panel, rng: np.random.Generator, *, wanted: int) -> Samples:
    """Pair observed hours with random origins before them, about `wanted` pairs.

    Every observed hour comes as often as the other ones, `_MOST_ORIGINS` times at most. Half of the horizons are drawn
    from 1…24 h and half from 1…168 h. A pair is kept if its origin was observed and has at least a week of rows before.
    """
    cells = np.flatnonzero(~np.isnan(panel.load))
    repeats = min(_MOST_ORIGINS, -(-wanted // max(len(cells), 1)))
    sensor = panel.sensor_of_cell()[cells]
    cells, sensor = np.tile(cells, repeats), np.tile(sensor, repeats)
    near = rng.integers(1, HOURS_A_DAY + 1, len(cells))
    far = rng.integers(1, MAX_HORIZON + 1, len(cells))
    horizon = np.where(rng.random(len(cells)) < 0.5, near, far)
    origin = cells - horizon
    usable = (origin >= panel.first_cell[sensor] + HOURS_A_WEEK - 1) & ~np.isnan(panel.load[np.maximum(origin, 0)])
    return Samples(sensor, origin, horizon).take(usable)


def thin(samples: Samples, most: int, rng: np.random.Generator) -> Samples:
    """Return at most `most` samples, drawn uniformly."""
    if len(samples.origin) <= most:
        return samples
    return samples.take(rng.choice(len(samples.origin), most, replace=False))


def fit_estimator(
    panel: Panel, samples: Samples, spec: FeatureSpec, estimator: str, options: Mapping[str, Any]
) -> tuple[LoadEstimator, NDArray[np.float64]]:
    """Build the features of `samples`, blank what requests may lack, and fit; see `LoadEstimator.fit`.

    Raises
    ------
    InputError
        If fewer than `MIN_ROWS` samples are left.
    """
    if len(samples.origin) < MIN_ROWS:
        raise InputError(
            f"training needs at least {MIN_ROWS} hours that have a week of history",
            found=len(samples.origin),
            remedy="give several weeks of hourly load per sensor",
        )
    samples = samples.take(np.argsort(samples.origin, kind="stable"))  # what is known at an origin is read once
    design = build_features(panel, samples.sensor, samples.origin, samples.horizon, spec)
    _blank_optional(design, spec, np.random.default_rng(options["random_state"]))
    return LoadEstimator.fit(design, panel.load[samples.target], spec.annual, estimator, options)


def _blank_optional(design: Design, spec: FeatureSpec, rng: np.random.Generator) -> None:
    names = spec.names()
    for group, members in OPTIONAL_GROUPS.items():
        columns = [names.index(name) for name in members if name in names]
        rows = np.flatnonzero(rng.random(len(design.features)) < _BLANKED)
        if columns:
            design.features[rows[:, None], columns] = np.nan
        if group in design.inputs:
            design.inputs[group][rows] = np.nan
