"""Draw the README's pictures from the simulated grid: ``PYTHONPATH=. python docs/pictures.py`` (a minute)."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from smartgrid_pyfunc import plots
from smartgrid_pyfunc.evaluation.backtest import backtest, midnight_origins
from smartgrid_pyfunc.features.panel import build_panel, parse_hourly
from smartgrid_pyfunc.models.anomaly_detection import AnomalyDetectionModel
from smartgrid_pyfunc.models.load_forecasting import LoadForecastingModel
from smartgrid_pyfunc.sources import load_hourly, load_readings

_FOLDER = Path(__file__).resolve().parent
_DAYS = 7
_LOADS = ("feeder-0001", "commercial-0003")
_FAULTY = 2  # sensors shown with their flagged readings


def draw_forecast(target: Path) -> None:
    """Forecast the last days from each midnight, with a model that has not seen them."""
    hourly = load_hourly("demo").frame
    last = hourly["timestamp"].max()
    model = LoadForecastingModel(n_estimators=60).fit(hourly[hourly["timestamp"] <= last - pd.Timedelta(days=_DAYS)])
    panel = build_panel(parse_hourly(hourly))
    origins = midnight_origins(panel, panel.origin - 24 * _DAYS, panel.origin, "UTC")
    forecasts = backtest(model, panel, origins, 24)
    names = [name for name in _LOADS if name in set(forecasts["sensor_id"])] or sorted(set(forecasts["sensor_id"]))[:2]
    shown = forecasts[forecasts["sensor_id"].isin(names)]
    plots.forecast_against_actual(shown, unit="kW").savefig(target, dpi=110)


def draw_flagged(target: Path) -> None:
    """Flag the readings of the last two weeks, with a model that has not seen them."""
    readings = load_readings("demo").frame
    cut = readings["timestamp"].max() - pd.Timedelta(days=14)
    model = AnomalyDetectionModel().fit(readings[readings["timestamp"] <= cut])
    recent = readings[readings["timestamp"] > cut - pd.Timedelta(days=8)].reset_index(drop=True)
    flagged = model.predict(None, recent)["is_anomaly"].to_numpy(dtype=bool)
    late = (recent["timestamp"] > cut).to_numpy()
    faults = recent[late].groupby("sensor_id")["is_anomaly"].sum().sort_values(ascending=False, kind="stable")
    shown = late & recent["sensor_id"].isin(faults.index[:_FAULTY]).to_numpy()
    plots.flagged_timeline(recent[shown].reset_index(drop=True), flagged[shown]).savefig(target, dpi=110)


if __name__ == "__main__":
    draw_forecast(_FOLDER / "forecast.png")
    draw_flagged(_FOLDER / "flagged.png")
