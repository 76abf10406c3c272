"""The rolling-origin backtest: where windows and origins lie, and that nothing after them is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest

from smartgrid_pyfunc.evaluation import backtest as evaluation
from smartgrid_pyfunc.evaluation.backtest import first_times, known_before, midnight_origins, windows_at_end
from smartgrid_pyfunc.features.panel import build_panel, parse_hourly
from smartgrid_pyfunc.schema import InputError
from smartgrid_pyfunc.training.backtest import Plan, WindowResult, run_windows
from smartgrid_pyfunc.training.backtest_report import BacktestOutcome, report, thinned

HOUR = pd.Timedelta(hours=1)
START = pd.Timestamp("2024-02-10T00:00:00Z")
DAYS = 60  # until 9 April 2024: London's clocks change on 31 March
LOADS = ["avg_value", "min_value", "max_value", "count"]
OPTIONS: dict[str, Any] = {"n_estimators": 5, "max_rows": 1_500, "random_state": 3}
PLAN = Plan(windows=2, window_days=7, hours_ahead=30)


def series(name: str, hours: int, size: float, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    h = np.arange(hours)
    temperature = 10 + 5 * np.sin(h / 61) + rng.normal(0, 0.5, hours)
    load = size * (2 + np.sin(2 * np.pi * h / 24) + 0.1 * temperature + rng.normal(0, 0.2, hours))
    return pd.DataFrame(
        {
            "sensor_id": name,
            "timestamp": START + pd.to_timedelta(h, unit="h"),
            "avg_value": load,
            "min_value": 0.9 * load,
            "max_value": 1.1 * load,
            "count": 4.0,
            "temperature": temperature,
        }
    )


#: Two sensors whose data end on different days, at 23 h UTC; the second has a gap in its last week. Windows end with
#: the data of the first.
EARLY_END = DAYS - 5
END = START + pd.Timedelta(days=DAYS)
WHOLE = pd.concat([series("a", DAYS * 24, 50.0, 1), series("b", EARLY_END * 24, 1.0, 2)], ignore_index=True)
GAP = (WHOLE["sensor_id"] == "b") & WHOLE["timestamp"].between(
    START + pd.Timedelta(days=EARLY_END - 3), START + pd.Timedelta(days=EARLY_END - 3, hours=5)
)
HOURLY = WHOLE[~GAP].reset_index(drop=True)
ENDS = {"a": START + pd.Timedelta(days=DAYS), "b": START + pd.Timedelta(days=EARLY_END)}


def panel_of(hourly: pd.DataFrame) -> Any:
    return build_panel(parse_hourly(hourly))


def changed_from(hourly: pd.DataFrame, since: dict[str, pd.Timestamp], columns: list[str]) -> pd.DataFrame:
    """Replace values from a time on by ones of another shape and size."""
    later = hourly["timestamp"] >= hourly["sensor_id"].map(since)
    new = hourly.copy()
    noise = np.random.default_rng(9).uniform(3, 5, int(later.sum()))
    for name in columns:
        new.loc[later, name] = np.round(hourly.loc[later, name].to_numpy() * noise)
    return new


def both(results: list[WindowResult]) -> pd.DataFrame:
    return pd.concat([result.forecasts for result in results], ignore_index=True)


@pytest.fixture(scope="module")
def refitted() -> list[WindowResult]:
    return run_windows(HOURLY, PLAN, **OPTIONS)


# ------------------------------------------------------------------------------------------------ windows and origins


def test_windows_lie_end_to_end_at_the_end_of_the_data_at_the_same_times_for_all_sensors() -> None:
    panel = panel_of(HOURLY)
    windows = windows_at_end(panel, 3, 7)
    assert [window.number for window in windows] == [1, 2, 3]
    for sensor, name in enumerate(panel.sensor_ids):
        cells = [h for w in windows for h in range(w.first[sensor], w.last[sensor] + 1)]
        assert cells == list(range(cells[0], cells[0] + 3 * 168))
        starts = [first_times(panel, window)[name] for window in windows]
        assert starts == [END - pd.Timedelta(weeks=weeks) for weeks in (3, 2, 1)]


def test_a_sensor_that_ended_long_ago_neither_moves_the_windows_nor_is_forecast_in_them() -> None:
    gone = series("gone", 20 * 24, 5.0, 3)
    results = run_windows(pd.concat([HOURLY, gone], ignore_index=True), PLAN, **OPTIONS)
    assert [set(result.forecasts["sensor_id"]) for result in results] == [{"a", "b"}, {"a", "b"}]
    assert results[1].forecasts["timestamp"].max() == END - HOUR


def test_a_fit_is_given_every_hour_before_the_window_and_none_after() -> None:
    panel = panel_of(HOURLY)
    window = windows_at_end(panel, 2, 7)[0]
    kept = {(row.sensor_id, row.timestamp) for row in known_before(HOURLY, panel, window).itertuples()}
    expected = {
        (row.sensor_id, row.timestamp) for row in HOURLY.itertuples() if row.timestamp < END - pd.Timedelta(days=14)
    }
    assert kept == expected


# In London summer time makes room for one more in 28 days; in New York the gap of "b" swallows one.
@pytest.mark.parametrize(
    ("zone", "of_a", "of_b"), [("UTC", 28, 24), ("Europe/London", 29, 24), ("America/New_York", 28, 22)]
)
def test_origins_are_the_last_hours_before_local_midnight(zone: str, of_a: int, of_b: int) -> None:
    panel = panel_of(HOURLY)
    window = windows_at_end(panel, 1, 28)[0]
    sensor, cell = midnight_origins(panel, window.first, window.last, zone)
    found = {
        (str(panel.sensor_ids[n]), START + (h - START.timestamp() / 3600) * HOUR)
        for n, h in zip(sensor, panel.hour(sensor, cell).tolist(), strict=True)
    }
    expected = {
        (row.sensor_id, row.timestamp)
        for row in HOURLY.itertuples()
        if row.timestamp.astimezone(ZoneInfo(zone)).hour == 23
        and END - pd.Timedelta(days=28) - HOUR <= row.timestamp < END - HOUR
    }
    assert found == expected
    assert len(found) == len(sensor)
    assert [sum(name == sensor for name, _ in found) for sensor in "ab"] == [of_a, of_b]


def test_every_origin_is_forecast_over_every_horizon_that_has_data(refitted: list[WindowResult]) -> None:
    forecasts = both(refitted)
    for name, rows in forecasts.groupby("sensor_id"):
        assert (rows["timestamp"] == rows["origin"] + rows["horizon"] * HOUR).all()
        expected = {
            (END - pd.Timedelta(days=back) - HOUR, h)
            for back in range(1, 15) for h in range(1, 31) if END - pd.Timedelta(days=back) + h * HOUR <= ENDS[name]
        }  # fmt: skip
        assert set(zip(rows["origin"], rows["horizon"], strict=True)) == expected
        assert not rows.duplicated(["origin", "horizon"]).any()


def test_actual_and_naive_values_are_those_of_the_data(refitted: list[WindowResult]) -> None:
    load = HOURLY.set_index(["sensor_id", "timestamp"])["avg_value"]
    for row in both(refitted).sample(300, random_state=0).itertuples():
        days = -(-row.horizon // 24)
        for found, time in (
            (row.actual, row.timestamp),
            (row.naive_24, row.timestamp - days * 24 * HOUR),
            (row.naive_168, row.timestamp - 168 * HOUR),
        ):
            assert found == pytest.approx(load.get((row.sensor_id, time), np.nan), nan_ok=True)


def test_forecasts_in_parts_are_those_of_the_whole(
    refitted: list[WindowResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "_ROWS_AT_ONCE", 70)
    parts = run_windows(HOURLY, PLAN, **OPTIONS)
    pd.testing.assert_frame_equal(both(parts), both(refitted))


# ------------------------------------------------------------------------------------------------------------ no future


def starts_of(window: int) -> dict[str, pd.Timestamp]:
    return {name: END - pd.Timedelta(days=7 * (3 - window)) for name in ENDS}


@pytest.mark.parametrize("window", [1, 2])
@pytest.mark.parametrize("refit", [True, False])
def test_nothing_after_a_windows_start_reaches_its_fit(refit: bool, window: int) -> None:
    """The first origin stands right before the window: its forecasts show the fitted forest and its intervals."""
    plan = Plan(windows=2, window_days=7, hours_ahead=30, refit=refit)
    options = OPTIONS | {"covariates": "none"}
    since = starts_of(window)
    before = run_windows(HOURLY, plan, **options)
    after = run_windows(changed_from(HOURLY, since, [*LOADS, "temperature"]), plan, **options)
    columns = ["sensor_id", "horizon", "predicted", "lower", "upper", "model"]
    first, again = (
        r[window - 1].forecasts.pipe(lambda f: f[f["origin"] + HOUR == f["sensor_id"].map(since)])[columns]
        for r in (before, after)
    )
    assert len(first) == 60
    assert (first["model"] != "seasonal_naive").any()
    pd.testing.assert_frame_equal(first, again)


def test_a_fit_does_not_see_covariates_of_its_window() -> None:
    panel = panel_of(HOURLY)
    changed = changed_from(HOURLY, starts_of(1), [*LOADS, "temperature"])
    first = windows_at_end(panel, 2, 7)[0]
    assert not changed.equals(HOURLY)
    pd.testing.assert_frame_equal(known_before(changed, panel, first), known_before(HOURLY, panel, first))


def test_forecasts_do_not_move_when_loads_after_their_origin_change(refitted: list[WindowResult]) -> None:
    since = {name: END - pd.Timedelta(days=6) for name in ENDS}  # in the last window: no fit sees the change
    before, after = both(refitted), both(run_windows(changed_from(HOURLY, since, LOADS), PLAN, **OPTIONS))
    earlier = before["origin"] < before["sensor_id"].map(since)
    columns = ["predicted", "lower", "upper", "model"]
    pd.testing.assert_frame_equal(before.loc[earlier, columns], after.loc[earlier, columns])
    assert not np.allclose(before.loc[~earlier, "predicted"], after.loc[~earlier, "predicted"])


def test_refitting_uses_what_was_known_before_each_window(refitted: list[WindowResult]) -> None:
    last = [result.fit["fitted_until"] for result in refitted]
    assert last == [ENDS["a"] - pd.Timedelta(days=days) - HOUR for days in (14, 7)]
    assert refitted[1].fit["fitted_rows"] == refitted[0].fit["fitted_rows"] + 2 * 168 - int(GAP.sum())


def test_without_refitting_all_windows_share_the_first_windows_fit(refitted: list[WindowResult]) -> None:
    once = run_windows(HOURLY, Plan(windows=2, window_days=7, hours_ahead=30, refit=False), **OPTIONS)
    assert once[0].fit["fitted_until"] == once[1].fit["fitted_until"] == refitted[0].fit["fitted_until"]
    pd.testing.assert_frame_equal(once[0].forecasts, refitted[0].forecasts)
    assert not np.allclose(once[1].forecasts["predicted"], refitted[1].forecasts["predicted"])


# ------------------------------------------------------------------------------------------------- refusals and reports


@pytest.mark.parametrize(
    "bad", [{"windows": 0}, {"window_days": 0}, {"jobs": 0}, {"hours_ahead": 169}, {"level": 1.0}, {"level": np.nan}]
)
def test_a_plan_out_of_range_is_refused_by_name(bad: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(bad))):
        Plan(**bad)


def test_too_little_data_before_the_first_window_is_refused() -> None:
    with pytest.raises(InputError, match=r"at least 21 days .* found 4 days; give more data, fewer windows"):
        run_windows(HOURLY, Plan(windows=8, window_days=7), **OPTIONS)


def test_thinning_keeps_whole_origins_and_never_more_rows_than_allowed(refitted: list[WindowResult]) -> None:
    forecasts = both(refitted)
    assert thinned(forecasts, len(forecasts), 0) is forecasts
    few = thinned(forecasts, 200, 0)
    assert 170 < len(few) <= 200
    keys = ["sensor_id", "origin"]
    sizes = forecasts.groupby(keys).size()
    kept = few.groupby(keys).size()
    assert (kept == sizes[kept.index]).all()


def test_the_report_has_a_line_for_each_window_and_one_for_all() -> None:
    names = ("mae", "skill", "rmse", "mase", "coverage", "pinball")
    row = dict.fromkeys(names, 0.5) | {"naive_24_mae": 3.0, "naive_168_mae": 2.0}
    day = pd.Timestamp("2024-03-01T13:00:00Z")  # midnight in Melbourne
    table = pd.DataFrame([{"window": n, "first": day, "last": day, "sensors": 12, **row} for n in (1, 2)])
    own = {"level": 0.9, "intervals": "model", "rows": 700, "coverage": 0.85, "interval_width": 4.5, "pinball": 0.625}
    intervals = pd.DataFrame([own, own | {"intervals": "rolling", "coverage": 0.875}])
    metrics = {f"backtest_{name}": 0.25 for name in names} | {"naive_24_mae": 3.0, "naive_168_mae": 2.0}
    outcome = BacktestOutcome("abc", "about", 0.9, "Australia/Melbourne", metrics, table, intervals)
    lines = report(outcome).splitlines()
    first = ["1", "2024-03-02", "2024-03-02", "12", "0.5", "3", "2", "0.5", "0.5", "0.5", "0.5", "0.5"]
    assert lines[4].split() == first
    assert lines[6].split() == ["all", "0.25", "3", "2", "0.25", "0.25", "0.25", "0.25", "0.25"]
    assert lines[-4].split() == ["0.9", "model", "700", "0.85", "4.5", "0.625"]
    assert lines[-3].split() == ["0.9", "rolling", "700", "0.875", "4.5", "0.625"]
    assert "abc" in lines[-1]
    short = replace(outcome, intervals=intervals.assign(rows=0))
    assert "windows are too short" in report(short)
