"""The request of a moment holds what was known then: held against a slow reference, and against a changed future."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from smartgrid_pyfunc.predictions.batch import each_answer
from smartgrid_pyfunc.predictions.moments import Ask, Known, hours_of, moments, time_of
from smartgrid_pyfunc.schema import InputError
from smartgrid_pyfunc.sources import load_hourly

_START = pd.Timestamp("2026-01-01T00:00Z")
_LOADS = ["avg_value", "min_value", "max_value", "count"]


def grid(days: int = 40, *, covariates: bool = True) -> pd.DataFrame:
    """Return hourly load of a sensor without gaps, one with gaps, one that ends early and one that begins late."""
    rng, hours = np.random.default_rng(0), np.arange(days * 24)
    parts = []
    for name, kept in {
        "even": hours >= 0,
        "gappy": (rng.random(len(hours)) > 0.2) & (hours != hours[-1]),
        "gone": hours < (days - 5) * 24 - 3,
        "new": hours >= (days - 6) * 24 + 7,
    }.items():
        times = _START + pd.to_timedelta(hours[kept], unit="h")
        frame = pd.DataFrame({"sensor_id": name, "timestamp": times})
        for column in _LOADS:
            frame[column] = np.round(rng.normal(5, 1, len(frame)), 0 if column == "count" else 3)
        if covariates:
            frame["temperature"], frame["is_holiday"] = rng.normal(10, 3, len(frame)), 0.0
        parts.append(frame)
    return pd.concat(parts, ignore_index=True).sort_values(["sensor_id", "timestamp"], ignore_index=True)


def ahead(days: int = 40) -> pd.DataFrame:
    """Return a forecast of the temperature for two days after the data."""
    times = _START + pd.to_timedelta(np.arange(days * 24, days * 24 + 48), unit="h")
    frames = [pd.DataFrame({"sensor_id": name, "timestamp": times, "temperature": 20.0}) for name in ("even", "gone")]
    return pd.concat(frames, ignore_index=True)


def reference(hourly: pd.DataFrame, more: pd.DataFrame | None, moment: pd.Timestamp, hours_ahead: int) -> pd.DataFrame:
    """Cut the requests of a moment with plain pandas, sensor by sensor."""
    parts = []
    for sensor, rows in hourly.groupby("sensor_id"):
        past = rows[rows["timestamp"] < moment]
        if past.empty or moment - past["timestamp"].max() > pd.Timedelta("168h"):
            continue
        origin = past["timestamp"].max()
        past = past[past["timestamp"] > origin - pd.Timedelta("672h")]
        later = pd.concat([rows, more[more["sensor_id"] == sensor]]) if more is not None else rows
        later = later[(later["timestamp"] > origin) & (later["timestamp"] < moment + pd.Timedelta(hours=hours_ahead))]
        parts += [past, later.assign(**dict.fromkeys(_LOADS, np.nan))]
    return pd.concat(parts).sort_values(["sensor_id", "timestamp"], ignore_index=True)


def requests(known: Known, moment: pd.Timestamp, hours_ahead: int = 24) -> pd.DataFrame:
    asks, _ = known.asks(_hour(moment), hours_ahead)
    return pd.concat([known.request(ask) for ask in asks]).sort_values(["sensor_id", "timestamp"], ignore_index=True)


def _hour(time: pd.Timestamp) -> int:
    return int(hours_of(pd.DatetimeIndex([time]))[0])


MOMENTS = [_START + pd.Timedelta(hours=h) for h in (24, 200, 34 * 24, 35 * 24 + 5, 39 * 24, 40 * 24)]


@pytest.mark.parametrize("moment", MOMENTS, ids=str)
@pytest.mark.parametrize("hours_ahead", [1, 24, 168])
def test_a_request_is_what_a_slow_reference_cuts(moment, hours_ahead):
    hourly, more = grid(), ahead()
    found = requests(Known(hourly, more), moment, hours_ahead)
    pd.testing.assert_frame_equal(found, reference(hourly, more, moment, hours_ahead)[found.columns], check_dtype=False)


@pytest.mark.parametrize("moment", MOMENTS, ids=str)
def test_without_covariates_no_row_lies_after_an_origin(moment):
    hourly = grid(covariates=False)
    found = requests(Known(hourly), moment)
    assert found["avg_value"].notna().all()
    assert (found["timestamp"] < moment).all()
    assert found.groupby("sensor_id")["timestamp"].agg(lambda t: t.max() - t.min()).max() <= pd.Timedelta("671h")


@pytest.mark.parametrize("moment", MOMENTS, ids=str)
def test_another_future_gives_the_same_request(moment):
    hourly = grid()
    other, later = hourly.copy(), hourly["timestamp"] >= moment
    other.loc[later, _LOADS] = 1e6
    pd.testing.assert_frame_equal(requests(Known(hourly), moment), requests(Known(other), moment))
    cut = requests(Known(hourly[~later].reset_index(drop=True)), moment)  # as if the data ended there
    seen = requests(Known(hourly), moment)
    pd.testing.assert_frame_equal(seen[seen["avg_value"].notna()].reset_index(drop=True), cut)


def test_a_forecast_temperature_is_used_where_no_load_is_known_yet():
    known = Known(grid(), ahead())
    found = requests(known, _START + pd.Timedelta(days=40))
    later = found[found["timestamp"] >= _START + pd.Timedelta(days=40)]
    assert (later["temperature"] == 20.0).all()
    assert later["sensor_id"].value_counts().to_dict() == {"even": 24, "gone": 24}
    pd.testing.assert_frame_equal(
        known.request(known.asks(_hour(MOMENTS[3]), 24)[0][0]),
        Known(grid()).request(Known(grid()).asks(_hour(MOMENTS[3]), 24)[0][0]),
    )


def test_an_hour_in_both_tables_keeps_what_either_knows():
    hourly = grid()
    hourly.loc[hourly["timestamp"] == _START + pd.Timedelta(hours=900), "temperature"] = np.nan
    more = pd.DataFrame(
        {"sensor_id": ["even", "nobody"], "timestamp": _START + pd.Timedelta(hours=900), "temperature": 7.0}
    )
    moment = _START + pd.Timedelta(hours=910)
    found, plain = requests(Known(hourly, more), moment), requests(Known(hourly), moment)
    changed = (found["temperature"] == 7.0).to_numpy()
    assert changed.sum() == 1
    plain.loc[changed, "temperature"] = 7.0
    pd.testing.assert_frame_equal(found, plain)


@pytest.mark.parametrize("hours_ahead", [1, 24, 168])
def test_every_sensor_that_is_not_silent_is_asked_for_the_same_hours(hours_ahead):
    known = Known(grid())
    moment = _hour(_START + pd.Timedelta(days=38))
    asks, silent = known.asks(moment, hours_ahead)
    assert silent == 0
    seen = {}
    for ask in asks:
        row, target = ask.targets()
        assert (target <= ask.origin[row] + 168).all()
        assert ask.horizon <= 168
        assert (target <= ask.origin[row] + ask.horizon).all()
        for i in range(len(ask.sensor)):
            seen[known.sensors[ask.sensor[i]]] = target[row == i]
    late = 3 * 24 + 3
    for sensor, hours in seen.items():
        count = min(hours_ahead, 168 - late) if sensor == "gone" else hours_ahead
        if sensor != "gappy":
            np.testing.assert_array_equal(hours, moment + np.arange(count))
    assert set(seen) == {"even", "gappy", "gone", "new"}


def test_a_sensor_without_load_for_a_week_is_counted_as_silent():
    known = Known(grid())
    asks, silent = known.asks(_hour(_START + pd.Timedelta(hours=35 * 24 - 3 + 167)), 24)
    assert silent == 0
    asks, silent = known.asks(_hour(_START + pd.Timedelta(hours=35 * 24 - 3 + 168)), 24)
    assert silent == 1
    assert "gone" not in {known.sensors[number] for ask in asks for number in ask.sensor}


def test_times_before_1970_are_hours_as_any_other():
    hourly = grid(3)
    old = hourly.assign(timestamp=hourly["timestamp"] - pd.Timedelta(days=365 * 70))
    moment = _START + pd.Timedelta(days=2)
    found = requests(Known(old), moment - pd.Timedelta(days=365 * 70))
    expected = requests(Known(hourly), moment)
    pd.testing.assert_frame_equal(found.drop(columns="timestamp"), expected.drop(columns="timestamp"))


# --------------------------------------------------------------------------------------------------------- moments


def _times(*args: object) -> list[str]:
    return [f"{time_of(hour):%dT%H}" for hour in moments(Known(grid(10)), *args)]


def test_the_newest_moment_follows_the_last_hour_or_the_time_given():
    day = pd.Timestamp("2026-01-09T00:00Z")
    assert _times(None, None, 24) == ["11T00"]
    assert _times(None, None, 24, day) == ["09T00"]
    assert _times(None, None, 24, day + pd.Timedelta("90min")) == ["09T01"]
    assert _times(None, None, 24, day + pd.Timedelta("365D")) == ["11T00"]
    with pytest.raises(InputError, match="data must begin before now"):
        _times(None, None, 24, _START)


@pytest.mark.parametrize(
    ("since", "until", "every", "expected"),
    [
        ("2026-01-08", "2026-01-10", 24, ["08T00", "09T00"]),
        ("2026-01-08T00:30Z", "2026-01-10T00:01Z", 24, ["09T00", "10T00"]),
        ("2026-01-09T06:00Z", "2026-01-10T00:00Z", 6, ["09T06", "09T12", "09T18"]),
        ("2026-01-09", None, 24, ["09T00", "10T00", "11T00"]),
        ("2026-01-10", "2027-01-01", 12, ["10T00", "10T12", "11T00"]),
        (None, "2026-01-10", 24, ["08T00", "09T00"]),
        ("2025-12-30", "2026-01-03", 24, ["02T00"]),
    ],
)
def test_moments_are_counted_from_midnight_half_open_and_within_the_data(since, until, every, expected):
    limits = [None if text is None else pd.Timestamp(text).tz_localize("UTC") if "T" not in text else pd.Timestamp(text)
              for text in (since, until)]  # fmt: skip
    assert _times(*limits, every) == expected


def test_limits_without_a_moment_are_refused_with_what_there_is():
    with pytest.raises(InputError, match="found 2026-01-01 00:00 to 2026-01-11 00:00"):
        _times(pd.Timestamp("2027-01-01T00:00Z"), None, 24)


# ------------------------------------------------------------------------------------------------- refused sensors


@pytest.mark.parametrize("bad", [set(), {3}, {0, 9}, set(range(10))])
def test_one_bad_sensor_does_not_spoil_the_others(bad):
    calls = []

    def score(members: np.ndarray) -> pd.DataFrame:
        calls.append(len(members))
        if bad & set(members.tolist()):
            raise InputError("models:/x/1 refuses the request: value 1e40 is too large")
        return pd.DataFrame({"member": members})

    answers = list(each_answer(score, np.arange(10)))
    good = [member for _, found in answers if not isinstance(found, str) for member in found["member"]]
    refused = {int(members[0]): found for members, found in answers if isinstance(found, str)}
    assert sorted(good) == sorted(set(range(10)) - bad)
    assert refused == dict.fromkeys(sorted(bad), "value 1e40 is too large.")
    assert len(calls) <= 1 + 8 * len(bad)


def test_a_part_of_a_request_is_the_request_of_its_sensors():
    ask = Ask(np.array([2, 4, 7]), np.array([10, 11, 12]), 13, 5)
    part = ask.part(np.array([0, 2]))
    assert (part.sensor.tolist(), part.origin.tolist(), part.horizon) == ([2, 7], [10, 12], 7)


# ------------------------------------------------------------------------------------------------ hours without load


def test_covariates_of_hours_without_load_are_read_where_asked_for(tmp_path):
    hourly, more = grid(3), ahead(3)
    rows = pd.concat([hourly, more, more.head(3).assign(temperature=19.0), more.head(2).assign(temperature=np.nan)])
    rows.sample(frac=1, random_state=0).to_csv(tmp_path / "load.csv", index=False)
    plain, asked = load_hourly(str(tmp_path / "load.csv")), load_hourly(str(tmp_path / "load.csv"), with_ahead=True)
    assert plain.ahead is None
    pd.testing.assert_frame_equal(plain.frame, asked.frame)
    assert plain.report.digest == asked.report.digest
    assert asked.ahead is not None
    pd.testing.assert_frame_equal(asked.ahead[more.columns], more, check_dtype=False)


def test_readings_and_loads_without_covariates_have_nothing_ahead(tmp_path):
    hourly = grid(3, covariates=False)
    hourly.to_csv(tmp_path / "load.csv", index=False)
    readings = hourly.rename(columns={"avg_value": "value"}).assign(sensor_type="power")
    readings[["sensor_id", "sensor_type", "timestamp", "value"]].to_csv(tmp_path / "readings.csv", index=False)
    for name in ("load.csv", "readings.csv"):
        found = load_hourly(str(tmp_path / name), with_ahead=True).ahead
        assert found is not None
        assert found.empty
        assert {"sensor_id", "timestamp"} <= set(found.columns)
