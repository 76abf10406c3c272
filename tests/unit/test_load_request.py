"""Which rows, parameters and sizes a load request may have, and how an answer is written."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smartgrid_pyfunc.features.panel import HISTORY_HOURS
from smartgrid_pyfunc.models.load_request import ANSWER, ForecastParams, answer_frame, parse_request
from smartgrid_pyfunc.schema import MAX_HORIZON, InputError

STORED = np.array(["s1", "s2"], dtype=object)


def history(sensor: str, hours: int = 3, start: str = "2024-01-01T00:00:00Z") -> pd.DataFrame:
    times = pd.date_range(start, periods=hours, freq="h")
    return pd.DataFrame({"sensor_id": sensor, "timestamp": times, "avg_value": np.arange(hours) + 1.0})


def bare(*sensors: str) -> pd.DataFrame:
    return pd.DataFrame({"sensor_id": pd.Series(sensors, dtype=object)})


def test_parameters_have_the_documented_defaults() -> None:
    for params in (None, {}, {"hours_ahead": None, "level": None}, {"unknown": 1}):
        found = ForecastParams.parse(params)
        assert (found.hours_ahead, found.use_ml, found.level, found.explain) == (24, True, 0.9, False)


@pytest.mark.parametrize(
    "params",
    [
        {"hours_ahead": 1},
        {"hours_ahead": np.int64(168)},
        {"level": 1e-9},
        {"level": np.float64(0.999)},
        {"use_ml": False},
    ],
)
def test_bounds_are_inclusive_for_hours_and_open_for_the_level(params: dict[str, Any]) -> None:
    found = ForecastParams.parse(params)
    assert all(getattr(found, name) == value for name, value in params.items())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hours_ahead", 0),
        ("hours_ahead", 169),
        ("hours_ahead", -1),
        ("hours_ahead", 24.5),
        ("hours_ahead", "24"),
        ("hours_ahead", True),
        ("level", 0),
        ("level", 1),
        ("level", 90),
        ("level", -0.5),
        ("level", float("nan")),
        ("level", "0.9"),
        ("level", True),
        ("use_ml", "false"),
        ("use_ml", 1),
        ("explain", "yes"),
    ],
)
def test_bad_parameters_are_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=name):
        ForecastParams.parse({name: value})


def test_rows_of_a_sensor_replace_the_stored_history_and_others_come_from_the_store() -> None:
    request = parse_request(pd.concat([bare("s2"), history("s1"), history("new"), bare("s1", "gone")]), STORED)
    assert request.sensors == ["s2", "s1", "new", "gone"]
    assert request.from_store == ["s2", "gone"]
    assert request.panel is not None
    assert request.panel.sensor_ids.tolist() == ["new", "s1"]


def test_all_asks_for_every_stored_sensor_once() -> None:
    request = parse_request(pd.concat([bare("s2", "all", "x"), history("s1")]), STORED)
    assert sorted(request.sensors) == ["s1", "s2", "x"]
    assert request.from_store == ["s2", "x"]
    assert parse_request(bare("all"), STORED).sensors == ["s1", "s2"]


def test_only_the_hours_that_features_read_are_kept() -> None:
    old = history("a", 1, "1950-01-01T00:00:00Z")
    far = history("a", 1, "2150-01-01T00:00:00Z").assign(avg_value=np.nan)
    request = parse_request(pd.concat([old, history("a", 2 * HISTORY_HOURS), far]), STORED)
    assert request.panel is not None
    assert request.panel.n_hours.tolist() == [HISTORY_HOURS]
    assert request.panel.load[request.panel.origin[0]] == 2 * HISTORY_HOURS


def test_future_rows_are_kept_as_far_as_a_forecast_reaches() -> None:
    future = history("a", MAX_HORIZON + 24, "2024-01-01T03:00:00Z").assign(avg_value=np.nan, temperature=5.0)
    request = parse_request(pd.concat([history("a"), future]), STORED)
    assert request.panel is not None
    assert request.panel.n_hours.tolist() == [3 + MAX_HORIZON + 24]


def test_a_sensor_without_any_load_is_still_answered() -> None:
    request = parse_request(pd.concat([history("a").assign(avg_value=np.nan), history("b")]), STORED)
    assert request.panel is not None
    assert (request.panel.origin >= 0).tolist() == [False, True]


@pytest.mark.parametrize("column", ["avg_value", "min_value", "max_value", "count", "temperature", "is_holiday"])
def test_a_value_without_a_time_is_refused(column: str) -> None:
    frame = pd.concat([history("a"), bare("b").assign(**{column: 1.0})])
    with pytest.raises(InputError, match=f"timestamp is required where {column} is given") as error:
        parse_request(frame, STORED)
    assert "row 4" in str(error.value)


@pytest.mark.parametrize("column", ["timestamp", "avg_value"])
def test_half_a_history_is_refused_naming_the_missing_column(column: str) -> None:
    with pytest.raises(InputError, match=f"column {column} is required"):
        parse_request(history("a").drop(columns=column), STORED)


def test_without_sensors_there_is_no_request() -> None:
    with pytest.raises(InputError, match="column sensor_id is required"):
        parse_request(history("a").drop(columns="sensor_id"), STORED)


def test_the_request_stays_as_it_was() -> None:
    for frame in (bare("all"), pd.concat([history("a"), bare("s1")], ignore_index=True)):
        before = frame.copy(deep=True)
        parse_request(frame, STORED)
        pd.testing.assert_frame_equal(frame, before)


cell = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.just("2024-01-01T00:00Z")
)
columns = ["sensor_id", "timestamp", "avg_value", "min_value", "count", "temperature", "is_holiday", "other"]


@given(st.lists(st.dictionaries(st.sampled_from(columns), cell), max_size=4))
def test_any_json_records_are_understood_or_refused_with_an_input_error(records: list[dict[str, Any]]) -> None:
    try:
        request = parse_request(pd.DataFrame(records), STORED)
    except InputError as error:
        assert str(error).endswith(".")
    else:
        assert request.sensors


names = st.sampled_from(["hours_ahead", "use_ml", "level", "explain", "x"])


@given(st.dictionaries(names, st.one_of(cell, st.lists(st.integers(), max_size=1))))
def test_any_parameters_are_understood_or_refused_with_an_input_error(params: dict[str, Any]) -> None:
    try:
        found = ForecastParams.parse(params)
    except InputError:
        return
    assert 1 <= found.hours_ahead <= MAX_HORIZON
    assert 0 < found.level < 1


def test_an_answer_is_strict_json_with_null_for_what_is_unknown() -> None:
    unknown = np.array([1.5, np.nan, 3.0])
    values = {"predicted_load": unknown, "lower": np.full(3, np.nan), "upper": np.ones(3)}
    text = np.array(["a", "b", None], dtype=object)
    origin = np.array([0.0, np.nan, 24 * 366])
    frame = answer_frame(np.array(["a", "b", "c"], dtype=object), origin, np.array([1, 2, 3]), values, text, text)
    records = json.loads(json.dumps(frame.to_dict("records"), allow_nan=False))
    assert tuple(records[0]) == ANSWER
    assert [r["predicted_load"] for r in records] == [1.5, None, 3.0]
    assert [r["lower"] for r in records] == [None] * 3
    assert [r["origin"] for r in records] == ["1970-01-01T00:00:00Z", None, "1971-01-02T00:00:00Z"]
    assert [r["timestamp"] for r in records] == ["1970-01-01T01:00:00Z", None, "1971-01-02T03:00:00Z"]
    assert [r["reason"] for r in records] == ["a", "b", None]
