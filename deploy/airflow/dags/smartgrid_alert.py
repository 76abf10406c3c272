"""An alert that a person gets: what, where, since when, how bad, the command to look closer; standard library only."""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
import urllib.request
from typing import Any

_LOG = logging.getLogger(__name__)
_SECONDS = 10


def alert(
    what: str, *, where: str, severity: str, summary: str, command: str, since: str = "", **more: Any
) -> dict[str, Any]:
    """Log an alert and send it as JSON to the URL in ``SMARTGRID_WEBHOOK``, if there is one; never raises.

    Parameters
    ----------
    what : str
        Kind of the alert in one word, e.g. ``step_failed``.
    where : str
        Job and step.
    severity : str
        ``critical`` or ``warning``.
    summary, command : str
        One sentence, and the command that shows more.
    since : str
        ISO 8601; empty: now.
    **more
        Further fields.

    Returns
    -------
    dict
        What was sent.
    """
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    said = {
        "alert": what,
        "where": where,
        "since": since or now,
        "severity": severity,
        "summary": summary,
        "command": command,
        **{name: value for name, value in more.items() if value},
    }
    _LOG.error("alert: %s", json.dumps(said))
    if url := os.environ.get("SMARTGRID_WEBHOOK", ""):
        _send(url, said)
    return said


def _send(url: str, said: dict[str, Any]) -> None:
    request = urllib.request.Request(url, json.dumps(said).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS):
            pass
    except (OSError, ValueError) as error:  # the URL may hold a secret: it is not named
        _LOG.error("the alert did not reach SMARTGRID_WEBHOOK: %s", getattr(error, "reason", type(error).__name__))
