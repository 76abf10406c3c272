"""The linear part of a load forecast against scikit-learn and against what was put into made-up loads."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import Ridge

from smartgrid_pyfunc.features.design import Design, FeatureSpec
from smartgrid_pyfunc.features.load import build_features
from smartgrid_pyfunc.features.panel import build_panel, parse_hourly
from smartgrid_pyfunc.models import linear_base
from smartgrid_pyfunc.models.linear_base import LinearBase

HOURS = 90 * 24
SPEC = FeatureSpec("Europe/Paris", covariates=("temperature",))


def load_of(sensors: dict[str, float], seed: int = 0) -> pd.DataFrame:
    """Loads that rise by so much for each degree above 18 °C, on a daily wave."""
    rng, hour = np.random.default_rng(seed), np.arange(HOURS)
    temperature = 18 + 8 * np.sin(hour / 24 * 2 * np.pi) + np.repeat(rng.normal(0, 4, HOURS // 24), 24)
    times = pd.Timestamp("2024-03-01", tz="UTC") + pd.to_timedelta(hour, unit="h")
    frames = []
    for sensor, slope in sensors.items():
        load = 100 + 20 * np.sin(hour / 24 * 2 * np.pi - 1) + slope * np.maximum(temperature - 18, 0)
        load = load + rng.normal(0, 0.5, HOURS)
        frames.append(
            pd.DataFrame({"sensor_id": sensor, "timestamp": times, "avg_value": load, "temperature": temperature})
        )
    return pd.concat(frames, ignore_index=True)


def design_of(frame: pd.DataFrame, n: int = 3_000, horizons: int = 24) -> tuple[Design, np.ndarray]:
    panel, rng = build_panel(parse_hourly(frame)), np.random.default_rng(1)
    sensor = rng.integers(0, len(panel.sensor_ids), n)
    origin = panel.first_cell[sensor] + rng.integers(400, HOURS - 200, n)
    horizon = rng.integers(1, horizons + 1, n)
    design = build_features(panel, sensor, origin, horizon, SPEC)
    actual = panel.load[origin + horizon]
    return design, (actual - design.base["level"]) / design.scale


def test_one_group_is_the_ridge_regression_of_scikit_learn() -> None:
    design, target = design_of(load_of({"a": 2.0}), n=600)  # too few rows for groups of their own
    base = LinearBase.fit(design, target, annual=False)
    x = np.concatenate(list(base._standardised(design)))[:, :-1].astype(float)
    expected = Ridge(alpha=linear_base._LEAST_PENALTY).fit(x, target).predict(x)
    assert np.allclose(base.predict(design), expected, atol=2e-3)


def test_the_answer_to_heat_is_learned() -> None:
    frame = load_of({"a": 2.0})
    design, target = design_of(frame)
    base = LinearBase.fit(design, target, annual=False)
    error = np.abs(base.predict(design) - target) * design.scale
    assert error.mean() < 1.0  # the noise alone has 0.4; without temperature it is several
    blind = design.take(slice(None))
    for name in ("temperature", "past_temperature"):
        blind.inputs[name] = np.full_like(blind.inputs[name], np.nan)
    assert (np.abs(base.predict(blind) - target) * design.scale).mean() > 2 * error.mean()


def test_rows_without_temperature_get_what_a_model_without_it_says() -> None:
    design, target = design_of(load_of({"a": 2.0}))
    with_it = LinearBase.fit(design, target, annual=False)
    blind = design.take(slice(None))
    without = {name: block for name, block in design.inputs.items() if "temperature" not in name}
    never = Design(design.features, without, design.base, design.scale, design.horizon, design.sensor)
    for name in ("temperature", "past_temperature"):
        blind.inputs[name] = np.full_like(blind.inputs[name], np.nan)
    expected = LinearBase.fit(never, target, annual=False).predict(never)
    assert np.allclose(with_it.predict(blind), expected, atol=1e-3)


def test_a_sensor_that_differs_from_the_others_has_its_own_correction() -> None:
    frame = load_of(dict.fromkeys("abcd", 2.0) | {"e": -2.0})
    design, target = design_of(frame, n=20_000)
    base = LinearBase.fit(design, target, annual=False)
    assert set(base._own) == set("abcde")
    mine = design.sensor == "e"
    common = LinearBase(False, base._arrays)
    own_error = np.abs(base.predict(design) - target)[mine].mean()
    assert own_error < np.abs(common.predict(design) - target)[mine].mean()


@pytest.mark.parametrize("rows", [1, 7, 5_000])
def test_a_row_does_not_depend_on_the_others(rows: int) -> None:
    design, target = design_of(load_of({"a": 2.0, "b": 1.0}), n=9_000, horizons=168)
    base = LinearBase.fit(design, target, annual=True)
    assert np.array_equal(base.predict(design)[:rows], base.predict(design.take(slice(rows))))


def test_saved_equals_loaded() -> None:
    design, target = design_of(load_of({"a": 2.0, "b": 1.0}))
    base = LinearBase.fit(design, target, annual=True)
    again = LinearBase.from_arrays(base.to_arrays())
    assert np.array_equal(base.predict(design), again.predict(design))


def test_few_rows_and_no_rows_are_no_trouble() -> None:
    design, target = design_of(load_of({"a": 2.0}), n=20)
    base = LinearBase.fit(design, target, annual=False)
    assert np.isfinite(base.predict(design)).all()
    assert base.predict(design.take(slice(0))).shape == (0,)
