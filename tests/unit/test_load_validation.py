"""Which weeks judge a model, and what the size of its errors may depend on."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from smartgrid_pyfunc.features.design import Design, FeatureSpec
from smartgrid_pyfunc.features.load import build_features
from smartgrid_pyfunc.features.panel import Panel, build_panel, parse_hourly
from smartgrid_pyfunc.models.load_training import Samples
from smartgrid_pyfunc.models.load_validation import ML, Validation, conditions, held_out

DAY = 24


def panel_of(days: int, sensors: int = 1, temperature: bool = False) -> Panel:
    """Sensors with a daily cycle whose noise is five times as large at night as by day (UTC)."""
    rng = np.random.default_rng(0)
    hours = np.arange(days * DAY)
    frames = []
    for i in range(sensors):
        noise = rng.normal(0, np.where(hours % DAY < 12, 1.0, 0.2))
        frame = pd.DataFrame({"timestamp": pd.Timestamp("2021-01-01") + pd.to_timedelta(hours, unit="h")})
        frame["avg_value"] = 10 + 3 * np.sin(2 * np.pi * hours / DAY) + noise
        frames.append(frame.assign(sensor_id=f"s{i}", **({"temperature": noise + 10} if temperature else {})))
    return build_panel(parse_hourly(pd.concat(frames)))


def drawn(panel: Panel) -> Samples:
    """Pair every hour that has a week of history before it with one random origin."""
    cells = np.flatnonzero(~np.isnan(panel.load))
    sensor = panel.sensor_of_cell()[cells]
    horizon = np.random.default_rng(1).integers(1, 169, len(cells))
    return Samples(sensor, cells - horizon, horizon).take(cells - horizon >= panel.first_cell[sensor] + 167)


def days_held_out(days: int) -> np.ndarray:
    """Age [days] of each target held out, 0 for the last day of the data."""
    panel = panel_of(days)
    samples = drawn(panel)
    chosen = samples.take(held_out(panel, samples))
    return np.unique((panel.origin[0] - chosen.target) // DAY)


def test_a_long_history_gives_two_weeks_of_every_second_month() -> None:
    expected = [61 * block + day for block in range(6) for day in range(14)]
    assert days_held_out(800).tolist() == expected


def test_a_history_for_one_block_gives_its_last_four_weeks() -> None:
    assert days_held_out(140).tolist() == list(range(28))


def test_at_most_a_quarter_of_a_short_history_is_held_out() -> None:
    assert days_held_out(40).tolist() == list(range(10))


@pytest.mark.parametrize("days", [30, 80, 146, 200, 400, 900])
def test_most_of_the_history_stays_for_training(days: int) -> None:
    panel = panel_of(days)
    samples = drawn(panel)
    assert held_out(panel, samples).mean() < 0.4


def design_of(panel: Panel, spec: FeatureSpec) -> tuple[Samples, Design]:
    samples = drawn(panel)
    return samples, build_features(panel, samples.sensor, samples.origin, samples.horizon, spec)


def test_conditions_have_the_same_columns_with_and_without_covariates() -> None:
    panel = panel_of(60, temperature=True)
    specs = [FeatureSpec(), FeatureSpec(covariates=("temperature",))]
    plain, warm = (conditions(d, d.base["blend"], spec) for spec in specs for d in [design_of(panel, spec)[1]])
    assert plain.columns.shape == warm.columns.shape
    assert plain.seasonal == warm.seasonal
    known = ~np.isnan(plain.columns).any(axis=0)
    assert np.array_equal(plain.columns[:, known], warm.columns[:, known])
    assert not np.isnan(warm.columns[:, ~known]).all(axis=0).all()


def test_the_spread_of_the_same_hours_is_numpys() -> None:
    panel, spec = panel_of(60), FeatureSpec()
    _, design = design_of(panel, spec)
    names = [spec.names().index(f"same_hour_{day}") for day in range(1, 8)]
    with np.errstate(all="ignore"):
        expected = np.array([np.std(row[~np.isnan(row)]) for row in design.features[:, names].astype(float)])
    found = conditions(design, design.base["blend"], spec).columns
    assert any(np.allclose(column, expected, rtol=1e-4, equal_nan=True) for column in found.T)


def test_conditions_are_free_of_the_unit_of_the_load() -> None:
    panel, spec = panel_of(60), FeatureSpec()
    samples, design = design_of(panel, spec)
    thousand = build_panel(
        pd.DataFrame(
            {"sensor_id": "s0", "hour": panel.first_hour[0] + np.arange(60 * DAY)}
            | {"avg_value": panel.load[panel.first_cell[0] :][: 60 * DAY] * 1000}
        ).pipe(_as_rows)
    )
    other = build_features(thousand, samples.sensor, samples.origin, samples.horizon, spec)
    ours, theirs = (conditions(d, d.base["blend"], spec).columns for d in (design, other))
    assert np.allclose(ours, theirs, rtol=1e-3, atol=1e-4, equal_nan=True)


def _as_rows(frame: pd.DataFrame) -> pd.DataFrame:
    times = frame["hour"].to_numpy().astype("datetime64[h]").astype("datetime64[ns]")
    return parse_hourly(frame.drop(columns="hour").assign(timestamp=times))


def validation_of(panel: Panel, spec: FeatureSpec | None) -> tuple[Validation, Design]:
    samples, design = design_of(panel, FeatureSpec())
    hour = panel.hour(samples.sensor, samples.target)
    return Validation.of(panel, samples, design, 10 + 3 * np.sin(2 * np.pi * hour / DAY), spec), design


def test_intervals_are_wider_where_errors_are_larger() -> None:
    validation, design = validation_of(panel_of(120), FeatureSpec())
    spec, predicted = FeatureSpec(), design.base["blend"]
    hour = design.features[:, spec.names().index("hour_of_day")]
    n = len(hour)
    asked = conditions(design, predicted, spec)
    low, high = validation.quantiles()[ML].bounds(0.9, np.full(n, 12), np.full(n, "s0", dtype=object), asked)
    assert np.median((high - low)[hour < 12]) > 3 * np.median((high - low)[hour >= 12])


def test_without_a_spec_all_hours_are_equally_difficult() -> None:
    validation, _ = validation_of(panel_of(120), None)
    low, high = validation.quantiles()[ML].bounds(0.9, np.full(2, 12), np.array(["s0", "s0"], dtype=object))
    assert low[0] == low[1] < high[0] == high[1]


def test_joined_validations_keep_every_row_and_its_conditions() -> None:
    one, _ = validation_of(panel_of(60), FeatureSpec())
    both = one.joined(one)
    assert both.conditions is not None
    assert len(both.table) == len(both.conditions.columns) == 2 * len(one.table)
    assert one.joined(validation_of(panel_of(60), None)[0]).conditions is None


def test_a_sensor_falls_back_only_where_the_naive_was_clearly_better() -> None:
    """Faults that neither forecasts do not decide: beyond three spreads all errors are alike."""
    errors = {"worse": (1.1, 1.0), "as good": (1.01, 1.0), "better": (0.5, 1.0), "few": (2.0, 1.0)}
    rows = [(name, *values) for name, values in errors.items() for _ in range(50 if name == "few" else 200)]
    rows += [("better", 90.0, 80.0)] * 20 + [("worse", 80.0, 90.0)] * 2
    table = pd.DataFrame(rows, columns=["sensor", "ml", "seasonal_naive"])
    assert Validation(table).fallback() == {"worse"}
