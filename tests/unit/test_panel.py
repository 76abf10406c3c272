"""The grid of hours against pandas' own reindexing, and the gate for rows of hourly load."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smartgrid_pyfunc.features.panel import HISTORY_HOURS, LOADS, Panel, build_panel, parse_hourly
from smartgrid_pyfunc.schema import COVARIATES, InputError

START = pd.Timestamp("2024-03-30T20:00:00Z")


def rows(seed: int = 0, sensors: str = "cab", hours: int = 60, kept: float = 0.7) -> pd.DataFrame:
    """Rows of several sensors with gaps, in no order."""
    rng = np.random.default_rng(seed)
    frames = []
    for sensor in sensors:
        hour = np.flatnonzero(rng.random(hours) < kept) + rng.integers(0, 50)
        load = rng.normal(10, 3, len(hour))
        load[rng.random(len(hour)) < 0.1] = np.nan
        frame = pd.DataFrame({"sensor_id": sensor, "timestamp": START + pd.to_timedelta(hour, unit="h")})
        frame = frame.assign(
            avg_value=load, min_value=load - 1, max_value=load + 1, count=rng.integers(0, 5, len(hour))
        )
        frames.append(frame.assign(temperature=rng.normal(15, 5, len(hour))))
    return pd.concat(frames).sample(frac=1, random_state=seed).reset_index(drop=True)


def panel_of(frame: pd.DataFrame) -> Panel:
    return build_panel(parse_hourly(frame))


def cells_of(panel: Panel, i: int) -> slice:
    return slice(int(panel.first_cell[i]), int(panel.first_cell[i] + panel.n_hours[i]))


def hour_number(times: pd.Series[Any]) -> np.ndarray[Any, Any]:
    return times.dt.tz_localize(None).to_numpy().astype("datetime64[h]").astype(np.int64)


@pytest.mark.parametrize("seed", range(3))
def test_each_sensor_stands_on_its_own_regular_grid(seed: int) -> None:
    frame = rows(seed)
    panel = panel_of(frame)
    assert panel.sensor_ids.tolist() == ["a", "b", "c"]
    for i, (_, own) in enumerate(frame.groupby("sensor_id")):
        expected = own.set_index("timestamp").sort_index().resample("h").asfreq()
        here = cells_of(panel, i)
        assert panel.n_hours[i] == len(expected)
        assert panel.first_hour[i] == hour_number(own["timestamp"]).min()
        for name, values in {**panel.loads, **panel.covariates}.items():
            assert np.array_equal(values[here], expected[name].to_numpy(dtype=float), equal_nan=True)
        last = own.loc[own["avg_value"].notna(), "timestamp"]
        assert panel.hour(np.array([i]), panel.origin[[i]])[0] == hour_number(last).max()
        first = np.array([panel.first_observed()[i]])
        assert panel.hour(np.array([i]), first)[0] == hour_number(last).min()


def test_empty_cells_separate_the_sensors() -> None:
    panel = panel_of(rows())
    for i in range(3):
        before = slice(int(panel.first_cell[i]) - HISTORY_HOURS, int(panel.first_cell[i]))
        for values in {**panel.loads, **panel.covariates}.values():
            assert np.isnan(values[before]).all()
    owner = panel.sensor_of_cell()
    assert len(owner) == len(panel.load)
    assert [set(owner[cells_of(panel, i)]) for i in range(3)] == [{0}, {1}, {2}]


def test_row_order_does_not_matter() -> None:
    frame = pd.concat([rows(), rows().assign(avg_value=lambda f: f["avg_value"] * 1.1 + 0.3)])
    one, other = panel_of(frame), panel_of(frame.sample(frac=1, random_state=9))
    for name in LOADS:
        assert np.array_equal(one.loads[name], other.loads[name], equal_nan=True)
    assert np.array_equal(one.origin, other.origin)


def test_exact_duplicates_change_nothing_and_conflicts_become_the_mean_of_distinct_values() -> None:
    frame = pd.DataFrame({"sensor_id": "a", "timestamp": START, "avg_value": [1.0, 2.0, 2.0, 2.0, np.nan, 6.0]})
    panel = panel_of(frame)
    assert panel.load[panel.first_cell[0]] == 3.0
    assert panel_of(frame.iloc[1:4]).load[panel.first_cell[0]] == 2.0


def test_gaps_are_neither_zero_nor_the_hour_before() -> None:
    frame = pd.DataFrame({"sensor_id": "a", "timestamp": [START, START + pd.Timedelta("3h")], "avg_value": [5.0, 7.0]})
    panel = panel_of(frame)
    assert np.array_equal(panel.load[cells_of(panel, 0)], [5, np.nan, np.nan, 7], equal_nan=True)


def test_rows_after_the_last_load_are_future_covariates() -> None:
    frame = pd.DataFrame(
        {
            "sensor_id": ["a"] * 3 + ["b"],
            "timestamp": [START + pd.Timedelta(hours=h) for h in (0, 1, 5, 0)],
            "avg_value": [1.0, 2.0, np.nan, np.nan],
            "temperature": [10.0, 11.0, 15.0, 3.0],
        }
    )
    panel = panel_of(frame)
    assert panel.origin.tolist() == [panel.first_cell[0] + 1, -1]
    assert panel.covariates["temperature"][panel.first_cell[0] + 5] == 15.0
    assert panel.first_observed()[1] == len(panel.load)


def test_clock_changes_leave_no_hole_and_no_double_hour() -> None:
    local = pd.date_range("2024-10-26", "2024-10-29", freq="h", tz="Europe/London")
    as_text = [moment.isoformat() for moment in local]
    for spelled in (local, as_text):
        panel = panel_of(pd.DataFrame({"sensor_id": "a", "timestamp": spelled, "avg_value": np.arange(len(local))}))
        assert panel.n_hours[0] == len(local) == 3 * 24 + 1 + 1
        assert np.array_equal(panel.load[cells_of(panel, 0)], np.arange(len(local)))


def test_the_frame_stays_as_it_was() -> None:
    frame = rows()
    before = frame.copy(deep=True)
    panel = panel_of(frame)
    panel.load[:] = 0
    pd.testing.assert_frame_equal(frame, before)


def one_row(**values: Any) -> pd.DataFrame:
    row = {"sensor_id": "a", "timestamp": "2024-01-01T00:00:00Z", "avg_value": 1.0} | values
    return pd.DataFrame({name: pd.Series([value], dtype=object) for name, value in row.items()})


@pytest.mark.parametrize(
    ("column", "value", "rule"),
    [
        ("timestamp", "2024-01-01T00:30:00Z", "start of an hour"),
        ("timestamp", "2024-01-01T00:00:00+05:30", "start of an hour"),
        ("timestamp", 1_700_000_000, "ISO 8601"),
        ("avg_value", "1.5", "must be a number"),
        ("avg_value", float("inf"), "must be finite"),
        ("avg_value", 1e300, "must not exceed"),
        ("min_value", -1e300, "must not exceed"),
        ("max_value", True, "must be a number"),
        ("count", -1, "whole number"),
        ("count", 1.5, "whole number"),
        ("is_holiday", 2, "must be 0 or 1"),
        ("is_holiday", True, "must be a number"),
        ("temperature", "warm", "must be a number"),
        ("sensor_id", None, "must be text"),
    ],
)
def test_a_bad_cell_is_refused_naming_rule_column_and_row(column: str, value: Any, rule: str) -> None:
    frame = pd.concat([one_row(**{column: one_row().get(column, pd.Series([1]))[0]}), one_row(**{column: value})])
    with pytest.raises(InputError, match=rule) as error:
        parse_hourly(frame)
    assert f"column {column}, row 2" in str(error.value)


@pytest.mark.parametrize("column", ["sensor_id", "timestamp", "avg_value"])
def test_a_missing_column_is_named(column: str) -> None:
    with pytest.raises(InputError, match=f"column {column} is required"):
        parse_hourly(one_row().drop(columns=column))


def test_a_doubled_column_is_refused() -> None:
    with pytest.raises(InputError, match="column avg_value must occur once"):
        parse_hourly(pd.concat([one_row(), one_row()[["avg_value"]]], axis=1))


def test_further_columns_are_ignored_and_a_row_without_time_is_kept_for_the_request() -> None:
    parsed = parse_hourly(one_row(timestamp=None, avg_value=None, note="x"))
    assert list(parsed.columns) == ["sensor_id", "hour", "avg_value"]
    assert parsed["hour"].isna().all()


cell = st.one_of(st.none(), st.integers(-5, 5), st.floats(), st.booleans(), st.text(max_size=3), st.dates())
time = st.one_of(cell, st.datetimes(), st.sampled_from(["2024-01-01T00:00:00Z", "2024-01-01T01:00:00+01:00"]))


@given(
    st.lists(st.fixed_dictionaries({"sensor_id": cell, "timestamp": time, **dict.fromkeys(LOADS + COVARIATES, cell)}))
)
def test_any_rows_are_parsed_or_refused_with_an_input_error(records: list[dict[str, Any]]) -> None:
    frame = pd.DataFrame(records, columns=["sensor_id", "timestamp", *LOADS, *COVARIATES], dtype=object)
    try:
        parsed = parse_hourly(frame)
    except InputError:
        return
    panel = build_panel(parsed[parsed["hour"].notna()]) if parsed["hour"].notna().any() else None
    assert panel is None or np.nansum(panel.n_hours) >= 1


def test_a_span_beyond_memory_is_refused() -> None:
    sensors = [f"s{i}" for i in range(100)] * 2
    times = ["1900-01-01T00:00:00Z"] * 100 + ["2199-12-31T00:00:00Z"] * 100
    with pytest.raises(InputError, match="sensor-hours"):
        panel_of(pd.DataFrame({"sensor_id": sensors, "timestamp": times, "avg_value": 1.0}))
