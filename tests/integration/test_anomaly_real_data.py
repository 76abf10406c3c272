"""The anomaly model on real readings: trained on the first half of each sensor, judged on the second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from smartgrid_pyfunc.evaluation.detection import average_precision, fit_median_baseline
from smartgrid_pyfunc.models.anomaly_detection import AnomalyDetectionModel

pytestmark = pytest.mark.integration


def _halves(path: Path) -> tuple[pd.DataFrame, np.ndarray]:
    """Readings and which of them belong to the second half of their sensor."""
    frame = pd.read_parquet(path)
    middle = frame.groupby("sensor_id")["timestamp"].transform("median")
    return frame, (frame["timestamp"] >= middle).to_numpy()


@pytest.mark.parametrize("seed", [42, 1])
def test_labelled_buildings_are_ranked_better_than_by_the_baseline(real_data: Callable[[str], Path], seed: int):
    frame, late = _halves(real_data("lead_labelled_hourly_10buildings"))
    training, test = frame[~late], frame[late]
    model = AnomalyDetectionModel(random_state=seed).fit(training.drop(columns="is_anomaly"))
    answer = model.predict(None, frame.drop(columns="is_anomaly"))[late]
    score = answer["anomaly_score"].to_numpy(dtype=np.float64)
    baseline = fit_median_baseline(training).score(test)
    assert np.isfinite(score).all()
    assert average_precision(test["is_anomaly"], score) > 1.15 * average_precision(test["is_anomaly"], baseline)


def test_unlabelled_readings_stay_within_three_budgets(real_data: Callable[[str], Path]):
    frame, late = _halves(real_data("tetouan_readings_10min"))
    model = AnomalyDetectionModel(contamination=0.01).fit(frame[~late])
    answer = model.predict(None, frame)[late]
    assert answer["is_anomaly"].mean() <= 3 * 0.01
    assert set(answer["profile"]) == {"sensor"}
    # Quiet, but not blind: readings ten times the usual are found.
    spikes = np.flatnonzero(late & (frame["sensor_type"] == "power").to_numpy())[1_000::9_000]
    faulty = frame["value"].to_numpy().copy()
    faulty[spikes] *= 10
    found = model.predict(None, frame.assign(value=faulty)).iloc[spikes]
    assert len(spikes) > 5
    assert found["is_anomaly"].all()
    answer = found
    assert answer["reason"][answer["is_anomaly"]].notna().all()


def test_the_budget_is_kept_on_labelled_buildings(real_data: Callable[[str], Path]):
    frame, late = _halves(real_data("lead_labelled_hourly_10buildings"))
    normal = late & ~frame["is_anomaly"].to_numpy(dtype=bool)
    for rate in (0.01, 0.05):
        model = AnomalyDetectionModel(false_alarm_rate=rate).fit(frame[~late])
        flagged = model.predict(None, frame)["is_anomaly"].to_numpy(dtype=bool)
        assert 0 < flagged[normal].mean() <= 1.5 * rate


def test_answers_are_the_same_sensor_by_sensor(real_data: Callable[[str], Path]):
    frame, late = _halves(real_data("lead_labelled_hourly_10buildings"))
    model = AnomalyDetectionModel(n_estimators=20).fit(frame[~late])
    whole = model.predict(None, frame)[["is_anomaly", "anomaly_score", "p_value"]]
    for _, rows in frame.groupby("sensor_id"):
        own = model.predict(None, rows)[["is_anomaly", "anomaly_score", "p_value"]]
        pd.testing.assert_frame_equal(own.set_axis(rows.index), whole.loc[rows.index], check_exact=True)
