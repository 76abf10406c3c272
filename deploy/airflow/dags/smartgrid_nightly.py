"""Every night: forecast and detect with the versions in Production, then look how good that was; drift is announced."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, CronTriggerTimetable, task
from airflow.sdk.exceptions import AirflowSkipException

# Whoever reads the file without Airflow's processor does not have its folder on the path.
if (_folder := str(Path(__file__).resolve().parent)) not in sys.path:
    sys.path.insert(0, _folder)

from smartgrid_chain import ANOMALY, DRIFT, LOAD, RETRAIN, SHORT, dag_settings, setting, step

SCHEDULE = CronTriggerTimetable(setting("SMARTGRID_NIGHTLY", "30 1 * * *"), timezone="UTC")


def _watch(model: str, after: list[Any]) -> None:
    """Monitor a model once the tasks `after` are done, and announce drift."""
    asset = DRIFT[model]
    monitor = step("monitor", model, task_id=f"monitor_{SHORT[model]}")

    @task(task_id=f"announce_drift_{SHORT[model]}", outlets=[asset], retries=0)
    def announce_drift(found: dict[str, str], *, outlet_events: Any = None, ti: Any = None) -> None:
        """Update the asset that starts a retraining, unless one is under way or waits to start."""
        if found["verdict"] != "drift":
            raise AirflowSkipException(f"the monitor says {found['verdict']}: no retraining is needed")
        if ti.get_dr_count(dag_id=RETRAIN[model], states=["queued", "running"]):
            raise AirflowSkipException("a retraining is under way already")
        outlet_events[asset].extra = {name: found[name] for name in ("run_id", "alerts") if name in found}

    after >> monitor
    announce_drift(monitor.output)


with DAG("smartgrid_nightly", description=__doc__, **dag_settings(SCHEDULE)):
    forecast, detect = step("batch_forecast", LOAD), step("batch_detect", ANOMALY)
    _watch(LOAD, [forecast, detect])
    _watch(ANOMALY, [detect])
