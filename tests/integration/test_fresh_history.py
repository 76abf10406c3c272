"""Forecasts from the newest hours of a store: a real PostgreSQL cluster, killed in between, and Parquet folders."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psycopg
import pytest

from smartgrid_pyfunc.models import fresh_history, history_store
from smartgrid_pyfunc.models.boundary import BadRequestError
from smartgrid_pyfunc.models.fresh_history import FreshHistory
from smartgrid_pyfunc.models.history_store import Store, open_store
from smartgrid_pyfunc.models.load_forecasting import LoadForecastingModel
from smartgrid_pyfunc.schema import InputError
from smartgrid_pyfunc.sources import load_hourly
from tests.e2e.small_models import hourly_load
from tests.parts import PASSWORD, Part, postgres

pytestmark = pytest.mark.integration

NOW = pd.Timestamp.now("UTC").floor("h") + pd.Timedelta(minutes=20)
_TABLE = """
CREATE TABLE sensor_data (
    sensor_id text NOT NULL, sensor_type text NOT NULL, "timestamp" timestamptz NOT NULL, value double precision,
    latitude double precision, longitude double precision, unit text
)
"""


def readings(days: int = 40, until: pd.Timestamp = NOW) -> pd.DataFrame:
    """Half-hourly readings of four sensors with all that may be odd about them, shuffled."""
    rng = np.random.default_rng(1)
    times = pd.date_range(until - pd.Timedelta(days=days), until, freq="30min").floor("30min")
    base = [
        pd.DataFrame(
            {"sensor_id": name, "sensor_type": kind, "timestamp": times, "value": rng.normal(size, 1, len(times))}
        )
        for name, kind, size in (
            ("feeder", "power", 200),
            ("new", "energy", 10),
            ("late", "power", 50),
            ("t", "temperature", 20),
        )
    ]
    frame = pd.concat(base, ignore_index=True)
    late = (frame["sensor_id"] == "late") & (frame["timestamp"] > until - pd.Timedelta(hours=60))
    frame = frame[~late & (rng.random(len(frame)) > 0.05)]
    repeated, other = frame.sample(200, random_state=1), frame.sample(100, random_state=2)
    empty = frame.sample(50, random_state=3).assign(value=np.nan)
    frame = pd.concat([frame, repeated, other.assign(value=other["value"] + 3), empty], ignore_index=True)
    return frame.sample(frac=1, random_state=4).assign(latitude=51.5, longitude=-0.1, unit=None)


def fill(database: Part, rows: pd.DataFrame) -> None:
    with psycopg.connect(database.address) as connection, connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS sensor_data")
        cursor.execute(_TABLE)
        names = ["sensor_id", "sensor_type", "timestamp", "value"]
        with cursor.copy(f"COPY sensor_data ({', '.join(names)}) FROM STDIN") as sink:
            for sensor, kind, at, value in rows[names].itertuples(index=False):
                sink.write_row((sensor, kind, at.to_pydatetime(), None if pd.isna(value) else value))


@pytest.fixture(scope="module")
def database() -> Iterator[Part]:
    with postgres() as running:
        fill(running, readings())
        yield running


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("state")
    LoadForecastingModel(n_estimators=4, max_rows=1_000).fit(hourly_load()).save(folder)
    return folder


class Context:
    """What MLflow hands to `load_context`."""

    def __init__(self, folder: Path) -> None:
        self.artifacts = {"state": str(folder)}


def loaded(folder: Path) -> LoadForecastingModel:
    model = LoadForecastingModel()
    model.load_context(Context(folder))
    return model


def folder_of(path: Path, rows: pd.DataFrame) -> Path:
    path.mkdir()
    for name, part in rows.groupby(rows["timestamp"].dt.date):
        part.to_parquet(path / f"{name}.parquet")
    return path


def expected(tmp_path: Path, rows: pd.DataFrame) -> pd.DataFrame:
    """What training would read of the same readings."""
    rows.to_parquet(tmp_path / "same.parquet")
    return load_hourly(str(tmp_path / "same.parquet")).frame


def assert_same_hours(found: pd.DataFrame, truth: pd.DataFrame) -> None:
    hour = truth["timestamp"].dt.tz_localize(None).to_numpy().astype("datetime64[h]").astype(float)
    truth = truth.assign(hour=hour)[hour >= found["hour"].min()]
    names = ["sensor_id", "hour", "avg_value", "min_value", "max_value", "count"]
    left = found[names].sort_values(["sensor_id", "hour"]).reset_index(drop=True)
    right = truth[names].sort_values(["sensor_id", "hour"]).reset_index(drop=True)
    assert len(left) > 1_000
    pd.testing.assert_frame_equal(left, right, check_dtype=False, rtol=1e-12)


# ------------------------------------------------------------------------------------------ reading


@pytest.mark.parametrize("kind", ["database", "folder"])
def test_hours_are_those_that_training_would_make_of_the_same_readings(
    kind: str, database: Part, tmp_path: Path
) -> None:
    rows = readings()
    address = database.address if kind == "database" else str(folder_of(tmp_path / "store", rows))
    assert_same_hours(open_store(address).read(NOW.timestamp(), 30), expected(tmp_path, rows))


def test_naive_times_of_a_database_are_utc_whatever_its_zone(database: Part, tmp_path: Path) -> None:
    fill(database, readings())
    with psycopg.connect(database.address) as connection:
        connection.execute("ALTER DATABASE smartgrid SET timezone = 'Asia/Kolkata'")
        connection.execute(
            'ALTER TABLE sensor_data ALTER "timestamp" TYPE timestamp USING "timestamp" AT TIME ZONE \'UTC\''
        )
    try:
        assert_same_hours(open_store(database.address).read(NOW.timestamp(), 30), expected(tmp_path, readings()))
    finally:
        fill(database, readings())


def test_the_url_may_name_another_table_and_no_name_is_taken_for_sql(database: Part) -> None:
    with psycopg.connect(database.address) as connection:
        connection.execute(
            'CREATE SCHEMA IF NOT EXISTS grid; CREATE VIEW grid."odd; name" AS SELECT * FROM sensor_data'
        )
    try:
        found = open_store(f"{database.address}?table=grid.odd%3B%20name&sslmode=disable").read(NOW.timestamp(), 30)
        assert set(found["sensor_id"]) == {"feeder", "new", "late"}
    finally:
        with psycopg.connect(database.address) as connection:
            connection.execute("DROP SCHEMA grid CASCADE")


@pytest.mark.parametrize("kind", ["database", "folder"])
def test_what_is_dated_after_now_changes_nothing(kind: str, database: Part, tmp_path: Path) -> None:
    rows = readings()
    then = NOW - pd.Timedelta(days=3)
    later = rows[rows["timestamp"] > then]
    far = later.assign(timestamp=later["timestamp"] + pd.Timedelta(days=50_000))
    before = rows[rows["timestamp"] <= then]
    found = []
    for name, part in (("before", before), ("all", pd.concat([rows, far]))):
        if kind == "database":
            fill(database, part)
        address = database.address if kind == "database" else str(folder_of(tmp_path / name, part))
        hours = open_store(address).read(then.timestamp(), 30)
        found.append(hours.sort_values(["sensor_id", "hour"]).reset_index(drop=True))
    fill(database, rows)
    pd.testing.assert_frame_equal(*found)


def test_values_that_are_no_numbers_are_no_values(database: Part) -> None:
    rows = readings()
    at = NOW.floor("h") - pd.Timedelta(hours=5)
    in_hour = (rows["sensor_id"] == "feeder") & (rows["timestamp"].dt.floor("h") == at)
    strange = rows[in_hour].head(1).assign(timestamp=at + pd.Timedelta(minutes=1))
    strange = pd.concat(
        [strange.assign(value=v, timestamp=at + pd.Timedelta(minutes=i)) for i, v in enumerate((np.inf, -np.inf), 1)]
    )
    plain = open_store(database.address).read(NOW.timestamp(), 30)
    fill(database, pd.concat([rows, strange]))
    with psycopg.connect(database.address) as connection:
        connection.execute(
            "INSERT INTO sensor_data VALUES ('feeder', 'power', %s, 'NaN')", (at + pd.Timedelta(minutes=9),)
        )
    found = open_store(database.address).read(NOW.timestamp(), 30)
    fill(database, rows)
    order = ["sensor_id", "hour"]
    pd.testing.assert_frame_equal(
        found.sort_values(order).reset_index(drop=True), plain.sort_values(order).reset_index(drop=True)
    )


def test_a_folder_of_hourly_load_is_taken_as_it_is_without_the_hour_in_progress(tmp_path: Path) -> None:
    hour = NOW.floor("h")
    times = pd.date_range(hour - pd.Timedelta(hours=30), hour, freq="h")
    frame = pd.DataFrame({"sensor_id": "a", "timestamp": times, "avg_value": np.arange(31.0), "temperature": 5.0})
    found = open_store(str(folder_of(tmp_path / "store", frame))).read(NOW.timestamp(), 30)
    assert found["avg_value"].max() == 29
    assert found["hour"].max() == hour.timestamp() / 3600 - 1
    assert set(found["temperature"]) == {5.0}


def test_a_sensor_with_readings_of_two_types_is_left_out(tmp_path: Path) -> None:
    rows = readings()
    rows.loc[rows.index[rows["sensor_id"] == "new"][0], "sensor_type"] = "power"
    found = open_store(str(folder_of(tmp_path / "store", rows))).read(NOW.timestamp(), 30)
    assert set(found["sensor_id"]) == {"feeder", "late"}


# ------------------------------------------------------------------------------------------ answering


def test_without_the_variable_nothing_is_read(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SMARTGRID_HISTORY", raising=False)
    answer = loaded(saved).predict(None, pd.DataFrame({"sensor_id": ["feeder"]}))
    pd.testing.assert_frame_equal(
        answer, LoadForecastingModel.load(saved).predict(None, pd.DataFrame({"sensor_id": ["feeder"]}))
    )
    assert answer["origin"].iloc[0] == "2024-04-14T23:00:00Z"
    assert not any(t.name == "smartgrid-history" for t in threading.enumerate())


@pytest.mark.parametrize("address", ["mysql://a:b@c/d", "s3://bucket/x", "http://x"])
def test_an_address_of_another_kind_is_an_error_at_start(
    address: str, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMARTGRID_HISTORY", address)
    with pytest.raises(BadRequestError, match="must be a folder of Parquet files or a postgresql:// URL") as caught:
        loaded(saved)
    assert address not in str(caught.value)


def test_forecasts_start_from_the_newest_hours_of_the_store(
    saved: Path, database: Part, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The same answer as with these hours in the request; other sensors keep what the model remembers, and say so."""
    monkeypatch.setenv("SMARTGRID_HISTORY", database.address)
    model = loaded(saved)
    hours = expected(tmp_path, readings())
    for sensor in ("feeder", "new", "late"):
        found = model.predict(None, pd.DataFrame({"sensor_id": [sensor]}))
        sent = hours[hours["sensor_id"] == sensor]
        told = LoadForecastingModel.load(saved).predict(None, sent.assign(timestamp=sent["timestamp"].astype(str)))
        pd.testing.assert_frame_equal(found, told, rtol=1e-9)
    everything = model.predict(None, pd.DataFrame({"sensor_id": ["all"]}), {"hours_ahead": 1}).set_index("sensor_id")
    assert set(everything.index) == {"feeder", "house", "Zähler ß", "new", "late"}
    assert pd.isna(everything.loc["feeder", "reason"])
    assert everything.loc["house", "reason"].startswith(
        "the history database has no newer load of this sensor: forecast from the history stored with the model, which "
    )


def test_a_history_in_the_request_replaces_that_of_the_store(
    saved: Path, database: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMARTGRID_HISTORY", database.address)
    rows = hourly_load().query("sensor_id == 'feeder'").tail(300)
    found = loaded(saved).predict(None, rows)
    pd.testing.assert_frame_equal(found, LoadForecastingModel.load(saved).predict(None, rows))


class Clock:
    """Seconds that a test turns."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def reader(model: LoadForecastingModel, store: Store, clock: Clock, **settings: Any) -> LoadForecastingModel:
    model._fresh = FreshHistory(store, model._history, clock=clock, **settings)
    return model


def test_a_killed_database_leaves_the_last_read_in_force_and_the_answer_says_so(
    saved: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock, ask = Clock(), pd.DataFrame({"sensor_id": ["feeder", "house"]})
    with postgres() as database:
        fill(database, readings())
        model = reader(LoadForecastingModel.load(saved), open_store(database.address), clock)
        before = model.predict(None, ask)
        database.kill()
        clock.now = 30.0
        pd.testing.assert_frame_equal(model.predict(None, ask), before)
        clock.now = 61.0
        with caplog.at_level(logging.WARNING):
            after = model.predict(None, ask)
        reasons = dict(zip(after["sensor_id"], after["reason"], strict=True))
        age = int((time.time() - pd.Timestamp(after["origin"].iloc[0]).timestamp()) // 3600) - 1
        text = "the history database cannot be read: forecast from the history"
        assert reasons["feeder"] == f"{text} read from it before, which ended {age} h ago"
        assert reasons["house"].startswith(f"{text} stored with the model, which ended ")
        pd.testing.assert_frame_equal(after.drop(columns="reason"), before.drop(columns="reason"))
        database.start()
        clock.now = 100.0
        pd.testing.assert_frame_equal(model.predict(None, ask), after)
        clock.now = 122.0
        pd.testing.assert_frame_equal(model.predict(None, ask), before)
    assert "cannot be read" in caplog.text
    for secret in (PASSWORD, "s3cret"):
        assert secret not in caplog.text + after.to_csv()


def test_a_database_that_never_answered_leaves_the_models_own_history(
    saved: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(
        "SMARTGRID_HISTORY", "postgresql://user:s3cret@127.0.0.1:9/nothing?connect_timeout=1&password=s3cret2"
    )
    found = loaded(saved).predict(None, pd.DataFrame({"sensor_id": ["feeder"]}))
    plain = LoadForecastingModel.load(saved).predict(None, pd.DataFrame({"sensor_id": ["feeder"]}))
    pd.testing.assert_frame_equal(found.drop(columns="reason"), plain.drop(columns="reason"))
    assert found["reason"].str.startswith("the history database cannot be read: forecast from the history stored").all()
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize(
    "address", ["postgresql://u:s3cret@[::1/x", "postgresql://u:s3cret@h/x?nonsense=1", "postgresql://u:p%zz@h"]
)
def test_a_broken_url_shows_no_password(
    address: str, saved: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SMARTGRID_HISTORY", address)
    found = loaded(saved).predict(None, pd.DataFrame({"sensor_id": ["feeder"]}))
    assert "cannot be read" in found["reason"].iloc[0]
    assert "s3cret" not in caplog.text
    assert "p%zz" not in caplog.text


def test_a_folder_that_is_not_there_leaves_the_models_own_history(
    saved: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SMARTGRID_HISTORY", str(tmp_path / "none"))
    found = loaded(saved).predict(None, pd.DataFrame({"sensor_id": ["feeder"]}))
    assert found["reason"].str.startswith("the folder of history cannot be read: ").all()
    assert not found["reason"].str.contains(str(tmp_path), regex=False).any()


def hours_of(sensor: str, value: float) -> pd.DataFrame:
    hour = float(int(time.time() // 3600))
    return pd.DataFrame(
        {"sensor_id": pd.Index([sensor] * 200, dtype=object), "hour": hour - np.arange(200.0), "avg_value": value}
    )


def test_many_requests_share_one_read_a_minute(saved: Path) -> None:
    reads, clock = [], Clock()

    def read(now: float, timeout: float) -> pd.DataFrame:
        reads.append(now)
        time.sleep(0.5)
        return hours_of("feeder", 7.0)

    model = reader(LoadForecastingModel.load(saved), Store("the store", (), read), clock)
    answers: list[pd.DataFrame] = []

    def ask() -> None:
        answers.append(model.predict(None, pd.DataFrame({"sensor_id": ["feeder"]})))

    for now, expected_reads in ((0.0, 1), (59.0, 1), (60.0, 2)):
        clock.now = now
        threads = [threading.Thread(target=ask) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(reads) == expected_reads
    assert len(answers) == 48
    for answer in answers:
        pd.testing.assert_frame_equal(answer, answers[0])
    assert answers[0]["reason"].isna().all()


def test_a_store_that_hangs_keeps_a_request_waiting_for_a_moment_only(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fresh_history, "_LITTLE_PATIENCE", 0.1)
    end, reads, clock = threading.Event(), [], time.monotonic

    def read(now: float, timeout: float) -> pd.DataFrame:
        reads.append(now)
        end.wait(60)
        return hours_of("feeder", 7.0)

    model = reader(LoadForecastingModel.load(saved), Store("the store", (), read), clock, interval=0.2, patience=1.0)
    ask = pd.DataFrame({"sensor_id": ["feeder"]})
    start = time.monotonic()
    first, second = model.predict(None, ask), model.predict(None, ask)
    assert 1.0 <= time.monotonic() - start < 3.0
    for answer in (first, second):
        assert (
            answer["reason"].str.startswith("the store did not answer in time: forecast from the history stored").all()
        )
    end.set()
    time.sleep(0.5)
    third = model.predict(None, ask)
    assert third["reason"].isna().all()
    assert third["origin"].iloc[0] != first["origin"].iloc[0]


def test_masking_hides_passwords_however_written() -> None:
    store = open_store("postgresql://me:s3%2Fcret@host/db?password=other")
    text = store.masked(ValueError("me:s3%2Fcret s3/cret other\nsecond line"))
    assert text == "ValueError: me:*** *** *** second line"
    with pytest.raises(InputError):
        open_store("mysql://a:b@c/d")
    assert history_store.TABLE == "sensor_data"
