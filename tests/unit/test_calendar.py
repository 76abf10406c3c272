"""Calendar features against pandas' and the standard library's time zones."""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo

import holidays as holiday_library
import numpy as np
import pandas as pd
import pytest

from smartgrid_pyfunc.features.calendar import (
    calendar_features,
    check_timezone,
    holiday_days,
    hour_of_week,
    local_clock,
)
from smartgrid_pyfunc.schema import InputError

ZONES = ["UTC", "Europe/London", "Australia/Melbourne", "Asia/Kolkata", "America/New_York", "Australia/Lord_Howe"]
NO_DAYS = np.empty(0, dtype=np.int64)
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def hours_between(first: str, last: str) -> np.ndarray:
    return np.arange(np.datetime64(first, "h").astype(np.int64), np.datetime64(last, "h").astype(np.int64))


@pytest.mark.parametrize("zone", ZONES)
def test_features_agree_with_pandas_over_leap_years_and_clock_changes(zone: str) -> None:
    hours = hours_between("2023-11-01", "2025-03-15")
    local = pd.DatetimeIndex(hours.astype("datetime64[h]").astype("datetime64[s]"), tz="UTC").tz_convert(zone)
    found = calendar_features(hours, zone, NO_DAYS)
    assert np.array_equal(found["hour_of_day"], local.hour)
    assert np.array_equal(found["day_of_week"], local.day_of_week)
    assert np.array_equal(found["month"], local.month)


@pytest.mark.parametrize("zone", ZONES)
def test_the_clock_agrees_with_the_standard_library_at_any_minute(zone: str) -> None:
    minutes = np.random.default_rng(1).integers(0, 60 * 365 * 24 * 60, 400)
    clock = local_clock(minutes.astype("datetime64[m]"), zone)
    for minute, shown in zip(minutes.tolist(), clock, strict=True):
        there = (EPOCH + dt.timedelta(minutes=minute)).astimezone(ZoneInfo(zone)).replace(tzinfo=None, second=0)
        assert shown == np.datetime64(there, "m")


@pytest.mark.parametrize("zone", ["Europe/London", "Australia/Melbourne", "Australia/Lord_Howe"])
@pytest.mark.parametrize("year", [1999, 2024, 2036, 2060])
def test_the_minutes_around_a_clock_change_are_right(zone: str, year: int) -> None:
    minutes = np.arange(
        np.datetime64(f"{year}-01-01T00:00"), np.datetime64(f"{year + 1}-01-01"), np.timedelta64(15, "m")
    )
    local = pd.DatetimeIndex(minutes.astype("datetime64[s]"), tz="UTC").tz_convert(ZoneInfo(zone)).tz_localize(None)
    assert np.array_equal(local_clock(minutes, zone), local.to_numpy().astype("datetime64[m]"))


def test_london_skips_one_hour_in_march_and_repeats_one_in_october() -> None:
    spring = calendar_features(hours_between("2024-03-31T00", "2024-04-01T00"), "Europe/London", NO_DAYS)
    assert spring["hour_of_day"].tolist() == [0, *range(2, 24), 0]
    autumn = calendar_features(hours_between("2024-10-26T23", "2024-10-28T00"), "Europe/London", NO_DAYS)
    assert autumn["hour_of_day"].tolist() == [0, 1, 1, *range(2, 24)]


def test_the_local_day_decides_in_kolkata() -> None:
    # 18:30 UTC is midnight there: of the hour starting at 18:00 UTC the first half is still Thursday.
    hours = hours_between("2024-02-29T18", "2024-02-29T20")
    found = calendar_features(hours, "Asia/Kolkata", NO_DAYS)
    assert found["hour_of_day"].tolist() == [23, 0]
    assert found["day_of_week"].tolist() == [3, 4]
    assert found["month"].tolist() == [2, 3]


def test_hour_of_week_counts_from_monday_midnight() -> None:
    clock = np.array(["1970-01-01T00:00", "2024-01-01T00:00", "2024-01-07T23:59", "1969-12-29T00:30"], dtype="M8[m]")
    assert hour_of_week(clock).tolist() == [3 * 24, 0, 167, 0]


def test_holiday_flags_mark_the_local_day_and_its_neighbours() -> None:
    christmas = np.array([np.datetime64("2024-12-25", "D").astype(np.int64)])
    hours = hours_between("2024-12-23T00", "2024-12-28T00")
    found = calendar_features(hours, "Australia/Melbourne", christmas)
    local = pd.DatetimeIndex(hours.astype("M8[h]").astype("M8[s]"), tz="UTC").tz_convert("Australia/Melbourne")
    day = np.array([d.day for d in local])
    assert np.array_equal(found["holiday"] == 1, day == 25)
    assert np.array_equal(found["holiday_before"] == 1, day == 26)
    assert np.array_equal(found["holiday_after"] == 1, day == 24)


@pytest.mark.parametrize(("country", "subdivision"), [("GB", None), ("AU-VIC", "VIC"), ("DE-BY", "BY")])
def test_public_holidays_are_those_of_the_library(country: str, subdivision: str | None) -> None:
    expected = holiday_library.country_holidays(country[:2], subdiv=subdivision, years=[2023, 2024])
    days = holiday_days(country, 2023, 2024)
    assert days.astype("datetime64[D]").tolist() == sorted(expected)


def test_regions_differ() -> None:
    cup_day = np.datetime64("2024-11-05", "D").astype(np.int64)  # Melbourne Cup
    assert cup_day in holiday_days("AU-VIC", 2024, 2024)
    assert cup_day not in holiday_days("AU", 2024, 2024)


@pytest.mark.parametrize("country", ["XX", "Atlantis", "AU-XYZ"])
def test_unknown_countries_are_refused(country: str) -> None:
    with pytest.raises(InputError, match="ISO 3166-1"):
        holiday_days(country, 2024, 2024)


@pytest.mark.parametrize("zone", ["", "Mars/Olympus", "..", "/etc/passwd", "a\x00b", None, 5])
def test_unknown_time_zones_are_refused(zone: str) -> None:
    with pytest.raises(InputError, match="IANA"):
        check_timezone(zone)


def test_nothing_in_nothing_out() -> None:
    found = calendar_features(np.empty(0, dtype=np.int64), "Europe/London", NO_DAYS)
    assert all(len(values) == 0 for values in found.values())
