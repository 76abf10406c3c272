"""Neighbours: numbers by hand, and a regional event against a broken sensor in the simulated grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from smartgrid_pyfunc.features.neighbours import NEIGHBOUR_COLUMNS, compare_with_neighbours, standardised
from smartgrid_pyfunc.models.anomaly_detection import AnomalyDetectionModel
from smartgrid_pyfunc.schema import InputError
from smartgrid_pyfunc.simulation import simulate
from smartgrid_pyfunc.sources import load_readings

_FAR = 0.5  # degrees of latitude: 56 km


def _readings(sensors: int = 5, **columns: object) -> pd.DataFrame:
    """One reading of each sensor in one hour, 1.1 km apart."""
    frame = pd.DataFrame({"sensor_id": [f"s{i}" for i in range(sensors)], "sensor_type": "power"})
    frame = frame.assign(timestamp="2026-01-05T10:10:00Z", latitude=48 + 0.01 * np.arange(sensors), longitude=9.0)
    return frame.assign(**columns)


def test_deviations_are_from_the_median_of_the_others_by_hand():
    table = compare_with_neighbours(_readings(), [1.0, 2.0, 4.0, 8.0, 9.0])
    assert tuple(table.columns) == NEIGHBOUR_COLUMNS
    assert table["neighbours"].tolist() == [4] * 5
    assert table["neighbour_deviation"].tolist() == [6.0, 6.0, 5.0, 3.0, 3.0]
    assert table["own_deviation"].tolist() == [-5.0, -4.0, -1.0, 5.0, 6.0]


def test_a_region_is_off_together_and_a_broken_sensor_alone():
    assert compare_with_neighbours(_readings(), [4.0, 3.0, 5.0, 4.0, 4.0])["scope"].tolist() == ["region"] * 5
    alone = compare_with_neighbours(_readings(), [0.1, -0.2, 7.0, 0.0, 0.3])["scope"].tolist()
    assert alone == [None, None, "sensor", None, None]
    assert compare_with_neighbours(_readings(), [-3.0, 3.0, 3.0, 3.0, 3.0])["scope"][0] == "sensor"


@pytest.mark.parametrize(
    "column",
    [
        {"latitude": [48.0, 48 + _FAR, 48 + 2 * _FAR, 48 + 3 * _FAR, 48 - _FAR]},
        {"sensor_type": ["power", "voltage", "current", "energy", "x"]},
        {"timestamp": [f"2026-01-05T{h:02d}:00:00Z" for h in range(5)]},
        {"longitude": np.nan},
    ],
    ids=["far", "type", "hour", "no place"],
)
def test_only_sensors_near_of_the_same_type_in_the_same_hour_are_neighbours(column):
    table = compare_with_neighbours(_readings(**column), [9.0, 8.0, 9.0, 8.0, 9.0])
    assert table["neighbours"].tolist() == [0] * 5
    assert table["neighbour_deviation"].isna().all()
    assert table["scope"].tolist() == [None] * 5


def test_two_neighbours_are_too_few_to_tell():
    table = compare_with_neighbours(_readings(3), [9.0, 0.0, 0.0])
    assert table["neighbours"].tolist() == [2] * 3
    assert table["scope"].tolist() == [None] * 3


def test_the_radius_decides_who_is_near():
    near = compare_with_neighbours(_readings(), [1.0] * 5, radius_km=1.2)["neighbours"].tolist()
    assert near == [1, 2, 2, 2, 1]


def test_rows_keep_their_order_and_index_and_unknown_deviations_are_left_out():
    frame = _readings(6)
    off = np.array([5.0, np.nan, 1.0, 2.0, 3.0, 4.0])
    order = [3, 5, 1, 0, 4, 2]
    table = compare_with_neighbours(frame, off)
    shuffled = compare_with_neighbours(frame.iloc[order], off[order])
    pd.testing.assert_frame_equal(shuffled, table.loc[order])
    assert table["neighbour_deviation"][0] == 2.5
    assert table["neighbours"][0] == 4


def test_deviations_are_in_halves_of_the_usual_range():
    found = standardised([12.0, 4.0, 10.0, 3.0, np.nan], [10.0] * 5, [8.0] * 4 + [1.0], [11.0, 11.0, 11.0, 11.0, 11.0])
    np.testing.assert_allclose(found, [2.0, -3.0, 0.0, -3.5, np.nan])
    assert np.isnan(standardised([5.0], [5.0], [5.0], [5.0])).all()


@pytest.mark.parametrize(("radius", "count", "says"), [(0.0, 5, "radius_km must"), (9.0, 4, "for each reading")])
def test_bad_arguments_are_refused(radius: float, count: int, says: str):
    with pytest.raises(InputError, match=says):
        compare_with_neighbours(_readings(), [1.0] * count, radius_km=radius)


def test_the_simulated_grid_tells_a_regional_event_from_a_broken_sensor(tmp_path: Path):
    simulate(tmp_path / "grid", sensors=48, days=60, seed=3, step_minutes=60, faults=False)
    frame = load_readings(str(tmp_path / "grid" / "readings")).frame
    power = frame[frame["sensor_type"] == "power"].reset_index(drop=True)
    start = power["timestamp"].max() - pd.Timedelta(days=7)
    model = AnomalyDetectionModel(n_estimators=20).fit(power[power["timestamp"] < start])
    hour = power["timestamp"] == start + pd.Timedelta(hours=50)
    other = power["timestamp"] == start + pd.Timedelta(hours=100)
    broken = power["sensor_id"].unique()[0]
    # A storm takes away nine tenths of the load everywhere; two days later one sensor alone shows ten times its load.
    value = power["value"].where(~hour, power["value"] * 0.1)
    power["value"] = value.where(~(other & (power["sensor_id"] == broken)), value * 10)
    answer = model.predict(None, power)
    off = standardised(power["value"], *(answer[name] for name in ("expected_value", "lower", "upper")))
    scope = compare_with_neighbours(power, off)["scope"]
    flagged = answer["is_anomaly"].astype(bool)
    storm = scope[hour & flagged]
    assert len(storm) >= 10
    assert (storm == "region").mean() >= 0.8
    alone = other & (power["sensor_id"] == broken)
    assert flagged[alone].all()
    assert scope[alone].tolist() == ["sensor"]
