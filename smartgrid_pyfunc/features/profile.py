"""What is usual: per sensor, per sensor type and over all, for each hour of the week, and how rare a deviation is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smartgrid_pyfunc.features.readings import CONTEXT, ReadingContext
from smartgrid_pyfunc.schema import HOURS_A_WEEK

#: Folded deviations of a reading; each has its own tail at each level of knowledge.
DEVIATIONS = ("value", *CONTEXT)
LEVELS = ("sensor", "sensor_type", "global")

_NORMAL = 1.4826  # MAD of a normal distribution → its standard deviation
_TAIL = np.array([1.0, 0.75, 0.5, 0.25, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001])
_SURPRISE = -np.log(_TAIL)
_FEWEST_AN_HOUR = 4  # readings of an hour of the week before its own median is trusted
_FEWEST_A_LEVEL = 48  # readings before a sensor is known by itself
_SPREAD_FLOOR = 0.3  # of the spread over all hours
_RELATIVE_FLOOR = 1e-3  # of the median value: constant sensors must not explode
_TINY = 1e-9
_LARGEST = 1e12  # deviation: values near the end of the floating-point range must not become infinite


class Profile:
    """Tables over G groups: every known sensor, then every type, then all readings together.

    Attributes
    ----------
    centre : ndarray, shape (G, 168)
        Usual value by hour of the week [unit of the reading].
    spread : ndarray, shape (G, 24)
        Robust standard deviation around it by hour of the day [unit of the reading].
    tails : ndarray, shape (G, len(DEVIATIONS), len(_TAIL))
        Upper quantiles of each folded deviation; beyond the last one the tail is taken as exponential.
    """

    def __init__(self, names: Mapping[str, NDArray[np.object_]], arrays: Mapping[str, NDArray[np.float64]]) -> None:
        self._names = dict(names)
        self._sensor = {name: i for i, name in enumerate(names["sensor"])}
        self._type = {name: i + len(self._sensor) for i, name in enumerate(names["sensor_type"])}
        self.centre, self.spread = arrays["centre"], arrays["spread"]
        self.location, self.scale, self.tails = arrays["location"], arrays["scale"], arrays["tails"]

    @classmethod
    def fit(cls, context: ReadingContext) -> Profile:
        """Learn what is usual from the distinct readings of `context`."""
        rows, names, groups = context.rows, {}, []
        for level in ("sensor", "sensor_type"):
            column = rows["sensor_id" if level == "sensor" else level]
            counts = column.value_counts()
            kept = np.array(sorted(counts.index[counts >= _FEWEST_A_LEVEL]), dtype=object)
            names[level] = kept
            groups.append(pd.Index(kept).get_indexer(column))
        groups.append(np.zeros(len(rows), dtype=np.int64))
        tables = [_tables(group, n, context) for group, n in zip(groups, (*map(len, names.values()), 1), strict=True)]
        arrays = {key: np.concatenate([table[key] for table in tables]) for key in tables[0]}
        profile = cls(names, arrays)
        start = 0
        for group, table in zip(groups, tables, strict=True):
            profile._fit_tails(group, start, len(table["centre"]), context)
            start += len(table["centre"])
        return profile

    def _fit_tails(self, group: NDArray[np.int64], start: int, n: int, context: ReadingContext) -> None:
        inside = np.flatnonzero(group >= 0)
        if not len(inside):  # no sensor, or no type, has enough readings
            return
        deviations = self.deviations(group + start, context)[inside]
        for j in range(len(DEVIATIONS)):
            by_group = pd.Series(deviations[:, j]).groupby(group[inside]).quantile(1 - _TAIL).unstack()
            self.tails[start + by_group.index.to_numpy(), j] = by_group.to_numpy()

    @property
    def sensors(self) -> NDArray[np.object_]:
        """Sensors known by themselves, sorted."""
        names: NDArray[np.object_] = self._names["sensor"]
        return names

    def group_of(self, rows: pd.DataFrame) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return for each reading the best group that is known and its level (number into `LEVELS`), shape (m,)."""
        sensor = rows["sensor_id"].map(self._sensor).to_numpy(dtype=np.float64, na_value=np.nan)
        kind = rows["sensor_type"].map(self._type).to_numpy(dtype=np.float64, na_value=np.nan)
        level = np.where(~np.isnan(sensor), 0, np.where(~np.isnan(kind), 1, 2))
        last = len(self.centre) - 1
        return np.choose(level, [np.nan_to_num(sensor), np.nan_to_num(kind), last]).astype(np.int64), level

    def expected(self, group: NDArray[np.int64], hour: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the usual value [unit of the reading] at each hour of the week, shape (m,)."""
        found: NDArray[np.float64] = self.centre[group, hour]
        return found

    def deviations(self, group: NDArray[np.int64], context: ReadingContext) -> NDArray[np.float64]:
        """Return folded deviations, shape (m, len(DEVIATIONS)): multiples of the spread, or hours; NaN if unknown."""
        hour = context.hour_of_week
        scaled = context.context.copy()
        with np.errstate(over="ignore"):
            value = context.rows["value"].to_numpy() - self.expected(group, hour)
            scaled[:, :3] = np.abs(scaled[:, :3]) / self.scale[group, None]
            folded = np.column_stack([np.abs(value) / self.spread[group, hour % 24], scaled])
        return np.minimum(folded, _LARGEST)

    def surprise(self, group: NDArray[np.int64], deviations: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return -log of each deviation's tail probability in its group, shape (m, len(DEVIATIONS)); NaN if unknown."""
        columns = [_surprise(deviations[:, j], self.tails[group, j]) for j in range(len(DEVIATIONS))]
        return np.column_stack(columns)

    def half_width(self, group: NDArray[np.int64], hour: NDArray[np.int64], tail: float) -> NDArray[np.float64]:
        """Return the deviation from the usual value that a share `tail` of readings exceeds [unit of the reading]."""
        table = self.tails[group, 0]
        surprise = min(-np.log(tail), _SURPRISE[-1])
        j = int(np.clip(np.searchsorted(_SURPRISE, surprise), 1, len(_SURPRISE) - 1))
        share = (surprise - _SURPRISE[j - 1]) / (_SURPRISE[j] - _SURPRISE[j - 1])
        folded = table[:, j - 1] + share * (table[:, j] - table[:, j - 1])
        width: NDArray[np.float64] = folded * self.spread[group, hour % 24]
        return width

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the tables and names as arrays."""
        names = {f"name_{level}": values for level, values in self._names.items()}
        tables = ("centre", "spread", "location", "scale", "tails")
        return names | {name: getattr(self, name) for name in tables}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Profile:
        """Undo `to_arrays`."""
        return cls({level: arrays[f"name_{level}"] for level in ("sensor", "sensor_type")}, arrays)


def _tables(group: NDArray[np.int64], n: int, context: ReadingContext) -> dict[str, NDArray[np.float64]]:
    """Medians and spreads of the groups 0…n-1; readings with group -1 are left out."""
    inside = group >= 0
    value = pd.Series(context.rows["value"].to_numpy()[inside])
    group, hour = group[inside], context.hour_of_week[inside]
    location = _by_group(value.groupby(group).median(), n)
    centre = _centre(value, group, hour, location, n)
    residual = (value - centre[group, hour]).abs()
    overall = _NORMAL * _by_group(residual.groupby(group).median(), n)
    floor = np.maximum(_RELATIVE_FLOOR * np.abs(location), _TINY)
    overall = np.maximum(np.where(overall > 0, overall, _mean_deviation(residual, group, n)), floor)
    hourly = _NORMAL * residual.groupby([group, hour % 24]).median().unstack().reindex(range(n), columns=range(24))
    spread = np.fmax(hourly.to_numpy(), _SPREAD_FLOOR * overall[:, None])
    tails = np.full((n, len(DEVIATIONS), len(_TAIL)), np.nan)
    return {"centre": centre, "spread": spread, "location": location, "scale": overall, "tails": tails}


def _by_group(values: Any, n: int) -> NDArray[np.float64]:
    result: NDArray[np.float64] = values.reindex(range(n)).to_numpy(dtype=np.float64)
    return result


def _mean_deviation(residual: pd.Series[Any], group: NDArray[np.int64], n: int) -> NDArray[np.float64]:
    """Spread of sensors that stand still more than half of the time, where the median deviation is zero."""
    with np.errstate(over="ignore"):
        return _by_group(residual.groupby(group).mean(), n)


def _centre(
    value: pd.Series[Any], group: NDArray[np.int64], hour: NDArray[np.int64], location: NDArray[np.float64], n: int
) -> NDArray[np.float64]:
    """Median by hour of the week; where that has few readings by hour of the day; else over all."""
    weekly = value.groupby([group, hour])
    own, count = (t.unstack().reindex(range(n), columns=range(HOURS_A_WEEK)) for t in (weekly.median(), weekly.size()))
    daily = value.groupby([group, hour % 24]).median().unstack().reindex(range(n), columns=range(24)).to_numpy()
    daily = np.where(np.isnan(daily), location[:, None], daily)
    trusted = count.fillna(0).to_numpy() >= _FEWEST_AN_HOUR
    centre: NDArray[np.float64] = np.where(trusted, own.to_numpy(), np.tile(daily, 7))
    return centre


def _surprise(deviation: NDArray[np.float64], tails: NDArray[np.float64]) -> NDArray[np.float64]:
    """Interpolate -log tail probability in each row's quantiles (m, K); exponential beyond the last one."""
    below = (deviation[:, None] > tails).sum(axis=1)  # ties take the larger tail
    j = np.clip(below, 1, tails.shape[1] - 1)
    row = np.arange(len(deviation))
    low, high = tails[row, j - 1], tails[row, j]
    width = np.maximum(high - low, _TINY)
    inside = _SURPRISE[j - 1] + (_SURPRISE[j] - _SURPRISE[j - 1]) * np.clip((deviation - low) / width, 0, 1)
    last, rate = tails[:, -1], tails[:, -1] - tails[:, 3]
    floor = np.maximum(rate, np.maximum(0.1 * np.abs(last), _TINY))
    beyond = _SURPRISE[-1] + (_SURPRISE[-1] - _SURPRISE[3]) * (deviation - last) / floor
    surprise: NDArray[np.float64] = np.where(deviation > last, np.maximum(beyond, inside), inside)
    return np.where(np.isnan(deviation), np.nan, surprise)
