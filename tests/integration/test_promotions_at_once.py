"""Promotions at once and promotions killed half-way: real processes on a real registry."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import mlflow
import pytest
from mlflow.models import Model

from smartgrid_pyfunc.lifecycle import decisions, registry
from smartgrid_pyfunc.schema import LOAD_MODEL

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
_START = f"""
import os, signal, sys, time
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
import mlflow
from smartgrid_pyfunc.lifecycle import registry
from smartgrid_pyfunc.lifecycle.errors import PromotionRefused
from smartgrid_pyfunc.schema import LOAD_MODEL
"""


@pytest.fixture
def store(tracking: str) -> mlflow.MlflowClient:
    return mlflow.MlflowClient()


def _versions(store: mlflow.MlflowClient, count: int) -> list[str]:
    folder = Path("stored-model").resolve()
    folder.mkdir()
    Model().save(str(folder / "MLmodel"))
    store.create_registered_model(LOAD_MODEL)
    numbers = []
    for _ in range(count):
        run = store.create_run("0")
        for name, value in {"test_mae": 1.0, "naive_mae": 2.0}.items():
            store.log_metric(run.info.run_id, name, value)
        store.set_terminated(run.info.run_id)
        numbers.append(str(store.create_model_version(LOAD_MODEL, folder.as_uri(), run.info.run_id).version))
    return numbers


def _holders(store: mlflow.MlflowClient) -> tuple[list[str], str]:
    """Return the versions in Production and the one with the alias."""
    found = store.search_model_versions(f"name = '{LOAD_MODEL}'")
    held = store.get_registered_model(LOAD_MODEL).aliases
    return [str(v.version) for v in found if v.current_stage == "Production"], str(held.get("champion", ""))


def _started(code: str, *arguments: str) -> subprocess.Popen[str]:
    script = _START + textwrap.dedent(code)
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments], env=os.environ, stderr=subprocess.PIPE, text=True
    )


def test_promotions_at_once_end_with_one_version_in_production_and_its_alias(store):
    numbers = _versions(store, 3)
    code = """
        Path(f"ready-{sys.argv[1]}").touch()
        while not Path("go").exists():
            time.sleep(0.01)
        for _ in range(2):
            try:
                registry.promote(LOAD_MODEL, version=sys.argv[1])
            except PromotionRefused as refusal:
                assert "at the same moment" in str(refusal), refusal
    """
    running = [_started(code, number) for number in numbers]
    deadline = time.monotonic() + 120
    while sum(1 for _ in Path().glob("ready-*")) < len(numbers) and time.monotonic() < deadline:
        time.sleep(0.2)
    Path("go").touch()
    for process in running:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
    (champion,), alias = _holders(store)  # nothing was repaired in between
    assert alias == champion
    registry.repair(LOAD_MODEL)  # the order of two decisions of one moment may still be told wrongly
    assert registry.inconsistencies(LOAD_MODEL) == []
    assert _holders(store) == ([champion], champion)
    taken = decisions.of_model(LOAD_MODEL)
    assert len([entry for entry in taken if entry.by != "repair"]) == 6
    assert {entry.verdict for entry in taken} <= {"promoted", "refused", "repaired"}
    assert decisions.stages_after(taken)["Production"].version == champion


_KILLED = """
WRITES = ("set_registered_model_tag", "set_registered_model_alias",
          "delete_registered_model_alias", "transition_model_version_stage", "log_batch", "create_run", "log_text",
          "set_terminated")

def dying_at(last):
    made = [0]
    for name in WRITES:
        def counted(*args, real=getattr(mlflow.MlflowClient, name), **settings):
            made[0] += 1
            if made[0] == last:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **settings)
        setattr(mlflow.MlflowClient, name, counted)

def apart(action):
    # The store is opened in the child only: a connection must not be shared over a fork.
    child = os.fork()
    if child == 0:
        code = 1
        try:
            action()
            code = 0
        except BaseException:
            import traceback
            traceback.print_exc()
        os._exit(code)
    return os.waitpid(child, 0)[1]

def promote(last):
    dying_at(last)
    registry.promote(LOAD_MODEL, version=sys.argv[1])

def mended():
    client = mlflow.MlflowClient()
    stages = {v.version: v.current_stage for v in client.search_model_versions(f"name = '{LOAD_MODEL}'")}
    assert "Production" in stages.values(), stages  # never a moment without a version to serve
    registry.repair(LOAD_MODEL)
    assert registry.inconsistencies(LOAD_MODEL) == [], registry.inconsistencies(LOAD_MODEL)
    stages = {str(v.version): v.current_stage for v in client.search_model_versions(f"name = '{LOAD_MODEL}'")}
    (champion,) = [number for number, stage in stages.items() if stage == "Production"]
    assert str(client.get_registered_model(LOAD_MODEL).aliases["champion"]) == champion
    held, _ = registry.audit(LOAD_MODEL)
    assert held["Production"].version == champion
    registry.promote(LOAD_MODEL, version=sys.argv[2])

assert apart(lambda: registry.promote(LOAD_MODEL, version=sys.argv[2])) == 0
killed = 0
while True:
    code = apart(lambda: promote(killed + 1))
    if code == 0:
        break
    assert code == signal.SIGKILL, code
    killed += 1
    assert apart(mended) == 0, f"after {killed} writes"
print(killed, file=sys.stderr)
"""


def test_a_promotion_killed_before_any_of_its_writes_is_mended_by_the_next_call(store):
    first, second = _versions(store, 2)
    process = _started(_KILLED, second, first)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert int(said.strip().splitlines()[-1]) > 8  # so many moments were tried
