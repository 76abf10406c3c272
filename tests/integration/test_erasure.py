"""Erasing a sensor: after the documented steps nothing in the whole store names it."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import zipfile
from contextlib import closing
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest

from smartgrid_pyfunc.lifecycle import erasure, registry
from smartgrid_pyfunc.schema import ANOMALY_MODEL, LOAD_MODEL, InputError
from smartgrid_pyfunc.simulation import simulate
from smartgrid_pyfunc.training.anomaly_detection import train_anomaly_model
from smartgrid_pyfunc.training.load_forecasting import train_load_model

pytestmark = pytest.mark.integration

_ROOT = Path(__file__).resolve().parents[2]
_GONE, _KEPT = "household-4711", "household-47"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Readings with and without the sensor, whose name begins with that of another."""
    folder = tmp_path_factory.mktemp("meters")
    simulate(folder / "grid", sensors=6, days=60, seed=5)
    readings = pd.concat(pd.read_parquet(path) for path in sorted((folder / "grid" / "readings").glob("*.parquet")))
    loads = readings.loc[readings["sensor_type"] == "power", "sensor_id"].unique()
    readings = readings.replace({"sensor_id": {loads[0]: _GONE, loads[1]: _KEPT}})
    readings.to_parquet(folder / "with.parquet")
    readings[readings["sensor_id"] != _GONE].to_parquet(folder / "without.parquet")
    return {name: str(folder / f"{name}.parquet") for name in ("with", "without")}


def _train(path: str) -> list[str]:
    load = train_load_model(path, test_days=14, n_estimators=3, random_state=1)
    detector = train_anomaly_model(path, n_estimators=10)
    return [str(load.version), str(detector.version)]


def _promote(versions: list[str]) -> None:
    for model, version in zip((LOAD_MODEL, ANOMALY_MODEL), versions, strict=True):
        registry.promote(model, version=version, force=True)


def _erase(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(_ROOT / "entrypoints" / "erase.py"), "--sensor-id", _GONE, *options],
        capture_output=True,
        text=True,
        check=False,
    )


def _files_that_name(sensor: str, folder: Path) -> list[str]:
    """Return the files below `folder` that hold the name, also inside of compressed arrays."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file() and sensor.encode() in path.read_bytes():
            found.append(str(path))
        elif path.suffix == ".npz" and zipfile.is_zipfile(path):
            with np.load(path) as arrays:
                found += [str(path) for name in arrays.files if sensor in arrays[name].astype(str).ravel()]
    return found


def test_after_the_documented_steps_nothing_in_the_store_names_the_sensor(data, tracking):
    store = Path.cwd()
    _promote(_train(data["with"]))
    assert _files_that_name(_GONE, store)
    listed = _erase()
    assert listed.returncode == 0, listed.stderr
    assert "LoadForecastingModel version 1" in listed.stdout and "arrays.npz" in listed.stdout
    assert "Nothing was deleted" in listed.stdout

    refused = _erase("--delete", "true")
    assert refused.returncode == 1 and "train without the sensor" in refused.stderr
    assert registry.production_version(LOAD_MODEL) == "1"

    kept = _train(data["without"])
    _promote(kept)
    erased = _erase("--delete", "true")
    assert erased.returncode == 0, erased.stderr
    assert "deleted LoadForecastingModel version 1" in erased.stdout
    assert _erase().stdout.startswith("No run or model names it")

    uri = mlflow.get_tracking_uri()
    subprocess.run(
        [sys.executable, "-m", "mlflow", "gc", "--backend-store-uri", uri, "--tracking-uri", uri],
        check=True,
        capture_output=True,
    )
    with closing(sqlite3.connect(store / "mlflow.db")) as database:
        database.execute("VACUUM")  # SQLite keeps what is in freed pages until then
    assert _files_that_name(_GONE, store) == []
    assert _files_that_name(_KEPT, store)
    assert (
        mlflow.pyfunc.load_model(f"models:/{LOAD_MODEL}/Production")
        .predict(pd.DataFrame({"sensor_id": [_KEPT]}))["predicted_load"]
        .notna()
        .all()
    )


def test_no_name_is_no_wish_to_erase_everything(tracking):
    with pytest.raises(InputError, match="at least one sensor"):
        erasure.find(["", " "], print)
