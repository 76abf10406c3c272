"""Opening the right MLflow run, ending it truthfully and logging to it in few requests.

``mlflow run`` opens a run before the script starts. Unless the user chose an experiment that run stands in Default,
where nobody looks: the script then leaves it, opens its own run in the named experiment and links the two by tags.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import mlflow
import pandas as pd
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag

from smartgrid_pyfunc import __version__
from smartgrid_pyfunc.lifecycle.errors import LifecycleError, mask_secrets
from smartgrid_pyfunc.lifecycle.server import bounded_wait, check_reachable, plain_errors

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LOG = logging.getLogger(__name__)

_RUN_VARIABLE = "MLFLOW_RUN_ID"
# Remembers the run that was left, for later runs of this process and for its child processes.
_LAUNCHER_VARIABLE = "SMARTGRID_LAUNCHER_RUN_ID"
_DEFAULT_EXPERIMENT = "0"

TAG_LAUNCHER = "smartgrid.launcher_run_id"
#: Comma-separated run ids: what a launcher's run led to.
TAG_RUNS = "smartgrid.run_id"
TAG_ERROR = "smartgrid.error"
TAG_VERSION = "smartgrid.version"
#: What MLflow shows as a run's description (Markdown).
TAG_DESCRIPTION = "mlflow.note.content"
TAG_REPRODUCE = "smartgrid.reproduce"
TAG_UNCOMMITTED = "smartgrid.uncommitted_changes"
_TAG_COMMIT = "mlflow.source.git.commit"
_TAG_PARENT = "mlflow.parentRunId"

_ERROR_LENGTH = 500
_BATCH = 100  # MLflow takes at most 100 params and 1000 metrics in one request
_METRIC_BATCH = 900
_DIGEST_LENGTH = 36
_SCHEMA_ROWS = 1000
_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class _Terminated(SystemExit):
    """The process was asked to end by a signal; exits with 128 + its number, as shells do."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.reason = f"terminated by signal {signal.Signals(number).name}"


@contextmanager
def tracked_run(
    experiment: str,
    *,
    run_name: str,
    tags: Mapping[str, str] | None = None,
    description: str | None = None,
    nested: bool = False,
) -> Iterator[Run]:
    """Open the MLflow run that belongs here and end it FINISHED or FAILED, never leaving it RUNNING.

    Parameters
    ----------
    experiment : str
        The experiment used unless ``mlflow run --experiment-name`` chose another one.
    run_name : str
        Name shown in the UI.
    tags : Mapping, optional
        Tags beside those that are always set: git commit, package version, command line, launcher.
    description : str, optional
        Markdown shown on the run's page.
    nested : bool
        For processes that train several models: where the user chose the experiment, open a child of the launcher's
        run instead of using that run itself. Without it only the first run of a launcher may take the launcher's.

    Yields
    ------
    mlflow.entities.Run
        The active run.

    Raises
    ------
    LifecycleError
        If the run cannot be opened: server unreachable, experiment deleted.

    Notes
    -----
    An exception, ``KeyboardInterrupt``, a non-zero ``SystemExit``, SIGTERM and SIGHUP all end the run FAILED with the
    reason in the tag ``smartgrid.error``. Signals are caught in the main thread only.
    """
    run = None
    with _signals_raised():
        try:
            with bounded_wait(), plain_errors(f"open a run in the experiment {experiment!r}"):
                launcher = _leave_launcher()
                run = _open(launcher, experiment, run_name, {**_own_tags(), **(tags or {})}, description, nested)
                if launcher is not None:
                    _link(launcher.info.run_id, run.info.run_id)
            yield run
        except BaseException as error:
            if run is not None:
                _close(run.info.run_id, _reason(error))
            raise
        _close(run.info.run_id, None)


def tag_launcher(tags: Mapping[str, str]) -> None:
    """Set `tags` on the run that ``mlflow run`` opened for this process, if there is one; failing is only a warning."""
    launcher = _launcher_id()
    if not launcher:
        return
    try:
        with bounded_wait(), plain_errors("tag the launcher's run"):
            _set_tags(launcher, tags)
    except LifecycleError as error:  # what the tags report has happened all the same
        _LOG.warning("%s", error)


def log_results(
    params: Mapping[str, Any] | None = None, metrics: Mapping[str, float] | None = None, *, run_id: str | None = None
) -> None:
    """Log params and metrics in one request each hundred: call by call costs three times the time.

    Parameters
    ----------
    params : Mapping, optional
        Values are logged as text. MLflow refuses a second value for a param, so one that the run has already (from
        ``mlflow run``, as it was typed) stays as it is.
    metrics : Mapping, optional
        NaN is kept: a metric that could not be computed must not look like one that was never tried.
    run_id : str, optional
        Default: the active run.
    """
    now = int(time.time() * 1000)
    values = [Metric(name, float(value), now, 0) for name, value in (metrics or {}).items()]
    run_id = run_id or _active_id()  # before a client, which would make a local store
    client = mlflow.MlflowClient()
    with plain_errors("log params and metrics"):
        there = client.get_run(run_id).data.params if params else {}
        entries = [Param(name, str(value)) for name, value in (params or {}).items() if name not in there]
        for part in _parts(values, _METRIC_BATCH):
            client.log_batch(run_id, metrics=part)
        for batch in _parts(entries, _BATCH):
            client.log_batch(run_id, params=batch)


def log_figure(path: str, figure: Figure) -> None:
    """Log `figure` as the artifact `path` (``.png``, ``.svg`` or ``.html``) of the active run."""
    with plain_errors(f"log the figure {path}"):
        mlflow.log_figure(figure, path)


def log_table(path: str, table: pd.DataFrame) -> None:
    """Log `table` as the artifact `path` of the active run: ``.csv``, or ``.json`` (records, missing values null).

    Raises
    ------
    ValueError
        For any other suffix.
    """
    suffix = Path(path).suffix
    if suffix == ".csv":
        text = table.to_csv(index=False)
    elif suffix == ".json":
        text = str(table.to_json(orient="records", date_format="iso", indent=1))
    else:
        raise ValueError(f"a table is logged as .csv or .json, not as {path!r}")
    log_text(path, text)


def log_text(path: str, text: str) -> None:
    """Log `text` as the artifact `path` of the active run."""
    with plain_errors(f"log {path}"):
        mlflow.log_text(text, path)


def log_bytes(path: str, content: bytes) -> None:
    """Log `content` as the artifact `path` of the active run."""
    with plain_errors(f"log {path}"), tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / Path(path).name
        file.write_bytes(content)
        mlflow.log_artifact(str(file), str(Path(path).parent) if "/" in path else None)


def log_folder(run_id: str, folder: Path, path: str) -> None:
    """Log the files of `folder` under `path` to a run that may have ended."""
    with plain_errors(f"log {folder}"):
        mlflow.MlflowClient().log_artifacts(run_id, str(folder), path)


def set_tags(tags: Mapping[str, str]) -> None:
    """Set `tags` on the active run."""
    with plain_errors("set tags"):
        mlflow.set_tags(dict(tags))


def log_input(
    frame: pd.DataFrame, *, name: str, digest: str, source: str, context: str = "training", run_id: str | None = None
) -> None:
    """Record `frame` as an input dataset of the active run without reading it all.

    ``mlflow.data.from_pandas`` hashes a frame and infers its schema from every row; here the digest is given and the
    schema comes from the first thousand rows, so that a frame of millions costs milliseconds.

    Parameters
    ----------
    frame : pandas.DataFrame
        The rows trained on or evaluated.
    name, digest : str
        What identifies the data; the digest is cut to the 36 characters that MLflow stores.
    source : str
        File, glob or URL the rows came from; secrets in it are masked.
    context : str
        What the run did with the data, e.g. ``"training"``, ``"evaluation"``.
    run_id : str, optional
        Default: the active run.
    """
    dataset = Dataset(
        name=name,
        digest=digest[:_DIGEST_LENGTH],
        source_type="local",
        source=json.dumps({"uri": mask_secrets(source)}),
        schema=_schema(frame.head(_SCHEMA_ROWS)),
        profile=json.dumps({"num_rows": len(frame), "num_elements": int(frame.size)}),
    )
    entry = DatasetInput(dataset, tags=[InputTag("mlflow.data.context", context)])
    run_id = run_id or _active_id()
    with plain_errors("log the input dataset"):
        mlflow.MlflowClient().log_inputs(run_id, [entry])


def _schema(sample: pd.DataFrame) -> str:
    names = {"f": "double", "i": "long", "u": "long", "b": "boolean", "M": "datetime"}
    columns = [
        {
            "type": names.get(dtype.kind, "string"),
            "name": str(column),
            "required": bool(sample.iloc[:, i].notna().all()),
        }
        for i, (column, dtype) in enumerate(sample.dtypes.items())
    ]
    return json.dumps({"mlflow_colspec": columns})


def _active_id() -> str:
    run = mlflow.active_run()
    if run is None:
        raise LifecycleError("No run is open: log inside `with tracked_run(...)`.")
    return str(run.info.run_id)


def _parts(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


# ----------------------------------------------------------------------------------------------- which run to open


def _open(
    launcher: Run | None, experiment: str, run_name: str, tags: dict[str, str], description: str | None, nested: bool
) -> Run:
    if launcher is None:
        return _start_own(experiment, run_name, tags, description)
    if launcher.info.experiment_id == _DEFAULT_EXPERIMENT:
        return _start_own(experiment, run_name, {**tags, TAG_LAUNCHER: launcher.info.run_id}, description)
    return _start_under(launcher, run_name, tags, description, nested)


def _leave_launcher() -> Run | None:
    """Return the run that ``mlflow run`` opened, and take it out of the way of ``mlflow.start_run``."""
    check_reachable()
    run_id = os.environ.pop(_RUN_VARIABLE, "")
    if run_id:
        os.environ[_LAUNCHER_VARIABLE] = run_id
    launcher = _launcher_id()
    return mlflow.get_run(launcher) if launcher else None


def _launcher_id() -> str:
    return os.environ.get(_RUN_VARIABLE) or os.environ.get(_LAUNCHER_VARIABLE) or ""


def _start_own(experiment: str, run_name: str, tags: dict[str, str], description: str | None) -> Run:
    _require_alive(experiment)
    found = mlflow.set_experiment(experiment)
    return mlflow.start_run(
        experiment_id=found.experiment_id,
        run_name=run_name,
        tags=tags,
        description=description,
        nested=mlflow.active_run() is not None,
    )


def _start_under(launcher: Run, run_name: str, tags: dict[str, str], description: str | None, nested: bool) -> Run:
    """Use the launcher's run in the experiment the user chose, or open a child of it."""
    mlflow.set_experiment(experiment_id=launcher.info.experiment_id)
    launcher_id = launcher.info.run_id
    if not nested and TAG_RUNS not in launcher.data.tags:
        return mlflow.start_run(run_id=launcher_id, run_name=run_name, tags=tags, description=description)
    child_tags = {**tags, TAG_LAUNCHER: launcher_id}
    if mlflow.active_run() is None:
        child_tags[_TAG_PARENT] = launcher_id
    return mlflow.start_run(
        experiment_id=launcher.info.experiment_id,
        run_name=run_name,
        tags=child_tags,
        description=description,
        nested=mlflow.active_run() is not None,
    )


def _require_alive(experiment: str) -> None:
    found = mlflow.get_experiment_by_name(experiment)
    if found is not None and found.lifecycle_stage != "active":
        raise LifecycleError(
            f"The experiment {experiment!r} is deleted; restore it with "
            f"`mlflow experiments restore --experiment-id {found.experiment_id}`, "
            "or remove it for good with `mlflow gc`."
        )


def _link(launcher_id: str, run_id: str) -> None:
    known = mlflow.get_run(launcher_id).data.tags.get(TAG_RUNS, "")
    listed = [entry for entry in known.split(",") if entry and entry != run_id]
    _set_tags(launcher_id, {TAG_RUNS: ",".join([*listed, run_id])})


def _set_tags(run_id: str, tags: Mapping[str, str]) -> None:
    mlflow.MlflowClient().log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])


# ----------------------------------------------------------------------------------------------- how the run ends


def _close(run_id: str, reason: str | None) -> None:
    """End the run; a server that is gone by now must not hide the error that is on its way up."""
    with _signals_ignored(), bounded_wait():
        try:
            with plain_errors("end the run"):
                if reason is not None:
                    _set_tags(run_id, {TAG_ERROR: reason})
                _end(run_id, "FINISHED" if reason is None else "FAILED")
        except LifecycleError as error:
            if reason is None:
                raise
            _LOG.error("%s It may be left RUNNING as %s.", error, run_id)


def _end(run_id: str, status: str) -> None:
    active = mlflow.active_run()
    if active is not None and active.info.run_id == run_id:
        mlflow.end_run(status)
    else:  # the block ended the run itself: the verdict of this module still counts
        mlflow.MlflowClient().set_terminated(run_id, status)


def _reason(error: BaseException) -> str | None:
    """Return why the run failed in one sentence, None if it did not fail."""
    if isinstance(error, _Terminated):
        return error.reason
    if isinstance(error, KeyboardInterrupt):
        return "interrupted from the keyboard"
    if isinstance(error, SystemExit):
        return None if error.code in (None, 0) else mask_secrets(f"exited with {error.code}")[:_ERROR_LENGTH]
    lines = str(error).strip().splitlines()
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return mask_secrets(text)[:_ERROR_LENGTH]


@contextmanager
def _signals_raised() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into an exception, so that the run is ended on the way out."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise _Terminated(number)

    # A process started with nohup ignores SIGHUP: it must go on doing so.
    with _handling({number: stop for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN}):
        yield


@contextmanager
def _signals_ignored() -> Iterator[None]:
    with _handling(dict.fromkeys((*_SIGNALS, signal.SIGINT), signal.SIG_IGN)):
        yield


@contextmanager
def _handling(handlers: Mapping[signal.Signals, Any]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


# ----------------------------------------------------------------------------------------------- what every run says


def _own_tags() -> dict[str, str]:
    return {TAG_VERSION: __version__, TAG_REPRODUCE: _command_line(), **_git_tags()}


def _command_line() -> str:
    script, *arguments = sys.argv or [""]
    path = Path(script)
    root = Path(__file__).resolve().parents[2]
    if path.is_absolute() and path.is_relative_to(root):
        script = str(path.relative_to(root))
    return mask_secrets(shlex.join(["python", script, *arguments]))


def _git_tags() -> dict[str, str]:
    """Return the commit of the checkout this package stands in; nothing where it is installed without one."""
    try:
        import git  # needs the git executable at import
    except ImportError:
        return {}
    try:
        with git.Repo(Path(__file__).parent, search_parent_directories=True) as repo:
            commit, changed = repo.head.commit.hexsha, repo.is_dirty()
    except (git.GitError, ValueError, OSError):
        return {}
    return {_TAG_COMMIT: commit, TAG_UNCOMMITTED: str(changed).lower()}
