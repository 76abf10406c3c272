"""Ridge regressions of scaled load on history, calendar and temperature: the linear part of a load forecast.

One regression for each group of horizons, on main effects and on their products with the hour and the day. The
regressions share what they can: the cross products of a group are added to those of its neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smartgrid_pyfunc.features.design import LINEAR_LEVELS, Design
from smartgrid_pyfunc.features.groups import OTHER, WEATHER, input_groups
from smartgrid_pyfunc.schema import HOURS_A_DAY

_FIRST_HOURS = np.concatenate([np.arange(1, 25), np.arange(25, 169, 12)])  # first horizon [h] of each group
_PENALTY = 0.003  # for each row, on standardised inputs
_LEAST_PENALTY = 30.0
_BANDWIDTHS = (1.0, 2.0, 4.0)  # groups; the first that gathers enough rows, else all groups are one
_ENOUGH = 2_000  # rows
_NEGLIGIBLE = 1e-3
_CLIP = 8.0  # scaled loads beyond this are faults
_INPUT_CLIP = 10.0
_CHUNK = 4_096
_FOR_SCALING = 20_000  # rows that means and deviations of the inputs come from
_OWN_PENALTY, _OWN_CLIP = 1_000.0, 4.0
_COMPARED = [LINEAR_LEVELS.index(name) for name in ("same_hour_1", "same_weekday_hour_1")]  # columns of the history
_WEATHER = ("temperature", "past_temperature")


class LinearBase:
    """Scaled load as a linear function of what is known.

    Parameters
    ----------
    annual : bool
        Whether the hour's load may follow the season: with less than two years of history it would follow the trend.
    arrays : mapping
        ``mean`` and ``deviation`` of the inputs, shape (k,), and the coefficients for rows whose temperature is known
        (``warm``) and is not (``plain``), shape (groups of horizons, k + 1), intercept last; zero for inputs not used.
    own : mapping of str to ndarray, optional
        Coefficients by which each sensor differs from the others, on its history, hour and weekday.

    Notes
    -----
    Hoerl & Kennard (1970), "Ridge regression". Degrees beyond several thresholds times the hour of the day: Hong
    (2010), *Short term electric load forecasting*. Kernel weights over neighbouring horizons: Hastie & Tibshirani
    (1993), "Varying-coefficient models".
    """

    def __init__(
        self,
        annual: bool,
        arrays: Mapping[str, NDArray[np.float64]],
        own: Mapping[str, NDArray[np.float64]] | None = None,
    ) -> None:
        self._annual, self._arrays, self._own = annual, dict(arrays), dict(own or {})

    @classmethod
    def fit(cls, design: Design, target: NDArray[np.float64], annual: bool) -> LinearBase:
        """Fit to n rows and their scaled loads `target`, centred by the week before the origin."""
        sample = design.take(slice(None, None, max(1, len(target) // _FOR_SCALING)))
        x = np.concatenate(list(_expanded(sample, annual)))
        mean, deviation = np.nanmean(x, axis=0, dtype=np.float64), np.nanstd(x, axis=0, dtype=np.float64)
        arrays = {"mean": np.nan_to_num(mean), "deviation": np.nan_to_num(deviation) + 1e-6}
        base = cls(annual, arrays)
        weather = _column_groups(design.take(slice(1)), annual) == WEATHER
        warm, plain = base._products(design, np.clip(target, -_CLIP, _CLIP))
        arrays["warm"] = _solved(warm, np.ones(len(weather) + 1, dtype=bool))
        arrays["plain"] = _solved(warm + plain, np.append(~weather, True)) if weather.any() else arrays["warm"]
        common = cls(annual, arrays)
        own = _own_corrections(design, np.clip(target - common.predict(design), -_CLIP, _CLIP))
        return cls(annual, arrays, own)

    def _products(self, design: Design, target: NDArray[np.float64]) -> tuple[_Products, _Products]:
        """Return the cross products of the rows whose temperature is known, and of the others."""
        size = len(self._arrays["mean"]) + 1
        found = _Products.empty(size), _Products.empty(size)
        cold, group = _lacking_weather(design), _group(design.horizon)
        order = np.lexsort((group, cold))
        bounds = np.flatnonzero(np.diff(group[order] * 2 + cold[order])) + 1
        for rows in np.split(order, bounds):
            part = design.take(rows)
            for x, y in zip(self._standardised(part), _chunks(target[rows]), strict=True):
                found[int(cold[rows[0]])].add(int(group[rows[0]]), x, y)
        return found

    def _standardised(self, design: Design) -> Iterator[NDArray[np.float32]]:
        """Yield the inputs in chunks, a column of ones last; what is not known counts as the mean."""
        mean, deviation = self._scaling
        for x in _expanded(design, self._annual):
            x -= mean
            x /= deviation
            np.clip(x, -_INPUT_CLIP, _INPUT_CLIP, out=x)
            yield np.hstack([np.nan_to_num(x, copy=False), np.ones((len(x), 1), dtype=np.float32)])

    @cached_property
    def _scaling(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return self._arrays["mean"].astype(np.float32), self._arrays["deviation"].astype(np.float32)

    @cached_property
    def _coefficients(self) -> NDArray[np.float32]:
        return np.stack([self._arrays["warm"], self._arrays["plain"]]).astype(np.float32)

    def predict(self, design: Design) -> NDArray[np.float64]:
        """Return scaled loads, shape (n,)."""
        group, cold, coefficients = _group(design.horizon), _lacking_weather(design), self._coefficients
        chosen = zip(_chunks(cold.astype(np.int64)), _chunks(group), self._standardised(design), strict=True)
        # einsum adds a row's products in one order, whatever the other rows are
        parts = [np.einsum("ij,ij->i", x, coefficients[c, g], dtype=np.float64) for c, g, x in chosen]
        return np.concatenate(parts) + self._corrections(design) if parts else np.empty(0)

    def contributions(self, design: Design) -> dict[str, NDArray[np.float64]]:
        """Split the prediction by what the inputs know: group → scaled load, shape (n,); with the constant they add up.

        An input's part is its coefficient times its distance from the mean of the training data; what a sensor's own
        coefficients and the constant add counts as `OTHER`.
        """
        group, cold = _group(design.horizon), _lacking_weather(design).astype(np.int64)
        coefficients = np.stack([self._arrays["warm"], self._arrays["plain"]])[cold, group]
        parts = np.concatenate(list(self._standardised(design))) * coefficients
        groups = _column_groups(design.take(slice(1)), self._annual)
        found = {name: parts[:, :-1][:, groups == name].sum(axis=1) for name in np.unique(groups.astype(str))}
        return found | {OTHER: parts[:, -1] + self._corrections(design)}

    def _corrections(self, design: Design) -> NDArray[np.float64]:
        """Return what the sensors' own coefficients add, 0 for sensors without."""
        if self._own.keys().isdisjoint(design.sensor):
            return np.zeros(len(design.scale))
        inputs = _own_inputs(design)
        names, code = np.unique(design.sensor.astype(str), return_inverse=True)
        own = np.stack([self._own.get(name, np.zeros(inputs.shape[1])) for name in names])
        total: NDArray[np.float64] = np.einsum("ij,ij->i", inputs, own[code])
        return total

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the state as arrays."""
        names = np.array(list(self._own), dtype=object)
        own = np.stack(list(self._own.values())) if self._own else np.empty((0, 0))
        return {**self._arrays, "annual": np.array(self._annual), "sensor": names, "own": own}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> LinearBase:
        """Undo `to_arrays`."""
        own = dict(zip(arrays["sensor"], arrays["own"], strict=True))
        common = {name: arrays[name] for name in ("mean", "deviation", "warm", "plain")}
        return cls(bool(arrays["annual"]), common, own)


class _Products:
    """Sums of cross products by group of horizons: ``x'x`` (groups, k, k), ``x'y`` (groups, k) and row counts."""

    def __init__(self, xx: NDArray[Any], xy: NDArray[np.float64], rows: NDArray[np.float64]) -> None:
        self.xx, self.xy, self.rows = xx, xy, rows

    @classmethod
    def empty(cls, size: int) -> _Products:
        groups = len(_FIRST_HOURS)
        return cls(np.zeros((groups, size, size), dtype=np.float32), np.zeros((groups, size)), np.zeros(groups))

    def add(self, group: int, x: NDArray[np.float32], y: NDArray[np.float64]) -> None:
        self.xx[group] += x.T @ x
        self.xy[group] += x.T @ y
        self.rows[group] += len(x)

    def __add__(self, other: _Products) -> _Products:
        return _Products(self.xx + other.xx, self.xy + other.xy, self.rows + other.rows)

    def together(self) -> _Products:
        """Return the sums of all groups as those of one."""
        return _Products(*(part.sum(axis=0, keepdims=True, dtype=np.float64) for part in (self.xx, self.xy, self.rows)))

    def near(self, group: int) -> _Products | None:
        """Return the sums around a group, weighted by distance, as those of one; None where rows are too few."""
        distance = np.arange(len(self.rows)) - group
        for bandwidth in _BANDWIDTHS:
            weights = np.exp(-0.5 * (distance / bandwidth) ** 2)
            if weights @ self.rows >= _ENOUGH:
                xx = np.zeros(self.xx.shape[1:])
                for g in np.flatnonzero(weights > _NEGLIGIBLE):
                    xx += np.float32(weights[g]) * self.xx[g]
                return _Products(xx[None], (weights @ self.xy)[None], (weights @ self.rows)[None])
        return None

    def solve(self, used: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return the ridge regression on the columns `used` for sums of one group; the others get no coefficient."""
        coefficients = np.zeros(len(used))
        penalty = np.full(int(used.sum()), max(_PENALTY * float(self.rows[0]), _LEAST_PENALTY))
        penalty[-1] = _NEGLIGIBLE  # the intercept
        coefficients[used] = np.linalg.solve(self.xx[0][np.ix_(used, used)] + np.diag(penalty), self.xy[0][used])
        return coefficients


def _solved(products: _Products, used: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the coefficients by group of horizons."""
    common: NDArray[np.float64] | None = None
    coefficients = []
    for group in range(len(_FIRST_HOURS)):
        near = products.near(group)
        if near is None and common is None:
            common = products.together().solve(used)
        coefficients.append(common if near is None else near.solve(used))
    return np.array(coefficients)


def _own_corrections(design: Design, residual: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Return for each sensor a ridge regression of what the common coefficients left, drawn towards none."""
    names, code = np.unique(design.sensor.astype(str), return_inverse=True)
    if len(names) < 2:
        return {}
    order = np.argsort(code, kind="stable")
    corrections: dict[str, NDArray[Any]] = {}
    for name, rows in zip(names.tolist(), np.split(order, np.cumsum(np.bincount(code))[:-1]), strict=True):
        x = _own_inputs(design.take(rows)).astype(np.float64)
        corrections[name] = np.linalg.solve(x.T @ x + _OWN_PENALTY * np.eye(x.shape[1]), x.T @ residual[rows])
    return corrections


def _own_inputs(design: Design) -> NDArray[np.float32]:
    """Return what a sensor's own coefficients act on: history, hour and weekday."""
    hour, weekday = _one_hot(design.inputs["clock"][:, 0], HOURS_A_DAY), design.inputs["clock"][:, 1]
    history = np.clip(design.inputs["history"], -_OWN_CLIP, _OWN_CLIP)
    return np.hstack([history, hour, _one_hot(weekday, 7), _times(hour, _special_days(weekday))])


def _group(horizon: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.searchsorted(_FIRST_HOURS, horizon, side="right") - 1


def _lacking_weather(design: Design) -> NDArray[np.bool_]:
    if _WEATHER[0] not in design.inputs:
        return np.zeros(len(design.scale), dtype=bool)
    return np.isnan(design.inputs[_WEATHER[0]][:, 0])


def _chunks(values: NDArray[Any]) -> Iterator[NDArray[Any]]:
    yield from (values[i : i + _CHUNK] for i in range(0, len(values), _CHUNK))


def _expanded(design: Design, annual: bool) -> Iterator[NDArray[np.float32]]:
    """Yield main effects and products, a chunk of rows at a time."""
    for chunk in range(0, len(design.scale), _CHUNK):
        yield np.hstack([block for block, _ in _blocks(design.take(slice(chunk, chunk + _CHUNK)), annual)])


def _column_groups(design: Design, annual: bool) -> NDArray[np.object_]:
    """Return for each of the expanded columns what it knows about: a product that of its second factor."""
    return np.concatenate(
        [np.resize(np.array(groups, dtype=object), b.shape[1]) for b, groups in _blocks(design, annual)]
    )


def _blocks(design: Design, annual: bool) -> list[tuple[NDArray[np.float32], tuple[str, ...]]]:
    """Return blocks of columns, each with the groups of its columns, repeated as often as it takes."""
    groups = input_groups(design.inputs)
    history, around, holiday, clock = (design.inputs[name] for name in ("history", "around", "holiday", "clock"))
    hour, day, season = _one_hot(clock[:, 0], HOURS_A_DAY), _special_days(clock[:, 1]), _waves(clock[:, 2])
    daily = _waves(clock[:, 0] * np.float32(2 * np.pi / HOURS_A_DAY))
    calendar = [hour, _one_hot(clock[:, 1], 7), _times(hour, day), *([season, _times(hour, season)] if annual else [])]
    on_holidays = np.hstack([daily, history[:, _COMPARED]])
    blocks = [(block, groups["clock"]) for block in calendar]
    blocks += [(block, groups["history"]) for block in (history, _times(daily, history), _times(day, history))]
    blocks += [(around, groups["around"])]
    blocks += [(block, groups["holiday"]) for block in (holiday, _times(on_holidays, holiday)) if holiday.shape[1]]
    if _WEATHER[0] in design.inputs:
        now, past = (design.inputs[name] for name in _WEATHER)
        context = np.hstack([daily, day[:, :1] + day[:, 1:2]])
        blocks += [(block, groups[_WEATHER[0]]) for block in (now, past, _times(context, now))]
    return blocks


def _one_hot(value: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    return np.eye(size, dtype=np.float32)[value.astype(np.int64)]


def _special_days(weekday: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return flags of Saturday, Sunday and Monday: the days whose own day before is of another kind."""
    return np.column_stack([weekday == 5, weekday == 6, weekday == 0]).astype(np.float32)


def _waves(angle: NDArray[np.float32]) -> NDArray[np.float32]:
    """First two harmonics of an angle [rad], shape (n, 4)."""
    return np.column_stack([np.sin(angle), np.cos(angle), np.sin(2 * angle), np.cos(2 * angle)])


def _times(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Products of every column of `a` with every column of `b`."""
    return (a[:, :, None] * b[:, None, :]).reshape(len(a), -1)
