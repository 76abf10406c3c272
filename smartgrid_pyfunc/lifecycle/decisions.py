"""Decisions on versions, each an MLflow run: who moved what, when, from where to where, why and on what evidence."""

from __future__ import annotations

import datetime as dt
import getpass
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import mlflow
from mlflow.entities import Run, RunTag
from mlflow.exceptions import MlflowException

from smartgrid_pyfunc.lifecycle.errors import LifecycleError, mask_secrets
from smartgrid_pyfunc.schema import InputError

EXPERIMENT = "smartgrid-decisions"
PENDING = "pending"
#: Verdicts after which the version is where the decision says.
MOVED = ("promoted", "forced", "rolled_back", "repaired")

_PREFIX = "smartgrid."
_TAG_LENGTH = 4000
_PAGE = 500
_FIELDS = ("model", "version", "from", "to", "by", "decided_at", "verdict", "reason", "evidence", "former")


@dataclass(frozen=True)
class Decision:
    """One decision as it was recorded.

    Attributes
    ----------
    model, version : str
        What was decided on; the version is empty where a stage was found empty.
    from_stage, to_stage : str
        Stage before, and the one asked for.
    by : str
        User who decided.
    decided_at, recorded_at : datetime
        Time of the decision as it was given, and that of the clock; equal unless a past year is replayed.
    verdict : str
        ``promoted``, ``forced``, ``refused``, ``rolled_back``, ``repaired``; ``pending`` if cut off half-way.
    reason : str
        Why, in words.
    evidence : str
        Run that shows it: the comparison, else the training.
    former : str
        Version that held the stage before; empty if none did.
    run_id : str
        The decision's own run.
    """

    model: str
    version: str
    from_stage: str
    to_stage: str
    by: str
    decided_at: dt.datetime
    recorded_at: dt.datetime
    verdict: str
    reason: str
    evidence: str
    former: str
    run_id: str


def parse_time(text: str | None) -> dt.datetime:
    """Return the time `text` (ISO 8601; a date is its end, no offset is UTC), or the clock's if it is empty.

    A date stands for all of that day, since "what was in Production on 3 May" asks for its last state.
    """
    given = (text or "").strip()
    if not given:
        return dt.datetime.now(dt.UTC)
    try:
        found = dt.datetime.fromisoformat(given)
    except ValueError:
        raise InputError(
            "a time must be written in ISO 8601", found=given, remedy="write 2026-05-03 or 2026-05-03T14:00:00Z"
        ) from None
    if len(given) <= len("2026-05-03"):
        found = found.replace(hour=23, minute=59, second=59)
    return found.replace(tzinfo=dt.UTC) if found.tzinfo is None else found.astimezone(dt.UTC)


def user() -> str:
    """Return the name of the user of this process."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no user name in a bare container
        return "unknown"


def stamp(time: dt.datetime) -> str:
    """Return `time` as it is written into tags."""
    return time.astimezone(dt.UTC).isoformat(timespec="seconds")


# ------------------------------------------------------------------------------------------------------- writing


def begin(
    model: str,
    version: str,
    *,
    from_stage: str,
    to_stage: str,
    by: str,
    decided_at: dt.datetime | None = None,
    former: str | None = None,
    launcher: str = "",
) -> str:
    """Open the run of a decision before anything is moved and return its id.

    A process that dies while it moves the version leaves the decision ``pending``; see `pending`. Without
    `decided_at` the decision counts from the moment at which it ends, so that the order is that of the moves.
    """
    now = dt.datetime.now(dt.UTC)
    tags = {
        "model": model,
        "version": version,
        "from": from_stage,
        "to": to_stage,
        "by": by,
        "decided_at": stamp(decided_at or now),
        "recorded_at": stamp(now),
        "clock": "given" if decided_at else "",
        "verdict": PENDING,
        "former": former or "",
    }
    named = {f"{_PREFIX}{name}": value for name, value in tags.items() if value}
    if launcher:
        named[f"{_PREFIX}launcher_run_id"] = launcher
    run = mlflow.MlflowClient().create_run(
        _experiment(), tags=named, run_name=f"{model} {version or 'none'} to {to_stage}".strip()
    )
    return str(run.info.run_id)


def end(
    run_id: str,
    verdict: str,
    reason: str,
    *,
    evidence: str = "",
    metrics: Mapping[str, float] | None = None,
    texts: Mapping[str, str] | None = None,
) -> None:
    """Record verdict, figures and texts of a decision and end its run FINISHED: a refusal is no failure."""
    client = mlflow.MlflowClient()
    tags = [RunTag(f"{_PREFIX}verdict", verdict), RunTag(f"{_PREFIX}reason", mask_secrets(reason)[:_TAG_LENGTH])]
    if evidence:
        tags.append(RunTag(f"{_PREFIX}evidence", evidence))
    now = int(dt.datetime.now(dt.UTC).timestamp() * 1000)
    entries = [mlflow.entities.Metric(name, float(value), now, 0) for name, value in (metrics or {}).items()]
    client.log_batch(run_id, metrics=entries, tags=tags)
    for path, text in (texts or {}).items():
        client.log_text(run_id, text, path)
    client.set_terminated(run_id, "FINISHED")


def fail(run_id: str, error: BaseException) -> None:
    """End the run of a decision that could not be carried out."""
    client = mlflow.MlflowClient()
    said = mask_secrets(str(error).splitlines()[0] if str(error) else type(error).__name__)
    tags = [RunTag(f"{_PREFIX}verdict", "failed"), RunTag(f"{_PREFIX}reason", said[:_TAG_LENGTH])]
    client.log_batch(run_id, tags=tags)
    client.set_terminated(run_id, "FAILED")


def _experiment() -> str:
    found = mlflow.get_experiment_by_name(EXPERIMENT)
    if found is None:
        try:
            return str(mlflow.create_experiment(EXPERIMENT))
        except MlflowException as error:  # another process was faster
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = mlflow.get_experiment_by_name(EXPERIMENT)
    if found is None or found.lifecycle_stage != "active":
        raise LifecycleError(
            f"The experiment {EXPERIMENT!r} is deleted, so no decision can be recorded; restore it with "
            f"`mlflow experiments restore --experiment-id {found.experiment_id if found else '…'}`."
        )
    return str(found.experiment_id)


# ------------------------------------------------------------------------------------------------------- reading


def of_model(model: str) -> list[Decision]:
    """Return every decision on `model`, in the order in which they were taken."""
    return sorted(_read(f"tags.`{_PREFIX}model` = '{model}'"), key=lambda d: (d.decided_at, d.recorded_at))


def pending(model: str) -> list[Decision]:
    """Return decisions that were begun and not ended: under way at this moment, or cut off."""
    return _read(f"tags.`{_PREFIX}model` = '{model}' and tags.`{_PREFIX}verdict` = '{PENDING}'")


def _read(condition: str) -> list[Decision]:
    experiment = mlflow.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        return []
    client, found, token = mlflow.MlflowClient(), [], None
    while True:
        page = client.search_runs(
            [experiment.experiment_id], condition, max_results=_PAGE, order_by=["start_time ASC"], page_token=token
        )
        found += [_decision(run) for run in page]
        token = page.token
        if not token:
            return found


def _decision(run: Run) -> Decision:
    values = {name: run.data.tags.get(f"{_PREFIX}{name}", "") for name in _FIELDS}
    started = dt.datetime.fromtimestamp(run.info.start_time / 1000, dt.UTC)
    ended = dt.datetime.fromtimestamp(run.info.end_time / 1000, dt.UTC) if run.info.end_time else started
    given = f"{_PREFIX}clock" in run.data.tags
    return Decision(
        from_stage=values.pop("from"),
        to_stage=values.pop("to"),
        decided_at=parse_time(values.pop("decided_at")) if given else ended,
        recorded_at=ended,
        run_id=run.info.run_id,
        **{name: value for name, value in values.items() if name != "decided_at"},
    )


def stages_after(decisions: Iterable[Decision]) -> dict[str, Decision]:
    """Return the decision that put a version into each stage that is held after `decisions`, oldest first.

    A version holds one stage, and Production and Staging hold one version: the former one is archived.
    """
    held: dict[str, Decision] = {}
    for decision in decisions:
        if decision.verdict not in MOVED:
            continue
        held = {stage: d for stage, d in held.items() if d.version != decision.version and stage != decision.to_stage}
        if decision.to_stage in ("Production", "Staging") and decision.version:
            held[decision.to_stage] = decision
    return held


def production_path(decisions: Sequence[Decision]) -> list[str]:
    """Return the versions that led to the present one in Production, the present one last.

    A rollback takes the path back: rolling back twice gives the version before the former one, not the first again.
    """
    path: list[str] = []
    for decision in decisions:
        if decision.verdict not in MOVED or decision.to_stage != "Production" or not decision.version:
            continue
        if decision.verdict == "rolled_back" and decision.version in path:
            path = path[: path.index(decision.version) + 1]
            continue
        if not path and decision.former:
            path = [decision.former]
        if path[-1:] != [decision.version]:
            path.append(decision.version)
    return path
