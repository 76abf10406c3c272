"""Versions beside each other on the same forecasts or readings: figures with intervals, by group, hour, horizon, kind.

The first version named is the reference. What is compared is only what every version has answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smartgrid_pyfunc.evaluation import detection
from smartgrid_pyfunc.evaluation.metrics import bias, coverage, interval_width, mae, rmse, skill, wape
from smartgrid_pyfunc.evaluation.significance import (
    FEWEST_DAYS,
    UNDECIDED,
    Paired,
    block_bootstrap,
    confidence_sequence,
    days_needed,
    paired,
    ratio_interval,
    verdict_of,
)
from smartgrid_pyfunc.schema import HOURS_A_DAY, InputError

KEYS = ["sensor_id", "origin", "horizon"]
NAIVE = "seasonal naive"

_MOST_GROUPS = 12
_SIZES = ("small", "medium", "large")
_TINY = 1e-12


@dataclass(frozen=True)
class Comparison:
    """What a comparison has shown.

    Attributes
    ----------
    names : tuple of str
        Those compared, the reference first.
    overall : DataFrame
        A row per name: figures, and the ratio to the reference with its interval.
    tables : dict of str to DataFrame
        ``by_group``, ``by_hour``, ``by_horizon`` or ``by_kind``: a row per part and name.
    pairs : dict of str to Paired
        The test of each name but the reference; its losses are relative errors (load) or 1 − average precision.
    daily : DataFrame
        Loss of each day by name, with the bounds of the mean difference to the reference that hold on all days at once
        (``low …``, ``high …``); empty for detectors.
    needed : dict of str to int or None
        Days needed to see the effect that was asked for.
    """

    names: tuple[str, ...]
    overall: pd.DataFrame
    tables: dict[str, pd.DataFrame]
    pairs: dict[str, Paired]
    daily: pd.DataFrame
    needed: dict[str, int | None]


# ------------------------------------------------------------------------------------------------------- forecasts


def join_forecasts(parts: dict[str, pd.DataFrame], truth: pd.DataFrame) -> pd.DataFrame:
    """Return the forecasts that every version has made, beside what happened.

    Parameters
    ----------
    parts : dict of str to DataFrame
        By name: ``sensor_id, origin, horizon, predicted, lower, upper``.
    truth : DataFrame
        ``sensor_id, origin, horizon, timestamp, actual, naive_24, naive_168``.

    Returns
    -------
    DataFrame
        `truth` with ``predicted NAME``, ``lower NAME``, ``upper NAME``; `NAIVE` is the better lag over all rows.

    Raises
    ------
    InputError
        If no forecast is shared.
    """
    joined = truth.dropna(subset="actual")
    for name, part in parts.items():
        columns = {column: f"{column} {name}" for column in ("predicted", "lower", "upper")}
        own = part[[*KEYS, *columns]].dropna(subset="predicted").rename(columns=columns)
        joined = joined.merge(own, on=KEYS, validate="one_to_one")
    if joined.empty:
        raise InputError("the versions must share forecasts of hours that have been measured", found="none")
    return joined.assign(**{f"predicted {NAIVE}": _better_naive(joined)})


def _better_naive(joined: pd.DataFrame) -> pd.Series[float]:
    lags = {lag: mae(joined["actual"], joined[lag]) for lag in ("naive_24", "naive_168")}
    best = min(lags, key=lambda lag: (np.isnan(lags[lag]), lags[lag]))
    other = "naive_24" if best == "naive_168" else "naive_168"
    return joined[best].fillna(joined[other])


def groups_of(joined: pd.DataFrame, given: dict[str, str] | None = None) -> pd.Series[str]:
    """Return the group of each row's sensor.

    As `given`; else what the sensors' names begin with, up to their last number, if that makes 2 to 12 groups
    (``building-0005`` is of the group ``building``); else thirds by mean load.
    """
    sensors = joined["sensor_id"].astype(str)
    if given:
        return sensors.map(given).fillna("other")
    names = pd.Series(sensors.unique())
    stems = names.str.replace(r"[-_ ]*\d+$", "", regex=True).replace("", "other")
    if 2 <= stems.nunique() <= _MOST_GROUPS:
        return sensors.map(dict(zip(names, stems, strict=True)))
    size = joined["actual"].abs().groupby(sensors).mean().rank(pct=True)
    return sensors.map(pd.cut(size, [0, 1 / 3, 2 / 3, 1], labels=list(_SIZES)).astype(str))


def daily_losses(joined: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Return the relative absolute error of each day: |error| over the sensor's mean load, mean over sensors.

    Sensors count alike whatever their size; hours of one origin are one day, since they err together.
    """
    size = joined["actual"].abs().groupby(joined["sensor_id"]).transform("mean").clip(lower=_TINY)
    loss = {name: (joined[f"predicted {name}"] - joined["actual"]).abs() / size for name in names}
    by_sensor = pd.DataFrame(loss).groupby([joined["sensor_id"], joined["origin"].dt.floor("D")]).mean()
    return by_sensor.groupby(level=1).mean().sort_index()


def compare_forecasts(
    joined: pd.DataFrame,
    names: Sequence[str],
    *,
    groups: pd.Series[str] | None = None,
    timezone: str = "UTC",
    margin: float = 0.03,
    effect: float = 0.02,
    alpha: float = 0.05,
) -> Comparison:
    """Compare forecasts of several versions, and the seasonal naive, with the first of them.

    Parameters
    ----------
    joined : DataFrame
        See `join_forecasts`.
    names : sequence of str
        Versions, the reference first.
    groups : Series, optional
        Group of each row; see `groups_of`.
    timezone : str
        In which the hour of day is told.
    margin, alpha : float
        See `significance.paired`.
    effect : float
        Difference whose days are to be told, as a share of the reference's loss.
    """
    everyone = [*names, *([NAIVE] if NAIVE not in names else [])]
    days = -(-int(joined["horizon"].max()) // HOURS_A_DAY)
    daily = daily_losses(joined, everyone)
    reference, others = everyone[0], everyone[1:]
    pairs = {
        name: paired(daily[reference], daily[name], margin=margin, days_ahead=days, alpha=alpha) for name in others
    }
    needed = {name: days_needed(daily[reference], daily[name], effect, alpha=alpha) for name in others}
    clock = joined["timestamp"].dt.tz_convert(timezone).dt.hour
    group = groups_of(joined) if groups is None else groups
    tables = {
        "by_group": _by_part(joined, everyone, group, "group"),
        "by_hour": _by_part(joined, everyone, clock, "hour_of_day"),
        "by_horizon": _by_part(joined, everyone, joined["horizon"], "horizon"),
    }
    return Comparison(tuple(everyone), _overall(joined, everyone, pairs), tables, pairs, _bounded(daily, alpha), needed)


def _overall(joined: pd.DataFrame, names: Sequence[str], pairs: dict[str, Paired]) -> pd.DataFrame:
    actual, rows = joined["actual"], []
    naive = mae(actual, joined[f"predicted {NAIVE}"])
    for name in names:
        predicted = joined[f"predicted {name}"]
        row = {
            "version": name,
            "rows": len(joined),
            "mae": mae(actual, predicted),
            "rmse": rmse(actual, predicted),
            "bias": bias(actual, predicted),
            "wape": wape(actual, predicted),
            "skill": skill(mae(actual, predicted), naive),
        }
        if f"lower {name}" in joined:
            low, high = joined[f"lower {name}"], joined[f"upper {name}"]
            row |= {"coverage": coverage(actual, low, high), "interval_width": interval_width(low, high)}
        rows.append(row | _tested(pairs.get(name)))
    return pd.DataFrame(rows)


def _tested(pair: Paired | None) -> dict[str, object]:
    if pair is None:
        return {}
    columns = {name: getattr(pair, name) for name in ("ratio", "low", "high", "p_better", "p_worse", "p_not_worse")}
    return {"days": pair.n, **columns, "verdict": pair.verdict}


def _by_part(joined: pd.DataFrame, names: Sequence[str], part: pd.Series, column: str) -> pd.DataFrame:
    """Return error and ratio to the reference for each part, with the interval and the p-values of its days."""
    rows = []
    for value, chosen in joined.groupby(part.to_numpy()):
        daily = daily_losses(chosen, names)
        for name in names:
            low, high = ratio_interval(daily[names[0]], daily[name], draws=500)
            pair = paired(daily[names[0]], daily[name]) if column == "group" and name != names[0] else None
            error, first = (mae(chosen["actual"], chosen[f"predicted {n}"]) for n in (name, names[0]))
            row = {column: value, "version": name, "rows": len(chosen), "mae": error}
            row |= {"ratio_of_mae": error / first if first > 0 else float("nan")}
            row |= {"ratio": float(daily[name].mean() / max(daily[names[0]].mean(), _TINY)), "low": low, "high": high}
            rows.append(row | ({"p_worse": pair.p_worse, "days": pair.n} if pair else {}))
    return pd.DataFrame(rows)


def _bounded(daily: pd.DataFrame, alpha: float) -> pd.DataFrame:
    found, reference = daily.copy(), daily.columns[0]
    for name in daily.columns[1:]:
        found[f"low {name}"], found[f"high {name}"] = confidence_sequence(daily[name] - daily[reference], alpha=alpha)
    return found


# ------------------------------------------------------------------------------------------------------- detectors


def compare_detectors(
    scored: pd.DataFrame, names: Sequence[str], *, margin: float = 0.03, alpha: float = 0.05, draws: int = 300
) -> Comparison:
    """Compare detectors on labelled readings by average precision, resampling whole weeks of a sensor.

    Parameters
    ----------
    scored : DataFrame
        ``sensor_id, sensor_type, timestamp, is_anomaly`` (truth), optionally ``fault`` (its kind), and by name
        ``score NAME`` and ``flag NAME``.
    names : sequence of str
        The reference first.
    margin : float
        How much lower the candidate's average precision may be to count as not worse, as a share of 1 − AP of the
        reference, so that all models are held by the same rule: their loss.
    alpha : float
        Error allowed for each verdict.
    draws : int
        Resamples.

    Notes
    -----
    Paired block bootstrap (Künsch, 1989): the blocks are sensor-weeks, both detectors are scored on the same draws, and
    the p-values are shares of draws.
    """
    scored = scored.dropna(subset=[f"score {name}" for name in names]).reset_index(drop=True)
    truth = scored["is_anomaly"].to_numpy(dtype=bool)
    if not truth.any() or truth.all():
        raise InputError(
            "detectors are compared on readings with faults and without", found=f"{int(truth.sum())} faults"
        )
    weeks = scored["timestamp"].dt.tz_convert("UTC").dt.tz_localize(None).dt.to_period("W").astype(str)
    blocks = (scored["sensor_id"].astype(str) + " " + weeks).to_numpy()
    losses = {name: _draws(truth, scored[f"score {name}"].to_numpy(), blocks, draws) for name in names}
    exact = {name: 1 - detection.average_precision(truth, scored[f"score {name}"]) for name in names}
    first, n = names[0], len(np.unique(blocks))
    pairs = {
        name: _pair(exact[first], exact[name], losses[first], losses[name], n, margin, alpha) for name in names[1:]
    }
    tables = {"by_group": _found_by(scored, names, "sensor_type", "group")}
    if "fault" in scored:
        tables["by_kind"] = _found_by(scored, names, "fault", "kind")
    overall = pd.DataFrame([_detector(scored, truth, name) | _tested(pairs.get(name)) for name in names])
    return Comparison(tuple(names), overall, tables, pairs, pd.DataFrame(), dict.fromkeys(names[1:]))


def _draws(
    truth: NDArray[np.bool_], score: NDArray[np.float64], blocks: NDArray[np.object_], draws: int
) -> NDArray[np.float64]:
    """Return 1 − average precision on each resample; the same blocks for every detector, by the same seed."""
    return block_bootstrap(
        blocks, lambda rows: 1 - detection.average_precision(truth[rows], score[rows]), draws=draws, seed=0
    )


def _pair(
    first: float, other: float, a: NDArray[np.float64], b: NDArray[np.float64], n: int, margin: float, alpha: float
) -> Paired:
    if not len(a) or n < FEWEST_DAYS:
        nothing = (float("nan"),) * 5
        return Paired(n, first, other, other / max(first, _TINY), *nothing, UNDECIDED)
    size = len(a)
    p_better, p_worse, p_margin = (
        (1 + float(np.sum(wrong))) / (1 + size) for wrong in (b >= a, b <= a, b >= (1 + margin) * a)
    )
    low, high = np.quantile(b / np.maximum(a, _TINY), [alpha, 1 - alpha])
    verdict = verdict_of(p_better, p_margin, p_worse, alpha)
    ratio = other / max(first, _TINY)
    return Paired(n, first, other, ratio, float(low), float(high), p_better, p_worse, p_margin, verdict)


def _detector(scored: pd.DataFrame, truth: NDArray[np.bool_], name: str) -> dict[str, object]:
    flags = scored[f"flag {name}"].to_numpy(dtype=bool)
    precision, recall = detection.precision_recall(truth, flags)
    return {
        "version": name,
        "rows": len(scored),
        "average_precision": detection.average_precision(truth, scored[f"score {name}"]),
        "roc_auc": detection.roc_auc(truth, scored[f"score {name}"]),
        "precision": precision,
        "recall": recall,
        "event_recall": detection.event_recall(scored, truth, flags),
        "flagged_share": float(flags.mean()),
    }


def _found_by(scored: pd.DataFrame, names: Sequence[str], by: str, column: str) -> pd.DataFrame:
    """Return events found and false alarms for each value of `by`."""
    rows = []
    for value, chosen in scored.groupby(scored[by].replace("", np.nan)):
        truth = chosen["is_anomaly"].to_numpy(dtype=bool)
        for name in names:
            flags = chosen[f"flag {name}"].to_numpy(dtype=bool)
            rows.append(
                {
                    column: value,
                    "version": name,
                    "rows": len(chosen),
                    "average_precision": detection.average_precision(truth, chosen[f"score {name}"]),
                    "event_recall": detection.event_recall(chosen, truth, flags),
                    "flagged_share": float(flags.mean()),
                }
            )
    return pd.DataFrame(rows)
