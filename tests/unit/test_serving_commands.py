"""The entry points `serve` and `tokens`: each option reaches its setting; clients are added, listed and removed."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner, Result

from smartgrid_pyfunc.serving.tokens import read_tokens

SCRIPTS = Path(__file__).resolve().parents[2] / "entrypoints"


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"_{name}_under_test", SCRIPTS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    path = list(sys.path)
    sys.path.insert(0, str(SCRIPTS))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path[:] = path
    return module


SERVE, TOKENS = _load("serve"), _load("tokens")


def tokens(*arguments: object) -> Result:
    return CliRunner().invoke(TOKENS.main, [str(argument) for argument in arguments])


# ------------------------------------------------------------------------------------------------ serve


def test_every_option_reaches_its_setting(tmp_path: Path) -> None:
    for name in ("certificate.pem", "key.pem"):
        (tmp_path / name).touch()
    given = {
        "host": "::1", "port": 6000, "champion_port": 6101, "challenger_port": 6102, "anomaly_port": 6103,
        "canary": 0.2, "tokens": tmp_path / "tokens", "tls_certificate": tmp_path / "certificate.pem",
        "tls_key": tmp_path / "key.pem", "rate": 3, "connections": 4, "max_body_mb": 5, "timeout": 6, "workers": 2,
        "env_manager": "uv", "poll_seconds": 7.0, "folder": tmp_path / "folder",
    }  # fmt: skip
    words = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    params = SERVE.main.make_context("serve", words).params
    assert params.keys() == given.keys()
    gateway, servers = SERVE._gateway(params), SERVE._servers(params)
    for name in ("host", "port", "canary", "tokens", "rate", "connections", "max_body_mb", "timeout"):
        assert getattr(gateway, name) == given[name]
    assert (gateway.certificate, gateway.key) == (given["tls_certificate"], given["tls_key"])
    assert (servers.champion, servers.challenger, servers.anomaly) == (6101, 6102, 6103)
    assert (servers.workers, servers.env_manager, servers.poll) == (2, "uv", 7.0)


def test_a_setting_that_breaks_a_rule_is_bad_input_before_anything_starts(tmp_path: Path) -> None:
    done = CliRunner().invoke(SERVE.main, ["--host", "localhost", "--folder", str(tmp_path / "folder")])
    assert done.exit_code == 2
    assert "host must be an IP address: found localhost" in done.output
    assert not (tmp_path / "folder").exists()


# ------------------------------------------------------------------------------------------------ tokens


def test_a_new_token_stands_alone_on_standard_output(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    done = tokens("--client", "alice", "--tokens", path)
    assert done.exit_code == 0
    assert re.fullmatch(r"[0-9a-f]{64}\n", done.stdout)
    assert read_tokens(path) == {done.stdout.strip(): "alice"}


def test_clients_are_listed_without_their_tokens(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    for client in ("bob", "alice", "bob"):
        tokens("--client", client, "--tokens", path)
    assert tokens("--action", "list", "--tokens", path).stdout == "alice\nbob\n"


def test_retiring_and_removing(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    for _ in range(3):
        newest = tokens("--client", "bob", "--tokens", path).stdout.strip()
    assert "Removed 2 token(s) of bob." in tokens("--action", "retire", "--client", "bob", "--tokens", path).output
    assert read_tokens(path) == {newest: "bob"}
    assert "Removed 1 token(s) of bob." in tokens("--action", "remove", "--client", "bob", "--tokens", path).output
    assert read_tokens(path) == {}


@pytest.mark.parametrize("action", ["add", "remove", "retire"])
def test_a_client_must_be_named(tmp_path: Path, action: str) -> None:
    done = tokens("--action", action, "--tokens", tmp_path / "tokens")
    assert done.exit_code == 2
    assert "client is required" in done.output


@pytest.mark.parametrize("place", ["tokens", "deploy/gateway/tokens", "../{checkout}/tokens"])
def test_a_file_in_the_checkout_is_refused(repo: Path, place: str) -> None:
    path = repo / place.format(checkout=repo.name)
    done = tokens("--client", "alice", "--tokens", path)
    assert done.exit_code == 2
    assert "must lie outside the checkout" in done.output
    assert not path.exists()
