"""Load training with and without the readings that a detector flags, under faults injected into the training readings.

    python benchmarks/cleaning.py --data FOLDER

The readings before the last weeks train, with faults of every kind injected into a share of them; the last weeks are
forecast 24 h ahead from each midnight, on the readings as they are. The detector is fitted on the same faulty readings
with its defaults, as `clean_with` would find it in the registry, and never sees which are faulty. Both tests see what
`-P clean_with=…` does: flagged readings are left out before hours are made. See `smartgrid_pyfunc.training.cleaning`.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from smartgrid_pyfunc.evaluation.backtest import backtest, midnight_origins
from smartgrid_pyfunc.evaluation.injection import inject_faults
from smartgrid_pyfunc.features.panel import build_panel, parse_hourly
from smartgrid_pyfunc.models.anomaly_detection import AnomalyDetectionModel
from smartgrid_pyfunc.models.load_forecasting import LoadForecastingModel
from smartgrid_pyfunc.simulation import simulate
from smartgrid_pyfunc.sources import load_hourly
from smartgrid_pyfunc.training.cleaning import flags

_COLUMNS = ["sensor_id", "sensor_type", "timestamp", "value", "latitude", "longitude"]
_WEEK = pd.Timedelta(days=7)
_SIMULATION = {"sensors": 12, "days": 210, "seed": 21, "step_minutes": 30, "faults": False}


@dataclass(frozen=True)
class Set:
    """A set: its file (empty: simulated), which sensors, how many weeks train, the sensors' clock."""

    title: str
    file: str
    sensor_type: str
    train_weeks: int
    timezone: str = "UTC"


_SETS = (
    Set("Victoria demand", "vic_electricity_readings_30min", "power", 52, "Australia/Melbourne"),
    Set("London, 8 households", "london_smartmeters_readings_30min_sample8", "energy", 45, "Europe/London"),
    Set("simulated grid", "", "power", 26),
)


def main() -> None:
    """Run every set at every rate and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("SMARTGRID_DATA", ""), help="folder of the public data sets")
    parser.add_argument("--rates", nargs="+", type=float, default=[0.02, 0.05], help="shares of faulty readings")
    parser.add_argument("--test-weeks", type=int, default=4, help="weeks that are forecast")
    parser.add_argument("--trees", type=int, default=60, help="of the load model")
    parser.add_argument("--max-rows", type=int, default=60_000, help="pairs of origin and hour that a fit sees")
    arguments = parser.parse_args()
    rates = " | ".join(f"{rate:.0%} faulty: as it is | cleaned | flagged, of them faulty" for rate in arguments.rates)
    print(f"| data | without faults | without faults, cleaned | {rates} |")
    print("|---|---:|---:|" + "---:|---:|---:|" * len(arguments.rates), flush=True)
    for each in _SETS:
        if each.file and not Path(arguments.data or "absent").is_dir():
            print(f"{each.title} left out: --data must name the folder of the data sets", file=sys.stderr)
            continue
        readings = _readings(each, Path(arguments.data))
        options = {"n_estimators": arguments.trees, "max_rows": arguments.max_rows}
        print(_row(each, readings, arguments.rates, arguments.test_weeks, options), flush=True)


def _readings(each: Set, data: Path) -> pd.DataFrame:
    if each.file:
        frame = pd.read_parquet(data / f"{each.file}.parquet")
    else:
        with tempfile.TemporaryDirectory() as folder:
            simulate(Path(folder) / "grid", **_SIMULATION)
            frame = pd.read_parquet(Path(folder) / "grid" / "readings").astype({"sensor_id": str, "sensor_type": str})
    frame = frame[frame["sensor_type"] == each.sensor_type].dropna(subset="value")
    return frame.sort_values(["sensor_id", "timestamp"], ignore_index=True)[_COLUMNS]


def _row(each: Set, readings: pd.DataFrame, rates: list[float], test_weeks: int, options: dict[str, int]) -> str:
    start = readings["timestamp"].max() - test_weeks * _WEEK
    train = readings[(readings["timestamp"] < start) & (readings["timestamp"] >= start - each.train_weeks * _WEEK)]
    train = train.reset_index(drop=True)
    judge = _Judge(each, readings, start, options)
    flagged = _flags(each, train)
    cells = [f"{judge.error(train):.4g}", f"{judge.error(train[~flagged]):.4g}"]
    for rate in rates:
        faulty = inject_faults(train, rate=rate, seed=1)
        flagged = _flags(each, faulty)
        truth = faulty["is_anomaly"].to_numpy(dtype=bool)
        cells += [f"{judge.error(faulty):.4g}", f"{judge.error(faulty[~flagged]):.4g}"]
        cells.append(f"{flagged.mean():.1%}, {truth[flagged].mean() if flagged.any() else 0.0:.0%}")
    return f"| {each.title} | " + " | ".join(cells) + " |"


class _Detector:
    """A fitted detector as MLflow loads it: its `predict` takes readings alone."""

    def __init__(self, model: AnomalyDetectionModel) -> None:
        self._model = model

    def predict(self, data: pd.DataFrame) -> pd.DataFrame:
        return self._model.predict(None, data)


def _flags(each: Set, readings: pd.DataFrame) -> np.ndarray:
    return flags(_Detector(AnomalyDetectionModel(timezone=each.timezone).fit(readings[_COLUMNS])), readings)


class _Judge:
    """Mean absolute error, over sensors, of a load model on the weeks after `start`; their history is as it is."""

    def __init__(self, each: Set, readings: pd.DataFrame, start: pd.Timestamp, options: dict[str, int]) -> None:
        self._each, self._options = each, options
        self._panel = build_panel(parse_hourly(_hourly(readings, each.sensor_type)))
        hour = np.int64(start.ceil("h").timestamp() // 3600)
        first = self._panel.first_cell + hour - self._panel.first_hour
        last = np.append(self._panel.first_cell[1:], len(self._panel.load)) - 1
        self._origins = midnight_origins(self._panel, first, last, each.timezone)

    def error(self, train: pd.DataFrame) -> float:
        """Fit on readings and return the error [unit of the readings]."""
        hourly = _hourly(train[_COLUMNS], self._each.sensor_type)
        model = LoadForecastingModel(timezone=self._each.timezone, **self._options).fit(hourly)
        found = backtest(model, self._panel, self._origins, 24)
        off = (found["predicted"] - found["actual"]).abs()
        return float(off.groupby(found["sensor_id"]).mean().mean())


def _hourly(readings: pd.DataFrame, sensor_type: str) -> pd.DataFrame:
    """Make hours as training does."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "readings.parquet"
        readings.to_parquet(path)
        return load_hourly(str(path), sensor_type=sensor_type).frame


if __name__ == "__main__":
    main()
