"""Laws of the figures: they show what they were given, for any number of sensors and odd input."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from smartgrid_pyfunc import plots
from smartgrid_pyfunc.schema import InputError

START = pd.Timestamp("2026-03-01", tz="UTC")


def hours(n: int) -> pd.DatetimeIndex:
    return pd.date_range(START, periods=n, freq="h")


def compared(sensors: int = 1, n: int = 48, seen: int = 24) -> pd.DataFrame:
    parts = []
    for k in range(sensors):
        part = pd.DataFrame({"sensor_id": f"s{k}", "timestamp": hours(n), "actual": np.arange(n) + 100.0 * k})
        part["predicted"] = (part["actual"] + 1).where(np.arange(n) >= seen)
        part["lower"], part["upper"] = part["predicted"] - 5, part["predicted"] + 5
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def fan(sensors: int = 1, past: int = 400, ahead: int = 24) -> tuple[pd.DataFrame, pd.DataFrame]:
    frame = compared(sensors, past + ahead, past)
    known = frame["predicted"].isna()
    history = frame[known].rename(columns={"actual": "avg_value"})[["sensor_id", "timestamp", "avg_value"]]
    forecast = frame[~known].rename(columns={"predicted": "predicted_load"}).drop(columns="actual")
    return history, forecast


def readings(sensors: int = 1, n: int = 96) -> tuple[pd.DataFrame, np.ndarray]:
    frame = pd.DataFrame(
        {
            "sensor_id": np.repeat([f"s{k}" for k in range(sensors)], n),
            "timestamp": np.tile(hours(n), sensors),
            "value": np.tile(10 + np.sin(np.arange(n)), sensors),
            "unit": "kW",
        }
    )
    return frame, np.zeros(len(frame), dtype=bool)


def errors(by: str, n: int = 24) -> pd.DataFrame:
    return pd.DataFrame({by: np.arange(n), "model": np.linspace(1, 2, n), "seasonal_naive": 3.0, "naive_24": 4.0})


def drawn(figure: Figure, name: str, panel: int = 0) -> tuple[np.ndarray, np.ndarray]:
    (line,) = [line for line in figure.axes[panel].get_lines() if line.get_label() == name]
    return np.asarray(line.get_xdata(orig=False)), np.asarray(line.get_ydata(orig=False), dtype=float)


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for box in figure.legends for text in box.get_texts()]


def png(figure: Figure) -> bytes:
    sink = io.BytesIO()
    figure.savefig(sink, format="png", metadata={"Software": ""})
    return sink.getvalue()


# --- What is shown


def test_forecast_and_actual_are_drawn_with_their_values_and_interval() -> None:
    frame = compared()
    figure = plots.forecast_against_actual(frame, unit="kW", level=0.8)
    np.testing.assert_array_equal(drawn(figure, "actual")[1], frame["actual"])
    np.testing.assert_array_equal(drawn(figure, "forecast")[1], frame["predicted"])
    (band,) = figure.axes[0].collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (frame["lower"].min(), frame["upper"].max())
    assert legend(figure) == ["80% interval", "actual", "forecast"]
    assert figure.axes[0].get_ylabel() == "load [kW]"
    assert figure.axes[0].get_title(loc="left") == "s0"


def test_a_missing_hour_breaks_the_line() -> None:
    frame = compared().drop(index=[10, 11])
    values = drawn(plots.forecast_against_actual(frame), "actual")[1]
    assert np.flatnonzero(np.isnan(values)).tolist() == [10]
    assert np.isfinite(values).sum() == 46


def test_rows_may_come_in_any_order_and_with_any_clock() -> None:
    frame = compared(2)
    shuffled = frame.sample(frac=1, random_state=0).sort_values("sensor_id", kind="stable")
    shuffled["timestamp"] = shuffled["timestamp"].dt.tz_convert("Asia/Tokyo").astype(str)
    assert png(plots.forecast_against_actual(frame)) == png(plots.forecast_against_actual(shuffled))


def test_the_fan_shows_one_week_of_history_joined_to_the_forecast() -> None:
    history, forecast = fan()
    figure = plots.forecast_fan(history, forecast, unit="kWh")
    np.testing.assert_array_equal(drawn(figure, "load")[1], history["avg_value"].iloc[-168:])
    expected = np.r_[history["avg_value"].iloc[-1], forecast["predicted_load"]]
    np.testing.assert_array_equal(drawn(figure, "forecast")[1], expected)


def test_the_fan_shows_the_sensors_asked_for() -> None:
    figure = plots.forecast_fan(*fan(9), sensors=["s7", "s2"])
    assert [panel.get_title(loc="left") for panel in figure.axes] == ["s7", "s2"]


@pytest.mark.parametrize(
    ("draw", "by"),
    [(plots.error_by_horizon, "horizon"), (plots.error_by_hour, "hour_of_day"), (plots.error_by_window, "window")],
)
def test_errors_stand_beside_every_baseline_from_zero(draw: object, by: str) -> None:
    table = errors(by)
    figure = draw(table.sample(frac=1, random_state=0), metric="RMSE", unit="kW")  # type: ignore[operator]
    x, y = drawn(figure, "model")
    np.testing.assert_array_equal(x, table[by])
    np.testing.assert_array_equal(y, table["model"])
    assert set(legend(figure)) == {"model", "seasonal naive", "naive, 24 h earlier"}
    assert figure.axes[0].get_ylabel() == "RMSE [kW]"
    assert figure.axes[0].get_ylim()[0] == 0


def test_intervals_show_how_far_their_coverage_is_from_the_level_in_points() -> None:
    table = pd.DataFrame(
        {
            "level": [0.9, 0.8, 0.9, 0.8],
            "intervals": ["model", "model", "rolling", "rolling"],
            "coverage": [0.85, 0.78, 0.91, np.nan],
            "pinball": [3.0, 4.0, 2.5, np.nan],
        }
    )
    coverage, loss = plots.interval_comparison(table, unit="kW").axes
    points = {line.get_label(): line for line in coverage.lines}
    np.testing.assert_allclose(points["model"].get_ydata(), [-2.0, -5.0])
    np.testing.assert_allclose(points["rolling"].get_ydata(), [1.0])
    assert [list(line.get_ydata()) for line in loss.lines] == [[4.0, 3.0], [2.5]]
    assert loss.get_ylabel() == "pinball loss [kW]"
    assert png(plots.interval_comparison(table.assign(coverage=np.nan))).startswith(b"\x89PNG")


def test_importances_are_shares_in_falling_order() -> None:
    figure = plots.feature_importance(["a", "b", "c"], [1.0, 6.0, 3.0], top=2)
    bars = [bar.get_width() for bar in figure.axes[0].patches]
    assert bars == pytest.approx([0.3, 0.6])
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["c", "b"]


def test_flagged_readings_are_marked_where_they_are() -> None:
    frame, flags = readings()
    flags[[5, 50]] = True
    figure = plots.flagged_timeline(frame, flags)
    np.testing.assert_array_equal(drawn(figure, "flagged")[1], frame["value"][[5, 50]])
    assert figure.axes[0].get_title(loc="left") == "s0: 2 flagged"
    assert figure.axes[0].get_ylabel() == "value [kW]"


def test_an_enormous_flagged_reading_is_marked_at_the_edge_without_flattening_the_rest() -> None:
    frame, flags = readings()
    frame.loc[7, "value"], frame.loc[8, "value"] = 1e6, np.nan
    flags[[7, 8]] = True
    figure = plots.flagged_timeline(frame, flags)
    low, high = figure.axes[0].get_ylim()
    assert high - low < 6
    marks = [line for line in figure.axes[0].get_lines() if "beyond" in str(line.get_label())]
    assert sorted(float(mark.get_ydata()[0]) for mark in marks) == [low, high]


def test_true_anomalies_are_shaded_when_known() -> None:
    frame, flags = readings()
    frame["is_anomaly"] = [10 <= i < 20 or i == 40 for i in range(96)]
    figure = plots.flagged_timeline(frame, flags)
    assert len(figure.axes[0].patches) == 2
    assert "true anomaly" in legend(figure)
    assert "true anomaly" not in legend(plots.flagged_timeline(frame.drop(columns="is_anomaly"), flags))


def test_the_sensors_with_the_most_flags_come_first() -> None:
    frame, flags = readings(20)
    for sensor, many in ((13, 9), (4, 5), (17, 1)):
        flags[sensor * 96 : sensor * 96 + many] = True
    titles = [panel.get_title(loc="left") for panel in plots.flagged_timeline(frame, flags).axes]
    assert titles[:4] == ["s13: 9 flagged", "s4: 5 flagged", "s17: 1 flagged", "s0: 0 flagged"]


def test_the_histogram_counts_every_score_once_and_shows_the_threshold() -> None:
    scores, labels = np.r_[np.linspace(0, 1, 100), np.nan], np.arange(101) >= 90
    figure = plots.score_histogram(scores, 0.75, labels)
    assert sum(bar.get_height() for bar in figure.axes[0].patches) == 100
    assert figure.axes[0].get_yscale() == "log"
    assert drawn(figure, "threshold 0.75")[0].tolist() == [0.75, 0.75]
    assert legend(figure) == ["normal (90)", "true anomaly (10)", "threshold 0.75"]


# --- Odd input


@pytest.mark.parametrize(("sensors", "compare", "others"), [(1, 1, 1), (2, 2, 2), (3, 3, 3), (6, 4, 6), (1000, 4, 6)])
def test_panels_are_few_for_any_number_of_sensors(sensors: int, compare: int, others: int) -> None:
    assert len(plots.forecast_against_actual(compared(sensors, n=3, seen=1)).axes) == compare
    assert len(plots.forecast_fan(*fan(sensors, past=3, ahead=2)).axes) == others
    assert len(plots.flagged_timeline(*readings(sensors, n=3)).axes) == others


@pytest.mark.parametrize("n", [0, 1, 2])
@pytest.mark.parametrize("empty", [False, True])
def test_few_rows_and_rows_without_values_still_make_a_picture(n: int, empty: bool) -> None:
    frame, (history, forecast), (rows, flags) = compared(n=n, seen=0), fan(past=n, ahead=n), readings(n=n)
    table = errors("horizon", n)
    if empty:
        for part in (frame, history, forecast, rows, table):
            part[part.select_dtypes("float").columns] = np.nan
    rows["is_anomaly"] = True
    scores = rows["value"].to_numpy()
    for figure in (
        plots.forecast_against_actual(frame),
        plots.forecast_fan(history, forecast),
        plots.flagged_timeline(rows, flags),
        plots.flagged_timeline(rows, ~flags),
        plots.error_by_horizon(table),
        plots.feature_importance(["f"] * n, scores),
        plots.permutation_importance({f"group {i}": score for i, score in enumerate(scores)}),
        plots.score_histogram(scores, 0.5),
    ):
        assert len(figure.axes) == 1
        assert png(figure).startswith(b"\x89PNG")


def test_a_long_series_is_thinned_but_keeps_its_extremes_and_gaps() -> None:
    frame, flags = readings(n=60_000)
    frame.loc[31_234, "value"], frame.loc[45_678, "value"] = 11.9, np.nan
    values = drawn(plots.flagged_timeline(frame, flags), "reading")[1]
    assert len(values) < 6000
    assert np.nanmax(values) == 11.9
    assert np.isnan(values).sum() == 1


def test_checks_over_their_threshold_are_red_and_unknown_ones_have_no_length() -> None:
    figure = plots.alert_levels(["stuck", "late", "bias"], [0.5, float("nan"), 7.0])
    bars = figure.axes[0].patches
    assert [bar.get_width() for bar in bars] == [3.0, 0.0, 0.5]  # the first check is drawn at the top
    assert bars[0].get_facecolor() != bars[2].get_facecolor()
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["bias", "late", "stuck"]


def test_daily_errors_mark_when_an_alert_began() -> None:
    table = pd.DataFrame({"sensor_id": "s0", "timestamp": hours(240)[::24], "error": np.arange(10.0)})
    marked, plain = plots.daily_errors(table, {"s0": pd.Timestamp("2026-03-04")}), plots.daily_errors(table)
    assert len(marked.axes[0].lines) == len(plain.axes[0].lines) + 1
    assert plain.axes[0].lines[0].get_ydata() == pytest.approx(np.arange(10.0))


def test_a_missing_column_is_named() -> None:
    with pytest.raises(InputError, match="lower"):
        plots.forecast_against_actual(compared().drop(columns="lower"))
    with pytest.raises(InputError, match="horizon"):
        plots.error_by_horizon(errors("hour_of_day"))


def test_input_is_left_as_it_was() -> None:
    frame, (history, forecast), (rows, flags) = compared(), fan(), readings()
    inputs = (frame, history, forecast, rows)
    before = [part.copy() for part in inputs]
    plots.forecast_against_actual(frame)
    plots.forecast_fan(history, forecast)
    plots.flagged_timeline(rows, flags)
    for part, copy in zip(inputs, before, strict=True):
        pd.testing.assert_frame_equal(part, copy)


def test_the_same_input_makes_the_same_picture_in_any_thread_without_pyplot() -> None:
    pictures: list[bytes] = []
    threads = [threading.Thread(target=lambda: pictures.append(png(plots.forecast_fan(*fan(2))))) for _ in range(2)]
    for thread in threads:
        thread.start()
        thread.join()
    assert len(pictures) == 2 and pictures[0] == pictures[1]
    script = "import sys, smartgrid_pyfunc.plots; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=Path(plots.__file__).parents[1]).returncode == 0
