"""What a training leaves behind, and what every training logs of its input."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass

import pandas as pd

from smartgrid_pyfunc.lifecycle import runs
from smartgrid_pyfunc.sources import InputReport

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """A finished training: registered name, run, URI of the logged model, version if registered, metrics."""

    model: str
    run_id: str
    model_uri: str
    version: str | None
    metrics: dict[str, float]

    @property
    def uri(self) -> str:
        """Where to load the model from: its version, or the logged model if it was not registered."""
        return f"models:/{self.model}/{self.version}" if self.version else self.model_uri


def log_report(report: InputReport, frame: pd.DataFrame, data: str) -> None:
    """Say what was tolerated in the input and log it with the dataset."""
    for notice in report.notices():
        _log.info(notice)
    runs.log_input(frame, name=f"{report.result} of {report.sensors} sensors", digest=report.digest, source=data)
    runs.log_text("input_report.json", json.dumps(report.as_dict(), indent=1))
