"""Where a model meets MLflow's server: a request becomes a table, bad input an HTTP 4xx with one sentence."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from smartgrid_pyfunc.schema import InputError

MAX_ROWS_VARIABLE = "SMARTGRID_MAX_ROWS"
_MAX_ROWS = 2_000_000


class AnswerError(MlflowException):
    """An answer with an error's status whose message stays the sentence it was made with.

    MLflow's scoring server puts the text of the whole request before the message of every `MlflowException`; a request
    may hold private data and does not belong into answers and logs, so later writes to `message` have no effect.
    """

    def __init__(self, sentence: str, error_code: int) -> None:
        self._sentence = sentence
        super().__init__(sentence, error_code=error_code)

    @property
    def message(self) -> str:
        """The sentence."""
        return self._sentence

    @message.setter
    def message(self, value: Any) -> None:
        """Ignore what others would make of the message."""


class BadRequestError(AnswerError):
    """An answer with status 400 and one sentence."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, INVALID_PARAMETER_VALUE)


@contextmanager
def refusing_bad_input() -> Iterator[None]:
    """Turn an `InputError` of the block into a `BadRequestError` without a trace."""
    try:
        yield
    except InputError as error:
        raise BadRequestError(str(error)) from None


def read_table(model_input: Any) -> pd.DataFrame:
    """Return the request's table; MLflow hands over ``inputs`` and ``instances`` of JSON as lists and dictionaries.

    Raises
    ------
    InputError
        For anything that is not a table with named columns, for none and for too many rows (the environment variable
        ``SMARTGRID_MAX_ROWS`` sets how many are too many).
    """
    table = _table(model_input)
    limit = max_rows()
    if len(table) == 0:
        raise InputError("a request must hold at least one row", remedy="send a row for each hour or reading")
    if len(table) > limit:
        raise InputError(f"a request may hold at most {limit} rows", found=len(table), remedy="send it in parts")
    return table


def max_rows() -> int:
    """Return how many rows a request may hold: the environment variable ``SMARTGRID_MAX_ROWS``, else two million.

    Raises
    ------
    InputError
        If the variable is no whole number above 0.
    """
    text = os.environ.get(MAX_ROWS_VARIABLE, "").strip()
    if not text:
        return _MAX_ROWS
    if not text.isdecimal() or int(text) == 0:
        raise InputError(
            f"{MAX_ROWS_VARIABLE} must be a whole number above 0",
            place="environment",
            found=repr(text),
            remedy="set it to the most rows that a request may hold, or unset it",
        )
    return int(text)


def _table(model_input: Any) -> pd.DataFrame:
    if isinstance(model_input, pd.DataFrame):
        return model_input
    try:
        if isinstance(model_input, dict):
            return pd.DataFrame(model_input)
        if isinstance(model_input, list) and isinstance(model_input[0], dict):
            return pd.DataFrame([{name: _plain(value) for name, value in row.items()} for row in model_input])
    except (ValueError, TypeError, IndexError, AttributeError):
        pass  # ragged or scalar columns: told below
    raise InputError(
        "a request must be a table with named columns",
        found=f"a {type(model_input).__name__}",
        remedy='send {"dataframe_records": [{"sensor_id": …}]}',
    )


def _plain(value: Any) -> Any:
    """Undo the wrapping of single values in arrays that MLflow does to ``inputs``."""
    return value.item() if isinstance(value, np.ndarray) and value.ndim == 0 else value
