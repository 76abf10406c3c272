"""What the entry point scripts share: imports from the checkout, logging, exit codes and checked options.

Scripts run as ``python entrypoints/NAME.py`` and start with ``from _command import command``.

Exit codes: 0 done, 1 failed, 2 bad input or usage, 3 a promotion was refused, 4 the monitor raised alerts,
130 interrupted.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from smartgrid_pyfunc.lifecycle.errors import LifecycleError, PromotionRefused, mask_secrets
from smartgrid_pyfunc.schema import MAX_HORIZON, InputError

FAILED, BAD_INPUT, REFUSED, ALERTS, INTERRUPTED = 1, 2, 3, 4, 130
_CHATTY = ("mlflow", "alembic", "git", "urllib3", "matplotlib", "sqlalchemy", "holidays", "botocore")

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


# ----------------------------------------------------------------------------------------------- commands


def command(about: str | None = None) -> Callable[[Callable[..., Any]], click.Command]:
    """Return a decorator that makes a function a command with the exit codes of this module.

    Parameters
    ----------
    about : str, optional
        Help text; default: the function's docstring.
    """
    # MLproject's parameters have underscores, command lines have hyphens: both are understood.
    settings = {"token_normalize_func": lambda token: token.replace("_", "-"), "help_option_names": ["-h", "--help"]}
    return click.command(cls=_Command, help=about, context_settings=settings)


class _Command(click.Command):
    """A command that ends with one sentence and an exit code; only the unexpected leaves a traceback."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        _set_up_logging()
        try:
            code = super().main(*args, **{**kwargs, "standalone_mode": False})
        except Exception as error:
            code = _report(error)
        sys.exit(code if isinstance(code, int) else 0)


def _report(error: Exception) -> int:
    """Say on stderr what went wrong and return the exit code."""
    code = _exit_code(error)
    if code is None:
        click.echo(mask_secrets("".join(traceback.format_exception(error))), err=True)
        click.echo("Error: this was not expected; please report it with the lines above.", err=True)
        return FAILED
    click.echo(mask_secrets(f"Error: {_sentence(error)}"), err=True)
    return code


def _exit_code(error: Exception) -> int | None:
    """Return the exit code of an expected error, None for the unexpected."""
    codes: Mapping[type[Exception], int] = {
        InputError: BAD_INPUT,
        click.ClickException: BAD_INPUT,
        click.exceptions.Abort: INTERRUPTED,
        PromotionRefused: REFUSED,
        LifecycleError: FAILED,
        OSError: FAILED,
    }
    expected = next((code for kind, code in codes.items() if isinstance(error, kind)), None)
    return FAILED if expected is None and _is_of_mlflow(error) else expected


def _is_of_mlflow(error: Exception) -> bool:
    """Tell an error of MLflow by name: whoever asked for --help must not wait for MLflow's import."""
    return any(kind.__name__ == "MlflowException" for kind in type(error).__mro__)


def _sentence(error: Exception) -> str:
    if isinstance(error, click.UsageError):
        script = error.ctx.command_path if error.ctx else Path(sys.argv[0]).name
        return f"{error.format_message()} See `{script} --help`."
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, click.exceptions.Abort):
        return "interrupted."
    if isinstance(error, OSError) and error.strerror:
        place = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{place}; check that the path exists and may be used."
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _set_up_logging() -> None:
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")  # MLflow sets its own level when it is imported
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S"
    )
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)


# ----------------------------------------------------------------------------------------------- options


class _Option(click.Option):
    """An option whose empty value counts as not given: ``mlflow run`` passes ``''`` for an empty default."""

    def consume_value(self, ctx: click.Context, opts: Mapping[str, Any]) -> tuple[Any, click.core.ParameterSource]:
        value = opts.get(self.name or "")
        if isinstance(value, str) and not value.strip():
            opts = {name: given for name, given in opts.items() if name != self.name}
        return super().consume_value(ctx, opts)


def option(name: str, **settings: Any) -> Decorator:
    """Return a click option (``--name``) for which an empty value means the default, shown in the help."""
    return click.option(name, cls=_Option, **{"show_default": True, **settings})


class _Whole(click.ParamType[int | None]):
    """A whole number of at least one, or ``none``."""

    name = "integer|none"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        if value is None or (isinstance(value, str) and value.lower() == "none"):
            return None
        try:
            number = int(value)
        except ValueError:
            number = 0
        if number < 1:
            self.fail(f"{value!r} is neither a positive whole number nor 'none'.", param, ctx)
        return number


class _Share(click.FloatRange):
    """A share above zero of at most a half."""

    name = "share"

    def __init__(self) -> None:
        super().__init__(min=0, max=0.5, min_open=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if number != number:  # no comparison refuses NaN
            self.fail(f"{value!r} is not a number.", param, ctx)
        return number


class _Timezone(click.ParamType[str]):
    """The name of a time zone that this machine knows."""

    name = "zone"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return ZoneInfo(value).key
        except (KeyError, ValueError, OSError):
            self.fail(f"{value!r} is no time zone; write one like UTC or Europe/Berlin.", param, ctx)


class _Country(click.ParamType[str]):
    """The ISO 3166 code of a country, or of a part of it (AU-VIC), whose public holidays are known."""

    name = "code"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        import holidays

        text = str(value).upper()
        code, _, region = text.partition("-")
        regions = holidays.list_supported_countries(include_aliases=True).get(code)
        if regions is None or (text != code and region not in regions):
            self.fail(f"{value!r} has no known holidays; write an ISO code like DE or AU-VIC.", param, ctx)
        return text


data = option(
    "--data",
    default="demo",
    help="demo (simulated); a CSV or Parquet file, a glob or a folder, s3://bucket/folder/*.parquet; "
    "postgresql://user@host/database?table=sensor_data&since=…&until=…&sensor_type=….",
)
ZONE = _Timezone()
timezone = option("--timezone", type=ZONE, default="UTC", help="Local time of the calendar features.")
country = option("--country", type=_Country(), default=None, help="Country of the public holidays; empty for none.")
random_state = option(
    "--random-state", type=click.IntRange(0, 2**32 - 1), default=42, help="Seed of everything random."
)
min_samples_split = option(
    "--min-samples-split", type=click.IntRange(min=2), default=2, help="Smallest node that a tree splits."
)
contamination = option(
    "--contamination", type=_Share(), default=0.01, help="Expected share of anomalies in the training data."
)
false_alarm_rate = option(
    "--false-alarm-rate", type=_Share(), default=None, help="Share of normal readings that may be flagged; "
    "empty: as contamination."
)  # fmt: skip
max_depth = option("--max-depth", type=_Whole(), default=None, help="Depth of the trees; none or empty: unlimited.")
hours_ahead = option(
    "--hours-ahead", type=click.IntRange(1, MAX_HORIZON), default=24, help="Horizon that is evaluated [h]."
)
test_days = option("--test-days", type=click.IntRange(min=1), default=28, help="Last days, kept for evaluation.")
register = option("--register", type=click.BOOL, default=True, help="Register the model as a new version.")


def n_estimators(default: int = 100) -> Decorator:
    """Return the option ``--n-estimators`` with the model's own default."""
    return option("--n-estimators", type=click.IntRange(1, 5000), default=default, help="Number of trees.")


estimator = option(
    "--estimator",
    type=click.Choice(["random_forest", "lightgbm"]),
    default="random_forest",
    help="What corrects the simple forecasts: random_forest (scikit-learn) or lightgbm (gradient boosting).",
)
