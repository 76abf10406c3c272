"""Training data from a real PostgreSQL server: as from files, by the same gate, no password told."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import psycopg
import pytest

from smartgrid_pyfunc.schema import InputError
from smartgrid_pyfunc.simulation import simulate
from smartgrid_pyfunc.sources import load_hourly, load_readings
from smartgrid_pyfunc.sources.inputs import open_input
from tests.parts import postgres

pytestmark = pytest.mark.integration

_TABLE = (
    "CREATE TABLE {} (sensor_id text, sensor_type text, timestamp timestamptz, value double precision, "
    "latitude double precision, longitude double precision, is_anomaly boolean, fault text)"
)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with postgres() as part:
        yield part.address


@pytest.fixture(scope="module")
def grid(url: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated grid with repeated, contradicting, missing and unordered readings, as files and as a table."""
    folder = tmp_path_factory.mktemp("grid") / "grid"
    simulate(folder, sensors=8, days=12, seed=3, fault_rate=0.05)
    readings = folder / "readings"
    rows = pd.concat([pd.read_parquet(path) for path in sorted(readings.glob("*.parquet"))], ignore_index=True)
    again = rows.iloc[100:400]
    rows = pd.concat([rows, again, again.assign(value=again["value"] + 1), again.assign(value=np.nan)])
    rows = rows.sample(frac=1, random_state=1).reset_index(drop=True)
    for path in readings.glob("*.parquet"):
        path.unlink()
    rows.to_parquet(readings / "all.parquet")
    _fill(url, "sensor_data", rows)
    return readings


def _fill(url: str, table: str, rows: pd.DataFrame, create: str = _TABLE) -> None:
    names = [name for name in rows if name != "unit"]
    plain = rows[names].astype(object).where(rows[names].notna(), None)
    with psycopg.connect(url) as con, con.cursor() as cursor:
        cursor.execute(create.format(table))
        with cursor.copy(f"COPY {table} ({', '.join(names)}) FROM STDIN") as copy:
            for row in plain.itertuples(index=False):
                copy.write_row(row)


def test_hours_made_by_the_database_are_those_made_of_files(url, grid):
    of_files, of_table = load_hourly(str(grid)), load_hourly(url)
    pd.testing.assert_frame_equal(of_table.frame, of_files.frame, rtol=1e-12)
    ours, theirs = of_table.report.as_dict(), of_files.report.as_dict()
    told_alike = set(ours) - {"files", "digest", "unordered_rows", "ignored_columns"}
    assert {name: ours[name] for name in told_alike} == {name: theirs[name] for name in told_alike}
    assert of_table.report.duplicates_dropped and of_table.report.conflicts and of_table.report.rows_without_value


def test_readings_of_the_table_are_those_of_the_files(url, grid):
    of_files, of_table = load_readings(str(grid)), load_readings(url)
    pd.testing.assert_frame_equal(of_table.frame, of_files.frame, check_exact=True)
    assert of_table.report.digest == of_files.report.digest


def test_a_unique_index_changes_the_plan_and_not_the_hours(url, grid):
    rows = load_readings(str(grid)).frame.drop_duplicates(["sensor_id", "timestamp"])
    _fill(url, "plain", rows)
    _fill(url, "indexed", rows)
    with psycopg.connect(url) as con:
        con.execute("CREATE UNIQUE INDEX ON indexed (sensor_id, timestamp)")
    plain, indexed = load_hourly(f"{url}?table=plain").frame, load_hourly(f"{url}?table=public.indexed").frame
    pd.testing.assert_frame_equal(plain, indexed, rtol=1e-12)


def test_since_and_until_cut_half_open(url, grid):
    until = "2025-01-10T00:00:00%2B01:00"
    part = load_readings(f"{url}?since=2025-01-08T06:00Z&until={until}").frame
    whole = load_readings(str(grid)).frame
    first, last = pd.Timestamp("2025-01-08T06:00Z"), pd.Timestamp("2025-01-09T23:00Z")
    expected = whole[(whole["timestamp"] >= first) & (whole["timestamp"] < last)].reset_index(drop=True)
    pd.testing.assert_frame_equal(part, expected)


def test_sensor_types_are_selected_by_the_database(url, grid):
    report = load_hourly(f"{url}?sensor_type=power").report
    assert not report.unused_types
    assert set(load_readings(f"{url}?sensor_type=power, voltage").frame["sensor_type"]) == {"power", "voltage"}


def test_times_without_zone_are_utc_and_whole_numbers_are_numbers(url):
    create = "CREATE TABLE {} (sensor_id integer, sensor_type varchar(9), timestamp timestamp, value numeric(9,2))"
    rows = pd.DataFrame(
        {"sensor_id": 7, "sensor_type": "power", "timestamp": pd.date_range("2026-03-01", periods=8, freq="15min")}
    ).assign(value=[1.25, 2, 3, 4, 5, 6, 7, 8])
    _fill(url, "naive", rows, create)
    load = load_hourly(f"{url}?table=naive")
    assert load.frame["avg_value"].tolist() == [2.5625, 6.5]
    assert load.frame["sensor_id"].tolist() == ["7", "7"]
    assert load.frame["timestamp"].iloc[0] == pd.Timestamp("2026-03-01T00:00Z")
    assert load.report.naive_timestamps == 8


def test_hourly_load_of_a_table_is_read_as_it_is(url, tmp_path):
    create = (
        "CREATE TABLE {} (sensor_id text, timestamp timestamptz, avg_value float8, temperature real, is_holiday bool)"
    )
    hours = pd.date_range("2026-03-01", periods=5, freq="h", tz="UTC")
    rows = pd.DataFrame({"sensor_id": "a", "timestamp": hours, "avg_value": [1.0, np.nan, 3.0, 4.0, 5.0]})
    rows = rows.assign(temperature=0.5, is_holiday=[True, False, True, False, None])
    _fill(url, "hours", rows, create)
    rows.assign(is_holiday=rows["is_holiday"].astype("boolean")).to_parquet(tmp_path / "hours.parquet")
    ours, theirs = load_hourly(f"{url}?table=hours").frame, load_hourly(str(tmp_path / "hours.parquet")).frame
    pd.testing.assert_frame_equal(ours, theirs)
    assert "single readings are needed" in str(_refusal(f"{url}?table=hours", load_readings))


_BAD = {
    "infinity": ("'infinity'::float8", "now()", "'power'", "value must be finite"),
    "no time": ("1", "NULL", "'power'", "timestamp must not be empty"),
    "the end of time": ("1", "'infinity'::timestamptz", "'power'", "timestamp must lie between the years"),
    "no type": ("1", "now()", "''", "sensor_type must not be empty"),
}


@pytest.mark.parametrize("case", _BAD)
def test_a_bad_cell_is_refused_with_its_place(url, case):
    value, time, kind, sentence = _BAD[case]
    table = f"bad_{case.replace(' ', '_')}"
    with psycopg.connect(url) as con:
        con.execute(_TABLE.format(table))
        con.execute(f"INSERT INTO {table} VALUES ('m1', 'power', now(), 1), ('m2', {kind}, {time}, {value})")
    error = _refusal(f"{url}?table={table}")
    assert sentence in str(error)
    assert f"table={table}" in error.place and "sensor m2" in error.place
    assert "s3cret" not in str(error)


def test_text_as_a_value_is_refused(url):
    with psycopg.connect(url) as con:
        con.execute(_TABLE.format("texts").replace("value double precision", "value text"))
        con.execute("INSERT INTO texts VALUES ('m1', 'power', now(), '12')")
    assert "value must be a number" in str(_refusal(f"{url}?table=texts"))


_WRONG = {
    "?table=absent": "the table must exist",
    "?table=sensor_data&table=b": "must be given once",
    "?since=yesterday": "since must be ISO 8601",
    "?since=2099-01-01T00:00Z": "at least one row",
    "?table=x'; DROP TABLE sensor_data; --": "the table must exist",
    "?colour=red": "the database must answer",
}


@pytest.mark.parametrize("query", _WRONG)
def test_what_the_address_gets_wrong_is_told(url, grid, query):
    error = _refusal(url + query)
    assert _WRONG[query] in str(error)
    assert "s3cret" not in str(error)


@pytest.mark.parametrize("rest", ["guessed@h:abc/db", "guessed@[::1/db", "guess/ed@h/db", "12/guess@h/db"])
def test_an_address_that_is_no_url_is_told_without_the_password(rest):
    error = str(_refusal(f"postgresql://me:{rest}"))
    assert "must be a URL" in error
    assert "guess" not in error and "12" not in error


def test_a_wrong_password_and_a_silent_server_are_told_without_the_password(url):
    wrong = _refusal(url.replace("s3cret", "guessed"))
    silent = _refusal("postgresql://me:guessed@127.0.0.1:1/db")
    for error in (wrong, silent):
        assert "the database must answer" in str(error) and "PGPASSWORD" in str(error)
        assert "guessed" not in str(error)


def test_a_simulated_grid_goes_into_the_table_whole_or_not_at_all(repo, url, tmp_path):
    command = [sys.executable, str(repo / "entrypoints" / "simulate.py"), "--sensors", "6", "--days", "3", "--to"]
    database = psycopg.connect(url, autocommit=True)
    database.execute("CREATE DATABASE demo")
    database.close()
    to = url.removesuffix("smartgrid") + "demo"
    done = subprocess.run([*command, to], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "s3cret" not in done.stdout + done.stderr
    assert subprocess.run([*command, str(tmp_path / "grid")], check=False).returncode == 0
    of_files, of_table = load_readings(str(tmp_path / "grid" / "readings")), load_readings(to)
    pd.testing.assert_frame_equal(of_table.frame, of_files.frame, check_exact=True)
    again = subprocess.run([*command, to], capture_output=True, text=True, check=False)
    assert again.returncode == 2 and "the table must be empty" in again.stderr
    assert len(load_readings(to).frame) == len(of_files.frame)


def test_a_database_killed_in_the_middle_of_a_read_is_told_and_the_next_start_serves_again(tmp_path):
    with postgres() as part:
        _many_rows(part.address)
        with pytest.raises(InputError) as caught, open_input(part.address, "readings", None) as source:
            batches = source.stream(source.found)
            assert len(next(batches)["value"])
            part.kill()
            list(batches)
        assert "the database must answer" in str(caught.value) and "s3cret" not in str(caught.value)
        part.start()
        assert len(load_readings(part.address).frame) == _MANY


def test_a_database_killed_under_a_training_ends_its_run_failed(repo, tmp_path):
    """What was read until then is not taken for the whole; the table gone is no reason to train on a part of it."""
    with postgres() as part:
        _many_rows(part.address)
        store = f"sqlite:///{tmp_path / 'mlflow.db'}"
        command = [sys.executable, str(repo / "entrypoints" / "anomaly_detection.py"), "--data", part.address]
        with subprocess.Popen(
            command, cwd=tmp_path, env=os.environ | {"MLFLOW_TRACKING_URI": store}, stderr=subprocess.PIPE, text=True
        ) as training:
            assert training.stderr
            said = ""
            for line in training.stderr:
                said += line
                if "Checked" in line:
                    part.kill()
        assert training.returncode == 2, said
        assert "the database must answer" in said and "s3cret" not in said and "Traceback" not in said
    client = mlflow.MlflowClient(store)
    experiment = client.get_experiment_by_name("smartgrid-anomaly-detection")
    assert [run.info.status for run in client.search_runs([experiment.experiment_id])] == ["FAILED"]
    assert not client.search_registered_models()


_MANY = 1_500_000


def _many_rows(url: str) -> None:
    """More than the buffers between a server and a client hold."""
    with psycopg.connect(url) as con:
        con.execute(_TABLE.format("sensor_data").replace(", is_anomaly boolean, fault text", ""))
        con.execute(
            "INSERT INTO sensor_data SELECT 'm' || i % 50, 'power', "
            "'2026-01-01T00:00Z'::timestamptz + (i / 50) * interval '1 minute', i % 97 "
            f"FROM generate_series(1, {_MANY}) AS s(i)"
        )


def _refusal(data: str, load=load_hourly) -> InputError:
    with pytest.raises(InputError) as caught:
        load(data)
    return caught.value
