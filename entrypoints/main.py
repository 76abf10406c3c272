"""The main job: train both models, promote what passes, write a forecast and the flagged readings."""

from __future__ import annotations

from pathlib import Path

import _command as cli
import click


@cli.command()
@cli.data
@cli.n_estimators()
@cli.hours_ahead
@cli.test_days
@cli.timezone
@cli.country
@cli.random_state
@cli.contamination
@cli.option("--output", default="smartgrid-output", help="Folder for forecast, flagged readings and pictures.")
def main(
    data: str,
    n_estimators: int,
    hours_ahead: int,
    test_days: int,
    timezone: str,
    country: str | None,
    random_state: int,
    contamination: float,
    output: str,
) -> None:
    """Train both models, promote those that beat their baselines, forecast every sensor and flag strange readings.

    Ends by printing what was promoted, the metrics beside the baselines, and the commands to serve and to call.
    """
    from smartgrid_pyfunc.comparison import against_champion
    from smartgrid_pyfunc.training import pipeline
    from smartgrid_pyfunc.training.anomaly_detection import train_anomaly_model
    from smartgrid_pyfunc.training.load_forecasting import train_load_model
    from smartgrid_pyfunc.training.summary import next_steps, results

    common = {"n_estimators": n_estimators, "random_state": random_state, "timezone": timezone, "nested": True}
    pipeline.require_writable(Path(output))
    load = train_load_model(data, hours_ahead=hours_ahead, test_days=test_days, country=country, **common)
    anomalies = train_anomaly_model(data, contamination=contamination, **common)
    promotions = [pipeline.promote_if_better(done, against_champion(done.model)) for done in (load, anomalies)]
    written = [
        *pipeline.write_forecast(load, data, hours_ahead, Path(output)),
        *pipeline.write_flagged(anomalies, data, Path(output)),
    ]
    click.echo(results([load, anomalies]))
    click.echo("\n".join(["", *promotions, "", "Written:", *(f"    {path}" for path in written)]))
    click.echo(next_steps([load, anomalies]))


if __name__ == "__main__":
    main()
