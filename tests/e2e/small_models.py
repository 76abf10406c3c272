"""Both models, fitted to little data in seconds and logged as the product does it."""

from __future__ import annotations

from pathlib import Path

import mlflow
import numpy as np
import pandas as pd

from smartgrid_pyfunc.lifecycle.packaging import log_model
from smartgrid_pyfunc.models.anomaly_detection import AnomalyDetectionModel
from smartgrid_pyfunc.models.load_forecasting import LoadForecastingModel
from smartgrid_pyfunc.schema import ANOMALY_MODEL, LOAD_MODEL
from tests.conftest import _forget_mlflow_state

STORED_SENSOR = "feeder"
_SENSORS = {STORED_SENSOR: 100.0, "house": 1.0, "Zähler ß": 5.0}
_DAYS = 45


def hourly_load() -> pd.DataFrame:
    """Return 45 days of hourly load of three sensors, with a daily course."""
    rng, hour = np.random.default_rng(0), np.arange(_DAYS * 24)
    times = (pd.Timestamp("2024-03-01", tz="UTC") + pd.to_timedelta(hour, unit="h")).strftime("%Y-%m-%dT%H:%M:%SZ")
    course = 2 + np.sin(hour / 24 * 2 * np.pi)
    frames = [
        pd.DataFrame(
            {"sensor_id": name, "timestamp": times, "avg_value": size * (course + rng.normal(0, 0.1, len(hour)))}
        )
        for name, size in _SENSORS.items()
    ]
    return pd.concat(frames, ignore_index=True)


def saved_models(folder: Path) -> dict[str, Path]:
    """Fit and log both models below `folder`; return the folder of each."""
    hourly = hourly_load()
    readings = hourly.rename(columns={"avg_value": "value"}).assign(sensor_type="power")
    fitted = {
        LOAD_MODEL: LoadForecastingModel(n_estimators=8, max_rows=2_000).fit(hourly),
        ANOMALY_MODEL: AnomalyDetectionModel(n_estimators=20).fit(readings),
    }
    examples = {LOAD_MODEL: pd.DataFrame({"sensor_id": [STORED_SENSOR]}), ANOMALY_MODEL: readings.head(3)}
    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = mlflow.create_experiment("small-models", (folder / "artifacts").as_uri())
    found = {}
    for name, model in fitted.items():
        with mlflow.start_run(experiment_id=experiment):
            info = log_model(model, name, examples[name])
        found[name] = Path(mlflow.artifacts.download_artifacts(info.model_uri, dst_path=str(folder / name)))
    _forget_mlflow_state()
    return found
