"""Figures of forecasts, errors, importances and flagged readings.

Every function takes a table or arrays and returns a `matplotlib.figure.Figure`; nothing here shows or writes a file
and no global state of matplotlib is used, so figures may be made in threads and without a display. Colours are those
of Okabe and Ito (2008), which people with colour vision deficiency can tell apart.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import ArrayLike, NDArray

from smartgrid_pyfunc.schema import HOURS_A_WEEK, LABEL, require_columns

_INK, _GREY, _FAINT = "#222222", "#8a8a8a", "#e4e4e4"
_BLUE, _ORANGE, _GREEN, _RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
_PANELS = 6  # more small multiples than this are too small to read
_BASELINES = {"seasonal_naive": "--", "naive_24": ":", "naive_168": "-."}
_MOST_POINTS = 5000  # of a line; more cannot be seen and make the file large


# --- Forecasts --------------------------------------------------------------------------------------------------------


def forecast_against_actual(frame: pd.DataFrame, *, unit: str = "", level: float = 0.9) -> Figure:
    """Draw predicted over actual load with the interval, one panel for each of the first four sensors.

    Parameters
    ----------
    frame : DataFrame
        Columns `sensor_id`, `timestamp`, `actual`, `predicted`, `lower`, `upper`; rows without a prediction are
        history. Missing hours and values leave a gap in the line.
    unit : str
        Unit of the load, for the axis.
    level : float
        Nominal coverage of the interval, for the legend.
    """
    require_columns(frame.columns, ["sensor_id", "timestamp", "actual", "predicted", "lower", "upper"])
    sensors = _first_sensors(frame, 4)
    figure, panels = _panels(len(sensors), "Forecast against actual load")
    for panel, sensor in zip(panels, sensors, strict=True):
        rows = _gap_safe(frame[frame["sensor_id"] == sensor])
        panel.fill_between(rows.index, rows["lower"], rows["upper"], color=_BLUE, alpha=0.2, linewidth=0,
                           label=f"{level:.0%} interval")  # fmt: skip
        _line(panel, rows["actual"], _INK, "actual", width=1.1)
        _line(panel, rows["predicted"], _BLUE, "forecast", width=1.6)
        _finish_time_panel(panel, str(sensor), _with_unit("load", unit))
    return _finished(figure, panels)


def forecast_fan(
    history: pd.DataFrame, forecast: pd.DataFrame, *, unit: str = "", level: float = 0.9, sensors: Sequence[str] = ()
) -> Figure:
    """Draw each sensor's last week of load, then its forecast with the interval; at most six sensors.

    Parameters
    ----------
    history : DataFrame
        Hourly load: `sensor_id`, `timestamp`, `avg_value`.
    forecast : DataFrame
        `sensor_id`, `timestamp`, `predicted_load`, `lower`, `upper`.
    unit : str
        Unit of the load, for the axis.
    level : float
        Nominal coverage of the interval, for the legend.
    sensors : sequence of str
        Which sensors to show; default: the first of the forecast.
    """
    require_columns(history.columns, ["sensor_id", "timestamp", "avg_value"])
    require_columns(forecast.columns, ["sensor_id", "timestamp", "predicted_load", "lower", "upper"])
    chosen = list(sensors)[:_PANELS] or _first_sensors(forecast, _PANELS)
    figure, panels = _panels(len(chosen), "Load forecast")
    for panel, sensor in zip(panels, chosen, strict=True):
        past = _gap_safe(history[history["sensor_id"] == sensor]).iloc[-HOURS_A_WEEK:]
        future = _gap_safe(forecast[forecast["sensor_id"] == sensor])
        _draw_fan(panel, past["avg_value"], future, level)
        _finish_time_panel(panel, str(sensor), _with_unit("load", unit))
    return _finished(figure, panels)


def _draw_fan(panel: Axes, past: pd.Series[float], future: pd.DataFrame, level: float) -> None:
    panel.fill_between(future.index, future["lower"], future["upper"], color=_BLUE, alpha=0.2, linewidth=0,
                       label=f"{level:.0%} interval")  # fmt: skip
    _line(panel, past, _INK, "load", width=1.1)
    predicted = future["predicted_load"]
    # The forecast starts where the load ends: without a joint the eye sees a gap of an hour.
    if len(past) and len(predicted) and 0 < (predicted.index[0] - past.index[-1]) / pd.Timedelta(hours=1) <= 1:
        predicted = pd.concat([past.iloc[-1:], predicted])
    _line(panel, predicted, _BLUE, "forecast", width=1.8)
    if len(past):
        panel.axvline(past.index[-1], color=_GREY, linewidth=0.8, linestyle=":")


# --- Errors -----------------------------------------------------------------------------------------------------------


def error_by_horizon(table: pd.DataFrame, *, metric: str = "MAE", unit: str = "") -> Figure:
    """Draw the error of the model and of the naive forecasts over the horizon.

    Parameters
    ----------
    table : DataFrame
        `horizon` [h], `model` and any of `seasonal_naive`, `naive_24`, `naive_168`.
    metric : str
        Name of the error.
    unit : str
        Its unit.
    """
    figure, panel = _error_figure(table, "horizon", metric, unit, f"{metric} by horizon")
    panel.set_xlabel("horizon [h]")
    return _finished(figure, [panel])


def error_by_hour(table: pd.DataFrame, *, metric: str = "MAE", unit: str = "") -> Figure:
    """Draw the error of the model and of the naive forecasts over the hour of the day: as above by `hour_of_day`."""
    figure, panel = _error_figure(table, "hour_of_day", metric, unit, f"{metric} by hour of day")
    panel.set_xlabel("hour of day [h]")
    panel.set_xticks(range(0, 24, 3))
    return _finished(figure, [panel])


def error_by_window(table: pd.DataFrame, *, metric: str = "MAE", unit: str = "") -> Figure:
    """Draw the error of the model and of the naive forecasts by window of a backtest: as above by `window`."""
    figure, panel = _error_figure(table, "window", metric, unit, f"{metric} by window")
    panel.set_xlabel("window, the latest last")
    return _finished(figure, [panel])


def interval_comparison(table: pd.DataFrame, *, unit: str = "") -> Figure:
    """Draw how far the coverage of kinds of intervals is from their level, and their pinball loss.

    Parameters
    ----------
    table : DataFrame
        Columns `level`, `intervals` (the kind), `coverage`, `pinball`; rows without coverage are left out.
    unit : str
        Unit of the load.
    """
    require_columns(table.columns, ["level", "intervals", "coverage", "pinball"])
    rows = table.dropna(subset=["coverage"])
    kinds = list(dict.fromkeys(rows["intervals"]))
    figure, panels = _panels(2 if kinds else 0, "Prediction intervals")
    for kind, colour in zip(kinds, (_BLUE, _ORANGE, _GREEN, _RED), strict=False):
        own = rows[rows["intervals"] == kind].sort_values("level")
        for panel, values in zip(panels, (100 * (own["coverage"] - own["level"]), own["pinball"]), strict=True):
            panel.plot(own["level"], values, color=colour, marker="o", markersize=4, linewidth=1.6, label=kind)
    for panel, label in zip(panels, ("coverage above level [points]", _with_unit("pinball loss", unit)), strict=False):
        panel.set_ylabel(label)
        panel.set_xlabel("level")
        panel.xaxis.set_major_formatter(FuncFormatter(lambda level, _: f"{level:.0%}"))
    if panels:
        panels[0].axhline(0, color=_GREY, linewidth=0.8)
        panels[1].set_ylim(bottom=0)
    return _finished(figure, panels)


def _error_figure(table: pd.DataFrame, by: str, metric: str, unit: str, title: str) -> tuple[Figure, Axes]:
    require_columns(table.columns, [by, "model"])
    rows = table.sort_values(by)
    figure, (panel,) = _panels(1, title)
    markers = "o" if len(rows) <= 48 else ""
    for name, style in _BASELINES.items():
        if name in rows:
            panel.plot(rows[by], rows[name], color=_ORANGE, linestyle=style, linewidth=1.6, label=_words(name))
    panel.plot(rows[by], rows["model"], color=_BLUE, linewidth=1.8, marker=markers, markersize=3.5, label="model")
    panel.set_ylim(bottom=0)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.set_ylabel(_with_unit(metric, unit))
    return figure, panel


def feature_importance(names: Iterable[str], importances: ArrayLike, top: int = 20) -> Figure:
    """Draw the `top` most important features as bars, the most important one above.

    Parameters
    ----------
    names : iterable of str, length n
    importances : array_like, shape (n,)
        Any scale; shown relative to the sum of all.
    top : int
        Number of bars at most.
    """
    values = pd.Series(np.asarray(importances, dtype=np.float64), index=list(names)).fillna(0.0)
    total = float(values.sum()) or 1.0
    best = (values / total).sort_values(ascending=False, kind="stable").head(top)
    return _share_bars(best, "Feature importance", f"share of the importance of all {len(values)} features")


def permutation_importance(increase: Mapping[str, float]) -> Figure:
    """Draw how much the error grows without each group of features as bars, the most important one above.

    Parameters
    ----------
    increase : mapping of str to float
        Group → increase of the error, as a share of the error with all groups.
    """
    ordered = pd.Series(dict(increase), dtype=np.float64).sort_values(ascending=False, kind="stable")
    return _share_bars(ordered, "What the forecasts rest on", "growth of the error when shuffled among forecasts")


def _share_bars(shares: pd.Series[float], title: str, label: str) -> Figure:
    best = shares[::-1]
    figure, (panel,) = _panels(1, title, height=max(2.0, 0.9 + 0.26 * len(best)))
    bars = panel.barh(range(len(best)), best.to_numpy(), color=_BLUE, height=0.7)
    panel.bar_label(bars, labels=[f"{share:.1%}" for share in best], padding=3, fontsize=8, color=_INK)
    panel.set_yticks(range(len(best)), [str(name) for name in best.index])
    panel.margins(x=0.12)
    panel.grid(visible=False, axis="y")
    panel.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}%"))
    panel.set_xlabel(label)
    return _finished(figure, [panel])


# --- Anomalies --------------------------------------------------------------------------------------------------------


def flagged_timeline(readings: pd.DataFrame, flagged: ArrayLike, *, title: str = "Flagged readings") -> Figure:
    """Draw value over time and mark the flagged readings, for the six sensors with the most of them.

    Parameters
    ----------
    readings : DataFrame
        `sensor_id`, `timestamp`, `value`; optional `unit`, and `is_anomaly`, the truth, drawn as shaded stretches.
    flagged : array_like of bool, shape (n,)
        One for each reading, in the order of the rows.
    title : str
        Title of the figure.

    Notes
    -----
    The value axis shows the range of the readings that are not flagged and half as much again; what lies beyond is
    marked at the edge.
    """
    require_columns(readings.columns, ["sensor_id", "timestamp", "value"])
    rows = readings.assign(_flagged=np.asarray(flagged, dtype=bool))
    counts = rows.groupby("sensor_id", sort=False)["_flagged"].sum().sort_values(ascending=False, kind="stable")
    sensors = list(counts.index[:_PANELS])
    figure, panels = _panels(len(sensors), title)
    for panel, sensor in zip(panels, sensors, strict=True):
        _draw_flags(panel, rows[rows["sensor_id"] == sensor])
        many = int(counts[sensor])
        _finish_time_panel(panel, f"{sensor}: {many} flagged", _with_unit("value", _unit(rows, sensor)))
    return _finished(figure, panels)


def _draw_flags(panel: Axes, rows: pd.DataFrame) -> None:
    flags = rows["_flagged"].to_numpy(dtype=bool)
    times, values = _utc(rows["timestamp"]), rows["value"].to_numpy(dtype=np.float64)
    low, high = _usual_range(values, flags)
    panel.set_ylim(low, high)
    if LABEL in rows:
        _shade(panel, times, rows[LABEL].to_numpy(dtype=bool), "true anomaly")
    series = _gap_safe(rows[["timestamp", "value"]])["value"]
    _line(panel, series.clip(low, high), _GREY, "reading", width=0.8)
    missing = np.where(np.isnan(values), low, values)
    for name, marker, chosen in (
        ("flagged", "o", flags & (missing > low) & (missing < high)),
        ("flagged, beyond the axis or no value", "v", flags & (missing <= low)),
        ("flagged, beyond the axis or no value", "^", flags & (missing >= high)),
    ):
        if chosen.any():
            panel.plot(times[chosen], np.clip(missing[chosen], low, high), marker, color=_RED, markersize=4.5,
                       markeredgecolor="white", markeredgewidth=0.5, label=name, clip_on=False, zorder=4)  # fmt: skip


def _usual_range(values: NDArray[np.float64], flags: NDArray[np.bool_]) -> tuple[float, float]:
    """Return the axis' limits: the usual values and half their range on either side."""
    finite = np.isfinite(values)
    usual = values[finite & ~flags] if (finite & ~flags).any() else values[finite]
    if not usual.size:
        return 0.0, 1.0
    # Missed faults of a thousand times the size must not flatten everything else either.
    low, high = np.percentile(usual, [0.5, 99.5])
    margin = 0.5 * (high - low) or 0.1 * abs(high) or 1.0
    return float(low - margin), float(high + margin)


def _shade(panel: Axes, times: pd.DatetimeIndex, labels: NDArray[np.bool_], name: str) -> None:
    order = np.argsort(times, kind="stable")
    at, on = times[order], labels[order]
    edges = np.diff(np.concatenate(([0], on.astype(int), [0])))
    starts, stops = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1) - 1
    # A single reading would be a stretch without width.
    least = (at[-1] - at[0]) / 300 if len(at) else pd.Timedelta(0)
    for first, last in zip(at[starts], at[stops], strict=True):
        pad = max(least - (last - first), pd.Timedelta(0)) / 2
        panel.axvspan(cast(Any, first - pad), cast(Any, last + pad), color=_ORANGE, alpha=0.3, linewidth=0, label=name)


def score_histogram(scores: ArrayLike, threshold: float, labels: ArrayLike | None = None) -> Figure:
    """Draw the distribution of anomaly scores (logarithmic count) and the threshold above which readings are flagged.

    Parameters
    ----------
    scores : array_like, shape (n,)
        Higher is stranger; NaN (no score) is left out.
    threshold : float
        The score from which readings are flagged.
    labels : array_like of bool, shape (n,), optional
        The truth; true anomalies are drawn in their own colour.
    """
    values = np.asarray(scores, dtype=np.float64)
    known = np.isfinite(values)
    truth = np.zeros(values.size, dtype=bool) if labels is None else np.asarray(labels, dtype=bool)
    groups = [(values[known & ~truth], _BLUE, "all readings" if labels is None else "normal")]
    if labels is not None:
        groups.append((values[known & truth], _ORANGE, "true anomaly"))
    figure, (panel,) = _panels(1, "Anomaly scores")
    edges = np.histogram_bin_edges(values[known], bins=60) if known.any() else np.linspace(0.0, 1.0, 61)
    for group, colour, name in groups:
        panel.hist(group, bins=cast(Any, edges), color=colour, alpha=0.65, label=f"{name} ({group.size:,})")
    panel.axvline(threshold, color=_RED, linewidth=1.5, linestyle="--", label=f"threshold {threshold:.3g}")
    panel.set_ylim(0.8, max(10.0, 1.3 * panel.get_ylim()[1]))  # before the scale: a logarithm needs a positive range
    panel.set_yscale("log", nonpositive="clip")
    panel.set_xlabel("anomaly score (higher = stranger)")
    panel.set_ylabel("readings (logarithmic)")
    return _finished(figure, [panel])


# --- Versions beside each other ---------------------------------------------------------------------------------------


def daily_difference(daily: pd.DataFrame, names: Sequence[str]) -> Figure:
    """Draw the mean difference of each version's daily loss to the reference's, with bounds that hold on all days.

    Parameters
    ----------
    daily : DataFrame
        Indexed by day (UTC): a loss by name, and ``low NAME``, ``high NAME`` for all but the reference.
    names : sequence of str
        The reference first.
    """
    others = [name for name in names[1:] if f"low {name}" in daily]
    figure, panels = _panels(len(others), f"Mean difference of the daily error to {names[0]}")
    for panel, name in zip(panels, others, strict=False):
        mean = (daily[name] - daily[names[0]]).expanding().mean()
        low, high = (daily[f"{side} {name}"].replace([-np.inf, np.inf], np.nan) for side in ("low", "high"))
        panel.fill_between(daily.index, low, high, color=_BLUE, alpha=0.15, linewidth=0, label="bounds for daily looks")
        panel.plot(daily.index, mean, color=_BLUE, linewidth=1.8, label="mean so far")
        panel.axhline(0, color=_GREY, linewidth=0.8)
        _finish_time_panel(panel, name, "below 0: better")
    return _finished(figure, panels)


def ratio_lines(table: pd.DataFrame, by: str) -> Figure:
    """Draw each version's error over the reference's along `by` (``horizon`` or ``hour_of_day``), with its interval.

    Parameters
    ----------
    table : DataFrame
        `by`, ``version``, ``ratio``, ``low``, ``high``; the first version is the reference.
    """
    require_columns(table.columns, [by, "version", "ratio", "low", "high"])
    versions = list(dict.fromkeys(table["version"]))
    figure, (panel,) = _panels(1, f"Error over that of {versions[0]}, by {_words(by)}")
    for version, colour in zip(versions[1:], (_BLUE, _ORANGE, _GREEN, _RED), strict=False):
        rows = table[table["version"] == version].sort_values(by)
        panel.fill_between(rows[by], rows["low"], rows["high"], color=colour, alpha=0.15, linewidth=0)
        panel.plot(rows[by], rows["ratio"], color=colour, linewidth=1.8, label=version)
    panel.axhline(1, color=_GREY, linewidth=0.8)
    panel.set_xlabel(f"{_words(by)} [h]")
    panel.set_ylabel("ratio, below 1: better")
    return _finished(figure, [panel])


def ratio_intervals(table: pd.DataFrame, by: str) -> Figure:
    """Draw each version's error over the reference's for every value of `by`, as a point with its interval."""
    require_columns(table.columns, [by, "version", "ratio", "low", "high"])
    versions, parts = list(dict.fromkeys(table["version"])), sorted(table[by].astype(str).unique())
    others = versions[1:]
    height = 1.4 + 0.3 * max(1, len(parts)) * max(1, len(others))
    figure, (panel,) = _panels(1, f"Error over that of {versions[0]}, by {_words(by)}", height=height)
    for number, (version, colour) in enumerate(zip(others, (_BLUE, _ORANGE, _GREEN, _RED), strict=False)):
        rows = table[table["version"] == version].set_index(table.loc[table["version"] == version, by].astype(str))
        rows = rows.reindex(parts)
        place = np.arange(len(parts)) + 0.6 * (number / max(1, len(others)) - 0.25)
        panel.hlines(place, rows["low"], rows["high"], color=colour, linewidth=2)
        panel.plot(rows["ratio"], place, "o", color=colour, markersize=5, label=version)
    panel.axvline(1, color=_GREY, linewidth=0.8)
    panel.set_yticks(range(len(parts)), parts)
    panel.invert_yaxis()
    panel.set_xlabel("ratio, below 1: better")
    return _finished(figure, [panel])


# --- Common parts -----------------------------------------------------------------------------------------------------


def _panels(count: int, title: str, height: float | None = None) -> tuple[Figure, list[Axes]]:
    """Return a figure with `count` panels below one another, two columns from three panels on."""
    columns = 1 if count <= 2 else 2
    rows = max(1, -(-count // columns))
    size = (10.0, height or (3.6 if rows == 1 else 0.8 + 2.4 * rows))
    figure = Figure(figsize=size, dpi=110, facecolor="white")
    figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.06, hspace=0.04)
    figure.suptitle(title, fontsize=13, fontweight="bold", color=_INK, x=0.01, ha="left")
    panels = [figure.add_subplot(rows, columns, i + 1) for i in range(max(count, 1))]
    for panel in panels:
        _style(panel)
    if not count:
        panels[0].text(0.5, 0.5, "nothing to show", ha="center", va="center", color=_GREY)
        panels[0].set_axis_off()
        return figure, []
    return figure, panels


def _style(panel: Axes) -> None:
    panel.spines[["top", "right"]].set_visible(False)
    panel.spines[["left", "bottom"]].set_color(_GREY)
    panel.tick_params(colors=_INK, labelsize=8.5, color=_GREY)
    panel.grid(color=_FAINT, linewidth=0.7)
    panel.set_axisbelow(True)


def _finish_time_panel(panel: Axes, title: str, label: str) -> None:
    panel.set_title(title, fontsize=10, loc="left", color=_INK)
    panel.set_ylabel(label)
    panel.set_xlabel("time (UTC)")
    panel.margins(x=0.01)
    locator = AutoDateLocator(minticks=3, maxticks=8)  # type: ignore[no-untyped-call]
    panel.xaxis.set_major_locator(locator)
    panel.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    panel.yaxis.set_major_formatter(FuncFormatter(_thousands))


def _finished(figure: Figure, panels: Sequence[Axes]) -> Figure:
    """Add one legend for all panels, outside the data, with every name once."""
    entries: dict[str, Any] = {}
    for panel in panels:
        for handle, name in zip(*panel.get_legend_handles_labels(), strict=True):
            entries.setdefault(name, handle)
    if entries:
        figure.legend(list(entries.values()), list(entries), loc="outside lower center", ncols=len(entries),
                      frameon=False, fontsize=9)  # fmt: skip
    return figure


def _line(panel: Axes, series: pd.Series[float], colour: str, name: str, *, width: float) -> None:
    # A value between two gaps has no line to either side: it needs a dot to be seen.
    values = series.to_numpy(dtype=np.float64)
    known = np.concatenate(([False], np.isfinite(values), [False]))
    alone = known[1:-1] & ~known[:-2] & ~known[2:]
    panel.plot(series.index, values, color=colour, linewidth=width, label=name, marker="o" if alone.any() else "",
               markevery=list(np.flatnonzero(alone)), markersize=3)  # fmt: skip


def _utc(times: pd.Series[Any]) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(pd.to_datetime(times, utc=True)).tz_localize(None)


def _gap_safe(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows by time, with an empty row in every gap so that no line is drawn across it."""
    ordered = rows.set_axis(_utc(rows["timestamp"]), axis=0).sort_index(kind="stable").drop(columns="timestamp")
    ordered = ordered[ordered.index.notna()]
    ordered = ordered.drop(columns=[name for name in ("sensor_id",) if name in ordered]).select_dtypes("number")
    if len(ordered) < 3:
        return ordered
    steps = np.diff(ordered.index)
    usual = np.median(steps[steps > np.timedelta64(0)]) if (steps > np.timedelta64(0)).any() else steps.max()
    before = np.flatnonzero(steps > 1.5 * usual)
    holes = pd.DataFrame(
        np.nan, index=pd.DatetimeIndex(ordered.index.to_numpy()[before] + usual), columns=ordered.columns
    )
    return _thinned(pd.concat([ordered, holes]).sort_index(kind="stable")) if before.size else _thinned(ordered)


def _thinned(rows: pd.DataFrame) -> pd.DataFrame:
    """Return at most about `_MOST_POINTS` rows that keep every stretch's lowest and highest values and its gaps."""
    if len(rows) <= _MOST_POINTS:
        return rows
    width = -(-len(rows) // (_MOST_POINTS // (2 * max(1, rows.shape[1]))))
    stretch = np.arange(len(rows)) // width
    keep: set[Hashable] = {0, len(rows) - 1}
    for name in rows:
        values = pd.Series(rows[name].to_numpy(dtype=np.float64))
        groups = values.groupby(stretch)
        for extreme in (groups.idxmin(skipna=True), groups.idxmax(skipna=True)):
            keep.update(extreme.dropna().astype(int))
        keep.update(np.flatnonzero(values.isna()))
    return rows.iloc[sorted(cast(set[int], keep))]


def _first_sensors(frame: pd.DataFrame, most: int) -> list[str]:
    return list(pd.unique(frame["sensor_id"])[:most])


def _unit(rows: pd.DataFrame, sensor: str) -> str:
    if "unit" not in rows:
        return ""
    units = rows.loc[rows["sensor_id"] == sensor, "unit"].dropna()
    return str(units.iloc[0]) if len(units) else ""


def _with_unit(name: str, unit: str) -> str:
    return f"{name} [{unit}]" if unit else name


def _thousands(value: float, _: int | None = None) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}"


def _words(name: str) -> str:
    return {"naive_24": "naive, 24 h earlier", "naive_168": "naive, 168 h earlier"}.get(name, name.replace("_", " "))


# --- Monitoring -------------------------------------------------------------------------------------------------------


def daily_errors(table: pd.DataFrame, since: Mapping[str, pd.Timestamp] | None = None) -> Figure:
    """Draw the mean signed error of each day, one panel for each of the first six sensors.

    Parameters
    ----------
    table : DataFrame
        `sensor_id`, `timestamp` (start of the day), `error` (actual − forecast, in half widths of the interval).
    since : mapping of str to Timestamp, optional
        Sensor → when a change began, marked.
    """
    require_columns(table.columns, ["sensor_id", "timestamp", "error"])
    sensors = _first_sensors(table, _PANELS)
    figure, panels = _panels(len(sensors), "Daily errors: actual − forecast, in half widths of the interval")
    for panel, sensor in zip(panels, sensors, strict=True):
        rows = _gap_safe(table[table["sensor_id"] == sensor])
        _line(panel, rows["error"], _BLUE, "mean of a day", width=1.2)
        panel.axhline(0, color=_GREY, linewidth=0.8)
        if since and sensor in since:
            panel.axvline(cast(Any, since[sensor]), color=_RED, linewidth=1.2, linestyle="--", label="alert since")
        _finish_time_panel(panel, str(sensor), "error")
    return _finished(figure, panels)


def alert_levels(names: Sequence[str], ratios: ArrayLike) -> Figure:
    """Draw the worst value of every check over its threshold as bars; from 1 on it is an alert.

    Parameters
    ----------
    names : sequence of str, length n
    ratios : array_like, shape (n,)
        Value over threshold; NaN where a check could not be made. Drawn up to 3.
    """
    values = np.asarray(ratios, dtype=np.float64)[::-1]
    figure, (panel,) = _panels(1, "Checks: worst value over its threshold", height=0.9 + 0.26 * len(values))
    shown = np.minimum(np.nan_to_num(values), 3.0)
    panel.barh(range(len(values)), shown, color=[_RED if value >= 1 else _BLUE for value in values], height=0.7)
    panel.set_yticks(range(len(values)), [_words(name) for name in names[::-1]])
    panel.axvline(1.0, color=_INK, linewidth=1.0, linestyle="--")
    panel.set_xlim(0, 3.05)
    panel.grid(visible=False, axis="y")
    panel.set_xlabel("value / threshold")
    return _finished(figure, [panel])
