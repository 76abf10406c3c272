"""One model asked over HTTP, in pandas and sensor by sensor: the same answers to the last digit."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest

from smartgrid_pyfunc.lifecycle.packaging import log_model
from smartgrid_pyfunc.models.anomaly_detection import AnomalyDetectionModel
from smartgrid_pyfunc.schema import ANOMALY_MODEL
from smartgrid_pyfunc.simulation import simulate
from tests.e2e.support import Server, free_port, serving

pytestmark = pytest.mark.integration

COLUMNS = ["sensor_id", "sensor_type", "timestamp", "value", "latitude", "longitude"]
VERDICT = ["is_anomaly", "anomaly_score", "p_value"]


@pytest.fixture(scope="module")
def readings(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Ten weeks of a grid with faults; the last two are asked for."""
    folder = tmp_path_factory.mktemp("grid") / "out"
    simulate(folder, sensors=9, days=70, seed=3, step_minutes=60, fault_rate=0.03)
    frame = pd.read_parquet(folder / "readings")[COLUMNS].astype({"sensor_id": str, "sensor_type": str})
    return frame.sort_values(["timestamp", "sensor_id"], ignore_index=True)


@pytest.fixture(scope="module")
def fitted(readings: pd.DataFrame) -> AnomalyDetectionModel:
    known = readings["sensor_id"] != readings["sensor_id"].max()
    early = readings["timestamp"] < readings["timestamp"].max() - pd.Timedelta(days=14)
    return AnomalyDetectionModel(n_estimators=25).fit(readings[known & early].reset_index(drop=True))


@pytest.fixture(scope="module")
def asked(readings: pd.DataFrame) -> pd.DataFrame:
    """Sensors among each other, in no order of time, with a repeated and a conflicting row; one sensor is unknown."""
    late = readings[readings["timestamp"] >= readings["timestamp"].max() - pd.Timedelta(days=14)]
    double = late.iloc[[10, 20]].assign(value=lambda f: [f["value"].iloc[0], 1e6])
    rows = pd.concat([late, double]).sample(frac=1.0, random_state=1).reset_index(drop=True)
    return rows.assign(timestamp=rows["timestamp"].dt.strftime("%Y-%m-%dT%H:%M:%SZ"))


@pytest.fixture(scope="module")
def server(
    fitted: AnomalyDetectionModel, asked: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """`mlflow models serve` of the logged model, loaded with unpickling off."""
    folder = tmp_path_factory.mktemp("served")
    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    try:
        experiment = mlflow.create_experiment("served", str(folder / "artifacts"))
        with mlflow.start_run(experiment_id=experiment):
            uri = log_model(fitted, ANOMALY_MODEL, asked.head(3)).model_uri
        mlflow.artifacts.download_artifacts(uri, dst_path=str(folder / "model"))
    finally:
        mlflow.set_tracking_uri(None)
    port, command = free_port(), [str(Path(sys.executable).parent / "mlflow"), "models", "serve"]
    command += ["-m", str(folder / "model"), "-p", str(port), "--env-manager", "local"]
    environment = os.environ | {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    with serving(command, port, log=folder / "log", env=environment, cwd=folder) as running:
        yield running


def _over_http(server: Server, rows: pd.DataFrame) -> pd.DataFrame:
    split = {"columns": list(rows.columns), "data": rows.astype(object).where(rows.notna(), None).to_numpy().tolist()}
    status, answer = server.post({"dataframe_split": split})
    assert status == 200, json.dumps(answer)[:2_000]
    return pd.DataFrame(answer["predictions"], dtype=object)


def _verdict(answer: pd.DataFrame) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in answer[VERDICT].astype(object).itertuples(index=False)]


def test_http_pandas_and_sensor_by_sensor_give_the_same_verdict(
    server: Server, fitted: AnomalyDetectionModel, asked: pd.DataFrame
) -> None:
    together = fitted.predict(None, asked)
    over_http = _over_http(server, asked)
    alone = pd.concat(
        [
            fitted.predict(None, rows.reset_index(drop=True)).set_index(rows.index)
            for _, rows in asked.groupby("sensor_id")
        ]
    ).sort_index()

    assert 0 < together["is_anomaly"].mean() < 1
    assert {"sensor"} < set(together["profile"])  # and whatever is known of the sensor that training has not seen
    assert over_http["sensor_id"].tolist() == asked["sensor_id"].tolist()
    assert _verdict(over_http) == _verdict(together)
    assert _verdict(alone) == _verdict(together)


def test_one_sensor_over_http_is_judged_as_among_all(
    server: Server, fitted: AnomalyDetectionModel, asked: pd.DataFrame
) -> None:
    together = fitted.predict(None, asked)
    for sensor in np.unique(asked["sensor_id"])[[0, -1]]:
        rows = asked["sensor_id"] == sensor
        assert _verdict(_over_http(server, asked[rows].reset_index(drop=True))) == _verdict(together[rows])
