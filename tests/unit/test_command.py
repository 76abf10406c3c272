"""The shared plumbing of the entry points: options are checked first, exit codes tell the kind of end."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner, Result

from smartgrid_pyfunc.lifecycle.errors import LifecycleError, PromotionRefused
from smartgrid_pyfunc.schema import InputError

_SCRIPT = Path(__file__).resolve().parents[2] / "entrypoints" / "_command.py"


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("_command_under_test", _SCRIPT)
    module = importlib.util.module_from_spec(spec)
    path = list(sys.path)
    spec.loader.exec_module(module)
    sys.path[:] = path
    return module


_command = _load()


def _run(*arguments: str, error: BaseException | None = None) -> tuple[Result, dict[str, Any]]:
    """Run a command with every shared option; return its result and what reached the function."""
    seen: dict[str, Any] = {}

    @_command.command()
    @_command.data
    @_command.timezone
    @_command.country
    @_command.random_state
    @_command.n_estimators(150)
    @_command.max_depth
    @_command.min_samples_split
    @_command.contamination
    @_command.false_alarm_rate
    @_command.hours_ahead
    @_command.test_days
    @_command.register
    def main(**values: Any) -> None:
        """Train nothing."""
        seen.update(values)
        if error is not None:
            raise error

    return CliRunner().invoke(main, list(arguments)), seen


DEFAULTS = _run()[1]


def test_defaults_are_those_of_the_product():
    assert DEFAULTS == {
        "data": "demo",
        "timezone": "UTC",
        "country": None,
        "random_state": 42,
        "n_estimators": 150,
        "max_depth": None,
        "min_samples_split": 2,
        "contamination": 0.01,
        "false_alarm_rate": None,
        "hours_ahead": 24,
        "test_days": 28,
        "register": True,
    }


@pytest.mark.parametrize("name", sorted(DEFAULTS))
@pytest.mark.parametrize("form", [["--{}", ""], ["--{}="], ["--{}", " "]])
def test_an_empty_value_counts_as_not_given(name, form):
    result, seen = _run(*(part.format(name) for part in form))
    assert result.exit_code == 0, result.stderr
    assert seen == DEFAULTS


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--n_estimators", "5000", 5000),
        ("--n-estimators", "1", 1),
        ("--max_depth", "none", None),
        ("--max_depth", "None", None),
        ("--max_depth", "7", 7),
        ("--min_samples_split", "2", 2),
        ("--contamination", "0.5", 0.5),
        ("--false_alarm_rate", "1e-6", 1e-6),
        ("--hours_ahead", "168", 168),
        ("--random_state", "0", 0),
        ("--register", "false", False),
        ("--register", "True", True),
        ("--country", "au", "AU"),
        ("--country", "AU-vic", "AU-VIC"),
        ("--timezone", "Australia/Melbourne", "Australia/Melbourne"),
        ("--data", "a b/*.csv", "a b/*.csv"),
    ],
)
def test_good_values_arrive_typed(option, value, expected):
    result, seen = _run(option, value)
    assert result.exit_code == 0, result.stderr
    assert seen[option.strip("-").replace("-", "_")] == expected


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--n_estimators", "0"),
        ("--n_estimators", "5001"),
        ("--n_estimators", "2.5"),
        ("--max_depth", "0"),
        ("--max_depth", "deep"),
        ("--min_samples_split", "1"),
        ("--contamination", "0"),
        ("--contamination", "0.51"),
        ("--contamination", "nan"),
        ("--false_alarm_rate", "-0.1"),
        ("--hours_ahead", "0"),
        ("--hours_ahead", "169"),
        ("--test_days", "0"),
        ("--random_state", "-1"),
        ("--random_state", str(2**32)),
        ("--register", "maybe"),
        ("--country", "ZZ"),
        ("--country", "Germany"),
        ("--country", "AU-"),
        ("--country", "AU-BY"),
        ("--timezone", "Mars/Olympus"),
        ("--timezone", "../etc/passwd"),
        ("--timezone", "America"),
        ("--no_such_option", "1"),
    ],
)
def test_bad_values_are_refused_before_anything_runs(option, value):
    result, seen = _run(option, value)
    assert (result.exit_code, seen) == (2, {})
    assert result.stdout == ""
    assert option.strip("-").replace("_", "-") in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def _mlflow_error() -> Exception:
    from mlflow.exceptions import RestException

    return RestException({"error_code": "INTERNAL_ERROR", "message": "no answer\nTraceback"})


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (InputError("value must be finite", place="row 3"), 2, "value must be finite (row 3)."),
        (PromotionRefused("not better."), 3, "not better."),
        (LifecycleError("postgresql://me:s3cret@db is away."), 1, "postgresql://***@db is away."),
        (_mlflow_error(), 1, "INTERNAL_ERROR: no answer"),
        (FileNotFoundError(2, "No such file or directory", "x.csv"), 1, "No such file or directory: x.csv; check"),
        (KeyboardInterrupt(), 130, "interrupted."),
    ],
)
def test_expected_errors_are_one_sentence_and_an_exit_code(error, code, told):
    result, _ = _run(error=error)
    assert result.exit_code == code
    assert f"Error: {told}" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_unexpected_leaves_a_traceback_without_secrets():
    result, _ = _run(error=ZeroDivisionError("at http://me:s3cret@host/"))
    assert result.exit_code == 1
    assert "Traceback (most recent call last)" in result.stderr
    assert "ZeroDivisionError: at http://***@host/" in result.stderr
    assert "s3cret" not in result.stderr


def test_an_exit_code_of_the_block_is_kept():
    assert _run(error=SystemExit(143))[0].exit_code == 143


def test_help_shows_defaults_and_exits_zero():
    result, seen = _run("--help")
    assert (result.exit_code, seen) == (0, {})
    assert "Train nothing." in result.stdout
    assert "[default: 150" in result.stdout
