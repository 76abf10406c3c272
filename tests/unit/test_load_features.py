"""Load features against a slow reference in pandas, and the laws that keep the future and other sensors out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from smartgrid_pyfunc.features.design import OPTIONAL_GROUPS, FeatureSpec
from smartgrid_pyfunc.features.load import build_features, seasonal_naive
from smartgrid_pyfunc.features.panel import HISTORY_HOURS, LOADS, Panel, build_panel, parse_hourly
from smartgrid_pyfunc.features.weather import TEMPERATURE
from smartgrid_pyfunc.schema import COVARIATES

START = pd.Timestamp("2024-02-20T05:00:00Z")
HOURS = 40 * 24
HOLIDAYS = tuple(int(np.datetime64(d, "D").astype(int)) for d in ("2024-03-11", "2024-03-29", "2024-04-01"))
SPEC = FeatureSpec("Australia/Melbourne", HOLIDAYS, COVARIATES)
HORIZONS = [1, 2, 23, 24, 25, 48, 49, 167, 168]
Floats = np.ndarray[Any, np.dtype[np.float64]]


def hourly(seed: int = 0, sensors: str = "abc", gaps: float = 0.15) -> pd.DataFrame:
    """Small random loads: sensors of different size and start, with gaps in every column."""
    rng = np.random.default_rng(seed)
    frames = []
    for i, sensor in enumerate(sensors):
        hour = np.arange(40 * i, HOURS)
        load = 10.0**i * (3 + np.sin(hour / 24 * 2 * np.pi) + rng.normal(0, 0.5, len(hour)))
        frame = pd.DataFrame({"sensor_id": sensor, "timestamp": START + pd.to_timedelta(hour, unit="h")})
        frame = frame.assign(avg_value=load, min_value=load * 0.9, max_value=load * 1.1)
        frame = frame.assign(
            count=rng.integers(0, 6, len(hour)).astype(float), temperature=rng.normal(15, 5, len(hour))
        )
        frame = frame.assign(is_holiday=(hour // 24 % 9 == 0).astype(float))
        for name in (*LOADS, *COVARIATES):
            frame.loc[rng.random(len(hour)) < gaps, name] = np.nan
        frames.append(frame[rng.random(len(hour)) > 0.03])
    return pd.concat(frames, ignore_index=True)


def panel_of(frame: pd.DataFrame) -> Panel:
    return build_panel(parse_hourly(frame))


def pairs(panel: Panel, seed: int = 0, n: int = 60, least: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random sensors, observed origins and horizons; targets stay inside the panel's own hours."""
    rng = np.random.default_rng(seed)
    horizon = rng.choice(HORIZONS, n)
    owner = panel.sensor_of_cell()
    observed = np.flatnonzero(~np.isnan(panel.load) & (np.arange(len(owner)) - panel.first_cell[owner] >= least))
    last = (panel.first_cell + panel.n_hours)[owner[observed]] - 1
    origin = np.array([rng.choice(observed[observed + h <= last]) for h in horizon])
    return owner[origin], origin, horizon


def known_mean(values: list[float]) -> float:
    known = [v for v in values if not np.isnan(v)]
    return sum(known) / len(known) if known else np.nan


def halving(path: list[float], half_life: int) -> float:
    weights = [0.5 ** (h / half_life) for h in range(len(path))]
    return sum(w * t for w, t in zip(weights, path, strict=True)) / sum(weights)


class Slow:
    """One forecast's features by plain look-ups, hour for hour, from the definition of each."""

    def __init__(self, own: pd.DataFrame, origin: pd.Timestamp, horizon: int) -> None:
        self.origin, self.horizon, self.target = origin, horizon, origin + pd.Timedelta(hours=horizon)
        self.columns = own.set_index("timestamp").to_dict()
        self.end = own["timestamp"].max()
        self.limits = (-np.inf, np.inf)

    def at(self, name: str, time: pd.Timestamp) -> float:
        value = float(self.columns[name].get(time, np.nan)) if time <= self.origin else np.nan
        return float(np.clip(value, *self.limits)) if name.endswith("value") else value

    def covariate(self, name: str, hours_before_target: int) -> float:
        return float(self.columns[name].get(self.target - pd.Timedelta(hours=hours_before_target), np.nan))

    def back(self, name: str, hours: int) -> float:
        return self.at(name, self.origin - pd.Timedelta(hours=hours))

    def before_target(self, name: str, hours: int) -> float:
        return self.at(name, self.target - pd.Timedelta(hours=hours))

    def whole(self, period: int) -> int:
        """Least multiple of `period` that leads from the target back to the origin or before."""
        return next(k for k in range(period, 400, period) if k >= self.horizon)

    def features(self) -> dict[str, float]:
        day, week = self.whole(24), self.whole(168)
        known = sorted(v for h in range(168) if not np.isnan(v := self.back("avg_value", h)))
        tail = int(0.03 * len(known))
        width = known[-1 - tail] - known[tail] if known else 0.0
        self.limits = (known[tail] - 2 * width, known[-1 - tail] + 2 * width) if width > 0 else (-np.inf, np.inf)
        load = [self.back("avg_value", h) for h in range(672)]
        last_week = load[:168]
        centre = known_mean(last_week)
        spread = known_mean([(v - centre) ** 2 for v in last_week]) ** 0.5
        scale = max(spread, 0.02 * known_mean([abs(v) for v in last_week]), 1e-6)
        days = [self.before_target("avg_value", day + 24 * j) for j in range(7)]
        weeks = [self.before_target("avg_value", week + 168 * j) for j in range(4)]
        means = [known_mean(days), known_mean(weeks)]
        blend = known_mean(means) if not all(np.isnan(means)) else centre
        in_units = {
            "min_value": self.before_target("min_value", day),
            "max_value": self.before_target("max_value", day),
            "prev_hour_avg": load[0],
            "prev_hour_min": self.back("min_value", 0),
            "prev_hour_max": self.back("max_value", 0),
            "rolling_avg_3h": known_mean(load[:3]),
            "rolling_avg_24h": known_mean(load[:24]),
            "day_mean": means[0],
            "week_mean": means[1],
            "week_before_target": self.before_target("avg_value", week + 1),
            "week_after_target": self.before_target("avg_value", week - 1),
            "blend": blend,
            **{f"same_hour_{j + 1}": v for j, v in enumerate(days)},
            **{f"same_weekday_hour_{j + 1}": v for j, v in enumerate(weeks)},
        }
        result = {name: (v - centre) / scale for name, v in in_units.items()}
        to_week = [load[i] - load[i + 168] for i in range(24)]
        to_day = [load[i] - load[i + 24] for i in range(24)]
        changes = {
            "week_change_1h": to_week[0],
            "week_change_3h": known_mean(to_week[:3]),
            "week_change_24h": known_mean(to_week),
            "day_change_1h": to_day[0],
            "day_change_24h": known_mean(to_day),
            "month_change": centre - known_mean(load[168:672:7]),
        }
        result |= {name: v / scale for name, v in changes.items()}
        usual = known_mean([self.back("count", h) for h in range(24)])
        result["count"] = self.before_target("count", day) / max(usual, 1.0) if usual == usual else np.nan
        result["horizon"] = self.horizon
        self.blend, self.centre, self.scale, self.last_day = blend, centre, scale, days[0]
        return result | self.calendar() | self.weather() | self.holidays()

    def calendar(self) -> dict[str, float]:
        local = self.target.tz_convert("Australia/Melbourne")
        day = int(np.datetime64(local.date(), "D").astype(int))
        return {
            "hour_of_day": local.hour,
            "day_of_week": local.day_of_week,
            "month": local.month,
            "holiday": float(day in HOLIDAYS),
            "holiday_before": float(day - 1 in HOLIDAYS),
            "holiday_after": float(day + 1 in HOLIDAYS),
            "holiday_day_lags": sum(day - j in HOLIDAYS for j in range(1, 8)) / 7,
            "holiday_week_lag": float(day - 7 in HOLIDAYS),
        }

    def weather(self) -> dict[str, float]:
        path = [self.covariate("temperature", h) for h in range(193)]
        if np.isnan(path[0]):
            return dict.fromkeys(TEMPERATURE, np.nan)
        usual = known_mean(path)
        path = [usual if np.isnan(t) else t for t in path]
        return {
            "temperature": path[0],
            "temperature_change": path[0] - path[24],
            "temperature_day": sum(path[:24]) / 24,
            "temperature_anomaly": path[0] - sum(path[24:193:24]) / 8,
            "temperature_origin": self.back("temperature", 0),
            "temperature_before_1h": path[1],
            "temperature_before_3h": path[3],
            "temperature_smoothed_12h": halving(path[:72], 12),
            "temperature_smoothed_48h": halving(path[:168], 48),
        }

    def holidays(self) -> dict[str, float]:
        return {
            "is_holiday": self.covariate("is_holiday", 0),
            "is_holiday_day_lags": known_mean([self.covariate("is_holiday", 24 * j) for j in range(1, 8)]),
            "is_holiday_week_lag": self.covariate("is_holiday", 168),
            "is_holiday_before": self.covariate("is_holiday", 24),
            "is_holiday_after": self.covariate("is_holiday", -24),
        }


def time_of(panel: Panel, sensor: int, cell: int) -> pd.Timestamp:
    hour = int(panel.hour(np.array([sensor]), np.array([cell]))[0])
    return pd.Timestamp(hour * 3600, unit="s", tz="UTC")


@pytest.mark.parametrize("seed", range(3))
def test_features_agree_with_plain_look_ups(seed: int) -> None:
    frame = hourly(seed)
    panel = panel_of(frame)
    sensor, origin, horizon = pairs(panel, seed)
    design = build_features(panel, sensor, origin, horizon, SPEC)
    assert design.features.dtype == np.float32
    own = dict(list(frame.groupby("sensor_id")))
    for i, (s, o, h) in enumerate(zip(sensor.tolist(), origin.tolist(), horizon.tolist(), strict=True)):
        slow = Slow(own[panel.sensor_ids[s]], time_of(panel, s, o), h)
        expected = slow.features()
        assert set(expected) == set(SPEC.names())
        for name, found in zip(SPEC.names(), design.features[i], strict=True):
            assert found == pytest.approx(expected[name], rel=1e-5, abs=1e-5, nan_ok=True), (name, s, o, h)
        assert design.base["blend"][i] == pytest.approx(slow.blend)
        assert design.base["level"][i] == pytest.approx(slow.centre)
        last_day = slow.blend if np.isnan(slow.last_day) else slow.last_day
        assert design.base["last_day"][i] == pytest.approx(last_day)
        assert design.scale[i] == pytest.approx(slow.scale)


def test_the_seasonal_naive_agrees_with_plain_look_ups() -> None:
    frame = hourly(1)
    panel = panel_of(frame)
    sensor, origin, horizon = pairs(panel, 1, n=80)
    found = seasonal_naive(panel, origin, horizon)
    own = dict(list(frame.groupby("sensor_id")))
    for i, (s, o, h) in enumerate(zip(sensor.tolist(), origin.tolist(), horizon.tolist(), strict=True)):
        slow = Slow(own[panel.sensor_ids[s]], time_of(panel, s, o), h)
        for lag in (24, 168):
            expected = slow.before_target("avg_value", slow.whole(lag))
            assert np.array_equal(found[lag][i], expected, equal_nan=True)


def everything(panel: Panel, where: tuple[np.ndarray, ...], spec: FeatureSpec = SPEC) -> dict[str, Floats]:
    """Features, bases, scale and naive forecasts by name."""
    sensor, origin, horizon = where
    design = build_features(panel, sensor, origin, horizon, spec)
    columns: dict[str, Floats] = dict(zip(spec.names(), design.features.T, strict=True))
    for name, block in design.inputs.items():
        columns |= {f"input {name} {i}": column for i, column in enumerate(block.T)}
    columns |= {f"base {name}": values for name, values in design.base.items()} | {"scale": design.scale}
    return columns | {f"naive {lag}": values for lag, values in seasonal_naive(panel, origin, horizon).items()}


def assert_same(one: dict[str, Floats], other: dict[str, Floats]) -> None:
    for name, values in one.items():
        assert np.array_equal(values, other[name], equal_nan=True), name


@pytest.mark.parametrize("horizon", HORIZONS)
def test_nothing_after_the_origin_is_seen_but_covariates(horizon: int) -> None:
    frame, cut = hourly(2), START + pd.Timedelta(days=32)
    later = frame["timestamp"] > cut
    changed = frame.copy()
    rng = np.random.default_rng(0)
    for name in LOADS:
        changed.loc[later, name] = rng.permutation(1e3 + frame.loc[later, name].fillna(7).to_numpy())
    panels = panel_of(frame), panel_of(changed)
    origin = cut_cells(panels[0], cut)
    where = np.arange(3), origin, np.full(3, horizon)
    assert_same(everything(panels[0], where), everything(panels[1], where))


def cut_cells(panel: Panel, cut: pd.Timestamp) -> np.ndarray:
    hour = int(cut.timestamp()) // 3600
    return panel.first_cell + hour - panel.first_hour


@pytest.mark.parametrize("name", LOADS)
def test_what_happened_before_the_origin_is_seen(name: str) -> None:
    frame, cut = hourly(2, gaps=0.0), START + pd.Timedelta(days=32)
    changed = frame.copy()
    changed.loc[frame["timestamp"].between(cut - pd.Timedelta("23h"), cut), name] += 100
    where = np.arange(3), cut_cells(panel_of(frame), cut), np.full(3, 24)
    one, other = everything(panel_of(frame), where), everything(panel_of(changed), where)
    moved = {column for column in one if not np.array_equal(one[column], other[column], equal_nan=True)}
    expected = {
        "avg_value": {"prev_hour_avg", "rolling_avg_3h", "same_hour_1", "blend", "scale", "naive 24", "base last_day"},
        "min_value": {"min_value", "prev_hour_min"},
        "max_value": {"max_value", "prev_hour_max"},
        "count": {"count"},
    }[name]
    assert expected <= moved


def test_covariates_beyond_a_day_after_the_target_are_not_seen() -> None:
    frame, cut = hourly(3), START + pd.Timedelta(days=30)
    changed, horizon = frame.copy(), 24
    changed.loc[frame["timestamp"] > cut + pd.Timedelta(hours=horizon), "temperature"] = 99.0
    changed.loc[frame["timestamp"] > cut + pd.Timedelta(hours=horizon + 24), "is_holiday"] = 1.0
    where = np.arange(3), cut_cells(panel_of(frame), cut), np.full(3, horizon)
    assert_same(everything(panel_of(frame), where), everything(panel_of(changed), where))


def test_lags_never_cross_sensors() -> None:
    frame = hourly(4)
    changed = frame.copy()
    changed.loc[frame["sensor_id"] == "b", [*LOADS, *COVARIATES]] = 1.0
    panels = panel_of(frame), panel_of(changed)
    # Early origins look back beyond a sensor's first hour, late ones look ahead beyond its last.
    sensor, origin, horizon = ends(panels[0])
    others = sensor != 1
    where = sensor[others], origin[others], horizon[others]
    assert_same(everything(panels[0], where), everything(panels[1], where))


def ends(panel: Panel) -> tuple[np.ndarray, ...]:
    first, last = panel.first_cell, panel.first_cell + panel.n_hours - 1
    origin = np.concatenate([first, first + 1, first + 100, last - 1, last])
    horizon = np.array(HORIZONS)
    n = len(origin)
    return np.repeat(np.tile(np.arange(3), 5), len(horizon)), np.repeat(origin, len(horizon)), np.tile(horizon, n)


def test_a_sensor_alone_has_the_features_it_has_among_others() -> None:
    frame = hourly(5)
    panel = panel_of(frame)
    where = ends(panel)
    together = everything(panel, where)
    for i, name in enumerate("abc"):
        alone = panel_of(frame[frame["sensor_id"] == name].sample(frac=1, random_state=1))
        mine = where[0] == i
        shifted = np.zeros(mine.sum(), dtype=int), where[1][mine] - panel.first_cell[i] + HISTORY_HOURS, where[2][mine]
        assert_same({column: values[mine] for column, values in together.items()}, everything(alone, shifted))


@pytest.mark.parametrize("horizon", [1, 24, 25, 168])
def test_four_weeks_in_a_request_give_the_features_of_training(horizon: int) -> None:
    frame = hourly(6)
    whole = panel_of(frame)
    sensor, origin, _ = pairs(whole, 6, n=12, least=HISTORY_HOURS)
    for s, o in zip(sensor.tolist(), origin.tolist(), strict=True):
        now, own = time_of(whole, s, o), frame[frame["sensor_id"] == whole.sensor_ids[s]]
        sent = own[own["timestamp"] > now - pd.Timedelta(hours=HISTORY_HOURS)].copy()
        sent.loc[sent["timestamp"] > now, list(LOADS)] = np.nan
        request = panel_of(sent)
        here = np.array([0]), request.origin, np.array([horizon])
        there = np.array([s]), np.array([o]), np.array([horizon])
        assert_same(everything(whole, there), everything(request, here))


def test_a_forecast_does_not_depend_on_the_others_of_the_batch() -> None:
    panel = panel_of(hourly(7))
    where = pairs(panel, 7, n=10_000)  # more than one block
    together = everything(panel, where)
    for i in (0, 1, 8_191, 8_192, 9_999):
        alone = everything(panel, tuple(values[i : i + 1] for values in where))
        assert_same({name: values[i : i + 1] for name, values in together.items()}, alone)


def test_a_spike_in_the_history_moves_little() -> None:
    frame, cut = hourly(9, "a", gaps=0.0), START + pd.Timedelta(days=32)
    spiked = frame.copy()
    spiked.loc[frame["timestamp"] == cut - pd.Timedelta("30h"), "avg_value"] = 1e6
    where = np.zeros(1, dtype=int), cut_cells(panel_of(frame), cut), np.full(1, 24)
    one, other = everything(panel_of(frame), where), everything(panel_of(spiked), where)
    assert other["scale"] < 2 * one["scale"]
    assert abs(other["base level"] - one["base level"]) < 0.3 * one["scale"]


@pytest.mark.parametrize("level", [0.0, 5.0, -5.0, 1e9, 1e-9])
def test_a_constant_sensor_has_finite_features(level: float) -> None:
    frame = hourly(9, "a", gaps=0.0).assign(avg_value=level, min_value=level, max_value=level)
    panel = panel_of(frame)
    where = pairs(panel, 9)
    found = everything(panel, where)
    assert np.all(found["scale"] > 0)
    for name in (*FeatureSpec().names(), *(name for name in found if name.startswith("input"))):
        values = found[name][~np.isnan(found[name])]
        assert np.all(np.abs(values) < 1e3), name


def test_every_name_is_used_once_and_optional_groups_are_features() -> None:
    names = SPEC.names()
    assert len(set(names)) == len(names)
    base = "hour_of_day day_of_week month min_value max_value count prev_hour_avg prev_hour_min prev_hour_max"
    assert set(f"{base} rolling_avg_3h rolling_avg_24h horizon".split()) <= set(FeatureSpec().names())
    assert {name for group in OPTIONAL_GROUPS.values() for name in group} <= set(names)


def test_the_panel_stays_as_it_was() -> None:
    panel = panel_of(hourly(10))
    before = {name: values.copy() for name, values in {**panel.loads, **panel.covariates}.items()}
    everything(panel, pairs(panel))
    for name, values in {**panel.loads, **panel.covariates}.items():
        assert np.array_equal(values, before[name], equal_nan=True)


def test_no_forecasts_asked_none_built() -> None:
    nothing = np.empty(0, dtype=np.int64)
    design = build_features(panel_of(hourly(11, "a")), nothing, nothing, nothing, SPEC)
    assert design.features.shape == (0, len(SPEC.names()))
