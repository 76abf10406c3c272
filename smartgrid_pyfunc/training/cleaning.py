"""Readings without those that the Production detector flags, as training data of the load model."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import mlflow
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smartgrid_pyfunc.schema import InputError
from smartgrid_pyfunc.sources import load_readings

_ROWS_AT_ONCE = 500_000
_ASKED = ["sensor_id", "sensor_type", "timestamp", "value", "latitude", "longitude"]


class Detector(Protocol):
    """What a loaded anomaly model offers."""

    def predict(self, data: Any) -> Any:
        """Answer row for row, with the column ``is_anomaly``."""


@contextmanager
def cleaned(
    data: str, clean_with: str | None, sensor_type: str, on_progress: Callable[[str], Any]
) -> Iterator[tuple[str, dict[str, float]]]:
    """Give data for training, without the readings that a detector flags; they are gone when the block ends.

    Hours are made from the readings that are left: an hour without any is a gap, as when it was never measured.

    Parameters
    ----------
    data : str
        See `smartgrid_pyfunc.sources`; readings, if a detector is named.
    clean_with : str, optional
        URI of an anomaly model, such as ``models:/AnomalyDetectionModel/Production``. Without it the data stay.
    sensor_type : str
        Types of readings that are kept, separated by commas.
    on_progress : callable
        Called with one sentence at each step.

    Yields
    ------
    data : str
        What to train on.
    metrics : dict
        ``cleaned_share`` of the readings of these types; empty without a detector.

    Raises
    ------
    InputError
        For a model that cannot be loaded or is no detector, and for hourly load: the detector judges readings.
    """
    if not clean_with:
        yield data, {}
        return
    readings, detector = load_readings(data, on_progress=on_progress).frame, _load(clean_with)
    wanted = [name.strip() for name in sensor_type.split(",")]
    readings = readings[readings["sensor_type"].isin(wanted)].reset_index(drop=True)
    flagged = flags(detector, readings)
    on_progress(f"leaving out {int(flagged.sum()):,} of {len(readings):,} readings that {clean_with} flags")
    with tempfile.TemporaryDirectory(prefix="smartgrid-cleaned-") as folder:
        path = Path(folder) / "readings.parquet"
        readings.loc[~flagged, _ASKED].to_parquet(path)
        yield str(path), {"cleaned_share": float(flagged.mean()) if len(flagged) else 0.0}


def flags(detector: Detector, readings: pd.DataFrame) -> NDArray[np.bool_]:
    """Return which readings the detector flags, shape (n,); it is asked for whole sensors, some at a time.

    Parameters
    ----------
    detector : Detector
    readings : DataFrame
        n rows sorted by ``sensor_id``, with the columns of readings.
    """
    flagged = np.zeros(len(readings), dtype=bool)
    starts = np.flatnonzero(readings["sensor_id"].ne(readings["sensor_id"].shift()).to_numpy())
    begin = 0
    for stop in (*starts[1:], len(readings)):
        if stop - begin >= _ROWS_AT_ONCE or stop == len(readings):
            if stop > begin:
                flagged[begin:stop] = detector.predict(readings[_ASKED].iloc[begin:stop])["is_anomaly"].astype(bool)
            begin = stop
    return flagged


def _load(uri: str) -> Detector:
    try:
        model: Detector = mlflow.pyfunc.load_model(uri)
        outputs = mlflow.models.get_model_info(uri).signature.outputs.input_names()
    except Exception as error:  # of the registry, the store or the package: all mean the same to the user
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            "clean_with must be the URI of a model that can be loaded",
            found=uri,
            remedy=f"train and promote an anomaly model first ({reason})",
        ) from None
    if "is_anomaly" not in outputs:
        raise InputError("clean_with must name an anomaly model", found=uri, remedy="its answers have is_anomaly")
    return model
