"""Tables of predictions in Parquet files: every key once, whole files only, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from smartgrid_pyfunc import predictions
from smartgrid_pyfunc.predictions.columns import FLAGS, FORECASTS, keys_of
from smartgrid_pyfunc.predictions.table import open_store
from smartgrid_pyfunc.schema import InputError

_MIDNIGHT = pd.Timestamp("2026-03-01T00:00Z")


def forecasts(sensors: tuple[str, ...] = ("a", "Zähler ß"), hours: int = 30, **columns: object) -> pd.DataFrame:
    """Return forecasts of `sensors` from one midnight; some without a value, with a reason that has a line break."""
    n = len(sensors) * hours
    frame = pd.DataFrame(
        {
            "sensor_id": np.repeat(np.array(sensors, dtype=object), hours),
            "horizon": np.tile(np.arange(1, hours + 1), len(sensors)),
            "predicted_load": np.random.default_rng(0).normal(5, 1, n),
        }
    )
    frame["timestamp"] = _MIDNIGHT + pd.to_timedelta(frame["horizon"] - 1, unit="h")
    frame["lower"], frame["upper"] = frame["predicted_load"] - 1, frame["predicted_load"] + 1
    frame = frame.assign(model="LoadForecastingModel", version="3", variant="", made_at=_MIDNIGHT, level=0.9)
    frame = frame.assign(origin=_MIDNIGHT - pd.Timedelta("1h"), method="random_forest", reason=None)
    frame.loc[3, ["predicted_load", "lower", "upper"]] = np.nan
    frame.loc[3, ["method", "reason"]] = None, 'no "load",\nno value'
    return frame.assign(**columns)[list(FORECASTS.columns)]


def flags(**columns: object) -> pd.DataFrame:
    """Return four judged readings of one sensor, one of them without a value."""
    frame = pd.DataFrame({"timestamp": _MIDNIGHT + pd.to_timedelta(np.arange(4) * 6 * 60 + 30, unit="min")})
    frame = frame.assign(value=[1.0, np.nan, 3.0, 0.0], is_anomaly=[False, True, True, False], reason=None)
    frame = frame.assign(anomaly_score=[1.0, np.nan, 9.0, 2.0], p_value=[0.5, np.nan, 0.001, 0.3])
    frame = frame.assign(expected_value=1.0, lower=0.0, upper=2.0, profile="sensor", made_at=_MIDNIGHT, variant="")
    frame = frame.assign(model="AnomalyDetectionModel", version="1", sensor_id="a", sensor_type="power")
    return frame.assign(**columns)[list(FLAGS.columns)]


def same(found: pd.DataFrame, expected: pd.DataFrame, key: tuple[str, ...] = FORECASTS.key) -> None:
    """Hold every cell of two tables against each other, whatever the order of the rows and the types of missing."""
    expected = expected.sort_values(list(key)).reset_index(drop=True)
    assert found.columns.tolist() == expected.columns.tolist()
    for name in found.columns:
        ours, theirs = found[name].astype(object), expected[name].astype(object)
        pd.testing.assert_series_equal(ours.where(ours.notna(), None), theirs.where(theirs.notna(), None))


def files(place: Path) -> list[Path]:
    return sorted(place.rglob("*.parquet"))


def test_what_is_written_is_read_to_the_last_bit(tmp_path):
    forecast, flagged = forecasts(), flags()
    assert predictions.write_forecasts(str(tmp_path), forecast) == len(forecast)
    assert predictions.write_flags(str(tmp_path), flagged) == len(flagged)
    same(predictions.read_forecasts(str(tmp_path)), forecast)
    same(predictions.read_flags(str(tmp_path)), flagged, FLAGS.key)


def test_days_are_those_of_the_target_hour_in_utc(tmp_path):
    predictions.write_forecasts(str(tmp_path), forecasts())
    predictions.write_flags(str(tmp_path), flags())
    assert [path.name for path in sorted((tmp_path / "load").iterdir())] == ["day=2026-03-01", "day=2026-03-02"]
    assert [path.name for path in (tmp_path / "anomaly").iterdir()] == ["day=2026-03-01"]
    (late,) = files(tmp_path / "load" / "day=2026-03-02")
    assert pd.to_datetime(pq.ParquetFile(late).read().column("timestamp").to_pandas()).min() == pd.Timestamp(
        "2026-03-02T00:00Z"
    )


def test_times_may_be_text_or_carry_another_zone(tmp_path):
    local = forecasts()
    local["timestamp"] = local["timestamp"].dt.tz_convert("Australia/Melbourne")
    local["origin"] = "2026-03-01T10:00:00+11:00"
    predictions.write_forecasts(str(tmp_path), local)
    same(predictions.read_forecasts(str(tmp_path)), forecasts())


def test_writing_again_touches_no_file(tmp_path):
    predictions.write_forecasts(str(tmp_path), forecasts())
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files(tmp_path)}
    later = forecasts(made_at=_MIDNIGHT + pd.Timedelta("1D")).sample(frac=1, random_state=1)
    assert predictions.write_forecasts(str(tmp_path), later) == 0
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files(tmp_path)} == before


def test_other_sensors_of_the_same_origin_replace_nothing(tmp_path):
    """A batch of the north and one of the south go to one place."""
    north, south = forecasts(("a", "b")), forecasts(("b", "c"))
    south["predicted_load"] += 100
    predictions.write_forecasts(str(tmp_path), north)
    predictions.write_forecasts(str(tmp_path), south.assign(made_at=_MIDNIGHT + pd.Timedelta("1h")))
    found = predictions.read_forecasts(str(tmp_path))
    assert not found.duplicated(list(FORECASTS.key)).any()
    assert found["sensor_id"].value_counts().to_dict() == {"a": 30, "b": 30, "c": 30}
    same(found[found["sensor_id"] == "b"].reset_index(drop=True), north[north["sensor_id"] == "b"])


def test_of_two_rows_with_one_key_the_earlier_stays_whichever_was_written_first(tmp_path):
    early, late = forecasts(("a",)), forecasts(("a", "b"), made_at=_MIDNIGHT + pd.Timedelta("1h"))
    predictions.write_forecasts(str(tmp_path), late)
    predictions.write_forecasts(str(tmp_path), early)
    found = predictions.read_forecasts(str(tmp_path))
    assert (found.groupby("sensor_id")["made_at"].first() == [_MIDNIGHT, _MIDNIGHT + pd.Timedelta("1h")]).all()
    twice = pd.concat([late, early])
    predictions.write_forecasts(str(tmp_path / "other"), twice)
    same(found, predictions.read_forecasts(str(tmp_path / "other")))


def test_versions_and_origins_stand_side_by_side(tmp_path):
    parts = [forecasts(version=number) for number in ("9", "10")]
    parts.append(forecasts(origin=_MIDNIGHT - pd.Timedelta("2h")))
    for part in parts:
        predictions.write_forecasts(str(tmp_path), part)
    same(predictions.read_forecasts(str(tmp_path)), pd.concat(parts))


def test_what_is_asked_for_is_a_filter_of_everything(tmp_path):
    parts = [forecasts(version="9"), forecasts(version="10"), forecasts(model="Other")]
    for part in parts:
        predictions.write_forecasts(str(tmp_path), part)
    every = predictions.read_forecasts(str(tmp_path))
    since, until = pd.Timestamp("2026-03-01T22:00Z"), pd.Timestamp("2026-03-02T03:00Z")
    wanted = every[(every["timestamp"] >= since) & (every["timestamp"] < until)]
    same(predictions.read_forecasts(str(tmp_path), since="2026-03-01T23:00+01:00", until=until), wanted)
    same(predictions.read_forecasts(str(tmp_path), version="10"), every[every["version"] == "10"])
    same(predictions.read_forecasts(str(tmp_path), model="Other"), every[every["model"] == "Other"])
    day = every[every["timestamp"] >= pd.Timestamp("2026-03-02", tz="UTC")]
    same(predictions.read_forecasts(str(tmp_path), since="2026-03-02"), day)


def test_unfinished_and_foreign_files_are_not_read(tmp_path):
    predictions.write_forecasts(str(tmp_path), forecasts())
    whole = files(tmp_path)[0]
    whole.with_suffix(".1234.unfinished").write_bytes(whole.read_bytes()[:1000])
    (whole.parent / "README.md").write_text("notes")
    (tmp_path / "load" / "day=none").mkdir()
    (tmp_path / "load" / "day=none" / "x.parquet").write_bytes(b"")
    same(predictions.read_forecasts(str(tmp_path)), forecasts())


def test_a_damaged_file_is_named(tmp_path):
    predictions.write_forecasts(str(tmp_path), forecasts())
    path = files(tmp_path)[0]
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=rf"must be whole .*{path.name}.*run the batch of that day again"):
        predictions.read_forecasts(str(tmp_path))


def test_only_forsaken_leftovers_are_removed(tmp_path):
    import os

    predictions.write_forecasts(str(tmp_path), forecasts())
    day = files(tmp_path)[0].parent
    old, young = day / "x.1.unfinished", day / "x.2.unfinished"
    for path in (old, young):
        path.write_bytes(b"")
    os.utime(old, (0, 0))
    predictions.write_forecasts(str(tmp_path), forecasts(version="4"))
    assert not old.exists()
    assert young.exists()


def test_writers_at_once_leave_whole_files_with_each_key_once(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    def work(seed: int) -> int:
        predictions.write_forecasts(str(tmp_path), forecasts(made_at=_MIDNIGHT + pd.Timedelta(hours=seed)))
        return len(predictions.read_forecasts(str(tmp_path)))  # while others write

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(work, range(12))) == [60] * 12
    found = predictions.read_forecasts(str(tmp_path))
    same(found.assign(made_at=_MIDNIGHT), forecasts())
    assert not list(tmp_path.rglob("*.unfinished"))


def test_a_store_knows_which_keys_it_holds(tmp_path):
    store, frame = open_store(str(tmp_path), FORECASTS), forecasts()
    store.prepare()
    keys = keys_of(FORECASTS, frame.sample(frac=1, random_state=2)[list(FORECASTS.key)])
    assert not store.holds(keys)
    predictions.write_forecasts(str(tmp_path), frame)
    assert store.holds(keys)
    assert not store.holds(keys_of(FORECASTS, frame[list(FORECASTS.key)].assign(version="4")))
    files(tmp_path)[1].unlink()  # the second day of two
    assert not store.holds(keys)


def test_an_empty_table_has_the_columns_and_their_types(tmp_path):
    (tmp_path / "load").mkdir()
    for found, kind in (
        (predictions.read_forecasts(str(tmp_path)), FORECASTS),
        (predictions.read_flags(str(tmp_path)), FLAGS),
    ):
        assert found.columns.tolist() == list(kind.columns)
        assert found.empty
        assert str(found["timestamp"].dtype) == "datetime64[us, UTC]"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"drop": "horizon"}, "column horizon is required"),
        ({"sensor_id": None}, "sensor_id must not be empty"),
        ({"timestamp": pd.NaT}, "timestamp must not be empty"),
        ({"timestamp": 3.5}, "timestamp must be ISO 8601"),
        ({"predicted_load": "much"}, "predicted_load must be a number"),
        ({"predicted_load": np.inf}, "predicted_load must be finite"),
        ({"version": 3}, "version must hold values of one type"),
        ({"horizon": 1.5}, "horizon must hold values of one type"),
    ],
)
def test_bad_rows_are_refused_and_nothing_is_written(tmp_path, change, said):
    frame = forecasts()
    frame = frame.drop(columns=change["drop"]) if "drop" in change else frame.assign(**change)
    with pytest.raises(InputError, match=said):
        predictions.write_forecasts(str(tmp_path), frame)
    assert not files(tmp_path)


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("s3://key:secret@bucket/folder", "must be a folder or a PostgreSQL address"),
        (" ", "must be a folder or a PostgreSQL address"),
        ("postgresql://me:secret@host/db?since=2026-01-01", "the address of predictions has no since"),
        ("postgresql://me:secret@host/db?table=a&table=b", "must be given once"),
    ],
)
def test_places_that_are_none_are_refused_without_their_password(place, said):
    with pytest.raises(InputError, match=said) as refusal:
        predictions.read_forecasts(place)
    assert "secret" not in str(refusal.value)


def test_a_folder_that_is_not_there_or_not_writable_is_refused(tmp_path):
    with pytest.raises(InputError, match="must be a folder that is there"):
        predictions.read_forecasts(str(tmp_path / "nowhere"))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="must be a folder that can be written"):
        predictions.write_forecasts(str(tmp_path / "file"), forecasts())


def test_a_table_is_the_one_named_else_that_of_the_kind():
    for kind, table in ((FORECASTS, "load_predictions"), (FLAGS, "anomaly_predictions")):
        assert open_store("postgresql://me@host/db", kind).address.table == (table,)
        assert open_store("postgresql://me@host/db?sslmode=require", kind).address.table == (table,)
        assert open_store("postgresql://me@host/db?table=grid.mine", kind).address.table == ("grid", "mine")
    assert "sslmode=require" in open_store("postgresql://me@host/db?sslmode=require", FLAGS).address.conninfo
