"""Real files through the gate: known sources agree with each other and with pandas."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from smartgrid_pyfunc.schema import InputError
from smartgrid_pyfunc.sources import load_hourly, load_readings

pytestmark = pytest.mark.integration

_FOLDER = Path(os.environ.get("SMARTGRID_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
_VALUES = ["avg_value", "min_value", "max_value", "count"]


def real(name: str) -> str:
    path = _FOLDER / f"{name}.parquet"
    if not path.exists():
        pytest.skip(f"{path.name} is missing: set SMARTGRID_DATA to the folder of the real data")
    return str(path)


def assert_same_hours(made: pd.DataFrame, published: pd.DataFrame) -> None:
    made, published = made.reset_index(drop=True), published.reset_index(drop=True)
    pd.testing.assert_frame_equal(made[["sensor_id", "timestamp"]], published[["sensor_id", "timestamp"]])
    np.testing.assert_allclose(made[_VALUES], published[_VALUES], rtol=1e-12)


def test_half_hours_of_victoria_make_its_published_hours():
    made = load_hourly(real("vic_electricity_readings_30min"))
    published = load_hourly(real("vic_electricity_hourly"))
    published.frame["sensor_id"] = made.frame["sensor_id"].iloc[0]
    assert_same_hours(made.frame, published.frame)
    assert len(made.frame) == 26_304
    assert list(made.report.unused_types) == ["temperature"]
    assert published.report.ignored_columns == ("holiday",)
    assert "temperature" in published.frame


def test_half_hours_of_london_make_its_published_hours():
    made = load_hourly(real("london_smartmeters_readings_30min_sample8"))
    published = load_hourly(real("london_smartmeters_hourly")).frame
    published = published[published["sensor_id"].isin(made.frame["sensor_id"].unique())]
    assert made.report.sensors == 8
    assert_same_hours(made.frame, published)


def test_minutes_of_a_household_make_the_hours_that_pandas_makes():
    path = real("household_readings_1min")
    load = load_hourly(path)
    readings = pd.read_parquet(path)
    readings = readings[readings["sensor_type"].isin(["power", "energy"])]
    hours = readings.groupby(["sensor_id", readings["timestamp"].dt.floor("h")])["value"]
    expected = hours.agg(avg_value="mean", min_value="min", max_value="max", count="count").reset_index()
    expected = expected[expected["count"] > 0]
    last = expected.groupby("sensor_id")["timestamp"].transform("max") == expected["timestamp"]
    assert load.report.incomplete_hours_dropped == last.sum() == 4
    assert_same_hours(load.frame, expected[~last])
    assert load.report.rows_without_value == readings["value"].isna().sum()


def test_repeated_stamps_of_the_transformer_are_counted_and_averaged():
    path = real("transformer_dtm_readings_15min")
    raw = pd.read_parquet(path)
    keys = ["sensor_id", "timestamp"]
    distinct = raw.drop_duplicates([*keys, "value"])
    conflicts = int((distinct.groupby(keys).size() > 1).sum())
    readings = load_readings(path)
    assert len(readings.frame) == len(distinct)
    assert readings.report.duplicates_dropped == len(raw) - len(distinct)
    assert readings.report.conflicts == conflicts > 1_000
    hourly = load_hourly(path, sensor_type="current")
    instants = distinct[distinct["sensor_type"] == "current"].groupby(keys)["value"].mean().reset_index()
    hours = instants.groupby(["sensor_id", instants["timestamp"].dt.floor("h")])["value"].mean()
    made = hourly.frame.set_index(keys)["avg_value"]
    np.testing.assert_allclose(made, hours.loc[made.index], rtol=1e-12)
    assert len(hours) - len(made) == hourly.report.incomplete_hours_dropped
    with pytest.raises(InputError, match="found current, level, temperature, voltage"):
        load_hourly(path)


def test_published_hours_pass_unchanged():
    for name, sensors in (("pjm_hourly", 9), ("household_4years_hourly", 1)):
        load, raw = load_hourly(real(name)), pd.read_parquet(real(name))
        raw = raw.sort_values(["sensor_id", "timestamp"])
        assert_same_hours(load.frame, raw.astype({"timestamp": "datetime64[us, UTC]", "sensor_id": "str"}))
        assert load.report.sensors == sensors


def test_gaps_of_published_hours_are_counted_and_bounds_may_be_unknown():
    load = load_hourly(real("household_4years_hourly"))
    assert load.report.gap_hours == 448
    assert load.frame[["min_value", "max_value"]].isna().all(axis=None)
    assert load.report.ignored_columns == ("voltage_avg", "current_avg")


def test_labels_stay_with_their_readings():
    load = load_readings(real("lead_labelled_hourly_10buildings"))
    assert load.frame["is_anomaly"].dtype == bool
    assert int(load.frame["is_anomaly"].sum()) == 2_184
