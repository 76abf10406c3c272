"""Make accounts on a tracking server that asks for passwords, with the rights of their roles.

    MLFLOW_TRACKING_USERNAME=admin MLFLOW_TRACKING_PASSWORD=… python deploy/local/accounts.py SERVER NAME:ROLE=FILE…

Made again, an account stays as it is. The first line of FILE is the account's password. ROLE is `trainer` (runs,
experiments and models: everything but accounts) or `server` (reads only).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlflow.exceptions import MlflowException
from mlflow.server.auth.client import AuthServiceClient

_RIGHTS = {"trainer": "MANAGE", "server": "READ"}
_RESOURCES = ("experiment", "registered_model")


def make_account(server: str, name: str, role: str, password: str) -> None:
    """Create the user `name` if there is none, and grant what `role` may do on all experiments and models."""
    client = AuthServiceClient(server)
    with _unless_there():
        client.create_user(name, password)
    for resource in _RESOURCES:
        with _unless_there():
            client.grant_user_permission(name, resource, "*", _RIGHTS[role])


@contextmanager
def _unless_there() -> Iterator[None]:
    try:
        yield
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _main(server: str, *accounts: str) -> None:
    for account in accounts:
        who, _, file = account.partition("=")
        name, _, role = who.partition(":")
        if role not in _RIGHTS or not file:
            sys.exit(f"accounts.py: {account!r} is not NAME:ROLE=FILE with one of the roles {', '.join(_RIGHTS)}.")
        make_account(server, name, role, Path(file).read_text().splitlines()[0])


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    _main(*sys.argv[1:])
