"""Detection metrics against hand-computed numbers and slow references."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pandas as pd
import pytest

from smartgrid_pyfunc.evaluation import detection
from smartgrid_pyfunc.schema import InputError


def _readings(sensors: str, start: str = "2026-01-01", step: str = "1h") -> pd.DataFrame:
    """A row per letter of `sensors`, each sensor's clock running by itself."""
    frame = pd.DataFrame({"sensor_id": list(sensors)})
    order = frame.groupby("sensor_id").cumcount()
    return frame.assign(timestamp=pd.Timestamp(start, tz="UTC") + order * pd.Timedelta(step))


def test_average_precision_by_hand():
    # Ranked: hit, miss, hit, miss -> mean of the precisions at the hits, (1/1 + 2/3) / 2.
    assert detection.average_precision([1, 0, 1, 0], [4, 3, 2, 1]) == pytest.approx((1 + 2 / 3) / 2)


def test_roc_auc_is_the_share_of_pairs_in_the_right_order():
    rng = np.random.default_rng(2)
    labels, scores = rng.random(60) < 0.3, rng.integers(0, 10, 60)
    pairs = [(p > n) + 0.5 * (p == n) for p in scores[labels] for n in scores[~labels]]
    assert detection.roc_auc(labels, scores) == pytest.approx(np.mean(pairs))


def test_missing_scores_and_labels_are_dropped():
    labels, scores = [1, 0, 1, 0, np.nan, 1], [4, 3, 2, 1, 99, np.nan]
    assert detection.average_precision(labels, scores) == detection.average_precision([1, 0, 1, 0], [4, 3, 2, 1])


def test_undefined_measures_are_nan():
    assert math.isnan(detection.average_precision([0, 0], [1, 2]))
    assert math.isnan(detection.roc_auc([1, 1], [1, 2]))
    precision, recall = detection.precision_recall([0, 0], [0, 0])
    assert math.isnan(precision)
    assert math.isnan(recall)
    assert math.isnan(detection.event_recall(_readings("aa"), [0, 0], [1, 1]))


def test_precision_and_recall_by_hand():
    assert detection.precision_recall([1, 1, 1, 0, 0], [1, 0, 0, 1, 0]) == (0.5, pytest.approx(1 / 3))


def test_events_end_where_a_sensor_ends():
    # One stretch of b follows one of a in the rows, but they are two events; only b's is found.
    readings = _readings("aaabbb")
    labels = [0, 1, 1, 1, 1, 0]
    assert detection.event_recall(readings, labels, [0, 0, 0, 0, 1, 0]) == 0.5


def test_event_recall_does_not_depend_on_row_order():
    readings = _readings("aaaaabbbbb")
    labels = np.array([0, 1, 1, 0, 1, 1, 0, 0, 1, 1])  # a: two events, b: two events
    flags = np.array([0, 0, 1, 0, 0, 1, 0, 0, 0, 0])
    order = np.random.default_rng(1).permutation(10)
    assert detection.event_recall(readings, labels, flags) == 0.5
    assert detection.event_recall(readings.iloc[order], labels[order], flags[order]) == 0.5


def test_false_alarms_count_stretches_per_observed_sensor_week():
    readings = _readings("a" * 168 + "b" * 168)  # two sensors, a week each
    flags = np.zeros(336)
    flags[[10, 11, 12, 50, 167, 168]] = 1  # a: a stretch of 3, two single ones; b: one, adjacent in the rows only
    labels = np.zeros(336)
    labels[50] = 1  # a hit is no false alarm
    assert detection.false_alarms_per_sensor_week(readings, labels, flags) == pytest.approx(3 / 2)


def _training() -> pd.DataFrame:
    readings = _readings("a" * 240 + "b" * 240)
    rng = np.random.default_rng(8)
    hour = readings["timestamp"].dt.hour.to_numpy()
    return readings.assign(value=np.where(readings["sensor_id"] == "a", 100.0, 5.0) + hour + rng.normal(size=480))


def test_baseline_score_agrees_with_a_slow_reference():
    training = _training()
    test = _readings("ab" * 30, start="2026-02-01").assign(value=50.0)
    scores = detection.fit_median_baseline(training).score(test)
    for i in (0, 1, 17, 40, 59):
        own = training[training["sensor_id"] == test["sensor_id"][i]]
        same = own[own["timestamp"].dt.hour == test["timestamp"][i].hour]["value"].tolist()
        scale = max(_spread(same), 0.1 * _spread(own["value"].tolist()), 0.001 * own["value"].abs().median())
        assert scores[i] == pytest.approx(abs(50.0 - statistics.median(same)) / scale)


def _spread(values: list[float]) -> float:
    middle = statistics.median(values)
    return 1.4826 * statistics.median([abs(value - middle) for value in values])


def test_baseline_knows_only_its_training_readings():
    baseline = detection.fit_median_baseline(_training())
    test = _readings("ab" * 30, start="2026-02-01").assign(value=np.arange(60.0))
    scores = baseline.score(test)
    changed = test.assign(value=test["value"].where(test.index < 30, 1e9))
    np.testing.assert_array_equal(baseline.score(changed)[:30], scores[:30])
    order = np.random.default_rng(4).permutation(60)
    np.testing.assert_array_equal(baseline.score(test.iloc[order]), scores[order])


def test_constant_sensors_give_large_but_finite_scores():
    for constant in (0.0, 7.0):
        training = _readings("a" * 48).assign(value=constant)
        scores = detection.fit_median_baseline(training).score(_readings("aa").assign(value=[constant, constant + 1]))
        assert scores[0] == 0.0
        assert 10 < scores[1] < math.inf


def test_missing_values_have_no_score_and_unknown_sensors_have_one():
    baseline = detection.fit_median_baseline(_training())
    scores = baseline.score(_readings("az").assign(value=[np.nan, 60.0]))
    assert math.isnan(scores[0])
    assert math.isfinite(scores[1])


def test_baseline_without_values_is_refused():
    with pytest.raises(InputError, match="training readings"):
        detection.fit_median_baseline(_readings("aa").assign(value=np.nan))


def test_detector_and_baseline_are_scored_on_the_same_rows():
    readings = _readings("aaaa")
    result = detection.summarise(readings, [1, 0, 1, 0], [9, 1, np.nan, 2], [1, 0, 0, 1], [1, 3, 9, 2])
    assert result["test_average_precision"] == 1.0
    assert result["baseline_average_precision"] == pytest.approx(1 / 3)  # the hit at 9 has no rival score
    assert result["test_flagged_share"] == 0.5
    assert result["test_event_recall"] == 0.5


def test_the_budget_threshold_lets_no_more_normal_readings_through_than_asked():
    rng = np.random.default_rng(5)
    labels, scores = rng.random(500) < 0.1, np.round(rng.random(500), 2)  # with ties
    for rate in (0.0, 0.01, 0.05, 0.5):
        threshold = detection.threshold_at_budget(labels, scores, rate)
        assert (scores[~labels] > threshold).mean() <= rate
        lower = scores[scores < threshold]
        if rate < 0.5:  # the next lower score would let too many through
            assert (scores[~labels] > lower.max()).mean() > rate


def test_the_best_f1_is_that_of_the_best_threshold():
    rng = np.random.default_rng(6)
    labels = rng.random(80) < 0.3
    scores = np.round(rng.random(80) + 0.3 * labels, 1)
    tried = [detection.f1(labels, scores >= threshold) for threshold in np.unique(scores)]
    assert detection.best_f1(labels, scores) == pytest.approx(max(tried))


def test_f1_by_hand():
    assert detection.f1([1, 1, 1, 0, 0], [1, 0, 0, 1, 0]) == pytest.approx(2 * 0.5 * (1 / 3) / (0.5 + 1 / 3))
    assert detection.f1([1, 0], [0, 0]) == 0.0
    assert math.isnan(detection.f1([0, 0], [1, 0]))
    assert math.isnan(detection.best_f1([0, 0], [1, 2]))
    assert math.isnan(detection.threshold_at_budget([1, 1], [1, 2], 0.01))
