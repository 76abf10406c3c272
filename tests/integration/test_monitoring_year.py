"""A simulated year under watch: quiet while nothing is wrong, and each change told within its delay.

The thresholds were chosen on seeds 1…6 and 12 of the simulator, and reported on others in docs/monitoring.md; the seed
of this test is none of those on which they were chosen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from smartgrid_pyfunc.evaluation.backtest import backtest, midnight_origins
from smartgrid_pyfunc.features.panel import build_panel, parse_hourly
from smartgrid_pyfunc.models.load_forecasting import LoadForecastingModel
from smartgrid_pyfunc.monitoring.checks import Gauge, gauge
from smartgrid_pyfunc.monitoring.examination import examine
from smartgrid_pyfunc.monitoring.grid import build_grid
from smartgrid_pyfunc.monitoring.scored import join
from smartgrid_pyfunc.simulation import simulate

pytestmark = pytest.mark.integration

SEED = 11
START = pd.Timestamp("2024-01-01", tz="UTC")
LEARNT, WATCHED = 392, 364  # days
CHANGED = START + pd.Timedelta(days=LEARNT + 107)  # a Wednesday in May
DAY = pd.Timedelta(days=1)
VALUES = ["avg_value", "min_value", "max_value"]


@dataclass
class _Year:
    hourly: pd.DataFrame
    model: LoadForecastingModel
    forecasts: pd.DataFrame


def _forecast(
    model: LoadForecastingModel, hourly: pd.DataFrame, first: pd.Timestamp, last: pd.Timestamp
) -> pd.DataFrame:
    """Return the day ahead from every midnight, for the hours from `first` to before `last`."""
    panel = build_panel(parse_hourly(hourly[hourly["timestamp"] < last]))
    cell = panel.first_cell - panel.first_hour
    hours = [int(time.timestamp()) // 3600 for time in (first, last)]
    found = backtest(model, panel, midnight_origins(panel, cell + hours[0], cell + hours[1] - 1, "UTC"), 24)
    return found.rename(columns={"predicted": "predicted_load"})


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory) -> _Year:
    """Two years of seven sensors; a model learns from the first and forecasts every day of the second."""
    folder = tmp_path_factory.mktemp("year") / "grid"
    days = LEARNT + WATCHED
    simulate(folder, sensors=7, days=days, seed=SEED, step_minutes=60, fault_rate=0.0, start="2024-01-01")
    hourly = pd.concat(
        [pd.read_parquet(path) for path in sorted((folder / "hourly_load").iterdir())], ignore_index=True
    )
    begin = START + LEARNT * DAY
    model = LoadForecastingModel(n_estimators=8, max_rows=8_000, covariates="is_holiday")
    model.fit(hourly[hourly["timestamp"] < begin])
    return _Year(hourly, model, _forecast(model, hourly, begin, START + days * DAY))


def _watch(
    hourly: pd.DataFrame, forecasts: pd.DataFrame, moments: list[pd.Timestamp]
) -> list[tuple[pd.Timestamp, Gauge]]:
    """Return the alerts of an examination at each moment, knowing nothing after it."""
    grid = build_grid(hourly)
    scored = join(forecasts, grid)
    alerts = []
    for now in moments:
        known = grid.until(now)
        found = examine(scored[scored["column"] < known.hours], known, days=7, now=now)
        alerts += [(now, entry) for entry in map(gauge, found.checks) if entry.alert]
    return alerts


def test_a_year_in_which_nothing_is_wrong_brings_at_most_one_false_alert(year: _Year) -> None:
    begin = START + LEARNT * DAY
    weeks = [begin + 7 * n * DAY for n in range(1, WATCHED // 7 + 1)]
    alerts = _watch(year.hourly, year.forecasts, weeks)
    assert len(weeks) == 52
    assert len(alerts) <= 1, alerts


def _scaled(factor: float, *sensors: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(late: pd.DataFrame) -> pd.DataFrame:
        late.loc[late["sensor_id"].isin(sensors), VALUES] *= factor
        return late

    return change


def _swapped(a: str, b: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda late: late.assign(sensor_id=late["sensor_id"].replace({a: b, b: a}))


def _slipped(late: pd.DataFrame) -> pd.DataFrame:
    return late.assign(timestamp=late["timestamp"] + pd.Timedelta(hours=1))


def _silent(late: pd.DataFrame) -> pd.DataFrame:
    names = sorted(late["sensor_id"].unique())
    return late[late["sensor_id"].isin(names[::2])]


def _wednesdays_off(late: pd.DataFrame) -> pd.DataFrame:
    """Return loads whose Wednesdays run like the Sunday after."""
    hour = late.set_index(["sensor_id", "timestamp"])
    wednesday = late[late["timestamp"].dt.day_of_week == 2]
    sunday = wednesday.assign(timestamp=wednesday["timestamp"] + 4 * DAY)
    values = hour.reindex(pd.MultiIndex.from_frame(sunday[["sensor_id", "timestamp"]]))[VALUES].to_numpy()
    known = ~np.isnan(values).any(axis=1)
    late.loc[wednesday.index[known], VALUES] = values[known]
    return late


def _drifting(late: pd.DataFrame) -> pd.DataFrame:
    grown = 1 + 0.01 * ((late["timestamp"] - CHANGED) / DAY)
    own = late["sensor_id"] == "industrial-0006"
    late.loc[own, VALUES] = late.loc[own, VALUES].mul(grown[own], axis=0)
    return late


@pytest.mark.parametrize(
    ("change", "kind", "days", "every"),
    [
        (_scaled(1.4, "building-0005"), "level_shift", 7, 1),
        (_scaled(0.6, "substation-0000", "commercial-0003", "building-0005", "industrial-0006"), "level_shift", 7, 1),
        (_wednesdays_off, "pattern_shift", 15, 1),
        (_swapped("building-0005", "industrial-0006"), "sensor_swap", 3, 1),
        (_scaled(1000.0, "industrial-0006"), "unit_change", 1, 1),
        (_slipped, "time_shift", 3, 1),
        (_silent, "vanished_sensors", 1, 1),
        (_drifting, "input_drift", 63, 7),
    ],
    ids=["level", "level of most", "new free day", "swap", "kW to W", "clock", "half silent", "drift of 1 % a day"],
)
def test_each_change_raises_its_alert_within_its_delay(
    year: _Year, change: Callable[[pd.DataFrame], pd.DataFrame], kind: str, days: int, every: int
) -> None:
    end = CHANGED + (days + 5) * DAY
    hourly = year.hourly[year.hourly["timestamp"] < end]
    late = (hourly["timestamp"] >= CHANGED).to_numpy()
    changed = pd.concat([hourly[~late], change(hourly[late].copy())], ignore_index=True)
    changed = changed.drop_duplicates(["sensor_id", "timestamp"], keep="last").sort_values(["sensor_id", "timestamp"])
    before = year.forecasts[year.forecasts["timestamp"] < CHANGED]
    after = _forecast(year.model, changed, CHANGED, end)
    moments = [CHANGED + n * DAY for n in range(every, days + 1, every)]
    forecasts = pd.concat([before, after], ignore_index=True)
    alerts = [(now, entry) for now, entry in _watch(changed, forecasts, moments) if entry.kind == kind]
    assert alerts, f"no {kind} within {days} days"
    since = alerts[0][1].since
    assert since is not None and abs(since - CHANGED) <= 28 * DAY
