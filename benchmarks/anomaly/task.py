"""The labelled sets: which readings train and which are scored, the same for every method.

Each set is laid out once as a Parquet file, so that all processes read the same rows. Columns: those of readings,
``is_anomaly``, ``fault`` (kind, empty where unknown), ``event`` (number of the labelled event, -1 outside), ``part``
(``train`` or ``test``) and ``run`` (readings with the same one are fitted together).
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

READINGS = ["sensor_id", "sensor_type", "timestamp", "value", "latitude", "longitude"]
_REPOSITORY = Path(__file__).resolve().parents[2]
_TRAIN_RATE, _TEST_RATE = 0.01, 0.05  # share of readings under injected faults: as it may be, and enough to count
_SKAB_TRAIN = 400  # rows of each run: SKAB's own protocol
_SKAB_TYPES = {
    "Current": "current",
    "Voltage": "voltage",
    "Temperature": "temperature",
    "Thermocouple": "temperature",
    "Pressure": "pressure",
    "VolumeFlowRateRMS": "flow",
    "Accelerometer1RMS": "vibration",
    "Accelerometer2RMS": "vibration",
}
_SIMULATION = {"sensors": 48, "days": 180, "seed": 11, "step_minutes": 30, "fault_rate": 0.02}


@dataclass(frozen=True)
class Set:
    """A set: where it comes from, how it is split, what it is for."""

    title: str
    file: str  # of the data folder; empty: simulated
    read: Callable[[pd.DataFrame], pd.DataFrame]
    split: str = "half"  # half of each sensor; skab: 400 rows of each run; nab: the probationary period
    timezone: str = "UTC"
    inject: bool = False
    hour: str = "1h"  # what counts as an hour for injected faults


def _lead(frame: pd.DataFrame) -> pd.DataFrame:
    return frame


def _nab(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.sort_values(["sensor_id", "nab_order"], kind="stable")


def _nab_real(frame: pd.DataFrame) -> pd.DataFrame:
    return _nab(frame[~frame["sensor_id"].str.startswith("artificial")])


def _skab(frame: pd.DataFrame) -> pd.DataFrame:
    """Melt the runs with a fault into readings of a channel each."""
    return _melted(frame[~frame["sensor_id"].str.contains("anomaly-free")])


def _skab_pooled(frame: pd.DataFrame) -> pd.DataFrame:
    return _skab(frame).assign(run="")


def _skab_free(frame: pd.DataFrame) -> pd.DataFrame:
    return _melted(frame[frame["sensor_id"].str.contains("anomaly-free")])


def _melted(frame: pd.DataFrame) -> pd.DataFrame:
    kept = ["sensor_id", "timestamp", "is_anomaly"]
    long = frame.melt(id_vars=kept, value_vars=list(_SKAB_TYPES), var_name="channel", value_name="value")
    long = long.assign(run=long["sensor_id"], sensor_type=long["channel"].map(_SKAB_TYPES))
    return long.assign(
        sensor_id=long["sensor_id"] + "/" + long["channel"], latitude=np.nan, longitude=np.nan
    ).sort_values(["sensor_id", "timestamp"], kind="stable")


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.dropna(subset="value")


SETS = {
    "lead": Set("LEAD, 10 buildings", "lead_labelled_hourly_10buildings", _lead),
    "nab": Set("NAB, 47 real series", "nab_labelled", _nab_real),
    "simulator": Set("simulator, 48 sensors", "", _plain),
    "skab": Set("SKAB, 16 runs × 8 channels, a fit per run", "skab_wide_1s", _skab, "skab"),
    "skab_pooled": Set("SKAB, 16 runs × 8 channels, one fit", "skab_wide_1s", _skab_pooled, "skab"),
    "skab_free": Set("SKAB without faults, injected", "skab_wide_1s", _skab_free, inject=True, hour="6s"),
    "victoria": Set(
        "Victoria, injected",
        "vic_electricity_readings_30min",
        _plain,
        timezone="Australia/Melbourne",
        inject=True,
    ),
    "tetouan": Set("Tetouan, injected", "tetouan_readings_10min", _plain, inject=True),
    "london": Set(
        "London, 8 households, injected",
        "london_smartmeters_readings_30min_sample8",
        _plain,
        timezone="Europe/London",
        inject=True,
    ),
    "nab_own": Set("NAB, its own protocol, 58 series", "nab_labelled", _nab, "nab"),
}
QUICK_SETS = ["lead", "nab", "simulator", "skab", "london"]
_QUICK_SENSORS = {"lead": 3, "nab": 8, "skab": 24, "skab_pooled": 24, "nab_own": 8, "simulator": 16, "london": 3}


def lay_out(name: str, data: Path, folder: Path, first_half: bool, quick: bool) -> Path:
    """Return the Parquet file of a set, made if it is not there yet.

    Its name carries the recipe's fingerprint: changed code or parameters make another file. With `first_half` the
    second half of each sensor is cut off before anything else, and the first one is split in its place.
    """
    sources = [
        Path(__file__),
        *(_REPOSITORY / "smartgrid_pyfunc" / f for f in ("simulation.py", "evaluation/injection.py")),
    ]
    used = sources if SETS[name].inject or not SETS[name].file else sources[:1]
    key = hashlib.sha256(b"".join(path.read_bytes() for path in used)).hexdigest()[:10]
    mode = ("first-half" if first_half else "final") + ("-quick" if quick else "")
    target = folder / f"{name}-{mode}-{key}.parquet"
    if not target.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        frame = _built(name, data, first_half, quick)
        aside = target.with_suffix(".part")
        frame.to_parquet(aside, index=False)
        aside.rename(target)
    return target


def fingerprint(path: Path) -> str:
    """Return what stands for the readings of a laid-out set: scores are kept as long as these are the same."""
    kept = path.with_suffix(".readings")
    if not kept.is_file():
        frame = pd.read_parquet(path, columns=[*READINGS, "part", "run"])
        digest = hashlib.sha256(pd.util.hash_pandas_object(frame.astype({"timestamp": str})).to_numpy().tobytes())
        kept.write_text(digest.hexdigest()[:12], encoding="utf-8")
    return kept.read_text(encoding="utf-8")


def _built(name: str, data: Path, first_half: bool, quick: bool) -> pd.DataFrame:
    chosen = SETS[name]
    raw = pd.read_parquet(data / f"{chosen.file}.parquet") if chosen.file else _simulated()
    frame = chosen.read(raw).reset_index(drop=True)
    if quick and name in _QUICK_SENSORS:
        names = frame["sensor_id"].drop_duplicates()
        if name == "skab":  # whole runs
            names = names[names.str.contains("valve1-[012]/")]
        frame = frame[frame["sensor_id"].isin(names.iloc[: _QUICK_SENSORS[name]])].reset_index(drop=True)
    frame = frame.assign(run=frame.get("run", ""))
    train, kept = _parts(frame, chosen.split, first_half)
    frame = frame.assign(part=np.where(train, "train", "test"))[kept].reset_index(drop=True)
    return _injected(frame, chosen.hour) if chosen.inject else _labelled(frame)


def _simulated() -> pd.DataFrame:
    from smartgrid_pyfunc.simulation import simulate

    with tempfile.TemporaryDirectory() as folder:
        simulate(Path(folder) / "grid", **_SIMULATION)
        return pd.read_parquet(Path(folder) / "grid" / "readings")


def _parts(frame: pd.DataFrame, split: str, first_half: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return which rows train and which are looked at at all."""
    if split == "half":
        time = frame["timestamp"]
        middle = time.groupby(frame["sensor_id"]).transform("median")
        if not first_half:
            return (time < middle).to_numpy(), np.ones(len(frame), dtype=bool)
        early = time < middle
        quarter = time[early].groupby(frame["sensor_id"][early]).transform("median").reindex(frame.index)
        return (time < quarter).to_numpy(), early.to_numpy()
    place = frame.groupby("sensor_id").cumcount().to_numpy()
    length = frame.groupby("sensor_id")["value"].transform("size").to_numpy()
    kept = place < length // 2 if first_half else np.ones(len(frame), dtype=bool)
    if split == "skab":
        return place < (_SKAB_TRAIN // 2 if first_half else _SKAB_TRAIN), kept
    from smartgrid_pyfunc.evaluation.events import probation

    return place < probation(length), kept


def _injected(frame: pd.DataFrame, hour: str) -> pd.DataFrame:
    """Put faults into both parts by themselves, so that none reaches from one into the other."""
    from smartgrid_pyfunc.evaluation.injection import inject_faults

    span = pd.Timedelta(hour)
    test = frame["part"] == "test"
    parts = [
        inject_faults(frame[~test], rate=_TRAIN_RATE, seed=1, hour=span),
        inject_faults(frame[test], rate=_TEST_RATE, seed=2, hour=span),
    ]
    parts[1]["event"] += np.where(parts[1]["event"] >= 0, parts[0]["event"].max() + 1, 0)
    both = pd.concat(parts).sort_values(["sensor_id", "timestamp"], kind="stable", ignore_index=True)
    return both[[*READINGS, "is_anomaly", "fault", "event", "part", "run"]]


def _labelled(frame: pd.DataFrame) -> pd.DataFrame:
    """Number the labelled stretches of each sensor and kind; none reaches from training into what is scored."""
    fault = frame["fault"] if "fault" in frame else pd.Series("", index=frame.index)
    key = frame["sensor_id"] + "|" + frame["part"] + "|" + fault.astype(str)
    labelled = frame["is_anomaly"].to_numpy(dtype=bool)
    before = np.concatenate([[False], labelled[:-1] & (key.to_numpy()[1:] == key.to_numpy()[:-1])])
    event = np.where(labelled, np.cumsum(labelled & ~before) - 1, -1)
    return frame.assign(event=event, fault=fault)[[*READINGS, "is_anomaly", "fault", "event", "part", "run"]]
