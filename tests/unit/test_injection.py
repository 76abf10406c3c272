"""Injected faults against the recipe they promise."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from smartgrid_pyfunc.evaluation.injection import GAP, inject_faults
from smartgrid_pyfunc.schema import InputError
from smartgrid_pyfunc.simulation import FAULT_KINDS, fault_kinds


def _readings(days: int = 120, **types: str) -> pd.DataFrame:
    """Half-hourly readings of a daily shape with noise, by default of one sensor of each of three types."""
    parts = []
    for sensor, sensor_type in (types or {"p": "power", "e": "energy", "t": "temperature"}).items():
        times = pd.date_range("2026-01-01", periods=48 * days, freq="30min", tz="UTC")
        rng = np.random.default_rng(len(parts))
        value = 100 + 30 * np.sin(np.arange(len(times)) * 2 * np.pi / 48) + rng.normal(0, 3, len(times))
        parts.append(
            pd.DataFrame({"sensor_id": sensor, "sensor_type": sensor_type, "timestamp": times, "value": value})
        )
    return pd.concat(parts, ignore_index=True)


def _joined(clean: pd.DataFrame, faulty: pd.DataFrame) -> pd.DataFrame:
    return clean.merge(faulty, on=["sensor_id", "timestamp"], how="left", suffixes=("_clean", ""), indicator=True)


def test_what_is_not_labelled_is_as_it_was():
    clean = _readings()
    both = _joined(clean, inject_faults(clean, rate=0.05, seed=3))
    normal = both[both["is_anomaly"] == False]  # noqa: E712  absent rows are missing
    assert (normal["value"] == normal["value_clean"]).all()
    assert (normal["fault"] == "").all()
    assert (normal["event"] == -1).all()


def test_what_is_labelled_differs_or_ends_an_outage():
    clean = _readings()
    both = _joined(clean, inject_faults(clean, rate=0.05, seed=3))
    labelled = both["is_anomaly"] == True  # noqa: E712
    after_gap = (both["_merge"] == "left_only").shift(fill_value=False)
    assert (both["value"] != both["value_clean"])[labelled & ~after_gap].all()
    ends = both[after_gap & (both["_merge"] == "both")]
    assert len(ends)
    assert set(ends["fault"]) == {GAP}
    assert ends["is_anomaly"].all()


def test_every_kind_that_a_type_can_have_occurs_and_no_other():
    faulty = inject_faults(_readings(days=900), rate=0.1, seed=1)
    for sensor_type, rows in faulty[faulty["is_anomaly"]].groupby("sensor_type"):
        assert set(rows["fault"]) == {*fault_kinds(str(sensor_type)), GAP}
    assert set(faulty["fault"]) == {"", GAP, *FAULT_KINDS}


def test_unknown_types_have_no_phases():
    faulty = inject_faults(_readings(days=300, h="humidity"), rate=0.1)
    assert set(faulty["fault"]) - {"", GAP} == set(fault_kinds("temperature"))


def test_events_are_apart_and_of_one_kind_and_sensor():
    faulty = inject_faults(_readings(), rate=0.1, seed=5)
    labelled = faulty[faulty["event"] >= 0]
    assert (labelled.groupby("event")[["sensor_id", "fault"]].nunique() == 1).all(axis=None)
    assert sorted(labelled["event"].unique()) == list(range(labelled["event"].max() + 1))
    event = faulty["event"].to_numpy()
    assert not np.any((event[1:] >= 0) & (event[:-1] >= 0) & (event[1:] != event[:-1]))


def test_the_rate_is_kept_on_average():
    clean = _readings(days=60)
    covered = []
    for seed in range(12):
        both = _joined(clean, inject_faults(clean, rate=0.05, seed=seed))
        covered.append(((both["_merge"] == "left_only") | (both["is_anomaly"] == True)).mean())  # noqa: E712
    assert np.mean(covered) == pytest.approx(0.05, rel=0.2)


def test_equal_seeds_give_equal_faults_whatever_the_other_sensors():
    clean = _readings()
    together = inject_faults(clean, seed=7)
    pd.testing.assert_frame_equal(together, inject_faults(clean.sample(frac=1, random_state=1), seed=7))
    alone = inject_faults(clean[clean["sensor_id"] == "t"], seed=7)
    other = together[together["sensor_id"] == "t"].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone.drop(columns="event"), other.drop(columns="event"))
    assert not together["value"].equals(inject_faults(clean, seed=8)["value"])


def test_a_shorter_hour_makes_shorter_faults():
    longest = {}
    for hour in ("1h", "15min"):
        faulty = inject_faults(_readings(days=200, p="power"), rate=0.1, hour=pd.Timedelta(hour))
        span = faulty[faulty["fault"] == "drift"].groupby("event")["timestamp"].agg(lambda t: t.max() - t.min())
        longest[hour] = span.max()
    assert longest["1h"] > pd.Timedelta("24h")
    assert longest["15min"] <= pd.Timedelta("72h") / 4


def test_the_input_stays_unchanged_and_no_rate_means_no_fault():
    clean = _readings(days=30)
    before = clean.copy()
    none = inject_faults(clean, rate=0.0)
    pd.testing.assert_frame_equal(clean, before)
    assert not none["is_anomaly"].any()
    assert len(none) == len(clean)


def test_sensors_without_a_value_with_one_value_or_one_reading():
    clean = _readings(days=30, v="voltage")
    empty = inject_faults(clean.assign(value=np.nan), rate=0.1)
    assert not empty["is_anomaly"].any()
    constant = inject_faults(_readings(days=200, v="voltage").assign(value=230.0), rate=0.1)
    assert set(constant["fault"]) >= {"spike", "drift"}
    assert "stuck" not in set(constant["fault"])
    assert len(inject_faults(clean.iloc[:1], rate=0.3)) == 1
    assert inject_faults(clean.iloc[:0]).empty


def test_a_rate_out_of_range_is_refused():
    with pytest.raises(InputError, match="rate"):
        inject_faults(_readings(days=2), rate=0.5)
