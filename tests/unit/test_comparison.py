"""Versions beside each other: the same rows for all, groups, and a verdict that follows the losses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from smartgrid_pyfunc.comparison.online import by_version
from smartgrid_pyfunc.evaluation.comparison import (
    NAIVE,
    compare_detectors,
    compare_forecasts,
    daily_losses,
    groups_of,
    join_forecasts,
)
from smartgrid_pyfunc.evaluation.metrics import mae
from smartgrid_pyfunc.schema import InputError

NAMES = ("version 1", "version 2")


def window(days: int = 40, hours: int = 24, seed: int = 0) -> pd.DataFrame:
    """What happened at four sensors of two kinds, 24 hours from each midnight."""
    rng = np.random.default_rng(seed)
    sensors = {"house-1": 1.0, "house-2": 2.0, "plant-1": 100.0, "plant-2": 300.0}
    origins = pd.date_range("2026-01-01T23:00Z", periods=days, freq="D")
    keys = [(s, o, h) for s in sensors for o in origins for h in range(1, hours + 1)]
    frame = pd.DataFrame(keys, columns=["sensor_id", "origin", "horizon"])
    frame["timestamp"] = frame["origin"] + pd.to_timedelta(frame["horizon"], unit="h")
    size = frame["sensor_id"].map(sensors)
    course = 1 + 0.5 * np.sin(2 * np.pi * frame["horizon"] / 24)
    frame["actual"] = size * (course + 0.1 * rng.normal(size=len(frame)))
    frame["naive_24"] = size * (course + 0.2 * rng.normal(size=len(frame)))
    frame["naive_168"] = size * (course + 0.3 * rng.normal(size=len(frame)))
    return frame


def forecast(truth: pd.DataFrame, noise: float, seed: int) -> pd.DataFrame:
    """A forecast that errs by `noise` of the load."""
    error = noise * np.random.default_rng(seed).normal(size=len(truth)) * truth["actual"]
    predicted = truth["actual"] + error
    spread = 1.64 * noise * truth["actual"]
    columns = {"predicted": predicted, "lower": predicted - spread, "upper": predicted + spread}
    return truth[["sensor_id", "origin", "horizon"]].assign(**columns)


def test_the_better_version_is_told_with_figures_on_the_same_rows():
    truth = window()
    parts = {
        "version 1": forecast(truth, 0.10, 1),
        "version 2": forecast(truth, 0.08, 2).sample(frac=0.9, random_state=3),
    }
    joined = join_forecasts(parts, truth)
    assert len(joined) == len(parts["version 2"])
    found = compare_forecasts(joined, NAMES)
    overall = found.overall.set_index("version")
    assert overall.loc["version 2", "verdict"] == "better"
    assert overall.loc["version 2", "mae"] == pytest.approx(mae(joined["actual"], joined["predicted version 2"]))
    assert overall.loc["version 2", "low"] < overall.loc["version 2", "ratio"] < overall.loc["version 2", "high"] < 0.9
    assert overall.loc[NAIVE, "mae"] == pytest.approx(mae(joined["actual"], joined["naive_24"]))  # the better lag
    assert overall.loc["version 1", "coverage"] == pytest.approx(0.9, abs=0.02)
    assert (found.tables["by_group"]["group"].unique() == ["house", "plant"]).all()
    assert len(found.tables["by_horizon"]) == 3 * 24
    assert found.needed["version 2"] is not None
    assert (found.daily["high version 2"].iloc[-1] < 0) and np.isinf(found.daily["high version 2"].iloc[0])


def test_a_version_that_is_worse_at_one_kind_of_sensor_shows_there():
    truth = window()
    second = forecast(truth, 0.10, 2)
    bad = truth["sensor_id"].str.startswith("house")
    second.loc[bad, "predicted"] = truth.loc[bad, "actual"] * 1.3
    found = compare_forecasts(join_forecasts({"version 1": forecast(truth, 0.1, 1), "version 2": second}, truth), NAMES)
    groups = found.tables["by_group"].set_index(["group", "version"])
    assert groups.loc[("house", "version 2"), "ratio"] > 2
    assert groups.loc[("house", "version 2"), "p_worse"] < 0.001
    assert groups.loc[("plant", "version 2"), "ratio"] < 1.1


def test_sensors_count_alike_whatever_their_size():
    truth = window(days=8)
    joined = join_forecasts({"version 1": forecast(truth, 0.0, 1)}, truth)
    joined["predicted version 1"] = joined["actual"] * 1.1
    loss = daily_losses(joined, ["version 1"])["version 1"]
    assert loss.to_numpy() == pytest.approx(0.1, rel=0.15)


def test_groups_are_given_or_told_by_name_or_by_size():
    truth = window(days=1)
    assert set(groups_of(truth)) == {"house", "plant"}
    assert set(groups_of(truth, {"house-1": "north"})) == {"north", "other"}
    numbered = truth.assign(
        sensor_id=truth["sensor_id"].map({s: f"m{i}" for i, s in enumerate(truth["sensor_id"].unique())})
    )
    assert set(groups_of(numbered)) == {"small", "medium", "large"}


def test_versions_without_a_shared_forecast_are_refused():
    truth = window(days=4)
    early, late = (forecast(truth[mask], 0.1, 1) for mask in (truth["horizon"] < 5, truth["horizon"] > 5))
    with pytest.raises(InputError, match="share forecasts"):
        join_forecasts({"version 1": early, "version 2": late}, truth)


def readings(weeks: int = 12, seed: int = 0) -> pd.DataFrame:
    """Labelled readings of two types; one detector ranks faults well, one hardly."""
    rng = np.random.default_rng(seed)
    times = pd.date_range("2026-01-05T00:00Z", periods=weeks * 7 * 24, freq="h")
    frame = pd.concat(
        [
            pd.DataFrame({"sensor_id": f"s{n}", "sensor_type": ("power", "voltage")[n % 2], "timestamp": times})
            for n in range(4)
        ],
        ignore_index=True,
    )
    frame["is_anomaly"] = rng.random(len(frame)) < 0.02
    frame["fault"] = np.where(frame["is_anomaly"], np.where(rng.random(len(frame)) < 0.5, "spike", "stuck"), "")
    for name, strength in (("version 1", 1.0), ("version 2", 3.0)):
        frame[f"score {name}"] = rng.normal(size=len(frame)) + strength * frame["is_anomaly"]
        frame[f"flag {name}"] = frame[f"score {name}"] > 2.3
    return frame


def test_the_better_detector_is_told_by_kind_and_type():
    found = compare_detectors(readings(), NAMES, draws=100)
    overall = found.overall.set_index("version")
    assert overall.loc["version 2", "verdict"] == "better"
    assert overall.loc["version 2", "average_precision"] > overall.loc["version 1", "average_precision"]
    assert set(found.tables["by_kind"]["kind"]) == {"spike", "stuck"}
    assert set(found.tables["by_group"]["group"]) == {"power", "voltage"}
    same = readings().assign(
        **{"score version 2": lambda f: f["score version 1"], "flag version 2": lambda f: f["flag version 1"]}
    )
    assert compare_detectors(same, NAMES, draws=100).pairs["version 2"].verdict == "not_worse"
    with pytest.raises(InputError, match="with faults and without"):
        compare_detectors(readings().assign(is_anomaly=False), NAMES)


def test_the_gateways_log_is_counted_by_version(tmp_path: Path):
    entry = {
        "time": "2026-05-01T00:00:00+00:00",
        "status": 200,
        "upstream_seconds": "0.010",
        "model": "LoadForecastingModel",
        "model_version": "3",
        "variant": "champion",
    }
    lines = [
        entry,
        entry | {"upstream_seconds": "0.030", "status": 502},
        entry | {"model_version": "4", "variant": "challenger"},
        entry | {"model": "AnomalyDetectionModel"},
        entry | {"upstream_seconds": "-", "status": 400},
    ]
    path = tmp_path / "access.log"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines) + "not json\n")
    table = by_version(path, "LoadForecastingModel").set_index("version")
    assert table.loc["3", ["requests", "client_errors", "server_errors"]].tolist() == [3, 1, 1]
    assert table.loc["3", "p50_ms"] == pytest.approx(20)
    assert table.loc["4", "variant"] == "challenger"
    with pytest.raises(InputError, match="must hold answers of Other"):
        by_version(path, "Other")
    with pytest.raises(InputError, match="can be read"):
        by_version(tmp_path / "none", "LoadForecastingModel")
