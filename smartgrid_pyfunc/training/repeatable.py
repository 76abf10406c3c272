"""Trainings give the same model bit for bit, whatever the number of processors."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from threadpoolctl import threadpool_limits

_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")


def one_thread_in_linear_algebra(training: Callable[_Given, _Result]) -> Callable[_Given, _Result]:
    """Decorate a training: sums of linear algebra depend, in their last bits, on how many threads share them.

    Splits of trees and fallbacks that come after turn the last bits into visible differences. Estimators keep their
    own threads: each tree is one thread's work.
    """

    @wraps(training)
    def limited(*args: _Given.args, **kwargs: _Given.kwargs) -> _Result:
        with threadpool_limits(limits=1, user_api="blas"):
            return training(*args, **kwargs)

    return limited
