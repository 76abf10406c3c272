"""Trainings from files to promoted versions in a real store, in this process."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from smartgrid_pyfunc.lifecycle import registry
from smartgrid_pyfunc.models.anomaly_detection import BASE
from smartgrid_pyfunc.schema import ANOMALY_MODEL, InputError
from smartgrid_pyfunc.simulation import simulate
from smartgrid_pyfunc.training import pipeline
from smartgrid_pyfunc.training.anomaly_detection import train_anomaly_model
from smartgrid_pyfunc.training.load_forecasting import train_load_model
from smartgrid_pyfunc.training.summary import next_steps, results

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("grid") / "grid"
    simulate(folder, sensors=5, days=80, step_minutes=60, seed=7)
    return folder


def test_both_trainings_lead_to_promoted_versions_that_answer(grid: Path, tracking: str, tmp_path: Path) -> None:
    load = train_load_model(
        str(grid / "hourly_load"), test_days=14, n_estimators=15, timezone="Australia/Melbourne", country="AU-VIC"
    )
    anomalies = train_anomaly_model(str(grid / "readings"), n_estimators=20)
    assert load.metrics["test_skill"] == pytest.approx(1 - load.metrics["test_mae"] / load.metrics["naive_mae"])
    assert load.metrics["naive_mae"] == min(load.metrics["naive_24_mae"], load.metrics["naive_168_mae"])
    assert anomalies.metrics["n_anomalies"] + anomalies.metrics["n_normal"] > 0

    said = [pipeline.promote_if_better(outcome) for outcome in (load, anomalies)]
    for outcome, sentence in zip((load, anomalies), said, strict=True):
        promoted = registry.production_version(outcome.model) is not None
        assert sentence.startswith("Promoted" if promoted else "Not promoted")

    written = pipeline.write_forecast(load, str(grid / "hourly_load"), 48, tmp_path)
    written += pipeline.write_flagged(anomalies, str(grid / "readings"), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file() and path.suffix != ".db") == sorted(
        path.name for path in written
    )
    forecast = pd.read_csv(tmp_path / "forecast.csv")
    assert set(forecast.groupby("sensor_id").size()) == {48}
    assert "AnomalyDetectionModel" in results([load, anomalies])
    assert "mlflow models serve" in next_steps([load, anomalies])


def _measured_values_in(folder: Path, measured: set[float]) -> dict[str, int]:
    """Return how many of the measured loads each file below `folder` holds, as arrays or as written numbers."""
    found = {}
    for path in sorted(entry for entry in folder.rglob("*") if entry.is_file()):
        if path.suffix == ".npz":
            with np.load(path) as stored:
                values = {round(x, 7) for name in stored for x in _floats(stored[name])}
        elif path.suffix == ".parquet":
            values = {round(x, 7) for _, column in pd.read_parquet(path).items() for x in _floats(column.to_numpy())}
        elif path.suffix == ".png":
            continue
        else:
            values = {round(float(x), 7) for x in re.findall(r"(?<![\w.])\d+\.\d+(?![\w.])", path.read_text())}
        if hits := len(values & measured):
            found[path.relative_to(folder).as_posix()] = hits
    return found


def _floats(array: np.ndarray) -> list[float]:
    return array[np.isfinite(array)].ravel().tolist() if array.dtype.kind == "f" else []


@pytest.mark.parametrize("kept", [True, False])
def test_without_stored_history_neither_model_nor_run_holds_an_hour_of_the_data(
    grid: Path, tracking: str, kept: bool
) -> None:
    hourly = pd.read_parquet(grid / "hourly_load")
    outcome = train_load_model(
        str(grid / "hourly_load"), test_days=14, n_estimators=3, store_history=kept, register=False
    )
    run = Path(mlflow.artifacts.download_artifacts(run_id=outcome.run_id))
    model = Path(mlflow.artifacts.download_artifacts(outcome.model_uri))
    # Whole and half numbers are thresholds of counts too.
    measured = {round(x, 7) for x in hourly["avg_value"].dropna().tolist() if x > 10 and x % 0.5}
    held = {**_measured_values_in(run, measured), **_measured_values_in(model, measured)}
    assert (run / "plots" / "forecast_against_actual.png").is_file() == kept
    assert (run / "plots" / "error_by_horizon.png").is_file()
    loaded = mlflow.pyfunc.load_model(outcome.model_uri)
    sensor = str(hourly["sensor_id"].iloc[0])
    sent = hourly[hourly["sensor_id"] == sensor].tail(400)[["sensor_id", "timestamp", "avg_value"]]
    assert loaded.predict(sent)["predicted_load"].notna().all()
    alone = pd.DataFrame({"sensor_id": [sensor, "other"]})
    if kept:
        assert held.get("artifacts/state/arrays.npz", 0) > 1000 and "input_example.json" in held
        assert loaded.predict(alone)["predicted_load"].notna().any()
    else:
        assert held == {}
        with pytest.raises(mlflow.MlflowException, match="no history was sent"):
            loaded.predict(alone)


def test_the_evaluated_fit_never_saw_the_test_days(grid: Path, tracking: str, tmp_path: Path) -> None:
    """Metrics of the same data with the test days' loads doubled: the training metrics stay, the test's do not."""
    hourly = pd.concat(pd.read_parquet(path) for path in sorted((grid / "hourly_load").glob("*.parquet")))
    hourly.to_parquet(tmp_path / "a.parquet")
    late = hourly["timestamp"] > hourly.groupby("sensor_id")["timestamp"].transform("max") - pd.Timedelta(days=14)
    changed = hourly.assign(
        **{n: hourly[n].where(~late, 2 * hourly[n]) for n in ("avg_value", "min_value", "max_value")}
    )
    changed.to_parquet(tmp_path / "b.parquet")
    first, second = (
        train_load_model(str(tmp_path / f"{name}.parquet"), test_days=14, n_estimators=8, register=False).metrics
        for name in "ab"
    )
    assert {n: v for n, v in first.items() if n.startswith("train_")} == {
        n: v for n, v in second.items() if n.startswith("train_")
    }
    assert first["test_mae"] != second["test_mae"]


def test_the_anomaly_run_holds_its_scaler_and_input_report(grid: Path, tracking: str) -> None:
    outcome = train_anomaly_model(str(grid / "readings"), n_estimators=10, register=False)
    assert outcome.version is None
    folder = Path(mlflow.artifacts.download_artifacts(run_id=outcome.run_id))
    scaler = pickle.loads((folder / "scaler.pkl").read_bytes())
    assert scaler.n_features_in_ == len(BASE)
    assert json.loads((folder / "input_report.json").read_text())["kind"] == "readings"
    tags = MlflowClient().get_run(outcome.run_id).data.tags
    assert "refitted" not in tags["smartgrid.metrics_describe"]
    assert "fitted on all" in tags["smartgrid.metrics_describe"]


def test_hourly_load_trains_the_anomaly_model_too(grid: Path, tracking: str) -> None:
    outcome = train_anomaly_model(str(grid / "hourly_load"), n_estimators=10, register=False)
    assert np.isfinite(outcome.metrics["test_flagged_share"])
    assert "test_average_precision" not in outcome.metrics


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [({"test_days": 70}, "smaller test_days"), ({"covariates": "wind"}, "covariates=auto takes those present")],
)
def test_what_cannot_be_trained_fails_the_run_with_a_sentence(
    grid: Path, tracking: str, settings: dict[str, object], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        train_load_model(str(grid / "hourly_load"), n_estimators=5, **settings)
    (run,) = MlflowClient().search_runs(
        [MlflowClient().get_experiment_by_name("smartgrid-load-forecasting").experiment_id]
    )
    assert run.info.status == "FAILED"
    assert sentence in run.data.tags["smartgrid.error"]
    assert not MlflowClient().search_registered_models()


def test_a_folder_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="output must be a folder"):
        pipeline.require_writable(tmp_path / "file" / "below")


def test_refusals_name_the_model(grid: Path, tracking: str) -> None:
    outcome = train_anomaly_model(str(grid / "readings"), n_estimators=5)
    MlflowClient().log_metric(outcome.run_id, "test_average_precision", 0.0)
    MlflowClient().log_metric(outcome.run_id, "baseline_average_precision", 0.5)
    assert pipeline.promote_if_better(outcome).startswith(f"Not promoted: {ANOMALY_MODEL} version 1")
