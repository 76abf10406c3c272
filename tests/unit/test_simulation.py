"""Laws of the simulated grid and of the fault recipes."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smartgrid_pyfunc import simulation
from smartgrid_pyfunc.schema import LOAD_TYPES, InputError
from smartgrid_pyfunc.simulation import FAULT_KINDS, demo_folder, fault_kinds, inject, simulate

KEY = ["sensor_id", "timestamp"]


def read(folder: Path, name: str = "readings") -> pd.DataFrame:
    frame = pd.concat([pd.read_parquet(path) for path in sorted((folder / name).glob("part-*.parquet"))])
    return frame.reset_index(drop=True)


def truth(number: int, days: int, seed: int = 42) -> tuple[np.ndarray, simulation._Scene]:
    area = simulation._checked_area(-37.81, 144.96, "UTC", "AU")
    scene = simulation._scene(area, pd.Timestamp("2025-01-06", tz="UTC"), days * 48, 30, seed)
    return simulation._clean_values(number, scene, 30, seed), scene


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("grid") / "with"
    simulate(folder, sensors=16, days=60, fault_rate=0.05)
    return folder


@pytest.fixture(scope="module")
def faultless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("grid") / "without"
    simulate(folder, sensors=16, days=60, faults=False)
    return folder


# --- The grid


def test_same_seed_gives_the_same_files_byte_by_byte(tmp_path: Path) -> None:
    for name in ("a", "b"):
        simulate(tmp_path / name, sensors=5, days=4, seed=7)
    names = [path.relative_to(tmp_path / "a") for path in sorted((tmp_path / "a").rglob("*.parquet"))]
    assert len(names) == 4
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_another_seed_gives_other_values(tmp_path: Path) -> None:
    for seed in (1, 2):
        simulate(tmp_path / str(seed), sensors=3, days=4, seed=seed, faults=False)
    assert (read(tmp_path / "1")["value"] != read(tmp_path / "2")["value"]).mean() > 0.9


def test_a_sensor_does_not_depend_on_the_number_of_sensors(
    tmp_path: Path, grid: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulation, "_ROWS_A_PART", 7000)  # other chunks than those of the fixture, too
    simulate(tmp_path / "few", sensors=5, days=60, fault_rate=0.05)
    few, many = read(tmp_path / "few"), read(grid)
    assert len(list((tmp_path / "few" / "readings").iterdir())) == 3
    pd.testing.assert_frame_equal(few, many[many["sensor_id"].isin(few["sensor_id"])].reset_index(drop=True))


def test_a_shorter_period_is_the_beginning_of_a_longer_one() -> None:
    for number in range(16):
        np.testing.assert_allclose(truth(number, 10)[0], truth(number, 30)[0][:480], rtol=1e-9)


def test_labels_mark_exactly_the_readings_that_differ_from_the_faultless_grid(grid: Path, faultless: Path) -> None:
    both = read(grid).merge(read(faultless), on=KEY, suffixes=("", "_true"), validate="one_to_one", how="left")
    assert both["value_true"].notna().all()
    differs = both["value"] != both["value_true"]
    assert differs.sum() > 500
    pd.testing.assert_series_equal(both["is_anomaly"], differs, check_names=False)
    pd.testing.assert_series_equal(both["fault"] != "", differs, check_names=False)


def test_no_fault_means_no_label_and_no_gap(faultless: Path) -> None:
    readings = read(faultless)
    assert len(readings) == 16 * 60 * 48
    assert not readings["is_anomaly"].any()
    assert (readings["fault"] == "").all()
    assert pd.read_parquet(faultless / "faults.parquet").empty


def test_fault_events_span_their_labelled_and_missing_readings(grid: Path, faultless: Path) -> None:
    readings, events = read(grid), pd.read_parquet(grid / "faults.parquet")
    after = read(faultless)[KEY].merge(readings[[*KEY, "is_anomaly", "fault"]], on=KEY, how="left")
    wrong = after[after["is_anomaly"].isna() | (after["is_anomaly"] == True)]  # noqa: E712
    spanned = 0
    for event in events.itertuples():
        inside = wrong[(wrong["sensor_id"] == event.sensor_id) & wrong["timestamp"].between(event.start, event.end)]
        assert set(inside["fault"].dropna()) <= {event.kind}
        assert {event.start, event.end} <= set(inside["timestamp"])
        spanned += len(inside)
    assert spanned == len(wrong)


def test_kinds_of_faults_occur_equally_often(tmp_path: Path) -> None:
    simulate(tmp_path / "g", sensors=112, days=40, step_minutes=60, fault_rate=0.1)
    events = pd.read_parquet(tmp_path / "g" / "faults.parquet")
    load = events[events["sensor_id"].str.contains("feeder|household|building|factory|substation")]
    counts = load["kind"].value_counts()
    assert set(counts.index) == set(FAULT_KINDS)
    assert counts.max() < 1.6 * counts.min()


@pytest.mark.parametrize("rate", [0.01, 0.1])
def test_faults_cover_the_share_asked_for(tmp_path: Path, rate: float) -> None:
    simulate(tmp_path / "g", sensors=100, days=60, step_minutes=60, fault_rate=rate)
    readings = read(tmp_path / "g")
    expected = 100 * 60 * 24
    wrong = readings["is_anomaly"].sum() + expected - len(readings)
    assert wrong / expected == pytest.approx(rate, rel=0.15)


def test_hourly_load_equals_an_sqlite_aggregate_of_the_readings(grid: Path) -> None:
    readings, hourly = read(grid), read(grid, "hourly_load")
    with sqlite3.connect(":memory:") as database:
        text = readings.assign(timestamp=readings["timestamp"].dt.strftime("%Y-%m-%dT%H:%M"))
        text.to_sql("r", database, index=False)
        rows = database.execute(
            "select sensor_id, substr(timestamp, 1, 13), avg(value), min(value), max(value), count(*) from r "
            "where sensor_type in ('power', 'energy') group by 1, 2"
        ).fetchall()
    oracle = pd.DataFrame(rows, columns=["sensor_id", "hour", "avg_value", "min_value", "max_value", "count"])
    assert len(oracle) == len(hourly)
    hourly = hourly.assign(hour=hourly["timestamp"].dt.strftime("%Y-%m-%dT%H"))
    both = oracle.merge(hourly, on=["sensor_id", "hour"], suffixes=("_sql", ""), validate="one_to_one")
    assert len(both) == len(oracle)
    for name in ("avg_value", "min_value", "max_value", "count"):
        np.testing.assert_allclose(both[name], both[f"{name}_sql"], rtol=1e-12)


def test_columns_and_units_are_those_of_the_vocabulary(grid: Path) -> None:
    readings = read(grid)
    expected = "sensor_id sensor_type timestamp value unit latitude longitude is_anomaly fault"
    assert list(readings) == expected.split()
    units = readings.groupby("sensor_type")["unit"].unique().map(list).to_dict()
    assert units == {"power": ["kW"], "energy": ["kWh"], "voltage": ["V"], "current": ["A"], "temperature": ["°C"]}
    expected = "sensor_id timestamp avg_value min_value max_value count temperature is_holiday"
    assert list(read(grid, "hourly_load")) == expected.split()
    assert str(readings["timestamp"].dt.tz) == "UTC"


def test_weather_reaches_a_week_beyond_the_load_and_agrees_with_it(grid: Path) -> None:
    weather, hourly = pd.read_parquet(grid / "weather.parquet"), read(grid, "hourly_load")
    assert weather["timestamp"].diff().dropna().eq(pd.Timedelta(hours=1)).all()
    assert weather["timestamp"].max() - hourly["timestamp"].max() == pd.Timedelta(days=7)
    both = hourly.merge(weather, on="timestamp", suffixes=("", "_area"))
    assert len(both) == len(hourly)
    assert both["temperature"].equals(both["temperature_area"].rename("temperature"))
    assert both["is_holiday"].equals(both["is_holiday_area"].rename("is_holiday"))


def test_csv_and_parquet_carry_the_same_rows(tmp_path: Path) -> None:
    options = {"sensors": 8, "days": 20, "fault_rate": 0.1}
    simulate(tmp_path / "p", **options)
    simulate(tmp_path / "c", file_format="csv", **options)
    for name in ("readings/part-00000", "hourly_load/part-00000", "faults", "weather"):
        parquet = pd.read_parquet(tmp_path / "p" / f"{name}.parquet")
        csv = pd.read_csv(tmp_path / "c" / f"{name}.csv", keep_default_na=False)
        for column in parquet.select_dtypes("datetimetz"):
            assert csv[column].str.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ").all()
            csv[column] = pd.to_datetime(csv[column])
        pd.testing.assert_frame_equal(csv, parquet, check_dtype=False)


@pytest.mark.parametrize(
    ("country", "dates"),
    [("AU", ["2025-01-26"]), ("AU-VIC", ["2025-01-27"]), (None, [])],  # Victoria moves a Sunday's to Monday
)
def test_holidays_are_those_of_the_local_date(tmp_path: Path, country: str | None, dates: list[str]) -> None:
    simulate(tmp_path / "g", sensors=1, days=30, timezone="Australia/Melbourne", country=country)
    weather = pd.read_parquet(tmp_path / "g" / "weather.parquet")
    free = weather.loc[weather["is_holiday"] == 1, "timestamp"].dt.tz_convert("Australia/Melbourne")
    assert [str(day) for day in free.dt.date.unique()] == dates
    assert len(free) == 24 * len(dates)


def test_a_holiday_looks_more_like_a_sunday_than_like_a_workday() -> None:
    values, scene = truth(3, 120)  # an office; the period holds Good Friday, Easter Monday and Anzac Day
    noon = (scene.hour >= 9) & (scene.hour < 17)
    holiday, sunday = values[noon & scene.holiday & ~scene.weekend].mean(), values[noon & scene.weekend].mean()
    workday = values[noon & ~scene.holiday & ~scene.weekend].mean()
    assert abs(holiday - sunday) < abs(holiday - workday)


def test_current_follows_the_power_of_its_feeder() -> None:
    current, power = truth(7, 30)[0], truth(1, 30)[0]
    np.testing.assert_allclose(current, power / (np.sqrt(3) * 11 * 0.95), rtol=0.08)


def test_voltage_is_near_its_nominal_value_and_dips_with_load() -> None:
    voltage, power = truth(4, 60)[0], truth(1, 60)[0]
    assert 215 < voltage.min() < voltage.mean() < voltage.max() < 245
    assert np.corrcoef(voltage, power)[0, 1] < -0.6


def test_solar_feed_in_turns_the_load_negative_in_daylight_only() -> None:
    load, scene = truth(8, 60)
    assert (load < 0).mean() > 0.05
    assert scene.sun[load < 0].min() > 0
    assert 10 < np.median(scene.hour[load < 0]) < 14


def test_load_rises_when_a_winter_gets_colder() -> None:
    load, scene = truth(1, 240)
    winter = scene.winter > 0.5
    by_day = pd.DataFrame({"load": load, "felt": scene.felt, "day": scene.times.astype("datetime64[D]")})[winter]
    assert by_day.groupby("day").mean().corr().loc["load", "felt"] < -0.6


def test_levels_differ_by_orders_of_magnitude(faultless: Path) -> None:
    readings = read(faultless)
    level = readings[readings["sensor_type"].isin(LOAD_TYPES)].groupby("sensor_id")["value"].mean()
    assert level.max() > 1e4 * level.min()


def test_an_average_of_weeks_beats_the_last_week_but_not_by_much() -> None:
    skill = []
    for number in (0, 1, 3, 5, 6, 8, 11, 13, 15):
        by_week = truth(number, 70)[0].reshape(10, -1)
        naive = np.abs(by_week[4:] - by_week[3:-1]).mean()
        average = np.mean([np.abs(by_week[i] - by_week[i - 4 : i].mean(axis=0)).mean() for i in range(4, 10)])
        skill.append(1 - average / naive)
    assert 0.03 < np.mean(skill) < 0.3


def test_autoregressive_filter_equals_its_recursion() -> None:
    shocks = np.random.default_rng(0).standard_normal(3000)
    for steps in (0.5, 3.0, 72.0, 5000.0):
        expected, last = np.empty(3000), 0.0
        for i, shock in enumerate(shocks):
            last = np.exp(-1 / steps) * last + shock
            expected[i] = last
        np.testing.assert_allclose(simulation._filtered(shocks, steps), expected, atol=1e-7)


@pytest.mark.parametrize("step_minutes", [1, 20, 60])
def test_any_step_fills_every_hour(tmp_path: Path, step_minutes: int) -> None:
    result = simulate(tmp_path / "g", sensors=3, days=2, step_minutes=step_minutes, faults=False)
    assert result.rows == 3 * 2 * 24 * 60 // step_minutes
    assert (read(tmp_path / "g", "hourly_load")["count"] == 60 // step_minutes).all()


# --- Files


def test_memory_does_not_grow_with_the_number_of_sensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation, "_ROWS_A_PART", 4 * 480)
    peaks = []
    for sensors in (8, 64):
        held: list[int] = []
        tracemalloc.start()
        simulate(
            tmp_path / str(sensors),
            sensors=sensors,
            days=10,
            on_progress=lambda done, total, held=held: held.append(pa.total_allocated_bytes()),
        )
        peaks.append(tracemalloc.get_traced_memory()[1] + max(held))
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


def test_progress_counts_up_to_the_number_of_sensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation, "_ROWS_A_PART", 2 * 48)
    seen: list[tuple[int, int]] = []
    simulate(tmp_path / "g", sensors=5, days=1, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(2, 5), (4, 5), (5, 5)]


def test_interrupted_writing_leaves_nothing_behind(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(tmp_path / "g", sensors=2, days=2, on_progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_content_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "g").mkdir()
    (tmp_path / "g" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="new or empty"):
        simulate(tmp_path / "g", sensors=1, days=1)
    assert [path.name for path in tmp_path.rglob("*")] == ["g", "mine.txt"]


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "g").write_text("mine")
    with pytest.raises(InputError, match="new or empty"):
        simulate(tmp_path / "g", sensors=1, days=1)
    with pytest.raises(InputError, match="writable"):
        simulate(tmp_path / "g" / "below", sensors=1, days=1)


def test_an_empty_folder_and_missing_parents_are_accepted(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "a" / "b"):
        result = simulate(folder, sensors=1, days=1, faults=False)
        assert result == simulation.SimulationResult(folder, 48, 1, 0)
        names = sorted(path.name for path in folder.iterdir())
        assert names == ["faults.parquet", "hourly_load", "readings", "weather.parquet"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sensors", 0),
        ("sensors", True),
        ("days", -1),
        ("days", 1.5),
        ("seed", -1),
        ("step_minutes", 7),
        ("step_minutes", 120),
        ("start", "tomorrow"),
        ("start", "2025-01-06T00:30"),
        ("fault_rate", 0.5),
        ("fault_rate", float("nan")),
        ("file_format", "xlsx"),
        ("latitude", 91),
        ("longitude", 200),
        ("timezone", "Mars/Olympus"),
        ("country", "XX"),
        ("country", "AU-XX"),
    ],
)
def test_a_parameter_out_of_range_is_named_before_anything_is_written(tmp_path: Path, name: str, value: object) -> None:
    with pytest.raises(InputError, match=name):
        simulate(tmp_path / "g", **{"sensors": 1, "days": 1, name: value})
    assert list(tmp_path.iterdir()) == []


# --- Faults


def series(n: int = 480, seed: int = 0) -> tuple[np.ndarray, pd.DatetimeIndex]:
    times = pd.date_range("2026-03-01", periods=n, freq="30min", tz="UTC")
    values = 100 + 20 * np.sin(np.arange(n) * 2 * np.pi / 48) + np.random.default_rng(seed).normal(0, 3, n)
    return values, times


@pytest.mark.parametrize("kind", FAULT_KINDS)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 200), gaps=st.booleans(), place=st.one_of(st.none(), st.just(0)))
@settings(max_examples=40, deadline=None)
def test_inject_changes_what_it_marks_in_one_stretch_and_nothing_else(
    kind: str, seed: int, n: int, gaps: bool, place: int | None
) -> None:
    values, times = series(n, seed)
    if gaps:
        values[::3] = np.nan
    before = values.copy()
    faulty, changed = inject(values, times, kind, np.random.default_rng(seed), start=place)
    np.testing.assert_array_equal(values, before)
    np.testing.assert_array_equal(faulty[~changed], values[~changed])
    assert not np.any(faulty[changed] == values[changed])
    assert not np.any(changed & np.isnan(values))
    longest = simulation._FAULTS_BY_KIND[kind].hours[1]
    touched = np.flatnonzero(changed)
    assert not touched.size or touched[-1] - touched[0] <= 2 * longest


def test_inject_is_determined_by_its_generator() -> None:
    values, times = series()
    for kind in FAULT_KINDS:
        first, second = (inject(values, times, kind, np.random.default_rng(5))[0] for _ in range(2))
        np.testing.assert_array_equal(first, second)


def injected(kind: str, hours: float = 5.0, **options: object) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    values, times = series()
    seed = int(options.pop("seed", 1))  # type: ignore[call-overload]
    faulty, changed = inject(values, times, kind, np.random.default_rng(seed), start=100, hours=hours, **options)
    return values[100:110], faulty[100:110], np.flatnonzero(changed)


def test_spike_is_one_reading_far_away() -> None:
    clean, faulty, changed = injected("spike", hours=0.0)
    assert changed.tolist() == [100]
    low, high = np.percentile(series()[0], [25, 75])
    assert 3 <= abs(faulty[0] - clean[0]) / (high - low) <= 8


def test_stuck_repeats_the_first_value_which_is_still_right() -> None:
    clean, faulty, changed = injected("stuck")
    assert (faulty == clean[0]).all()
    assert changed.tolist() == list(range(101, 110))


def test_drift_grows_steadily_from_its_first_reading() -> None:
    clean, faulty, changed = injected("drift")
    steps = np.diff(faulty - clean, prepend=0.0)
    np.testing.assert_allclose(steps, steps[0])
    assert changed.tolist() == list(range(100, 110)) and steps[0] != 0


def test_dropout_is_missing_or_zero_and_late_energy_is_conserved() -> None:
    seen = set()
    for seed in range(40):
        clean, faulty, _ = injected("dropout", sensor_type="energy", seed=seed)
        if np.isnan(faulty).all():
            seen.add("missing")
        elif faulty[-1]:
            assert not faulty[:-1].any()
            assert faulty[-1] == pytest.approx(clean.sum())
            seen.add("late")
        else:
            assert not faulty.any()
            seen.add("zero")
    assert seen == {"missing", "zero", "late"}


def test_wrong_scale_is_a_constant_factor() -> None:
    factors = set()
    for seed in range(30):
        clean, faulty, _ = injected("wrong_scale", seed=seed)
        factor = faulty / clean
        np.testing.assert_allclose(factor, factor[0])
        factors.add(round(float(factor[0]), 6))
    assert factors == {0.1, 10.0, 1000.0}


def test_swapped_phase_turns_the_sign_or_mistakes_line_for_phase_voltage() -> None:
    clean, faulty, _ = injected("swapped_phase")
    np.testing.assert_array_equal(faulty, -clean)
    clean, faulty, _ = injected("swapped_phase", sensor_type="voltage")
    assert np.allclose(faulty, clean * 3**0.5) or np.allclose(faulty, clean / 3**0.5)


def test_meter_reset_falls_to_near_zero_and_climbs_back() -> None:
    clean, faulty, _ = injected("meter_reset")
    share = faulty / clean
    assert share[0] == pytest.approx(0.02) and share[-1] == pytest.approx(0.98)
    assert (np.diff(share) > 0).all()


def test_a_constant_series_still_gets_a_visible_spike() -> None:
    times = series(48)[1]
    for level in (0.0, 50.0):
        faulty, changed = inject(np.full(48, level), times, "spike", np.random.default_rng(0))
        assert changed.sum() == 1
        assert abs(faulty[changed][0] - level) >= 0.3 * max(level, 1.0)


def test_inject_refuses_what_it_cannot_mean() -> None:
    values, times = series(10)
    rng = np.random.default_rng(0)
    for arguments, rule in (
        ((values, times, "gremlin", rng), "kind"),
        ((values[:5], times, "spike", rng), "equally long"),
        ((values[:0], times[:0], "spike", rng), "not empty"),
        ((values, times[::-1], "spike", rng), "ascend"),
    ):
        with pytest.raises(InputError, match=rule):
            inject(*arguments)
    with pytest.raises(InputError, match="start"):
        inject(values, times, "spike", rng, start=10)


def test_only_wires_are_swapped_and_only_meters_are_reset() -> None:
    assert set(fault_kinds("power")) == set(fault_kinds("energy")) == set(FAULT_KINDS)
    assert set(FAULT_KINDS) - set(fault_kinds("temperature")) == {"swapped_phase", "meter_reset"}
    assert set(FAULT_KINDS) - set(fault_kinds("voltage")) == {"meter_reset"}
    assert set(FAULT_KINDS) - set(fault_kinds("current")) == {"meter_reset"}


# --- The demo


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(folder))
        yield demo_folder()


def test_demo_has_twelve_load_sensors_of_sixteen_and_every_kind_of_fault(demo: Path) -> None:
    readings = read(demo.parent)
    types = readings.drop_duplicates("sensor_id")["sensor_type"]
    assert len(types) == 16 and types.isin(LOAD_TYPES).sum() == 12
    assert set(readings["fault"]) == {"", *FAULT_KINDS}
    assert (readings["timestamp"].max() - readings["timestamp"].min()).days == 209


def test_demo_is_made_once_and_made_again_when_damaged(demo: Path) -> None:
    part = demo / "part-00000.parquet"
    good, made = part.read_bytes(), part.stat().st_mtime_ns
    assert demo_folder() == demo and part.stat().st_mtime_ns == made
    part.write_bytes(good[:-100] + bytes(100))
    assert demo_folder() == demo and part.read_bytes() == good
    part.unlink()
    assert demo_folder() == demo and part.read_bytes() == good
    assert [path.name for path in demo.parent.parent.iterdir()] == [demo.parent.name]


@pytest.mark.integration
def test_processes_that_ask_for_the_demo_at_once_get_the_same_intact_one(tmp_path: Path) -> None:
    script = "from smartgrid_pyfunc.simulation import demo_folder; print(demo_folder())"
    root = Path(simulation.__file__).parents[1]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", script]
    started = [
        subprocess.Popen(command, cwd=root, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    answers = {process.communicate(timeout=120)[0].strip() for process in started}
    assert [process.returncode for process in started] == [0, 0]
    (folder,) = answers
    assert simulation._intact(Path(folder).parent)
    assert [path.name for path in tmp_path.iterdir()] == [Path(folder).parent.name]
