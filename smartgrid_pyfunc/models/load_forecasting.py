"""LoadForecastingModel: the load of every sensor for the next 1…168 hours, with intervals, from one global model."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smartgrid_pyfunc.features.calendar import check_timezone, holiday_days
from smartgrid_pyfunc.features.design import Design, FeatureSpec
from smartgrid_pyfunc.features.groups import GROUPS, group_of, shuffled
from smartgrid_pyfunc.features.load import build_features, seasonal_naive
from smartgrid_pyfunc.features.panel import Panel, build_panel, parse_hourly
from smartgrid_pyfunc.models.boundary import read_table, refusing_bad_input
from smartgrid_pyfunc.models.combination import Combination
from smartgrid_pyfunc.models.fresh_history import FreshHistory, KnownHistory, history_of_environment
from smartgrid_pyfunc.models.intervals import ResidualQuantiles
from smartgrid_pyfunc.models.load_estimator import LINEAR_FEATURE, PRIOR, LoadEstimator
from smartgrid_pyfunc.models.load_history import StoredHistory
from smartgrid_pyfunc.models.load_request import ForecastParams, LoadRequest, answer_frame, parse_request
from smartgrid_pyfunc.models.load_training import Samples, draw_samples, fit_estimator, thin
from smartgrid_pyfunc.models.load_validation import ML, NAIVE, Validation, conditions, held_out, preferred_naive
from smartgrid_pyfunc.models.state import StoredModel, load_state, save_state, under_prefix, with_prefix
from smartgrid_pyfunc.models.trees import ESTIMATORS, RANDOM_FOREST
from smartgrid_pyfunc.schema import COVARIATES, HOURS_A_DAY, HOURS_A_WEEK, InputError

_LEAST_KNOWN = 0.8  # share of the last 168 hours that the model needs
_CALIBRATION_TREES = 50
_SHORTEST_JUDGEMENT_DAYS = 14
_CALIBRATION_ROWS = 60_000
_MANY = 1_000_000  # pairs, of which those of the calibration weeks are used
_YEARS_AHEAD = 10  # of public holidays kept with the model
_HOURS_TO_TELL_SEASONS = 16_600  # nearly two years
_MOST_EXPLAINED = 10_000  # rows
_DRIVERS = 5

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadParams:
    """Training parameters of `LoadForecastingModel`.

    Attributes
    ----------
    estimator : str
        ``random_forest`` (scikit-learn) or ``lightgbm`` (gradient boosting): what corrects the simple forecasts.
    n_estimators, max_depth, min_samples_split, min_samples_leaf, max_features, random_state
        As in scikit-learn's RandomForestRegressor. LightGBM takes ``n_estimators`` as its rounds, ``max_depth`` and
        ``random_state``.
    max_samples, max_rows : int
        Rows drawn for each tree of a random forest, and rows of features built in all: fitting costs no more beyond.
    timezone : str
        IANA zone of the sensors' local clock, for calendar features.
    country : str, optional
        Whose public holidays the model knows (``AU``, ``AU-VIC``).
    covariates : str
        ``auto`` (those present), ``none``, or names separated by commas.
    """

    estimator: str = RANDOM_FOREST
    n_estimators: int = 100
    max_depth: int | None = None
    min_samples_split: int = 2
    min_samples_leaf: int = 3
    max_features: float = 0.33
    max_samples: int = 20_000
    max_rows: int = 250_000
    random_state: int = 42
    timezone: str = "UTC"
    country: str | None = None
    covariates: str = "auto"

    def options(self) -> dict[str, Any]:
        """Return what the estimator's fit takes."""
        names = ("n_estimators", "max_depth", "min_samples_split", "min_samples_leaf", "max_features", "max_samples")
        return {name: getattr(self, name) for name in (*names, "random_state")}


@dataclass(frozen=True)
class Forecast:
    """n forecasts: `values` (predicted_load, lower, upper), `model` and `reason`, arrays of shape (n,)."""

    values: dict[str, NDArray[np.float64]]
    model: NDArray[np.object_]
    reason: NDArray[np.object_]
    design: Design | None = None


class LoadForecastingModel(StoredModel):
    """Direct multi-horizon regression over all sensors (ridge and trees combined), or the seasonal naive.

    Parameters
    ----------
    **params
        See `LoadParams`.

    Notes
    -----
    One global model on scaled series: Montero-Manso & Hyndman (2021), *IJF* 37(4), "Principles and algorithms for
    forecasting groups of time series"; direct strategy with the horizon as a feature: Ben Taieb et al. (2012).
    """

    def __init__(self, **params: Any) -> None:
        self.params = LoadParams(**params)
        if self.params.estimator not in ESTIMATORS:
            raise InputError(f"estimator must be one of {', '.join(ESTIMATORS)}", found=self.params.estimator)
        check_timezone(self.params.timezone)
        self._validation: Validation | None = None
        self._fresh: FreshHistory | None = None

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the training parameters by name; `deep` is there for scikit-learn's convention."""
        return {field.name: getattr(self.params, field.name) for field in fields(self.params)}

    def fit(self, hourly: pd.DataFrame) -> LoadForecastingModel:
        """Learn from hourly load of any number of sensors.

        Parameters
        ----------
        hourly : DataFrame
            Columns ``sensor_id, timestamp, avg_value`` and, as far as known, ``min_value, max_value, count,
            temperature, is_holiday``; hours without load empty or absent. Stays unchanged.

        Returns
        -------
        LoadForecastingModel
            Itself. Some weeks of each season judge a first fit that has not seen them: this gives the intervals and the
            sensors that stay with the seasonal naive. The final fit then learns from all hours.

        Raises
        ------
        InputError
            For bad rows, absent covariates and too little data.
        """
        panel = build_panel(_dated(parse_hourly(hourly)))
        self._spec = self._feature_spec(panel)
        rng = np.random.default_rng(self.params.random_state)
        self._calibrate(panel, rng)
        return self._learn(panel, rng)

    def refit(self, hourly: pd.DataFrame) -> LoadForecastingModel:
        """Learn from data that go on after those of the earlier `fit`.

        The hours since then judge the model as it is, which adds to what intervals and fallbacks rest on; then the
        estimator learns from all hours. Where less than two weeks have passed, and for a model read from a store, this
        is `fit`. Parameters, result and errors are as there.
        """
        if self._validation is None:
            return self.fit(hourly)
        panel = build_panel(_dated(parse_hourly(hourly)))
        known = self._history.last_hour(panel.sensor_ids)
        cutoff = panel.first_cell + known - panel.first_hour
        if np.median(panel.origin - cutoff) < _SHORTEST_JUDGEMENT_DAYS * HOURS_A_DAY:
            return self.fit(hourly)
        rng = np.random.default_rng(self.params.random_state)
        since = draw_samples(panel, rng, wanted=_MANY)
        since = thin(since.take(since.target > cutoff[since.sensor]), _CALIBRATION_ROWS, rng)
        design = self._design(panel, since)
        judged = Validation.of(panel, since, design, self._estimator.predict(design), self._spec)
        self._learn_errors(self._validation.joined(judged))
        self._spec = self._feature_spec(panel)
        return self._learn(panel, rng)

    def _learn(self, panel: Panel, rng: np.random.Generator) -> LoadForecastingModel:
        """Fit the estimator to all hours of `panel` and remember the last weeks."""
        samples = draw_samples(panel, rng, wanted=self.params.max_rows)
        fitted, importances = self._fit(panel, samples, self.params.n_estimators)
        self._estimator = fitted.combined(self._combination)
        self.feature_importances_ = dict(zip(self._tree_features(), importances.tolist(), strict=True))
        self._history = StoredHistory.from_panel(panel)
        return self

    def forget_history(self) -> None:
        """Forget the hours of every sensor, which then has to send its own with each request.

        What was learned of each sensor stays: its name, how its level and daily course differ from others' and how far
        forecasts of it erred.
        """
        self._history = self._history.emptied()

    def _feature_spec(self, panel: Panel) -> FeatureSpec:
        covariates = _resolve_covariates(self.params.covariates, panel)
        holidays: tuple[int, ...] = ()
        if self.params.country:
            hours = np.concatenate([panel.first_hour, panel.first_hour + panel.n_hours])
            years = (hours.astype("datetime64[h]").astype("datetime64[Y]").astype(int) + 1970).tolist()
            days = holiday_days(self.params.country, min(years) - 1, max(years) + _YEARS_AHEAD)
            holidays = tuple(days.tolist())
        annual = bool(np.median(panel.n_hours) >= _HOURS_TO_TELL_SEASONS)
        return FeatureSpec(self.params.timezone, holidays, covariates, annual)

    def _fit(self, panel: Panel, samples: Samples, trees: int) -> tuple[LoadEstimator, NDArray[np.float64]]:
        options = {**self.params.options(), "n_estimators": trees}
        samples = thin(samples, self.params.max_rows, np.random.default_rng(self.params.random_state))
        _log.info("fitting %d trees on %d rows", trees, len(samples.origin))
        return fit_estimator(panel, samples, self._spec, self.params.estimator, options)

    def _calibrate(self, panel: Panel, rng: np.random.Generator) -> None:
        """Fit without some weeks of each season; their errors give weights, intervals and fallbacks."""
        samples = draw_samples(panel, rng, wanted=self.params.max_rows)
        before = samples.take(~held_out(panel, samples))
        trees = self.params.n_estimators
        fewer = min(trees, _CALIBRATION_TREES) if self.params.estimator == RANDOM_FOREST else trees
        fitted, _ = self._fit(panel, before, fewer)
        later = draw_samples(panel, rng, wanted=_MANY)
        later = thin(later.take(held_out(panel, later)), _CALIBRATION_ROWS, rng)
        design = self._design(panel, later)
        members = fitted.members(design)
        errors = (panel.load[later.target][:, None] - members) / design.scale[:, None]
        self._combination = Combination.fit(errors, later.horizon, PRIOR)
        predicted = self._combination.of(members, later.horizon)
        self._learn_errors(Validation.of(panel, later, design, predicted, self._spec))

    def _design(self, panel: Panel, samples: Samples) -> Design:
        return build_features(panel, samples.sensor, samples.origin, samples.horizon, self._spec)

    def _learn_errors(self, validation: Validation) -> None:
        self._validation = validation
        self._quantiles, self._fallback = validation.quantiles(), validation.fallback()

    def forecast(
        self,
        panel: Panel,
        sensor: NDArray[np.int64],
        origin: NDArray[np.int64],
        horizon: NDArray[np.int64],
        *,
        level: float = 0.9,
        use_ml: bool = True,
    ) -> Forecast:
        """Forecast n pairs of origin and horizon on `panel`; nothing after an origin is used but known covariates.

        Parameters
        ----------
        panel : Panel
        sensor, origin, horizon : ndarray of int64, shape (n,)
            Number of the sensor, cell of the origin, lead time [h, 1…168].
        level : float
            Probability of the interval.
        use_ml : bool
            False asks for the seasonal naive.
        """
        design = build_features(panel, sensor, origin, horizon, self._spec)
        reason = self._why_not_model(panel, sensor, origin) if use_ml else _nothing(len(sensor))
        by_model = np.array([r is None for r in reason], dtype=bool) & use_ml
        predicted = np.full(len(sensor), np.nan)
        if not by_model.all():
            predicted[~by_model] = preferred_naive(seasonal_naive(panel, origin[~by_model], horizon[~by_model]))
        if by_model.any():
            predicted[by_model] = self._estimator.predict(design if by_model.all() else design.take(by_model))
        lower, upper = self._interval(level, design, by_model, predicted)
        self._complete_reasons(reason, predicted, by_model, design)
        model = np.where(by_model, self.params.estimator, NAIVE).astype(object)
        values = {"predicted_load": predicted, "lower": lower, "upper": upper}
        return Forecast(values, model, reason, design)

    def _interval(
        self,
        level: float,
        design: Design,
        by_model: NDArray[np.bool_],
        predicted: NDArray[np.float64],
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        low, high = np.empty(len(predicted)), np.empty(len(predicted))
        for chosen, model in ((by_model, ML), (~by_model, NAIVE)):
            if chosen.any():
                rows = design if chosen.all() else design.take(chosen)
                known = conditions(rows, predicted[chosen], self._spec) if model == ML else None
                bounds = self._quantiles[model].bounds(level, rows.horizon, rows.sensor, known)
                low[chosen], high[chosen] = bounds
        return predicted + np.minimum(low, 0) * design.scale, predicted + np.maximum(high, 0) * design.scale

    def _why_not_model(self, panel: Panel, sensor: NDArray[np.int64], origin: NDArray[np.int64]) -> NDArray[np.object_]:
        """Return for each row why the model must not answer it, or None."""
        cells, back = np.unique(origin, return_inverse=True)
        number = np.empty(len(cells), dtype=np.int64)
        number[back] = sensor
        known = ~np.isnan(panel.load[cells[:, None] - np.arange(HOURS_A_WEEK)])
        length = cells - panel.first_observed()[number] + 1
        reasons = _nothing(len(cells))
        for i, (hours, n) in enumerate(zip(length.tolist(), known.sum(axis=1).tolist(), strict=True)):
            if hours < HOURS_A_WEEK:
                reasons[i] = f"the history has {hours} of the {HOURS_A_WEEK} hours that the model needs"
            elif n < _LEAST_KNOWN * HOURS_A_WEEK:
                reasons[i] = f"the last {HOURS_A_WEEK} hours have {HOURS_A_WEEK - n} gaps"
            elif panel.sensor_ids[number[i]] in self._fallback:
                reasons[i] = "validation found the seasonal naive better for this sensor"
        return reasons[back]

    def _complete_reasons(
        self, reason: NDArray[np.object_], predicted: NDArray[np.float64], by_model: NDArray[np.bool_], design: Design
    ) -> None:
        """Say what the model's answer lacked, and why a row has no value."""
        for name in self._spec.covariates:
            lacking = np.isnan(design.features[:, self._spec.names().index(name)]) & by_model
            _add(reason, lacking, f"future {name} was not sent")
        _add(reason, np.isnan(predicted), "no load is known a whole number of days or weeks before this hour")

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Answer a request; see the README for its rows, parameters and answer. Learns and keeps nothing.

        Raises
        ------
        MlflowException
            With an error code that the server answers with status 400, and one sentence.
        """
        with refusing_bad_input():
            checked = ForecastParams.parse(params)
            known = self._known_history()
            request = parse_request(read_table(model_input), known.history.sensors)
            answer = self._answer(request, checked, known)
            if pd.isna(answer["predicted_load"].to_numpy()).all():
                raise InputError(
                    f"no sensor of the request can be forecast: {answer['reason'].iloc[0]}",
                    place=f"sensor {answer['sensor_id'].iloc[0]}",
                    remedy="send its hourly load of the last weeks",
                )
            return answer

    def load_context(self, context: Any) -> None:
        """Read the state that MLflow stored, and learn from the environment where fresh history is to be had."""
        super().load_context(context)
        with refusing_bad_input():
            self._fresh = history_of_environment(self._history)

    def _known_history(self) -> KnownHistory:
        return self._fresh.current() if self._fresh else KnownHistory(self._history)

    def _answer(self, request: LoadRequest, params: ForecastParams, known: KnownHistory) -> pd.DataFrame:
        stored = [s for s in request.from_store if s in known.history]
        unknown = [s for s in request.from_store if s not in known.history]
        parts = []
        if unknown:
            parts.append(_without_history(unknown, params, "the sensor is unknown and no history was sent"))
        if stored:
            parts.append(self._answer_panel(known.history.panel(stored), params, known))
        if request.panel is not None:
            parts.append(self._answer_panel(request.panel, params))
        answer = pd.concat(parts, ignore_index=True) if len(parts) > 1 else parts[0]
        place = {sensor: i for i, sensor in enumerate(request.sensors)}
        asked = np.array([place[sensor] for sensor in answer["sensor_id"].to_numpy(dtype=object)])
        if (np.diff(asked) >= 0).all():
            return answer
        return answer.take(np.argsort(asked, kind="stable")).reset_index(drop=True)

    def _answer_panel(self, panel: Panel, params: ForecastParams, known: KnownHistory | None = None) -> pd.DataFrame:
        seen = np.flatnonzero(panel.origin >= 0)
        steps = params.hours_ahead
        sensor = np.repeat(seen, steps)
        horizon = np.tile(np.arange(1, steps + 1), len(seen))
        blind = [str(s) for s in panel.sensor_ids[panel.origin < 0]]
        why = "no observed load among the rows sent, which replace the stored history"
        if not len(seen):
            return _without_history(blind, params, why)
        origin = panel.origin[sensor]
        found = self.forecast(panel, sensor, origin, horizon, level=params.level, use_ml=params.use_ml)
        hours = panel.hour(sensor, origin).astype(np.float64)
        if known is not None and known.store is not None:
            notes = known.note(panel.sensor_ids[seen], hours[::steps], time.time())
            _add_each(found.reason, np.repeat(notes, steps))
        answer = answer_frame(panel.sensor_ids[sensor], hours, horizon, found.values, found.model, found.reason)
        if params.explain:
            answer["drivers"] = pd.Series(self._drivers(found), dtype=object)
        return pd.concat([answer, _without_history(blind, params, why)], ignore_index=True) if blind else answer

    def permutation_importance(
        self, panel: Panel, sensor: NDArray[np.int64], origin: NDArray[np.int64], horizon: NDArray[np.int64]
    ) -> dict[str, float]:
        """Return how much the mean absolute scaled error grows when a group of features is shuffled among n forecasts.

        Parameters are those of `forecast`; all targets must have been observed, and should not have been trained on.

        Returns
        -------
        dict
            Group of features → increase, as a share of the error with all of them.

        Notes
        -----
        Breiman (2001), "Random forests", section 10. Groups, as a single feature has near copies that stand in for it.
        """
        design = build_features(panel, sensor, origin, horizon, self._spec)
        actual, rng = panel.load[origin + horizon], np.random.default_rng(self.params.random_state)

        def error(of: Design) -> float:
            return float(np.nanmean(np.abs(self._estimator.predict(of) - actual) / design.scale))

        order, names, whole = rng.permutation(len(sensor)), self._spec.names(), error(design)
        groups = [group for group in GROUPS if any(group_of(name) == group for name in names)]
        return {group: error(shuffled(design, names, group, order)) / max(whole, 1e-12) - 1 for group in groups}

    def _drivers(self, found: Forecast) -> NDArray[np.object_]:
        """Name what moved each forecast most from the mean of the last week, by how much [unit of the load]."""
        assert found.design is not None
        if len(found.model) > _MOST_EXPLAINED:
            raise InputError(
                f"explain answers at most {_MOST_EXPLAINED} rows",
                found=len(found.model),
                remedy="ask for fewer sensors",
            )
        drivers = _nothing(len(found.model))
        rows = np.flatnonzero(found.model != NAIVE)
        if not len(rows):
            return drivers
        by_group = self._estimator.contributions(found.design.take(rows), self._spec.names())
        effects, names = np.column_stack(list(by_group.values())), list(by_group)
        for row, effect in zip(rows, effects, strict=True):
            top = np.argsort(-np.abs(effect))[:_DRIVERS]
            drivers[row] = ", ".join(f"{names[i]} {effect[i]:+.4g}" for i in top)
        return drivers

    def _tree_features(self) -> tuple[str, ...]:
        return (*self._spec.names(), LINEAR_FEATURE)

    def save(self, folder: Path) -> None:
        """Write the fitted model into the existing `folder`, as arrays and JSON."""
        arrays = with_prefix("estimator", self._estimator.to_arrays())
        arrays |= with_prefix("history", self._history.to_arrays())
        for name, quantiles in self._quantiles.items():
            arrays |= with_prefix(name, quantiles.to_arrays())
        settings = {
            "params": self.get_params(),
            "holidays": self._spec.holidays,
            "covariates": self._spec.covariates,
            "annual": self._spec.annual,
            "fallback": sorted(self._fallback),
            "feature_importances": self.feature_importances_,
        }
        save_state(folder, arrays, settings)

    def _restore(self, folder: Path) -> None:
        arrays, settings = load_state(folder)
        self.params = LoadParams(**settings["params"])
        self._spec = FeatureSpec(
            self.params.timezone, tuple(settings["holidays"]), tuple(settings["covariates"]), settings["annual"]
        )
        self._fallback = frozenset(settings["fallback"])
        self.feature_importances_ = settings["feature_importances"]
        self._estimator = LoadEstimator.from_arrays(under_prefix("estimator", arrays))
        self._history = StoredHistory.from_arrays(under_prefix("history", arrays))
        self._quantiles = {n: ResidualQuantiles.from_arrays(under_prefix(n, arrays)) for n in (ML, NAIVE)}

    @property
    def fallback_sensors(self) -> frozenset[str]:
        """Sensors that validation left with the seasonal naive."""
        return self._fallback

    @property
    def sensors(self) -> Sequence[str]:
        """Sensors with a stored history, sorted."""
        return [str(s) for s in self._history.sensors]

    @property
    def covariates(self) -> tuple[str, ...]:
        """Covariates that the model was trained with."""
        return self._spec.covariates


def _dated(rows: pd.DataFrame) -> pd.DataFrame:
    missing = rows["hour"].isna().to_numpy()
    if missing.any():
        i = int(np.flatnonzero(missing)[0])
        raise InputError("timestamp is required", place=f"column timestamp, row {i + 1}", found="an empty value")
    if rows["avg_value"].notna().sum() == 0:
        raise InputError("training needs hourly load", found="no avg_value at all")
    return rows


def _resolve_covariates(choice: str, panel: Panel) -> tuple[str, ...]:
    present = tuple(n for n in COVARIATES if n in panel.covariates and not np.isnan(panel.covariates[n]).all())
    if choice in ("auto", "none"):
        return present if choice == "auto" else ()
    wanted = tuple(name.strip() for name in choice.split(","))
    lacking = [name for name in wanted if name not in present]
    if lacking:
        raise InputError(
            f"covariate {', '.join(lacking)} must be a column of the data",
            found=", ".join(present) or "no covariates",
            remedy="covariates=auto takes those present",
        )
    return tuple(name for name in COVARIATES if name in wanted)


def _without_history(sensors: Sequence[str], params: ForecastParams, reason: str) -> pd.DataFrame:
    steps = params.hours_ahead
    n = len(sensors) * steps
    nothing = np.full(n, np.nan)
    values = dict.fromkeys(("predicted_load", "lower", "upper"), nothing)
    names = np.repeat(np.array(sensors, dtype=object), steps)
    horizon = np.tile(np.arange(1, steps + 1), len(sensors))
    answer = answer_frame(names, nothing, horizon, values, _nothing(n), np.full(n, reason, dtype=object))
    return answer.assign(drivers=pd.Series(_nothing(n), dtype=object)) if params.explain else answer


def _nothing(n: int) -> NDArray[np.object_]:
    return np.full(n, None, dtype=object)


def _add(reason: NDArray[np.object_], where: NDArray[np.bool_], text: str) -> None:
    for i in np.flatnonzero(where):
        reason[i] = f"{reason[i]}; {text}" if reason[i] else text


def _add_each(reason: NDArray[np.object_], texts: NDArray[np.object_]) -> None:
    for text in {text for text in texts if text}:
        _add(reason, texts == text, text)
