"""The benchmark's sets: what trains comes before what is scored, and the first-half mode never opens a second half."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

pytestmark = pytest.mark.integration

_FILES = {
    "lead": "lead_labelled_hourly_10buildings",
    "nab": "nab_labelled",
    "london": "london_smartmeters_readings_30min_sample8",
    "skab": "skab_wide_1s",
}


@pytest.fixture
def laid_out(
    repo: Path, real_data: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, bool], pd.DataFrame]:
    """A set as every method of the benchmark gets it."""
    monkeypatch.setattr(sys, "path", [str(repo / "benchmarks"), *sys.path])
    from anomaly.task import lay_out

    def make(name: str, first_half: bool) -> pd.DataFrame:
        folder = real_data(_FILES[name]).parent
        return pd.read_parquet(lay_out(name, folder, tmp_path, first_half=first_half, quick=False))

    return make


@pytest.mark.parametrize("first_half", [True, False])
@pytest.mark.parametrize("name", _FILES)
def test_every_sensor_trains_before_it_is_scored(laid_out, name: str, first_half: bool):
    frame = laid_out(name, first_half)
    span = frame.groupby(["sensor_id", "part"])["timestamp"].agg(["min", "max"]).unstack()
    assert set(frame["part"]) == {"train", "test"}
    assert not span.isna().any(axis=None)
    # NAB repeats an instant at a clock change.
    assert (span["max"]["train"] <= span["min"]["test"]).all()


@pytest.mark.parametrize("name", ["lead", "nab", "london"])
def test_the_first_half_mode_is_the_training_half_cut_in_two(laid_out, name: str):
    both, half = laid_out(name, False), laid_out(name, True)
    training = both[both["part"] == "train"]
    assert (half.groupby("sensor_id")["timestamp"].max() <= training.groupby("sensor_id")["timestamp"].max()).all()
    shares = half.groupby("sensor_id")["part"].agg(lambda part: (part == "train").mean())
    np.testing.assert_allclose(shares, 0.5, atol=0.02)


def test_every_labelled_reading_belongs_to_one_event_of_one_part(laid_out):
    for name in ("lead", "london"):
        frame = laid_out(name, False)
        np.testing.assert_array_equal(frame["event"] >= 0, frame["is_anomaly"])
        labelled = frame[frame["is_anomaly"]]
        assert (labelled.groupby("event")[["sensor_id", "part", "fault"]].nunique() == 1).all(axis=None)
