"""Laws of the gate of training data, with hand numbers and SQLite as the oracle."""

from __future__ import annotations

import gzip
import itertools
import re
import sqlite3
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smartgrid_pyfunc.schema import InputError, parse_timestamps
from smartgrid_pyfunc.sources import load_hourly, load_readings

READINGS = "sensor_id,sensor_type,timestamp,value\n"
HOURLY = "sensor_id,timestamp,avg_value\n"
FULL_HOUR = "".join(f"m1,power,2026-03-01T10:{minute:02d}:00Z,{minute}\n" for minute in (0, 15, 30, 45))


def write(folder: Path, text: str | bytes, name: str = "data.csv") -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


def refusal(data: str, load=load_hourly, **options) -> InputError:
    with pytest.raises(InputError) as caught:
        load(data, **options)
    return caught.value


def test_four_readings_make_one_hour(tmp_path):
    load = load_hourly(write(tmp_path, READINGS + FULL_HOUR))
    row = load.frame.iloc[0]
    assert len(load.frame) == 1
    assert (row.sensor_id, row.timestamp) == ("m1", pd.Timestamp("2026-03-01T10:00Z"))
    assert (row.avg_value, row.min_value, row.max_value, row["count"]) == (22.5, 0, 45, 4)
    assert load.report.notices() == []


def test_frames_have_the_declared_types(tmp_path):
    path = write(tmp_path, READINGS + FULL_HOUR)
    hourly, readings = load_hourly(path).frame, load_readings(path).frame
    assert [str(dtype) for dtype in hourly.dtypes] == ["str", "datetime64[us, UTC]"] + ["float64"] * 4
    assert [str(dtype) for dtype in readings.dtypes] == ["str", "str", "datetime64[us, UTC]"] + ["float64"] * 3
    assert readings[["latitude", "longitude"]].isna().all(axis=None)


def test_offsets_are_converted_and_naive_times_are_utc_with_a_notice(tmp_path):
    rows = "a,2026-03-01T12:00:00+02:00,1\na,2026-03-01 11:00,2\na,2026-03-01T12:00Z,3\n"
    load = load_hourly(write(tmp_path, HOURLY + rows))
    assert load.frame["timestamp"].dt.hour.tolist() == [10, 11, 12]
    assert load.report.naive_timestamps == 1
    assert "Rows without a time zone: 1; read as UTC." in load.report.notices()


def test_same_value_twice_counts_once_and_different_values_count_as_their_mean(tmp_path):
    doubled = FULL_HOUR + "m1,power,2026-03-01T10:00:00Z,0\n" * 2 + "m1,power,2026-03-01T10:15:00Z,35\n" * 2
    load = load_hourly(write(tmp_path, READINGS + doubled))
    assert load.frame[["avg_value", "max_value", "count"]].iloc[0].tolist() == [(0 + 25 + 30 + 45) / 4, 45, 4]
    assert (load.report.duplicates_dropped, load.report.conflicts, load.report.rows) == (3, 1, 8)


def test_readings_keep_conflicts_and_empty_values_but_no_duplicates(tmp_path):
    rows = "a,power,2026-03-01T10:00Z,1\n" * 2 + "a,power,2026-03-01T10:00Z,2\na,power,2026-03-01T10:01Z,\n"
    load = load_readings(write(tmp_path, READINGS + rows))
    np.testing.assert_array_equal(load.frame["value"], [1, 2, np.nan])
    assert (load.report.duplicates_dropped, load.report.conflicts, load.report.rows_without_value) == (1, 1, 1)


def test_repeated_hours_are_merged(tmp_path):
    rows = "a,2026-03-01T10:00Z,1,\na,2026-03-01T10:00Z,1,7\na,2026-03-01T10:00Z,4,\n"
    load = load_hourly(write(tmp_path, "sensor_id,timestamp,avg_value,temperature\n" + rows))
    assert load.frame[["avg_value", "temperature"]].to_numpy().tolist() == [[2.5, 7]]
    assert (load.report.duplicates_dropped, load.report.conflicts) == (1, 1)


def test_empty_hours_and_missing_hours_are_gaps(tmp_path):
    rows = "a,2026-03-01T10:00Z,1\na,2026-03-01T11:00Z,\na,2026-03-01T14:00Z,2\nb,2026-03-01T20:00Z,2\n"
    load = load_hourly(write(tmp_path, HOURLY + rows))
    assert load.frame["avg_value"].tolist() == [1, 2, 2]
    assert (load.report.rows_without_value, load.report.gap_hours) == (1, 3)
    assert load.frame[["min_value", "max_value", "count"]].isna().all(axis=None)


@pytest.mark.parametrize(("last_minute", "hours"), [(30, 1), (44, 1), (45, 2)])
def test_the_hour_in_progress_is_dropped(tmp_path, last_minute, hours):
    steps = [minute for minute in (0, 15, 30, 45) if minute <= last_minute]
    rows = FULL_HOUR + FULL_HOUR.replace("T10", "T09")
    rows += "".join(f"m1,power,2026-03-01T11:{minute:02d}:00Z,1\n" for minute in steps)
    load = load_hourly(write(tmp_path, READINGS + rows))
    assert len(load.frame) == hours + 1
    assert load.report.incomplete_hours_dropped == 2 - hours


def test_a_later_row_without_a_value_shows_that_the_hour_is_over(tmp_path):
    rows = FULL_HOUR + "m1,power,2026-03-01T11:00:00Z,5\nm1,power,2026-03-01T12:05:00Z,\n"
    assert len(load_hourly(write(tmp_path, READINGS + rows)).frame) == 2


def test_only_the_selected_types_count(tmp_path):
    rows = FULL_HOUR + "v1,voltage,2026-03-01T10:00Z,230\nx,plasma,2026-03-01T10:00Z,1\n"
    path = write(tmp_path, READINGS + rows)
    assert load_hourly(path).frame["sensor_id"].unique().tolist() == ["m1"]
    assert load_hourly(path).report.unused_types == {"plasma": 1, "voltage": 1}
    assert load_hourly(path, sensor_type="voltage, energy").frame["avg_value"].tolist() == [230]
    assert load_readings(path).report.unknown_types == {"plasma": 1}
    assert str(refusal(path, sensor_type="energy")) == (
        f"data must hold readings of sensor_type energy ({path}): found plasma, power, voltage; "
        "choose among these with sensor_type."
    )


def test_labels_faults_and_places_come_along(tmp_path):
    header = "sensor_id,sensor_type,timestamp,value,latitude,is_anomaly,fault,colour\n"
    rows = "b,power,2026-03-01T10:00Z,1,52.5,true,spike,red\na,power,2026-03-01T10:00Z,1,,0,,red\n"
    load = load_readings(write(tmp_path, header + rows))
    assert load.frame["is_anomaly"].tolist() == [False, True]
    assert load.frame["is_anomaly"].dtype == bool
    assert load.frame["fault"].tolist()[1] == "spike"
    assert load.frame["fault"].isna().tolist() == [True, False]
    np.testing.assert_array_equal(load.frame["latitude"], [np.nan, 52.5])
    assert load.report.notices() == ["Columns ignored: colour."]


def test_covariates_come_along_and_holiday_is_not_renamed(tmp_path):
    header = "sensor_id,timestamp,avg_value,temperature,is_holiday,holiday\n"
    frame = load_hourly(
        write(tmp_path, header + "a,2026-03-01T10:00Z,1,3.5,True,1\na,2026-03-01T11:00Z,1,,0,1\n")
    ).frame
    assert list(frame.columns[-2:]) == ["temperature", "is_holiday"]
    np.testing.assert_array_equal(frame["is_holiday"], [1, 0])
    np.testing.assert_array_equal(frame["temperature"], [3.5, np.nan])


BAD_CELLS = {
    "text in a number": (READINGS, "a,power,2026-03-01T10:00Z,abc", "value must be a number", "'abc'"),
    "underscore": (READINGS, "a,power,2026-03-01T10:00Z,1_000", "value must be a number", "'1_000'"),
    "decimal comma": (READINGS, 'a,power,2026-03-01T10:00Z,"1,5"', "value must be a number", "'1,5'"),
    "infinity": (READINGS, "a,power,2026-03-01T10:00Z,-inf", "value must be finite", "'-inf'"),
    "overflow": (READINGS, "a,power,2026-03-01T10:00Z,1e999", "value must be finite", "'1e999'"),
    "epoch": (READINGS, "a,power,1772359200,1", "timestamp must be ISO 8601", "'1772359200'"),
    "no such day": (READINGS, "a,power,2026-02-30T10:00Z,1", "timestamp must be ISO 8601", "'2026-02-30T10:00Z'"),
    "hour 24": (READINGS, "a,power,2026-02-20T24:00Z,1", "timestamp must be ISO 8601", "'2026-02-20T24:00Z'"),
    "far offset": (
        READINGS,
        "a,power,2026-02-20T10:00+25:00,1",
        "timestamp must be ISO 8601",
        "'2026-02-20T10:00+25:00'",
    ),
    "old": (READINGS, "a,power,1850-02-20T10:00Z,1", "timestamp must lie between the years 1900 and 2200", "'1850"),
    "no time": (READINGS, "a,power,,1", "timestamp must not be empty", "an empty value"),
    "no sensor": (READINGS, ",power,2026-03-01T10:00Z,1", "sensor_id must not be empty", "an empty value"),
    "no type": (READINGS, "a,,2026-03-01T10:00Z,1", "sensor_type must not be empty", "an empty value"),
    "half past": (
        HOURLY,
        "a,2026-03-01T10:30Z,1",
        "timestamp must be the start of an hour in UTC",
        "'2026-03-01T10:30Z'",
    ),
    "negative": ("count," + HOURLY, "-1,a,2026-03-01T10:00Z,1", "count must be a whole number, 0 or more", "'-1'"),
    "fraction": ("count," + HOURLY, "1.5,a,2026-03-01T10:00Z,1", "count must be a whole number, 0 or more", "'1.5'"),
    "flag": ("is_holiday," + HOURLY, "2,a,2026-03-01T10:00Z,1", "is_holiday must be true or false", "'2'"),
}


@pytest.mark.parametrize(("header", "line", "rule", "found"), BAD_CELLS.values(), ids=BAD_CELLS)
def test_a_bad_cell_is_refused_with_file_column_row_and_cell(tmp_path, header, line, rule, found):
    good = {READINGS: FULL_HOUR, HOURLY: "m,2026-03-01T09:00Z,1\n"}.get(header, ",m,2026-03-01T09:00Z,1\n")
    path = write(tmp_path, header + good + line + "\n" + line + "\n")
    message = str(refusal(path))
    column, row = rule.split()[0], good.count("\n") + 1
    assert message.startswith(f"{rule} ({path}, column {column}, row {row}): found {found}")
    assert "; " in message


def test_an_unlabelled_row_among_labelled_ones_is_refused(tmp_path):
    header = "is_anomaly,sensor_id,sensor_type,timestamp,value\n"
    path = write(tmp_path, header + "1,a,power,2026-03-01T10:00Z,1\n,a,power,2026-03-01T11:00Z,1\n")
    assert "is_anomaly must not be empty" in str(refusal(path, load_readings))


BAD_FILES = {
    "empty": (b"", "a file must not be empty"),
    "header only": (READINGS.encode(), "data must hold at least one row"),
    "short line": ((READINGS + FULL_HOUR + "a,power\n").encode(), "row 5): found 2 fields instead of 4"),
    "long line": ((READINGS + FULL_HOUR + "a,power,2026-03-01,1,2\n").encode(), "row 5): found 5 fields instead of 4"),
    "open quote": ((READINGS + FULL_HOUR + 'a,"power,2026-03-01,1\n').encode(), "closed quotes"),
    "latin-1": ((READINGS + FULL_HOUR + "é,power,2026-03-01,1\n").encode("latin-1"), "a CSV file must be UTF-8"),
    "late latin-1": ((READINGS + FULL_HOUR * 900 + "é,power,2026-03-01,1\n").encode("latin-1"), "must be UTF-8"),
    "utf-16": ((READINGS + FULL_HOUR).encode("utf-16"), "a CSV file must be UTF-8"),
    "missing column": (b"sensor_id,timestamp,value\na,2026-03-01,1\n", "column sensor_type is required"),
    "neither kind": (b"sensor_id,timestamp,Value\na,2026-03-01,1\n", "data must hold readings"),
    "both kinds": (b"sensor_id,sensor_type,timestamp,value,avg_value\na,b,2026-03-01,1,1\n", "found both"),
    "column twice": (b"sensor_id,sensor_type,timestamp,value,value\na,b,2026-03-01,1,1\n", "must occur once"),
}


@pytest.mark.parametrize(("content", "said"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_broken_file_is_refused_by_name(tmp_path, content, said):
    path = write(tmp_path, content)
    message = str(refusal(path))
    assert said in message
    assert path in message


def test_the_broken_one_of_many_files_is_named(tmp_path):
    write(tmp_path, READINGS + FULL_HOUR, "a.csv")
    broken = write(tmp_path, READINGS + FULL_HOUR + "x\n", "b.csv")
    write(tmp_path, READINGS + FULL_HOUR, "c.csv")
    assert broken in str(refusal(str(tmp_path)))


def test_truncated_files_are_refused(tmp_path):
    frame = load_readings(write(tmp_path, READINGS + FULL_HOUR)).frame
    frame.to_parquet(tmp_path / "whole.parquet")
    half = (tmp_path / "whole.parquet").read_bytes()[:-20]
    assert "a file must be complete" in str(refusal(write(tmp_path, half, "half.parquet")))
    packed = gzip.compress((READINGS + FULL_HOUR * 50).encode())
    assert "a file must be complete" in str(refusal(write(tmp_path, packed[:-9], "half.csv.gz")))
    assert "a file must be complete" in str(refusal(write(tmp_path, READINGS, "plain.csv.gz")))


@pytest.mark.parametrize("address", ["https://x/y.csv", "mysql://u@h/db", "gs://bucket/x"])
def test_other_addresses_are_refused(address):
    assert "a path or an address s3://… or postgresql://…" in str(refusal(address))


def test_nothing_to_read_is_refused(tmp_path):
    (tmp_path / "folder.csv").mkdir()
    for data in (str(tmp_path / "none.csv"), str(tmp_path / "*.csv"), str(tmp_path / "folder.csv"), str(tmp_path)):
        assert "data must match at least one CSV or Parquet file" in str(refusal(data))
    assert "data must name a file" in str(refusal(" "))
    assert "data must be CSV" in str(refusal(write(tmp_path, "x", "notes.txt")))


def test_kinds_are_not_mixed(tmp_path):
    write(tmp_path, READINGS + FULL_HOUR, "a.csv")
    write(tmp_path, HOURLY + "a,2026-03-01T10:00Z,1\n", "b.csv")
    assert "all files must be of one kind" in str(refusal(str(tmp_path / "*.csv")))
    assert "single readings are needed" in str(refusal(str(tmp_path / "b.csv"), load_readings))


def test_a_sensor_has_one_type(tmp_path):
    path = write(tmp_path, READINGS + FULL_HOUR + FULL_HOUR.replace("power", "energy"))
    assert "a sensor must have one sensor_type (sensor m1): found energy and power" in str(refusal(path))
    assert len(load_hourly(path, sensor_type="power").frame) == 1


def test_an_input_without_a_complete_hour_is_refused(tmp_path):
    rows = "a,power,2026-03-01T10:00Z,1\na,power,2026-03-01T10:01Z,1\n"
    assert "at least one hour must be complete" in str(refusal(write(tmp_path, READINGS + rows)))
    assert "value must be known" in str(refusal(write(tmp_path, READINGS + "a,power,2026-03-01T10:00Z,\n")))
    assert "avg_value must be known" in str(refusal(write(tmp_path, HOURLY + "a,2026-03-01T10:00Z,\n")))


@pytest.mark.parametrize("name", ["o'x; DROP TABLE t--.csv", "a[1].csv", "a*b.csv", "é ü.csv", 'q"uote.csv', "a?.csv"])
def test_any_file_name_is_read_as_itself(tmp_path, name):
    write(tmp_path, HOURLY + "other,2026-03-01T10:00Z,1\n", "a-b.csv")
    write(tmp_path, HOURLY + "other,2026-03-01T10:00Z,1\n", "a1.csv")
    path = write(tmp_path, HOURLY + "mine,2026-03-01T10:00Z,1\n", name)
    assert load_hourly(path).frame["sensor_id"].tolist() == ["mine"]


def test_column_names_are_data_and_case_matters(tmp_path):
    header = 'sensor_id,"x\'); DROP TABLE t; --",timestamp,Avg_Value,avg_value,c0\n'
    load = load_hourly(write(tmp_path, header + "a,1,2026-03-01T10:00Z,text,2,3\n"))
    assert load.frame["avg_value"].tolist() == [2]
    assert load.report.ignored_columns == ("x'); DROP TABLE t; --", "Avg_Value", "c0")
    frame = pd.DataFrame({"Value": ["x"], "sensor_id": ["a"], "sensor_type": ["power"], "value": [2.0]})
    frame.assign(timestamp=pd.Timestamp("2026-03-01", tz="UTC")).to_parquet(tmp_path / "case.parquet")
    assert load_readings(str(tmp_path / "case.parquet")).frame["value"].tolist() == [2]


def test_folders_are_read_at_any_depth_without_partition_columns(tmp_path):
    write(tmp_path, READINGS + FULL_HOUR, "sensor_id=zzz/deep/a.csv")
    write(tmp_path, "value,timestamp,sensor_type,sensor_id\r\n7,2026-03-02T10:00Z,power,m2\r\n", "b.CSV")
    write(tmp_path, gzip.compress((READINGS + "m3;power;2026-03-02;8\n").replace(",", ";").encode()), "c.csv.gz")
    write(tmp_path, "notes", "README.txt")
    write(tmp_path, "broken", ".hidden.csv")
    load = load_readings(str(tmp_path))
    assert load.frame["sensor_id"].unique().tolist() == ["m1", "m2", "m3"]
    assert len(load.report.files) == 3
    assert load.report.partition_keys == ("sensor_id",)
    assert [name.split("/")[-1] for name in load.report.ignored_files] == ["README.txt"]


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("value", ["1.5"], "value must be a number"),
        ("value", [True], "value must be a number"),
        ("value", [np.inf], "value must be finite"),
        ("timestamp", [1772359200], "timestamp must be ISO 8601"),
        ("timestamp", [pd.Timestamp("1899-12-31")], "timestamp must lie between"),
        ("sensor_id", [1.5], "sensor_id must be text"),
        ("sensor_id", [None], "sensor_id must not be empty"),
    ],
)
def test_parquet_types_are_judged_like_cells(tmp_path, column, values, said):
    frame = pd.DataFrame({"sensor_id": ["a"], "sensor_type": ["power"], "timestamp": ["2026-03-01"], "value": [1]})
    frame.assign(**{column: values}).to_parquet(tmp_path / "x.parquet")
    message = str(refusal(str(tmp_path / "x.parquet"), load_readings))
    assert message.startswith(said)
    assert f"column {column}, row 1" in message


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Kolkata"])
def test_parquet_timestamps_of_any_unit_and_zone_mean_what_the_schema_says(tmp_path, unit, zone):
    text = "1965-03-01T10:00:01.234567899" if unit == "ns" else "1965-03-01T10:00:01"
    times = pd.Series(pd.DatetimeIndex([text]).as_unit(unit).tz_localize(zone))
    frame = pd.DataFrame({"sensor_id": [7], "sensor_type": pd.Categorical(["power"]), "timestamp": times, "value": [1]})
    frame.to_parquet(tmp_path / "x.parquet")
    load = load_readings(str(tmp_path / "x.parquet"))
    assert load.frame["timestamp"].dt.tz_localize(None).to_numpy()[0] == parse_timestamps(times)[0]
    assert load.frame["sensor_id"].tolist() == ["7"]
    assert load.report.naive_timestamps == (zone is None)


def test_progress_and_report_are_plain(tmp_path):
    said: list[str] = []
    load = load_hourly(write(tmp_path, READINGS + FULL_HOUR), on_progress=said.append)
    assert said[-1] == "1 hours of 1 sensor(s)"
    assert load.report.as_dict()["first"] == "2026-03-01T10:00:00+00:00"
    assert re.fullmatch("[0-9a-f]{16}", load.report.digest)


def test_unordered_rows_are_sorted_and_counted(tmp_path):
    lines = FULL_HOUR.splitlines(keepends=True)
    load = load_readings(write(tmp_path, READINGS + "".join([lines[1], lines[0], *lines[2:]])))
    assert load.report.unordered_rows == 1
    assert load.frame["value"].tolist() == [0, 15, 30, 45]


def test_the_demonstration_grid_passes_the_gate():
    hourly, readings = load_hourly("demo"), load_readings("demo")
    assert hourly.report.kind == readings.report.kind == "readings"
    assert not hourly.frame["avg_value"].isna().any()
    assert readings.frame["is_anomaly"].any()


# --- properties: few sensors, instants and values, so that repetitions and contradictions are common

rows = st.tuples(
    st.sampled_from(["a", "b"]),
    st.integers(0, 11).map(lambda tenth: pd.Timestamp("2026-03-01T10:00Z") + pd.Timedelta(minutes=17) * tenth),
    st.sampled_from([0.1, 0.2, 0.3, 1e9, -7.7]),
)
tables = st.lists(rows, min_size=1, max_size=40).map(
    lambda found: pd.DataFrame(
        [("a", pd.Timestamp("2026-03-02T00:00Z"), 1.0), *found], columns=["sensor_id", "timestamp", "value"]
    ).assign(sensor_type="power")
)
few = settings(max_examples=15, deadline=None)


def hourly_of(*frames: pd.DataFrame, suffix: str = "parquet"):
    with tempfile.TemporaryDirectory() as folder:
        for number, frame in enumerate(frames):
            path = f"{folder}/{number}.{suffix}"
            frame.to_parquet(path) if suffix == "parquet" else frame.to_csv(path, index=False)
        return load_hourly(folder)


@few
@given(tables, st.randoms(use_true_random=False))
def test_row_order_repetition_and_the_cut_into_files_do_not_matter(table, random):
    expected = hourly_of(table)
    order = [*range(len(table)), *random.choices(range(len(table)), k=5)]
    random.shuffle(order)
    shuffled = table.iloc[order]
    cut = random.randrange(1, len(shuffled))
    whole, parts = hourly_of(shuffled), hourly_of(shuffled.iloc[:cut], shuffled.iloc[cut:])
    for load in (whole, parts):
        pd.testing.assert_frame_equal(load.frame, expected.frame, check_exact=True)
        assert load.report.digest == expected.report.digest
        assert load.report.conflicts == expected.report.conflicts
        assert load.report.duplicates_dropped == expected.report.duplicates_dropped + 5


@few
@given(tables)
def test_csv_and_parquet_agree(table):
    first, second = hourly_of(table), hourly_of(table, suffix="csv")
    pd.testing.assert_frame_equal(first.frame, second.frame, check_exact=True)


@few
@given(tables)
def test_hours_are_those_of_sqlite(table):
    load = hourly_of(table)
    with sqlite3.connect(":memory:") as database:
        text = table.assign(timestamp=table["timestamp"].dt.strftime("%Y-%m-%d %H:%M:%S"))
        text.to_sql("reading", database, index=False)
        expected = pd.read_sql_query(
            """SELECT sensor_id, strftime('%Y-%m-%d %H:00:00', timestamp) AS hour,
                avg(value) AS avg_value, min(value) AS min_value, max(value) AS max_value, count(*) AS count
            FROM (SELECT sensor_id, timestamp, avg(DISTINCT value) AS value FROM reading GROUP BY 1, 2)
            GROUP BY 1, 2 ORDER BY 1, 2""",
            database,
        )
        repeated = database.execute(
            "SELECT (SELECT count(*) FROM reading) - count(*) FROM "
            "(SELECT DISTINCT sensor_id, timestamp, value FROM reading)"
        ).fetchone()[0]
    keys = load.frame["sensor_id"] + load.frame["timestamp"].dt.strftime("%Y-%m-%d %H:%M:%S")
    expected.index = expected["sensor_id"] + expected["hour"]
    assert len(expected) - len(keys) == load.report.incomplete_hours_dropped
    names = ["avg_value", "min_value", "max_value", "count"]
    np.testing.assert_allclose(load.frame[names], expected.loc[keys, names], rtol=1e-12)
    assert load.report.duplicates_dropped == repeated


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_characters='"\0\r\n'), max_size=12))
def test_text_in_a_number_is_refused_and_never_crashes(text):
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), READINGS + f'a,power,2026-03-01T10:00Z,"{text}"\n')
        if re.fullmatch(r"\s*([+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|nan|)\s*", text, re.ASCII | re.IGNORECASE):
            assert len(load_readings(path).frame) == 1
        else:
            assert refusal(path, load_readings).rule in {"value must be a number", "value must be finite"}


_ISO_PARTS = (
    ["2026-03-01", "2026-3-1", "2024-02-29", "2026-02-29", "20260301"],
    ["", "T10:20", " 10:20:30", "T10:20:30.1234567", "T23:60", "T25:00", "t10:20"],
    ["", "Z", "+01:00", "-0530", "+02", "+24:00", "z", " UTC"],
)


def test_text_times_mean_what_the_schema_says_or_are_refused(tmp_path):
    meant, refused = {}, []
    for text in map("".join, itertools.product(*_ISO_PARTS)):
        try:
            meant[text] = parse_timestamps(pd.Series([text], dtype=object))[0]
        except InputError:
            refused.append(text)
    lines = [f"{number:03d},power,{text},1\n" for number, text in enumerate(meant)]
    frame = load_readings(write(tmp_path, READINGS + "".join(lines))).frame
    assert frame["timestamp"].dt.tz_localize(None).tolist() == list(meant.values())
    for text in refused[::9]:
        path = write(tmp_path, READINGS + f"a,power,{text},1\n")
        assert refusal(path, load_readings).rule == "timestamp must be ISO 8601", text


def test_averages_of_hourly_load_count_as_readings_where_asked(tmp_path: Path) -> None:
    file = tmp_path / "hourly.csv"
    file.write_text("sensor_id,timestamp,avg_value\nb,2026-03-01T01:00:00Z,2\na,2026-03-01T00:00:00Z,1.5\n")
    with pytest.raises(InputError, match="single readings are needed"):
        load_readings(str(file))
    found = load_readings(str(file), hourly_as="power")
    assert found.frame["sensor_id"].tolist() == ["a", "b"]
    assert set(found.frame["sensor_type"]) == {"power"}
    assert found.frame["value"].tolist() == [1.5, 2.0]
    assert (found.report.kind, found.report.result) == ("hourly", "readings")
