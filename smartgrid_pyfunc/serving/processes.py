"""Child processes that end with their parent: each in a session of its own, stopped as a whole."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # Linux, <sys/prctl.h>
_STEP_SECONDS = 0.05
_TAIL_BYTES = 4000


def adopt_orphans() -> None:
    """Let grandchildren whose parent ends become children of this process, so that it can wait for them (Linux)."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def end_with_parent() -> None:
    """Send this process SIGTERM when the one that started it ends, however it ends (Linux)."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _prctl(option: int, value: int) -> None:
    if _LIBC is not None:
        _LIBC.prctl(option, value, 0, 0, 0)


# Loaded here and not between fork and exec, where nothing may be imported.
_LIBC = ctypes.CDLL(None) if sys.platform.startswith("linux") else None


class Process:
    """A program in a session of its own, with what it says in a file.

    Parameters
    ----------
    command : sequence of str
    log : Path
        Standard output and error are appended to it.
    environment : mapping, optional
        Default: that of this process.

    Notes
    -----
    The kernel ends it with the thread that started it, also after a SIGKILL: start it from the main thread.
    """

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
        self._log = log
        with log.open("ab") as sink:
            self._start = sink.tell()
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
                preexec_fn=end_with_parent,
            )
        self.pid = self._process.pid

    @property
    def running(self) -> bool:
        """False once the program has ended, whatever it left behind."""
        return self._process.poll() is None

    def said(self) -> str:
        """Return the last lines of its output since it was started."""
        with self._log.open("rb") as source:
            end = source.seek(0, os.SEEK_END)
            source.seek(max(self._start, end - _TAIL_BYTES))
            return source.read().decode(errors="replace").strip()

    def send(self, number: int) -> None:
        """Send a signal to the program alone."""
        if self.running:
            os.kill(self.pid, number)

    def stop(self, grace: float, *, ask: int = signal.SIGTERM, whole: bool = True) -> None:
        """End the program and everything in its session; return when nothing of it is left.

        Parameters
        ----------
        grace : float
            Time between asking and SIGKILL [s].
        ask : int
            The signal that asks.
        whole : bool
            Ask every process of the session; False: the program alone, which asks its children itself.
        """
        self._signal(ask) if whole else self.send(ask)
        if not self._gone_within(grace):
            self._signal(signal.SIGKILL)
            self._gone_within(grace)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def _gone_within(self, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while self._any_left():
            if time.monotonic() > end:
                return False
            time.sleep(_STEP_SECONDS)
        return True

    def _any_left(self) -> bool:
        self._process.poll()
        try:
            while os.waitpid(-self.pid, os.WNOHANG)[0]:
                pass  # an orphan of the session that `adopt_orphans` brought here
        except ChildProcessError:
            pass
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return False
        return True
