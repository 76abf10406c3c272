"""Where a model meets MLflow's server: bad input becomes an HTTP 4xx with one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from smartgrid_pyfunc.schema import InputError


class BadRequestError(MlflowException):
    """An answer with status 400 whose message stays the sentence it was made with.

    MLflow's scoring server puts the text of the whole request before the message of every `MlflowException`; a request
    may hold private data and does not belong into answers and logs, so later writes to `message` have no effect.
    """

    def __init__(self, sentence: str) -> None:
        self._sentence = sentence
        super().__init__(sentence, error_code=INVALID_PARAMETER_VALUE)

    @property
    def message(self) -> str:
        """The sentence."""
        return self._sentence

    @message.setter
    def message(self, value: Any) -> None:
        """Ignore what others would make of the message."""


@contextmanager
def refusing_bad_input() -> Iterator[None]:
    """Turn an `InputError` of the block into a `BadRequestError` without a trace."""
    try:
        yield
    except InputError as error:
        raise BadRequestError(str(error)) from None
