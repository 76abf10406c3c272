"""The commands that users know, without flags: MLflow's default environments, made by virtualenv and pyenv."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.e2e.support import clean_environment, free_port, fresh_clone, serving

pytestmark = pytest.mark.e2e


def test_the_bare_commands_work_where_pyenv_has_the_python(repo: Path, tmp_path: Path) -> None:
    """`mlflow run . -e load_forecasting -P n_estimators=200` and `mlflow models serve` by stage, as written."""
    pins = (repo / "python_env.yaml").read_text()
    version = next(line.split('"')[1] for line in pins.splitlines() if line.startswith("python:"))
    if shutil.which("pyenv") is None:
        pytest.skip("pyenv is not on PATH, and without it mlflow's default environment manager cannot work")
    have = subprocess.run(["pyenv", "versions", "--bare"], text=True, capture_output=True, check=True).stdout.split()
    if version not in have:
        pytest.skip(f"pyenv has no Python {version}")
    folder = fresh_clone(repo, tmp_path / "clone")
    mlflow = Path(sys.executable).parent
    clean = clean_environment()
    environment = clean | {"PATH": f"{mlflow}{os.pathsep}{clean['PATH']}", "MLFLOW_ENV_ROOT": str(tmp_path / "envs")}
    settings = {"cwd": folder, "env": environment, "text": True, "capture_output": True, "check": False}
    done = subprocess.run(
        ["mlflow", "run", ".", "-e", "load_forecasting", "-P", "n_estimators=200"], timeout=1800, **settings
    )
    assert done.returncode == 0, done.stderr[-4000:]
    promoted = subprocess.run(
        ["python", "entrypoints/training_pipeline.py", "--promote", "LoadForecastingModel"], timeout=300, **settings
    )
    assert promoted.returncode == 0, promoted.stderr
    port = free_port()
    command = ["mlflow", "models", "serve", "-m", "models:/LoadForecastingModel/Production", "-p", str(port)]
    with serving(command, port, log=tmp_path / "serve.log", env=environment, cwd=folder) as server:
        status, answer = server.post({"dataframe_records": [{"sensor_id": "all"}]})
    assert status == 200
    assert set(pd.DataFrame(answer["predictions"]).groupby("sensor_id").size()) == {24}
