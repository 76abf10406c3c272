"""Hourly load of many sensors in flat arrays: one regular grid of hours per sensor, end to end, gaps as NaN."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smartgrid_pyfunc.schema import (
    COVARIATES,
    HOURLY_REQUIRED,
    InputError,
    parse_identifiers,
    parse_numbers,
    parse_timestamps,
    require_columns,
)

#: Hours of history that the features of one forecast reach back, the origin's own hour included (four weeks).
HISTORY_HOURS = 672
LOADS = ("avg_value", "min_value", "max_value", "count")
_MAX_CELLS = 200_000_000
_LARGEST = 1e30  # beyond it squares and float32 features overflow


@dataclass(frozen=True)
class Panel:
    """The hours of S sensors in N cells.

    Attributes
    ----------
    sensor_ids : ndarray of str, shape (S,)
        Sorted.
    first_cell : ndarray of int64, shape (S,)
        Cell of each sensor's first hour. `HISTORY_HOURS` empty cells stand before it, so that a look back from any
        hour of a sensor never meets another sensor.
    first_hour : ndarray of int64, shape (S,)
        That hour [hours since 1970-01-01 UTC].
    n_hours : ndarray of int64, shape (S,)
        Hours from the first to the last row of the sensor, known future covariates included.
    origin : ndarray of int64, shape (S,)
        Cell of the last observed load; -1 where nothing was observed.
    loads, covariates : dict of ndarray of float64, shape (N,)
        NaN where nothing is known.
    """

    sensor_ids: NDArray[np.object_]
    first_cell: NDArray[np.int64]
    first_hour: NDArray[np.int64]
    n_hours: NDArray[np.int64]
    origin: NDArray[np.int64]
    loads: Mapping[str, NDArray[np.float64]]
    covariates: Mapping[str, NDArray[np.float64]]

    @property
    def load(self) -> NDArray[np.float64]:
        """Average load per cell, shape (N,)."""
        return self.loads["avg_value"]

    def hour(self, sensor: NDArray[np.int64], cell: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the hour [hours since 1970-01-01 UTC] of each `cell` of each `sensor` (numbers into the arrays)."""
        return self.first_hour[sensor] + cell - self.first_cell[sensor]

    def first_observed(self) -> NDArray[np.int64]:
        """Return the cell of each sensor's first observed load, shape (S,); the number of cells where there is none."""
        cells = np.where(np.isnan(self.load), len(self.load), np.arange(len(self.load)))
        first: NDArray[np.int64] = np.minimum.reduceat(cells, self.first_cell - HISTORY_HOURS)
        return first

    def sensor_of_cell(self) -> NDArray[np.int64]:
        """Return the sensor's number for every cell, shape (N,); empty cells before a sensor count as its own."""
        return np.repeat(np.arange(len(self.sensor_ids)), self.n_hours + HISTORY_HOURS)


def parse_hourly(frame: pd.DataFrame) -> pd.DataFrame:
    """Check rows of hourly load and bring them to one type per column; the input stays as it is.

    Returns
    -------
    DataFrame
        ``sensor_id`` (str), ``hour`` (float, hours since 1970-01-01 UTC, NaN for a row without timestamp), the loads
        and the covariates present (float64, NaN where empty).

    Raises
    ------
    InputError
        For a missing column, a wrong type, an infinite or absurdly large value, a time that is not a full hour, a
        negative or fractional count, a holiday flag other than 0 and 1.
    """
    columns: dict[str, Any] = dict(hourly_columns(frame))
    # As an index: pandas would turn an array of text into its own type, and every reader back, at a millisecond each.
    columns["sensor_id"] = pd.Index(columns["sensor_id"], dtype=object)
    return pd.DataFrame(columns, copy=False)


def hourly_columns(frame: pd.DataFrame) -> dict[str, NDArray[Any]]:
    """Return the columns of `parse_hourly` as arrays: a request is small, and tables cost more than its numbers."""
    require_columns(frame.columns, HOURLY_REQUIRED)
    columns: dict[str, NDArray[Any]] = {"sensor_id": parse_identifiers(frame["sensor_id"])}
    columns["hour"] = _full_hours(parse_timestamps(frame["timestamp"]))
    for name in (*LOADS, *COVARIATES):
        if name in frame.columns:
            columns[name] = _sized(parse_numbers(frame[name], name), name)
    _check_counts(columns.get("count"))
    _check_flags(columns.get("is_holiday"))
    return columns


def _sized(values: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    absurd = np.abs(values) > _LARGEST
    if absurd.any():
        i = int(np.flatnonzero(absurd)[0])
        raise InputError(
            f"{name} must not exceed {_LARGEST:g} in size",
            place=f"column {name}, row {i + 1}",
            found=values[i],
            remedy="leave unknown values empty",
        )
    return values


def _full_hours(times: NDArray[np.datetime64]) -> NDArray[np.float64]:
    hours = times.astype("datetime64[h]")
    off = (hours != times) & ~np.isnat(times)
    if off.any():
        i = int(np.flatnonzero(off)[0])
        raise InputError(
            "timestamp of hourly load must be the start of an hour in UTC",
            place=f"column timestamp, row {i + 1}",
            found=str(times[i]),
            remedy="aggregate readings to hours first",
        )
    return np.where(np.isnat(times), np.nan, hours.astype(np.int64).astype(np.float64))


def _check_counts(count: NDArray[np.float64] | None) -> None:
    if count is None:
        return
    bad = (count < 0) | (np.floor(count) != count) & ~np.isnan(count)
    if bad.any():
        i = int(np.flatnonzero(bad)[0])
        raise InputError("count must be a whole number, 0 or more", place=f"column count, row {i + 1}", found=count[i])


def _check_flags(flag: NDArray[np.float64] | None) -> None:
    if flag is None:
        return
    bad = ~((flag == 0) | (flag == 1) | np.isnan(flag))
    if bad.any():
        i = int(np.flatnonzero(bad)[0])
        raise InputError("is_holiday must be 0 or 1", place=f"column is_holiday, row {i + 1}", found=flag[i])


def build_panel(rows: pd.DataFrame | Mapping[str, NDArray[Any]]) -> Panel:
    """Lay rows that were parsed and have a timestamp on the grid; several rows of one hour become their mean.

    Rows of one hour that agree count once, so an exact duplicate changes nothing; rows that differ are averaged over
    their distinct values, so the order of rows does not matter.

    Raises
    ------
    InputError
        If the rows span more hours than memory should hold.
    """
    codes, ids = _sorted_codes(np.asarray(rows["sensor_id"], dtype=object))
    hour = np.asarray(rows["hour"]).astype(np.int64)
    first_hour = np.full(len(ids), np.iinfo(np.int64).max)
    last_hour = np.full(len(ids), np.iinfo(np.int64).min)
    np.minimum.at(first_hour, codes, hour)
    np.maximum.at(last_hour, codes, hour)
    n_hours = last_hour - first_hour + 1
    sizes = n_hours + HISTORY_HOURS
    if sizes.sum() > _MAX_CELLS:
        raise InputError(f"hourly load may span at most {_MAX_CELLS} sensor-hours", found=int(sizes.sum()))
    first_cell = np.cumsum(sizes) - n_hours
    cells = first_cell[codes] + hour - first_hour[codes]
    n_cells = int(sizes.sum())
    load = _scatter(np.asarray(rows["avg_value"]), cells, n_cells)
    loads = {n: _optional(rows, n, cells, n_cells) for n in LOADS if n != "avg_value"} | {"avg_value": load}
    covariates = {n: _scatter(np.asarray(rows[n]), cells, n_cells) for n in COVARIATES if n in rows}
    return Panel(ids, first_cell, first_hour, n_hours, _origins(load, sizes), loads, covariates)


def _sorted_codes(ids: NDArray[np.object_]) -> tuple[NDArray[np.int64], NDArray[np.object_]]:
    codes, unique = pd.factorize(ids, sort=False)
    # Not through an array of text, whose cells would all be as long as the longest name.
    order = np.array(sorted(range(len(unique)), key=unique.__getitem__), dtype=np.int64)
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return rank[codes], unique[order]


def _optional(
    rows: pd.DataFrame | Mapping[str, NDArray[Any]], name: str, cells: NDArray[np.int64], n_cells: int
) -> NDArray[np.float64]:
    return _scatter(np.asarray(rows[name]), cells, n_cells) if name in rows else np.full(n_cells, np.nan)


def _scatter(values: NDArray[np.float64], cells: NDArray[np.int64], n_cells: int) -> NDArray[np.float64]:
    grid = np.full(n_cells, np.nan)
    known = ~np.isnan(values)
    cells, values = cells[known], values[known]
    grid[cells] = values
    if np.any(grid[cells] != values):
        # Distinct values of one cell, sorted: the sum does not depend on the order of rows.
        distinct = pd.DataFrame({"cell": cells, "value": values}).drop_duplicates().sort_values(["cell", "value"])
        mean = distinct.groupby("cell")["value"].mean()
        grid[mean.index.to_numpy()] = mean.to_numpy()
    return grid


def _origins(load: NDArray[np.float64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    cell = np.where(np.isnan(load), -1, np.arange(len(load)))
    return np.maximum.reduceat(cell, np.cumsum(sizes) - sizes) if len(sizes) else np.empty(0, dtype=np.int64)
