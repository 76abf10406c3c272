"""Laws of the anomaly model: causal, row by row, calibrated, strict JSON, the same after loading."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from scipy import stats
from sklearn.ensemble import IsolationForest

from smartgrid_pyfunc.evaluation.detection import event_recall
from smartgrid_pyfunc.features.profile import DEVIATIONS
from smartgrid_pyfunc.features.readings import ReadingContext, parse_readings, read_context
from smartgrid_pyfunc.models import calibration, isolation
from smartgrid_pyfunc.models.anomaly_detection import ANSWER, AnomalyDetectionModel, feature_names
from smartgrid_pyfunc.models.calibration import Calibration
from smartgrid_pyfunc.schema import InputError
from smartgrid_pyfunc.simulation import simulate
from smartgrid_pyfunc.sources import load_readings

Frame = pd.DataFrame
_ROW = {"sensor_id": "s0", "sensor_type": "power", "timestamp": "2026-03-02T10:00:00Z", "value": 10.0}


def _normal(sensors: int = 4, weeks: int = 6, seed: int = 0, start: str = "2026-01-05") -> Frame:
    """Independent normal readings: exchangeable in every respect."""
    times = pd.date_range(start, periods=168 * weeks, freq="1h", tz="UTC")
    rng = np.random.default_rng(seed)
    frames = [
        pd.DataFrame({"sensor_id": f"s{i}", "sensor_type": ("power", "voltage")[i % 2], "timestamp": times})
        for i in range(sensors)
    ]
    frame = pd.concat(frames, ignore_index=True)
    return frame.assign(value=10.0 + rng.normal(size=len(frame)))


@pytest.fixture(scope="module")
def model() -> AnomalyDetectionModel:
    return AnomalyDetectionModel(n_estimators=50, contamination=0.02).fit(_normal())


@pytest.fixture(scope="module")
def request_rows() -> Frame:
    """Ten days with spikes, stuck values, gaps, duplicates, conflicts and missing values; unknown sensors too."""
    frame = _normal(weeks=2, seed=7, start="2026-02-16").groupby("sensor_id").head(240).reset_index(drop=True)
    rng = np.random.default_rng(1)
    frame.loc[rng.choice(len(frame), 12, replace=False), "value"] = 60.0
    frame.loc[100:130, "value"] = 9.5
    frame = frame.drop(index=rng.choice(len(frame), 60, replace=False))
    again, other, empty = (frame.sample(15, random_state=i) for i in range(3))
    new = frame.query("sensor_id == 's1'").assign(sensor_id="new")
    odd = frame.query("sensor_id == 's2'").assign(sensor_id="odd", sensor_type="pressure")
    parts = [frame, again, other.assign(value=33.0), empty.assign(value=np.nan, sensor_id="s3"), new, odd]
    return pd.concat(parts, ignore_index=True)


def _equal(left: Frame, right: Frame) -> None:
    pd.testing.assert_frame_equal(
        left.reset_index(drop=True), right.reset_index(drop=True), check_dtype=False, check_exact=True
    )


def _with(**cells: Any) -> Frame:
    return pd.DataFrame([_ROW | cells])


# --- Whose rows an answer depends on ----------------------------------------------------------------------------------


def test_an_answer_has_a_row_for_each_row_in_the_order_of_the_request(model, request_rows):
    answer = model.predict(None, request_rows)
    assert tuple(answer.columns) == ANSWER
    assert answer["sensor_id"].tolist() == request_rows["sensor_id"].tolist()
    assert (pd.to_datetime(answer["timestamp"]).to_numpy() == request_rows["timestamp"].to_numpy()).all()
    assert 0 < answer["is_anomaly"].mean() < 0.5


def test_row_order_does_not_matter(model, request_rows):
    order = np.random.default_rng(3).permutation(len(request_rows))
    answer = model.predict(None, request_rows)
    _equal(model.predict(None, request_rows.iloc[order]), answer.iloc[order])


def test_later_rows_of_a_sensor_change_no_earlier_answer(model, request_rows):
    answer = model.predict(None, request_rows)
    early = (request_rows["timestamp"] < pd.Timestamp("2026-02-21", tz="UTC")).to_numpy()
    _equal(model.predict(None, request_rows[early]), answer[early])
    changed = request_rows.assign(value=np.where(early, request_rows["value"], -500.0))
    _equal(model.predict(None, changed)[early], answer[early])


def test_other_sensors_and_cuts_between_sensors_do_not_matter(model, request_rows):
    answer = model.predict(None, request_rows)
    for _, rows in request_rows.groupby("sensor_id"):
        _equal(model.predict(None, rows), answer.loc[rows.index])


def test_predict_learns_nothing_and_leaves_its_input_alone(model, request_rows):
    before = request_rows.copy(deep=True)
    first = model.predict(None, request_rows)
    model.predict(None, _with(value=1e6))
    _equal(model.predict(None, request_rows), first)
    pd.testing.assert_frame_equal(request_rows, before)


def test_fit_leaves_its_input_alone_and_repeats_itself():
    frame = _normal(sensors=2, weeks=4)
    before = frame.copy(deep=True)
    first, second = (AnomalyDetectionModel(n_estimators=5).fit(frame).predict(None, frame) for _ in range(2))
    _equal(first, second)
    pd.testing.assert_frame_equal(frame, before)


def test_fit_does_not_depend_on_row_order():
    frame = _normal(sensors=2, weeks=4)
    fitted = [AnomalyDetectionModel(n_estimators=5).fit(f) for f in (frame, frame.sample(frac=1.0, random_state=0))]
    _equal(*(m.predict(None, frame) for m in fitted))


def test_exact_duplicates_are_scored_alike(model, request_rows):
    answer = model.predict(None, request_rows)
    keys = [request_rows[name] for name in ("sensor_id", "timestamp", "value")]
    scored = answer[answer["anomaly_score"].notna()]
    assert (scored.groupby(keys)["anomaly_score"].nunique() == 1).all()
    assert (scored.groupby(keys).size() > 1).sum() >= 10


def test_conflicting_readings_are_both_kept_and_said(model):
    frame = pd.concat([_with(), _with(value=10.5), _with(timestamp="2026-03-02T09:00:00Z")], ignore_index=True)
    answer = model.predict(None, frame)
    said = answer["reason"].map(lambda text: text is not None and "another value was sent for the same time" in text)
    assert said.tolist() == [True, True, False]
    _equal(
        model.predict(None, frame.iloc[[0, 2]])[["p_value", "anomaly_score"]],
        answer.loc[[0, 2], ["p_value", "anomaly_score"]],
    )


# --- Knowledge used ---------------------------------------------------------------------------------------------------


def test_profile_says_which_knowledge_was_used(model):
    frame = pd.concat([_with(), _with(sensor_id="new"), _with(sensor_id="odd", sensor_type="pressure")])
    assert model.predict(None, frame)["profile"].tolist() == ["sensor", "sensor_type", "global"]
    empty = model.predict(None, frame.assign(value=np.nan))
    assert empty["profile"].tolist() == ["sensor", "sensor_type", "global"]


def test_expected_value_is_the_median_of_the_sensor_at_that_hour(model):
    frame = _normal()
    moment = pd.Timestamp(_ROW["timestamp"])
    same = frame.query("sensor_id == 's0'")
    same = same[
        (same["timestamp"].dt.day_of_year % 7 == moment.day_of_year % 7) & (same["timestamp"].dt.hour == moment.hour)
    ]
    answer = model.predict(None, _with()).iloc[0]
    assert answer["expected_value"] == pytest.approx(same["value"].median())
    assert answer["lower"] < answer["expected_value"] < answer["upper"]


def test_a_reading_without_a_value_is_flagged_and_has_no_score(model):
    for frame in (_with(value=None), pd.concat([_with(value=np.nan), _with()], ignore_index=True)):
        first = model.predict(None, frame).to_dict("records")[0]
        assert first["is_anomaly"] is True
        assert first["reason"] == "no value"
        assert [first[k] for k in ("anomaly_score", "p_value", "expected_value", "lower", "upper")] == [None] * 5


def test_a_single_reading_is_judged_by_its_value(model):
    far = model.predict(None, _with(value=40.0)).iloc[0]
    near = model.predict(None, _with()).iloc[0]
    assert far["is_anomaly"]
    assert "40 kW; usual for Monday 10:00" in far["reason"]
    assert not near["is_anomaly"]
    assert near["reason"] is None
    assert far["anomaly_score"] > near["anomaly_score"]


# --- Calibration ------------------------------------------------------------------------------------------------------


def test_the_score_by_hand(model, request_rows):
    answer = model.predict(None, request_rows)
    context, off, surprise = _judged(model, request_rows)
    evidence, usual = model._scorer.evidence(surprise), model._scorer._usual
    ranks, forest = model._scorer._ranks, model._scorer.forest_score(model._scorer.features(context, off, evidence))
    # The share of the forest's training scores that is at least as strange, the reading itself counted.
    tails = [-np.log(np.mean([*(ranks >= f), True])) for f in forest]
    alone = np.array([(max(e) + sum(e)) / 2 + tail for e, tail in zip(evidence, tails, strict=True)])
    known, time = np.isfinite(surprise[:, DEVIATIONS.index("day_value")]), context.rows.time
    week = [np.arange(len(alone)) < end for end in context.end]
    week = [w & (np.arange(len(alone)) >= first) for w, first in zip(week, context.first, strict=True)]
    week = [w & (time >= t - np.timedelta64(7, "D")) for w, t in zip(week, time, strict=True)]
    lasting = [max(np.minimum(alone[w], 15).mean() - usual, 0) if k else 0 for w, k in zip(week, known, strict=True)]
    fresh = alone - lasting
    assert known.any()
    assert max(lasting) > 0
    for row, i in enumerate(context.position):
        if i >= 0:
            last = np.clip([*fresh[max(context.first[i], context.end[i] - 11) : context.end[i]], fresh[i]], -20, 20)
            memory = last.mean() if len(last) == 12 else usual
            assert answer["anomaly_score"].iloc[row] == pytest.approx(fresh[i] + memory / 2, abs=1e-5)


def test_a_sensor_that_is_strange_every_day_becomes_less_strange(model):
    rows = _normal(sensors=1, weeks=3, seed=9, start="2026-06-01")
    changed = rows.assign(value=rows["value"] * 3)
    score = model.predict(None, changed)["anomaly_score"].to_numpy(dtype=float)
    assert score[-168:].mean() < 0.6 * score[24:72].mean()


def _judged(model: AnomalyDetectionModel, rows: Frame) -> tuple[ReadingContext, np.ndarray, np.ndarray]:
    """Context, deviation of the value and surprise of each reading."""
    context = read_context(parse_readings(rows), model.params.timezone)
    what = model._profile.knowledge(context)
    folded = model._profile.deviations(what, context).folded
    return context, folded[:, 0], model._profile.tails.surprise(what.group, folded)


def test_evidence_is_against_the_last_days_where_they_are_known_and_ordinary_where_nothing_is(model):
    rows = np.array([[1.0, 2.0, 7.0, np.nan, 3.0, np.nan], [1.0, 2.0, np.nan, np.nan, np.nan, 4.0]])
    ordinary = model._scorer._ordinary
    expected = [[7.0, 2.0, 3.0, ordinary[3]], [1.0, 2.0, ordinary[2], 4.0]]
    assert model._scorer.evidence(rows).tolist() == expected


def test_faults_in_the_training_readings_do_not_raise_the_bar():
    rng = np.random.default_rng(0)
    normal = np.sort(rng.exponential(1.0, 5_000))
    faulty = np.sort(np.concatenate([normal, rng.uniform(60, 400, 100)]))
    # Of an exponential tail a share of 0.05 (0.05 n)^-0.6 lies above the limit.
    assert 5_000 - 18 <= len(calibration._without_outliers(normal, 0.05)) <= 5_000
    assert 5_000 - 18 <= len(calibration._without_outliers(faulty, 0.05)) <= 5_000
    assert len(calibration._without_outliers(faulty, 0.01)) == 5_100 - 51  # no more than the share asked for
    assert len(calibration._without_outliers(np.zeros(10), 0.5)) == 10


def test_forest_scores_are_those_of_scikit_learn(model, monkeypatch):
    frame = _normal(sensors=3, weeks=3)
    fitted: list[Any] = []

    class Recording(IsolationForest):
        def fit(self, X, y=None, sample_weight=None):
            fitted.append(self)
            return super().fit(X, y, sample_weight)

    monkeypatch.setattr(isolation, "IsolationForest", Recording)
    own = AnomalyDetectionModel(n_estimators=30).fit(frame)
    context, off, surprise = _judged(own, frame)
    features = own._scorer.features(context, off, own._scorer.evidence(surprise))
    score = own._scorer.forest_score(features)
    np.testing.assert_allclose(score, -fitted[-1].score_samples(features), rtol=1e-12)
    assert features.shape[1] == len(feature_names())


@pytest.fixture(scope="module")
def exchangeable() -> AnomalyDetectionModel:
    return AnomalyDetectionModel(n_estimators=50).fit(_normal(sensors=12, weeks=16))


@pytest.mark.parametrize("hours", [0.5, 2, 30, None])
def test_p_values_are_uniform_on_exchangeable_readings_whatever_the_history(exchangeable, hours):
    # Few readings, so that hardly any two share context.
    fresh = _normal(sensors=12, weeks=8, seed=5, start="2026-05-04")
    asked = fresh[fresh.groupby("sensor_id").cumcount() >= 168].sample(200, random_state=1)
    if hours is None:
        p_value = exchangeable.predict(None, fresh)["p_value"].to_numpy()[asked.index]
    else:
        requests = [_recent(fresh, row, hours) for row in asked.itertuples()]
        p_value = np.array([exchangeable.predict(None, rows)["p_value"].iloc[-1] for rows in requests])
    assert stats.kstest(p_value, "uniform").pvalue > 0.01


def _recent(frame: Frame, row: Any, hours: float) -> Frame:
    at = frame["timestamp"]
    chosen = (frame["sensor_id"] == row.sensor_id) & (at <= row.timestamp)
    return frame[chosen & (at > row.timestamp - pd.Timedelta(hours=hours))]


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.3])
def test_a_reading_is_flagged_where_its_p_value_is_not_above_the_rate(rate, request_rows):
    own = AnomalyDetectionModel(n_estimators=10, contamination=0.02, false_alarm_rate=rate).fit(_normal())
    answer = own.predict(None, request_rows).dropna(subset=["p_value"])
    assert (answer["is_anomaly"] == (answer["p_value"] <= rate)).all()
    assert 0 < answer["is_anomaly"].mean() < 1
    assert answer["reason"][answer["is_anomaly"].astype(bool)].notna().all()


def test_p_values_by_hand_count_ties_and_the_reading_itself():
    own = Calibration({0: np.array([0.1, 0.2, 0.2, 0.4]), 3: np.array([0.3])})
    p_value = own.p_value(np.array([0.05, 0.2, 0.3, 0.4, 0.9, 0.3]), np.array([0, 0, 0, 0, 0, 3]))
    assert p_value.tolist() == [5 / 5, 4 / 5, 2 / 5, 2 / 5, 1 / 5, 2 / 2]


def test_p_values_fall_as_scores_rise(model):
    answer = model.predict(None, pd.concat([_with(sensor_id=f"n{i}", value=float(i)) for i in range(60)]))
    ranked = answer.sort_values("anomaly_score")
    assert (np.diff(ranked["p_value"].to_numpy(float)) <= 0).all()


# --- Faults of the simulated grid -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def grids(tmp_path_factory) -> dict[bool, tuple[Frame, np.ndarray]]:
    """Readings with and without faults, half a year for training, and which are to be judged."""
    result = {}
    for faults in (True, False):
        folder = tmp_path_factory.mktemp("grid") / "out"
        simulate(folder, sensors=16, days=210, seed=7, step_minutes=60, faults=faults, fault_rate=0.02)
        frame = load_readings(str(folder / "readings")).frame
        result[faults] = frame, (frame["timestamp"] >= frame["timestamp"].max() - pd.Timedelta(days=42)).to_numpy()
    return result


@pytest.fixture(scope="module")
def judged(grids) -> dict[bool, Frame]:
    result = {}
    for faults, (frame, late) in grids.items():
        own = AnomalyDetectionModel(n_estimators=100).fit(frame[~late])
        answer = own.predict(None, frame)
        result[faults] = answer.assign(fault=frame["fault"].to_numpy(), flagged=answer["is_anomaly"].astype(bool))[late]
    return result


def test_the_budget_is_kept_on_a_grid_without_faults(judged):
    assert judged[False]["flagged"].mean() <= 1.5 * 0.01


@pytest.mark.parametrize(
    ("kind", "share"), [("spike", 1.0), ("wrong_scale", 0.9), ("stuck", 0.4), ("swapped_phase", 0.5)]
)
def test_obvious_faults_are_found(judged, kind, share):
    # Readings: the first hours of a stuck value are like any other. Events: at least one of their readings.
    rows = judged[True]
    truth = (rows["fault"] == kind).to_numpy()
    assert truth.sum() >= 5
    assert rows["flagged"][truth].mean() >= share
    assert event_recall(rows, truth, rows["flagged"]) >= 0.5


def test_reasons_name_the_kind_of_the_fault(judged):
    found = judged[True].query("flagged")
    spikes = found.query("fault == 'spike'")["reason"]
    assert spikes.str.contains("usual for|jumped by|than a day before|than a week before").all()
    assert spikes.str.contains("usual for|jumped by").mean() >= 0.6
    stuck = found.query("fault == 'stuck'")["reason"]
    assert stuck.str.contains(r"unchanged at \S+ \S+ for [\d.]+ h").mean() >= 0.8


# --- Types, JSON, odd data --------------------------------------------------------------------------------------------


def test_answers_are_strict_json(model, request_rows):
    records = json.loads(json.dumps(model.predict(None, request_rows).to_dict("records"), allow_nan=False))
    assert {type(r["is_anomaly"]) for r in records} == {bool}
    assert {type(r["anomaly_score"]) for r in records} == {float, type(None)}
    assert {type(r["reason"]) for r in records} == {str, type(None)}
    only = json.dumps(model.predict(None, _with(value=None)).to_dict("records"), allow_nan=False)
    assert '"p_value": null' in only


def test_the_same_readings_in_other_types_get_the_same_answer(model, request_rows):
    rows = request_rows.assign(value=request_rows["value"].round())
    texts = rows["timestamp"].dt.strftime("%Y-%m-%dT%H:%M:%S+00:00").to_numpy(dtype=object)
    shifted = rows["timestamp"].dt.tz_convert("Asia/Kolkata").dt.strftime("%Y-%m-%dT%H:%M:%S+05:30")
    mixed = np.where(np.arange(len(rows)) % 2 == 0, texts, shifted.to_numpy(dtype=object))
    whole = [None if pd.isna(v) else int(v) for v in rows["value"]]
    other = rows.assign(timestamp=mixed, value=pd.Series(whole, dtype=object), latitude=None, unit=None, note="ignored")
    _equal(model.predict(None, other), model.predict(None, rows))


@pytest.mark.parametrize(
    "cells",
    [
        {"value": "10"},
        {"value": float("inf")},
        {"value": True},
        {"timestamp": 1767225600},
        {"timestamp": None},
        {"sensor_id": None},
        {"latitude": 99.0},
    ],
    ids=repr,
)
def test_bad_cells_are_refused_with_one_sentence(model, cells):
    with pytest.raises(MlflowException) as error:
        model.predict(None, pd.concat([_with(), _with(**cells).astype(object)], ignore_index=True))
    message = error.value.message
    assert error.value.get_http_status_code() == 400
    assert f"column {next(iter(cells))}, row 2" in message
    assert message.count("\n") == 0
    assert message.endswith(".")


def test_an_empty_request_is_refused(model):
    with pytest.raises(MlflowException, match="at least one row"):
        model.predict(None, _with().iloc[:0])


def test_the_largest_numbers_are_judged_and_do_not_spoil_training():
    frame = _normal(sensors=2)
    frame.loc[[3, 900], "value"] = [1.7e308, -1.7e308]
    own = AnomalyDetectionModel(n_estimators=20).fit(frame)
    answer = own.predict(None, frame)
    assert answer["is_anomaly"][[3, 900]].all()
    json.dumps(answer.to_dict("records"), allow_nan=False)
    assert own.predict(None, _with(value=25.0))["is_anomaly"][0]


@pytest.mark.parametrize("constant", [0.0, 230.0])
def test_constant_sensors_are_normal_until_they_change(constant):
    def still(frame: Frame) -> Frame:
        return frame.assign(value=frame["value"].where(frame["sensor_id"] > "s1", constant))

    own = AnomalyDetectionModel(n_estimators=20).fit(still(_normal()))
    late = still(_normal(weeks=1, start="2026-02-16"))
    assert not own.predict(None, late.query("value == @constant"))["is_anomaly"].any()
    late.loc[100, "value"] = constant + 50
    assert own.predict(None, late)["is_anomaly"][100]


@pytest.mark.parametrize("constant", [0.0, 230.0])
def test_a_grid_that_stands_still_altogether_keeps_the_budget(constant):
    frame = _normal(sensors=2).assign(value=constant)
    answer = AnomalyDetectionModel(n_estimators=20).fit(frame).predict(None, frame)
    assert answer["is_anomaly"].mean() <= 0.015
    assert (answer["expected_value"] == constant).all()


@pytest.mark.parametrize("known", [0.0, 0.5, 1.0])
def test_coordinates_may_be_missing_in_training_and_in_requests(known):
    frame = _normal(sensors=2)
    there = np.random.default_rng(0).random(len(frame)) < known
    own = AnomalyDetectionModel(n_estimators=20).fit(
        frame.assign(latitude=np.where(there, 50.0, np.nan), longitude=None)
    )
    asked = _normal(sensors=2, weeks=1, start="2026-02-16", seed=9)
    for request in (asked, asked.assign(latitude=np.nan, longitude=np.nan), asked.assign(latitude=50.0, longitude=4.0)):
        answer = own.predict(None, request)
        assert np.isfinite(answer["anomaly_score"]).all()
        assert (answer["anomaly_score"] >= 0).all()
        assert answer["is_anomaly"].mean() < 0.05


def test_irregular_sampling_and_several_readings_an_hour():
    rng = np.random.default_rng(4)
    times = pd.Timestamp("2026-01-05", tz="UTC") + pd.to_timedelta(np.cumsum(rng.exponential(700, 4_000)), unit="s")
    frame = pd.DataFrame(
        {"sensor_id": "s0", "sensor_type": "power", "timestamp": times, "value": rng.normal(10, 1, 4_000)}
    )
    own = AnomalyDetectionModel(n_estimators=20, timezone="Europe/London").fit(frame[:3_000])
    late = frame[3_000:].assign(value=frame["value"][3_000:].where(frame.index[3_000:] != 3_500, 90.0))
    answer = own.predict(None, late)
    assert answer["is_anomaly"].loc[500]
    assert answer["is_anomaly"].mean() < 0.04


def test_many_sensors_with_few_readings_each_are_known_by_type():
    frame = pd.concat([_normal(2, 1, seed=i).groupby("sensor_id").head(24).assign(k=i) for i in range(20)])
    frame["sensor_id"] += "-" + frame["k"].astype(str)
    frame["timestamp"] += pd.to_timedelta(frame["k"], unit="D")
    answer = AnomalyDetectionModel(n_estimators=10).fit(frame).predict(None, frame)
    assert set(answer["profile"]) == {"sensor_type"}


# --- Parameters, storage ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"contamination": 0.0}, "contamination must lie above 0"),
        ({"contamination": 0.51}, "contamination must lie above 0"),
        ({"contamination": float("nan")}, "contamination must lie above 0"),
        ({"contamination": "0.1"}, "contamination must lie above 0"),
        ({"false_alarm_rate": -0.1}, "false_alarm_rate must lie above 0"),
        ({"n_estimators": 0}, "n_estimators must be a whole number"),
        ({"n_estimators": 2.5}, "n_estimators must be a whole number"),
        ({"n_estimators": True}, "n_estimators must be a whole number"),
        ({"random_state": -1}, "random_state must be a whole number"),
        ({"timezone": "Mars/Olympus"}, "timezone must be a name"),
    ],
)
def test_parameters_are_checked_before_training(params, says):
    with pytest.raises(InputError, match=says):
        AnomalyDetectionModel(**params)


def test_parameters_are_told_and_the_rate_follows_the_contamination():
    model = AnomalyDetectionModel(contamination=0.03, random_state=np.int64(7))
    assert model.get_params() == {
        "contamination": 0.03,
        "false_alarm_rate": None,
        "n_estimators": 100,
        "random_state": 7,
        "timezone": "UTC",
    }
    assert model.params.alarm_rate == 0.03


def test_too_few_readings_are_refused():
    with pytest.raises(InputError, match="at least 200 readings"):
        AnomalyDetectionModel().fit(_normal(sensors=1).head(199))
    # With 300 readings the smallest p-value would be 1/301, above the rate.
    with pytest.raises(
        InputError, match="needs at least 999 readings with a value: found 300; give more readings or a"
    ):
        AnomalyDetectionModel(false_alarm_rate=0.001).fit(_normal(sensors=1).head(300))


def test_a_fresh_process_loads_the_model_and_answers_the_same(model, request_rows, tmp_path, repo: Path):
    (tmp_path / "state").mkdir()
    model.save(tmp_path / "state")
    request_rows.to_pickle(tmp_path / "request.pkl")
    code = (
        "import sys, pandas as pd; from pathlib import Path\n"
        "from smartgrid_pyfunc.models.anomaly_detection import AnomalyDetectionModel\n"
        "here = Path(sys.argv[1]); model = AnomalyDetectionModel.load(here / 'state')\n"
        "model.predict(None, pd.read_pickle(here / 'request.pkl')).to_pickle(here / 'answer.pkl')\n"
        "forbidden = {'pyspark', 'duckdb', 'matplotlib', 'boto3'} & set(sys.modules)\n"
        "assert not forbidden, forbidden\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=repo, check=True, timeout=120)
    _equal(pd.read_pickle(tmp_path / "answer.pkl"), model.predict(None, request_rows))
    again = AnomalyDetectionModel.load(tmp_path / "state")
    assert again.get_params() == model.get_params()
    assert again.sensors == model.sensors == ["s0", "s1", "s2", "s3"]
