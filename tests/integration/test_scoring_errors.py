"""What the server's wrapped function says of a model that breaks, and that it stays out of other processes."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import mlflow
import pytest
from mlflow.pyfunc import scoring_server

from smartgrid_pyfunc.models.boundary import AnswerError
from smartgrid_pyfunc.models.scoring_server import _without_request, hide_requests_in_errors

pytestmark = pytest.mark.integration

BROKEN = """
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel


class Broken(PythonModel):
    def predict(self, context, model_input, params=None):
        return {}["private key"]


set_model(Broken())
"""


def test_a_broken_model_is_a_500_with_one_sentence_and_its_trace_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    mlflow.pyfunc.save_model(tmp_path / "model", python_model=str(tmp_path / "broken.py"), pip_requirements=["mlflow"])
    model = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    answer = _without_request(scoring_server.invocations)
    body = json.dumps({"dataframe_records": [{"sensor_id": "private sensor"}]})
    with caplog.at_level(logging.ERROR), pytest.raises(AnswerError) as caught:
        answer(body, "application/json", model, None)
    assert caught.value.get_http_status_code() == 500
    text = caught.value.serialize_as_json()
    assert "the model failed on this request" in text
    for leak in ("private", "Traceback", "KeyError", str(tmp_path), ".py"):
        assert leak not in text
    assert "KeyError: 'private key'" in caplog.text
    assert "private sensor" not in caplog.text


def test_nothing_is_wrapped_outside_a_server() -> None:
    before = scoring_server.invocations
    hide_requests_in_errors()
    assert scoring_server.invocations is before
