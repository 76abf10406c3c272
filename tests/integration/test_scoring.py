"""Scoring with registered versions, each in a process of its own: real registry, real processes, real models."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import psutil
import pytest

from smartgrid_pyfunc.lifecycle.errors import LifecycleError
from smartgrid_pyfunc.lifecycle.packaging import log_model
from smartgrid_pyfunc.lifecycle.registry import promote, register
from smartgrid_pyfunc.lifecycle.scoring import open_scorer
from smartgrid_pyfunc.models.load_forecasting import LoadForecastingModel
from smartgrid_pyfunc.schema import LOAD_MODEL, InputError

pytestmark = pytest.mark.integration

_CODE = """
import mlflow, os, sys
from mlflow.exceptions import MlflowException


class Answering(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        from smartgrid_pyfunc.answer import ANSWER

        self.answer = ANSWER

    def predict(self, context, model_input, params=None):
        print("a model that prints")
        if "crash" in model_input:
            os._exit(7)
        if "broken" in model_input:
            raise RuntimeError("division by zero at postgresql://me:secret@host/db")
        if "refused" in model_input:
            raise MlflowException("rule broken; found x; do y", error_code=3)
        import smartgrid_pyfunc
        return model_input.assign(answer=self.answer, code=smartgrid_pyfunc.__file__, path="|".join(sys.path))

mlflow.models.set_model(Answering())
"""


def _version(folder: Path, answer: str, metrics: dict[str, float] | None = None) -> str:
    """Register a version whose bundled package says `answer`."""
    package = folder / answer / "smartgrid_pyfunc"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "answer.py").write_text(f"ANSWER = {answer!r}\n")
    code = folder / answer / "code.py"
    code.write_text(_CODE)
    with mlflow.start_run() as run:
        mlflow.log_metrics(metrics or {"test_mae": 1.0, "naive_mae": 2.0})
        mlflow.pyfunc.log_model(
            name="model", python_model=str(code), code_paths=[str(package)], pip_requirements=["mlflow"]
        )
    return register(run.info.run_id, LOAD_MODEL)


@pytest.fixture
def rows() -> pd.DataFrame:
    return pd.DataFrame({"x": [1.0, np.nan], "sensor_id": ["a", "Zähler ß"]}, index=[7, 3])


def test_two_versions_open_at_once_run_their_own_code_and_nothing_of_the_checkout(
    tracking, tmp_path, monkeypatch, repo, rows
):
    first, second = _version(tmp_path, "one"), _version(tmp_path, "two")
    monkeypatch.setenv("PYTHONPATH", str(repo))
    before = rows.copy()
    with open_scorer(f"models:/{LOAD_MODEL}/{first}") as a, open_scorer(LOAD_MODEL, second) as b:
        answers = [scorer.predict(rows, {}) for scorer in (a, b, a)]
        found = [a.name, a.version, a.variant, b.version]
        assert a.size_bytes > 100
        assert 0 < a.load_seconds < 60
        assert 0 <= a.predict_seconds < 10
    assert found == [LOAD_MODEL, first, "", second]
    assert [answer["answer"].unique().tolist() for answer in answers] == [["one"], ["two"], ["one"]]
    for answer in answers:
        assert list(answer.index) == [0, 1]
        assert answer["sensor_id"].tolist() == rows["sensor_id"].tolist()
        assert str(repo) not in answer["code"][0]
        assert str(repo) not in answer["path"][0].split("|")
    pd.testing.assert_frame_equal(rows, before)


def test_stage_and_alias_are_looked_up_once(tracking, tmp_path, rows):
    first, second = _version(tmp_path, "one"), _version(tmp_path, "two")
    promote(LOAD_MODEL, version=first)
    with open_scorer(f"models:/{LOAD_MODEL}@champion") as scorer:
        promote(LOAD_MODEL, version=second)
        assert (scorer.version, scorer.variant) == (first, "champion")
        assert scorer.predict(rows)["answer"][0] == "one"
    promote(LOAD_MODEL, version=first, stage="Staging")
    with open_scorer(f"models:/{LOAD_MODEL}/Staging") as scorer:
        assert (scorer.version, scorer.variant) == (first, "challenger")


def test_a_refusal_a_failure_and_a_crash_are_told_apart_and_no_process_stays(tracking, tmp_path, rows):
    _version(tmp_path, "one")
    with open_scorer(LOAD_MODEL) as scorer:
        assert scorer._process
        process = psutil.Process(scorer._process.pid)
        with pytest.raises(InputError, match=f"models:/{LOAD_MODEL}/1 refuses the request: rule broken; found x; do y"):
            scorer.predict(rows.assign(refused=1))
        with pytest.raises(LifecycleError, match=r"failed: division by zero at postgresql://\*\*\*@host"):
            scorer.predict(rows.assign(broken=1))
        assert len(scorer.predict(rows)) == 2  # after both it still answers
        with pytest.raises(InputError, match="values of one type"):
            scorer.predict(pd.DataFrame({"x": [1, "a"]}))
        with pytest.raises(LifecycleError, match=r"ended \(exit code 7\)"):
            scorer.predict(rows.assign(crash=1))
    with open_scorer(LOAD_MODEL) as scorer:
        assert scorer._process
        os.kill(scorer._process.pid, signal.SIGKILL)
        with pytest.raises(LifecycleError, match="signal 9"):
            scorer.predict(rows)
    assert not process.is_running()
    with pytest.raises(LifecycleError, match="closed"):
        scorer.predict(rows)


def test_what_names_no_version_is_told(tracking, tmp_path):
    for text, error, said in (
        ("models:/Nothing/1", LifecycleError, "No model named 'Nothing'"),
        ("runs:/abc/model", InputError, "model URI or a registered name"),
        (f"models:/{LOAD_MODEL}", InputError, "must name one version"),
    ):
        with pytest.raises(error, match=said), open_scorer(text):
            pass
    _version(tmp_path, "one")
    for place in ("Production", "@champion", "@champagne"):
        uri = f"models:/{LOAD_MODEL}{'' if place[0] == '@' else '/'}{place}"
        with pytest.raises(LifecycleError, match=f"has no version .*{place.lstrip('@')}"), open_scorer(uri):
            pass
    with pytest.raises(LifecycleError, match="no version 5; there are: 1"), open_scorer(f"models:/{LOAD_MODEL}/5"):
        pass


def test_a_forecast_is_that_of_the_model_in_this_process(tracking):
    hour = np.arange(30 * 24)
    hourly = pd.DataFrame(
        {
            "sensor_id": "feeder",
            "timestamp": pd.Timestamp("2024-03-01", tz="UTC") + pd.to_timedelta(hour, unit="h"),
            "avg_value": 3 + np.sin(hour / 24 * 2 * np.pi) + np.random.default_rng(0).normal(0, 0.1, len(hour)),
        }
    )
    model = LoadForecastingModel(n_estimators=4).fit(hourly)
    with mlflow.start_run() as run:
        log_model(model, LOAD_MODEL, pd.DataFrame({"sensor_id": ["feeder"]}))
    register(run.info.run_id, LOAD_MODEL)
    request = hourly.tail(300)
    with open_scorer(LOAD_MODEL) as scorer:
        answer = scorer.predict(request, {"hours_ahead": 5, "level": 0.8})
    expected = model.predict(None, request, {"hours_ahead": 5, "level": 0.8, "use_ml": True, "explain": False})
    pd.testing.assert_frame_equal(answer, expected[answer.columns], check_dtype=False)
