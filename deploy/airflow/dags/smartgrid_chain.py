"""What the DAGs share: one step of the project as a task, its verdict as a branch, and the alert when a task failed.

Nothing of the project is imported here: its environment is another one. A task calls `deploy/airflow/step.py` there,
which has the commands of all steps.
"""

from __future__ import annotations

import datetime as dt
import json
import os
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import Asset
from smartgrid_alert import alert

if TYPE_CHECKING:
    from airflow.sdk import Context

LOAD, ANOMALY = "LoadForecastingModel", "AnomalyDetectionModel"
#: Updated when the monitor of a model finds that it should be trained again.
DRIFT = {model: Asset(f"smartgrid-drift-{model}") for model in (LOAD, ANOMALY)}
RETRAIN = {LOAD: "smartgrid_retrain_load", ANOMALY: "smartgrid_retrain_anomaly"}
SHORT = {LOAD: "load", ANOMALY: "anomaly"}

_STEP = """\
exec "${SMARTGRID_PYTHON:?set it to the python of the environment of the project}" \
"${SMARTGRID_PROJECT:?set it to the checkout of the project}/deploy/airflow/step.py" """


def setting(name: str, default: str) -> str:
    """Return the environment variable `name`, `default` if it is not set or empty."""
    return os.environ.get(name, "").strip() or default


def dag_settings(schedule: Any, **more: Any) -> dict[str, Any]:
    """Return what the DAGs have in common: one run at a time, nothing made up for the past, retries, alerts."""
    return {
        "schedule": schedule,
        "start_date": dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
        "catchup": False,
        "max_active_runs": 1,
        "tags": ["smartgrid"],
        "default_args": {
            "retries": int(setting("SMARTGRID_RETRIES", "2")),
            "retry_delay": dt.timedelta(seconds=float(setting("SMARTGRID_RETRY_SECONDS", "300"))),
            "execution_timeout": dt.timedelta(hours=float(setting("SMARTGRID_STEP_HOURS", "6"))),
            "on_failure_callback": alert_failure,
        },
        **more,
    }


def step(name: str, model: str, task_id: str = "", version: str = "", **settings: Any) -> BashOperator:
    """Return the task that runs the step `name`; its result (a dict with `verdict`) is the task's XCom.

    Parameters
    ----------
    name : str
        Step of `deploy/airflow/step.py`.
    model : str
        Registered name of the model.
    task_id : str
        Default: `name`.
    version : str
        Template of the version that the step is about.
    **settings
        Further settings of the task.
    """
    # Only the version is a template, and it reaches the shell as a variable; all else is inherited from the worker, so
    # that neither addresses nor secrets are shown among the rendered fields.
    return BashOperator(
        task_id=task_id or name,
        bash_command=f'{_STEP}{name} --model {model} --version "$SMARTGRID_VERSION"',
        env={"SMARTGRID_VERSION": version},
        append_env=True,
        output_processor=_result,
        **settings,
    )


def _result(line: str) -> dict[str, str]:
    result: dict[str, str] = json.loads(line)
    return result


def alert_failure(context: Context) -> None:
    """Alert that a task has failed, after its last try."""
    task = context["task_instance"]
    alert(
        "step_failed",
        where=f"{task.dag_id}, task {task.task_id}",
        severity="critical",
        text=f"{task.task_id} failed in try {task.try_number}: {_first_line(context.get('exception'))}",
        command=f"airflow tasks states-for-dag-run {task.dag_id} '{task.run_id}'",
    )


def _first_line(error: Any) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def alert_stop(where: str, result: dict[str, str]) -> None:
    """Alert that a retraining was stopped by a verdict: nothing has failed, the version in Production stays."""
    model, version, run_id = result["model"], result.get("version", ""), result.get("run_id", "")
    alert(
        "retraining_stopped",
        where=where,
        severity="warning",
        text=f"{model} version {version} goes no further: {result['step']} says {result['verdict']}; "
        "the version in Production stays",
        command=f"mlflow run . -e audit -P model={model}",
        run_id=run_id,
    )
