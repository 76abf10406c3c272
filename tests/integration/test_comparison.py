"""Comparing registered versions, and the gate: real registry, real processes, versions whose code differs."""

from __future__ import annotations

from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import AnyType

from smartgrid_pyfunc import predictions
from smartgrid_pyfunc.comparison import Limits, against_champion, compare
from smartgrid_pyfunc.comparison.costs import incompatibilities
from smartgrid_pyfunc.comparison.fairness import Unfair
from smartgrid_pyfunc.comparison.forecasts import LoadData, answers, newest_window
from smartgrid_pyfunc.evaluation.comparison import KEYS
from smartgrid_pyfunc.lifecycle import evidence, registry, runs
from smartgrid_pyfunc.lifecycle.errors import LifecycleError, PromotionRefused
from smartgrid_pyfunc.lifecycle.versions import find
from smartgrid_pyfunc.schema import ANOMALY_MODEL, LOAD_MODEL, InputError

pytestmark = pytest.mark.integration

DAYS, TEST_DAYS = 70, 28
_CODE = """
import mlflow
import pandas as pd


class Yesterday(mlflow.pyfunc.PythonModel):
    '''The load of the day before, times a factor that stands in the code.'''

    def load_context(self, context):
        from smartgrid_pyfunc.factor import FACTOR

        self.factor = FACTOR

    def predict(self, context, model_input, params=None):
        hours = (params or {}).get("hours_ahead", 24)
        frame = model_input.assign(timestamp=pd.to_datetime(model_input["timestamp"], utc=True))
        parts = []
        for sensor, rows in frame.dropna(subset=["avg_value"]).groupby("sensor_id"):
            origin = rows["timestamp"].max()
            known = rows.set_index("timestamp")["avg_value"]
            times = [origin + pd.Timedelta(hours=h) for h in range(1, hours + 1)]
            day, factor = pd.Timedelta(days=1), self.factor(str(sensor))
            values = [factor * float(known.get(t - day, float("nan"))) for t in times]
            part = pd.DataFrame({"sensor_id": sensor, "horizon": range(1, hours + 1), "predicted_load": values})
            part["origin"], part["model"], part["reason"] = origin.isoformat(), "yesterday", None
            part["timestamp"] = [t.isoformat() for t in times]
            parts.append(part.assign(lower=part["predicted_load"] * 0.8, upper=part["predicted_load"] * 1.2))
        return pd.concat(parts, ignore_index=True)


mlflow.models.set_model(Yesterday())
"""


def hourly() -> pd.DataFrame:
    """Two kinds of sensor whose load is the same every day, but for noise."""
    rng = np.random.default_rng(0)
    times = pd.date_range("2026-01-05T00:00Z", periods=DAYS * 24, freq="h")
    course = 1 + 0.5 * np.sin(2 * np.pi * times.hour / 24)
    parts = [
        pd.DataFrame(
            {"sensor_id": name, "timestamp": times, "avg_value": size * (course + 0.1 * rng.normal(size=len(times)))}
        )
        for name, size in (("house-1", 1.0), ("house-2", 2.0), ("plant-1", 100.0))
    ]
    return pd.concat(parts, ignore_index=True)


@pytest.fixture
def data(tmp_path: Path) -> str:
    path = tmp_path / "hourly.parquet"
    hourly().to_parquet(path)
    return str(path)


def version(
    folder: Path, name: str, factor: str, learnt: str, data: str, extra: str = "", model: str = LOAD_MODEL
) -> str:
    """Register a version whose bundled code forecasts `factor` × yesterday, and that has learnt until `learnt`."""
    package = folder / name / "smartgrid_pyfunc"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "factor.py").write_text(f"FACTOR = {factor}\n")
    code = folder / name / "code.py"
    code.write_text(_CODE)
    example = hourly().query("sensor_id == 'plant-1'").tail(200).astype({"timestamp": str}).reset_index(drop=True)
    if extra:
        example[extra] = 1.0
    signature = ModelSignature(
        Schema([ColSpec(AnyType(), name) for name in example.columns]),
        Schema([ColSpec("double", "predicted_load")]),
        ParamSchema([ParamSpec("hours_ahead", "long", 24), ParamSpec("level", "double", 0.9)]),
    )
    with runs.tracked_run("smartgrid-load-forecasting", run_name=name) as run:
        detector = {"test_average_precision": 0.6, "baseline_average_precision": 0.3}
        runs.log_results({"data": data, "timezone": "UTC"}, {"test_mae": 1.0, "naive_mae": 2.0} | detector)
        runs.set_tags({evidence.TAG_LEARNT_UNTIL: learnt})
        mlflow.pyfunc.log_model(
            name="model", python_model=str(code), code_paths=[str(package)], pip_requirements=["mlflow"],
            signature=signature, input_example=example,
        )  # fmt: skip
    return registry.register(run.info.run_id, model)


def record_test(number: str, factor: float, seed: int = 1, slip: int = 0) -> None:
    """Record for a version what a fit without the last days forecast in them: actual × factor, with noise.

    With `slip` the clock of its data was wrong by some hours.
    """
    frame, rng = hourly(), np.random.default_rng(seed)
    frame["avg_value"] = frame.groupby("sensor_id")["avg_value"].transform(lambda values: np.roll(values, slip))
    run_id = mlflow.MlflowClient().get_model_version(LOAD_MODEL, number).run_id
    known = frame.set_index(["sensor_id", "timestamp"])["avg_value"]
    origins = pd.date_range(frame["timestamp"].max() - pd.Timedelta(days=TEST_DAYS), periods=TEST_DAYS, freq="D")
    keys = [(s, o, h) for s in frame["sensor_id"].unique() for o in origins for h in range(1, 25)]
    rows = pd.DataFrame(keys, columns=["sensor_id", "origin", "horizon"])
    rows["timestamp"] = rows["origin"] + pd.to_timedelta(rows["horizon"], unit="h")
    for name, lag in (("actual", 0), ("naive_24", 24), ("naive_168", 168)):
        at = pd.MultiIndex.from_arrays([rows["sensor_id"], rows["timestamp"] - pd.Timedelta(hours=lag)])
        rows[name] = known.reindex(at).to_numpy()
    # Two fits to nearly the same data err alike.
    error = 0.05 * np.random.default_rng(0).normal(size=len(rows)) + 0.005 * rng.normal(size=len(rows))
    rows["predicted"] = rows["actual"] * (factor + error)
    rows["lower"], rows["upper"] = rows["predicted"] * 0.9, rows["predicted"] * 1.1
    mlflow.set_experiment(experiment_id=mlflow.get_run(run_id).info.experiment_id)
    with mlflow.start_run(run_id=run_id):
        evidence.record(LOAD_MODEL, rows)


EARLY, LATE = "2026-02-01T00:00:00+00:00", "2026-03-15T23:00:00+00:00"
GOOD, BAD = "lambda sensor: 1.0", "lambda sensor: 1.3"
HOUSES_BAD = "lambda sensor: 1.4 if sensor.startswith('house') else 1.0"


def test_each_version_is_scored_by_its_own_code_on_newer_data(tracking, tmp_path, data):
    first = version(tmp_path, "bad", BAD, EARLY, data)
    second = version(tmp_path, "good", GOOD, EARLY, data)
    registry.promote(LOAD_MODEL, version=first)
    registry.promote(LOAD_MODEL, version=second, stage="Staging")
    found = compare(LOAD_MODEL, ["Production", "challenger"], data=data, days=TEST_DAYS)
    table = found.comparison.overall.set_index("version")
    assert found.verdict == "better"
    # One shared code would give both the same error: yesterday is the naive itself, and 1.3 times it is not.
    assert table.loc["version 2", "mae"] == pytest.approx(table.loc["seasonal naive", "mae"], rel=0.05)
    assert table.loc["version 1", "mae"] > 2 * table.loc["version 2", "mae"]
    assert "version 2 is better than version 1" in found.words
    assert found.costs["1"].latency_ms > 0
    run = mlflow.get_run(found.run_id)
    assert run.data.tags["smartgrid.verdict"] == "better"
    assert run.data.metrics["mae/version_2"] == pytest.approx(table.loc["version 2", "mae"])
    client = mlflow.MlflowClient()
    kept = {entry.path for folder in ("tables", "plots") for entry in client.list_artifacts(found.run_id, folder)}
    assert {"tables/overall.csv", "tables/by_group.csv", "tables/by_hour.csv", "tables/daily.csv"} < kept
    assert {"plots/daily_difference.png", "plots/ratio_by_group.png", "plots/ratio_by_horizon.png"} < kept
    assert (
        compare(LOAD_MODEL, ["1"], data=data, days=14).verdict == "better"
    )  # only beside the naive, which is far better


def test_nothing_after_an_origin_moves_its_forecast(tracking, tmp_path, data):
    named = find(LOAD_MODEL, version(tmp_path, "bad", BAD, EARLY, data))
    frame = hourly()
    late = frame["timestamp"] >= frame["timestamp"].max() - pd.Timedelta(days=3)
    frame.loc[late, "avg_value"] *= 5
    changed = tmp_path / "changed.parquet"
    frame.to_parquet(changed)
    found = []
    for place in (data, str(changed)):
        source = LoadData(place)
        window = newest_window(source, days=10, hours_ahead=24, timezone="UTC")
        found.append(answers(named, window, source).frame.sort_values(KEYS, ignore_index=True))
    before, after = (part[part["origin"] < frame.loc[late, "timestamp"].min()] for part in found)
    assert len(before) == 3 * 24 * 7
    pd.testing.assert_frame_equal(before, after)
    assert not found[0].equals(found[1])


def test_a_version_that_has_learnt_from_the_window_is_judged_by_its_recorded_test_or_not_at_all(
    tracking, tmp_path, data
):
    first = version(tmp_path, "old", GOOD, EARLY, data)
    second = version(tmp_path, "new", GOOD, LATE, data)
    with pytest.raises(Unfair, match=r"version 2 cannot be judged .* knew data until 2026-03-15"):
        compare(LOAD_MODEL, [first, second], data=data)
    with pytest.raises(LifecycleError, match=r"recorded no test answers .* data=…"):
        compare(LOAD_MODEL, [first, second])
    record_test(second, factor=1.0)
    found = compare(LOAD_MODEL, [first, second])  # the window of its own test, the former version scored on the data
    assert found.verdict == "better"
    assert found.comparison.overall["rows"].iloc[0] > 0.9 * 3 * TEST_DAYS * 24
    about = mlflow.get_run(found.run_id).data.tags["mlflow.note.content"]
    assert "version 1: scored in a process of its own" in about
    assert "version 2: as recorded by its training" in about


def test_the_gate_lets_a_version_that_is_not_worse_replace_the_champion(tracking, tmp_path, data):
    for name in ("first", "second"):
        version(tmp_path, name, GOOD, LATE, data)
    record_test("1", factor=1.0, seed=1)
    record_test("2", factor=1.0, seed=2)
    registry.promote(LOAD_MODEL, version=1)
    promoted = registry.promote(LOAD_MODEL, version=2, compare=against_champion(LOAD_MODEL))
    assert promoted.former == "1"
    decision = mlflow.get_run(promoted.decision)
    evidence_run = mlflow.get_run(decision.data.tags["smartgrid.evidence"])
    assert evidence_run.data.tags["smartgrid.versions"] == "1,2"
    assert decision.data.metrics["loss_ratio"] == pytest.approx(1, abs=0.1)
    assert {"loss_ratio_allowed", "loss_ratio/house", "size_mb", "latency_ms"} <= decision.data.metrics.keys()


@pytest.mark.parametrize(
    ("factor", "limits", "said"),
    [
        (1.2, Limits(), "not shown to be at most 3% worse than version 1: version 2 is worse than version 1"),
        (1.0, Limits(max_size_mb=0.0001), "MB, above"),
        (1.0, Limits(max_slowdown=1e-6), "ms a request, above"),
    ],
)
def test_the_gate_refuses_what_does_not_keep_a_limit_and_says_which(tracking, tmp_path, data, factor, limits, said):
    version(tmp_path, "first", GOOD, LATE, data)
    version(tmp_path, "second", GOOD, LATE, data)
    record_test("1", factor=1.0)
    record_test("2", factor=factor)
    registry.promote(LOAD_MODEL, version=1)
    with pytest.raises(PromotionRefused, match=said):
        registry.promote(LOAD_MODEL, version=2, compare=against_champion(LOAD_MODEL, limits=limits))
    assert registry.production_version(LOAD_MODEL) == "1"
    _, taken = registry.audit(LOAD_MODEL)
    assert (taken[-1].verdict, mlflow.get_run(taken[-1].evidence).data.tags["smartgrid.versions"]) == ("refused", "1,2")


def test_the_gate_refuses_a_group_that_is_badly_worse(tracking, tmp_path, data):
    version(tmp_path, "first", "lambda sensor: 1.05", EARLY, data)
    version(tmp_path, "second", HOUSES_BAD, EARLY, data)
    registry.promote(LOAD_MODEL, version=1)
    with pytest.raises(PromotionRefused) as refused:
        registry.promote(LOAD_MODEL, version=2, compare=against_champion(LOAD_MODEL, data=data))
    assert "the sensors house are" in str(refused.value)
    assert "plant" not in str(refused.value)


def test_a_version_that_takes_other_requests_is_told(tracking, tmp_path, data):
    first = find(LOAD_MODEL, version(tmp_path, "first", GOOD, EARLY, data))
    second = find(LOAD_MODEL, version(tmp_path, "second", GOOD, EARLY, data, extra="humidity"))
    assert incompatibilities(first, second) == ["it requires the column humidity"]
    assert incompatibilities(second, first) == []


def test_what_cannot_be_compared_is_refused_with_the_remedy_and_force_overrules(tracking, tmp_path, data):
    for name in ("first", "second"):
        version(tmp_path, name, GOOD, LATE, data)
    registry.promote(LOAD_MODEL, version=1)
    with pytest.raises(PromotionRefused, match=r"could not be compared with version 1 in Production: .* data=…"):
        registry.promote(LOAD_MODEL, version=2, compare=against_champion(LOAD_MODEL))
    forced = registry.promote(LOAD_MODEL, version=2, compare=against_champion(LOAD_MODEL), force=True)
    assert (forced.version, forced.forced) == ("2", True)
    assert "not compared with version 1" in mlflow.get_run(forced.decision).data.tags["smartgrid.reason"]


def test_forecasts_that_were_made_are_compared_from_the_table_of_predictions(tracking, tmp_path, data):
    first, second = (version(tmp_path, name, GOOD, LATE, data) for name in ("first", "second"))
    for number, factor in ((first, 1.2), (second, 1.0)):
        record_test(number, factor)
        run_id = mlflow.MlflowClient().get_model_version(LOAD_MODEL, number).run_id
        made = evidence.recorded(LOAD_MODEL, run_id)
        assert made is not None
        made = made.rename(columns={"predicted": "predicted_load"})[
            ["sensor_id", "origin", "horizon", "timestamp", "predicted_load", "lower", "upper"]
        ]
        predictions.write_forecasts(
            str(tmp_path / "predictions"),
            made.assign(
                model=LOAD_MODEL, version=number, variant="", made_at=made["origin"], level=0.9, method="m", reason=None
            ),
        )
    found = compare(LOAD_MODEL, [first, second], data=data, predictions=str(tmp_path / "predictions"))
    assert found.verdict == "better"
    assert "as made and kept" in mlflow.get_run(found.run_id).data.tags["mlflow.note.content"]


def test_bad_parameters_are_told_before_anything_is_scored(tracking, tmp_path, data):
    version(tmp_path, "first", GOOD, EARLY, data)
    with pytest.raises(InputError, match="at least two different versions"):
        compare(ANOMALY_MODEL, [""])
    with pytest.raises(InputError, match="model must be"):
        compare("Other", ["1"])
    with pytest.raises(LifecycleError, match="no version 9"):
        compare(LOAD_MODEL, ["1", "9"])
    groups = tmp_path / "groups.csv"
    groups.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="sensor_id and group"):
        compare(LOAD_MODEL, ["1"], data=data, groups=str(groups))
    with pytest.raises(InputError, match="margin must lie between 0 and 1"):
        Limits(margin=2.0)


def test_detectors_are_compared_on_the_labels_of_their_tests(tracking, tmp_path, data):
    rng = np.random.default_rng(0)
    times = pd.date_range("2026-01-05T00:00Z", periods=10 * 7 * 24, freq="h")
    parts = [pd.DataFrame({"sensor_id": f"s{n}", "sensor_type": "power", "timestamp": times}) for n in range(3)]
    test = pd.concat(parts, ignore_index=True)
    test["is_anomaly"] = rng.random(len(test)) < 0.03
    for name, strength in (("first", 3.0), ("second", 1.0)):
        number = version(tmp_path, name, GOOD, LATE, data, model=ANOMALY_MODEL)
        score = rng.normal(size=len(test)) + strength * test["is_anomaly"]
        run_id = mlflow.MlflowClient().get_model_version(ANOMALY_MODEL, number).run_id
        mlflow.set_experiment(experiment_id=mlflow.get_run(run_id).info.experiment_id)
        with mlflow.start_run(run_id=run_id):
            evidence.record(ANOMALY_MODEL, test.assign(score=score, flag=score > 2.3))
    registry.promote(ANOMALY_MODEL, version=1)
    with pytest.raises(PromotionRefused, match="version 2 is worse than version 1: its 1 − average precision is"):
        registry.promote(ANOMALY_MODEL, version=2, compare=against_champion(ANOMALY_MODEL))
    assert compare(ANOMALY_MODEL, ["2", "1"]).verdict == "better"


def test_a_detector_whose_test_had_no_labels_meets_the_limits_only(tracking, tmp_path, data):
    for name in ("first", "second"):
        version(tmp_path, name, GOOD, LATE, data, model=ANOMALY_MODEL)
    registry.promote(ANOMALY_MODEL, version=1)
    promoted = registry.promote(ANOMALY_MODEL, version=2, compare=against_champion(ANOMALY_MODEL))
    assert "latency_ms" in mlflow.get_run(promoted.decision).data.metrics
    small = against_champion(ANOMALY_MODEL, limits=Limits(max_size_mb=0.0001))
    with pytest.raises(PromotionRefused, match="MB, above"):
        registry.promote(ANOMALY_MODEL, version=1, compare=small)


def test_a_record_of_other_data_for_the_same_hours_is_no_evidence(tracking, tmp_path, data):
    """A version from an export whose clock is wrong is best on that export: it must not win by its own test there."""
    for name in ("first", "second"):
        version(tmp_path, name, GOOD, LATE, data)
    record_test("1", factor=1.0)
    record_test("2", factor=1.0, seed=2, slip=6)
    registry.promote(LOAD_MODEL, version=1)
    with pytest.raises(PromotionRefused, match=r"version 1 was tested on the same hours of other data .* data=…"):
        registry.promote(LOAD_MODEL, version=2, compare=against_champion(LOAD_MODEL))


def test_predictions_without_data_are_refused_before_a_run_is_opened(tracking, tmp_path):
    with pytest.raises(InputError, match="what then happened"):
        compare(LOAD_MODEL, ["1", "2"], predictions=str(tmp_path))
    assert mlflow.get_experiment_by_name("smartgrid-comparisons") is None
