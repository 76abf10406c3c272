"""Talking to the tracking server and the registry: bounded waits, errors in plain words."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import mlflow
import sqlalchemy
from mlflow.exceptions import MlflowException

from smartgrid_pyfunc.lifecycle.errors import LifecycleError, mask_secrets

# MLflow's own defaults (7 retries, 120 s each) let a wrong address hang for minutes before the first word.
_BOUNDS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
_CONNECT_SECONDS = 10
_DATABASES = ("postgresql", "mysql")
_UNREACHABLE = re.compile(r"Max retries exceeded|failed with exception|timed out|Connection refused", re.IGNORECASE)


@contextmanager
def bounded_wait() -> Iterator[None]:
    """Let MLflow's HTTP requests give up within seconds; what the user has set in the environment stays."""
    added = [name for name in _BOUNDS if name not in os.environ]
    os.environ.update({name: _BOUNDS[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextmanager
def plain_errors(action: str) -> Iterator[None]:
    """Turn MLflow's errors into a `LifecycleError` that says what could not be done, and why.

    Parameters
    ----------
    action : str
        What is being tried, to follow "Could not", e.g. ``"open a run"``.
    """
    try:
        yield
    except (MlflowException, sqlalchemy.exc.SQLAlchemyError, OSError) as error:
        raise LifecycleError(_explanation(action, error)) from error


def check_reachable() -> None:
    """Raise `LifecycleError` if a tracking database cannot be reached within seconds.

    MLflow retries a database for some 100 seconds; servers over HTTP are bounded by `bounded_wait` instead.
    """
    uri = mlflow.get_tracking_uri()
    if not uri.startswith(_DATABASES):
        return
    try:
        engine = sqlalchemy.create_engine(uri, connect_args={"connect_timeout": _CONNECT_SECONDS})
        with engine.connect():
            pass
        engine.dispose()
    except (sqlalchemy.exc.SQLAlchemyError, ImportError) as error:
        raise LifecycleError(_unreachable("reach the tracking database", _first_line(error))) from error


def _explanation(action: str, error: Exception) -> str:
    reason = _first_line(error)
    if _UNREACHABLE.search(str(error)):
        return _unreachable(action, "no answer" if "Max retries" in reason else reason)
    return f"Could not {action}: {reason.rstrip('.')}."


def _unreachable(action: str, reason: str) -> str:
    uri = mask_secrets(mlflow.get_tracking_uri())
    return (
        f"Could not {action}: the MLflow tracking server at {uri} cannot be reached ({reason}); "
        "start it, or set MLFLOW_TRACKING_URI to the right address."
    )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return mask_secrets(lines[0]) if lines else type(error).__name__
