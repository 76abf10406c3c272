"""Retraining, on schedule or when the monitor found drift: train, compare, gate, Staging, canary period, Production.

A verdict that speaks against the new version leads to `stop`: the version in Production stays, a person is told, and
the run ends as a success, for nothing has failed.
"""

from __future__ import annotations

import datetime as dt
import sys
from pathlib import Path
from typing import Any

from airflow.providers.standard.sensors.date_time import DateTimeSensor
from airflow.sdk import DAG, AssetOrTimeSchedule, CronTriggerTimetable, TriggerRule, task

# Whoever reads the file without Airflow's processor does not have its folder on the path.
if (_folder := str(Path(__file__).resolve().parent)) not in sys.path:
    sys.path.insert(0, _folder)

from smartgrid_chain import ANOMALY, DRIFT, LOAD, RETRAIN, alert_stop, dag_settings, setting, step

SCHEDULES = {
    LOAD: setting("SMARTGRID_RETRAIN_LOAD", "0 3 * * 0"),
    ANOMALY: setting("SMARTGRID_RETRAIN_ANOMALY", "0 3 1 * *"),
}
#: Verdicts of a comparison after which the gate is asked at all.
GOOD_ENOUGH = tuple(setting("SMARTGRID_ACCEPT", "better,not_worse,first,left_out").split(","))
PROMOTED = ("promoted", "forced")
CANARY = dt.timedelta(hours=float(setting("SMARTGRID_CANARY_HOURS", "72")))
POKE_SECONDS = min(600.0, max(1.0, CANARY.total_seconds() / 10))

_VERSION = "{{ ti.xcom_pull(task_ids='train')['version'] }}"
_UNTIL = "{{ ti.xcom_pull(task_ids='to_staging')['until'] }}"


def _branch(name: str, after: Any, good: tuple[str, ...], then: str) -> Any:
    """Return a task that goes on with the task `then` if the verdict of `after` is among `good`, else with `stop`."""

    @task.branch(task_id=name, retries=0)
    def choose(result: dict[str, str]) -> str:
        return then if result["verdict"] in good else "stop"

    return choose(after.output)


def _retraining(model: str) -> None:
    train = step("train", model)
    compare = step("compare", model, version=_VERSION)
    to_staging = step("to_staging", model, version=_VERSION)
    # Rescheduled, it holds no worker while it waits, and needs no triggerer.
    canary = DateTimeSensor(
        task_id="canary",
        target_time=_UNTIL,
        mode="reschedule",
        poke_interval=POKE_SECONDS,
        timeout=(CANARY + dt.timedelta(days=1)).total_seconds(),
        execution_timeout=None,
    )
    to_production = step("to_production", model, version=_VERSION)

    @task(task_id="done", retries=0)
    def done(result: dict[str, str]) -> str:
        return f"{model} version {result['version']} is in Production"

    @task(task_id="stop", retries=0, trigger_rule=TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS)
    def stop(*, ti: Any = None) -> None:
        """Tell who said no."""
        results = [ti.xcom_pull(task_ids=name) for name in ("to_production", "to_staging", "compare")]
        alert_stop(f"{ti.dag_id}, run {ti.run_id}", next(entry for entry in results if entry))

    stopped = stop()
    withdraw = step("withdraw", model, version=_VERSION)
    worth = _branch("is_good_enough", compare, GOOD_ENOUGH, "to_staging")
    staged = _branch("is_in_staging", to_staging, PROMOTED, "canary")
    decided = _branch("is_in_production", to_production, PROMOTED, "done")
    (
        train
        >> compare
        >> worth
        >> to_staging
        >> staged
        >> canary
        >> to_production
        >> decided
        >> done(to_production.output)
    )
    [worth, staged, decided] >> stopped >> withdraw


for _model, _name in RETRAIN.items():
    _schedule = AssetOrTimeSchedule(
        timetable=CronTriggerTimetable(SCHEDULES[_model], timezone="UTC"), assets=[DRIFT[_model]]
    )
    with DAG(_name, description=__doc__, **dag_settings(_schedule)) as _dag:
        _retraining(_model)
    globals()[_name] = _dag
