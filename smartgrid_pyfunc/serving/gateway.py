"""nginx in a folder of its own: configured, started, reloaded without a lost request, stopped."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from smartgrid_pyfunc.serving.configuration import Upstreams, render
from smartgrid_pyfunc.serving.errors import ServingError
from smartgrid_pyfunc.serving.processes import Process
from smartgrid_pyfunc.serving.settings import GatewaySettings
from smartgrid_pyfunc.serving.tokens import format_tokens, read_tokens, write_private

_PATHS = "/usr/sbin:/usr/local/sbin:/usr/local/bin:/opt/homebrew/bin"  # often not on the PATH of a user
_START_SECONDS = 10.0
_RELOAD_SECONDS = 10.0
_STOP_SECONDS = 10.0


def find_nginx() -> str:
    """Return the path of nginx.

    Raises
    ------
    ServingError
        If it is not installed; the message tells how to install it.
    """
    found = shutil.which("nginx") or shutil.which("nginx", path=_PATHS)
    if found is None:
        raise ServingError(
            "nginx is not installed: `apt-get install nginx-light` (Debian, Ubuntu), `dnf install nginx` (Fedora), "
            "`brew install nginx` (macOS)."
        )
    return found


class Gateway:
    """The nginx of one configuration folder.

    Parameters
    ----------
    settings : GatewaySettings
    folder : Path
        Made if missing. Holds the configuration, a copy of the tokens and ``logs/``.
    """

    def __init__(self, settings: GatewaySettings, folder: Path) -> None:
        self._settings, self._folder = settings, folder.resolve()
        self._nginx = find_nginx()
        self._process: Process | None = None
        self._tokens = ""
        self._former: set[int] = set()  # workers of configurations that were replaced

    @property
    def running(self) -> bool:
        """False before the start and once nginx has ended."""
        return self._process is not None and self._process.running

    def read_tokens(self) -> None:
        """Read the tokens file; what nginx serves changes with `configure` and the next start or reload.

        Raises
        ------
        InputError
            If the file is missing or broken; the tokens read before are kept.
        """
        self._tokens = format_tokens(read_tokens(self._settings.tokens))

    def configure(self, upstreams: Upstreams) -> None:
        """Write the configuration; what nginx serves changes with the next start or reload.

        Raises
        ------
        ServingError
            If nginx refuses the configuration.
        """
        for name in ("", "logs", "temp"):
            (self._folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, text in (render(self._settings, upstreams) | {"tokens.map": self._tokens}).items():
            write_private(self._folder / name, text)
        self._check()

    def start(self) -> None:
        """Start nginx and return when it accepts connections.

        Raises
        ------
        ServingError
            With nginx's own words if it ends instead.
        """
        self._process = Process(self._command(), self._folder / "logs" / "nginx.log")
        end = time.monotonic() + _START_SECONDS
        while not self._accepts():
            if not self._process.running or time.monotonic() > end:
                raise ServingError(f"nginx did not start: {self._last_words()}")
            time.sleep(0.05)

    def reload(self) -> None:
        """Let nginx read its configuration again and return when every new request meets it.

        Requests under way are finished by the former workers.

        Raises
        ------
        ServingError
            If nginx keeps the former configuration.
        """
        if self._process is None:
            return
        before = _children(self._process.pid)
        self._process.send(signal.SIGHUP)
        if not before:  # a system that does not tell
            return
        end = time.monotonic() + _RELOAD_SECONDS
        while not all(_accepts_no_more(worker) for worker in before & _children(self._process.pid)):
            if not self._process.running or time.monotonic() > end:
                raise ServingError(f"nginx kept its former configuration: {self._last_words()}")
            time.sleep(0.05)
        self._former |= before

    def drained(self) -> bool:
        """Tell whether all workers of former configurations have ended."""
        if self._process is not None:
            self._former &= _children(self._process.pid)
        return not self._former

    def stop(self) -> None:
        """End nginx; requests under way are finished first."""
        if self._process is not None:
            self._process.stop(_STOP_SECONDS, ask=signal.SIGQUIT, whole=False)
            self._process = None

    def _command(self) -> list[str]:
        error_log = str(self._folder / "logs" / "error.log")
        return [self._nginx, "-p", f"{self._folder}/", "-c", str(self._folder / "nginx.conf"), "-e", error_log]

    def _check(self) -> None:
        done = subprocess.run([*self._command(), "-t", "-q"], capture_output=True, text=True, check=False, timeout=30)
        if done.returncode:
            raise ServingError(f"nginx refuses its configuration: {done.stderr.strip().splitlines()[0]}")

    def _accepts(self) -> bool:
        try:
            socket.create_connection((self._settings.host, self._settings.port), timeout=1).close()
        except OSError:
            return False
        return True

    def _last_words(self) -> str:
        for name in ("nginx.log", "error.log"):
            log = self._folder / "logs" / name
            lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
            if lines:
                return lines[-1]
        return "no message"


def _accepts_no_more(worker: int) -> bool:
    """Tell whether a worker finishes its requests only: new workers stand beside the former for some 0.1 s."""
    try:
        return b"shutting down" in Path(f"/proc/{worker}/cmdline").read_bytes()
    except OSError:
        return True


def _children(parent: int) -> set[int]:
    """Return the processes that `parent` started (Linux)."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # ended meanwhile
            continue
        if int(fields[1]) == parent:
            found.add(int(stat.parent.name))
    return found
