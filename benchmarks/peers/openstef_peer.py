"""OpenSTEF: a model per sensor, through the steps of its own training and forecasting pipelines."""

from __future__ import annotations

from typing import Any

import pandas as pd
from openstef.data_classes.model_specifications import ModelSpecificationDataClass
from openstef.data_classes.prediction_job import PredictionJobDataClass
from openstef.pipeline import train_model
from openstef.pipeline.create_forecast import create_forecast_pipeline_core
from openstef.settings import Settings

from peers.task import Task

_HISTORY_HOURS = 24 * 30
_HORIZONS = [1.0, 24.0]  # hours: the nearest and the farthest of the forecasts asked for


def create(options: dict[str, Any]) -> OpenstefPeer:
    # Its warnings at every forecast should not count as cost.
    Settings.log_level = "ERROR"
    return OpenstefPeer(options["estimator"])


class OpenstefPeer:
    packages = ("openstef", "lightgbm", "xgboost-cpu", "scikit-learn", "pandas", "numpy")

    def __init__(self, model: str) -> None:
        self._model = model
        self._fitted: dict[str, tuple[Any, Any, Any]] = {}

    def fit(self, task: Task) -> None:
        for number, (sensor, rows) in enumerate(task.before(task.grid, 0).groupby("sensor_id")):
            self._fitted[sensor] = self._fit_one(number, sensor, _input(task, rows))

    def _fit_one(self, number: int, sensor: str, rows: pd.DataFrame) -> tuple[Any, Any, Any]:
        job = PredictionJobDataClass(
            id=number, name=sensor, model=self._model, forecast_type="demand", resolution_minutes=60, quantiles=[0.5]
        )
        specification = ModelSpecificationDataClass(id=number)
        features = train_model.train_pipeline_step_compute_features(job, specification, rows, _HORIZONS)
        train, validation, *_ = train_model.train_pipeline_step_split_data(features, job, test_fraction=0.0)
        model = train_model.train_pipeline_step_train_model(job, specification, train, validation)
        model.path = "not stored"  # the forecasting step repeats it in its answer
        specification.feature_names = list(train.columns)
        return job, specification, model

    def forecast(self, task: Task, day: int) -> pd.DataFrame:
        past = task.before(task.grid, day, _HISTORY_HOURS)
        ahead = task.during(task.grid, day).assign(avg_value=float("nan"))
        both = pd.concat([past, ahead])
        return pd.concat([self._forecast_one(task, s, rows) for s, rows in both.groupby("sensor_id")])

    def _forecast_one(self, task: Task, sensor: str, rows: pd.DataFrame) -> pd.DataFrame:
        job, specification, model = self._fitted[sensor]
        answer = create_forecast_pipeline_core(job, _input(task, rows), model, specification)["forecast"].tail(24)
        times = answer.index.tz_convert("UTC").tz_localize(None)
        return pd.DataFrame({"sensor_id": sensor, "timestamp": times, "predicted": answer.to_numpy()})


def _input(task: Task, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the load first, then the predictors, under the names that OpenSTEF knows."""
    table = rows.set_index("timestamp")[["avg_value", *task.known]]
    table.index = table.index.tz_localize("UTC")
    return table.rename(columns={"avg_value": "load", "temperature": "temp"})
