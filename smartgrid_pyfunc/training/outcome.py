"""What a training leaves behind, and what every training logs of its input."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from smartgrid_pyfunc.lifecycle import runs
from smartgrid_pyfunc.lifecycle.model_card import Origin
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
    """Say what was tolerated in the input and log it with the dataset and the environment."""
    for notice in report.notices():
        _log.info(notice)
    runs.log_input(frame, name=f"{report.result} of {report.sensors} sensors", digest=report.digest, source=data)
    runs.log_text("input_report.json", json.dumps(report.as_dict(), indent=1))
    runs.log_text("environment.txt", _environment())


def describe_origin(report: InputReport, data: str, settings: Mapping[str, object]) -> Origin:
    """Return where a model comes from, for its card."""
    return Origin(data, report.sensors, f"{report.first:%Y-%m-%d}", f"{report.last:%Y-%m-%d}", settings)


def _environment() -> str:
    """Return every installed package with its version, as pip reads it: what repeats the training."""
    pins = {_canonical(found.name): found.version for found in importlib.metadata.distributions()}
    python = f"# Python {platform.python_version()} on {platform.system()} {platform.machine()}\n"
    return python + "".join(f"{name}=={version}\n" for name, version in sorted(pins.items()))


def _canonical(name: str) -> str:
    """Return the one spelling of a package's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
