"""What a stranger gets from the README's first command, and from serving what it promoted."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from mlflow import MlflowClient

from tests.e2e.support import Clone, Server

pytestmark = pytest.mark.e2e

LOAD, ANOMALY = "LoadForecastingModel", "AnomalyDetectionModel"
#: Of the whole command, environment creation included; the job itself is to take three minutes on two idle cores.
MOST_SECONDS = 1500


def client(job: Clone) -> MlflowClient:
    return MlflowClient(tracking_uri=job.uri, registry_uri=job.uri)


# ------------------------------------------------------------------------------------------------ the job


def test_the_job_ends_by_saying_what_it_did_and_what_to_do_next(main_job: Clone) -> None:
    assert main_job.seconds < MOST_SECONDS
    for text in (
        f"Promoted: {LOAD} version 1 is now in Production",
        f"Promoted: {ANOMALY} version 1 is now in Production",
        "better seasonal naive",
        "median/MAD",
        f"mlflow models serve -m models:/{LOAD}/Production",
        f"mlflow models serve -m models:/{ANOMALY}/Production",
        "curl http://127.0.0.1:",
    ):
        assert text in main_job.output, main_job.output[-6000:]


def test_the_job_leaves_a_forecast_and_the_flagged_readings_with_pictures(main_job: Clone) -> None:
    folder = main_job.folder / "smartgrid-output"
    forecast = pd.read_csv(folder / "forecast.csv")
    assert forecast.groupby("sensor_id").size().eq(24).all()
    assert (forecast["lower"] <= forecast["predicted_load"]).all()
    assert (forecast["predicted_load"] <= forecast["upper"]).all()
    flagged = pd.read_csv(folder / "flagged_readings.csv")
    assert len(flagged) > 0
    assert flagged["reason"].notna().all()
    for name in ("forecast.png", "flagged_readings.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("model", [LOAD, ANOMALY])
def test_stage_and_alias_name_the_same_version(main_job: Clone, model: str) -> None:
    version = client(main_job).get_model_version_by_alias(model, "champion")
    assert (str(version.version), version.current_stage) == ("1", "Production")
    assert version.tags["smartgrid.promoted_to"] == "Production"


def test_every_run_has_ended_and_the_launchers_run_is_linked(main_job: Clone) -> None:
    api = client(main_job)
    experiments = {e.name: e.experiment_id for e in api.search_experiments()}
    runs = api.search_runs(list(experiments.values()))
    assert {run.info.status for run in runs} == {"FINISHED"}
    own = {
        run.info.run_id: run
        for name in ("smartgrid-load-forecasting", "smartgrid-anomaly-detection")
        for run in api.search_runs([experiments[name]])
    }
    (launcher,) = api.search_runs([experiments["Default"]])
    assert set(launcher.data.tags["smartgrid.run_id"].split(",")) == set(own)
    assert {run.data.tags["smartgrid.launcher_run_id"] for run in own.values()} == {launcher.info.run_id}


@pytest.mark.parametrize(
    ("experiment", "params", "metrics", "artifacts"),
    [
        (
            "smartgrid-load-forecasting",
            {"n_estimators", "max_depth", "min_samples_split", "random_state", "hours_ahead"},
            {"train_mae", "train_rmse", "train_r2", "test_mae", "test_rmse", "test_r2", "naive_mae", "test_skill",
             "test_mase", "test_coverage"},
            {"feature_importance.txt", "plots/forecast_against_actual.png", "plots/error_by_horizon.png",
             "plots/error_by_hour.png", "plots/feature_importance.png", "plots/permutation_importance.png",
             "output/forecast.csv"},
        ),
        (
            "smartgrid-anomaly-detection",
            {"contamination", "n_estimators", "random_state"},
            {"n_anomalies", "n_normal", "anomaly_rate", "mean_anomaly_score", "test_average_precision",
             "baseline_average_precision", "test_roc_auc", "test_event_recall"},
            {"scaler.pkl", "plots/flagged_readings.png", "plots/score_histogram.png", "output/flagged_readings.csv"},
        ),
    ],
)  # fmt: skip
def test_the_run_holds_what_the_design_names(
    main_job: Clone, experiment: str, params: set[str], metrics: set[str], artifacts: set[str]
) -> None:
    api = client(main_job)
    (run,) = api.search_runs([api.get_experiment_by_name(experiment).experiment_id])
    assert params <= set(run.data.params)
    assert metrics <= set(run.data.metrics)
    found = {entry.path for top in ("", "plots", "output") for entry in api.list_artifacts(run.info.run_id, top)}
    assert artifacts <= found
    assert run.inputs.dataset_inputs[0].dataset.digest
    assert re.fullmatch("[0-9a-f]{40}", run.data.tags["mlflow.source.git.commit"])


# ------------------------------------------------------------------------------------------------ serving


def records(*rows: dict[str, Any], **params: Any) -> dict[str, Any]:
    return {"dataframe_records": list(rows)} | ({"params": params} if params else {})


def history(hours: int, sensor: str = "new-sensor") -> list[dict[str, Any]]:
    start = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
    times = [start + dt.timedelta(hours=h) for h in range(hours)]
    return [{"sensor_id": sensor, "timestamp": t.isoformat(), "avg_value": 100.0 + t.hour} for t in times]


def reading(value: Any, time: Any = "2026-03-01T12:00:00Z", sensor: str = "m", **more: Any) -> dict[str, Any]:
    return {"sensor_id": sensor, "sensor_type": "power", "timestamp": time, "value": value} | more


def stored_sensor(job: Clone) -> str:
    return str(pd.read_csv(job.folder / "smartgrid-output" / "forecast.csv")["sensor_id"].iloc[0])


def test_a_forecast_by_stage_over_http_has_24_rows(main_job: Clone, serve: Callable[[str], Server]) -> None:
    sensor = stored_sensor(main_job)
    status, answer = serve(LOAD).post(records({"sensor_id": sensor}))
    assert status == 200
    rows = answer["predictions"]
    assert [row["horizon"] for row in rows] == list(range(1, 25))
    written = pd.read_csv(main_job.folder / "smartgrid-output" / "forecast.csv")
    expected = written[written["sensor_id"] == sensor]["predicted_load"]
    assert [row["predicted_load"] for row in rows] == pytest.approx(expected.tolist(), rel=1e-12)


def test_history_in_the_body_is_forecast_in_json_csv_and_parquet_alike(
    serve: Callable[[str], Server], tmp_path: Path
) -> None:
    rows = history(400)
    frame = pd.DataFrame(rows)
    frame.to_parquet(tmp_path / "body.parquet")
    answers = [
        serve(LOAD).post(records(*rows)),
        serve(LOAD).post({"dataframe_split": json.loads(frame.to_json(orient="split", index=False))}),
        serve(LOAD).post(frame.to_csv(index=False).encode(), "text/csv"),
        serve(LOAD).post((tmp_path / "body.parquet").read_bytes(), "application/vnd.apache.parquet"),
    ]
    assert [status for status, _ in answers] == [200] * 4
    assert all(answer == answers[0][1] for _, answer in answers)
    assert answers[0][1]["predictions"][0]["model"] == "random_forest"
    assert 90 < answers[0][1]["predictions"][0]["predicted_load"] < 135


def test_the_naive_is_answered_where_it_is_asked_for(serve: Callable[[str], Server]) -> None:
    rows = history(400)
    status, answer = serve(LOAD).post(records(*rows, use_ml=False, hours_ahead=30))
    assert status == 200
    assert [row["predicted_load"] for row in answer["predictions"]] == [r["avg_value"] for r in rows[232:262]]
    assert {row["model"] for row in answer["predictions"]} == {"seasonal_naive"}


def test_one_bad_sensor_does_not_spoil_the_others(main_job: Clone, serve: Callable[[str], Server]) -> None:
    sensor = stored_sensor(main_job)
    status, answer = serve(LOAD).post(records({"sensor_id": "nobody"}, {"sensor_id": sensor}, hours_ahead=1))
    assert status == 200
    bad, good = answer["predictions"]
    assert (bad["sensor_id"], bad["predicted_load"], bad["model"]) == ("nobody", None, None)
    assert "unknown" in bad["reason"]
    assert good["predicted_load"] is not None


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (records({"sensor_id": "nobody"}), "no sensor of the request can be forecast"),
        (records({"wrong": 1}), "column sensor_id is required"),
        (records(), "at least one row"),
        (records({"sensor_id": "all"}, hours_ahead=0), "hours_ahead must lie in 1…168"),
        (records({"sensor_id": "all"}, hours_ahead=169), "hours_ahead must lie in 1…168"),
        (records({"sensor_id": "all"}, level=1.5), "level must lie between 0 and 1"),
        (records({"sensor_id": "a", "timestamp": 1767225600, "avg_value": 1.0}), "timestamp must be ISO 8601"),
        (records({"sensor_id": "a", "timestamp": "2026-01-01", "avg_value": "1"}), "avg_value must be a number"),
        (records({"sensor_id": "a", "avg_value": 1.0}), "timestamp is required"),
        ({"inputs": [1, 2, 3]}, "a table with named columns"),
    ],
)
def test_a_bad_forecast_request_gets_400_and_one_sentence(
    serve: Callable[[str], Server], body: Any, sentence: str
) -> None:
    assert_refused(*serve(LOAD).post(body), sentence)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (records({"sensor_id": "a"}), "is required"),
        (records(reading("12")), "value must be a number"),
        (records(reading(True)), "value must be a number"),
        (records(reading(1.0, time=1767225600)), "timestamp must be ISO 8601"),
        (records(reading(1.0, latitude=91)), "latitude must lie in"),
    ],
)
def test_a_bad_anomaly_request_gets_400_and_one_sentence(
    serve: Callable[[str], Server], body: Any, sentence: str
) -> None:
    assert_refused(*serve(ANOMALY).post(body), sentence)


def assert_refused(status: int, answer: Any, sentence: str) -> None:
    assert status == 400, answer
    assert sentence in answer["message"]
    assert answer["message"].count("\n") == 0
    assert "Traceback" not in json.dumps(answer)
    assert "stack_trace" not in answer


def test_flagged_readings_over_http_come_row_for_row_with_reasons(serve: Callable[[str], Server]) -> None:
    rows = [reading(5.0, "2026-03-01T12:00:00+02:00"), reading(None), reading(1e9, "2026-03-01T13:00:00"), reading(5)]
    status, answer = serve(ANOMALY).post(records(*rows))
    assert status == 200
    found = answer["predictions"]
    assert [row["timestamp"][11:16] for row in found] == ["10:00", "12:00", "13:00", "12:00"]
    assert found[1]["is_anomaly"] is True
    assert (found[1]["reason"], found[1]["anomaly_score"], found[1]["p_value"]) == ("no value", None, None)
    assert found[2]["is_anomaly"] is True
    assert found[2]["reason"]
    assert {row["profile"] for row in found} == {"sensor_type"}


def test_models_predict_answers_a_file(main_job: Clone, tmp_path: Path) -> None:
    (tmp_path / "request.csv").write_text(f"sensor_id\n{stored_sensor(main_job)}\n")
    done = main_job.run(
        "mlflow", "models", "predict", "-m", f"models:/{LOAD}/Production", "-i", str(tmp_path / "request.csv"),
        "-t", "csv", "-o", str(tmp_path / "answer.json"), "--env-manager", "local",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(json.loads((tmp_path / "answer.json").read_text())["predictions"]) == 24


@pytest.mark.parametrize("model", [LOAD, ANOMALY])
def test_a_fresh_environment_from_the_models_own_pins_answers_without_the_repository(
    main_job: Clone, model: str, tmp_path: Path
) -> None:
    """Made by uv, with unpickling off, in an empty working folder; the model comes from the registry."""
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not on PATH")
    request = {LOAD: records({"sensor_id": stored_sensor(main_job)}), ANOMALY: records(reading(1.0))}[model]
    (tmp_path / "request.json").write_text(json.dumps(request))
    environment = main_job.environment() | {
        "MLFLOW_TRACKING_URI": main_job.uri,
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_ENV_ROOT": str(tmp_path / "envs"),
    }
    environment["PATH"] += os.pathsep + str(Path(uv).parent)
    done = main_job.run(
        "mlflow", "models", "predict", "-m", f"models:/{model}/Production", "-i", "request.json", "-o", "answer.json",
        "--env-manager", "uv", cwd=tmp_path, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    rows = json.loads((tmp_path / "answer.json").read_text())["predictions"]
    assert len(rows) == {LOAD: 24, ANOMALY: 1}[model]
    if model == LOAD:
        written = pd.read_csv(main_job.folder / "smartgrid-output" / "forecast.csv").iloc[:24]
        assert [row["predicted_load"] for row in rows] == pytest.approx(written["predicted_load"].tolist(), rel=1e-12)


# ------------------------------------------------------------------------------------------------ promotion


def test_a_worse_version_is_refused_and_the_champion_stays(main_job: Clone) -> None:
    api = client(main_job)
    champion = api.get_model_version_by_alias(LOAD, "champion")
    worse = api.create_run(api.get_experiment_by_name("smartgrid-load-forecasting").experiment_id)
    for name, value in {"test_mae": 2.0, "naive_mae": 1.0, "test_skill": -1.0}.items():
        api.log_metric(worse.info.run_id, name, value)
    api.set_terminated(worse.info.run_id)
    version = api.create_model_version(LOAD, api.get_model_version_download_uri(LOAD, "1"), worse.info.run_id).version
    refused = main_job.run("mlflow", "run", ".", "-e", "promote", "-P", f"model={LOAD}", "--env-manager", "local")
    assert refused.returncode != 0
    assert "test_mae 2 is not below naive_mae 1" in refused.stdout + refused.stderr
    assert api.get_model_version_by_alias(LOAD, "champion").version == champion.version
    allowed = main_job.run(
        "python", "entrypoints/training_pipeline.py", "--promote", LOAD, "--version", str(champion.version)
    )
    assert allowed.returncode == 0, allowed.stderr
    staged = main_job.run(
        "mlflow", "run", ".", "-e", "promote", "-P", f"model={LOAD}", "-P", f"version={version}",
        "-P", "stage=Staging", "-P", "force=true", "--env-manager", "local",
    )  # fmt: skip
    assert staged.returncode == 0, staged.stderr
    assert api.get_model_version_by_alias(LOAD, "challenger").version == version
    assert api.get_model_version(LOAD, version).tags["smartgrid.promotion_forced"] == "true"
