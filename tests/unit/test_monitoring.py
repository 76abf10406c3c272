"""The statistics of the monitor: truth from hand-made series, SciPy and slow references."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from smartgrid_pyfunc.monitoring import accuracy, checks, delivery, diagnosis, drift, examination, flags, quality
from smartgrid_pyfunc.monitoring import prometheus as prom
from smartgrid_pyfunc.monitoring import sequential as seq
from smartgrid_pyfunc.monitoring.checks import EVERYWHERE, KINDS, alert, check, gauge, verdict
from smartgrid_pyfunc.monitoring.grid import Grid, build_grid, mean_of, median_of
from smartgrid_pyfunc.monitoring.scored import daily_errors, join
from smartgrid_pyfunc.schema import InputError

START = pd.Timestamp("2025-01-06", tz="UTC")  # a Monday
FILL = {"data": "d", "model": "LoadForecastingModel", "predictions": "p", "now": "n"}


def hourly(days: int = 120, sensors: int = 4, seed: int = 0, noise: float = 0.05) -> pd.DataFrame:
    """Return loads with a daily and weekly course, each sensor with its own level and phase."""
    rng, hour = np.random.default_rng(seed), np.arange(days * 24)
    parts = []
    for number in range(sensors):
        course = 1.5 + np.sin((hour + 3 * number) / 24 * 2 * np.pi) + 0.3 * np.cos(hour / 12 * 2 * np.pi)
        week = np.where(hour // 24 % 7 >= 5, 0.7, 1.0)
        load = 10.0 * 3**number * course * week * np.exp(noise * rng.standard_normal(len(hour)))
        times = START + pd.to_timedelta(hour, unit="h")
        parts.append(pd.DataFrame({"sensor_id": f"s{number}", "timestamp": times, "avg_value": load}))
    return pd.concat(parts, ignore_index=True)


def rows(found: checks.Check) -> pd.DataFrame:
    return found.rows.set_index("sensor_id")


def of_kind(found: list[checks.Check], kind: str) -> checks.Check:
    (one,) = [entry for entry in found if entry.kind == kind]
    return one


def data_of(frame: pd.DataFrame, kind: str, days: int = 7, now: pd.Timestamp | None = None) -> checks.Check:
    grid = build_grid(frame)
    moment = now if now is not None else grid.time(grid.hours)
    return of_kind(examination.examine_data(grid, days=days, now=moment)[0], kind)


# -------------------------------------------------------------------------------------------------------- the matrix


@given(st.lists(st.one_of(st.floats(-1e6, 1e6), st.just(float("nan"))), max_size=9))
def test_median_and_mean_are_those_of_numpy(values: list[float]) -> None:
    known = np.array(values, dtype=np.float64)
    expected = (np.nan, np.nan) if np.isnan(known).all() else (np.nanmedian(known), np.nanmean(known))
    assert median_of(known[None])[0] == pytest.approx(expected[0], nan_ok=True)
    assert mean_of(known[None])[0] == pytest.approx(expected[1], nan_ok=True)


def test_days_are_those_of_the_local_clock() -> None:
    frame = hourly(days=100, sensors=1)
    grid = build_grid(frame, timezone="Australia/Melbourne")
    local = frame["timestamp"].dt.tz_convert("Australia/Melbourne")
    expected = frame.groupby(local.dt.date)["avg_value"].agg(["mean", "size"])
    whole = expected["size"] >= 12
    assert grid.daily[0][whole.to_numpy()] == pytest.approx(expected["mean"][whole].to_numpy())
    assert grid.time(0) == START and grid.column(START + pd.Timedelta(hours=5)) == 5


def test_naive_forecasts_beside_a_forecast_know_nothing_after_its_origin() -> None:
    frame = hourly(days=30, sensors=2)
    grid = build_grid(frame)
    rng = np.random.default_rng(1)
    origin = START + pd.to_timedelta(rng.integers(200, 500, 200), unit="h")
    horizon = rng.integers(1, 169, 200)
    forecasts = pd.DataFrame({"sensor_id": rng.choice(["s0", "s1"], 200), "origin": origin, "horizon": horizon})
    forecasts["timestamp"] = forecasts["origin"] + pd.to_timedelta(forecasts["horizon"], unit="h")
    forecasts[["predicted_load", "lower", "upper"]] = 1.0, 0.0, 2.0
    found = join(forecasts, grid)
    truth = frame.set_index(["sensor_id", "timestamp"])["avg_value"]
    for row in found.sample(40, random_state=0).itertuples():
        for lag in (24, 168):
            back = next(k * lag for k in range(1, 9) if row.timestamp - pd.Timedelta(hours=k * lag) <= row.origin)
            assert getattr(row, f"naive_{lag}") == truth[row.sensor_id, row.timestamp - pd.Timedelta(hours=back)]
        assert row.actual == truth[row.sensor_id, row.timestamp]


def test_the_errors_of_a_day_are_those_of_its_freshest_forecasts() -> None:
    frame = hourly(days=20, sensors=1)
    times = frame["timestamp"][24 * 10 : 24 * 12]
    truth = frame["avg_value"][24 * 10 : 24 * 12]
    fresh, stale = (
        pd.DataFrame({"sensor_id": "s0", "timestamp": times, "horizon": horizon, "predicted_load": truth - off,
                      "lower": truth - off - 2.0, "upper": truth - off + 2.0,
                      "origin": times - pd.Timedelta(hours=horizon)})
        for horizon, off in ((5, 1.0), (30, 7.0))
    )  # fmt: skip
    grid = build_grid(frame)
    errors = daily_errors(join(pd.concat([stale, fresh]), grid), grid)
    assert errors.signed[0, :2] == pytest.approx([0.5, 0.5])  # 1 of a half width of 2
    assert np.isnan(errors.signed[0, 2:]).all()


# ------------------------------------------------------------------------------------------------- sequential tests


def test_standardised_values_know_nothing_of_later_days() -> None:
    values = np.random.default_rng(0).normal(size=(3, 120))
    whole, early = seq.standardise(values), seq.standardise(values[:, :80])
    assert whole[:, :80] == pytest.approx(early, nan_ok=True)


def test_standardised_values_of_an_autocorrelated_weekly_series_are_standard_and_independent() -> None:
    rng = np.random.default_rng(3)
    noise = rng.normal(size=(60, 500))
    series = noise.copy()
    for day in range(1, 500):
        series[:, day] = 0.6 * series[:, day - 1] + noise[:, day]
    series += 5.0 + np.where(np.arange(500) % 7 >= 5, 1.0, 0.0)
    z = seq.standardise(series)[:, 120:]
    assert z.mean() == pytest.approx(0.0, abs=0.05)
    assert z.std() == pytest.approx(1.0, abs=0.12)
    assert abs(np.corrcoef(z[:, 1:].ravel(), z[:, :-1].ravel())[0, 1]) < 0.15


def test_the_page_hinkley_sums_are_those_of_the_recursion() -> None:
    z = np.random.default_rng(0).normal(0.2, 1.5, size=(1, 300))
    path = seq.page_hinkley(z, 20.0)
    up = down = 0.0
    for day, value in enumerate(np.clip(z[0], -4, 4)):
        up, down = min(max(0.0, up + value - 0.5), 30.0), min(max(0.0, down - value - 0.5), 30.0)
        assert path.sums[0, day] == pytest.approx(max(up, down))


def test_false_alarms_of_the_page_hinkley_sum_are_as_rare_as_the_threshold_says() -> None:
    """Siegmund's approximation: about (exp(h + 1.166) − h − 2.166) · 2 days between alarms of one side."""
    h, rng = 6.0, np.random.default_rng(0)
    sums = seq.page_hinkley(rng.normal(size=(400, 1500)), 1e9, two_sided=False).sums
    first = np.where((sums >= h).any(axis=1), (sums >= h).argmax(axis=1), 1500)
    rate = (sums >= h).any(axis=1).sum() / first.sum()
    expected = 2 * (np.exp(h + 1.166) - h - 2.166)
    assert 0.5 < rate * expected < 2.0


def test_a_shift_is_told_with_the_day_it_began() -> None:
    z = np.random.default_rng(0).normal(0, 0.3, size=(1, 60))
    z[0, 40:] += 2.0
    path = seq.page_hinkley(z, 10.0)
    day = int((path.sums[0] >= 10).argmax())
    assert 40 < day < 50 and abs(path.began[0, day] - 40) <= 1 and path.up[0, day]


def test_a_weekday_must_be_bad_again_and_again() -> None:
    z = np.zeros((3, 40))
    z[0, 20] = 50.0  # once
    z[1, [20, 27]] = 5.0  # twice on one weekday
    z[2, [20, 26]] = 5.0  # on two weekdays
    score, first = seq.recurring(z)
    assert score[0].max() == score[2].max() == 0
    assert score[1, 27] == pytest.approx(10 / np.sqrt(2)) and first[1, 27] == 20


def _levels(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    level = 100 + 3 * rng.standard_normal((3, 200)) + np.where(np.arange(200) % 7 >= 5, -20, 0)
    return level, rng.standard_normal((3, 200))


def test_a_step_needs_a_surprising_day_and_a_level_that_lasts() -> None:
    level, surprise = _levels(0)
    surprise[:, 190] = 8.0
    level[1, 190:] += 25  # a step
    level[2, 190] += 25  # one strange day
    found = seq.lasting_steps(surprise, level)
    assert found.score[1] > 4.25 and found.day[1] == 190 and found.change[1] == pytest.approx(25, abs=4)
    assert found.score[0] < 3 and found.score[2] < 3


def test_a_step_without_surprise_is_weather() -> None:
    level, surprise = _levels(1)
    level[:, 185:] += np.linspace(0, 30, 15)
    assert np.nanmax(seq.lasting_steps(np.clip(surprise, -2, 2), level).score) < 4.25


@pytest.mark.parametrize("sensors", [1, 12, 1000])
def test_more_sensors_need_higher_thresholds(sensors: int) -> None:
    assert seq.for_many(10.0, sensors) == pytest.approx(10.0 + np.log(max(sensors, 12) / 12))
    assert seq.quantile_for_many(4.0, sensors) >= 4.0


# ------------------------------------------------------------------------------------------------------------ drift


def test_psi_of_equal_samples_is_zero_and_of_known_shares_what_the_formula_says() -> None:
    reference = np.arange(1000.0)
    assert drift.psi(reference, reference) == pytest.approx(0.0, abs=1e-9)
    upper_half = reference[500:]  # 0 in five deciles (0.5 % at least), 20 % in the others
    expected = 5 * (0.005 - 0.1) * np.log(0.005 / 0.1) + 5 * (0.2 - 0.1) * np.log(0.2 / 0.1)
    assert drift.psi(upper_half, reference) == pytest.approx(expected, rel=0.02)


def test_the_wasserstein_distance_is_that_of_scipy() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(3, 2, 900), rng.gamma(2.0, 2.0, 1100)
    assert drift.wasserstein(a, b) == pytest.approx(stats.wasserstein_distance(a, b), rel=0.03)
    assert drift.wasserstein(np.append(a, np.nan), b) == drift.wasserstein(a, b)


def test_drift_is_measured_against_the_same_season_where_the_data_have_it() -> None:
    frame = hourly(days=420, sensors=3)
    season = 1 + 0.4 * np.cos((frame["timestamp"] - START) / pd.Timedelta(days=364) * 2 * np.pi)
    seasonal = frame.assign(avg_value=frame["avg_value"] * season)
    found = drift.input_drift(build_grid(seasonal))
    assert found.reference == "same season"
    assert found.table["wasserstein"].max() < 0.1
    short = drift.input_drift(build_grid(seasonal[seasonal["timestamp"] >= START + pd.Timedelta(days=200)]))
    assert short.reference == "weeks before"


def test_one_sensor_that_has_moved_is_told_from_all_of_them() -> None:
    frame = hourly(days=420, sensors=4)
    late = frame["timestamp"] >= START + pd.Timedelta(days=392)
    one = frame.assign(
        avg_value=frame["avg_value"].where(~(late & (frame["sensor_id"] == "s1")), frame["avg_value"] * 1.5)
    )
    found = data_of(one, "input_drift")
    assert checks.alerting(found.rows)["sensor_id"].tolist() == ["s1"]
    every = frame.assign(avg_value=frame["avg_value"].where(~late, frame["avg_value"] * 1.5))
    assert checks.alerting(data_of(every, "input_drift").rows)["sensor_id"].tolist() == [EVERYWHERE]


# ---------------------------------------------------------------------------------------------------- data quality


def test_faultless_data_raise_no_alert_of_quality() -> None:
    grid = build_grid(hourly())
    found = [*quality.data_checks(grid, 7, grid.time(grid.hours)), *diagnosis.diagnose(grid, 7)]
    assert [entry.kind for entry in found if gauge(entry).alert] == []
    assert {entry.kind for entry in found} <= set(KINDS)


def test_missing_hours_count_beyond_what_a_sensor_always_lacks() -> None:
    frame = hourly()
    end = frame["timestamp"].max()
    week = frame["timestamp"] > end - pd.Timedelta(days=7)
    odd = frame["timestamp"].dt.hour % 3 == 0
    found = data_of(
        frame[~((frame["sensor_id"] == "s0") & week & odd) & ~((frame["sensor_id"] == "s1") & odd)], "missing_data"
    )
    assert checks.alerting(found.rows)["sensor_id"].tolist() == ["s0"]
    assert rows(found).loc["s0", "value"] == pytest.approx(1 / 3, abs=0.01)


def test_a_sensor_that_is_silent_for_a_day_has_vanished_and_a_new_one_is_named() -> None:
    frame = hourly()
    end = frame["timestamp"].max()
    gone = (frame["sensor_id"] == "s2") & (frame["timestamp"] > end - pd.Timedelta(hours=30))
    early = (frame["sensor_id"] == "s3") & (frame["timestamp"] <= end - pd.Timedelta(hours=40))
    kept = frame[~gone & ~early]
    vanished = checks.alerting(data_of(kept, "vanished_sensors").rows)
    assert vanished["sensor_id"].tolist() == ["s2"] and vanished["value"].tolist() == [30.0]
    assert vanished["since"].tolist() == [end - pd.Timedelta(hours=29)]
    assert checks.alerting(data_of(kept, "new_sensors").rows)["sensor_id"].tolist() == ["s3"]


def test_a_value_that_does_not_change_for_a_day_is_stuck_but_zero_at_night_is_usual() -> None:
    frame = hourly()
    dark = (frame["sensor_id"] == "s1") & (frame["timestamp"].dt.hour < 18)
    frame.loc[dark, "avg_value"] = 0.0
    stuck = (frame["sensor_id"] == "s0") & (frame["timestamp"] > frame["timestamp"].max() - pd.Timedelta(hours=26))
    frame.loc[stuck, "avg_value"] = 7.0
    found = checks.alerting(data_of(frame, "stuck").rows)
    assert found["sensor_id"].tolist() == ["s0"] and found["value"].tolist() == [26.0]
    assert found["since"].tolist() == [frame["timestamp"].max() - pd.Timedelta(hours=25)]


def test_the_longest_run_is_that_of_a_slow_search() -> None:
    rng = np.random.default_rng(0)
    load = rng.integers(0, 2, size=(20, 60)).astype(float)
    load[rng.uniform(size=load.shape) < 0.1] = np.nan
    longest, end = quality._longest_runs(load)
    for row, length, last in zip(load, longest, end, strict=True):
        runs, run = [], 0
        for i, value in enumerate(row):
            run = 0 if np.isnan(value) else run + 1 if i and value == row[i - 1] else 1
            runs.append(run)
        assert length == max(runs) and last == len(runs) - 1 - runs[::-1].index(max(runs))


def test_values_beyond_the_known_range_and_late_data_are_told() -> None:
    frame = hourly()
    high = (frame["sensor_id"] == "s0") & (frame["timestamp"] > frame["timestamp"].max() - pd.Timedelta(hours=4))
    frame.loc[high, "avg_value"] *= -1
    assert checks.alerting(data_of(frame, "out_of_range").rows)["sensor_id"].tolist() == ["s0"]
    late = data_of(frame, "late", now=frame["timestamp"].max() + pd.Timedelta(hours=41))
    assert late.rows["value"].tolist() == [40.0] and gauge(late).alert


# ------------------------------------------------------------------------------------------------------- diagnosis


def _late(frame: pd.DataFrame, days: int = 3) -> pd.Series[bool]:
    return frame["timestamp"] > frame["timestamp"].max() - pd.Timedelta(days=days)


@pytest.mark.parametrize(("factor", "decades"), [(1000.0, 3.0), (0.001, 3.0), (60.0, np.log10(60))])
def test_a_factor_between_units_is_told_with_the_hour_it_began(factor: float, decades: float) -> None:
    frame = hourly()
    changed = (frame["sensor_id"] == "s1") & _late(frame)
    frame.loc[changed, "avg_value"] *= factor
    found = checks.alerting(data_of(frame, "unit_change").rows)
    assert found["sensor_id"].tolist() == ["s1"]
    assert found["value"].iloc[0] == pytest.approx(decades, abs=0.05)
    assert found["since"].iloc[0] == frame.loc[changed, "timestamp"].min()


def test_a_load_that_doubled_is_no_change_of_unit() -> None:
    frame = hourly()
    frame.loc[_late(frame), "avg_value"] *= 2.0
    assert data_of(frame, "unit_change").rows["value"].max() == 0


@pytest.mark.parametrize("hours", [-2, 1, 10])
def test_a_clock_that_slipped_is_told_with_its_hours(hours: int) -> None:
    frame = hourly()
    late = _late(frame, 4)
    frame.loc[late, "timestamp"] += pd.Timedelta(hours=hours)
    frame = frame.drop_duplicates(["sensor_id", "timestamp"], keep="last")
    frame = frame[frame["timestamp"] < START + pd.Timedelta(days=120)]
    found = checks.alerting(data_of(frame, "time_shift").rows)
    assert EVERYWHERE in found["sensor_id"].tolist()
    assert f"{hours:+d} h later" in found["detail"].iloc[0]


def test_swapped_sensors_are_named_as_a_pair() -> None:
    frame = hourly()
    late = _late(frame)
    frame.loc[late, "sensor_id"] = frame.loc[late, "sensor_id"].replace({"s0": "s2", "s2": "s0"})
    found = checks.alerting(data_of(frame, "sensor_swap").rows)
    assert sorted(found["sensor_id"]) == ["s0", "s2"]


# ---------------------------------------------------------------------------------------------- forecasts and flags


def _scored(frame: pd.DataFrame, error: float, width: float) -> tuple[pd.DataFrame, Grid]:
    """Return forecasts of every midnight that err by a share of the load, at random."""
    grid, rng = build_grid(frame), np.random.default_rng(0)
    rows = frame[frame["timestamp"] >= START + pd.Timedelta(days=30)].copy()
    rows["origin"] = rows["timestamp"].dt.floor("D") - pd.Timedelta(hours=1)
    rows["horizon"] = rows["timestamp"].dt.hour + 1
    rows["predicted_load"] = rows["avg_value"] * (1 + error * rng.standard_normal(len(rows)))
    rows["lower"], rows["upper"] = (rows["predicted_load"] - s * width * rows["avg_value"] for s in (1, -1))
    return join(rows.drop(columns="avg_value").assign(level=0.9), grid), grid


def test_accuracy_is_the_error_over_the_naives_against_the_reference() -> None:
    scored, grid = _scored(hourly(), 0.02, 0.05)
    reference = accuracy.reference_of_first_weeks(scored)
    window = accuracy.window_of(scored, grid, 7)
    usual = accuracy.accuracy_check(window, reference, grid, 7)
    assert usual.rows["value"].iloc[0] == pytest.approx(1.0, abs=0.1) and not gauge(usual).alert
    worse = window.assign(predicted=window["actual"] + 2 * (window["predicted"] - window["actual"]))
    found = accuracy.accuracy_check(worse, reference, grid, 7)
    assert found.rows["value"].iloc[0] == pytest.approx(2 * usual.rows["value"].iloc[0]) and gauge(found).alert


def test_coverage_is_judged_against_the_level_of_the_intervals() -> None:
    narrow, grid = _scored(hourly(), 0.05, 0.05)  # one standard deviation: 68 %
    found = accuracy.coverage_check(narrow, grid)
    assert found.rows["value"].iloc[0] == pytest.approx(0.9 - 0.6827, abs=0.02) and gauge(found).alert
    right, grid = _scored(hourly(), 0.05, 0.05 * 1.645)
    assert not gauge(accuracy.coverage_check(right, grid)).alert


def test_hours_that_no_forecast_reached_are_counted() -> None:
    scored, grid = _scored(hourly(), 0.05, 0.1)
    assert gauge(examination.forecast_check(scored, grid, 7)).value == 0
    stopped = scored[scored["column"] < grid.hours - 84]
    found = gauge(examination.forecast_check(stopped, grid, 7))
    assert found.value == pytest.approx(0.5) and found.since == grid.time(grid.hours - 84)


def test_the_flagged_share_is_judged_against_the_budget_or_the_test_if_it_flagged_more() -> None:
    times = START + pd.to_timedelta(np.arange(1000), unit="h")
    table = pd.DataFrame({"sensor_id": "s0", "timestamp": times, "is_anomaly": np.arange(1000) < 40})
    assert gauge(flags.anomaly_check(table, 0.01)).value == pytest.approx(4.0)
    assert gauge(flags.anomaly_check(table, 0.01)).alert
    assert not gauge(flags.anomaly_check(table, 0.01, 0.02)).alert
    assert gauge(flags.anomaly_check(table, 0.01)).since == times[0]


# ---------------------------------------------------------------------------------------------- alerts and metrics


def test_an_alert_names_its_sensors_the_worst_first_and_the_earliest_time() -> None:
    found = check(
        "stuck",
        [
            ("a", 30.0, 24.0, START, "x"),
            ("b", 90.0, 24.0, START + pd.Timedelta(days=1), "y"),
            ("c", 1.0, 24.0, pd.NaT, "z"),
        ],
    )
    told = alert(found, FILL, START)
    assert told is not None
    assert (told.sensors, told.value, told.threshold, told.since) == (("b", "a"), 90.0, 24.0, START)
    assert "sensors='b,a'" in alert_command("level_shift")
    assert verdict([told]) == "alerts" and verdict([]) == "ok"


def alert_command(kind: str) -> str:
    told = alert(check(kind, [("b", 9.0, 1.0, START, "x"), ("a", 8.0, 1.0, START, "x")]), FILL, START)
    assert told is not None
    return told.command


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_a_command_of_an_entry_point_that_exists(kind: str) -> None:
    command = alert_command(kind)
    assert re.match(r"mlflow run \. -e (monitor|doctor|backtest) ", command) and "{" not in command


def test_training_again_is_advised_for_drift_but_never_on_faulty_data() -> None:
    level, unit, gap = (
        alert(check(kind, [("a", 9.0, 1.0, START, "x")]), FILL, START)
        for kind in ("level_shift", "unit_change", "missing_data")
    )
    assert level and unit and gap
    assert verdict([level]) == verdict([level, gap]) == "drift"
    assert verdict([level, unit]) == "alerts"


def test_metrics_are_prometheus_text_with_every_kind_and_no_value_that_is_unknown() -> None:
    kinds = [gauge(check("stuck", [('a"\\', 30.0, 24.0, START, "x")])), gauge(check("late", []))]
    figures = {"forecast_mae": 1.5, "forecast_skill": float("nan"), "forecast_rmse": 2.0}
    lines = prom.metrics_text("M", "3", kinds, figures, START).splitlines()
    assert 'smartgrid_alert{model="M",alert="stuck",severity="warning"} 1.0' in lines
    assert 'smartgrid_alert{model="M",alert="late",severity="critical"} 0.0' in lines
    assert f'smartgrid_alert_since_timestamp_seconds{{model="M",alert="stuck"}} {START.timestamp()}' in lines
    assert 'smartgrid_forecast_mae{model="M",version="3"} 1.5' in lines
    assert not [
        line for line in lines if "nan" in line or "skill" in line or 'alert_value{model="M",alert="late"' in line
    ]


@pytest.mark.parametrize("address", ["ftp://host/x", "host:9091", "http://"])
def test_an_address_that_is_no_url_is_refused(address: str) -> None:
    with pytest.raises(InputError, match="webhook must be an http or https URL"):
        delivery.check_address(address, "webhook")
    assert delivery.check_address("", "webhook") == ""
