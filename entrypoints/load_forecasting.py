"""Train, evaluate, log and register the load model."""

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
@cli.test_days
@cli.timezone
@cli.country
@cli.option("--covariates", default="auto", help="auto (those present), none, or names: temperature,is_holiday.")
@cli.option("--clean-with", default=None, help="URI of an anomaly model: readings that it flags are left out.")
@cli.register
@cli.option(
    "--store-history", type=click.BOOL, default=True, help="false: neither model nor run keeps an hour of the data."
)
def main(
    data: str,
    sensor_type: str,
    hours_ahead: int,
    test_days: int,
    clean_with: str | None,
    register: bool,
    store_history: bool,
    **params: object,
) -> None:
    """Train LoadForecastingModel: the load of every sensor for the next 1…168 hours, with intervals.

    The last days of the data are the test; then the model is refitted on all data, logged and registered.
    """
    from smartgrid_pyfunc.training.load_forecasting import train_load_model
    from smartgrid_pyfunc.training.summary import next_steps, results

    outcome = train_load_model(
        data,
        sensor_type=sensor_type,
        hours_ahead=hours_ahead,
        test_days=test_days,
        clean_with=clean_with,
        register=register,
        store_history=store_history,
        **params,
    )
    click.echo(results([outcome]))
    click.echo(next_steps([outcome]))


if __name__ == "__main__":
    main()
