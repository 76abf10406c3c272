"""Rolling-origin backtest: forecasts from many past origins, beside what then happened and both seasonal naives."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smartgrid_pyfunc.features.calendar import local_clock
from smartgrid_pyfunc.features.load import seasonal_naive
from smartgrid_pyfunc.features.panel import Panel
from smartgrid_pyfunc.schema import HOURS_A_DAY, HOURS_A_WEEK

_LAST_HOUR_OF_DAY = 23


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
        """Return an object with `values` (predicted_load, lower, upper) and `model`, arrays of shape (n,)."""


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
) -> pd.DataFrame:
    """Forecast `hours_ahead` hours from each of k origins.

    Returns
    -------
    DataFrame
        A row per origin and horizon, as far as the sensor has rows: ``sensor_id, origin, horizon, timestamp``
        (datetime64, UTC), ``actual`` (NaN in gaps), ``predicted, lower, upper, naive_24, naive_168`` [unit of the
        load], ``model``.

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
    naive = seasonal_naive(panel, origin, horizon)
    hours = panel.hour(sensor, origin)
    return pd.DataFrame(
        {
            "sensor_id": panel.sensor_ids[sensor],
            "origin": _times(hours),
            "horizon": horizon,
            "timestamp": _times(hours + horizon),
            "actual": panel.load[origin + horizon],
            "predicted": found.values["predicted_load"],
            "lower": found.values["lower"],
            "upper": found.values["upper"],
            "naive_24": naive[HOURS_A_DAY],
            "naive_168": naive[HOURS_A_WEEK],
            "model": found.model,
        }
    )


def _times(hours: NDArray[np.int64]) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(hours.astype("datetime64[h]").astype("datetime64[s]"), tz="UTC")
