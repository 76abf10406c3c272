"""The last four weeks of every sensor of the training data, kept with the model to forecast from when none is sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smartgrid_pyfunc.features.panel import HISTORY_HOURS, LOADS, Panel


class StoredHistory:
    """Hours up to each sensor's origin, as matrices of shape (sensors, `HISTORY_HOURS`), NaN for gaps."""

    def __init__(self, sensors: NDArray[np.object_], last_hour: NDArray[np.int64], columns: Mapping[str, Any]) -> None:
        self.sensors, self._last_hour, self._columns = sensors, last_hour, dict(columns)
        self._number = {name: i for i, name in enumerate(sensors)}

    @classmethod
    def from_panel(cls, panel: Panel) -> StoredHistory:
        """Keep what stands at and before the origins of `panel`; sensors without any observed load are left out."""
        seen = np.flatnonzero(panel.origin >= 0)
        cells = panel.origin[seen][:, None] - np.arange(HISTORY_HOURS)[::-1]
        columns = {name: values[cells] for name, values in {**panel.loads, **panel.covariates}.items()}
        return cls(panel.sensor_ids[seen], panel.hour(seen, panel.origin[seen]), columns)

    def emptied(self) -> StoredHistory:
        """Return a history of no sensor, with the same columns."""
        nothing = np.zeros((0, HISTORY_HOURS))
        return StoredHistory(self.sensors[:0], self._last_hour[:0], dict.fromkeys(self._columns, nothing))

    def __contains__(self, sensor: str) -> bool:
        """Return true if the sensor was seen in training."""
        return sensor in self._number

    def last_hour(self, sensors: Sequence[str] | NDArray[np.object_]) -> NDArray[np.int64]:
        """Return the last stored hour of each sensor [hours since 1970-01-01 UTC]; the far future for unknown ones."""
        never = np.iinfo(np.int64).max // 2
        known = {name: int(hour) for name, hour in zip(self.sensors, self._last_hour, strict=True)}
        return np.array([known.get(name, never) for name in sensors], dtype=np.int64)

    def panel(self, sensors: Sequence[str]) -> Panel:
        """Return the stored history of known `sensors`, in the given order, as a panel."""
        rows = np.array([self._number[s] for s in sensors], dtype=np.int64)
        n = len(rows)
        first_cell = np.arange(n) * 2 * HISTORY_HOURS + HISTORY_HOURS
        grids = {name: self._grid(matrix[rows]) for name, matrix in self._columns.items()}
        return Panel(
            sensor_ids=self.sensors[rows],
            first_cell=first_cell,
            first_hour=self._last_hour[rows] - HISTORY_HOURS + 1,
            n_hours=np.full(n, HISTORY_HOURS),
            origin=first_cell + HISTORY_HOURS - 1,
            loads={name: grids[name] for name in LOADS},
            covariates={name: grid for name, grid in grids.items() if name not in LOADS},
        )

    def updated(self, newer: StoredHistory | None) -> tuple[StoredHistory, frozenset[str]]:
        """Return this history with that of `newer` for each sensor whose last hour is as late there or later.

        Returns
        -------
        history : StoredHistory
            Of the sensors of both, sorted.
        names : frozenset of str
            Those taken from `newer`.
        """
        if newer is None:
            return self, frozenset()
        mine = dict(zip(self.sensors, self._last_hour.tolist(), strict=True))
        theirs = dict(zip(newer.sensors, newer._last_hour.tolist(), strict=True))
        taken = [name for name, hour in theirs.items() if hour >= mine.get(name, hour)]
        kept = [name for name in mine if name not in set(taken)]
        mine_at, theirs_at = ([h._number[n] for n in names] for h, names in ((self, kept), (newer, taken)))
        names = np.array([*kept, *taken], dtype=object)
        order = np.array(sorted(range(len(names)), key=names.__getitem__), dtype=np.int64)
        columns = {
            name: np.vstack([self._matrix(name)[mine_at], newer._matrix(name)[theirs_at]])[order]
            for name in dict.fromkeys([*self._columns, *newer._columns])
        }
        last = np.concatenate([self._last_hour[mine_at], newer._last_hour[theirs_at]])
        return StoredHistory(names[order], last[order], columns), frozenset(taken)

    def _matrix(self, name: str) -> NDArray[np.float64]:
        unknown = np.full((len(self.sensors), HISTORY_HOURS), np.nan)
        return np.asarray(self._columns.get(name, unknown), dtype=np.float64)

    @staticmethod
    def _grid(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.hstack([np.full_like(matrix, np.nan), matrix]).ravel()

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the history as arrays."""
        columns = {f"column_{name}": matrix for name, matrix in self._columns.items()}
        return {"sensors": self.sensors, "last_hour": self._last_hour, **columns}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> StoredHistory:
        """Undo `to_arrays`."""
        columns = {n.removeprefix("column_"): a for n, a in arrays.items() if n.startswith("column_")}
        return cls(arrays["sensors"], arrays["last_hour"], columns)
