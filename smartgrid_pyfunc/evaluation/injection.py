"""Known faults in real readings, by a fixed and seeded recipe: the truth that real data seldom come with.

The faults themselves are those of the simulator (`smartgrid_pyfunc.simulation.inject`), so that a kind means the same
in simulated and in real readings. Where they fall depends on the seed and the sensor alone.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smartgrid_pyfunc.schema import InputError, require_columns
from smartgrid_pyfunc.simulation import fault_kinds, inject

_REQUIRED = ("sensor_id", "sensor_type", "timestamp", "value")
#: The kind of the first reading after an outage that kept readings from being delivered.
GAP = "gap"
_WIRED = {"power", "energy", "voltage", "current"}
_MARGIN = 2  # untouched readings between two faults, at least
_ATTEMPTS = 50  # places tried for one fault before it is given up
_HOUR = pd.Timedelta(hours=1)


@dataclass(frozen=True)
class _Fault:
    """One fault of one sensor: what its readings become, and which of them differ; NaN was not delivered."""

    kind: str
    rows: NDArray[np.int64]
    values: NDArray[np.float64]


def inject_faults(
    readings: pd.DataFrame, *, rate: float = 0.02, seed: int = 0, hour: pd.Timedelta = _HOUR
) -> pd.DataFrame:
    """Return a copy of `readings` with faults of every kind that a sensor's type can have, and their labels.

    Parameters
    ----------
    readings : pandas.DataFrame, n rows in any order
        `sensor_id`, `sensor_type`, `timestamp`, `value` and any others; stays unchanged.
    rate : float
        Share of each sensor's readings that faults cover, 0…0.3, on average over seeds. The kinds take turns.
    seed : int
        Equal seeds give equal faults to a sensor, whatever other sensors there are.
    hour : pandas.Timedelta
        What counts as an hour for the duration of faults: a shorter one for sensors that are read every second.

    Returns
    -------
    pandas.DataFrame
        Sorted by sensor and time, with `is_anomaly` (bool), `fault` (the kind, empty where there is none) and `event`
        (int, -1 where there is none). Exactly the readings that differ are labelled. Readings that a dropout kept
        from being delivered are absent; the first one after it is labelled, for that is when it can be told, and of
        the kind `GAP`, for its value is right.

    Raises
    ------
    InputError
        For a missing column and a rate outside 0…0.3.
    """
    require_columns(readings.columns, _REQUIRED)
    if not 0 <= rate <= 0.3:
        raise InputError("rate must lie in 0…0.3", found=rate)
    frame = readings.sort_values(["sensor_id", "timestamp"], kind="stable").reset_index(drop=True)
    frame = frame.assign(is_anomaly=False, fault="", event=-1)
    events = 0
    parts = []
    for _, sensor in frame.groupby("sensor_id", sort=False):
        faults = _draw(sensor, rate, seed, hour)
        parts.append(_with_faults(sensor, faults, events))
        events += len(faults)
    return pd.concat(parts, ignore_index=True) if parts else frame


def _draw(sensor: pd.DataFrame, rate: float, seed: int, hour: pd.Timedelta) -> list[_Fault]:
    """Draw faults of one sensor until they cover `rate` of its readings; without a value there is nothing to spoil."""
    if not sensor["value"].notna().any():
        return []
    number = zlib.crc32(str(sensor["sensor_id"].iloc[0]).encode())
    rng = np.random.default_rng([seed, number])
    times = pd.DatetimeIndex(sensor["timestamp"])
    clock = times[0] + (times - times[0]) * (_HOUR / hour)
    kinds = _kinds(str(sensor["sensor_type"].iloc[0]))
    free, budget, turn = np.ones(len(sensor), dtype=bool), rate * len(sensor), number % len(kinds)
    faults: list[_Fault] = []
    while budget > 0:
        fault = _place(sensor, clock, kinds[turn % len(kinds)], free, rng)
        turn += 1
        covered = 1 if fault is None else int(fault.rows[-1] - fault.rows[0] + 1)
        # The last fault is longer than what is left: it happens with the probability that keeps the rate.
        if fault is not None and rng.uniform() * covered < budget:
            free[fault.rows[0] - _MARGIN : fault.rows[-1] + _MARGIN + 1] = False
            faults.append(fault)
        budget -= covered
    return faults


def _kinds(sensor_type: str) -> tuple[str, ...]:
    """Return the kinds of fault that a type can have; only wires can be swapped."""
    kinds = fault_kinds(sensor_type)
    return kinds if sensor_type in _WIRED else tuple(kind for kind in kinds if kind != "swapped_phase")


def _place(
    sensor: pd.DataFrame, clock: pd.DatetimeIndex, kind: str, free: NDArray[np.bool_], rng: np.random.Generator
) -> _Fault | None:
    """Return a fault among `free` readings with a margin on both sides, None where none was found."""
    values = sensor["value"].to_numpy(dtype=np.float64)
    sensor_type = str(sensor["sensor_type"].iloc[0])
    for _ in range(_ATTEMPTS):
        start = int(rng.integers(len(values)))
        faulty, changed = inject(values, clock, kind, rng, start=start, sensor_type=sensor_type)
        rows = np.flatnonzero(changed)
        if rows.size == 0 or rows[0] < _MARGIN or rows[-1] + _MARGIN >= len(values):
            continue
        if free[rows[0] - _MARGIN : rows[-1] + _MARGIN + 1].all():
            return _Fault(kind, rows, faulty[rows])
    return None


def _with_faults(sensor: pd.DataFrame, faults: list[_Fault], first_event: int) -> pd.DataFrame:
    value = sensor["value"].to_numpy(dtype=np.float64).copy()
    kind, event = np.full(len(sensor), "", dtype=object), np.full(len(sensor), -1)
    delivered = np.ones(len(sensor), dtype=bool)
    for number, fault in enumerate(faults, first_event):
        value[fault.rows] = fault.values
        missing = np.isnan(fault.values)
        delivered[fault.rows[missing]] = False
        # The margin leaves a reading after the last one that is missing.
        labelled = np.append(fault.rows[~missing], fault.rows[missing][-1:] + 1)
        kind[labelled], event[labelled] = GAP if missing.all() else fault.kind, number
    result = sensor.assign(value=value, is_anomaly=event >= 0, fault=kind, event=event)
    return result[delivered]
