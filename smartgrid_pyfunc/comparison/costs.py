"""What a version costs to serve, and whether it takes the same requests as another: measured, not guessed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import mlflow
import numpy as np
import pandas as pd

from smartgrid_pyfunc.lifecycle.scoring import Scorer, open_scorer
from smartgrid_pyfunc.lifecycle.server import bounded_wait, plain_errors
from smartgrid_pyfunc.lifecycle.versions import Named
from smartgrid_pyfunc.schema import InputError

_CALLS = 15
_MEGABYTE = 1e6


@dataclass(frozen=True)
class Costs:
    """What one version costs.

    Attributes
    ----------
    latency_ms : float
        Time of `predict` for the example request, without HTTP [ms], the lower quartile of 15 calls; NaN if it takes
        no such request.
    load_seconds : float
        From a running interpreter to a loaded model [s].
    size_mb : float
        All files of the model [MB].
    """

    latency_ms: float
    load_seconds: float
    size_mb: float


def measure(versions: Sequence[Named], example: pd.DataFrame | None) -> dict[str, Costs]:
    """Return what each version costs; their calls alternate, so that a busy moment hits them alike."""
    with ExitStack() as stack:
        scorers = [stack.enter_context(open_scorer(named.uri)) for named in versions]
        for scorer in scorers:
            _seconds(scorer, example, 2)  # the first calls warm up
        seconds: dict[str, list[float]] = {scorer.version: [] for scorer in scorers}
        for _ in range(_CALLS):
            for scorer in scorers:
                seconds[scorer.version] += _seconds(scorer, example, 1)
        return {
            scorer.version: Costs(_usual(seconds[scorer.version]), scorer.load_seconds, scorer.size_bytes / _MEGABYTE)
            for scorer in scorers
        }


def _seconds(scorer: Scorer, example: pd.DataFrame | None, calls: int) -> list[float]:
    """Return the time of each call [s]; nothing if the version takes no such request."""
    found: list[float] = []
    if example is None:
        return found
    try:
        for _ in range(calls):
            scorer.predict(example)
            found.append(scorer.predict_seconds)
    except InputError:
        return []
    return found


def _usual(seconds: Sequence[float]) -> float:
    """Return the lower quartile [ms]: what else runs on the machine makes calls slower, never faster."""
    return 1000 * float(np.quantile(seconds, 0.25)) if len(seconds) else float("nan")


def example_of(named: Named) -> pd.DataFrame | None:
    """Return the request that a version was logged with; None if there is none."""
    with bounded_wait(), plain_errors(f"read the example of {named.uri}"):
        local = mlflow.artifacts.download_artifacts(named.uri)
        example = mlflow.models.Model.load(local).load_input_example(local)
    return example if isinstance(example, pd.DataFrame) else None


def incompatibilities(former: Named, later: Named) -> list[str]:
    """Return why a client of `former` could not use `later`: columns and parameters that are asked for or gone."""
    with bounded_wait(), plain_errors(f"read the signatures of {former.name}"):
        old, new = (mlflow.models.get_model_info(named.uri).signature for named in (former, later))
    if old is None or new is None:
        return ["a version has no signature"]
    return [*_inputs(old, new), *_missing("answers", old.outputs, new.outputs), *_params(old, new)]


def _inputs(old: Any, new: Any) -> list[str]:
    before = {spec.name: spec for spec in (old.inputs.inputs if old.inputs else [])}
    after = {spec.name: spec for spec in (new.inputs.inputs if new.inputs else [])}
    asked = [f"it requires the column {name}" for name, s in after.items() if s.required and name not in before]
    both = [(name, s.type, after[name].type) for name, s in before.items() if name in after]
    return asked + [
        f"it takes {name} as {present}, not {former}" for name, former, present in both if present != former
    ]


def _missing(what: str, old: Any, new: Any) -> list[str]:
    before = old.input_names() if old is not None else []
    after = new.input_names() if new is not None else []
    return [f"it {what} no {name}" for name in before if name not in after]


def _params(old: Any, new: Any) -> list[str]:
    before = {spec.name for spec in (old.params.params if old.params else [])}
    after = {spec.name for spec in (new.params.params if new.params else [])}
    return [f"it has no parameter {name}" for name in sorted(before - after)]
