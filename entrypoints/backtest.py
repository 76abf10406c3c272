"""Backtest the load model over several windows at the end of the data."""

from __future__ import annotations

import _command as cli
import click


@cli.command()
@cli.data
@cli.option("--sensor-type", default="power,energy", help="Types of readings that count as load.")
@cli.estimator
@cli.n_estimators()
@cli.max_depth
@cli.min_samples_split
@cli.random_state
@cli.hours_ahead
@cli.timezone
@cli.country
@cli.option("--covariates", default="auto", help="auto (those present), none, or names: temperature,is_holiday.")
@cli.option("--windows", type=click.IntRange(min=1), default=4, help="Number of evaluation windows.")
@cli.option("--window-days", type=click.IntRange(min=1), default=28, help="Length of each window [days].")
@cli.option("--refit", type=click.BOOL, default=True, help="Fit anew before each window; false: once.")
@cli.option(
    "--model", default="", show_default=False, help="Empty: fit afresh. Or a model URI, or a version, stage or alias "
    "of the registered model, which is evaluated as it is, with its own parameters, on data newer than it."
)  # fmt: skip
@cli.option("--jobs", type=click.IntRange(1, 256), default=1, help="Windows fitted at a time, each in a process.")
@cli.option(
    "--level", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.9,
    help="Probability of the intervals.",
)  # fmt: skip
def main(data: str, sensor_type: str, model: str, **settings: object) -> None:
    """Backtest LoadForecastingModel: forecasts from every local midnight of the last windows, beside both naives.

    A fit sees only what was known before its window. One run holds the metrics, the tables by sensor, horizon, hour
    and window, the model's intervals beside rolling ones, plots, and all forecasts; nothing is registered.
    """
    from dataclasses import fields

    from smartgrid_pyfunc.training.backtest import Plan, backtest_load_model
    from smartgrid_pyfunc.training.backtest_report import report

    plan = Plan(**{field.name: settings.pop(field.name) for field in fields(Plan)})  # type: ignore[arg-type]
    click.echo(report(backtest_load_model(data, plan=plan, sensor_type=sensor_type, model=model, **settings)))


if __name__ == "__main__":
    main()
