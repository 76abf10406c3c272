"""Settings are checked before anything starts; templates are filled in wholly and nginx takes what comes out."""

from __future__ import annotations

import re
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from smartgrid_pyfunc.schema import InputError
from smartgrid_pyfunc.serving import gateway as gateway_module
from smartgrid_pyfunc.serving.configuration import Upstreams, render
from smartgrid_pyfunc.serving.errors import ServingError
from smartgrid_pyfunc.serving.gateway import find_nginx
from smartgrid_pyfunc.serving.ports import is_free, spare
from smartgrid_pyfunc.serving.settings import TEMPLATES, GatewaySettings, ServerSettings, default_folder, default_tokens

ALL = Upstreams("127.0.0.1:5101", "127.0.0.1:5103", "127.0.0.1:5102")
WITHOUT = Upstreams("127.0.0.1:5101", "127.0.0.1:5103")


def settings(**chosen: Any) -> GatewaySettings:
    return GatewaySettings(**{"tokens": Path("tokens"), **chosen})


def one_line(text: str) -> str:
    return re.sub(" +", " ", " ".join(line.split("#")[0].strip() for line in text.splitlines()))


@pytest.mark.parametrize("upstreams", [ALL, WITHOUT])
def test_no_placeholder_is_left_and_every_template_is_used(upstreams: Upstreams) -> None:
    files = render(settings(canary=0.1), upstreams)
    assert files.keys() == {path.name for path in TEMPLATES.glob("*.conf")}
    # The comment that explains placeholders is the only one with an ellipsis.
    assert [m for text in files.values() for m in re.findall(r"\$\{GATEWAY_\w+\}", text)] == []


def test_a_placeholder_that_no_setting_fills_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "nginx.conf").write_text("listen ${GATEWAY_UNKNOWN};")
    with pytest.raises(KeyError, match="GATEWAY_UNKNOWN"):
        render(settings(), ALL, tmp_path)


def test_settings_stand_where_nginx_reads_them() -> None:
    chosen = settings(port=6000, rate=7, connections=3, max_body_mb=9, timeout=11)
    files = {name: one_line(text) for name, text in render(chosen, ALL).items()}
    assert "listen 127.0.0.1:6000 default_server;" in files["nginx.conf"]
    assert "zone=clients:1m rate=7r/s;" in files["nginx.conf"]
    assert "limit_req zone=clients burst=14 nodelay; limit_conn connections 3;" in files["proxy.conf"]
    assert "client_max_body_size 9m;" in files["nginx.conf"]
    assert "proxy_read_timeout 11s;" in files["proxy.conf"]
    assert "worker_shutdown_timeout 16s;" in files["nginx.conf"]


@pytest.mark.parametrize(
    ("canary", "lines"),
    [
        (0, "{ * champion; }"),
        (1, "{ * challenger; }"),
        (0.25, "{ 25.00% challenger; * champion; }"),
        (0.0001, "{ 0.01% challenger; * champion; }"),
    ],
)
def test_the_share_of_the_challenger(canary: float, lines: str) -> None:
    assert f"split_clients $client $load_pool {lines}" in one_line(
        render(settings(canary=canary), ALL)["upstreams.conf"]
    )


def test_the_champion_stands_behind_the_challenger_and_alone_where_there_is_none() -> None:
    both, alone = (one_line(render(settings(), u)["upstreams.conf"]) for u in (ALL, WITHOUT))
    assert "server 127.0.0.1:5102 max_fails=1 fail_timeout=10s; server 127.0.0.1:5101 backup;" in both
    assert "upstream challenger { server 127.0.0.1:5101 max_fails=0;" in alone


@pytest.mark.parametrize(("host", "address"), [("127.0.0.1", "127.0.0.1:5000"), ("::1", "[::1]:5000")])
def test_addresses_are_written_as_urls_have_them(host: str, address: str) -> None:
    assert settings(host=host).url == f"http://{address}"
    assert f"listen {address} default_server;" in one_line(render(settings(host=host), ALL)["nginx.conf"])


@pytest.mark.parametrize("chosen", [{}, {"canary": 0.5}, {"canary": 1}, {"host": "::1"}, {"rate": 1, "timeout": 600}])
@pytest.mark.parametrize("upstreams", [ALL, WITHOUT])
def test_nginx_takes_the_configuration(tmp_path: Path, chosen: dict[str, Any], upstreams: Upstreams) -> None:
    try:
        nginx = find_nginx()
    except ServingError as error:
        pytest.skip(str(error))
    for name, text in (render(settings(**chosen), upstreams) | {"tokens.map": ""}).items():
        (tmp_path / name).write_text(text)
    for name in ("logs", "temp"):
        (tmp_path / name).mkdir()
    command = [
        nginx,
        "-p",
        f"{tmp_path}/",
        "-c",
        str(tmp_path / "nginx.conf"),
        "-e",
        str(tmp_path / "logs" / "e"),
        "-t",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "[warn]" not in done.stderr


@pytest.mark.parametrize(
    ("chosen", "sentence"),
    [
        ({"host": "localhost"}, "host must be an IP address: found localhost"),
        ({"host": "0.0.0.0; evil"}, "host must be an IP address"),
        ({"port": 0}, "port must lie in"),
        ({"port": 65536}, "port must lie in"),
        ({"canary": 1.5}, "canary must lie in"),
        ({"canary": -0.1}, "canary must lie in"),
        ({"canary": float("nan")}, "canary must lie in"),
        ({"canary": 0.00001}, "canary must be 0 or at least"),
        ({"rate": 0}, "rate must lie in"),
        ({"max_body_mb": 0}, "max_body_mb must lie in"),
        ({"timeout": 0}, "timeout must lie in"),
        ({"certificate": Path("a.pem")}, "TLS needs a certificate and a key"),
        ({"certificate": Path("no.pem"), "key": Path("no.key")}, "certificate and key must be files: found no.pem"),
        ({"certificate": Path('a";x'), "key": Path("k")}, "a path may hold no quotes"),
    ],
)
def test_a_setting_that_nginx_would_misread_is_refused(chosen: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=re.escape(sentence)):
        settings(**chosen)


@pytest.mark.parametrize(
    ("chosen", "sentence"),
    [
        ({"champion": 0}, "port must lie in"),
        ({"champion": 5102}, "need ports of their own"),
        ({"workers": 0}, "workers must lie in"),
        ({"poll": 0}, "poll must lie in"),
    ],
)
def test_senseless_settings_of_servers_are_refused(chosen: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=re.escape(sentence)):
        ServerSettings(**chosen)


@pytest.mark.parametrize(
    ("host", "clear"),
    [("127.0.0.1", False), ("127.0.0.9", False), ("::1", False), ("0.0.0.0", True), ("10.0.0.1", True)],
)
def test_only_loopback_goes_without_tls(host: str, clear: bool) -> None:
    assert settings(host=host).in_the_clear is clear


def test_a_spare_port_is_the_next_tenth_that_is_free() -> None:
    with socket.socket() as first:
        first.bind(("127.0.0.1", 0))
        first.listen()
        port = first.getsockname()[1]
        assert spare(port) == next(other for other in range(port + 10, port + 100, 10) if is_free(other))
    assert spare(port) == port


def test_files_are_private_to_the_user_by_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("SMARTGRID_TOKENS", "XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_tokens() == tmp_path / ".config" / "smartgrid" / "tokens"
    assert default_folder(5000) == tmp_path / ".local" / "state" / "smartgrid" / "gateway-5000"
    monkeypatch.setenv("SMARTGRID_TOKENS", "/run/secrets/tokens")
    assert default_tokens() == Path("/run/secrets/tokens")


def test_a_missing_nginx_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(gateway_module, "_PATHS", str(tmp_path))
    with pytest.raises(ServingError, match="apt-get install nginx-light"):
        find_nginx()


RAW = re.compile(r"\$arg_|\$args\b|\$query_string|\$request_uri|\$http_(?!authorization|content_encoding)")


def test_no_value_of_a_query_reaches_a_body_but_through_a_map() -> None:
    """Nginx does not escape variables: $arg_NAME and $args may stand only where they are matched or logged."""
    for path in TEMPLATES.glob("*.conf"):
        for line in path.read_text().splitlines():
            code = line.split("#")[0]
            if RAW.search(code):
                assert re.match(r"\s*(map \$|if \(\$args\)|\"\"      \$args;)", code), f"{path.name}: {line}"


def test_every_pattern_for_a_value_is_anchored_at_both_ends() -> None:
    patterns = re.findall(r'"~(\S*\(\?<(?:plain|whole)_\w+>.*?)" \$', (TEMPLATES / "maps.conf").read_text())
    assert len(patterns) == 2
    assert all(pattern.startswith("^") and pattern.endswith(r"\z") for pattern in patterns)
