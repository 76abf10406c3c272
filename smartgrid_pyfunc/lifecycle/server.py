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
_EXPECTED = (MlflowException, sqlalchemy.exc.SQLAlchemyError, OSError)
# The server answers, but an artifact goes neither in nor out.
_STORE_FAILS = re.compile(r"mlflow-artifacts.*(?:error code 5\d\d|too many 5\d\d|5\d\d Server Error)", re.DOTALL)
_UNREACHABLE = re.compile(r"Max retries exceeded|failed with exception|timed out|Connection refused", re.IGNORECASE)
# By MLflow's code: accounts of a tracking server that asks for passwords.
_REFUSED = {
    "UNAUTHENTICATED": "does not know this account; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
    "PERMISSION_DENIED": "does not allow this; use an account that may write, or an address of its --allowed-hosts",
}


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
    except Exception as error:
        if not isinstance(error, _EXPECTED) and not _is_of_store(error):
            raise
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
    if isinstance(error, MlflowException) and (refusal := _REFUSED.get(error.error_code)):
        return f"Could not {action}: the MLflow tracking server at {_server()} {refusal}."
    if _STORE_FAILS.search(str(error)):
        return (
            f"Could not {action}: the MLflow tracking server at {_server()} cannot use its artifact store; "
            "check the store, its bucket and the keys that the server was started with (its log says more)."
        )
    if _is_of_store(error):
        return f"Could not {action}: the artifact store says: {reason.rstrip('.')}; check its address, bucket and keys."
    if _UNREACHABLE.search(str(error)):
        return _unreachable(action, "no answer" if "Max retries" in reason else reason)
    return f"Could not {action}: {reason.rstrip('.')}."


def _unreachable(action: str, reason: str) -> str:
    return (
        f"Could not {action}: the MLflow tracking server at {_server()} cannot be reached ({reason}); "
        "start it, or set MLFLOW_TRACKING_URI to the right address."
    )


def _is_of_store(error: BaseException) -> bool:
    """Tell an error of the S3 client by its home: it is not imported where nobody uses it."""
    return type(error).__module__.partition(".")[0] in ("boto3", "botocore")


def _server() -> str:
    return mask_secrets(mlflow.get_tracking_uri())


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return mask_secrets(lines[0]) if lines else type(error).__name__
