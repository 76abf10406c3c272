"""The input check: what means the right thing is accepted, everything else is refused with one sentence."""

from __future__ import annotations

import datetime as dt
import decimal
import math
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smartgrid_pyfunc import schema
from smartgrid_pyfunc.schema import (
    InputError,
    format_timestamps,
    parse_identifiers,
    parse_numbers,
    parse_timestamps,
    require_columns,
)

NOON = np.datetime64("2026-03-01T12:00:00", "us")

anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.complex_numbers(),
    st.text(),
    st.text(st.characters(codec=None)),
    st.binary(),
    st.decimals(),
    st.fractions(),
    st.dates(),
    st.datetimes(),
    st.datetimes(timezones=st.timezones()),
    st.timedeltas(),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
    st.sampled_from([pd.NA, pd.NaT, np.nan, np.float32("nan"), np.datetime64("NaT"), np.bool_(True), np.arange(2)]),
    st.sampled_from([np.datetime64(2**62, "s"), np.timedelta64(1, "h"), pd.Timestamp.max, object()]),
    st.from_regex(
        r"\A[12][0-9]{3}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)?(Z|[+-][0-9]{2}:[0-9]{2})?\Z"
    ),
)


def column(*values: Any) -> pd.Series[Any]:
    result = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):
        result[i] = value
    return pd.Series(result, dtype=object)


def sentence(error: pytest.ExceptionInfo[InputError]) -> str:
    text = str(error.value)
    assert text.endswith(".")
    assert "\n" not in text
    assert "Traceback" not in text
    return text


@given(st.lists(anything, max_size=4))
def test_any_object_is_parsed_or_refused_with_an_input_error(values: list[Any]) -> None:
    series = column(*values)
    for parse in (parse_identifiers, parse_numbers, parse_timestamps):
        try:
            parsed = parse(series, "column")
        except InputError as error:
            assert str(error).endswith(".")
        else:
            assert len(parsed) == len(values)


@given(st.lists(anything, min_size=1, max_size=3))
def test_parsed_numbers_are_finite_or_missing(values: list[Any]) -> None:
    try:
        parsed = parse_numbers(column(*values), "x")
    except InputError:
        return
    assert parsed.dtype == np.float64
    assert not np.isinf(parsed).any()
    for value, number in zip(values, parsed, strict=True):
        if not math.isnan(number):
            assert number == float(value)


@given(st.datetimes(dt.datetime(1901, 1, 1), dt.datetime(2199, 1, 1), timezones=st.timezones()))
def test_timestamps_are_the_same_instant_as_text_and_as_object(moment: dt.datetime) -> None:
    naive_utc = moment.astimezone(dt.UTC).replace(tzinfo=None)
    # ISO 8601 has whole minutes in offsets; old local mean times had seconds.
    offset = moment.utcoffset()
    assert offset is not None
    expected = np.datetime64(naive_utc, "us")
    assert parse_timestamps(column(moment))[0] == expected
    if not offset.total_seconds() % 60:
        assert parse_timestamps(column(moment.isoformat()))[0] == expected


@pytest.mark.parametrize(
    "value",
    [
        "2026-03-01T12:00:00Z",
        "2026-03-01T12:00:00",
        "2026-03-01 12:00",
        "2026-03-01T13:00:00+01:00",
        "2026-03-01T17:30:00.000+05:30",
        dt.datetime(2026, 3, 1, 12),
        dt.datetime(2026, 3, 1, 23, tzinfo=ZoneInfo("Australia/Melbourne")),
        pd.Timestamp("2026-03-01T12:00:00Z"),
        np.datetime64("2026-03-01T12"),
    ],
)
def test_one_instant_has_many_spellings(value: Any) -> None:
    assert parse_timestamps(column(value)).tolist() == [NOON.item()]


def test_mixed_offsets_naive_and_missing_in_one_column() -> None:
    values = column("2026-03-01T12:00:00", "2026-03-01T14:00:00+02:00", None, pd.Timestamp("2026-03-01T12:00Z"), pd.NA)
    parsed = parse_timestamps(values)
    assert parsed.dtype == np.dtype("datetime64[us]")
    assert np.isnat(parsed).tolist() == [False, False, True, False, True]
    assert set(parsed[[0, 1, 3]]) == {NOON}


@pytest.mark.parametrize(
    "dtype",
    [
        "datetime64[s]",
        "datetime64[ms]",
        "datetime64[ns]",
        "datetime64[us, UTC]",
        "datetime64[ns, Asia/Kolkata]",
        "timestamp[us][pyarrow]",
        "timestamp[ms, tz=UTC][pyarrow]",
    ],
)
def test_every_datetime_column_of_pandas_is_read(dtype: str) -> None:
    aware = "UTC" in dtype or "Kolkata" in dtype
    times = pd.Series(pd.to_datetime(["2026-03-01T12:00:00Z", None]))
    times = times if aware else times.dt.tz_localize(None)
    parsed = parse_timestamps(times.astype(dtype))
    assert parsed[0] == NOON
    assert np.isnat(parsed[1])


@pytest.mark.parametrize(
    "value",
    [
        0,
        1_700_000_000,
        1.7e9,
        True,
        "1700000000",
        "1700000000000",
        "now",
        "today",
        "",
        "2026",
        "01.03.2026 12:00",
        "03/01/2026 12:00",
        "2026-02-30T00:00:00Z",
        "2026-03-01T25:00:00Z",
        "2026-03-01 noon",
        dt.date(2026, 3, 1),
    ],
)
def test_what_is_not_a_time_is_refused_naming_its_row(value: Any) -> None:
    with pytest.raises(InputError) as error:
        parse_timestamps(column("2026-03-01T12:00:00Z", value))
    text = sentence(error)
    assert "ISO 8601" in text
    assert "row 2" in text
    assert repr(value) in text


@pytest.mark.parametrize("dtype", [np.int64, np.float64, bool])
def test_numeric_columns_are_no_timestamps(dtype: type) -> None:
    with pytest.raises(InputError, match="ISO 8601"):
        parse_timestamps(pd.Series([1, 1]).astype(dtype))


@pytest.mark.parametrize(
    "value",
    [
        "1899-12-31T23:59:59Z",
        "2200-01-01T00:00:00Z",
        "9999-12-31T23:00:00-10:00",
        np.datetime64(2**62, "s"),
    ],
)
def test_years_outside_1900_to_2200_are_refused(value: Any) -> None:
    with pytest.raises(InputError, match="1900 and 2200") as error:
        parse_timestamps(column(None, value))
    assert "row 2" in sentence(error)


def test_far_dates_of_a_datetime_column_are_refused_too() -> None:
    with pytest.raises(InputError, match="1900 and 2200"):
        parse_timestamps(pd.Series(np.array([2**62], dtype="datetime64[s]")))


@pytest.mark.parametrize(
    "series",
    [
        pd.Series([1, 2]),
        pd.Series([1.0, 2.0], dtype=np.float32),
        pd.Series([1, 2], dtype="Int64"),
        pd.Series([1, 2], dtype="int32[pyarrow]"),
        pd.Series([1, 2.0], dtype=object),
        pd.Series([np.int8(1), decimal.Decimal("2")], dtype=object),
        pd.Series([1, 2]).astype("category"),
    ],
)
def test_numbers_of_any_kind_are_numbers(series: pd.Series[Any]) -> None:
    assert parse_numbers(series, "value").tolist() == [1.0, 2.0]


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA, pd.NaT, np.float32("nan")])
def test_missing_numbers_become_nan(missing: Any) -> None:
    parsed = parse_numbers(column(1, missing), "value")
    assert parsed[0] == 1
    assert np.isnan(parsed[1])


@pytest.mark.parametrize(
    "value",
    ["1.5", "", "abc", True, np.bool_(False), np.timedelta64(1, "h"), 1j, [1.0], {"a": 1}, dt.timedelta(1), b"1"],
)
def test_what_is_not_a_number_is_refused_naming_its_row(value: Any) -> None:
    with pytest.raises(InputError) as error:
        parse_numbers(column(1.0, None, value), "avg_value")
    text = sentence(error)
    assert "avg_value must be a number" in text
    assert "row 3" in text


@pytest.mark.parametrize("dtype", [bool, "boolean", "bool[pyarrow]", complex])
def test_columns_of_truth_values_or_complex_numbers_are_refused(dtype: Any) -> None:
    with pytest.raises(InputError, match="must be a number"):
        parse_numbers(pd.Series([True, False]).astype(dtype), "value")


@pytest.mark.parametrize("value", [np.inf, -np.inf, 10**400, decimal.Decimal("Infinity"), decimal.Decimal("1e999")])
def test_infinite_numbers_are_refused(value: Any) -> None:
    with pytest.raises(InputError, match="must be finite") as error:
        parse_numbers(column(0, value), "value")
    assert "row 2" in sentence(error)
    with pytest.raises(InputError, match="must be finite"):
        parse_numbers(pd.Series([0.0, float(np.inf)]), "value")


def test_a_sensor_named_by_a_number_is_the_same_sensor_as_text() -> None:
    assert parse_identifiers(pd.Series([7, 8])).tolist() == ["7", "8"]
    assert parse_identifiers(column("7", 8, np.int64(9), np.str_("zähler"))).tolist() == ["7", "8", "9", "zähler"]
    assert {type(name) for name in parse_identifiers(column("7", 8, np.str_("x")))} == {str}


@pytest.mark.parametrize(
    "value",
    [
        "",
        None,
        np.nan,
        pd.NA,
        True,
        1.0,
        np.timedelta64(1, "h"),
        ["a"],
        np.arange(2),
        b"a",
        "\ud800",
        "a\x00",
        dt.date(2026, 1, 1),
    ],
)
def test_what_names_no_sensor_is_refused_naming_its_row(value: Any) -> None:
    with pytest.raises(InputError) as error:
        parse_identifiers(column("a", value))
    text = sentence(error)
    assert "sensor_id must be text" in text
    assert "row 2" in text


def test_a_missing_name_in_a_nullable_text_column_is_refused() -> None:
    with pytest.raises(InputError, match="an empty value"):
        parse_identifiers(pd.Series(["a", None], dtype="string[python]"))


def test_missing_columns_are_all_named_with_what_was_found() -> None:
    with pytest.raises(InputError) as error:
        require_columns(["sensor_id", "when"], ["sensor_id", "timestamp", "avg_value"], place="load.csv")
    text = sentence(error)
    assert "timestamp, avg_value" in text
    assert "load.csv" in text
    assert "when" in text


def test_a_known_column_that_occurs_twice_is_refused_and_an_unknown_one_is_not() -> None:
    require_columns(["sensor_id", "note", "note"], ["sensor_id"])
    with pytest.raises(InputError, match="column value must occur once"):
        require_columns(["sensor_id", "value", "value"], ["sensor_id"])


def test_long_values_are_shortened_in_the_sentence() -> None:
    with pytest.raises(InputError) as error:
        parse_numbers(column("x" * 10_000), "value")
    assert len(sentence(error)) < 300


def test_written_times_are_read_back_and_each_stands_alone() -> None:
    times = np.array(["2026-03-01T12:00:00", "2026-03-01T12:00:00.25", "NaT", "1969-12-31T23:59:59"], dtype="M8[us]")
    text = format_timestamps(times)
    assert text[0] == "2026-03-01T12:00:00Z"
    assert text[2] is None
    assert np.array_equal(parse_timestamps(pd.Series(text, dtype=object)), times, equal_nan=True)
    assert [format_timestamps(times[i : i + 1])[0] for i in range(len(times))] == text.tolist()
    assert len(format_timestamps(times[:0])) == 0


@pytest.mark.parametrize(
    "text",
    [
        "2026-02-30T00:00:00Z",
        "2026-03-01T12:00:00",
        "2026-03-01T25:00:00Z",
        "2026-03-01T12:00:00Z\n",
        "2026-03-01T12:00:0٣Z",
        "",
        "2026-03-01T12:00:00Z\n2026-03-01T13:00:00Z",
    ],
)
def test_only_the_usual_form_of_times_takes_the_fast_way(text: str) -> None:
    values = np.array(["2026-03-01T12:00:00Z", text], dtype=object)
    assert schema._usual_timestamps(values) is None
    assert schema._usual_timestamps(np.array([text, None], dtype=object)) is None


def test_the_fast_way_finds_the_times_that_pandas_finds() -> None:
    times = pd.date_range("1900-01-01", "2199-12-31", freq="97h11min13s", tz="UTC")
    text = pd.Series(times.strftime("%Y-%m-%dT%H:%M:%SZ").to_numpy(dtype=object), dtype=object)
    assert schema._usual_timestamps(text.to_numpy()) is not None
    assert (parse_timestamps(text) == times.tz_localize(None).to_numpy().astype("datetime64[us]")).all()
