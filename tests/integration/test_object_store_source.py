"""Training data from a real S3 store and signed requests: as from a folder; refusals in a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import boto3
import pandas as pd
import pytest

from smartgrid_pyfunc.schema import InputError
from smartgrid_pyfunc.simulation import simulate
from smartgrid_pyfunc.sources import load_hourly, load_readings
from tests.parts import object_store

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def access() -> Iterator[dict[str, str]]:
    with object_store(BUCKETS="meters") as variables:
        yield variables


@pytest.fixture(scope="module")
def grid(access: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated grid, partitioned by day, in a folder and in the bucket ``meters``."""
    folder = tmp_path_factory.mktemp("grid")
    simulate(folder / "grid", sensors=6, days=3, seed=3)
    rows = pd.concat([pd.read_parquet(path) for path in (folder / "grid" / "readings").glob("*.parquet")])
    client = boto3.client(
        "s3",
        endpoint_url=access["MLFLOW_S3_ENDPOINT_URL"],
        aws_access_key_id=access["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=access["AWS_SECRET_ACCESS_KEY"],
        region_name="us-east-1",
    )
    for day, part in rows.groupby(rows["timestamp"].dt.strftime("%Y-%m-%d")):
        path = folder / "days" / f"day={day}" / "part.parquet"
        path.parent.mkdir(parents=True)
        part.to_parquet(path)
        client.upload_file(str(path), "meters", f"grid/{path.relative_to(folder / 'days')}")
    client.put_object(Bucket="meters", Key="grid/notes.txt", Body=b"not data")
    client.put_object(
        Bucket="meters", Key="broken/x.csv", Body=b"sensor_id,sensor_type,timestamp,value\na,power,now,1\n"
    )
    return folder / "days"


@pytest.fixture(autouse=True)
def _environment(access: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in access.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("address", ["s3://meters/grid", "s3://meters/grid/*/*.parquet", "s3://meters/grid/**"])
def test_objects_give_what_files_give(grid, address):
    ours, theirs = load_readings(address), load_readings(str(grid))
    pd.testing.assert_frame_equal(ours.frame, theirs.frame, check_exact=True)
    assert ours.report.digest == theirs.report.digest
    assert ours.report.files[0] == "s3://meters/grid/day=2025-01-06/part.parquet"


def test_a_pattern_selects_objects_and_one_object_is_one_file(grid):
    first = load_hourly("s3://meters/grid/day=2025-01-06/part.parquet").frame
    assert first["timestamp"].max() == pd.Timestamp("2025-01-06T23:00Z")
    later = load_hourly("s3://meters/grid/day=2025-01-0[78]/*.parquet").frame
    assert later["timestamp"].min() == pd.Timestamp("2025-01-07T00:00Z")


def test_a_bad_cell_is_told_with_its_object(grid):
    assert "(s3://meters/broken/x.csv, column timestamp, row 1)" in str(_refusal("s3://meters/broken/*.csv"))


@pytest.mark.parametrize("address", ["s3://meters/*.parquet", "s3://meters/nothing", "s3://meters/grid/notes.txt"])
def test_no_object_is_refused(grid, address):
    assert "at least one CSV or Parquet object" in str(_refusal(address))


def test_no_bucket_is_refused(grid):
    assert "must name a bucket" in str(_refusal("s3:///x.parquet"))
    assert "the object store must answer" in str(_refusal("s3://absent/x.parquet"))


def test_a_wrong_secret_and_a_silent_store_are_told_without_the_secret(grid, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "guessed")
    wrong = str(_refusal("s3://meters/grid"))
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    for text in (wrong, str(_refusal("s3://meters/grid"))):
        assert "the object store must answer" in text and "MLFLOW_S3_ENDPOINT_URL" in text
        assert "guessed" not in text


def test_access_without_any_key_is_told(grid, monkeypatch, tmp_path):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert "set AWS_ACCESS_KEY_ID" in str(_refusal("s3://meters/grid"))


def _refusal(data: str) -> InputError:
    with pytest.raises(InputError) as caught:
        load_hourly(data)
    return caught.value
