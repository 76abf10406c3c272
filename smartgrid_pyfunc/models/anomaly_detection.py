"""AnomalyDetectionModel: which readings are strange for this sensor at this hour, how strange, and why."""

from __future__ import annotations

import logging
import numbers
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.preprocessing import StandardScaler

from smartgrid_pyfunc.features.calendar import check_timezone
from smartgrid_pyfunc.features.profile import DEVIATIONS, LEVELS, Deviations, Knowledge, Profile
from smartgrid_pyfunc.features.readings import ReadingContext, Readings, parse_readings, read_context
from smartgrid_pyfunc.models.boundary import read_table, refusing_bad_input
from smartgrid_pyfunc.models.calibration import Calibration
from smartgrid_pyfunc.models.isolation import BASE, Scorer, feature_names, history_of
from smartgrid_pyfunc.models.reasons import NO_VALUE, Found, explain, say_conflicts
from smartgrid_pyfunc.models.state import StoredModel, load_state, save_state, under_prefix, with_prefix
from smartgrid_pyfunc.schema import InputError, format_timestamps

__all__ = ["ANSWER", "BASE", "AnomalyDetectionModel", "AnomalyParams", "feature_names"]

ANSWER = (
    "sensor_id",
    "timestamp",
    "is_anomaly",
    "anomaly_score",
    "p_value",
    "expected_value",
    "lower",
    "upper",
    "reason",
    "profile",
)
_MIN_READINGS = 200

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class AnomalyParams:
    """Training parameters of `AnomalyDetectionModel`.

    Attributes
    ----------
    contamination : float
        Share of strange readings expected, 0…0.5; goes to the IsolationForest too.
    false_alarm_rate : float, optional
        Share of normal readings that may be flagged; default `contamination`. A reading is flagged if its p-value is
        not above it.
    n_estimators, random_state : int
        As in scikit-learn's IsolationForest.
    timezone : str
        IANA zone of the sensors' local clock.
    """

    contamination: float = 0.01
    false_alarm_rate: float | None = None
    n_estimators: int = 100
    random_state: int = 42
    timezone: str = "UTC"

    @property
    def alarm_rate(self) -> float:
        """The false-alarm rate in force."""
        return self.contamination if self.false_alarm_rate is None else self.false_alarm_rate


def _check(params: AnomalyParams) -> None:
    check_timezone(params.timezone)
    for name, rate in (("contamination", params.contamination), ("false_alarm_rate", params.alarm_rate)):
        if isinstance(rate, bool) or not isinstance(rate, numbers.Real) or not 0 < rate <= 0.5:
            raise InputError(f"{name} must lie above 0 and not above 0.5", found=repr(rate))
    for name, number, least in (("n_estimators", params.n_estimators, 1), ("random_state", params.random_state, 0)):
        if isinstance(number, bool) or not isinstance(number, numbers.Integral) or number < least:
            raise InputError(f"{name} must be a whole number of at least {least}", found=repr(number))


class AnomalyDetectionModel(StoredModel):
    """Isolation forest on a reading's base features and on how surprising it is in the light of its sensor's profile.

    Parameters
    ----------
    **params
        See `AnomalyParams`.

    Notes
    -----
    `features.profile` tells what is usual and how rare deviations are, `models.isolation` scores, `models.calibration`
    turns scores into p-values. All three learn from training readings as judged by the rest of their sensor's time.
    """

    def __init__(self, **params: Any) -> None:
        self.params = AnomalyParams(**params)
        _check(self.params)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the training parameters by name; `deep` is there for scikit-learn's convention."""
        return asdict(self.params)

    def fit(self, readings: pd.DataFrame) -> AnomalyDetectionModel:
        """Learn what is usual from readings of any number of sensors; labels are not looked at.

        Parameters
        ----------
        readings : DataFrame
            Columns ``sensor_id, sensor_type, timestamp, value`` and, as far as known, ``latitude, longitude``. Stays
            unchanged.

        Returns
        -------
        AnomalyDetectionModel
            Itself.

        Raises
        ------
        InputError
            For bad rows and too little data.
        """
        context = read_context(parse_readings(readings).by_name(), self.params.timezone)
        needed = int(np.ceil(1 / self.params.alarm_rate)) - 1
        if len(context) < max(_MIN_READINGS, needed):
            raise InputError(
                f"training with a false_alarm_rate of {self.params.alarm_rate:g} needs at least "
                f"{max(_MIN_READINGS, needed)} readings with a value",
                found=len(context),
                remedy="give more readings" if needed <= _MIN_READINGS else "give more readings or a higher rate",
            )
        self._profile, folded, surprise = Profile.fit(context)
        off = folded[:, 0]
        options = {"n_estimators": self.params.n_estimators, "contamination": self.params.contamination}
        self._scorer = Scorer.fit(context, off, surprise, random_state=int(self.params.random_state), **options)
        self._calibration = Calibration.fit(self._scorer, context, off, surprise, needed, self.params.contamination)
        self._prepare()
        _log.info("calibrated on %d readings", len(self._calibration.scores[0]))
        return self

    def _prepare(self) -> None:
        """Look up the limits of the usual range once."""
        self._limits = self._profile.tails.limits(-np.log(self.params.alarm_rate))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Answer row for row, in the request's order; earlier rows of a sensor are its history. Learns nothing.

        Raises
        ------
        MlflowException
            With an error code that the server answers with status 400, and one sentence.
        """
        with refusing_bad_input():
            rows = parse_readings(read_table(model_input))
        return self._answer(rows, read_context(rows, self.params.timezone))

    def _answer(self, rows: Readings, context: ReadingContext) -> pd.DataFrame:
        what = self._profile.knowledge(context)
        deviations = self._profile.deviations(what, context)
        surprise = self._profile.tails.surprise(what.group, deviations.folded)
        evidence = self._scorer.evidence(surprise)
        extent = history_of(surprise, context.end - context.first)
        score = self._scorer.score(context, deviations.folded[:, 0], evidence, extent)
        p_value = self._calibration.p_value(score, extent)
        flagged = p_value <= self.params.alarm_rate
        lower, upper = self._range(what, deviations, surprise)
        usual = Found(flagged, evidence, deviations.expected, lower, upper, deviations.spread)
        reason = explain(context, usual, self.params.timezone)
        say_conflicts(reason, context)
        found = {
            "is_anomaly": flagged,
            "anomaly_score": score,
            "p_value": p_value,
            "expected_value": deviations.expected,
            "lower": lower,
            "upper": upper,
            "reason": reason,
            "profile": _LEVEL_NAMES[what.level],
        }
        return self._spread_to_rows(rows, context.position, found)

    def _range(
        self, what: Knowledge, deviations: Deviations, surprise: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return between which values a reading is usual, as far as the value alone tells."""
        kind = np.where(np.isnan(surprise[:, _DAY_VALUE]), _VALUE, _DAY_VALUE)
        down, up = (limit[what.group, kind] for limit in self._limits)
        return deviations.expected + deviations.spread * down, deviations.expected + deviations.spread * up

    def _spread_to_rows(
        self, rows: Readings, position: NDArray[np.int64], found: dict[str, NDArray[Any]]
    ) -> pd.DataFrame:
        """Bring answers of distinct readings back to the request's rows; rows without a value are flagged."""
        valued = position >= 0
        columns: dict[str, Any] = {"sensor_id": rows.sensor.values(), "timestamp": format_timestamps(rows.time)}
        if valued.all():
            columns |= {name: values[position] for name, values in found.items()}
        else:
            columns |= {name: _placed(values, position, valued) for name, values in found.items()}
            columns["is_anomaly"] = np.where(valued, columns["is_anomaly"], True).astype(bool)
            columns["reason"][~valued] = NO_VALUE
            columns["profile"][~valued] = _LEVEL_NAMES[self._profile.levels(rows)[1][~valued]]
        return pd.DataFrame({name: _column(columns[name]) for name in ANSWER}, copy=False)

    @property
    def scaler(self) -> StandardScaler:
        """The fitted scaler of the base features."""
        return self._scorer.scaler

    def save(self, folder: Path) -> None:
        """Write the fitted model into the existing `folder`, as arrays and JSON."""
        arrays = with_prefix("scorer", self._scorer.to_arrays()) | with_prefix("profile", self._profile.to_arrays())
        arrays |= with_prefix("calibration", {str(extent): s for extent, s in self._calibration.scores.items()})
        save_state(folder, arrays, {"params": self.get_params()})

    def _restore(self, folder: Path) -> None:
        arrays, settings = load_state(folder)
        self.params = AnomalyParams(**settings["params"])
        self._scorer = Scorer(under_prefix("scorer", arrays))
        self._profile = Profile.from_arrays(under_prefix("profile", arrays))
        self._calibration = Calibration({int(e): s for e, s in under_prefix("calibration", arrays).items()})
        self._prepare()

    @property
    def sensors(self) -> Sequence[str]:
        """Sensors with a profile of their own, sorted."""
        return [str(s) for s in self._profile.sensors]


_LEVEL_NAMES = np.array(LEVELS, dtype=object)
_VALUE, _DAY_VALUE = DEVIATIONS.index("value"), DEVIATIONS.index("day_value")


def _column(values: NDArray[Any]) -> NDArray[Any] | pd.Index[Any]:
    """Keep texts with None among them as they are: pandas would make None NaN, which is not JSON."""
    return pd.Index(values, dtype=object) if values.dtype == object else values


def _placed(values: NDArray[Any], position: NDArray[np.int64], valued: NDArray[np.bool_]) -> NDArray[np.object_]:
    result = np.full(len(position), None, dtype=object)
    result[valued] = values[position[valued]]
    return result
