"""Rolling-origin backtest: forecasts from many past origins, beside what then happened and both seasonal naives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smartgrid_pyfunc.features.calendar import local_clock
from smartgrid_pyfunc.features.load import seasonal_naive
from smartgrid_pyfunc.features.panel import Panel
from smartgrid_pyfunc.schema import HOURS_A_DAY, HOURS_A_WEEK

_LAST_HOUR_OF_DAY = 23
_ROWS_AT_ONCE = 200_000  # of features in memory


class Forecaster(Protocol):
    """A fitted model that answers pairs of origin and horizon on a panel."""

    def forecast(
        self,
        panel: Panel,
        sensor: NDArray[np.int64],
        origin: NDArray[np.int64],
        horizon: NDArray[np.int64],
        *,
        level: float = 0.9,
    ) -> Any:
        """Return an object with `values` (predicted_load, lower, upper), `model` and `design.scale`, shape (n,)."""


@dataclass(frozen=True)
class Window:
    """A stretch of target hours, the same for every sensor.

    Attributes
    ----------
    number : int
        1 is the earliest window.
    first, last : ndarray of int64, shape (S,)
        First and last hour as cells of each sensor; they may lie outside its own cells.
    """

    number: int
    first: NDArray[np.int64]
    last: NDArray[np.int64]


def windows_at_end(panel: Panel, count: int, days: int) -> list[Window]:
    """Return `count` windows of `days` each, end to end; the last one ends with the last observed load of all sensors.

    Hours are those of the calendar, not of each sensor: a fit before a window that knew other sensors' later hours
    would know something of the weather and the holidays in it.
    """
    hours, seen = days * HOURS_A_DAY, np.flatnonzero(panel.origin >= 0)
    end = panel.hour(seen, panel.origin[seen]).max(initial=0)
    ends = [(number, end - (count - number) * hours) for number in range(1, count + 1)]
    cell = panel.first_cell - panel.first_hour  # of the hour 0
    return [Window(number, cell + last - hours + 1, cell + last) for number, last in ends]


def first_times(panel: Panel, window: Window) -> pd.Series[Any]:
    """Return the first target hour of each sensor's window (datetime64, UTC) by `sensor_id`."""
    hours = panel.hour(np.arange(len(panel.sensor_ids)), window.first)
    return pd.Series(_times(hours), index=panel.sensor_ids)


def known_before(hourly: pd.DataFrame, panel: Panel, window: Window) -> pd.DataFrame:
    """Return the rows of `hourly` that lie before their sensor's `window`: all that a fit for it may see."""
    start = hourly["sensor_id"].map(first_times(panel, window))
    return hourly[hourly["timestamp"] < start]


def midnight_origins(
    panel: Panel, first: NDArray[np.int64], last: NDArray[np.int64], timezone: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return every observed last hour of a local day whose day ahead lies in the sensor's window.

    Parameters
    ----------
    panel : Panel
    first, last : ndarray of int64, shape (S,)
        First and last target cell of each sensor's window.
    timezone : str
        Whose midnight.

    Returns
    -------
    sensor, origin : ndarray of int64, shape (k,)
        Numbers of the sensors and cells of the origins.
    """
    cells = np.flatnonzero(~np.isnan(panel.load))
    sensor = panel.sensor_of_cell()[cells]
    inside = (cells + 1 >= first[sensor]) & (cells < last[sensor])
    cells, sensor = cells[inside], sensor[inside]
    clock = local_clock(panel.hour(sensor, cells).astype("datetime64[h]"), timezone)
    hour = (clock - clock.astype("datetime64[D]")).astype("timedelta64[h]").astype(np.int64)
    chosen = hour == _LAST_HOUR_OF_DAY
    return sensor[chosen], cells[chosen]


def backtest(
    model: Forecaster,
    panel: Panel,
    origins: tuple[NDArray[np.int64], NDArray[np.int64]],
    hours_ahead: int,
    *,
    level: float = 0.9,
    more_levels: Sequence[float] = (),
) -> pd.DataFrame:
    """Forecast `hours_ahead` hours from each of k origins.

    Parameters
    ----------
    model : Forecaster
    panel : Panel
    origins : tuple of ndarray of int64, shape (k,)
        Numbers of the sensors and cells of the origins.
    hours_ahead : int
        Horizons 1…hours_ahead [h].
    level : float
        Probability of the intervals in ``lower`` and ``upper``.
    more_levels : sequence of float
        Of intervals in columns ``lower_LEVEL`` and ``upper_LEVEL``; each costs as much as the forecasts.

    Returns
    -------
    DataFrame
        A row per origin and horizon, as far as the sensor has rows: ``sensor_id, origin, horizon, timestamp``
        (datetime64, UTC), ``actual`` (NaN in gaps), ``predicted, lower, upper, naive_24, naive_168`` [unit of the
        load], ``scale`` (the sensor's spread that the model works with) [same], ``model``, and the further bounds.

    Notes
    -----
    Tashman (2000), "Out-of-sample tests of forecasting accuracy", *IJF* 16(4). The model is not refitted. Covariates
    after an origin are those of the data: measured weather there means perfect foresight.
    """
    sensor, origin = (np.repeat(part, hours_ahead) for part in origins)
    horizon = np.tile(np.arange(1, hours_ahead + 1), len(origins[0]))
    known = origin + horizon < panel.first_cell[sensor] + panel.n_hours[sensor]
    sensor, origin, horizon = sensor[known], origin[known], horizon[known]
    found = model.forecast(panel, sensor, origin, horizon, level=level)
    bounds: dict[str, NDArray[np.float64]] = {}
    for other in more_levels:
        answer = found if other == level else model.forecast(panel, sensor, origin, horizon, level=other)
        bounds |= {f"{bound}_{other}": answer.values[bound] for bound in ("lower", "upper")}
    observed = truth(panel, sensor, origin, horizon)
    answer = {"predicted": "predicted_load", "lower": "lower", "upper": "upper"}
    for place, (name, value) in enumerate(answer.items(), list(observed.columns).index("actual") + 1):
        observed.insert(place, name, found.values[value])
    return observed.assign(scale=found.design.scale, model=found.model, **bounds)


def truth(
    panel: Panel, sensor: NDArray[np.int64], origin: NDArray[np.int64], horizon: NDArray[np.int64]
) -> pd.DataFrame:
    """Return what happened at the targets of n forecasts, and what both seasonal naives would have said.

    Parameters
    ----------
    panel : Panel
    sensor, origin, horizon : ndarray of int64, shape (n,)
        Number of the sensor, cell of the origin and lead time [h]; the target is a cell of the sensor.

    Returns
    -------
    DataFrame
        ``sensor_id, origin, horizon, timestamp`` (datetime64, UTC), ``actual`` (NaN in gaps), ``naive_24, naive_168``.
    """
    naive, hours = seasonal_naive(panel, origin, horizon), panel.hour(sensor, origin)
    return pd.DataFrame(
        {
            "sensor_id": panel.sensor_ids[sensor],
            "origin": _times(hours),
            "horizon": horizon,
            "timestamp": _times(hours + horizon),
            "actual": panel.load[origin + horizon],
            "naive_24": naive[HOURS_A_DAY],
            "naive_168": naive[HOURS_A_WEEK],
        }
    )


def forecast_window(
    model: Forecaster,
    panel: Panel,
    window: Window,
    hours_ahead: int,
    *,
    timezone: str = "UTC",
    level: float = 0.9,
    more_levels: Sequence[float] = (),
) -> pd.DataFrame:
    """Forecast from every local midnight of `window`; see `backtest` for the columns, ``window`` is its number.

    Forecasts belong to the window of their origin: of more than a day ahead the last ones reach beyond it.
    """
    sensor, origin = midnight_origins(panel, window.first, window.last, timezone)
    size = max(1, _ROWS_AT_ONCE // hours_ahead)
    parts = [
        backtest(
            model,
            panel,
            (sensor[i : i + size], origin[i : i + size]),
            hours_ahead,
            level=level,
            more_levels=more_levels,
        )
        for i in range(0, max(1, len(origin)), size)
    ]
    return pd.concat(parts, ignore_index=True).assign(window=window.number)


def _times(hours: NDArray[np.int64]) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(hours.astype("datetime64[h]").astype("datetime64[s]"), tz="UTC")
