"""The machine: Python and its packages, environment managers, programs, ports."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from smartgrid_pyfunc.doctor.examination import Check, Finding, State
from smartgrid_pyfunc.serving.ports import LOOPBACK, is_free

_ROOT = Path(__file__).resolve().parents[2]
_PYTHON = (3, 11)
_PIN = re.compile(r"^([\w.-]+)==([\w.]+)$", re.MULTILINE)
_SHOWN = 3


def checks(ports: Sequence[tuple[str, int]]) -> list[Check]:
    """Return the checks of the machine; `ports` are those that `serve` would take, by their parameter."""
    return [
        Check("python", _python),
        Check("packages", _packages),
        Check("environment managers", _managers),
        Check("gateway program", _nginx),
        Check("ports", lambda: _ports(ports)),
    ]


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] == _PYTHON:
        return Finding("python", State.OK, f"{version}, {sys.executable}")
    wanted = ".".join(map(str, _PYTHON))
    return Finding("python", State.FAILED, f"{version} instead of {wanted}", f"python{wanted} -m venv .venv")


def _packages() -> Finding:
    file = _ROOT / "requirements.txt"
    if not file.is_file():
        return Finding("packages", State.UNUSED, "not run from a checkout")
    pins = dict(_PIN.findall(file.read_text(encoding="utf-8")))
    wrong = [f"{name} {found or 'is missing'} (pinned: {pin})" for name, pin in pins.items()
             if (found := _installed(name)) != pin]  # fmt: skip
    if not wrong:
        return Finding("packages", State.OK, f"{len(pins)} packages as pinned")
    more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
    return Finding("packages", State.FAILED, "; ".join(wrong[:_SHOWN]) + more, "pip install -r requirements.txt")


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _managers() -> Finding:
    """`mlflow run` without flags needs virtualenv and pyenv; with ``--env-manager uv``, uv; ``conda``, conda."""
    found = [name for name, programs in _MANAGERS.items() if all(shutil.which(each) for each in programs)]
    if found:
        return Finding("environment managers", State.OK, ", ".join([*found, "local"]))
    said = "only local: neither uv, nor virtualenv with pyenv, nor conda is on the PATH"
    return Finding(
        "environment managers", State.WARNING, said, "add --env-manager local to mlflow run, or pip install uv"
    )


_MANAGERS = {"virtualenv": ("virtualenv", "pyenv"), "uv": ("uv",), "conda": ("conda",)}


def _nginx() -> Finding:
    from smartgrid_pyfunc.serving.gateway import find_nginx

    return Finding("gateway program", State.OK, find_nginx())


def _ports(ports: Sequence[tuple[str, int]]) -> Finding:
    taken = [f"{port} ({name})" for name, port in ports if not is_free(port, LOOPBACK)]
    if not taken:
        return Finding("ports", State.OK, ", ".join(str(port) for _, port in ports) + " are free")
    said = f"in use: {', '.join(taken)}"
    remedy = "nothing if `serve` runs already; else choose others with -P PARAMETER=PORT"
    return Finding("ports", State.WARNING, said, remedy)
