"""Train, evaluate, log and register the anomaly model."""

from __future__ import annotations

import logging
import pickle
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smartgrid_pyfunc import plots
from smartgrid_pyfunc.evaluation import detection
from smartgrid_pyfunc.evaluation.events import group_events
from smartgrid_pyfunc.features.neighbours import compare_with_neighbours, standardised
from smartgrid_pyfunc.lifecycle import evidence, packaging, registry, runs
from smartgrid_pyfunc.lifecycle.errors import mask_secrets
from smartgrid_pyfunc.lifecycle.model_card import write_card
from smartgrid_pyfunc.models.anomaly_detection import AnomalyDetectionModel
from smartgrid_pyfunc.models.reasons import kind_of
from smartgrid_pyfunc.schema import ANOMALY_EXPERIMENT, ANOMALY_MODEL, LABEL, format_timestamps
from smartgrid_pyfunc.sources import Readings, load_readings
from smartgrid_pyfunc.training.outcome import Outcome, describe_origin, log_report
from smartgrid_pyfunc.training.repeatable import one_thread_in_linear_algebra

_TEST_SHARE = 0.25  # of the time, at its end
_CONTEXT_DAYS = 8  # of readings before the test that are its history
_SHOWN_DAYS = 14
_EXAMPLE_ROWS = 50
_METRICS_DESCRIBE = "a fit without the last quarter of the time; the logged model is fitted on all"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Evaluation:
    """Test readings with the answer of a model that has not seen them."""

    readings: pd.DataFrame
    answer: pd.DataFrame
    metrics: dict[str, float]

    @property
    def labels(self) -> NDArray[np.bool_] | None:
        """Truth of each reading, where the data have it."""
        return self.readings[LABEL].to_numpy(dtype=bool) if LABEL in self.readings else None


@one_thread_in_linear_algebra
def train_anomaly_model(data: str, *, register: bool = True, nested: bool = False, **params: Any) -> Outcome:
    """Train on `data`, evaluate on the last quarter of its time, refit on all of it, log and register.

    Parameters
    ----------
    data : str
        See `smartgrid_pyfunc.sources`; hourly load is read as readings of the type power.
    register : bool
        Make the logged model a new version of `AnomalyDetectionModel`.
    nested : bool
        See `runs.tracked_run`.
    **params
        Of `AnomalyDetectionModel`.
    """
    model = AnomalyDetectionModel(**params)
    rate = model.params.alarm_rate
    with runs.tracked_run(ANOMALY_EXPERIMENT, run_name=f"anomalies, {rate:.3g} false alarms", nested=nested) as run:
        source = load_readings(data, hourly_as="power", on_progress=_log.info)
        log_report(source.report, source.frame, data)
        evaluation = _evaluate(model, source.frame)
        place = mask_secrets(data)
        runs.log_results({**model.get_params(), "data": place}, evaluation.metrics)
        _log.info("refitting on all readings")
        final = AnomalyDetectionModel(**params).fit(source.frame)
        _log_artifacts(evaluation, final)
        info = packaging.log_model(final, ANOMALY_MODEL, _example(source.frame))
        card = _card(final, evaluation.metrics, source, place)
        evidence.record(ANOMALY_MODEL, _recorded(evaluation))
        about = {"smartgrid.metrics_describe": _METRICS_DESCRIBE, runs.TAG_DESCRIPTION: card}
        runs.set_tags(about | evidence.learnt_until(source.frame))
        version = registry.register(info.model_uri, ANOMALY_MODEL, description=card) if register else None
        return Outcome(ANOMALY_MODEL, run.info.run_id, info.model_uri, version, evaluation.metrics)


def _evaluate(model: AnomalyDetectionModel, readings: pd.DataFrame) -> _Evaluation:
    times = readings["timestamp"].sort_values(ignore_index=True)
    cut = times.iloc[int((1 - _TEST_SHARE) * (len(times) - 1))]
    _log.info("evaluating on the readings after %s", cut.strftime("%Y-%m-%d %H:%M UTC"))
    train = readings[readings["timestamp"] <= cut]
    model.fit(train)
    recent = readings[readings["timestamp"] > cut - pd.Timedelta(days=_CONTEXT_DAYS)].reset_index(drop=True)
    answer = model.predict(None, recent)
    tested = (recent["timestamp"] > cut).to_numpy()
    test, answer = recent[tested].reset_index(drop=True), answer[tested].reset_index(drop=True)
    metrics = _share_metrics(answer, model.params.alarm_rate)
    if LABEL in test and test[LABEL].any():  # without a single event nothing can be ranked
        metrics |= _label_metrics(train, test, answer, model.params.timezone)
    return _Evaluation(test, answer, metrics)


def _recorded(evaluation: _Evaluation) -> pd.DataFrame:
    """Return what a later comparison needs of the test: keys, truth, scores and flags."""
    names = ["sensor_id", "sensor_type", "timestamp", LABEL, "fault"]
    kept = evaluation.readings[[name for name in names if name in evaluation.readings]]
    answer = evaluation.answer
    return kept.assign(score=answer["anomaly_score"].to_numpy(), flag=answer["is_anomaly"].to_numpy(dtype=bool))


def _share_metrics(answer: pd.DataFrame, rate: float) -> dict[str, float]:
    flagged = answer["is_anomaly"].to_numpy(dtype=bool)
    return {
        "n_anomalies": float(flagged.sum()),
        "n_normal": float((~flagged).sum()),
        "anomaly_rate": float(flagged.mean()),
        "mean_anomaly_score": float(pd.to_numeric(answer["anomaly_score"]).mean()),
        "test_flagged_share": float(flagged.mean()),
        "false_alarm_rate": rate,
    }


def _label_metrics(train: pd.DataFrame, test: pd.DataFrame, answer: pd.DataFrame, timezone: str) -> dict[str, float]:
    baseline = detection.fit_median_baseline(train, timezone=timezone).score(test)
    labels, scores = test[LABEL].to_numpy(dtype=bool), pd.to_numeric(answer["anomaly_score"]).to_numpy()
    flags = answer["is_anomaly"].to_numpy(dtype=bool)
    false_alarms = {"test_false_alarm_rate": float(flags[~labels].mean()) if (~labels).any() else float("nan")}
    return detection.summarise(test, labels, scores, flags, baseline) | false_alarms


def _log_artifacts(evaluation: _Evaluation, model: AnomalyDetectionModel) -> None:
    readings, answer = evaluation.readings, evaluation.answer
    flagged = answer["is_anomaly"].to_numpy(dtype=bool)
    scores = pd.to_numeric(answer["anomaly_score"]).to_numpy()
    threshold = float(np.nanmin(scores[flagged])) if np.isfinite(scores[flagged]).any() else float(np.nanmax(scores))
    shown = (readings["timestamp"] > readings["timestamp"].max() - pd.Timedelta(days=_SHOWN_DAYS)).to_numpy()
    runs.log_figure("plots/flagged_readings.png", plots.flagged_timeline(readings[shown], flagged[shown]))
    runs.log_figure("plots/score_histogram.png", plots.score_histogram(scores, threshold, evaluation.labels))
    runs.log_bytes("scaler.pkl", pickle.dumps(model.scaler))
    runs.log_table("tables/flagged_readings.csv", _flagged_table(readings, answer))
    kinds = [kind_of(reason) for reason in answer["reason"]]
    runs.log_table("tables/flagged_events.csv", group_events(readings, flagged, scores=scores, kinds=kinds))


def _flagged_table(readings: pd.DataFrame, answer: pd.DataFrame) -> pd.DataFrame:
    """Return the flagged readings, strangest first, beside their neighbours and the truth where the data have it."""
    extra = {"value": "value", "labelled": LABEL, "fault": "fault"}
    table = answer.assign(**{name: readings[of].to_numpy() for name, of in extra.items() if of in readings})
    off = standardised(readings["value"], *(pd.to_numeric(answer[n]) for n in ("expected_value", "lower", "upper")))
    table = table.join(compare_with_neighbours(readings, off)[["neighbour_deviation", "scope"]])
    flagged = table[answer["is_anomaly"].to_numpy(dtype=bool)].drop(columns="is_anomaly")
    return flagged.sort_values("p_value", kind="stable", na_position="first")


def _example(readings: pd.DataFrame) -> pd.DataFrame:
    """Return the last readings of the first sensor as a client would send them."""
    first = readings[readings["sensor_id"] == readings["sensor_id"].iloc[0]]
    wanted = ["sensor_id", "sensor_type", "timestamp", "value", "latitude", "longitude"]
    rows: pd.DataFrame = first[wanted].dropna(subset="value").tail(_EXAMPLE_ROWS)
    rows = rows.dropna(axis="columns", how="all").reset_index(drop=True)
    rows["timestamp"] = format_timestamps(rows["timestamp"].dt.tz_localize(None).to_numpy())
    return rows


def _card(model: AnomalyDetectionModel, metrics: dict[str, float], source: Readings, data: str) -> str:
    params = model.get_params()
    shown = {name: params[name] for name in ("n_estimators", "contamination", "timezone")}
    return write_card(ANOMALY_MODEL, describe_origin(source.report, data, shown), metrics)
