"""The laws that hold between the project's files: pins, entry points, imports and style."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import os
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from mlflow.projects._project_spec import load_project
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import smartgrid_pyfunc

REPO = Path(__file__).resolve().parents[2]
PACKAGE = REPO / "smartgrid_pyfunc"
MLPROJECT = yaml.safe_load((REPO / "MLproject").read_text())
ENTRY_POINTS: dict[str, dict[str, Any]] = MLPROJECT["entry_points"]
MODULES = sorted(PACKAGE.rglob("*.py"))
ENTRY_POINT_FILES = sorted((REPO / "entrypoints").glob("*.py"))
#: What ``_name.py`` holds is shared by the scripts and is none itself.
SCRIPTS = [path for path in ENTRY_POINT_FILES if not path.stem.startswith("_")]


Function = ast.FunctionDef | ast.AsyncFunctionDef


def _relative(path: Path) -> str:
    return path.relative_to(REPO).as_posix()


# ------------------------------------------------------------------------------------------------------------- pins


def _requirement_lines(name: str) -> list[str]:
    lines = (line.split("#")[0].strip() for line in (REPO / name).read_text().splitlines())
    return [line for line in lines if line and not line.startswith("-r ")]


def _pins(lines: list[str]) -> dict[str, str]:
    requirements = [Requirement(line) for line in lines]
    return {canonicalize_name(r.name): str(r.specifier) for r in requirements}


PRODUCT = _pins(_requirement_lines("requirements.txt"))
DEVELOPMENT = _pins(_requirement_lines("requirements-dev.txt"))


@pytest.mark.parametrize("name", [path.name for path in sorted(REPO.glob("requirements*.txt"))])
def test_every_requirement_is_one_exact_pin_without_url(name: str) -> None:
    lines = _requirement_lines(name)
    assert lines
    for line in lines:
        requirement = Requirement(line)
        assert requirement.url is None, line
        assert re.fullmatch(r"==[^*,]+", str(requirement.specifier)), line
    assert len(_pins(lines)) == len(lines), "a package is pinned twice"
    assert "://" not in (REPO / name).read_text()


def test_the_python_environment_repeats_the_pins() -> None:
    environment = yaml.safe_load((REPO / "python_env.yaml").read_text())
    assert environment["dependencies"] == _requirement_lines("requirements.txt")


def test_the_conda_environment_repeats_the_pins_and_the_interpreter() -> None:
    conda = yaml.safe_load((REPO / "conda.yaml").read_text())["dependencies"]
    python = yaml.safe_load((REPO / "python_env.yaml").read_text())["python"]
    assert [entry["pip"] for entry in conda if isinstance(entry, dict)] == [_requirement_lines("requirements.txt")]
    assert f"python={python}" in conda


def test_the_distribution_takes_its_pins_and_version_from_their_one_place() -> None:
    pyproject = tomllib.loads((REPO / "pyproject.toml").read_text())
    assert pyproject["tool"]["setuptools"]["dynamic"] == {
        "version": {"attr": "smartgrid_pyfunc.__version__"},
        "dependencies": {"file": ["requirements.txt"]},
    }
    assert set(pyproject["project"]["dynamic"]) == {"version", "dependencies"}
    python = yaml.safe_load((REPO / "python_env.yaml").read_text())["python"]
    assert python in SpecifierSet(pyproject["project"]["requires-python"])


def test_development_repeats_no_pin_of_the_product() -> None:
    assert (REPO / "requirements-dev.txt").read_text().count("-r requirements.txt") == 1
    assert not PRODUCT.keys() & DEVELOPMENT.keys()


@pytest.mark.parametrize(("package", "pin"), [*PRODUCT.items(), *DEVELOPMENT.items()])
def test_what_is_installed_is_what_is_pinned(package: str, pin: str) -> None:
    try:
        installed = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{package} is not installed: pip install -r requirements-dev.txt")
    assert f"=={installed}" == pin


# ----------------------------------------------------------------------------------------------------- entry points


def test_the_project_names_one_environment() -> None:
    assert MLPROJECT.keys() & {"python_env", "conda_env", "docker_env"} == {"python_env"}
    assert (REPO / MLPROJECT["python_env"]).is_file()


def _script_of(name: str) -> Path:
    path = REPO / "entrypoints" / f"{name}.py"
    if not path.exists():
        pytest.skip(f"{_relative(path)} does not exist yet")
    return path


@cache
def _command_of(script: Path) -> click.Command:
    """Return the one click command of a script, which is loaded as ``python entrypoints/NAME.py`` would load it."""
    spec = importlib.util.spec_from_file_location(f"_entrypoint_{script.stem}", script)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    path = list(sys.path)
    sys.path.insert(0, str(script.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path[:] = path
    commands = [value for value in vars(module).values() if isinstance(value, click.Command)]
    assert len(commands) == 1, f"{_relative(script)} must hold one click command, found {len(commands)}"
    return commands[0]


def _parsed(command: click.Command, arguments: list[str]) -> dict[str, Any]:
    """Return the values that the command's function would receive."""
    return command.make_context("script", list(arguments)).params


def _launched(name: str, **given: str) -> list[str]:
    """Return the words of the command that ``mlflow run`` executes, parameters without default filled in."""
    needed = {p: _EXAMPLES[p] for p, declared in ENTRY_POINTS[name]["parameters"].items() if "default" not in declared}
    return shlex.split(load_project(REPO).get_entry_point(name).compute_command(needed | given, None))


#: Values for parameters that have no default.
_EXAMPLES = {"model": "LoadForecastingModel", "to": "grid", "sensor_id": "meter-7"}


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_every_parameter_stands_in_its_command_exactly_once_under_its_own_name(name: str) -> None:
    entry = ENTRY_POINTS[name]
    words = entry["command"].split()
    assert words[:2] == ["python", f"entrypoints/{name}.py"]
    assert words[2::2] == [f"--{parameter}" for parameter in entry["parameters"]]
    assert words[3::2] == [f"{{{parameter}}}" for parameter in entry["parameters"]]


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_every_parameter_has_a_type(name: str) -> None:
    kinds = {"string": str, "int": int, "float": float}
    for parameter, declared in ENTRY_POINTS[name]["parameters"].items():
        assert declared["type"] in kinds, parameter
        assert type(declared.get("default", kinds[declared["type"]]())) is kinds[declared["type"]], parameter


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_parameters_and_options_are_the_same_set(name: str) -> None:
    assert {param.name for param in _command_of(_script_of(name)).params} == set(ENTRY_POINTS[name]["parameters"])


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_the_script_demands_exactly_the_parameters_without_default(name: str) -> None:
    needed = {p for p, declared in ENTRY_POINTS[name]["parameters"].items() if "default" not in declared}
    assert {param.name for param in _command_of(_script_of(name)).params if param.required} == needed


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_the_defaults_of_the_project_are_those_of_the_script(name: str) -> None:
    """What ``mlflow run`` without ``-P`` hands over means the same as the script without options."""
    command, words = _command_of(_script_of(name)), _launched(name)
    needed = [f"--{p}={_EXAMPLES[p]}" for p, d in ENTRY_POINTS[name]["parameters"].items() if "default" not in d]
    assert _parsed(command, words[2:]) == _parsed(command, needed)


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_a_parameter_given_to_mlflow_reaches_its_own_option(name: str) -> None:
    command = _command_of(_script_of(name))
    usual = _parsed(command, _launched(name)[2:])
    for parameter, other in OTHER_VALUES[name].items():
        changed = _parsed(command, _launched(name, **{parameter: other})[2:])
        assert {p for p in usual if changed[p] != usual[p]} == {parameter}


#: A valid value other than the default for every parameter.
_TRAINING = {"data": "readings.csv", "n_estimators": "7", "random_state": "1", "timezone": "Europe/Berlin"}
_LOAD = {"hours_ahead": "48", "test_days": "7", "country": "DE"}
OTHER_VALUES: dict[str, dict[str, str]] = {
    "main": {**_TRAINING, **_LOAD, "contamination": "0.02", "output": "elsewhere"},
    "load_forecasting": {
        **_TRAINING,
        **_LOAD,
        "sensor_type": "power",
        "estimator": "lightgbm",
        "max_depth": "5",
        "min_samples_split": "4",
        "covariates": "none",
        "clean_with": "models:/AnomalyDetectionModel/Production",
        "register": "false",
        "store_history": "false",
    },
    "backtest": {
        **_TRAINING,
        "sensor_type": "power",
        "estimator": "lightgbm",
        "max_depth": "5",
        "min_samples_split": "4",
        "hours_ahead": "48",
        "country": "DE",
        "covariates": "none",
        "windows": "2",
        "window_days": "7",
        "refit": "false",
        "model": "Staging",
        "jobs": "2",
        "level": "0.8",
    },
    "anomaly_detection": {**_TRAINING, "contamination": "0.02", "false_alarm_rate": "0.03", "register": "false"},
    "batch_forecast": {
        "data": "readings.csv",
        "model": "models:/LoadForecastingModel/3",
        "to": "postgresql://me@host/db",
        "hours_ahead": "48",
        "level": "0.8",
        "since": "2026-03-01",
        "until": "2026-04-01",
        "every_hours": "6",
        "now": "2026-04-01T00:10:00Z",
        "sensor_type": "power",
    },
    "batch_detect": {
        "data": "readings.csv",
        "model": "models:/AnomalyDetectionModel/3",
        "to": "postgresql://me@host/db",
        "since": "2026-03-01",
        "until": "2026-04-01",
        "now": "2026-04-01T00:10:00Z",
    },
    "promote": {
        "model": "AnomalyDetectionModel",
        "version": "3",
        "stage": "Staging",
        "force": "true",
        "reason": "a new meter type",
        "now": "2026-05-03T12:00:00Z",
        "data": "readings.csv",
        "days": "14",
        "margin": "0.05",
        "group_margin": "0.2",
        "max_slowdown": "3.0",
        "max_size_mb": "50.0",
    },
    "compare": {
        "model": "AnomalyDetectionModel",
        "versions": "1,2,champion",
        "data": "readings.csv",
        "days": "14",
        "hours_ahead": "48",
        "timezone": "Europe/Berlin",
        "sensor_type": "power",
        "groups": "groups.csv",
        "predictions": "postgresql://me@host/db",
        "gateway_log": "access.log",
        "margin": "0.05",
        "effect": "0.05",
        "alpha": "0.1",
    },
    "rollback": {"model": "AnomalyDetectionModel", "reason": "it errs on Sundays", "now": "2026-05-03T12:00:00Z"},
    "audit": {"model": "AnomalyDetectionModel", "at": "2026-05-03"},
    "monitor": {
        "predictions": "elsewhere",
        "data": "readings.csv",
        "model": "AnomalyDetectionModel",
        "days": "14",
        "timezone": "Europe/Berlin",
        "country": "DE",
        "now": "2026-05-03T12:00:00Z",
        "webhook": "https://chat.example.com/hook",
        "pushgateway": "http://push.example.com:9091",
        "output": "elsewhere",
        "sensors": "meter-7",
        "sensor_type": "power",
    },
    "erase": {"sensor_id": "meter-8", "delete": "true"},
    "simulate": {
        "to": "elsewhere",
        "sensors": "3",
        "days": "9",
        "seed": "1",
        "step_minutes": "15",
        "start": "2025-02-01",
        "fault_rate": "0.02",
        "file_format": "csv",
    },
    "serve": {
        "host": "127.0.0.2",
        "port": "6000",
        "champion_port": "6101",
        "challenger_port": "6102",
        "anomaly_port": "6103",
        "canary": "0.1",
        "tokens": "elsewhere",
        "tls_certificate": "gateway.pem",
        "tls_key": "gateway.key",
        "rate": "5",
        "connections": "4",
        "max_body_mb": "8",
        "timeout": "30",
        "workers": "2",
        "env_manager": "uv",
        "poll_seconds": "1",
        "folder": "elsewhere",
    },
    "tokens": {"action": "list", "client": "dashboard", "tokens": "elsewhere"},
    "doctor": {"data": "readings.csv", "gateway": "https://load.example.com"},
}


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_the_other_values_cover_every_parameter(name: str) -> None:
    assert OTHER_VALUES[name].keys() == ENTRY_POINTS[name]["parameters"].keys()


@pytest.mark.parametrize("script", SCRIPTS, ids=_relative)
def test_every_option_explains_itself(script: Path) -> None:
    for option in _command_of(script).params:
        assert isinstance(option, click.Option), f"{option.name}: an MLproject knows no positional arguments"
        assert option.help, f"{option.name} has no help text"


AWKWARD = ["", " ", "a b", "it's", 'say "so"', "$(exit 1)", "{data}", "~/x", "*.csv", "ü;|&\\"]


@pytest.mark.parametrize("value", AWKWARD)
@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_mlflow_and_the_shell_hand_every_value_to_the_script_unchanged(name: str, value: str) -> None:
    parameters = list(ENTRY_POINTS[name]["parameters"])
    command = load_project(REPO).get_entry_point(name).compute_command(dict.fromkeys(parameters, value), None)
    shown = subprocess.run(
        ["bash", "-c", command.replace("python ", r"printf '%s\0' ", 1)],
        capture_output=True, text=True, check=True, env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    expected = [f"entrypoints/{name}.py", *(word for p in parameters for word in (f"--{p}", value))]
    assert shown.stdout.split("\0")[:-1] == expected


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_defaults_alone_make_a_complete_command(name: str) -> None:
    declared = ENTRY_POINTS[name]["parameters"]
    assert _launched(name)[3::2] == [str(d.get("default", _EXAMPLES.get(p))) for p, d in declared.items()]


# ---------------------------------------------------------------------------------------------------------- imports


@dataclass(frozen=True)
class _Import:
    """One imported name, in full (``smartgrid_pyfunc.schema.InputError``)."""

    name: str
    line: int
    at_import: bool = True

    @property
    def top(self) -> str:
        return self.name.split(".")[0]


@cache
def _imports(path: Path) -> list[_Import]:
    tree = ast.parse(path.read_text())
    late = {id(node) for f in ast.walk(tree) if isinstance(f, Function) for node in ast.walk(f)}
    found = ((node, name) for node in ast.walk(tree) for name in _imported_names(path, node))
    return [_Import(name, node.lineno, id(node) not in late) for node, name in found]


def _imported_names(path: Path, node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [f"{_absolute(path, node)}.{alias.name}" for alias in node.names]
    return []


def _absolute(path: Path, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = path.relative_to(REPO).with_suffix("").parts[: -node.level]
    return ".".join([*parts, *([node.module] if node.module else [])])


def _unit(name: str) -> str:
    """The part of the package that a dotted name belongs to: ``models`` for ``smartgrid_pyfunc.models.load``."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and not parts[1].startswith("__") else ""


def _unit_of(path: Path) -> str:
    return _unit(".".join(path.relative_to(REPO).with_suffix("").parts))


#: What each part may import of the package, beside itself.
ARROWS: dict[str, set[str]] = {
    "": set(),
    "schema": set(),
    "forest": set(),
    "features": {"schema"},
    "models": {"schema", "features", "forest"},
    "evaluation": {"schema", "features", "simulation"},
    "simulation": {"schema"},
    "sources": {"schema", "simulation"},
    "plots": {"schema", "evaluation"},
    "lifecycle": {"schema"},
    "predictions": {"schema", "features", "sources", "lifecycle"},
    "monitoring": {"schema", "features", "evaluation", "sources", "plots", "lifecycle", "predictions"},
    "serving": {"schema", "lifecycle"},
    "doctor": {"schema", "sources", "lifecycle", "serving"},
    "comparison": {"schema", "features", "evaluation", "sources", "plots", "lifecycle", "predictions"},
    "training": {"schema", "features", "models", "evaluation", "sources", "plots", "lifecycle"},
}
SERVED = {"", "schema", "features", "models", "forest"}
#: What a served model's environment holds; anything else would make loading slow or fail.
SERVED_LIBRARIES = {"numpy", "pandas", "sklearn", "scipy"}
#: Used by training alone, inside a function, so that loading and serving never import it: holidays become dates.
TRAINING_ONLY = {("features", "holidays"), ("models", "lightgbm")}
#: Drivers of a store of fresh history, imported inside a function, where the server is told of one.
HISTORY_ONLY = {("models", "psycopg"), ("models", "pyarrow")}
SERVED_MLFLOW = ("mlflow.pyfunc", "mlflow.exceptions", "mlflow.protos", "mlflow.models")
#: Imported where a user asks for it, with an error that says what to install.
OPTIONAL_LIBRARIES = {"boto3", "pyspark"}


@pytest.mark.parametrize("path", MODULES, ids=_relative)
def test_imports_follow_the_arrows(path: Path) -> None:
    unit = _unit_of(path)
    assert unit in ARROWS, f"say in ARROWS what {unit} may import"
    for found in _imports(path):
        if found.top == "smartgrid_pyfunc":
            target = _unit(found.name)
            # A name such as smartgrid_pyfunc.__version__ is of the package itself.
            assert target in ARROWS[unit] | {unit, ""}, f"{_relative(path)}:{found.line} imports {found.name}"


@pytest.mark.parametrize("path", [p for p in MODULES if _unit_of(p) in SERVED], ids=_relative)
def test_the_served_core_imports_nothing_heavy(path: Path) -> None:
    allowed = SERVED_LIBRARIES | set(sys.stdlib_module_names) | {"smartgrid_pyfunc"}
    for found in _imports(path):
        place = f"{_relative(path)}:{found.line} imports {found.name}"
        if found.top == "mlflow":
            assert _unit_of(path) == "models", place
            assert any(found.name == m or found.name.startswith(f"{m}.") for m in SERVED_MLFLOW), place
        elif (_unit_of(path), found.top) in TRAINING_ONLY | HISTORY_ONLY:
            assert not found.at_import, place
        else:
            assert found.top in allowed, place


@pytest.mark.parametrize("path", [p for p in MODULES if _unit_of(p) == "evaluation"], ids=_relative)
def test_evaluation_takes_arrays_and_gives_numbers(path: Path) -> None:
    for found in _imports(path):
        allowed = SERVED_LIBRARIES | {"statsmodels"} | set(sys.stdlib_module_names) | {"smartgrid_pyfunc"}
        assert found.top in allowed, found


_OUTSIDE = [*MODULES, *sorted((REPO / "benchmarks").rglob("*.py"))]


@pytest.mark.parametrize("path", [*_OUTSIDE, *ENTRY_POINT_FILES], ids=_relative)
def test_nobody_imports_an_entry_point(path: Path) -> None:
    """Scripts may share a private module beside them; nothing else reaches into their folder."""
    closed = SCRIPTS if path in ENTRY_POINT_FILES else ENTRY_POINT_FILES
    names = {"entrypoints", *(script.stem for script in closed)}
    assert not [found for found in _imports(path) if found.top in names]


_distributions = cache(importlib.metadata.packages_distributions)


@pytest.mark.parametrize("path", [*MODULES, *ENTRY_POINT_FILES], ids=_relative)
def test_every_library_that_is_imported_is_pinned(path: Path) -> None:
    known = set(sys.stdlib_module_names) | {"smartgrid_pyfunc"} | OPTIONAL_LIBRARIES
    known |= {file.stem for file in ENTRY_POINT_FILES if path in ENTRY_POINT_FILES}
    for found in _imports(path):
        if found.top not in known:
            providers = {canonicalize_name(name) for name in _distributions().get(found.top, [])}
            assert providers & PRODUCT.keys(), f"{_relative(path)}:{found.line} imports {found.name}, which is unpinned"


# ------------------------------------------------------------------------------------------------------------ style


def _functions(path: Path) -> Iterator[Function]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, Function):
            yield node


def _length(function: Function) -> int:
    """Lines of a function from ``def`` to its end, without its docstring."""
    first = function.body[0]
    docstring = first.end_lineno - first.lineno + 1 if ast.get_docstring(function) is not None else 0  # type: ignore[operator]
    return function.end_lineno - function.lineno + 1 - docstring  # type: ignore[operator]


@pytest.mark.parametrize("path", [*MODULES, *ENTRY_POINT_FILES], ids=_relative)
def test_no_function_is_longer_than_forty_lines(path: Path) -> None:
    assert {f.name: _length(f) for f in _functions(path) if _length(f) > 40} == {}


def test_the_median_function_of_the_package_is_shorter_than_ten_lines() -> None:
    assert statistics.median(_length(f) for path in MODULES for f in _functions(path)) < 10


def _public(body: list[ast.stmt]) -> Iterator[Function | ast.ClassDef]:
    for node in body:
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from _public(node.body)


@pytest.mark.parametrize("path", MODULES, ids=_relative)
def test_every_public_name_of_the_package_has_a_docstring(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "the module has no docstring"
    assert [node.name for node in _public(tree.body) if not ast.get_docstring(node)] == []


TEXTS = {".py", ".md", ".txt", ".toml", ".yaml", ".yml", ".cfg", ".conf", ".sh", ".json", ".sql", ""}
GENERATED = {"mlruns", "mlartifacts", "smartgrid-output", "build", "dist", "__pycache__"}


def _is_own(path: Path) -> bool:
    parts = path.relative_to(REPO).parts
    hidden = any(part.startswith(".") for part in parts[:-1] if part != ".ci")
    return not hidden and not GENERATED & set(parts) and path.suffix in TEXTS and path.is_file()


def _texts() -> list[Path]:
    own = (path for top in REPO.iterdir() for path in ([top] if top.is_file() else _below(top)))
    return sorted(path for path in own if _is_own(path))


def _below(folder: Path) -> Iterator[Path]:
    if folder.name == ".ci" or not folder.name.startswith("."):
        yield from folder.rglob("*")


def _machine_paths() -> re.Pattern[str]:
    """Matches home folders in general, and where this very checkout and interpreter live."""
    everywhere = {Path("/"), Path("/usr"), Path("/usr/local"), Path(tempfile.gettempdir()).resolve(), Path.home()}
    here = {REPO, REPO.parent, Path(sys.prefix)} - everywhere
    places = "|".join(re.escape(str(path)) for path in here)
    return re.compile(rf"(?<![\w./-])(?:/(?:home|Users)/\w|(?:{places})(?![\w.-]))")


@pytest.mark.parametrize("path", _texts(), ids=_relative)
def test_no_text_mentions_a_folder_of_one_machine(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    found = [f"line {text.count(chr(10), 0, m.start()) + 1}: {m[0]}" for m in _machine_paths().finditer(text)]
    assert found == []


def test_the_changelog_tells_of_this_version() -> None:
    changelog = (REPO / "CHANGELOG.md").read_text()
    assert re.search(rf"^## \[{re.escape(smartgrid_pyfunc.__version__)}\] - \d{{4}}-\d\d-\d\d$", changelog, re.M)
    assert "## [Unreleased]" in changelog


# --------------------------------------------------------------------------------------------------- README's commands


def _readme_command(name: str) -> str:
    pattern = rf"<!-- command: {name} -->\n```\w*\n(.*?)\n```"
    found = re.findall(pattern, (REPO / "README.md").read_text(), re.S)
    assert len(found) == 1, f"README needs one fenced block right after <!-- command: {name} -->"
    return str(found[0])


@pytest.mark.parametrize("name", ["run", "test"])
def test_the_readme_shows_the_two_commands_as_one_line_of_posix_shell(name: str) -> None:
    command = _readme_command(name)
    assert "\n" not in command
    subprocess.run(["sh", "-n", "-c", command], check=True)


def test_ci_runs_the_readmes_test_command_as_written() -> None:
    shown = subprocess.run([REPO / ".ci" / "run", "--show"], capture_output=True, text=True, check=True)
    assert shown.stdout == _readme_command("test") + "\n"
