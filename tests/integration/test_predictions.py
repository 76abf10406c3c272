"""Batches of real versions into real tables: the model's own answers, no future, each key once, also after kill -9."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import psycopg
import pyarrow.parquet as pq
import pytest

from smartgrid_pyfunc import predictions
from smartgrid_pyfunc.lifecycle.errors import LifecycleError
from smartgrid_pyfunc.lifecycle.packaging import log_model
from smartgrid_pyfunc.lifecycle.registry import promote, register
from smartgrid_pyfunc.models.anomaly_detection import AnomalyDetectionModel
from smartgrid_pyfunc.models.load_forecasting import LoadForecastingModel
from smartgrid_pyfunc.predictions.columns import FLAGS, FORECASTS
from smartgrid_pyfunc.predictions.detecting import batch_detect
from smartgrid_pyfunc.predictions.forecasting import batch_forecast
from smartgrid_pyfunc.schema import ANOMALY_MODEL, LOAD_MODEL, InputError
from tests.parts import postgres

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
_START, _DAYS = pd.Timestamp("2026-01-01T00:00Z"), 60
_FORECAST = {"model": f"models:/{LOAD_MODEL}/Production"}
_DETECT = {"model": f"models:/{ANOMALY_MODEL}/Production"}
_NOW = "2026-06-01T00:00:00Z"  # of made_at


def _hourly() -> pd.DataFrame:
    """Return load of four sensors with a temperature: with and without gaps, one ends early, one has just begun."""
    rng, hour = np.random.default_rng(0), np.arange(_DAYS * 24)
    parts = []
    for name, size, kept in (
        ("feeder", 100.0, hour >= 0),
        ("Zähler ß", 5.0, hour % 50 != 7),
        ("gone", 2.0, hour < 40 * 24 + 5),
        ("new", 1.0, hour >= 50 * 24 + 2),
    ):
        temperature = 10 + 5 * np.sin(hour / 24 * 2 * np.pi) + rng.normal(0, 1, len(hour))
        load = size * (2 + np.sin(hour / 24 * 2 * np.pi) + 0.05 * temperature + rng.normal(0, 0.1, len(hour)))
        frame = pd.DataFrame({"sensor_id": name, "timestamp": _START + pd.to_timedelta(hour, unit="h")})
        parts.append(frame.assign(avg_value=load, temperature=temperature)[kept])
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, object]]]:
    """A store in which both models are in Production, and the fitted models themselves."""
    folder, hourly = tmp_path_factory.mktemp("registered"), _hourly()
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    mlflow.set_tracking_uri(uri)
    experiment = mlflow.create_experiment("models", (folder / "artifacts").as_uri())
    mlflow.create_experiment("smartgrid-predictions", (folder / "artifacts").as_uri())
    mlflow.create_experiment("smartgrid-decisions", (folder / "artifacts").as_uri())
    readings = hourly.rename(columns={"avg_value": "value"}).assign(sensor_type="power")
    fitted = {
        LOAD_MODEL: LoadForecastingModel(n_estimators=6, max_rows=2_000).fit(hourly),
        ANOMALY_MODEL: AnomalyDetectionModel(n_estimators=20).fit(readings),
    }
    example = readings[["sensor_id", "sensor_type", "timestamp", "value"]].head(3).astype({"timestamp": "str"})
    examples = {LOAD_MODEL: pd.DataFrame({"sensor_id": ["feeder"]}), ANOMALY_MODEL: example}
    shown = {"test_mae": 1.0, "naive_mae": 2.0, "test_average_precision": 0.5, "baseline_average_precision": 0.4}
    for name, model in fitted.items():
        with mlflow.start_run(experiment_id=experiment) as run:
            mlflow.log_metrics(shown)
            log_model(model, name, examples[name])
        promote(name, version=register(run.info.run_id, name))
    mlflow.set_tracking_uri("")
    yield uri, fitted


@pytest.fixture
def models(
    registered: tuple[str, dict[str, object]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, object]]:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registered[0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # of scorers that are killed
    mlflow.set_tracking_uri(registered[0])
    yield registered[1]
    mlflow.set_tracking_uri("")


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with postgres() as part:
        yield part.address


def _write(path: Path, frame: pd.DataFrame) -> str:
    frame.to_parquet(path)
    return str(path)


def _at(day: float) -> str:
    return f"{_START + pd.Timedelta(days=day):%Y-%m-%dT%H:%M:%SZ}"


def _expected(model: LoadForecastingModel, moment: pd.Timestamp, hours_ahead: int) -> pd.DataFrame:
    """Return what the model answers to each sensor's rows, sensor by sensor, for the hours from `moment` on."""
    parts = []
    for _, rows in _hourly().groupby("sensor_id"):
        known = rows[rows["timestamp"] < moment]
        if known.empty or moment - known["timestamp"].max() > pd.Timedelta("168h"):
            continue
        late = int((moment - known["timestamp"].max()) / pd.Timedelta("1h")) - 1
        horizon = min(168, hours_ahead + late)
        later = rows[rows["timestamp"] >= moment].assign(avg_value=np.nan)
        params = {"hours_ahead": horizon, "level": 0.8}
        parts.append(model.predict(None, pd.concat([known, later]), params))
    answer = pd.concat(parts, ignore_index=True)
    answer["timestamp"] = pd.to_datetime(answer["timestamp"])
    answer = answer[(answer["timestamp"] >= moment) & (answer["timestamp"] < moment + pd.Timedelta(hours=hours_ahead))]
    return answer.sort_values(["sensor_id", "timestamp"], ignore_index=True)


def test_forecasts_are_the_models_own_at_every_origin(models, tmp_path):
    data = _write(tmp_path / "load.parquet", _hourly())
    days = (32, 39, 46, 53, 60)  # with all, with one that is late, with one that has just begun, at the end of the data
    batch_forecast(data, to="out", since=_at(32), every_hours=168, hours_ahead=36, level=0.8, **_FORECAST)
    found = predictions.read_forecasts("out")
    for day in days:
        moment = _START + pd.Timedelta(days=day)
        expected = _expected(models[LOAD_MODEL], moment, 36)
        ours = found[(found["timestamp"] >= moment) & (found["origin"] >= moment - pd.Timedelta("7D"))]
        ours = ours[(ours["timestamp"] < moment + pd.Timedelta("36h")) & (ours["origin"] < moment)]
        ours = ours.reset_index(drop=True)
        assert ours["sensor_id"].tolist() == expected["sensor_id"].tolist()
        for name in ("predicted_load", "lower", "upper"):
            np.testing.assert_allclose(ours[name], expected[name].astype(float), rtol=1e-12)
        assert ours["reason"].fillna("").tolist() == expected["reason"].fillna("").tolist()
        assert ours["method"].fillna("").tolist() == expected["model"].fillna("").tolist()
        assert (ours["origin"] == pd.to_datetime(expected["origin"])).all()
        assert (ours["horizon"] == expected["horizon"]).all()
    assert (found["level"] == 0.8).all()
    assert (found["variant"] == "champion").all()


def test_a_changed_future_moves_no_forecast(models, tmp_path):
    hourly = _hourly()
    moment = _START + pd.Timedelta(days=45)
    changed = hourly.copy()
    changed.loc[changed["timestamp"] >= moment, "avg_value"] *= 1000
    for name, frame in (("as-it-was", hourly), ("otherwise", changed)):
        data = _write(tmp_path / f"{name}.parquet", frame)
        batch_forecast(data, to=name, since=_at(45), until=_at(45.1), now=_NOW, **_FORECAST)
    pd.testing.assert_frame_equal(
        predictions.read_forecasts("as-it-was"), predictions.read_forecasts("otherwise"), check_exact=True
    )


def test_a_year_in_one_batch_is_night_after_night(models, tmp_path):
    """Nightly batches see the data as they were; a later batch over all nights makes the same of the whole."""
    hourly = _hourly()
    whole = _write(tmp_path / "whole.parquet", hourly)
    for day in (52, 53):
        seen = hourly[hourly["timestamp"] < _START + pd.Timedelta(days=day)]
        ahead = hourly[hourly["timestamp"] >= _START + pd.Timedelta(days=day)].assign(avg_value=np.nan)
        data = _write(tmp_path / f"{day}.parquet", pd.concat([seen, ahead]))  # with the temperature that was forecast
        batch_forecast(data, to="nights", now=_at(day + 0.01), **_FORECAST)
        batch_detect(_write(tmp_path / "seen.parquet", seen), to="nights", now=_at(day + 0.01), **_DETECT)
    batch_forecast(whole, to="once", since=_at(52), until=_at(53.5), **_FORECAST)
    batch_detect(whole, to="once", since=_at(50), until=_at(53), **_DETECT)
    for read, kind in ((predictions.read_forecasts, FORECASTS), (predictions.read_flags, FLAGS)):
        nights, once = (read(place).drop(columns="made_at") for place in ("nights", "once"))
        assert len(once) > 50
        pd.testing.assert_frame_equal(nights, once, rtol=1e-9)
        assert not once.duplicated(list(kind.key)).any()
    assert predictions.read_forecasts("nights")["made_at"].unique().tolist() == [
        pd.Timestamp(_at(52.01)),
        pd.Timestamp(_at(53.01)),
    ]


def test_flags_are_the_models_own_and_of_conflicting_readings_the_strangest_stays(models, tmp_path):
    hourly = _hourly()
    readings = hourly.rename(columns={"avg_value": "value"}).assign(sensor_type="power").drop(columns="temperature")
    odd = readings[(readings["sensor_id"] == "feeder") & (readings["timestamp"] == _START + pd.Timedelta(days=41))]
    empty = readings[readings["sensor_id"] == "new"].tail(1).assign(value=np.nan)
    rows = pd.concat([readings.drop(empty.index), odd.assign(value=9_999.0), empty])
    done = batch_detect(_write(tmp_path / "readings.parquet", rows), to="out", since=_at(40), until=_at(60), **_DETECT)
    rows = rows.sort_values(["sensor_id", "timestamp", "value"], ignore_index=True)
    answer = models[ANOMALY_MODEL].predict(None, rows).assign(value=rows["value"])
    answer = answer[rows["timestamp"] >= _START + pd.Timedelta(days=40)]
    answer = answer.drop_duplicates(["sensor_id", "timestamp"], keep="last").reset_index(drop=True)
    found = predictions.read_flags("out")
    assert len(found) == len(answer) == done.metrics["rows"]
    for name in ("value", "anomaly_score", "p_value", "expected_value", "lower", "upper"):
        np.testing.assert_allclose(found[name], answer[name].astype(float), rtol=1e-9)
    assert found["is_anomaly"].tolist() == answer["is_anomaly"].tolist()
    assert found["reason"].fillna("").tolist() == answer["reason"].fillna("").tolist()
    assert found.loc[found["value"] == 9_999.0, "is_anomaly"].all()
    assert (found.loc[found["value"].isna(), "reason"] == "no value").all()
    assert found["value"].isna().sum() == 1


def test_one_bad_sensor_gets_a_reason_and_the_others_their_forecasts(models, tmp_path):
    hourly = _hourly()
    hourly.loc[(hourly["sensor_id"] == "feeder") & (hourly.index % 7 == 0), "avg_value"] = 1e35
    done = batch_forecast(
        _write(tmp_path / "load.parquet", hourly), to="out", since=_at(59), until=_at(59.5), **_FORECAST
    )
    found = predictions.read_forecasts("out")
    bad = found["sensor_id"] == "feeder"
    assert found.loc[bad, "reason"].str.contains("must not exceed 1e\\+30").all()
    assert found.loc[bad, "predicted_load"].isna().all()
    assert found.loc[~bad, "predicted_load"].notna().all()
    assert bad.sum() == done.metrics["rows_without_value"] == 24
    assert done.metrics["silent_sensors"] == 1


def test_the_run_tells_what_was_done_with_which_version_on_which_data(models, tmp_path):
    data = _write(tmp_path / "load.parquet", _hourly())
    done = batch_forecast(data, to="out", since=_at(58), every_hours=12, now=_NOW, **_FORECAST)
    again = batch_forecast(data, to="out", since=_at(58), every_hours=12, now=_NOW, **_FORECAST)
    run = mlflow.get_run(done.run_id)
    assert run.info.status == "FINISHED"
    assert mlflow.get_experiment(run.info.experiment_id).name == "smartgrid-predictions"
    version = mlflow.MlflowClient().get_model_version(LOAD_MODEL, "1")
    assert run.data.tags["smartgrid.model_run_id"] == version.run_id
    assert (run.data.tags["smartgrid.model"], run.data.tags["smartgrid.model_version"]) == (LOAD_MODEL, "1")
    assert run.data.tags["smartgrid.perfect_foresight"] == "temperature as measured"
    (dataset,) = [entry.dataset for entry in run.inputs.dataset_inputs]
    assert run.data.params["data_digest"] == dataset.digest
    assert run.data.params["made_at"] == "2026-06-01T00:00:00+00:00"
    rows = len(predictions.read_forecasts("out"))
    assert {name: run.data.metrics[name] for name in ("steps", "steps_skipped", "rows", "new_rows")} == {
        "steps": 5, "steps_skipped": 0, "rows": rows, "new_rows": rows,
    }  # fmt: skip
    assert {name: again.metrics[name] for name in ("steps", "steps_skipped", "rows", "new_rows")} == {
        "steps": 5, "steps_skipped": 5, "rows": rows, "new_rows": 0,
    }  # fmt: skip


def test_a_batch_that_cannot_begin_opens_no_run(models, tmp_path):
    data = _write(tmp_path / "load.parquet", _hourly())
    runs = lambda: len(mlflow.search_runs(experiment_names=["smartgrid-predictions"]))  # noqa: E731
    before = runs()
    with pytest.raises(LifecycleError, match="no version 7"):
        batch_forecast(data, model=f"models:/{LOAD_MODEL}/7", to="out")
    with pytest.raises(InputError, match="since must be ISO 8601"):
        batch_forecast(data, to="out", since="yesterday", **_FORECAST)
    with pytest.raises(InputError, match="must be a folder or a PostgreSQL address"):
        batch_detect(data, to="s3://bucket", **_DETECT)
    with pytest.raises(InputError, match=r"must answer with the columns sensor_id, .*found none named origin"):
        batch_forecast(data, to="out", model=f"models:/{ANOMALY_MODEL}/1")
    assert runs() == before
    assert not Path("out").exists()


def test_mlflow_run_hands_everything_over_and_its_run_leads_to_that_of_the_batch(models, tmp_path):
    data = _write(tmp_path / "load.parquet", _hourly())
    given = {"data": data, "to": str(tmp_path / "out"), "hours_ahead": "3", "level": "0.5", "now": _NOW}
    parameters = [word for name, value in given.items() for word in ("-P", f"{name}={value}")]
    command = ["mlflow", "run", str(ROOT), "-e", "batch_forecast", "--env-manager", "local", *parameters]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    found = predictions.read_forecasts(given["to"])
    assert found.groupby("sensor_id").size().to_dict() == {"Zähler ß": 3, "feeder": 3, "new": 3}
    assert set(found["made_at"]) == {pd.Timestamp(_NOW)}
    assert set(found["level"]) == {0.5}
    (launcher,) = mlflow.search_runs(["0"], output_format="list")
    batch = mlflow.get_run(launcher.data.tags["smartgrid.run_id"])
    assert batch.info.status == launcher.info.status == "FINISHED"
    assert batch.data.metrics["new_rows"] == 9


# -------------------------------------------------------------------------------------------------------- database


def _forecasts(**columns: object) -> pd.DataFrame:
    hours = np.arange(48)
    frame = pd.DataFrame({"horizon": hours + 1, "timestamp": _START + pd.to_timedelta(hours, unit="h")})
    frame = frame.assign(model=LOAD_MODEL, version="1", variant="", made_at=_START, origin=_START - pd.Timedelta("1h"))
    frame = frame.assign(sensor_id="Zähler ß", predicted_load=1 / (hours + 3), lower=np.nan, upper=1e300, level=0.9)
    reason = ["", 'a "quoted",\nbroken; line \\N', None, "NULL"] * 12
    return frame.assign(method="random_forest", reason=reason, **columns)[list(FORECASTS.columns)]


def test_a_table_of_a_database_gives_back_what_files_do(database, tmp_path):
    place = f"{database}?table=both"
    parts = [_forecasts(), _forecasts(version="2"), _forecasts(sensor_id="b", made_at=_START + pd.Timedelta("1us"))]
    for part in parts:
        assert predictions.write_forecasts(place, part) == predictions.write_forecasts(str(tmp_path), part) == 48
        assert predictions.write_forecasts(place, part.assign(predicted_load=0.0)) == 0
    for limits in ({}, {"since": "2026-01-01T07:00+01:00", "until": "2026-01-02"}, {"version": "2"}, {"model": "x"}):
        ours, theirs = (predictions.read_forecasts(where, **limits) for where in (place, str(tmp_path)))
        pd.testing.assert_frame_equal(ours, theirs, check_exact=True)
    assert predictions.read_flags(f"{database}?table=nobody.has_made").empty
    with psycopg.connect(database) as con:
        key = con.execute(
            "SELECT array_agg(attname::text ORDER BY n) FROM pg_index, unnest(indkey) WITH ORDINALITY AS k(number, n) "
            "JOIN pg_attribute ON attnum = number AND attrelid = 'both'::regclass "
            "WHERE indrelid = 'both'::regclass AND indisprimary"
        ).fetchone()
    assert key == (list(FORECASTS.key),)


def test_names_are_quoted_and_the_password_is_not_told(database):
    name = 'public.odd"; DROP TABLE x; --'
    predictions.write_forecasts(f"{database}?table={name}", _forecasts())
    assert len(predictions.read_forecasts(f"{database}?table={name}")) == 48
    with psycopg.connect(database) as con:
        con.execute("CREATE TABLE foreign_table (model text)")
    with pytest.raises(InputError, match="must answer the query") as refusal:
        predictions.write_forecasts(f"{database}?table=foreign_table", _forecasts())
    assert "s3cret" not in str(refusal.value)


def test_an_account_needs_no_more_than_to_select_and_to_insert(database):
    place = "?table=granted"
    predictions.write_forecasts(database + place, _forecasts())
    with psycopg.connect(database) as con:
        con.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        con.execute("CREATE ROLE batch LOGIN PASSWORD 'x'")
        con.execute("GRANT SELECT, INSERT ON granted TO batch")
        con.execute("CREATE ROLE reader LOGIN PASSWORD 'x'")
        con.execute("GRANT SELECT ON granted TO reader")
    server = database.rpartition("@")[2]
    assert predictions.write_forecasts(f"postgresql://batch:x@{server}{place}", _forecasts(version="2")) == 48
    assert len(predictions.read_forecasts(f"postgresql://reader:x@{server}{place}")) == 96
    with pytest.raises(InputError, match="permission denied"):
        predictions.write_forecasts(f"postgresql://reader:x@{server}{place}", _forecasts(version="3"))
    with pytest.raises(InputError, match="permission denied"):
        predictions.write_forecasts(f"postgresql://batch:x@{server}?table=absent", _forecasts())


def test_writers_at_once_make_one_table_with_each_key_once(database):
    place, failures = f"{database}?table=at_once", []

    def write(seed: int) -> None:
        try:
            for _ in range(3):
                predictions.write_forecasts(place, _forecasts(made_at=_START + pd.Timedelta(hours=seed)))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    with psycopg.connect(database) as con:
        assert con.execute("SELECT count(*), count(DISTINCT made_at) FROM at_once").fetchone() == (48, 1)


# ------------------------------------------------------------------------------------------------------- kill -9


def _start(script: str, data: str, to: str, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "entrypoints" / f"{script}.py"), "--data", data, "--to", to, *more],
        env=os.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _killed(process: subprocess.Popen[str], seconds: float) -> bool:
    """Kill the batch so many seconds after its data are read; return whether it was still at work."""
    assert process.stderr
    said = next((line for line in process.stderr if " sensor(s)" in line and "Checked" not in line), None)
    assert said is not None, "it ended before its data were read"
    time.sleep(seconds)
    process.kill()
    process.communicate(timeout=60)
    return process.returncode == -9


@dataclass(frozen=True)
class _Batch:
    """A batch that is killed: `longest` is the longest time after which it is [s], while it is at work."""

    script: str
    kills: int
    longest: float
    settings: dict[str, Any]
    run: Callable[..., object]
    read: Callable[..., pd.DataFrame]


_SINCE = {"since": _at(20), "now": _NOW}
_BATCHES = {
    "forecasts": _Batch(
        "batch_forecast", 10, 0.8, _SINCE | {"every_hours": 6, "hours_ahead": 30},
        partial(batch_forecast, **_FORECAST), predictions.read_forecasts,
    ),
    "flags": _Batch("batch_detect", 2, 0.3, _SINCE, partial(batch_detect, **_DETECT), predictions.read_flags),
}  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, pd.DataFrame]:
    """What batches that nobody kills have written, by their names."""
    return {}


@pytest.mark.parametrize("place", ["folder", "table"])
@pytest.mark.parametrize("name", _BATCHES)
def test_a_batch_killed_at_random_moments_and_run_again_is_as_if_never_killed(
    models, tmp_path, undisturbed, request, name, place
):
    """SIGKILL of the entry point's process, while it writes: each key once, the same values, no half-written file."""
    batch, random_ = _BATCHES[name], random.Random(place + name)
    data, to = _write(tmp_path / "load.parquet", _hourly()), "killed"
    if place == "table":
        to = f"{request.getfixturevalue('database')}?table=killed_{name}"
    if name not in undisturbed:
        batch.run(data, to="undisturbed", **batch.settings)
        undisturbed[name] = batch.read("undisturbed")
    expected = undisturbed[name]
    arguments = [word for key, value in batch.settings.items() for word in (f"--{key}", str(value))]
    hits, sizes = 0, []
    for _ in range(batch.kills):
        hits += _killed(_start(batch.script, data, to, *arguments), random_.uniform(0, batch.longest))
        for path in Path(to).rglob("*.parquet") if place == "folder" else ():
            pq.ParquetFile(path).read()  # whole, whenever it came to be
        sizes.append(len(_part_of(batch.read(to), expected)))
    assert hits >= batch.kills / 2, "it was ready before it was killed: nothing was tried"
    assert sizes == sorted(sizes)
    last = _start(batch.script, data, to, *arguments)
    _, said = last.communicate(timeout=300)
    assert last.returncode == 0, said
    pd.testing.assert_frame_equal(batch.read(to), expected, check_exact=True)
    if place == "table":
        with psycopg.connect(request.getfixturevalue("database")) as con:
            assert con.execute(f"SELECT count(*) FROM killed_{name}").fetchone() == (len(expected),)


def _part_of(found: pd.DataFrame, expected: pd.DataFrame) -> pd.DataFrame:
    """Return `found`, all rows of which must be rows of `expected`."""
    marked = found.merge(expected, how="left", indicator=True)
    assert (marked["_merge"] == "both").all()
    assert len(marked) == len(found)
    return found
