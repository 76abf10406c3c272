"""Score kept forecasts on the same rows and set the tables."""

from __future__ import annotations

import math
import os
import platform
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from peers.results import read_figures
from peers.task import DAY, HOUR, SETS, WINDOW_DAYS, Task
from smartgrid_pyfunc.evaluation.metrics import coverage, mae, naive_scales, pinball, rmse

_KEY = ["sensor_id", "timestamp"]
_NAIVE = {"seasonal naive, 24 h": "naive_24", "seasonal naive, 168 h": "naive_168"}
_LEVELS = (0.8, 0.9, 0.95)
_OURS = "ours RF"
_QUANTILES = "quantiles"  # family
_HAC_LAGS = 7  # days
_SHORTEST_DAY = 23  # hours, when clocks go forward

Jobs = Iterable[dict[str, Any]]


def tables(jobs: Jobs) -> str:
    """Return the Markdown of every set and the comparison over sets; what failed or is missing is said."""
    jobs = list(jobs)
    scored = {name: _score_set([job for job in jobs if job["set"] == name]) for name in _unique(jobs, "set")}
    scored = {name: rows for name, rows in scored.items() if rows is not None}
    parts = [_set_table(name, rows) for name, rows in scored.items()]
    ends = [_against_peers(scored, jobs), _against_quantiles(scored, jobs), _environment(jobs)]
    return "\n".join([_summary(scored, jobs), *parts, *ends])


def _summary(scored: dict[str, pd.DataFrame], jobs: list[dict[str, Any]]) -> str:
    """Return one row a set: ours, the best peer and the better naive, and how ours compare with that peer."""
    families = _families(jobs)
    own = dict.fromkeys(job["method"] for job in jobs if job["adapter"] == "ours")
    head = [*(f"{name}" for name in own), "best peer", "best peer's forest", "better naive"]
    head += [*(f"{name} / best peer" for name in own), f"coverage of {_OURS} at 80/90/95 [%]"]
    lines = ["### MAE, all sets", "", "| data | " + " | ".join(head) + " |", "|---|" + "---:|" * len(head)]
    for name, rows in scored.items():
        means = rows.groupby("method")["mae"].mean()
        peers = means.reindex(list(families)).dropna()
        forests = peers[[families[peer] == "forest" for peer in peers.index]]
        best = [f"{part.min():.4g} ({part.idxmin()})" if len(part) else "–" for part in (peers, forests)]
        cells = [_cell(means.get(method), "{:.4g}") for method in own]
        cells += [*best, f"{means[list(_NAIVE)].min():.4g}"]
        cells += [_cell(means.get(method, math.nan) / peers.min(), "{:.3f}") for method in own]
        coverage = rows[rows["method"] == _OURS].drop(columns=["method", "window", "daily"]).mean().to_dict()
        cells.append(_joined(coverage, "coverage", 100, "{:.1f}"))
        lines.append(f"| {SETS[name].title} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def _families(jobs: list[dict[str, Any]]) -> dict[str, str]:
    """Return the family of each peer of the point forecasts; the quantile models are there for their intervals."""
    return {j["method"]: j["family"] for j in jobs if j["adapter"] != "ours" and j["family"] != _QUANTILES}


def _unique(jobs: list[dict[str, Any]], key: str) -> list[str]:
    return list(dict.fromkeys(job[key] for job in jobs))


def _score_set(jobs: list[dict[str, Any]]) -> pd.DataFrame | None:
    """Return a row per window and method; methods count only where they have every window."""
    rows = []
    for window in _unique(jobs, "window"):
        rows += _score_window([job for job in jobs if job["window"] == window])
    if not rows:
        return None
    table = pd.DataFrame(rows)
    complete = table.groupby("method")["window"].transform("nunique") == table["window"].nunique()
    for name in table.loc[~complete, "method"].unique():
        print(f"{jobs[0]['set']}, {name}: left out, windows are missing", file=sys.stderr)
    return table[complete]


def _score_window(jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    kept = [(job, figures) for job in jobs if (figures := read_figures(job))]
    if not kept:
        return []
    settings = kept[0][0]["settings"]
    task = Task.make(
        jobs[0]["set"], jobs[0]["window"], Path(jobs[0]["data"]), settings["years"], settings["most_sensors"]
    )
    truth, scales = _truth(task), naive_scales(task.train)
    rows = [_point_figures(truth.assign(predicted=truth[lag]), scales) | {"method": n} for n, lag in _NAIVE.items()]
    for job, figures in kept:
        forecasts = truth.merge(pd.read_parquet(job["target"] + ".parquet"), on=_KEY, how="left")
        row = _point_figures(forecasts, scales) | _interval_figures(forecasts)
        rows.append(row | {name: figures[name] for name in ("method", "fit_cpu_s", "forecast_cpu_ms", "peak_mb")})
    floor = min(row["mae"] for row in rows[:2])
    return [row | {"skill": 1 - row["mae"] / floor, "window": jobs[0]["window"]} for row in rows]


def _truth(task: Task) -> pd.DataFrame:
    """Return the scored rows: actual, both naives and the origin's own hour are known."""
    load = task.frame.drop_duplicates(_KEY).set_index(_KEY)["avg_value"]
    start = task.frame["sensor_id"].map(task.starts)
    lead = task.frame["timestamp"] - start
    rows = task.frame[(lead >= pd.Timedelta(0)) & (lead < WINDOW_DAYS * DAY)].drop_duplicates(_KEY)
    rows = rows[_KEY].assign(actual=rows["avg_value"], day=rows["timestamp"].dt.floor("D"))
    for lag in (24, 168):
        rows[f"naive_{lag}"] = _at(load, rows["sensor_id"], rows["timestamp"] - lag * HOUR)
    rows["local_day"] = rows["timestamp"].dt.tz_localize("UTC").dt.tz_convert(task.timezone).dt.date
    rows["day_number"] = (rows["day"] - rows["sensor_id"].map(task.starts)) // DAY
    rows["origin"] = _at(load, rows["sensor_id"], rows["day"] - HOUR)
    return rows.dropna().reset_index(drop=True)


def _at(load: pd.Series, sensor: pd.Series, time: pd.Series) -> np.ndarray[Any, Any]:
    return load.reindex(pd.MultiIndex.from_arrays([sensor, time])).to_numpy()


def _point_figures(forecasts: pd.DataFrame, scales: pd.Series) -> dict[str, Any]:
    """Means over sensors; a method that leaves a row out has no figures but the number of such rows."""
    missing = int(forecasts["predicted"].isna().sum())
    if missing:
        return {"mae": math.nan, "missing": missing}
    groups = list(forecasts.groupby("sensor_id"))
    by_sensor = pd.Series({s: mae(rows["actual"], rows["predicted"]) for s, rows in groups})
    return {
        "mae": float(by_sensor.mean()),
        "rmse": float(np.mean([rmse(rows["actual"], rows["predicted"]) for _, rows in groups])),
        "mase": float((by_sensor / scales.reindex(by_sensor.index)).mean()),
        **_peak_figures(forecasts),
        "total_mae": _total_mae(forecasts, len(groups)),
        "daily": _daily_loss(forecasts),
        "missing": 0,
    }


def _peak_figures(forecasts: pd.DataFrame) -> dict[str, float]:
    """Error of the day's largest load, mean over sensors, and of its hour, over complete local days."""
    groups = forecasts.groupby(["sensor_id", "local_day"])
    days = groups.agg(n=("actual", "size"), top=("actual", "max"), forecast_top=("predicted", "max"))
    first = forecasts.loc[groups["actual"].idxmax(), "timestamp"].to_numpy()
    guess = forecasts.loc[groups["predicted"].idxmax(), "timestamp"].to_numpy()
    days["hours_off"] = np.abs((guess - first) / np.timedelta64(1, "h"))
    complete = days[days["n"] >= _SHORTEST_DAY]
    error = (complete["top"] - complete["forecast_top"]).abs().groupby("sensor_id").mean().mean()
    return {"peak_mae": float(error), "peak_hours": float(complete["hours_off"].mean())}


def _total_mae(forecasts: pd.DataFrame, sensors: int) -> float:
    """Error of the sum over all sensors at the hours that all of them have; NaN for one sensor."""
    sums = forecasts.groupby("timestamp").agg(n=("actual", "size"), actual=("actual", "sum"), p=("predicted", "sum"))
    together = sums[sums["n"] == sums["n"].max()]
    return mae(together["actual"], together["p"]) if sensors > 1 else math.nan


def _daily_loss(forecasts: pd.DataFrame) -> pd.Series:
    """Mean absolute error by day of the window, each sensor's relative to its 168 h naive: what is tested in pairs."""
    error = (forecasts["actual"] - forecasts["predicted"]).abs()
    naive = (forecasts["actual"] - forecasts["naive_168"]).abs().groupby(forecasts["sensor_id"]).transform("mean")
    return (error / naive).groupby(forecasts["day_number"]).mean()


def _interval_figures(forecasts: pd.DataFrame) -> dict[str, float]:
    figures = {}
    for level in _LEVELS:
        if f"lower_{level}" in forecasts:
            low, high = forecasts[f"lower_{level}"], forecasts[f"upper_{level}"]
            figures[f"coverage_{level}"] = coverage(forecasts["actual"], low, high)
            tails = ((low, (1 - level) / 2), (high, (1 + level) / 2))
            figures[f"pinball_{level}"] = float(np.mean([pinball(forecasts["actual"], q, p) for q, p in tails]))
    return figures


_COLUMNS = (
    ("MAE", "mae", "{:.4g}"),
    ("RMSE", "rmse", "{:.4g}"),
    ("MASE", "mase", "{:.3f}"),
    ("skill", "skill", "{:.3f}"),
    ("peak MAE", "peak_mae", "{:.4g}"),
    ("peak off [h]", "peak_hours", "{:.1f}"),
    ("total MAE", "total_mae", "{:.4g}"),
    ("coverage 80/90/95 [%]", "coverage", "{}"),
    ("pinball 80/90/95", "pinball", "{}"),
    ("fit [CPU-s]", "fit_cpu_s", "{:.1f}"),
    ("forecast [CPU-ms]", "forecast_cpu_ms", "{:.1f}"),
    ("peak memory [MB]", "peak_mb", "{:.0f}"),
    ("against ours", "test", "{}"),
)


def _set_table(name: str, rows: pd.DataFrame) -> str:
    windows = ", ".join(dict.fromkeys(rows["window"]))
    head = [column for column, _, _ in _COLUMNS]
    lines = [f"### {SETS[name].title}", "", f"Mean over {windows}.", "", "| method | " + " | ".join(head) + " |"]
    lines.append("|---|" + "---:|" * len(head))
    ours = rows[rows["method"] == _OURS]
    for method in dict.fromkeys(rows["method"]):
        own = rows[rows["method"] == method]
        values = own.drop(columns=["method", "window", "daily"], errors="ignore").mean(skipna=False).to_dict()
        values |= {
            "coverage": _joined(values, "coverage", 100, "{:.1f}"),
            "pinball": _joined(values, "pinball", 1, "{:.4g}"),
        }
        values["test"] = _paired_test(own, ours) if method != _OURS and len(ours) else ""
        cells = [_cell(values.get(key), form) for _, key, form in _COLUMNS]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def _joined(values: dict[str, Any], name: str, factor: float, form: str) -> str:
    found = [values.get(f"{name}_{level}", math.nan) for level in _LEVELS]
    return "" if any(math.isnan(v) for v in found) else " / ".join(form.format(v * factor) for v in found)


def _cell(value: Any, form: str) -> str:
    return (
        "–" if value is None or value == "" or (isinstance(value, float) and math.isnan(value)) else form.format(value)
    )


def _paired_test(other: pd.DataFrame, ours: pd.DataFrame) -> str:
    """Diebold & Mariano (1995) on daily losses, variance by Newey & West (1987); two-sided, normal."""
    if other["missing"].any() or ours["missing"].any():
        return "rows missing"
    pairs = zip(other["daily"], ours["daily"], strict=True)
    differences = [(a - b).dropna().to_numpy() for a, b in pairs]
    mean = float(np.concatenate(differences).mean())
    days = sum(map(len, differences))
    variance = sum(_long_run_variance(part - mean) * len(part) for part in differences) / days
    z = mean / math.sqrt(variance / days) if variance > 0 else 0.0
    p = math.erfc(abs(z) / math.sqrt(2))
    return f"{'worse' if z > 0 else 'better'}, p {'< 0.001' if p < 0.001 else f'{p:.3f}'}"


def _long_run_variance(centred: np.ndarray[Any, Any]) -> float:
    n = len(centred)
    total = float(centred @ centred) / n
    for lag in range(1, min(_HAC_LAGS, n - 1) + 1):
        total += 2 * (1 - lag / (_HAC_LAGS + 1)) * float(centred[lag:] @ centred[:-lag]) / n
    return max(total, 0.0)


def _against_peers(scored: dict[str, pd.DataFrame], jobs: list[dict[str, Any]]) -> str:
    """Return our MAE over the best peer's in every set and the geometric mean, against any peer and against forests."""
    families = _families(jobs)
    own = dict.fromkeys(job["method"] for job in jobs if job["adapter"] == "ours")
    lines = ["### Ours over the best peer (MAE, below 1 is better)", ""]
    rivals = (("best peer of any kind", set(families.values())), ("best peer's random forest", {"forest"}))
    for method in own:
        for title, wanted in rivals:
            peers = [name for name, family in families.items() if family in wanted]
            ratios = {name: _ratio(rows, method, peers) for name, rows in scored.items()}
            ratios = {name: ratio for name, ratio in ratios.items() if ratio is not None}
            if ratios:
                mean = math.exp(float(np.mean([math.log(r) for r, _ in ratios.values()])))
                each = "; ".join(f"{name} {r:.3f} ({rival})" for name, (r, rival) in ratios.items())
                lines.append(f"- {method} / {title}: geometric mean **{mean:.3f}** over {len(ratios)} sets: {each}")
    return "\n".join([*lines, ""])


def _ratio(rows: pd.DataFrame, method: str, peers: list[str]) -> tuple[float, str] | None:
    means = rows.groupby("method")["mae"].mean()
    rivals = means.reindex(peers).dropna()
    if method not in means or math.isnan(means[method]) or rivals.empty:
        return None
    return float(means[method] / rivals.min()), str(rivals.idxmin())


def _against_quantiles(scored: dict[str, pd.DataFrame], jobs: list[dict[str, Any]]) -> str:
    """Return our pinball loss over that of the best quantile model on our features, in every set and level."""
    rivals = [name for name in _unique(jobs, "method") if _family(jobs, name) == _QUANTILES]
    own = dict.fromkeys(job["method"] for job in jobs if job["adapter"] == "ours")
    lines = ["### Pinball loss of ours over the best quantile model on our features (80/90/95, below 1 is better)", ""]
    for method in own if rivals else ():
        for name, rows in scored.items():
            means = rows.groupby("method")[[c for c in rows if str(c).startswith("pinball_")]].mean()
            if method in means.index and (found := means.index.intersection(rivals)).size:
                best = means.loc[found]
                shown = " / ".join(f"{means.loc[method, c] / best[c].min():.3f}" for c in best)
                lines.append(f"- {method}, {SETS[name].title}: {shown} ({', '.join(dict.fromkeys(best.idxmin()))})")
    return "\n".join([*lines, ""]) if len(lines) > 2 else ""


def _family(jobs: list[dict[str, Any]], method: str) -> str:
    return next(job["family"] for job in jobs if job["method"] == method)


def _environment(jobs: list[dict[str, Any]]) -> str:
    """Return versions, dates and settings of what was run."""
    lines = ["### How it was made", ""]
    versions: dict[str, str] = {}
    dates = set()
    for job in jobs:
        if figures := read_figures(job):
            dates.add(figures["date"])
            versions[job["environment"]] = ", ".join(f"{k} {v}" for k, v in figures["versions"].items())
    lines += [f"- {environment}: {text}" for environment, text in versions.items()]
    some = jobs[0]["settings"] if jobs else {}
    ours = next((job["settings"]["options"] for job in jobs if job["adapter"] == "ours"), {})
    lines.append(f"- history at most {some.get('years')} years; {ours.get('n_estimators')} trees in every forest")
    lines.append(f"- {platform.machine()}, {os.cpu_count()} cores, one thread each; {', '.join(sorted(dates))}")
    return "\n".join([*lines, ""])
