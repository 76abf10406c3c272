"""Logged models in a fresh process: another folder, without this repository, with pickle refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml

from smartgrid_pyfunc.lifecycle.packaging import log_model, requirements
from smartgrid_pyfunc.models.anomaly_detection import AnomalyDetectionModel
from smartgrid_pyfunc.models.load_forecasting import LoadForecastingModel
from smartgrid_pyfunc.schema import ANOMALY_MODEL, LOAD_MODEL

pytestmark = pytest.mark.integration

#: Loading a model for serving must not pay for these.
HEAVY = [
    "pyspark",
    "duckdb",
    "matplotlib",
    "boto3",
    "sqlalchemy",
    "psycopg",
    "psycopg2",
    "sqlite3",
    "holidays",
    "click",
]

FRESH = """
import json, sys
from pathlib import Path
import pandas as pd

folder = Path(sys.argv[1])
assert not [p for p in sys.path if Path(p or ".").resolve() == Path(sys.argv[2])], sys.path
import mlflow.pyfunc
before = set(sys.modules)
model = mlflow.pyfunc.load_model(str(folder / "model"))
after = set(sys.modules)
answers = {}
for name, params in json.loads((folder / "requests.json").read_text()).items():
    rows = pd.DataFrame(**json.loads((folder / f"{name}.json").read_text()), dtype=object)
    answers[name] = model.predict(rows, params=params or None).to_dict("records")
code = sys.modules["smartgrid_pyfunc"].__file__
found = {"answers": answers, "loaded": sorted(after), "new": sorted(after - before), "code": code}
print(json.dumps(found, allow_nan=False))
"""

Request = tuple[pd.DataFrame, dict[str, Any]]


def hourly() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    hour = np.arange(45 * 24)
    times = pd.Timestamp("2024-03-01", tz="UTC") + pd.to_timedelta(hour, unit="h")
    frames = [
        pd.DataFrame({"sensor_id": name, "timestamp": times, "temperature": rng.normal(15, 5, len(hour))}).assign(
            avg_value=size * (2 + np.sin(hour / 24 * 2 * np.pi) + rng.normal(0, 0.1, len(hour)))
        )
        for name, size in {"feeder": 100.0, "house": 1.0, "Zähler ß": 5.0}.items()
    ]
    frame = pd.concat(frames, ignore_index=True)
    return frame.assign(timestamp=frame["timestamp"].dt.strftime("%Y-%m-%dT%H:%M:%SZ"))


def readings() -> pd.DataFrame:
    frame = hourly().rename(columns={"avg_value": "value"}).drop(columns="temperature")
    frame = frame.assign(sensor_type="power", latitude=51.5, longitude=-0.1)
    frame.loc[500, "value"] = 1e4
    return frame[["sensor_id", "sensor_type", "timestamp", "value", "latitude", "longitude"]]


def load_case() -> tuple[LoadForecastingModel, dict[str, Request]]:
    rows = hourly()
    model = LoadForecastingModel(n_estimators=8, max_rows=2_000, timezone="Australia/Melbourne", country="AU-VIC").fit(
        rows
    )
    requests: dict[str, Request] = {
        "stored": (pd.DataFrame({"sensor_id": ["all"]}), {"hours_ahead": 168, "explain": True}),
        "sent": (rows[rows["sensor_id"] == "feeder"].tail(672), {"level": 0.5}),
        "naive": (rows.tail(200).assign(avg_value=lambda f: f["avg_value"].round().astype(int)), {"use_ml": False}),
        "mixed": (pd.DataFrame({"sensor_id": ["nobody", "house"]}), {}),
    }
    return model, requests


def anomaly_case() -> tuple[AnomalyDetectionModel, dict[str, Request]]:
    rows = readings()
    model = AnomalyDetectionModel(n_estimators=20, timezone="Australia/Melbourne").fit(rows)
    requests: dict[str, Request] = {
        "history": (rows.head(600), {}),
        "single": (rows.iloc[[500]], {}),
        "unknown": (rows.tail(50).assign(sensor_id="new", latitude=None), {}),
        "no value": (rows.tail(5).assign(value=[1.0, None, 2.0, None, 3.0]), {}),
    }
    return model, requests


CASES = {LOAD_MODEL: load_case, ANOMALY_MODEL: anomaly_case}


def fresh_process(folder: Path, repo: Path) -> dict[str, Any]:
    """Load the model of `folder` and answer its requests in a process that knows nothing of this checkout."""
    script = folder / "fresh.py"
    script.write_text(FRESH, encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COVERAGE"))}
    environment |= {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false", "MLFLOW_TRACKING_URI": "file:///nowhere"}
    done = subprocess.run(
        [sys.executable, str(script), str(folder), str(repo)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(params=sorted(CASES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_logged_model_answers_the_same_in_a_fresh_process(
    name: str, tracking: str, tmp_path: Path, repo: Path
) -> None:
    fitted, requests = CASES[name]()
    with mlflow.start_run():
        info = log_model(fitted, name, next(iter(requests.values()))[0].head(3))
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    mlflow.artifacts.download_artifacts(info.model_uri, dst_path=str(folder / "model"))
    for title, (rows, _) in requests.items():
        rows.to_json(folder / f"{title}.json", orient="split", index=False, double_precision=15)
    (folder / "requests.json").write_text(json.dumps({title: params for title, (_, params) in requests.items()}))

    assert_nothing_pickled(folder / "model", repo)
    found = fresh_process(folder, repo)

    assert Path(found["code"]).is_relative_to(folder)
    for title, (_, params) in requests.items():
        sent = pd.DataFrame(**json.loads((folder / f"{title}.json").read_text()), dtype=object)
        assert found["answers"][title] == fitted.predict(None, sent, params or None).to_dict("records"), title
    assert_light(found)


def assert_light(found: dict[str, Any]) -> None:
    """Neither loading nor what it builds upon imports what serving does not need."""
    packages = {module.partition(".")[0] for module in found["new"]}
    assert not packages & set(HEAVY)
    always = {module.partition(".")[0] for module in found["loaded"]}
    assert not always & {"pyspark", "duckdb", "matplotlib", "boto3", "psycopg", "psycopg2"}


def assert_nothing_pickled(model: Path, repo: Path) -> None:
    files = [path for path in model.rglob("*") if path.is_file()]
    assert not [path for path in files if path.suffix in {".pkl", ".pickle", ".joblib", ".cloudpickle"}]
    assert not [path for path in files if "__pycache__" in path.parts]
    for path in files:
        if path.suffix not in {".npz"}:
            assert str(repo) not in path.read_text(encoding="utf-8"), f"{path} names the checkout"


def test_requirements_are_the_exact_pins_of_the_product(repo: Path) -> None:
    pins = set((repo / "requirements.txt").read_text(encoding="utf-8").split())
    assert set(requirements(LOAD_MODEL)) | set(requirements(ANOMALY_MODEL)) <= pins


def test_the_package_names_its_environment_columns_and_parameters(tracking: str, tmp_path: Path) -> None:
    fitted, requests = load_case()
    with mlflow.start_run():
        info = log_model(fitted, LOAD_MODEL, requests["stored"][0], metadata={"note": "x"})
    folder = Path(mlflow.artifacts.download_artifacts(info.model_uri, dst_path=str(tmp_path / "model")))
    assert set((folder / "requirements.txt").read_text().split()) == set(requirements(LOAD_MODEL))
    mlmodel = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))
    assert mlmodel["metadata"]["note"] == "x"
    parameters = {p["name"]: p["default"] for p in json.loads(mlmodel["signature"]["params"])}
    assert parameters == {"hours_ahead": 24, "use_ml": True, "level": 0.9, "explain": False}
    answer = fitted.predict(None, requests["stored"][0])
    assert [column["name"] for column in json.loads(mlmodel["signature"]["outputs"])] == list(answer.columns)
    assert mlflow.pyfunc.load_model(str(folder)).input_example is not None
