"""What both batches share: the run, the version that scores, the table that takes, and one bad sensor among good ones.

Nothing is scored that is there already: a batch that was killed and is run again goes on where it stopped.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from smartgrid_pyfunc.lifecycle import runs, versions
from smartgrid_pyfunc.lifecycle.errors import mask_secrets
from smartgrid_pyfunc.lifecycle.scoring import Scorer, open_scorer
from smartgrid_pyfunc.predictions.columns import Kind, keys_of, to_table
from smartgrid_pyfunc.predictions.store import Store
from smartgrid_pyfunc.predictions.table import open_store, parse_time
from smartgrid_pyfunc.schema import InputError
from smartgrid_pyfunc.sources import InputReport

EXPERIMENT = "smartgrid-predictions"

_QUIET = 5.0  # s between two lines on how far the work has come
_COUNTED = ("rows", "new_rows", "steps", "steps_skipped", "scoring_seconds")
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Written:
    """What a batch has done.

    Attributes
    ----------
    model, version : str
        Registered name and number of what scored.
    run_id : str
        The batch's own run.
    metrics : dict of str to float
        As logged: ``rows`` that the batch stands for, ``new_rows`` that were not there before, ``steps`` and
        ``steps_skipped`` (there already), ``seconds``, ``scoring_seconds`` and what the kind of batch adds.
    """

    model: str
    version: str
    run_id: str
    metrics: dict[str, float]


@dataclass
class Job:
    """An open batch.

    Attributes
    ----------
    scorer : Scorer
    made_at : Timestamp
        Time that the rows get.
    counts : dict of str to float
        Becomes the metrics of the run.
    """

    scorer: Scorer
    store: Store
    kind: Kind
    made_at: pd.Timestamp
    counts: dict[str, float] = field(default_factory=lambda: dict.fromkeys(_COUNTED, 0.0))

    def holds(self, keys: Mapping[str, Any]) -> bool:
        """Return whether predictions of this version with all these keys (without model and version) are there."""
        table = keys_of(self.kind, {"model": self.scorer.name, "version": self.scorer.version, **keys})
        if not self.store.holds(table):
            return False
        self.counts["steps_skipped"] += 1
        self.counts["rows"] += table.num_rows
        return True

    def add(self, frame: pd.DataFrame) -> None:
        """Write predictions, to which the version's name, number and variant and the time are added."""
        table = self._named(frame)
        self.counts["rows"] += table.num_rows
        self.counts["new_rows"] += self.store.write(table)

    def predict(self, frame: pd.DataFrame, params: Mapping[str, Any]) -> pd.DataFrame:
        """Return the version's answer and count the time it took."""
        answer = self.scorer.predict(frame, params)
        self.counts["scoring_seconds"] += self.scorer.predict_seconds
        return answer

    def steps(self, items: list[Any], unit: str) -> Iterator[Any]:
        """Yield `items`, and say now and then how many are done."""
        began = said = time.monotonic()
        for done, item in enumerate(items, 1):
            yield item
            self.counts["steps"], now = done, time.monotonic()
            if now - said >= _QUIET or done == len(items):
                rest = (now - began) / done * (len(items) - done)
                left = f", about {rest:.0f} s left" if done < len(items) else ""
                rows = f"{self.counts['rows']:,.0f} rows ({self.counts['new_rows']:,.0f} new)"
                _LOG.info("%d of %d %s, %s in %.0f s%s", done, len(items), unit, rows, now - began, left)
                said = now

    def _named(self, frame: pd.DataFrame) -> pa.Table:
        return to_table(
            self.kind,
            frame.assign(
                model=self.scorer.name,
                version=self.scorer.version,
                variant=self.scorer.variant,
                made_at=self.made_at,
            ),
        )


@contextmanager
def open_job(
    kind: Kind, model: str, answer: Sequence[str], to: str, now: str, settings: Mapping[str, Any]
) -> Iterator[tuple[Job, Written]]:
    """Open the run of a batch and all that it needs; log its params and, when the block has ended well, its metrics.

    Parameters
    ----------
    kind : Kind
    model : str
        Model URI; a stage or alias is looked up once.
    answer : sequence of str
        Columns that the version must answer with.
    to : str
        Place of the predictions.
    now : str
        ISO 8601; empty: the clock's time.
    settings : mapping
        Params of the run; secrets in them are masked.

    Yields
    ------
    job : Job
    written : Written
        Its metrics are filled in when the block has ended.

    Raises
    ------
    InputError
        For a bad place or time and another kind of model, before a run is opened.
    LifecycleError
        If there is no such version, before a run is opened too, or it does not load.
    """
    made_at = parse_time(now, "now") or pd.Timestamp.now("UTC")
    store, named = open_store(to, kind), versions.find(model)
    said = versions.answer_columns(named)
    if said:
        require_answer(said, answer)
    store.prepare()
    tags = {
        "smartgrid.model": named.name,
        "smartgrid.model_version": named.version,
        "smartgrid.variant": named.variant,
        "smartgrid.model_run_id": named.run_id,
    }
    about = f"Predictions of [{named.name} version {named.version}](#/models/{named.name}/versions/{named.version})"
    began = time.monotonic()
    title = f"{kind.name} of {named.name} version {named.version}"
    with runs.tracked_run(EXPERIMENT, run_name=title, tags=tags, description=about) as run:
        params = {name: mask_secrets(str(value)) for name, value in settings.items()}
        runs.log_results({**params, "model": model, "to": mask_secrets(to), "made_at": made_at.isoformat()})
        written = Written(named.name, named.version, run.info.run_id, {})
        with open_scorer(named.uri) as scorer:
            job = Job(scorer, store, kind, made_at)
            yield job, written
        written.metrics.update(job.counts, seconds=time.monotonic() - began)
        runs.log_results(metrics=written.metrics)


def require_answer(found: Iterable[str], needed: Sequence[str]) -> None:
    """Raise `InputError` unless the columns `found` in an answer are all that are `needed`."""
    missing = [name for name in needed if name not in set(found)]
    if missing:
        raise InputError(
            f"the version must answer with the columns {', '.join(needed)}",
            found=f"none named {missing[0]}",
            remedy="name a version of the right model",
        )


def log_report(report: InputReport, frame: pd.DataFrame, data: str) -> None:
    """Say what was tolerated in the input, and log it with the dataset and its digest."""
    for notice in report.notices():
        _LOG.info(notice)
    name = f"{report.result} of {report.sensors} sensors"
    runs.log_input(frame, name=name, digest=report.digest, source=data, context="scoring")
    runs.log_results({"data_digest": report.digest})
    runs.log_text("input_report.json", json.dumps(report.as_dict(), indent=1))


def each_answer(
    score: Callable[[NDArray[np.int64]], pd.DataFrame], members: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], pd.DataFrame | str]]:
    """Yield the answers of all `members` (numbers of sensors), or why one of them was refused.

    A request is refused as a whole: its halves are tried, so that one bad sensor does not spoil the others.
    """
    try:
        yield members, score(members)
    except InputError as refusal:
        if len(members) == 1:
            sentence = str(refusal).partition("refuses the request: ")
            yield members, sentence[2] or sentence[0]
            return
        for half in np.array_split(members, 2):
            yield from each_answer(score, half)
