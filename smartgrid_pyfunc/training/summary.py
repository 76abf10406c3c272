"""What a person reads at the end of a training: results beside their baselines, and the next commands."""

from __future__ import annotations

import os
from collections.abc import Sequence

import mlflow

from smartgrid_pyfunc.lifecycle import registry
from smartgrid_pyfunc.lifecycle.errors import mask_secrets
from smartgrid_pyfunc.schema import ANOMALY_MODEL, LOAD_MODEL
from smartgrid_pyfunc.training.outcome import Outcome

_REQUESTS = {
    LOAD_MODEL: '{"dataframe_records": [{"sensor_id": "all"}], "params": {"hours_ahead": 24}}',
    ANOMALY_MODEL: '{"dataframe_records": [{"sensor_id": "meter-1", "sensor_type": "power", '
    '"timestamp": "2026-03-01T12:00:00Z", "value": 412.0}]}',
}
_PORTS = {LOAD_MODEL: 5101, ANOMALY_MODEL: 5103}


def results(outcomes: Sequence[Outcome]) -> str:
    """Return a table of each model's metrics beside its baseline's."""
    return "\n".join(["", *(line for outcome in outcomes for line in _result(outcome))])


def _result(outcome: Outcome) -> list[str]:
    m = outcome.metrics
    title = f"{outcome.model} {'version ' + outcome.version if outcome.version else '(not registered)'}"
    if outcome.model == LOAD_MODEL:
        rows = [
            ("mean absolute error", f"{m['test_mae']:.4g}", f"{m['naive_mae']:.4g} (better seasonal naive)"),
            ("skill over it", f"{m['test_skill']:.1%}", "0 %"),
            ("90 % interval covers", f"{m['test_coverage']:.1%}", "90 %"),
        ]
    else:
        rows = [("share of readings flagged", f"{m['test_flagged_share']:.2%}", f"{m['false_alarm_rate']:.2%} budget")]
        if "test_average_precision" in m:
            baseline = f"{m['baseline_average_precision']:.3f} (median/MAD by hour)"
            rows.append(("average precision", f"{m['test_average_precision']:.3f}", baseline))
            rows.append(("labelled events found", f"{m['test_event_recall']:.0%}", ""))
    return [title, *(f"    {name:<28}{value:>10}   {other}".rstrip() for name, value, other in rows)]


def next_steps(outcomes: Sequence[Outcome]) -> str:
    """Return the commands to promote, serve, call and look at what was trained."""
    uri = mask_secrets(mlflow.get_tracking_uri())
    lines = ["", "Next:", f"    export MLFLOW_TRACKING_URI={uri}"]
    for outcome in outcomes:
        if outcome.version is None:
            continue
        if registry.production_version(outcome.model) is None:
            lines.append(f"    mlflow run . -e promote -P model={outcome.model} {_flags()}".rstrip())
        port = _PORTS[outcome.model]
        lines.append(f"    mlflow models serve -m models:/{outcome.model}/Production -p {port} {_flags()}".rstrip())
        lines.append(
            f"    curl http://127.0.0.1:{port}/invocations -H 'Content-Type: application/json' \\\n"
            f"      -d '{_REQUESTS[outcome.model]}'"
        )
    lines.append("    mlflow ui --port 5005        # runs, plots, versions: http://127.0.0.1:5005")
    return "\n".join(lines)


def _flags() -> str:
    """Return the environment manager to use again: the local one where no pyenv can make an environment."""
    return "" if os.environ.get("PYENV_ROOT") and not os.environ.get("VIRTUAL_ENV") else "--env-manager local"
