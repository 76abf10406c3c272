"""Deviation of a reading from its neighbours': a regional event moves them all, a broken sensor only itself.

For batch output: a served answer never depends on other sensors.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.neighbors import BallTree

from smartgrid_pyfunc.schema import InputError, require_columns

#: Columns that `compare_with_neighbours` returns.
NEIGHBOUR_COLUMNS = ("neighbours", "neighbour_deviation", "own_deviation", "scope")
SENSOR, REGION = "sensor", "region"

_EARTH_KM = 6371.0
_FEWEST = 3  # neighbours whose median one strange neighbour cannot move far
_STRANGE = 1.0  # halves of the usual range


def standardised(value: ArrayLike, expected: ArrayLike, lower: ArrayLike, upper: ArrayLike) -> NDArray[np.float64]:
    """Return values in halves of their usual range from the usual value: beyond ±1 is outside; NaN where unknown."""
    given, usual, low, high = (np.asarray(a, dtype=np.float64) for a in (value, expected, lower, upper))
    side = np.where(given >= usual, high - usual, usual - low)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(side > 0, (given - usual) / side, np.nan)


def compare_with_neighbours(readings: pd.DataFrame, deviation: ArrayLike, *, radius_km: float = 25.0) -> pd.DataFrame:
    """Tell each reading's deviation from that of its neighbours: sensors of its type within a radius, in its hour.

    Parameters
    ----------
    readings : DataFrame
        n rows with ``sensor_id, sensor_type, timestamp, latitude, longitude``, in any order.
    deviation : array_like, shape (n,)
        How far each reading is from its own usual value, in any unit that neighbours share; see `standardised`.
    radius_km : float, default 25
        Distance up to which sensors are neighbours [km].

    Returns
    -------
    DataFrame
        n rows, index as given: ``neighbours`` (how many have a reading in the hour), ``neighbour_deviation`` (the
        median of theirs; NaN with fewer than three), ``own_deviation`` (the difference to it) and ``scope`` of a
        reading beyond ±1: ``region`` where the neighbours are off to the same side too, at least half as far,
        ``sensor`` where they are not, None where too few tell.

    Raises
    ------
    InputError
        For a missing column, another length of `deviation` and a radius that is not positive.
    """
    require_columns(readings.columns, ("sensor_id", "sensor_type", "timestamp", "latitude", "longitude"))
    own = np.asarray(deviation, dtype=np.float64)
    if own.shape != (len(readings),):
        raise InputError("deviation must have a number for each reading", found=f"{own.shape}")
    if not radius_km > 0:
        raise InputError("radius_km must be above 0", found=radius_km)
    hours = pd.to_datetime(readings["timestamp"], utc=True).dt.floor("h")
    frame = pd.DataFrame(
        {
            "sensor": readings["sensor_id"].to_numpy(),
            "kind": readings["sensor_type"].to_numpy(),
            "hour": hours.to_numpy(),
            "off": own,
        }
    )
    places = readings[["latitude", "longitude"]].groupby(frame["sensor"].to_numpy()).first()
    count, median = np.zeros(len(frame), dtype=np.int64), np.full(len(frame), np.nan)
    for _, rows in frame.groupby("kind"):
        count[rows.index], median[rows.index] = _around(rows, places, radius_km)
    table = {"neighbours": count, "neighbour_deviation": median, "own_deviation": own - median}
    return pd.DataFrame({**table, "scope": pd.Index(_scope(own, median), dtype=object)}).set_axis(readings.index)


def _around(
    rows: pd.DataFrame, places: pd.DataFrame, radius_km: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Count the neighbours of each row's sensor that have a reading in its hour, and take their median deviation."""
    by_hour = rows.pivot_table(index="hour", columns="sensor", values="off", aggfunc="median")
    table = by_hour.to_numpy()
    near = _neighbours(places.loc[by_hour.columns].to_numpy(dtype=np.float64), radius_km)
    known = np.zeros(table.shape, dtype=np.int64)
    median = np.full(table.shape, np.nan)
    for sensor, others in enumerate(near):
        if len(others) >= _FEWEST:
            theirs = np.sort(table[:, others], axis=1)  # what is missing comes last
            known[:, sensor] = n = (~np.isnan(theirs)).sum(axis=1)
            at, middle = np.arange(len(n)), np.maximum(n, 1)
            found = (theirs[at, (middle - 1) // 2] + theirs[at, middle // 2]) / 2
            median[:, sensor] = np.where(n >= _FEWEST, found, np.nan)
        else:
            known[:, sensor] = (~np.isnan(table[:, others])).sum(axis=1)
    row, column = (
        by_hour.index.get_indexer(pd.Index(rows["hour"])),
        by_hour.columns.get_indexer(pd.Index(rows["sensor"])),
    )
    told = (row >= 0) & (column >= 0)
    return np.where(told, known[row, column], 0), np.where(told, median[row, column], np.nan)


def _neighbours(places: NDArray[np.float64], radius_km: float) -> list[NDArray[np.int64]]:
    """Return for each sensor the numbers of the others within the radius; none without coordinates."""
    near: list[NDArray[np.int64]] = [np.empty(0, dtype=np.int64)] * len(places)
    known = np.flatnonzero(~np.isnan(places).any(axis=1))
    if len(known):
        radians = np.deg2rad(places[known])
        found = BallTree(radians, metric="haversine").query_radius(radians, radius_km / _EARTH_KM)
        for sensor, others in zip(known, found, strict=True):
            near[sensor] = known[others][known[others] != sensor]
    return near


def _scope(own: NDArray[np.float64], median: NDArray[np.float64]) -> NDArray[np.object_]:
    scope = np.full(len(own), None, dtype=object)
    strange = (np.abs(own) > _STRANGE) & ~np.isnan(median)
    alike = (own * median > 0) & (np.abs(median) >= np.minimum(np.abs(own) / 2, _STRANGE))
    scope[strange] = np.where(alike[strange], REGION, SENSOR)
    return scope
