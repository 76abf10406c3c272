"""What an anomaly run leaves behind: flagged readings beside their neighbours, and events."""

from __future__ import annotations

from pathlib import Path

import mlflow
import pandas as pd
import pytest

from smartgrid_pyfunc.simulation import simulate
from smartgrid_pyfunc.training.anomaly_detection import train_anomaly_model

pytestmark = pytest.mark.integration


def test_flagged_readings_are_told_with_their_neighbours_and_grouped_to_events(tmp_path: Path, tracking: str) -> None:
    simulate(tmp_path / "grid", sensors=16, days=60, step_minutes=60, seed=5, fault_rate=0.03)
    outcome = train_anomaly_model(str(tmp_path / "grid" / "readings"), n_estimators=20, register=False)
    folder = Path(mlflow.artifacts.download_artifacts(run_id=outcome.run_id)) / "tables"
    flagged, events = (pd.read_csv(folder / f"flagged_{name}.csv") for name in ("readings", "events"))
    assert len(flagged) == outcome.metrics["n_anomalies"]
    assert events["readings"].sum() == len(flagged)
    assert flagged["labelled"].mean() == pytest.approx(outcome.metrics["test_precision"])
    assert set(events["kind"]) & {"stuck", "jump", "scale", "value"}
    assert {"sensor", "region"} >= set(flagged["scope"].dropna())
    power = flagged[flagged["sensor_id"].str.startswith("feeder") & flagged["expected_value"].notna()]
    assert power["neighbour_deviation"].notna().any()
