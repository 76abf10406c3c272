"""Train, evaluate, log and register the anomaly model."""

from __future__ import annotations

import _command as cli
import click


@cli.command()
@cli.data
@cli.contamination
@cli.false_alarm_rate
@cli.n_estimators()
@cli.random_state
@cli.timezone
@cli.register
def main(data: str, register: bool, **params: object) -> None:
    """Train AnomalyDetectionModel: which readings are wrong or strange, and why.

    The last quarter of the time is the test; then the model is refitted on all data, logged and registered.
    """
    from smartgrid_pyfunc.training.anomaly_detection import train_anomaly_model
    from smartgrid_pyfunc.training.summary import next_steps, results

    outcome = train_anomaly_model(data, register=register, **params)
    click.echo(results([outcome]))
    click.echo(next_steps([outcome]))


if __name__ == "__main__":
    main()
