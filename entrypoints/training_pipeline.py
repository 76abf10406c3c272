"""The former command line: train one model or both, or promote a version; the same code as the other entry points."""

from __future__ import annotations

from typing import TYPE_CHECKING

import _command as cli
import click
from _promotion import promote_and_tell

if TYPE_CHECKING:
    from smartgrid_pyfunc.training.outcome import Outcome


@cli.command()
@cli.option("--model", type=click.Choice(["all", "load_forecasting", "anomaly_detection"]), help="What to train.")
@cli.option("--promote", metavar="NAME", help="Registered model to promote to Production.")
@cli.option("--version", help="With --promote: which version; empty: the latest.")
@cli.data
def main(model: str | None, promote: str | None, version: str | None, data: str) -> None:
    """Train (--model) with default parameters, or promote (--promote) a registered model."""
    if (model is None) == (promote is None):
        raise click.UsageError("give either --model or --promote.")
    if version is not None and promote is None:
        raise click.UsageError("--version goes with --promote.")
    if promote is not None:
        promote_and_tell(promote, version)
    else:
        _train(str(model), data)


def _train(choice: str, data: str) -> None:
    from smartgrid_pyfunc.training.anomaly_detection import train_anomaly_model
    from smartgrid_pyfunc.training.load_forecasting import train_load_model
    from smartgrid_pyfunc.training.summary import next_steps, results

    trainings = {"load_forecasting": train_load_model, "anomaly_detection": train_anomaly_model}
    chosen = list(trainings) if choice == "all" else [choice]
    outcomes: list[Outcome] = [trainings[name](data, nested=len(chosen) > 1) for name in chosen]
    click.echo(results(outcomes))
    click.echo(next_steps(outcomes))


if __name__ == "__main__":
    main()
