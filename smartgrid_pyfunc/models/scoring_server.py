"""What MLflow's scoring server says of a request that it refuses itself, or that the model breaks on.

MLflow 3.17 repeats the whole request in such answers (``Input: …``, ``Failed to predict data …``) and adds a stack
trace with the paths of the server. A request may hold private data, and neither belongs into answers. The server has no
setting for it, so its function ``invocations`` is wrapped while a model is loaded into a serving process.
"""

from __future__ import annotations

import functools
import json
import logging
import re
import sys
from collections.abc import Callable
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR

from smartgrid_pyfunc.models.boundary import AnswerError, BadRequestError
from smartgrid_pyfunc.schema import InputError

_SERVER = "mlflow.pyfunc.scoring_server"
_KEYS = "dataframe_records, dataframe_split, inputs or instances"
_BROKEN = "the model failed on this request, which is a fault of the model or its server; the server's log tells more."
#: Starts of MLflow's messages → rule and remedy of ours.
_RULES = (
    (
        "The input must be a JSON dictionary with exactly one of the input fields",
        f"a request must be a JSON object with exactly one of {_KEYS}",
        'send {"dataframe_records": [{"sensor_id": …}]}',
    ),
    (
        "Parameters must be a dictionary",
        "params must be a JSON object",
        'send {"params": {"hours_ahead": 24}}',
    ),
    (
        "Failed to parse input as a Pandas DataFrame. Ensure that the input is a valid CSV",
        "a CSV request must be a table with a line of column names",
        "separate columns by commas and rows by line ends",
    ),
    (
        "Failed to parse input as a Pandas DataFrame. Ensure that the input is a valid Parquet",
        "a Parquet request must be one whole Parquet file",
        "send the bytes of the file",
    ),
)
_UNREADABLE = f"a request must hold a table under {_KEYS}"
_TYPES = {"long": "whole number", "double": "number", "boolean": "truth value (true or false)"}
_PARAMETER = re.compile(r"'(\w+)': (\w+) \(default: ")

_log = logging.getLogger(__name__)


def hide_requests_in_errors() -> None:
    """Wrap the server's function in this process, once; elsewhere than in a scoring server nothing happens."""
    server = sys.modules.get(_SERVER)
    if f"{_SERVER}.app" not in sys.modules or server is None:
        return
    answer: Callable[..., Any] = server.invocations
    if not hasattr(answer, "__wrapped__"):
        server.invocations = _without_request(answer)  # type: ignore[attr-defined]


def _without_request(answer: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(answer)
    def wrapped(*arguments: Any, **options: Any) -> Any:
        try:
            return answer(*arguments, **options)
        except AnswerError:
            raise
        except MlflowException as error:
            raise _plain(error) from None

    return wrapped


def _plain(error: MlflowException) -> AnswerError:
    """Return the error as one sentence; what MLflow's server took for a fault of the model is logged with its trace."""
    if error.message.startswith("Encountered an unexpected error"):
        _log.error("The model failed on a request:\n%s", error.json_kwargs.get("stack_trace"))
        return AnswerError(_BROKEN, INTERNAL_ERROR)
    return BadRequestError(str(_refusal(error)))


def _refusal(error: MlflowException) -> InputError:
    cause = error.__cause__
    if isinstance(cause, json.JSONDecodeError):
        place = f"line {cause.lineno}, column {cause.colno}"
        return InputError("a request must be valid JSON", place=place, remedy="check quotes and commas")
    if isinstance(cause, UnicodeDecodeError):
        return InputError("a request must be UTF-8 text", place=f"byte {cause.start + 1}", remedy="encode it as UTF-8")
    for start, rule, remedy in _RULES:
        if start in error.message:
            return InputError(rule, remedy=remedy)
    if parameter := _PARAMETER.search(error.message):
        return InputError(f"parameter {parameter[1]} must be a {_TYPES.get(parameter[2], parameter[2])}")
    return InputError(_UNREADABLE, remedy="send the rows as a list of objects, or columns and data")
