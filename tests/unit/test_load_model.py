"""The load model as a user meets it: requests in, answers out, on a small synthetic grid."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException

from smartgrid_pyfunc.features.groups import DAYS, GROUPS, HOLIDAYS
from smartgrid_pyfunc.features.load import build_features
from smartgrid_pyfunc.features.panel import build_panel, parse_hourly
from smartgrid_pyfunc.models.load_forecasting import LoadForecastingModel
from smartgrid_pyfunc.schema import InputError

ZONE = "Europe/London"
START = pd.Timestamp("2024-01-20T00:00:00Z")
HOURS = 72 * 24  # until 31 March 2024 at 23 h: the clocks change on the last day
NUMBERS = ["predicted_load", "lower", "upper"]
ML, NAIVE = "random_forest", "seasonal_naive"
OPTIONS = {"n_estimators": 12, "max_rows": 3_000, "timezone": ZONE, "country": "GB"}


def grid(hours: int, seed: int = 0) -> pd.DataFrame:
    """Hourly load of sensors that differ in size, sign and predictability."""
    rng = np.random.default_rng(seed)
    h = np.arange(hours)
    times = START + pd.to_timedelta(h, unit="h")
    temperature = 10 - 6 * np.cos(2 * np.pi * (h - 4) / 24) + 6 * np.sin(h / 71) + rng.normal(0, 0.5, hours)
    shape = 1 + 0.4 * np.sin(2 * np.pi * (h - 8) / 24) + 0.2 * (times.day_of_week < 5)
    loads = {
        "feeder": 100 * shape + 4 * (temperature - 10) + rng.normal(0, 2, hours),
        "house": 0.5 * shape + 0.02 * (temperature - 10) + rng.normal(0, 0.02, hours),
        "solar": -20 * shape + rng.normal(0, 2, hours),
        "clockwork": 10 + np.tile(rng.normal(0, 1, 168), hours // 168 + 1)[:hours],
        "dead": np.zeros(hours),
        "flat": np.full(hours, 7.0),
    }
    frames = [
        pd.DataFrame({"sensor_id": name, "timestamp": times, "avg_value": load, "temperature": temperature})
        for name, load in loads.items()
    ]
    frame = pd.concat(frames, ignore_index=True)
    spread = 0.05 * frame["avg_value"].abs()
    return frame.assign(min_value=frame["avg_value"] - spread, max_value=frame["avg_value"] + spread, count=4)


WHOLE = grid(HOURS + 24)
TRAINING = WHOLE[WHOLE["timestamp"] < START + pd.Timedelta(hours=HOURS)]
LIVE = ["feeder", "house", "solar"]


@pytest.fixture(scope="module")
def model() -> LoadForecastingModel:
    return LoadForecastingModel(**OPTIONS).fit(TRAINING)


def own(*sensors: str, frame: pd.DataFrame = TRAINING, last: int = 672) -> pd.DataFrame:
    rows = frame[frame["sensor_id"].isin(sensors)]
    return rows.groupby("sensor_id").tail(last).reset_index(drop=True)


def ask(model: LoadForecastingModel, rows: Any, **params: Any) -> pd.DataFrame:
    frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame({"sensor_id": list(rows)})
    answer = model.predict(None, frame, params or None)
    check_answer(answer, params.get("hours_ahead", 24))
    return answer


def check_answer(answer: pd.DataFrame, steps: int) -> None:
    """What holds for every answer."""
    json.dumps(answer.to_dict("records"), allow_nan=False)
    for name in answer.select_dtypes(object):
        assert not any(isinstance(value, float) and value != value for value in answer[name]), name
    for _, rows in answer.groupby("sensor_id", sort=False):
        assert rows["horizon"].tolist() == list(range(1, steps + 1))
        assert rows["origin"].nunique(dropna=False) == 1
    known = answer[answer["predicted_load"].notna()].astype(dict.fromkeys(NUMBERS, float))
    assert (known["lower"] <= known["predicted_load"]).all()
    assert (known["predicted_load"] <= known["upper"]).all()
    late = pd.to_datetime(known["timestamp"]) - pd.to_datetime(known["origin"])
    assert (late == pd.to_timedelta(known["horizon"], unit="h")).all()


def refusal(model: LoadForecastingModel, rows: pd.DataFrame, **params: Any) -> str:
    with pytest.raises(MlflowException) as error:
        model.predict(None, rows, params)
    assert error.value.get_http_status_code() == 400
    text = str(error.value.message)
    assert text.endswith(".")
    assert not any(word in text for word in ("Traceback", "\n", ".py", "/"))
    assert error.value.__cause__ is None
    return text


def same(one: pd.DataFrame, other: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(one.reset_index(drop=True), other.reset_index(drop=True), check_exact=True)


# --- what is answered -------------------------------------------------------------------------------------------


def test_a_forecast_beats_the_naive_and_its_interval_holds_what_came() -> None:
    early = LoadForecastingModel(**OPTIONS, covariates="none").fit(
        TRAINING[TRAINING["timestamp"] < START + pd.Timedelta("65D")]
    )
    truth = TRAINING.set_index(["sensor_id", TRAINING["timestamp"].dt.strftime("%Y-%m-%dT%H:%M:%SZ")])["avg_value"]
    errors, inside = {}, []
    for use_ml in (True, False):
        answer = ask(early, LIVE, hours_ahead=120, use_ml=use_ml)
        actual = truth.loc[pd.MultiIndex.from_frame(answer[["sensor_id", "timestamp"]])].to_numpy()
        errors[use_ml] = np.abs(answer["predicted_load"] - actual).groupby(answer["sensor_id"]).mean()
        inside.append(((answer["lower"] <= actual) & (actual <= answer["upper"])).mean())
    assert (errors[True] < errors[False]).all()
    assert 0.75 <= inside[0] <= 1


def test_answers_have_a_row_per_sensor_and_hour_in_the_order_asked(model: LoadForecastingModel) -> None:
    answer = ask(model, ["solar", "feeder"], hours_ahead=3)
    assert answer["sensor_id"].tolist() == ["solar"] * 3 + ["feeder"] * 3
    assert set(answer["origin"]) == {"2024-03-31T23:00:00Z"}
    assert answer["timestamp"].tolist()[:3] == [f"2024-04-01T0{h}:00:00Z" for h in range(3)]
    sent = ask(model, pd.concat([own("solar"), own("feeder").iloc[::-1]]), hours_ahead=3)
    assert sent["sensor_id"].tolist() == answer["sensor_id"].tolist()


def test_what_is_sent_gives_the_answer_of_the_same_history_in_the_store(model: LoadForecastingModel) -> None:
    for use_ml in (True, False):
        stored = ask(model, LIVE, hours_ahead=168, use_ml=use_ml)
        same(ask(model, own(*LIVE), hours_ahead=168, use_ml=use_ml), stored)
        same(ask(model, own(*LIVE, last=HOURS), hours_ahead=168, use_ml=use_ml), stored)


def test_all_means_every_stored_sensor(model: LoadForecastingModel) -> None:
    answer = ask(model, ["all"])
    assert sorted(set(answer["sensor_id"])) == sorted(set(TRAINING["sensor_id"])) == list(model.sensors)
    same(answer, ask(model, model.sensors))


def test_the_same_request_gives_the_same_answer_and_stays_as_it_was(model: LoadForecastingModel) -> None:
    rows = pd.concat([own("feeder"), pd.DataFrame({"sensor_id": ["house"]})], ignore_index=True)
    before = rows.copy(deep=True)
    first = ask(model, rows, explain=True)
    ask(model, own("solar"), use_ml=False)
    same(first, ask(model, rows, explain=True))
    pd.testing.assert_frame_equal(rows, before)


def test_whole_equals_parts(model: LoadForecastingModel) -> None:
    for rows in (own(*LIVE, "clockwork", last=500), pd.DataFrame({"sensor_id": [*LIVE, "clockwork"]})):
        together = ask(model, rows, hours_ahead=50, explain=True)
        for name, part in rows.groupby("sensor_id"):
            same(ask(model, part, hours_ahead=50, explain=True), together[together["sensor_id"] == name])


def test_neither_row_order_nor_other_sensors_nor_duplicates_matter(model: LoadForecastingModel) -> None:
    rows = own(*LIVE)
    plain = ask(model, rows)
    shuffled = ask(model, pd.concat([rows, rows.iloc[::7]]).sample(frac=1, random_state=1))
    for name in LIVE:
        same(shuffled[shuffled["sensor_id"] == name], plain[plain["sensor_id"] == name])
    spoilt = rows.assign(avg_value=rows["avg_value"].where(rows["sensor_id"] != "house", 1e29))
    answer = ask(model, spoilt)
    same(answer[answer["sensor_id"] != "house"], plain[plain["sensor_id"] != "house"])


def test_conflicting_rows_count_with_their_mean(model: LoadForecastingModel) -> None:
    rows = own("feeder")
    apart = pd.concat([rows.assign(avg_value=rows["avg_value"] + 8), rows.assign(avg_value=rows["avg_value"] - 8)])
    mean = rows.assign(avg_value=((rows["avg_value"] - 8) + (rows["avg_value"] + 8)) / 2)
    found, expected = ask(model, apart), ask(model, mean)
    assert found["predicted_load"].tolist() == pytest.approx(expected["predicted_load"].tolist(), rel=1e-6)


def test_nothing_after_the_last_observation_but_covariates_moves_a_forecast(model: LoadForecastingModel) -> None:
    future = own("feeder", last=24).assign(timestamp=lambda f: f["timestamp"] + pd.Timedelta("1D"), avg_value=np.nan)
    plain = ask(model, pd.concat([own("feeder"), future]))
    noisy = future.assign(min_value=-1e6, max_value=1e6, count=999)
    same(ask(model, pd.concat([own("feeder"), noisy])), plain)
    moved = own("feeder")
    moved.loc[moved.index[-1], "avg_value"] += 50
    assert not np.allclose(ask(model, pd.concat([moved, future]))["predicted_load"], plain["predicted_load"])


@pytest.mark.parametrize("spelling", ["naive", "offset", "datetime", "zone", "mixed"])
def test_every_spelling_of_the_same_times_and_numbers_gives_the_same_answer(
    model: LoadForecastingModel, spelling: str
) -> None:
    rows = own("feeder", "clockwork").round({"avg_value": 0})
    times = rows["timestamp"]
    texts = {
        "naive": times.dt.strftime("%Y-%m-%dT%H:%M:%S"),
        "offset": times.dt.tz_convert(ZONE).map(lambda t: t.isoformat()),
        "datetime": times.dt.tz_localize(None),
        "zone": times.dt.tz_convert("Asia/Kolkata"),
    }
    mixed = texts["naive"].where(np.arange(len(rows)) % 2 == 0, texts["offset"]).astype(object)
    changed = rows.assign(timestamp=texts.get(spelling, mixed), avg_value=rows["avg_value"].astype(int))
    same(ask(model, changed), ask(model, rows))


# --- fallbacks --------------------------------------------------------------------------------------------------


def weeks_before(answer: pd.DataFrame, rows: pd.DataFrame) -> list[float]:
    """The load of the same hour a week earlier, else of the latest day that has it, by hand."""
    load = rows.dropna(subset="avg_value").set_index(["sensor_id", "timestamp"])["avg_value"].to_dict()
    found = []
    for sensor, text, horizon in zip(answer["sensor_id"], answer["timestamp"], answer["horizon"], strict=True):
        lags = (168, 24 * -(-horizon // 24))
        known = [load[key] for lag in lags if (key := (sensor, pd.Timestamp(text) - pd.Timedelta(hours=lag))) in load]
        found.append(known[0] if known else float("nan"))
    return found


@pytest.mark.parametrize("hours", [1, 24, 30, 100, 167, 400])
def test_use_ml_false_is_the_seasonal_naive_by_hand(model: LoadForecastingModel, hours: int) -> None:
    rows = own(*LIVE, last=hours)
    answer = ask(model, rows, use_ml=False, hours_ahead=168)
    assert np.array_equal(answer["predicted_load"].astype(float), weeks_before(answer, rows), equal_nan=True)
    unknown = answer["predicted_load"].isna()
    assert answer.loc[unknown, "reason"].str.contains("no load is known").all()
    assert answer.loc[~unknown, "reason"].isna().all()
    assert set(answer["model"]) == {NAIVE}


@pytest.mark.parametrize("hours", [24, 100, 167])
def test_a_short_history_falls_back_saying_so(model: LoadForecastingModel, hours: int) -> None:
    rows = own("feeder", last=hours)
    answer = ask(model, rows)
    assert set(answer["model"]) == {NAIVE}
    assert answer["reason"].str.contains(f"{hours} of the 168 hours").all()
    assert answer["predicted_load"].tolist() == weeks_before(answer, rows)


def test_a_week_of_history_is_enough_for_the_forest(model: LoadForecastingModel) -> None:
    answer = ask(model, own("feeder", last=168))
    assert set(answer["model"]) == {ML}


@pytest.mark.parametrize(("gaps", "expected"), [(33, ML), (34, NAIVE), (60, NAIVE)])
def test_more_than_a_fifth_of_gaps_in_the_last_week_falls_back_saying_so(
    model: LoadForecastingModel, gaps: int, expected: str
) -> None:
    rows = own("feeder")
    holes = rows.index[-168:-1][np.random.default_rng(0).choice(167, gaps, replace=False)]
    empty = rows.copy()
    empty.loc[holes, "avg_value"] = np.nan
    for sent in (rows.drop(index=holes), empty):
        answer = ask(model, sent)
        assert set(answer["model"]) == {expected}
        assert answer["reason"].str.contains(f"{gaps} gaps").all() == (expected == NAIVE)


def test_where_validation_prefers_the_naive_it_answers_saying_so(model: LoadForecastingModel) -> None:
    assert "clockwork" in model.fallback_sensors
    assert not model.fallback_sensors & set(LIVE)
    answer = ask(model, ["clockwork", "feeder"])
    said = answer.groupby("sensor_id")["reason"].first()
    assert "found the seasonal naive better" in said["clockwork"]
    assert set(answer.loc[answer["sensor_id"] == "clockwork", "model"]) == {NAIVE}
    # What repeats exactly is forecast exactly.
    expected = own("clockwork", frame=WHOLE, last=24)["avg_value"].tolist()
    assert answer.loc[answer["sensor_id"] == "clockwork", "predicted_load"].tolist() == expected


def test_an_unknown_sensor_is_forecast_from_the_history_sent(model: LoadForecastingModel) -> None:
    known = ask(model, own("feeder"))
    renamed = ask(model, own("feeder").assign(sensor_id="new"))
    assert set(renamed["sensor_id"]) == {"new"}
    # By what all sensors have in common: a known sensor has small corrections of its own beside.
    assert np.allclose(renamed["predicted_load"], known["predicted_load"], rtol=0.1)
    assert set(renamed["model"]) == {ML}


def test_an_unknown_sensor_alone_is_refused_and_among_others_told(model: LoadForecastingModel) -> None:
    assert "unknown" in refusal(model, pd.DataFrame({"sensor_id": ["nobody"]}))
    assert "unknown" in refusal(model, pd.DataFrame({"sensor_id": ["nobody", "no one"]}), explain=True)
    answer = ask(model, ["nobody", "feeder"], explain=True)
    nobody = answer[answer["sensor_id"] == "nobody"]
    for name in ["origin", "timestamp", *NUMBERS, "model", "drivers"]:
        assert nobody[name].tolist() == [None] * 24, name
    assert nobody["reason"].str.contains("unknown").all()
    pd.testing.assert_frame_equal(
        answer[answer["sensor_id"] == "feeder"].reset_index(drop=True).astype(dict.fromkeys(NUMBERS, float)),
        ask(model, ["feeder"], explain=True),
    )


def test_rows_without_any_load_spoil_only_their_own_sensor(model: LoadForecastingModel) -> None:
    blind = own("house").assign(avg_value=np.nan)
    assert "no observed load" in refusal(model, blind)
    answer = ask(model, pd.concat([blind, own("feeder")]))
    assert answer.loc[answer["sensor_id"] == "house", "reason"].str.contains("no observed load").all()
    assert answer.loc[answer["sensor_id"] == "feeder", "predicted_load"].notna().all()


# --- covariates -------------------------------------------------------------------------------------------------


def future(hours: int, temperature: float, sensor: str = "feeder") -> pd.DataFrame:
    times = TRAINING["timestamp"].max() + pd.to_timedelta(np.arange(1, hours + 1), unit="h")
    return pd.DataFrame({"sensor_id": sensor, "timestamp": times, "temperature": temperature})


def test_future_covariates_change_the_forecast_the_right_way(model: LoadForecastingModel) -> None:
    assert model.covariates == ("temperature",)
    cold, warm = (ask(model, pd.concat([own("feeder"), future(24, t)])) for t in (4.0, 16.0))
    assert cold["reason"].isna().all()
    assert (warm["predicted_load"] - cold["predicted_load"]).mean() > 5


def test_a_forecast_without_the_covariates_says_so_and_stays_good(model: LoadForecastingModel) -> None:
    answer = ask(model, pd.concat([own("feeder"), future(10, 12.0)]))
    assert answer["reason"].isna().tolist() == [True] * 10 + [False] * 14
    assert answer["reason"].dropna().str.contains("future temperature was not sent").all()
    bare = ask(model, own(*LIVE)[["sensor_id", "timestamp", "avg_value"]])
    truth = own(*LIVE, frame=WHOLE, last=24)
    naive = np.abs(np.array(weeks_before(bare, TRAINING)) - truth["avg_value"].to_numpy())
    error = np.abs(bare["predicted_load"].to_numpy() - truth["avg_value"].to_numpy())
    assert error.sum() < 1.2 * naive.sum()


@pytest.mark.parametrize(
    ("choice", "expected"), [("auto", ("temperature",)), ("none", ()), ("temperature", ("temperature",))]
)
def test_covariates_are_chosen_by_the_parameter(choice: str, expected: tuple[str, ...]) -> None:
    small = LoadForecastingModel(n_estimators=2, max_rows=500, covariates=choice).fit(own("feeder", last=900))
    assert small.covariates == expected
    assert ("temperature" in small.feature_importances_) == ("temperature" in expected)


def test_a_covariate_that_the_data_lacks_is_refused() -> None:
    with pytest.raises(InputError, match="covariate is_holiday must be a column"):
        LoadForecastingModel(covariates="temperature,is_holiday").fit(own("feeder"))


# --- parameters, intervals, explanations ------------------------------------------------------------------------


@pytest.mark.parametrize("hours", [1, 24, 168])
def test_hours_ahead_is_the_number_of_rows_and_the_first_do_not_depend_on_it(
    model: LoadForecastingModel, hours: int
) -> None:
    answer = ask(model, ["feeder"], hours_ahead=hours)
    same(answer, ask(model, ["feeder"], hours_ahead=168).head(hours))


def test_intervals_widen_with_the_level_and_leave_the_forecast(model: LoadForecastingModel) -> None:
    answers = [ask(model, LIVE, level=level) for level in (0.01, 0.5, 0.9, 0.99)]
    for narrow, wide in itertools.pairwise(answers):
        assert (wide["lower"] <= narrow["lower"]).all()
        assert (wide["upper"] >= narrow["upper"]).all()
        assert narrow["predicted_load"].tolist() == wide["predicted_load"].tolist()


@pytest.mark.parametrize(
    ("params", "word"),
    [
        ({"hours_ahead": 0}, "hours_ahead"),
        ({"hours_ahead": 169}, "hours_ahead"),
        ({"level": 0.0}, "level"),
        ({"level": 1.0}, "level"),
        ({"level": float("nan")}, "level"),
    ],
)
def test_parameters_out_of_bounds_are_refused(model: LoadForecastingModel, params: dict[str, Any], word: str) -> None:
    assert word in refusal(model, own("feeder"), **params)


def test_drivers_name_features_where_the_forest_answered(model: LoadForecastingModel) -> None:
    assert "drivers" not in ask(model, ["feeder"])
    answer = ask(model, ["feeder", "clockwork"], explain=True).set_index("sensor_id")["drivers"]
    assert all(value is None for value in answer["clockwork"])
    for text in answer["feeder"]:
        names = [part.rsplit(" ", 1)[0] for part in text.split(", ")]
        assert len(names) == 5
        assert set(names) <= set(GROUPS)


def test_drivers_add_up_to_the_forecast(model: LoadForecastingModel) -> None:
    panel = build_panel(parse_hourly(TRAINING))
    sensor, horizon = np.repeat(np.arange(3), 24), np.tile(np.arange(1, 25), 3)
    design = build_features(panel, sensor, panel.origin[sensor] - 24, horizon, model._spec)
    effects = model._estimator.contributions(design, model._spec.names())
    assert np.allclose(design.base["level"] + sum(effects.values()), model._estimator.predict(design), rtol=1e-4)


def test_shuffling_what_carries_the_forecast_makes_it_worse(model: LoadForecastingModel) -> None:
    panel = build_panel(parse_hourly(own("feeder", "house", frame=WHOLE, last=HOURS)))
    sensor, horizon = np.repeat(np.arange(2), 240), np.tile(np.arange(1, 25), 20)
    origin = panel.origin[sensor] - 24 - np.tile(np.repeat(np.arange(10), 24), 2)
    importance = model.permutation_importance(panel, sensor, origin, horizon)
    assert set(importance) <= set(GROUPS)
    assert max(importance.values()) > 0.1
    assert importance[DAYS] > importance[HOLIDAYS]


# --- refusals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "value", "word"),
    [
        ("avg_value", "12.5", "must be a number"),
        ("avg_value", float("inf"), "must be finite"),
        ("avg_value", True, "must be a number"),
        ("timestamp", 1_700_000_000, "ISO 8601"),
        ("timestamp", "yesterday", "ISO 8601"),
        ("timestamp", "2024-01-01T00:10:00Z", "start of an hour"),
        ("sensor_id", None, "must be text"),
        ("count", -3, "whole number"),
    ],
)
def test_a_bad_cell_is_refused_with_one_sentence(
    model: LoadForecastingModel, column: str, value: Any, word: str
) -> None:
    rows = own("feeder").astype({column: object})
    rows.loc[5, column] = value
    text = refusal(model, rows)
    assert word in text
    assert f"column {column}, row 6" in text


def test_a_request_above_the_limit_of_rows_is_refused(
    model: LoadForecastingModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMARTGRID_MAX_ROWS", "200")
    ask(model, own("feeder", last=200))
    assert "at most 200 rows" in refusal(model, own("feeder", last=201))
    assert "at least one row" in refusal(model, own("feeder").head(0))


# --- strange sensors --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("use_ml", [True, False])
@pytest.mark.parametrize("level", [0.0, 7.0, -7.0, 1e-3, 1e12])
def test_constant_sensors_do_not_explode(model: LoadForecastingModel, level: float, use_ml: bool) -> None:
    rows = own("flat").assign(sensor_id="new", avg_value=level, min_value=level, max_value=level)
    answer = ask(model, rows, use_ml=use_ml, hours_ahead=168)
    near = 0.1 * abs(level) + 1e-4
    assert np.abs(answer[NUMBERS].to_numpy() - level).max() <= near


def test_dead_and_flat_sensors_of_the_training_stay_where_they_are(model: LoadForecastingModel) -> None:
    answer = ask(model, ["dead", "flat"], hours_ahead=168).set_index("sensor_id")
    assert np.abs(answer.loc["dead", NUMBERS].to_numpy()).max() < 1e-3
    assert np.abs(answer.loc["flat", NUMBERS].to_numpy() - 7).max() < 0.7


def test_negative_load_is_forecast_like_positive_load(model: LoadForecastingModel) -> None:
    answer = ask(model, ["solar"])
    past = own("solar")["avg_value"]
    assert answer["predicted_load"].between(past.min(), past.max()).all()
    assert (answer["upper"] - answer["lower"]).max() < 2 * (past.max() - past.min())


@pytest.mark.parametrize("factor", [1e-3, 1e3, -1.0, 1e20])
def test_a_spike_or_a_change_of_unit_stays_finite(model: LoadForecastingModel, factor: float) -> None:
    rows = own("feeder")
    rows.loc[rows.index[-30:], "avg_value"] *= factor
    assert np.isfinite(ask(model, rows, hours_ahead=168)[NUMBERS].to_numpy(dtype=float)).all()


def test_the_local_clock_change_neither_skips_nor_repeats_an_hour(model: LoadForecastingModel) -> None:
    cut = pd.Timestamp("2024-03-30T12:00:00Z")
    answer = ask(model, own("feeder", frame=TRAINING[TRAINING["timestamp"] <= cut]))
    expected = pd.date_range(cut + pd.Timedelta("1h"), periods=24, freq="h").strftime("%Y-%m-%dT%H:%M:%SZ")
    assert answer["timestamp"].tolist() == expected.tolist()


# --- training and state -----------------------------------------------------------------------------------------


def test_saved_equals_loaded(model: LoadForecastingModel, tmp_path: Path) -> None:
    model.save(tmp_path)
    loaded = LoadForecastingModel.load(tmp_path)
    for rows, params in [(["all"], {"hours_ahead": 168, "explain": True}), (["all"], {"use_ml": False})]:
        same(ask(loaded, rows, **params), ask(model, rows, **params))
    same(ask(loaded, own("feeder")), ask(model, own("feeder")))
    assert loaded.get_params() == model.get_params()
    assert loaded.fallback_sensors == model.fallback_sensors
    assert loaded.feature_importances_ == model.feature_importances_
    assert {path.suffix for path in tmp_path.iterdir()} == {".npz", ".json"}


def test_fitting_leaves_the_frame_and_is_reproducible_from_its_seed() -> None:
    rows = own("feeder", "house", last=900)
    before = rows.copy(deep=True)
    options = {"n_estimators": 3, "max_rows": 800}
    one, again = (LoadForecastingModel(**options).fit(rows) for _ in range(2))
    other = LoadForecastingModel(**options, random_state=7).fit(rows)
    same(ask(one, ["all"]), ask(again, ["all"]))
    assert ask(one, ["all"])["predicted_load"].tolist() != ask(other, ["all"])["predicted_load"].tolist()
    pd.testing.assert_frame_equal(rows, before)
    shuffled = LoadForecastingModel(**options).fit(rows.sample(frac=1, random_state=3))
    same(ask(shuffled, ["feeder", "house"]), ask(one, ["feeder", "house"]))


def test_parameters_are_kept_by_name() -> None:
    params = LoadForecastingModel(n_estimators=7, timezone="Europe/Paris").get_params()
    assert LoadForecastingModel(**params).get_params() == params
    assert (params["n_estimators"], params["timezone"], params["random_state"]) == (7, "Europe/Paris", 42)


def test_boosting_takes_the_place_of_the_forest_and_says_so(tmp_path: Path) -> None:
    boosted = LoadForecastingModel(**OPTIONS, estimator="lightgbm").fit(TRAINING)
    answer = ask(boosted, LIVE, explain=True)
    assert set(answer["model"]) == {"lightgbm"}
    assert answer["drivers"].notna().all()
    boosted.save(tmp_path)
    same(ask(LoadForecastingModel.load(tmp_path), LIVE, explain=True), answer)


def test_wrong_training_parameters_and_too_little_data_are_refused() -> None:
    with pytest.raises(InputError, match="estimator must be one of random_forest, lightgbm"):
        LoadForecastingModel(estimator="xgboost")
    with pytest.raises(InputError, match="IANA"):
        LoadForecastingModel(timezone="Moon")
    with pytest.raises(InputError, match="at least 200 hours"):
        LoadForecastingModel(n_estimators=2).fit(own("feeder", last=150))
    with pytest.raises(InputError, match="no avg_value"):
        LoadForecastingModel(n_estimators=2).fit(own("feeder").assign(avg_value=np.nan))
    with pytest.raises(InputError, match="timestamp is required"):
        LoadForecastingModel(n_estimators=2).fit(own("feeder").assign(timestamp=None))
