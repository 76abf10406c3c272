"""One step of the nightly job or of a retraining: an entry point by `mlflow run`, and the verdict that its run holds.

    python deploy/airflow/step.py monitor
    python deploy/airflow/step.py compare --model LoadForecastingModel --version 7

Runs in the project's own environment; schedulers (Airflow, cron, systemd) call it and need nothing of the project.
The commands of all steps stand in `STEPS` below; what they are given comes from environment variables (`SETTINGS`).

The last line of the output is one JSON object: step, model, version, verdict, and the runs that show it. The exit
code is 0 if the step has a verdict, whatever it says: a refusal is no failure. `mlflow run` turns every exit code of a
script into 1, so the verdict is the tag `smartgrid.verdict`, on the run that it opened or on one that this led to.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import shlex
import sys
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

sys.path.insert(0, str(Path(__file__).resolve().parent / "dags"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from smartgrid_alert import alert, send

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_PROJECT = Path(__file__).resolve().parents[2]
#: Why a version is in Staging if these steps put it there; one that a person put there is left alone.
RETRAINED = "retrained"
_LOAD, _ANOMALY = "LoadForecastingModel", "AnomalyDetectionModel"

#: What the steps are given: environment variable and default.
SETTINGS = {
    "SMARTGRID_LOAD_DATA": "",  # hourly load or readings that become it; required
    "SMARTGRID_READINGS": "",  # readings for the detector; empty: as SMARTGRID_LOAD_DATA
    "SMARTGRID_PREDICTIONS": "predictions",  # folder, or postgresql://…
    "SMARTGRID_TIMEZONE": "UTC",
    "SMARTGRID_COUNTRY": "",
    "SMARTGRID_REPORTS": "",  # folder for the monitor's report
    "SMARTGRID_PUSHGATEWAY": "",
    "SMARTGRID_CANARY_HOURS": "72",
}


@dataclass(frozen=True)
class Step:
    """What a step runs: `entry_point` with `parameters`, `of_model` telling those of each model."""

    entry_point: str
    parameters: dict[str, str] = field(default_factory=dict)
    of_model: dict[str, dict[str, str]] = field(default_factory=dict)


_DATA = {_LOAD: {"data": "{load_data}"}, _ANOMALY: {"data": "{readings}"}}
_PROMOTE = {"model": "{model}", "version": "{version}"}

#: Every step by name, with its command. `{name}` is a setting, the model or the version.
#: SMARTGRID_PARAMS_<STEP>="name=value …" replaces or adds parameters without a change here.
STEPS = {
    "batch_forecast": Step("batch_forecast", {"data": "{load_data}", "to": "{predictions}"}),
    "batch_detect": Step("batch_detect", {"data": "{readings}", "to": "{predictions}"}),
    "monitor": Step(
        "monitor",
        {
            "predictions": "{predictions}",
            "model": "{model}",
            "timezone": "{timezone}",
            "country": "{country}",
            "pushgateway": "{pushgateway}",
            "output": "{reports}",
        },
        _DATA,
    ),
    "train": Step(
        "{training}",
        {"data": "{load_data}", "timezone": "{timezone}"},
        {_LOAD: {"country": "{country}"}, _ANOMALY: {"data": "{readings}"}},
    ),
    # Without data the comparison, and the gate to Production, look at the test days of the new version's training.
    "compare": Step("compare", {"model": "{model}", "versions": "Production,{version}"}),
    "to_staging": Step("promote", {**_PROMOTE, "stage": "Staging", "reason": RETRAINED}),
    "to_production": Step("promote", {**_PROMOTE, "stage": "Production", "reason": "passed its canary period"}),
    "withdraw": Step("promote", {**_PROMOTE, "stage": "Archived", "reason": "its retraining was stopped"}),
}
#: Steps that SMARTGRID_LEAVE_OUT may name.
_OPTIONAL = ("batch_forecast", "batch_detect", "monitor", "compare")
_TRAINING = {_LOAD: "load_forecasting", _ANOMALY: "anomaly_detection"}


# ----------------------------------------------------------------------------------------------- the command line


@click.group(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Run from the project's folder, so that relative places mean what they mean for `mlflow run .`."""
    os.chdir(_PROJECT)
    # Airflow's tasks have a socket as stdin. The bash of `mlflow run` would take that for a remote login and read
    # ~/.bashrc, which may well put another python first on the PATH.
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")


def _offer(name: str) -> None:
    @main.command(
        name, help=f"Run the step {name}: the entry point {STEPS[name].entry_point.format(training='of training')}."
    )
    @click.option("--model", type=click.Choice([_LOAD, _ANOMALY]), default=_LOAD, show_default=True)
    @click.option("--version", default="", help="Version that the step is about; empty: the one in Staging.")
    def command(model: str, version: str) -> None:
        _tell(run_step(name, model, version))


for _name in STEPS:
    _offer(_name)


@main.command()
@click.option("--model", type=click.Choice([_LOAD, _ANOMALY]), default=_LOAD, show_default=True)
def due(model: str) -> None:
    """Tell whether the version in Staging has been there for SMARTGRID_CANARY_HOURS: due, waiting or none."""
    _tell({"step": "due", "model": model, **_due(model)})


@main.command("alert")
@click.argument("what")
@click.argument("text")
@click.option("--where", required=True)
@click.option("--command", required=True, help="What to run to see more.")
@click.option("--severity", default="critical", show_default=True)
def tell_alert(what: str, text: str, where: str, command: str, severity: str) -> None:
    """Log an alert and send it to SMARTGRID_WEBHOOK."""
    alert(what, where=where, severity=severity, text=text, command=command)


def _tell(result: dict[str, Any]) -> None:
    sys.stderr.flush()
    print(json.dumps(result), flush=True)
    sys.exit(0 if result["verdict"] else 1)


# ----------------------------------------------------------------------------------------------- one step


def run_step(name: str, model: str, version: str = "") -> dict[str, Any]:
    """Run a step and return what came of it; an empty `verdict` means that it failed.

    Returns
    -------
    dict
        step, model, version, verdict (``done`` for entry points that judge nothing, ``first`` for a comparison without
        a version in Production, ``left_out``), run_id and launcher_run_id where there are any, and with ``to_staging``
        `until`: the end of the canary period (ISO 8601).
    """
    about = {"step": name, "model": model}
    if name in ("compare", "to_staging", "to_production", "withdraw"):
        about["version"] = version or _in_stage(model, "Staging")
        if not about["version"]:
            raise click.ClickException(f"{model} has no version in Staging: name one with --version.")
    if _left_out(name, model):
        return {**about, "verdict": "left_out"}
    if name == "compare" and not _in_stage(model, "Production"):
        return {**about, "verdict": "first"}
    finished, launcher = _mlflow_run(name, model, about.get("version", ""))
    result = about | _outcome(finished, launcher)
    if name == "monitor" and result["verdict"] in ("alerts", "drift"):
        _pass_on(result["run_id"])
    if name == "train" and result["verdict"]:
        result["version"] = _made_by(result["run_id"], model)
    if name == "to_staging":
        result["until"] = (dt.datetime.now(dt.UTC) + _canary()).isoformat()
    return result


def _left_out(name: str, model: str) -> bool:
    """Tell whether a step is not wanted: for both models, or by `compare_anomaly` and the like for one."""
    if name not in _OPTIONAL:
        return False
    unwanted = {entry.strip() for entry in os.environ.get("SMARTGRID_LEAVE_OUT", "").split(",")}
    scored = "batch_forecast" if model == _LOAD else "batch_detect"
    names = {name, f"{name}_{'load' if model == _LOAD else 'anomaly'}"}
    return bool(names & unwanted) or (name == "monitor" and scored in unwanted)


def parameters(name: str, model: str, version: str) -> tuple[str, dict[str, str]]:
    """Return the entry point of a step and its parameters; those that are empty are left to their defaults."""
    step, known = STEPS[name], _settings() | {"model": model, "version": version, "training": _TRAINING[model]}
    if known["reports"]:
        known["reports"] = f"{known['reports']}/{model}"  # each model's report has the same file names
    given = {**step.parameters, **step.of_model.get(model, {})}
    values = {key: text.format_map(known) for key, text in given.items()}
    more = shlex.split(os.environ.get(f"SMARTGRID_PARAMS_{name.upper()}", ""))
    values.update(entry.split("=", 1) for entry in more)
    return step.entry_point.format_map(known), {key: value for key, value in values.items() if value}


def _settings() -> dict[str, str]:
    values = {name: os.environ.get(name, "").strip() or default for name, default in SETTINGS.items()}
    if not values["SMARTGRID_LOAD_DATA"]:
        raise click.ClickException("SMARTGRID_LOAD_DATA is not set: name the hourly load or readings to work on.")
    values["SMARTGRID_READINGS"] = values["SMARTGRID_READINGS"] or values["SMARTGRID_LOAD_DATA"]
    return {name.removeprefix("SMARTGRID_").lower(): value for name, value in values.items()}


def _canary() -> dt.timedelta:
    return dt.timedelta(hours=float(os.environ.get("SMARTGRID_CANARY_HOURS") or SETTINGS["SMARTGRID_CANARY_HOURS"]))


def _mlflow_run(name: str, model: str, version: str) -> tuple[bool, Run | None]:
    """Do what the command `mlflow run` does, in this process; return whether it succeeded, and the run it opened."""
    import mlflow.projects
    from mlflow.exceptions import ExecutionException

    from smartgrid_pyfunc.lifecycle.errors import mask_secrets

    entry_point, given = parameters(name, model, version)
    run_name = f"{name}-{uuid.uuid4().hex[:12]}"
    shown = [part for key, value in given.items() for part in ("-P", f"{key}={value}")]
    command = ["mlflow", "run", ".", "-e", entry_point, *shown, "--env-manager", "local", "--run-name", run_name]
    print("+", mask_secrets(shlex.join(command)), flush=True)
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"  # its `python`
    try:
        mlflow.projects.run(
            ".", entry_point, parameters=given, env_manager="local", run_name=run_name, synchronous=True
        )
        finished = True
    except ExecutionException as error:
        print(mask_secrets(str(error)), file=sys.stderr)
        finished = False
    return finished, _named(run_name)


def _named(run_name: str) -> Run | None:
    """Return the run of this name; it is in Default unless MLFLOW_EXPERIMENT_NAME says otherwise."""
    client = _client()
    experiments = [entry.experiment_id for entry in client.search_experiments()]
    found = client.search_runs(experiments, f"tags.`mlflow.runName` = '{run_name}'", max_results=1)
    return found[0] if found else None


def _outcome(finished: bool, launcher: Run | None) -> dict[str, str]:
    """Return verdict and runs: of the runs that the launcher's run led to, one that was broken off has no say."""
    if launcher is None:
        return {"verdict": "done" if finished else ""}
    tags = launcher.data.tags
    led_to = [_client().get_run(run_id) for run_id in tags.get("smartgrid.run_id", "").split(",") if run_id]
    whole = [run for run in led_to if run.info.status == "FINISHED"]
    verdicts = [tags, *(run.data.tags for run in reversed(whole))]
    verdict = next((entry["smartgrid.verdict"] for entry in verdicts if "smartgrid.verdict" in entry), "")
    error = next((run.data.tags["smartgrid.error"] for run in led_to if "smartgrid.error" in run.data.tags), "")
    about = {
        "run_id": led_to[-1].info.run_id if led_to else launcher.info.run_id,
        "launcher_run_id": launcher.info.run_id,
        "alerts": next((run.data.tags["smartgrid.alerts"] for run in whole if "smartgrid.alerts" in run.data.tags), ""),
        "error": error,
    }
    return {"verdict": verdict or ("done" if finished else ""), **{key: text for key, text in about.items() if text}}


def _pass_on(run_id: str) -> None:
    """Send the monitor's alerts: as a parameter of `mlflow run` the webhook, often a secret, would be logged."""
    import mlflow

    if os.environ.get("SMARTGRID_WEBHOOK", "").strip():
        send(mlflow.artifacts.load_dict(f"runs:/{run_id}/alerts.json"))


# ----------------------------------------------------------------------------------------------- the registry


def _client() -> MlflowClient:
    from mlflow import MlflowClient

    return MlflowClient()


def _in_stage(model: str, stage: str) -> str:
    """Return the version in `stage`, empty if there is none or no such model."""
    from smartgrid_pyfunc.lifecycle.versions import version_in

    return version_in(model, stage) or ""


def _made_by(run_id: str, model: str) -> str:
    found = [entry for entry in _client().search_model_versions(f"run_id = '{run_id}'") if entry.name == model]
    return str(found[0].version) if found else ""


def _due(model: str) -> dict[str, str]:
    version = _in_stage(model, "Staging")
    if not version:
        return {"verdict": "none"}
    tags = _client().get_model_version(model, version).tags
    decision = _client().get_run(tags["smartgrid.decision"]) if "smartgrid.decision" in tags else None
    if decision is None or decision.data.tags.get("smartgrid.reason") != RETRAINED:
        return {"verdict": "none"}
    since = tags["smartgrid.promoted_at"]
    over = dt.datetime.now(dt.UTC) >= dt.datetime.fromisoformat(since) + _canary()
    return {"verdict": "due" if over else "waiting", "version": version, "since": since}


if __name__ == "__main__":
    main()
