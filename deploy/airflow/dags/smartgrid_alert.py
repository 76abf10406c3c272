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


def alert(what: str, *, where: str, severity: str, text: str, command: str, **more: Any) -> dict[str, Any]:
    """Log an alert and send it to the URL in ``SMARTGRID_WEBHOOK``, if there is one; never raises.

    Parameters
    ----------
    what : str
        Kind of the alert in one word, e.g. ``step_failed``.
    where : str
        Job and step.
    severity : str
        ``critical`` or ``warning``.
    text, command : str
        One sentence, and the command that shows more.
    **more
        Further fields of the alert.

    Returns
    -------
    dict
        What was sent: `text` for chat programs and a list `alerts`, as the monitor's message has them.
    """
    said = {
        "alert": what,
        "severity": severity,
        "where": where,
        "since": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "text": text,
        "command": command,
        **{name: value for name, value in more.items() if value},
    }
    message = {"text": f"{where}: {text}. {command}", "alerts": [said]}
    _LOG.error("alert: %s", json.dumps(said))
    send(message)
    return message


def send(message: Any) -> None:
    """Send `message` as JSON to the URL in ``SMARTGRID_WEBHOOK``, if there is one; a failure is logged."""
    if not (url := os.environ.get("SMARTGRID_WEBHOOK", "").strip()):
        return
    try:
        request = urllib.request.Request(url, json.dumps(message).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=_SECONDS):
            pass
    except (OSError, ValueError) as error:  # the URL may hold a secret: it is not named
        _LOG.error("the alert did not reach SMARTGRID_WEBHOOK: %s", getattr(error, "reason", type(error).__name__))
