"""Context of readings against a slow reference, hand numbers and the law that no row sees a later one."""

from __future__ import annotations

import datetime as dt
import math

import numpy as np
import pandas as pd
import pytest

from smartgrid_pyfunc.features.readings import ReadingContext, parse_readings, read_context, whole_sensors
from smartgrid_pyfunc.schema import InputError


def _frame(rows: list[tuple[str, str, float | None]], **columns: object) -> pd.DataFrame:
    """Rows of (sensor, timestamp, value)."""
    frame = pd.DataFrame(rows, columns=["sensor_id", "timestamp", "value"])
    return frame.assign(sensor_type="power").assign(**columns)


def _context(frame: pd.DataFrame, timezone: str = "UTC") -> ReadingContext:
    return read_context(parse_readings(frame), timezone)


CONTEXT = ("day_change", "week_change", "step", "flat_hours", "gap_hours")


def _table(context: ReadingContext) -> np.ndarray:
    """What each distinct reading's history tells, by the columns of `CONTEXT`; NaN where nothing does."""
    value = np.append(context.rows.value, np.nan)
    hours = np.append(context.rows.time.astype("datetime64[us]").astype(np.int64) / 3.6e9, np.nan)
    before = np.where(context.end > context.first, context.end - 1, -1)
    n = len(context)
    changes = [value[:n] - value[row] for row in (context.days[0], context.days[6], before)]
    return np.column_stack([*changes, context.flat_hours, hours[:n] - hours[before]])


def _by_row(frame: pd.DataFrame) -> np.ndarray:
    """Context of each row of the request, NaN where it has no value."""
    context = _context(frame)
    return np.vstack([_table(context), np.full(len(CONTEXT), np.nan)])[context.position]


def _column(frame: pd.DataFrame, name: str) -> list[float]:
    return _by_row(frame)[:, CONTEXT.index(name)].tolist()


def _irregular(seed: int, n: int = 500, sensors: int = 3) -> pd.DataFrame:
    """Shuffled readings at odd times, with repeats, conflicts, gaps and stuck values."""
    rng = np.random.default_rng(seed)
    steps = rng.choice(
        [0, 1, 1_800, 3_600, 7_201, 86_399, 86_400, 600_000], size=n, p=[0.15, 0.05, 0.3, 0.3, 0.1, 0.04, 0.04, 0.02]
    )
    frame = pd.DataFrame(
        {
            "sensor_id": rng.choice([f"s{i}" for i in range(sensors)], n),
            "sensor_type": "power",
            "timestamp": pd.Timestamp("2026-01-01") + pd.to_timedelta(np.cumsum(steps) // sensors, unit="s"),
            "value": rng.choice([0.0, 1.0, 1.0, 1.0, 2.5, -3.0, np.nan], n),
        }
    )
    return frame.iloc[rng.permutation(n)].reset_index(drop=True)


def _reference(frame: pd.DataFrame) -> np.ndarray:
    """The definition of the context, row by row in plain Python."""
    rows = [(r.sensor_id, r.timestamp.to_pydatetime(), r.value) for r in frame.itertuples()]
    return np.array([_reference_row(rows, *row) for row in rows])


def _reference_row(rows: list[tuple], sensor: str, time: dt.datetime, value: float) -> list[float]:
    if math.isnan(value):
        return [math.nan] * len(CONTEXT)
    earlier = sorted((t, v) for s, t, v in rows if s == sensor and t < time and not math.isnan(v))

    def change(hours: int) -> float:
        oldest, newest = time - dt.timedelta(hours=hours + 1), time - dt.timedelta(hours=hours)
        near = [v for t, v in earlier if oldest < t <= newest]
        return value - near[-1] if near else math.nan

    if not earlier:
        return [change(24), change(168), math.nan, math.nan, math.nan]
    since = time
    for instant in sorted({t for t, _ in earlier}, reverse=True):
        if (instant, value) not in earlier:
            break
        since = instant
    last_time, last_value = earlier[-1]
    hours = [(time - t).total_seconds() / 3600 for t in (since, last_time)]
    return [change(24), change(168), value - last_value, *hours]


@pytest.mark.parametrize("seed", range(8))
def test_context_agrees_with_a_slow_reference(seed: int):
    frame = _irregular(seed)
    expected = _reference(frame)
    assert np.isfinite(expected).sum(axis=0).min() > 5  # every kind of context occurs
    np.testing.assert_allclose(_by_row(frame), expected, rtol=1e-12, atol=1e-9)


def test_lags_take_the_latest_reading_up_to_an_hour_older_by_hand():
    rows = [("a", "2026-03-02T10:00:00", 1.0), ("a", "2026-03-02T10:40:00", 2.0), ("a", "2026-03-02T12:00:00", 4.0)]
    at = ["2026-03-03T10:30:00", "2026-03-03T10:40:00", "2026-03-03T11:41:00", "2026-03-09T10:59:59"]
    frame = _frame(rows + [("a", t, 10.0) for t in at])
    assert _column(frame, "day_change")[3:6] == pytest.approx([9.0, 8.0, math.nan], nan_ok=True)
    assert _column(frame, "week_change")[6] == 8.0


def test_removing_or_changing_later_rows_changes_no_earlier_context():
    frame = _irregular(99, n=300)
    cut = frame["timestamp"].median()
    early = (frame["timestamp"] <= cut).to_numpy()
    changed = frame.assign(value=np.where(early, frame["value"], 77.0))
    whole = _by_row(frame)[early]
    np.testing.assert_array_equal(_by_row(frame[early]), whole)
    np.testing.assert_array_equal(_by_row(changed)[early], whole)


def test_lags_never_cross_sensors():
    frame = _irregular(5, n=300, sensors=4)
    whole = _by_row(frame)
    for _, rows in frame.groupby("sensor_id"):
        np.testing.assert_array_equal(_by_row(rows), whole[rows.index])


def test_row_order_does_not_matter_even_for_ties():
    frame = _irregular(7, n=300)
    frame = pd.concat([frame, frame.head(60).assign(latitude=1.0, unit="MW", sensor_type="energy")], ignore_index=True)
    order = np.random.default_rng(0).permutation(len(frame))
    first, shuffled = _context(frame), _context(frame.iloc[order])
    for one, other in ((first, first.position[order]), (shuffled, shuffled.position)):
        known = other >= 0
        told = pd.DataFrame(_table(one)[other[known]]).assign(unit=one.rows.unit.values()[other[known]])
        if one is first:
            expected = told
    pd.testing.assert_frame_equal(told, expected)


def test_rows_that_differ_in_place_or_type_only_are_kept_apart_but_do_not_conflict():
    rows = [("a", "2026-01-01T00:00:00Z", 1.0)] * 4
    frame = _frame(rows, latitude=[None, 5.0, None, 6.0], sensor_type=["power", "power", "power", "energy"])
    context = _context(frame)
    assert len(context) == 3
    assert context.position[0] == context.position[2]
    assert not context.conflicting.any()
    assert list(context.rows.sensor_type.values()[context.position]) == ["power", "power", "power", "energy"]


def test_conflicting_readings_are_both_kept_and_neither_is_history_of_the_other():
    rows = [("a", f"2026-01-01T{h:02d}:00:00Z", 5.0) for h in range(4)]
    alone = _by_row(_frame(rows))[-1]
    for other in (3.0, 9.0):
        frame = _frame([*rows, ("a", rows[-1][1], other)])
        context = _context(frame)
        assert context.conflicting[context.position].tolist() == [False, False, False, True, True]
        np.testing.assert_array_equal(_by_row(frame)[3], alone)
        assert _column(frame, "step")[4] == other - 5.0
        assert _column(frame, "gap_hours")[4] == 1.0
        assert _column(frame, "flat_hours")[3:] == [3.0, 0.0]


def test_a_conflict_does_not_break_a_stuck_value():
    rows = [("a", f"2026-01-01T{h:02d}:00:00Z", 5.0) for h in range(6)]
    frame = _frame([*rows, ("a", rows[2][1], 8.0), ("a", rows[3][1], 1.0)])
    assert _column(frame, "flat_hours")[5] == 5.0


def test_exact_duplicates_are_one_reading():
    frame = _irregular(11)
    doubled = pd.concat([frame, frame], ignore_index=True)
    first, second = _context(frame), _context(doubled)
    np.testing.assert_array_equal(_table(first), _table(second))
    np.testing.assert_array_equal(second.position, np.tile(first.position, 2))
    np.testing.assert_array_equal(first.conflicting, second.conflicting)


def test_readings_within_a_millisecond_have_an_order():
    rows = [("a", f"2026-01-01T00:00:00.000{us:03d}Z", float(us)) for us in (0, 100, 300)]
    frame = _frame(rows)
    assert _column(frame, "step")[1:] == [100.0, 200.0]
    assert not _context(frame).conflicting.any()


def test_thousands_of_sensors_over_three_centuries_do_not_overflow():
    # 5,000 sensors × 300 years are 4.7e19 µs, five times what 64 bits hold.
    n = 5_000
    times = ["1900-01-01T00:00:00", "1900-01-02T00:00:00", "2199-12-30T23:30:00", "2199-12-31T23:30:00"]
    ids = np.repeat([f"s{i:04d}" for i in range(n)], len(times))
    value = np.arange(len(ids), dtype=np.float64) ** 2
    frame = pd.DataFrame({"sensor_id": ids, "sensor_type": "power", "value": value})
    frame["timestamp"] = pd.to_datetime(times * n).as_unit("us")
    table = _by_row(frame).reshape(n, len(times), len(CONTEXT))
    squares = value.reshape(n, len(times))
    day = table[:, :, CONTEXT.index("day_change")]
    assert np.isnan(day[:, [0, 2]]).all()
    np.testing.assert_array_equal(day[:, [1, 3]], squares[:, [1, 3]] - squares[:, [0, 2]])
    assert np.isnan(table[:, :, CONTEXT.index("week_change")]).all()


def test_daylight_saving_moves_the_hour_of_the_week():
    # London goes to summer time on Sunday 2026-03-29 at 01:00 UTC and back on Sunday 2026-10-25 at 01:00 UTC.
    utc = ["2026-03-29T00:59Z", "2026-03-29T01:00Z", "2026-10-25T00:30Z", "2026-10-25T01:30Z"]
    context = _context(_frame([("a", t, float(i)) for i, t in enumerate(utc)]), "Europe/London")
    assert (context.hour_of_week - 6 * 24).tolist() == [0, 2, 1, 1]


def test_integers_and_mixed_offsets_are_the_same_readings():
    texts = ["2026-01-01T00:00:00", "2026-01-01T02:00:00+01:00", "2025-12-31T21:00:00-05:00"]
    parsed = parse_readings(_frame([("7", t, i) for i, t in enumerate(texts)]))
    assert parsed.time.astype(str).tolist() == [f"2026-01-01T0{h}:00:00.000000" for h in (0, 1, 2)]
    assert parsed.value.tolist() == [0.0, 1.0, 2.0]
    assert parse_readings(_frame([(7, texts[0], 0)])).sensor.values().tolist() == ["7"]


def test_units_are_those_given_else_those_of_the_type():
    rows = [("a", "2026-01-01", 1.0)] * 4
    frame = _frame(rows, unit=["MW", None, "", float("nan")], sensor_type=["power", "power", "voltage", "unheard"])
    assert parse_readings(frame).unit.values().tolist() == ["MW", "kW", "V", ""]


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        ("value", "1.5", "value must be a number"),
        ("value", True, "value must be a number"),
        ("value", float("inf"), "value must be finite"),
        ("timestamp", 1767225600, "timestamp must be ISO 8601"),
        ("timestamp", "yesterday", "timestamp must be ISO 8601"),
        ("timestamp", None, "timestamp is required"),
        ("timestamp", "1899-12-31T00:00:00Z", "timestamp must lie between"),
        ("sensor_id", "", "sensor_id must be text"),
        ("sensor_type", None, "sensor_type must be text"),
        ("latitude", 91.0, "latitude must lie in"),
        ("longitude", -180.5, "longitude must lie in"),
        ("unit", 3, "unit must be text"),
    ],
)
def test_a_bad_cell_is_refused_with_its_column_and_row(column: str, value: object, says: str):
    frame = _frame([("a", "2026-01-01T00:00:00Z", 1.0)] * 3, latitude=1.0, longitude=2.0, unit="kW").astype(object)
    frame.loc[1, column] = value
    with pytest.raises(InputError, match=says) as error:
        parse_readings(frame)
    assert f"column {column}, row 2" in str(error.value)


@pytest.mark.parametrize("column", ["sensor_id", "sensor_type", "timestamp", "value"])
def test_a_missing_column_is_named(column: str):
    with pytest.raises(InputError, match=f"column {column} is required"):
        parse_readings(_frame([("a", "2026-01-01", 1.0)]).drop(columns=column))


@pytest.mark.parametrize(
    "text", ["2026-03-02T10:00:00Z", "2026-03-02T10:00:00+00:00", "2026-03-31T10:00:00Z", "2026-03-02 10:00:00"]
)
def test_a_single_time_is_read_as_among_others(text: str):
    alone, among = (parse_readings(_frame([("a", text, 1.0)] * n)).time[0] for n in (1, 3))
    assert alone == among == pd.Timestamp(text).tz_localize(None).to_datetime64()


@pytest.mark.parametrize("text", ["2026-02-30T10:00:00Z", "2026-13-02T10:00:00Z", "2026-03-02T24:00:00Z", "٢٠٢٦-03-02"])
def test_a_single_time_that_does_not_exist_is_refused(text: str):
    with pytest.raises(InputError, match="timestamp must be ISO 8601"):
        parse_readings(_frame([("a", text, 1.0)]))


def test_many_rows_number_texts_as_few_do():
    frame = pd.concat([_irregular(seed) for seed in range(3)], ignore_index=True)  # beyond what plain Python does
    many, few = parse_readings(frame), parse_readings(frame.head(50))
    for column, other in ((many.sensor, few.sensor), (many.sensor_type, few.sensor_type), (many.unit, few.unit)):
        assert column.values()[:50].tolist() == other.values().tolist()
    bad = frame.astype({"sensor_id": "str"})
    bad.loc[1_200, "sensor_id"] = None
    with pytest.raises(InputError, match="column sensor_id, row 1201"):
        parse_readings(bad)


def test_the_last_six_hours_start_where_they_should():
    at = ["2026-03-02T03:59Z", "2026-03-02T04:00Z", "2026-03-02T09:00Z", "2026-03-02T10:00Z"]
    context = _context(_frame([("a", t, 1.0) for t in at] + [("b", at[-1], 1.0)]))
    assert context.recent.tolist() == [0, 0, 0, 1, 4]


def test_the_last_week_starts_where_it_should():
    at = ["2026-03-02T09:59Z", "2026-03-02T10:00Z", "2026-03-05T09:00Z", "2026-03-09T10:00Z", "2026-05-01T00:00Z"]
    context = _context(_frame([("a", t, 1.0) for t in at] + [("b", at[-1], 1.0)]))
    assert context.week.tolist() == [0, 0, 0, 1, 4, 5]


def test_whole_sensors_keep_their_history():
    whole = _context(_irregular(3, sensors=4))
    names = whole.rows.sensor.values()
    chosen = np.flatnonzero((names == "s1") | (names == "s3"))
    part = whole_sensors(whole, chosen)
    np.testing.assert_array_equal(_table(part), _table(whole)[chosen])
    for name in ("recent", "week"):
        start, before = getattr(part, name) - part.first, getattr(whole, name) - whole.first
        np.testing.assert_array_equal(start, before[chosen])


def test_sensors_by_name_do_not_depend_on_the_order_of_rows():
    frame = _irregular(4, sensors=5)
    for rows in (frame, frame.iloc[::-1]):
        named = parse_readings(rows).by_name()
        assert named.sensor.names.tolist() == sorted(named.sensor.names)
        assert named.sensor.values().tolist() == rows["sensor_id"].tolist()
