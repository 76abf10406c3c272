"""What really happened in service: forecasts as they were made, and the gateway's requests by version."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from smartgrid_pyfunc import predictions
from smartgrid_pyfunc.comparison.forecasts import LoadData, truth_of
from smartgrid_pyfunc.evaluation.comparison import KEYS
from smartgrid_pyfunc.lifecycle.versions import Named
from smartgrid_pyfunc.schema import InputError

_SERVER_ERROR, _CLIENT_ERROR = 500, 400


def forecasts_made(place: str, named: Sequence[Named], data: LoadData) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """Return what happened, and by version the forecasts that the table of predictions holds for the same hours.

    Raises
    ------
    InputError
        If the versions share no forecast.
    """
    parts = {}
    for version in named:
        table = predictions.read_forecasts(place, model=version.name, version=version.version)
        parts[f"version {version.version}"] = table.rename(columns={"predicted_load": "predicted"})
    shared = None
    for part in parts.values():
        keys = part[KEYS].drop_duplicates()
        shared = keys if shared is None else shared.merge(keys, on=KEYS)
    if shared is None or shared.empty:
        raise InputError("the versions must share forecasts in the table of predictions", place=place, found="none")
    return truth_of(data, shared), parts


def by_version(path: Path, model: str) -> pd.DataFrame:
    """Return requests, failures and latency of each version of `model` in a gateway's log.

    Parameters
    ----------
    path : Path
        Lines of JSON as the gateway writes them; other lines are counted and left out.
    model : str
        Registered name.

    Returns
    -------
    DataFrame
        ``version, variant, requests, client_errors, server_errors, p50_ms, p95_ms, first, last``.
    """
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError as error:
        raise InputError(
            "gateway_log must be a file that can be read", found=str(path), remedy=str(error.strerror)
        ) from None
    entries = pd.DataFrame([entry for line in lines if (entry := _entry(line)) and entry.get("model") == model])
    if entries.empty:
        raise InputError(
            f"gateway_log must hold answers of {model}", place=str(path), found=f"none in {len(lines)} lines"
        )
    entries["ms"] = 1000 * pd.to_numeric(entries["upstream_seconds"], errors="coerce")
    status = entries["status"].astype(int)
    entries["server"], entries["client"] = status >= _SERVER_ERROR, status.between(_CLIENT_ERROR, _SERVER_ERROR - 1)
    groups = entries.groupby(["model_version", "variant"])
    table = groups.agg(requests=("ms", "size"), client_errors=("client", "sum"), server_errors=("server", "sum"))
    table["p50_ms"], table["p95_ms"] = groups["ms"].median(), groups["ms"].quantile(0.95)
    table["first"], table["last"] = groups["time"].min(), groups["time"].max()
    return table.reset_index().rename(columns={"model_version": "version"})


def _entry(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
