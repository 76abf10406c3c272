"""Calendar features by the local clock: hour, weekday, month, public holidays and the days beside them."""

from __future__ import annotations

import zoneinfo
from functools import lru_cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smartgrid_pyfunc.schema import InputError

CALENDAR = ("hour_of_day", "day_of_week", "month")
HOLIDAY = ("holiday", "holiday_before", "holiday_after", "holiday_day_lags", "holiday_week_lag")
_THURSDAY = 3  # 1970-01-01
_STEP = 900  # s; clocks change at quarter hours of UTC at the finest (Lord Howe Island at half past)


def check_timezone(name: str) -> str:
    """Return `name` if it is an IANA time zone, otherwise raise `InputError`."""
    try:
        zoneinfo.ZoneInfo(name)
    except (TypeError, ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        raise InputError(
            "timezone must be a name of the IANA database", found=repr(name), remedy="for example Europe/London"
        ) from None
    return name


def holiday_days(country: str, first_year: int, last_year: int) -> NDArray[np.int64]:
    """Return the public holidays of `country` [days since 1970-01-01], sorted.

    Parameters
    ----------
    country : str
        ISO 3166-1 code, with an optional subdivision: ``AU`` or ``AU-VIC``.

    Raises
    ------
    InputError
        If the holidays of that country are not known.
    """
    import holidays  # needed in training only: the served model carries the dates

    code, _, subdivision = country.partition("-")
    try:
        found = holidays.country_holidays(code, subdiv=subdivision or None, years=range(first_year, last_year + 1))
    except NotImplementedError:
        raise InputError(
            "country must be an ISO 3166-1 code with known holidays",
            found=repr(country),
            remedy="for example AU or AU-VIC",
        ) from None
    return np.array(sorted(found), dtype="datetime64[D]").astype(np.int64)


def local_clock(utc: NDArray[np.datetime64], timezone: str) -> NDArray[np.datetime64]:
    """Return the local wall clock [datetime64, minutes] of instants in UTC, any shape."""
    minutes = utc.astype("datetime64[m]")
    if timezone == "UTC":
        return minutes
    offset = _offsets(np.ravel(minutes.astype("datetime64[s]").astype(np.int64)), timezone) // 60
    clock: NDArray[np.datetime64] = minutes + offset.reshape(minutes.shape).astype("timedelta64[m]")
    return clock


def hour_of_week(clock: NDArray[np.datetime64]) -> NDArray[np.int64]:
    """Return 0 (Monday 00:00) … 167 for each local `clock` time."""
    hours = clock.astype("datetime64[h]").astype(np.int64)
    week: NDArray[np.int64] = (hours + _THURSDAY * 24) % 168
    return week


def _offsets(seconds: NDArray[np.int64], timezone: str) -> NDArray[np.int64]:
    """Offset of the local clock [s] at each instant, looked up among the changes of the zone."""
    if not len(seconds):
        return seconds
    changes, offsets = _transitions(timezone)
    result: NDArray[np.int64] = offsets[np.searchsorted(changes, seconds, side="right") - 1]
    return result


@lru_cache(maxsize=64)
def _transitions(timezone: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return when the zone's offset changes between 1900 and 2200 [s since 1970] and the offset from then on [s]."""
    start, stop = (int(np.datetime64(year, "s").astype(np.int64)) for year in ("1900-01-01", "2200-01-01"))
    days = np.arange(start, stop, 86_400)
    coarse = _zone_offsets(days, timezone)
    changed = np.flatnonzero(np.diff(coarse))
    fine = (days[changed][:, None] + np.arange(0, 86_400 + 1, _STEP)).ravel()
    instants = np.concatenate([[start], fine])
    offsets = _zone_offsets(instants, timezone)
    keep = np.concatenate([[True], np.diff(offsets) != 0])
    return instants[keep], offsets[keep]


def _zone_offsets(seconds: NDArray[np.int64], timezone: str) -> NDArray[np.int64]:
    utc = pd.DatetimeIndex(seconds.astype("datetime64[s]"), tz="UTC")
    local = utc.tz_convert(timezone).tz_localize(None).as_unit("s").to_numpy()
    return local.astype(np.int64) - seconds


def calendar_features(
    hours: NDArray[np.int64], timezone: str, holidays: NDArray[np.int64]
) -> dict[str, NDArray[np.float64]]:
    """Return `CALENDAR` and, with holidays, `HOLIDAY` for each hour.

    The day of the year is left out on purpose: with two or three years of history a forest learns single days by heart.

    Parameters
    ----------
    hours : ndarray of int64, shape (n,)
        Hours since 1970-01-01 UTC.
    timezone : str
        IANA zone of the sensors' local clock.
    holidays : ndarray of int64, shape (k,)
        Public holidays [local days since 1970-01-01], sorted; may be empty.

    Returns
    -------
    dict of ndarray, shape (n,)
        ``hour_of_day`` 0…23, ``day_of_week`` 0 = Monday, ``month`` 1…12, and 0/1 flags of the
        local day being a holiday, following one (``holiday_before``) and preceding one (``holiday_after``), the share
        of holidays among the seven days before (``holiday_day_lags``), and the flag of the same weekday before.
    """
    clock = local_clock(hours.astype("datetime64[h]"), timezone)
    day = clock.astype("datetime64[D]")
    number = day.astype(np.int64)
    columns = {
        "hour_of_day": ((clock - day).astype(np.int64) // 60).astype(np.float64),
        "day_of_week": ((number + _THURSDAY) % 7).astype(np.float64),
        "month": (day.astype("datetime64[M]").astype(np.int64) % 12 + 1).astype(np.float64),
    }
    return columns | _holiday_features(number, holidays) if len(holidays) else columns


def _holiday_features(day: NDArray[np.int64], holidays: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    def flag(shift: int) -> NDArray[np.float64]:
        return np.isin(day + shift, holidays).astype(np.float64)

    lags = [flag(-back) for back in range(1, 8)]
    return {
        "holiday": flag(0),
        "holiday_before": lags[0],
        "holiday_after": flag(1),
        "holiday_day_lags": np.mean(lags, axis=0),
        "holiday_week_lag": lags[-1],
    }
