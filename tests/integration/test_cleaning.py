"""Load training without the readings that the detector flags, in a real store."""

from __future__ import annotations

from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from smartgrid_pyfunc.schema import ANOMALY_MODEL, InputError
from smartgrid_pyfunc.simulation import simulate
from smartgrid_pyfunc.sources import load_hourly, load_readings
from smartgrid_pyfunc.training.anomaly_detection import train_anomaly_model
from smartgrid_pyfunc.training.cleaning import cleaned, flags
from smartgrid_pyfunc.training.load_forecasting import train_load_model

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("grid") / "grid"
    simulate(folder, sensors=6, days=80, step_minutes=30, seed=7, fault_rate=0.03)
    return folder / "readings"


def _ignore(sentence: str) -> None:
    """Tell nobody."""


def test_flagged_readings_are_left_out_before_hours_are_made(grid: Path, tracking: str, tmp_path: Path) -> None:
    detector = train_anomaly_model(str(grid), n_estimators=20)
    uri = f"models:/{ANOMALY_MODEL}/{detector.version}"
    with cleaned(str(grid), uri, "power,energy", _ignore) as (data, metrics):
        hourly, kept = load_hourly(data).frame, load_readings(data).frame
    assert not Path(data).exists()
    # The same, told by the model itself on each sensor alone.
    model = mlflow.pyfunc.load_model(uri)
    readings = load_readings(str(grid)).frame
    readings = readings[readings["sensor_type"].isin(["power", "energy"])]
    parts = []
    for _, rows in readings.groupby("sensor_id"):
        parts.append(rows[~model.predict(rows)["is_anomaly"].to_numpy(dtype=bool)])
    expected = pd.concat(parts)
    assert metrics == {"cleaned_share": pytest.approx(1 - len(expected) / len(readings))}
    assert 0.002 < metrics["cleaned_share"] < 0.1
    assert len(kept) == len(expected)
    means = expected.groupby(["sensor_id", expected["timestamp"].dt.floor("h")])["value"].mean()
    found = hourly.set_index(["sensor_id", "timestamp"])["avg_value"]
    assert len(means) - len(found) <= readings["sensor_id"].nunique()  # the hour in progress
    np.testing.assert_allclose(found, means.loc[found.index])

    load = train_load_model(str(grid), test_days=14, n_estimators=10, clean_with=uri, register=False)
    run = MlflowClient().get_run(load.run_id)
    assert run.data.params["clean_with"] == uri
    assert run.data.metrics["cleaned_share"] == pytest.approx(metrics["cleaned_share"])


def test_without_a_detector_the_data_stay(grid: Path) -> None:
    with cleaned(str(grid), None, "power", _ignore) as (data, metrics):
        assert (data, metrics) == (str(grid), {})


def test_what_is_no_detector_is_refused_with_a_sentence(grid: Path, tracking: str) -> None:
    with (
        pytest.raises(InputError, match=r"clean_with must be the URI of a model that can be loaded.*Production"),
        cleaned(str(grid), f"models:/{ANOMALY_MODEL}/Production", "power", _ignore),
    ):
        pass
    load = train_load_model(str(grid), test_days=14, n_estimators=5, register=False)
    with (
        pytest.raises(InputError, match="clean_with must name an anomaly model"),
        cleaned(str(grid), load.uri, "power", _ignore),
    ):
        pass


def test_the_detector_is_asked_for_whole_sensors(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    class Recorder:
        def predict(self, data: pd.DataFrame) -> pd.DataFrame:
            asked.append(data["sensor_id"].unique().tolist())
            return pd.DataFrame({"is_anomaly": data["value"] > 0.5})

    monkeypatch.setattr("smartgrid_pyfunc.training.cleaning._ROWS_AT_ONCE", 25)
    frame = pd.DataFrame({"sensor_id": np.repeat(list("abcde"), 10), "value": np.arange(50) % 2.0})
    frame = frame.assign(sensor_type="power", timestamp="2026-01-01", latitude=np.nan, longitude=np.nan)
    assert flags(Recorder(), frame).tolist() == (frame["value"] > 0.5).tolist()
    assert asked == [["a", "b", "c"], ["d", "e"]]
    assert flags(Recorder(), frame.head(0)).tolist() == []
