"""Children end with their parent, whatever ends it, and grandchildren with them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from smartgrid_pyfunc.serving.processes import Process

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's help for this is Linux's"),
]

#: A program with a child of its own; both say when they are there. `stubborn` ones ignore being asked to end.
FAMILY = """
import signal, subprocess, sys, time
code = "import signal, sys, time; {}; print('child', flush=True); time.sleep(600)"
stubborn = "signal.signal(signal.SIGTERM, signal.SIG_IGN)" if "stubborn" in sys.argv else "pass"
if "stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", code.format(stubborn)])
print("parent", flush=True)
if "dies" in sys.argv:
    sys.exit(3)
time.sleep(600)
"""


def start(tmp_path: Path, *arguments: str) -> Process:
    return Process([sys.executable, "-c", FAMILY, *arguments], tmp_path / "log")


def await_text(path: Path, *texts: str) -> None:
    end = time.monotonic() + 30
    while not all(text in path.read_text() for text in texts):
        assert time.monotonic() < end, path.read_text()
        time.sleep(0.02)


@pytest.fixture
def family(tmp_path: Path) -> Iterator[Process]:
    process = start(tmp_path)
    await_text(tmp_path / "log", "parent", "child")
    yield process
    process.stop(5)


def session(process: Process) -> list[psutil.Process]:
    return [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]


def test_stopping_leaves_nothing_of_the_session(family: Process) -> None:
    members = session(family)
    assert len(members) == 2
    family.stop(10)
    assert not family.running
    assert not any(member.is_running() for member in members)


def test_what_does_not_end_when_asked_is_killed(tmp_path: Path) -> None:
    process = start(tmp_path, "stubborn")
    await_text(tmp_path / "log", "parent", "child")
    members = session(process)
    begun = time.monotonic()
    process.stop(0.5)
    assert 0.5 <= time.monotonic() - begun < 5
    _, alive = psutil.wait_procs(members, timeout=5)
    assert alive == []


def test_what_a_dead_program_left_is_ended_too(tmp_path: Path) -> None:
    process = start(tmp_path, "dies")
    await_text(tmp_path / "log", "parent", "child")
    end = time.monotonic() + 10
    while process.running:
        assert time.monotonic() < end
        time.sleep(0.02)
    (orphan,) = [p for p in psutil.process_iter() if _group(p) == process.pid and p.status() != "zombie"]
    process.stop(5)
    _, alive = psutil.wait_procs([orphan], timeout=5)
    assert alive == []


def _group(process: psutil.Process) -> int:
    try:
        return os.getpgid(process.pid)
    except ProcessLookupError:
        return 0


SUPERVISOR = """
import sys, time
from pathlib import Path
from smartgrid_pyfunc.serving.processes import Process, adopt_orphans
adopt_orphans()
process = Process([sys.executable, "-c", "import time; print('here', flush=True); time.sleep(600)"], Path(sys.argv[1]))
print(process.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_ends_with_its_parent_however_that_ends(repo: Path, tmp_path: Path, end: signal.Signals) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, str(tmp_path / "log")], cwd=repo, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    await_text(tmp_path / "log", "here")
    parent.send_signal(end)
    parent.wait(timeout=10)
    parent.stdout.close()
    _, alive = psutil.wait_procs([child], timeout=10)
    assert alive == []


def test_what_was_said_is_told_since_the_last_start_only(tmp_path: Path) -> None:
    log = tmp_path / "log"
    for word in ("first", "second"):
        process = Process([sys.executable, "-c", f"print('{word}')"], log)
        while process.running:
            time.sleep(0.02)
    assert process.said() == "second"
    assert log.read_text().split() == ["first", "second"]
    process.stop(1)
