"""Telling others: a webhook gets the alerts as JSON, a Pushgateway the metrics as text."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from smartgrid_pyfunc.lifecycle.errors import LifecycleError
from smartgrid_pyfunc.schema import InputError

_SECONDS = 10
_JOB = "smartgrid_monitor"


def check_address(address: str, name: str) -> str:
    """Return `address` if it is empty or an http(s) URL, otherwise raise `InputError`."""
    parts = urlsplit(address.strip())
    if address.strip() and (parts.scheme not in ("http", "https") or not parts.hostname):
        raise InputError(f"{name} must be an http or https URL", remedy="write https://host:port/path")
    return address.strip()


def push_metrics(address: str, model: str, text: str) -> None:
    """Put the metrics in the place of those of the former report of `model`.

    Raises
    ------
    LifecycleError
        If the Pushgateway does not take them within 10 s.
    """
    url = f"{address.rstrip('/')}/metrics/job/{_JOB}/model/{quote(model, safe='')}"
    _send(url, text.encode(), "PUT", "text/plain; version=0.0.4", "the Pushgateway")


def post_alerts(address: str, message: Mapping[str, Any]) -> None:
    """Post the alerts as one JSON object.

    Raises
    ------
    LifecycleError
        If the webhook does not answer with 2xx within 10 s.
    """
    _send(address, json.dumps(message).encode(), "POST", "application/json", "the webhook")


def _send(url: str, body: bytes, method: str, content: str, name: str) -> None:
    """Send `body`; the path of a webhook is often its secret, so an error names the host only."""
    request = urllib.request.Request(url, body, {"Content-Type": content}, method=method)
    place = f"{name} at {urlsplit(url).hostname}"
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS):
            return
    except urllib.error.HTTPError as error:
        reason = f"answered {error.code}"
    except (OSError, ValueError) as error:
        cause = getattr(error, "reason", error)
        reason = f"cannot be reached ({type(cause).__name__ if not str(cause) else cause})"
    raise LifecycleError(f"The run is logged, but {place} {reason}; check the address and that it listens.")
