"""Scoring with a registered version in a fresh process of its own, with the code that the version brings along.

Two versions of a model share the first one's code when they are loaded into one process, since Python imports a package
once. So each version gets a process that knows nothing of this checkout; frames go there and back as Arrow files.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pyarrow as pa
import pyarrow.feather as feather

from smartgrid_pyfunc.lifecycle import versions
from smartgrid_pyfunc.lifecycle.errors import LifecycleError, mask_secrets
from smartgrid_pyfunc.lifecycle.server import bounded_wait, plain_errors
from smartgrid_pyfunc.schema import InputError

_WORKER = Path(__file__).with_name("scoring_worker.py")
_END_SECONDS = 10
# Models are to run on what they bring along: a path of the caller's would lend them its code, a store of history hours
# that were not known at the origin.
_DROPPED = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "MLFLOW_RUN_ID", "SMARTGRID_HISTORY")


@contextmanager
def open_scorer(model: str, version: str | None = None) -> Iterator[Scorer]:
    """Load one version in a process of its own and end the process with the block.

    Parameters
    ----------
    model : str
        ``models:/NAME/3``, ``models:/NAME/Production``, ``models:/NAME@champion``, or a registered name. A stage or
        alias is looked up once: the version stays the same while the scorer is open.
    version : str, optional
        With a registered name: number, stage or alias; default: the latest version.

    Yields
    ------
    Scorer

    Raises
    ------
    InputError
        If `model` names no version.
    LifecycleError
        If there is no such version, its files cannot be fetched, or it does not load.
    """
    named = versions.find(model, version)
    with tempfile.TemporaryDirectory(prefix="smartgrid-scoring-") as place:
        folder = Path(place)
        with bounded_wait(), plain_errors(f"fetch {named.uri}"):
            local = mlflow.artifacts.download_artifacts(named.uri, dst_path=str(folder / "model"))
        scorer = Scorer(named, Path(local), folder)
        try:
            scorer._start()
            yield scorer
        finally:
            scorer._stop()


class Scorer:
    """A version that is loaded in its own process; made by `open_scorer`.

    Attributes
    ----------
    name, version, variant : str
        Registered name, number, and ``champion``, ``challenger`` or empty.
    load_seconds : float
        Time from a running interpreter to a loaded model [s].
    size_bytes : int
        Size of all files of the model [bytes].
    predict_seconds : float
        Time the model took for the last call, without the exchange of files [s].
    """

    def __init__(self, named: versions.Named, local: Path, folder: Path) -> None:
        self.name, self.version, self.variant = named.name, named.version, named.variant
        self.uri, self.run_id = named.uri, named.run_id
        self.size_bytes = sum(entry.stat().st_size for entry in local.rglob("*") if entry.is_file())
        self.load_seconds = self.predict_seconds = float("nan")
        self._local, self._folder, self._calls = local, folder, 0
        self._process: subprocess.Popen[str] | None = None

    def predict(self, frame: pd.DataFrame, params: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """Return the answer of the version to `frame`, as ``mlflow.pyfunc`` gives it.

        Parameters
        ----------
        frame : DataFrame
            A request; left unchanged. Its index is not sent.
        params : mapping, optional
            Parameters of the request.

        Raises
        ------
        InputError
            If the model refuses the request, with its sentence, or if `frame` cannot be written as Arrow.
        LifecycleError
            If the model fails or its process has ended.
        """
        if self._process is None:
            raise LifecycleError(f"{self.uri} is closed; score inside `with open_scorer(...)`.")
        self._calls += 1
        request, answer = (self._folder / f"{kind}-{self._calls}.arrow" for kind in ("request", "answer"))
        try:
            _write(frame, request)
            said = self._ask({"request": str(request), "answer": str(answer), "params": dict(params or {})})
            self.predict_seconds = float(said["seconds"])
            found: pd.DataFrame = feather.read_feather(answer)
            return found
        finally:
            request.unlink(missing_ok=True)
            answer.unlink(missing_ok=True)

    # ------------------------------------------------------------------------------------------- the process

    def _start(self) -> None:
        environment = {name: value for name, value in os.environ.items() if name not in _DROPPED}
        environment["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
        began = time.perf_counter()
        with (self._folder / "stderr").open("w") as log:
            self._process = subprocess.Popen(
                # -I: no folder of ours, of the caller's or of the user's is on its path.
                [sys.executable, "-I", str(_WORKER), str(self._local)],
                cwd=self._folder,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._hear()
        self.load_seconds = time.perf_counter() - began

    def _ask(self, message: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process and self._process.stdin
        with suppress(BrokenPipeError):  # its end is told by `_hear`
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        return self._hear()

    def _hear(self) -> dict[str, Any]:
        assert self._process and self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise LifecycleError(f"The process of {self.uri} ended ({self._end()}); {self._last_words()}")
        said: dict[str, Any] = json.loads(line)
        if "refused" in said:
            raise InputError(f"{self.uri} refuses the request: {said['refused']}")
        if "failed" in said:
            raise LifecycleError(mask_secrets(f"{self.uri} failed: {said['failed']}"))
        return said

    def _end(self) -> str:
        assert self._process
        code = self._process.wait(timeout=_END_SECONDS)
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    def _last_words(self) -> str:
        lines = (self._folder / "stderr").read_text(errors="replace").strip().splitlines()
        said = mask_secrets(lines[-1]) if lines else "it said nothing"
        return f"its last words: {said.rstrip('.')}; check memory, and that the model's requirements are installed."

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin and process.stdout
        with suppress(BrokenPipeError):
            process.stdin.close()  # the end of its input ends it
        try:
            process.wait(timeout=_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def _write(frame: pd.DataFrame, path: Path) -> None:
    try:
        table = pa.Table.from_pandas(frame, preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise InputError(
            "every column of a request must hold values of one type", found=str(error.args[0]).splitlines()[0]
        ) from None
    feather.write_feather(table, str(path), compression="uncompressed")
