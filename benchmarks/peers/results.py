"""Kept results: the figures of a (set, window, method) as a JSON file beside its forecasts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_figures(job: dict[str, Any]) -> dict[str, Any] | None:
    """Return the figures kept for `job`, None without any or where they were made with other settings or sources."""
    file = Path(job["target"] + ".json")
    if not file.is_file():
        return None
    figures: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    ignored = {"code"} if job["any_code"] else set()
    same = all(figures["settings"].get(key) == value for key, value in job["settings"].items() if key not in ignored)
    return figures if same else None
