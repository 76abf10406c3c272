"""The stock configuration in a real nginx, before servers that tell what reached them and answer as they are told."""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from smartgrid_pyfunc.serving.configuration import Upstreams
from smartgrid_pyfunc.serving.errors import ServingError
from smartgrid_pyfunc.serving.gateway import Gateway, find_nginx
from smartgrid_pyfunc.serving.settings import GatewaySettings
from smartgrid_pyfunc.serving.tokens import add_token, remove_tokens
from tests.e2e.served import Answer
from tests.e2e.support import free_port

pytestmark = pytest.mark.integration

LOAD, ANOMALIES = "/api/v1/analytics/predictive/load-forecast", "/api/v1/analytics/anomalies/ml"
JSON = "application/json"
RECORDS = b'{"dataframe_records": [{"sensor_id": "a"}]}'


@pytest.fixture(scope="module", autouse=True)
def _nginx() -> None:
    try:
        find_nginx()
    except ServingError as error:
        pytest.skip(str(error))


# ------------------------------------------------------------------------------------------------ both sides


class Upstream:
    """A server in the place of a model's: keeps what it is sent, answers with `status` and `body` after `delay`."""

    def __init__(self, variant: str) -> None:
        self.seen: list[tuple[str, dict[str, str], bytes]] = []
        self.status, self.body, self.delay = 200, b'{"predictions": []}', 0.0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._answer(200, b"\n")

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                outer.seen.append((self.path, dict(self.headers), body))
                time.sleep(outer.delay)
                self._answer(outer.status, outer.body)

            def _answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                for name, value in {
                    "Content-Type": JSON,
                    "Content-Length": str(len(body)),
                    "X-Model-Version": "7",
                    "X-Model-Variant": variant,
                }.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        self.address = f"127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@dataclass
class Running:
    """A gateway before three upstreams."""

    settings: GatewaySettings
    gateway: Gateway
    folder: Path
    token: str
    champion: Upstream = field(default_factory=lambda: Upstream("champion"))
    challenger: Upstream = field(default_factory=lambda: Upstream("challenger"))
    anomaly: Upstream = field(default_factory=lambda: Upstream("champion"))

    def upstreams(self) -> Upstreams:
        return Upstreams(self.champion.address, self.anomaly.address, self.challenger.address)

    def ask(
        self, path: str, body: bytes | None = None, *, method: str = "", token: str | None = None, **headers: str
    ) -> Answer:
        """Ask with the fixture's token and, for a body, as JSON, unless `headers` (``Content_Type``) say otherwise."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        token = self.token if token is None else token
        if token:
            sent.setdefault("Authorization", f"Bearer {token}")
        if body is not None:
            sent.setdefault("Content-Type", JSON)
        connection = http.client.HTTPConnection("127.0.0.1", self.settings.port, timeout=20)
        try:
            connection.request(method or ("GET" if body is None else "POST"), path, body, sent)
            response = connection.getresponse()
            return Answer(response.status, dict(response.getheaders()), response.read().decode())
        finally:
            connection.close()

    def raw(self, request: bytes) -> str:
        """Return what is answered to bytes."""
        with socket.create_connection(("127.0.0.1", self.settings.port), timeout=20) as connection:
            connection.sendall(request)
            return b"".join(iter(lambda: connection.recv(65536), b"")).decode()

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "logs" / "access.log").read_text().splitlines()]

    def close(self) -> None:
        self.gateway.stop()
        for upstream in (self.champion, self.challenger, self.anomaly):
            upstream.close()


Start = Callable[..., Running]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """``start(rate=5)`` is a gateway with these settings."""
    running: list[Running] = []

    def begin(**settings: Any) -> Running:
        folder = tmp_path_factory.mktemp("gateway")
        token = add_token(folder / "tokens", "alice")
        chosen = GatewaySettings(tokens=folder / "tokens", port=free_port(), **{"timeout": 2, "rate": 1000, **settings})
        gateway = Gateway(chosen, folder / "run")
        found = Running(chosen, gateway, folder / "run", token)
        running.append(found)
        gateway.read_tokens()
        gateway.configure(found.upstreams())
        gateway.start()
        return found

    yield begin
    for found in running:
        found.close()


@pytest.fixture(scope="module")
def shared(start: Start) -> Running:
    return start()


@pytest.fixture
def gateway(shared: Running) -> Iterator[Running]:
    """The same gateway for all tests, with upstreams that have seen nothing and answer well."""
    for upstream in (shared.champion, shared.challenger, shared.anomaly):
        upstream.seen.clear()
        upstream.status, upstream.body, upstream.delay = 200, b'{"predictions": []}', 0.0
    yield shared


def assert_error(answer: Answer, status: int, sentence: str) -> None:
    """An error is JSON of three fields, and names the request as the header does."""
    assert answer.status == status, answer
    assert answer.headers["Content-Type"] == JSON
    assert answer.json.keys() == {"error_code", "message", "request_id"}
    assert sentence in answer.json["message"]
    assert answer.json["request_id"] == answer.headers["X-Request-Id"]
    assert "nginx/" not in answer.text + str(answer.headers)


# ------------------------------------------------------------------------------------------------ the former call


@pytest.mark.parametrize(
    ("query", "sensor", "params"),
    [
        ("", "all", {"use_ml": True, "hours_ahead": 24}),
        ("?use_ml=true", "all", {"use_ml": True, "hours_ahead": 24}),
        ("?use_ml=False", "all", {"use_ml": False, "hours_ahead": 24}),
        ("?hours_ahead=1&use_ml=false", "all", {"use_ml": False, "hours_ahead": 1}),
        ("?sensor_id=building-0005&hours_ahead=168", "building-0005", {"use_ml": True, "hours_ahead": 168}),
        ("?sensor_id=a.b:C_d-9", "a.b:C_d-9", {"use_ml": True, "hours_ahead": 24}),
        ("?sensor_id=7", "7", {"use_ml": True, "hours_ahead": 24}),
    ],
)
def test_a_get_becomes_the_models_request(gateway: Running, query: str, sensor: str, params: dict[str, Any]) -> None:
    assert gateway.ask(LOAD + query).status == 200
    ((path, headers, body),) = gateway.champion.seen
    assert path == "/invocations"
    assert headers["Content-Type"] == JSON
    assert json.loads(body) == {"dataframe_records": [{"sensor_id": sensor}], "params": params}


@pytest.mark.parametrize("hours", [*range(1, 169)])
def test_every_horizon_passes_as_the_number_it_is(gateway: Running, hours: int) -> None:
    assert gateway.ask(f"{LOAD}?hours_ahead={hours}").status == 200
    assert json.loads(gateway.champion.seen[0][2])["params"]["hours_ahead"] == hours


HOSTILE_VALUES = [
    '"', "%22", "a%22%2C%22b", "\\", "%5C", "a%0a", "a%0A%0D", "a%00", "a'b", "%27", "{}", "a,b", "$request_id", "${x}",
    "+", "a+b", "a%20b", "%C3%BC", "%u0022", "-a", ".a", "a/b", "<a>", "a" * 65, "1;2",
]  # fmt: skip


@pytest.mark.parametrize("value", HOSTILE_VALUES)
@pytest.mark.parametrize("name", ["sensor_id", "hours_ahead", "use_ml"])
def test_no_value_gets_out_of_its_place_in_the_body(gateway: Running, name: str, value: str) -> None:
    answer = gateway.ask(f"{LOAD}?{name}={value}")
    assert_error(answer, 400, f"{name} must be")
    assert value not in answer.text or value in ("{}", "+", ".a", "-a", '"', "\\", "a,b")
    assert gateway.champion.seen == []


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        *((f"hours_ahead={v}", "hours_ahead must be a whole number from 1 to 168.") for v in
          ("0", "169", "-1", "01", "1.0", "1e2", "x", "999", "16%39", "5%0a", "%35")),
        *((f"use_ml={v}", "use_ml must be true or false.") for v in ("1", "yes", "truefalse", "true%0a", "null")),
        *((q, "Each parameter may stand in the query once.") for q in
          ("use_ml=true&use_ml=false", "hours_ahead=1&use_ml=true&hours_ahead=2", "sensor_id=a&sensor_id=a")),
        *((q, "The query may hold use_ml, hours_ahead and sensor_id") for q in
          ("level=0.5", "use_ml", "use_ml=", "=x", "&", "use_ml=true&", "&use_ml=true", "HOURS_AHEAD=3", "Use_ML=true",
           "use_ml=true&x=1", "use_ml=true;hours_ahead=3&x", "hours%5Fahead=3", "params=1", "sensor_id=")),
    ],
)  # fmt: skip
def test_a_query_that_is_not_understood_is_refused_with_the_rule(gateway: Running, query: str, sentence: str) -> None:
    assert_error(gateway.ask(f"{LOAD}?{query}"), 400, sentence)
    assert gateway.champion.seen == []


def test_the_body_of_a_get_is_left_aside(gateway: Running) -> None:
    assert gateway.ask(LOAD, b'{"evil": 1}', method="GET").status == 200
    assert b"evil" not in gateway.champion.seen[0][2]


# ------------------------------------------------------------------------------------------------ bodies


@pytest.mark.parametrize(
    "kind", [JSON, "application/json; charset=utf-8", "application/json;charset=UTF-8", "text/csv",
             "application/vnd.apache.parquet"],
)  # fmt: skip
@pytest.mark.parametrize("path", [LOAD, ANOMALIES])
def test_a_body_passes_as_it_is(gateway: Running, path: str, kind: str) -> None:
    body = bytes(range(256)) * 4096
    assert gateway.ask(path, body, Content_Type=kind).status == 200
    ((way, headers, seen),) = {LOAD: gateway.champion, ANOMALIES: gateway.anomaly}[path].seen
    assert (way, headers["Content-Type"], seen) == ("/invocations", kind, body)


@pytest.mark.parametrize("path", [LOAD, ANOMALIES])
@pytest.mark.parametrize(
    "headers",
    [
        {"Content_Type": "text/plain"},
        {"Content_Type": ""},
        {"Content_Type": "application/json; charset=latin-1"},
        {"Content_Type": "application/json; charset=utf-8; x=1"},
        {"Content_Type": "application/x-www-form-urlencoded"},
        {"Content_Encoding": "gzip"},
    ],
)
def test_other_kinds_of_bodies_are_refused(gateway: Running, path: str, headers: dict[str, str]) -> None:
    assert_error(gateway.ask(path, RECORDS, **headers), 415, "Content-Type of application/json")
    assert gateway.champion.seen == gateway.anomaly.seen == []


def test_no_content_type_is_refused_and_not_a_500_of_mlflow(gateway: Running) -> None:
    head = f"POST {LOAD} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {gateway.token}\r\nContent-Length: 2\r\n\r\n"
    assert gateway.raw(f"{head}{{}}".encode()).startswith("HTTP/1.1 415")


def test_a_body_takes_no_query(gateway: Running) -> None:
    assert_error(gateway.ask(f"{LOAD}?hours_ahead=3", RECORDS), 400, "parameters belong into the body")


def test_a_large_body_is_refused_before_it_is_read(gateway: Running) -> None:
    text = gateway.raw(
        f"POST {LOAD} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {gateway.token}\r\nContent-Type: {JSON}\r\n"
        "Content-Length: 50000000\r\nConnection: close\r\n\r\n".encode()
    )
    assert text.startswith("HTTP/1.1 413")
    assert '"The body is larger than 32 MB; send the rows in parts."' in text


def test_a_chunked_body_reaches_the_model_whole(gateway: Running) -> None:
    head = f"POST {LOAD} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {gateway.token}\r\nContent-Type: {JSON}\r\n"
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (RECORDS[:10], RECORDS[10:])) + b"0\r\n\r\n"
    assert "200 OK" in gateway.raw(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunks)
    assert gateway.champion.seen[0][2] == RECORDS


# ------------------------------------------------------------------------------------------------ who may call


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", "Bearer ", "Bearer x", "Basic YWxpY2U6eA==", "TOKEN", "Bearer TOKEN0", "Bearer  TOKEN"],
)
def test_without_a_valid_token_nothing_is_answered(start: Start, authorization: str) -> None:
    gateway = _for_logins(start)
    authorization = authorization.replace("TOKEN", gateway.token)
    sent = {"Authorization": authorization} if authorization else {}
    answer = gateway.ask(LOAD, token="", **sent)
    assert_error(answer, 401, "Authorization: Bearer <token>")
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="smartgrid"'
    assert gateway.champion.seen == []


_LOGINS: list[Running] = []


def _for_logins(start: Start) -> Running:
    """A gateway of its own: failed logins are counted by address."""
    if not _LOGINS:
        _LOGINS.append(start())
    return _LOGINS[0]


def test_posts_need_a_token_too(gateway: Running) -> None:
    for path in (LOAD, ANOMALIES):
        assert_error(gateway.ask(path, RECORDS, token="0" * 64), 401, "valid token")


def test_the_token_ends_at_the_gateway(gateway: Running) -> None:
    gateway.ask(LOAD, RECORDS, Cookie="session=1", X_Forwarded_For="1.2.3.4")
    _, headers, _ = gateway.champion.seen[0]
    assert gateway.token not in str(headers)
    assert headers.keys() == {"Host", "Content-Length", "Content-Type", "X-Request-Id"}


def test_two_tokens_at_once_are_refused(gateway: Running) -> None:
    text = gateway.raw(
        f"GET {LOAD} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {gateway.token}\r\n"
        f"Authorization: Bearer {'0' * 64}\r\n\r\n".encode()
    )
    assert text.startswith("HTTP/1.1 400")
    assert '"error_code": "BAD_REQUEST"' in text


def test_failed_logins_are_limited_and_a_valid_token_is_not(start: Start) -> None:
    gateway = start()
    found = [gateway.ask(LOAD, token="0" * 64) for _ in range(30)]
    assert {answer.status for answer in found} == {401, 429}
    assert found[0].status == 401
    late = next(answer for answer in found if answer.status == 429)
    assert_error(late, 429, "Too many requests")
    assert late.headers["Retry-After"] == "1"
    assert gateway.ask(LOAD).status == 200


def test_a_client_is_limited_and_others_are_not(start: Start) -> None:
    gateway = start(rate=5)
    bob = add_token(gateway.settings.tokens, "bob")
    _reload(gateway)
    found = [gateway.ask(LOAD) for _ in range(30)]
    assert [answer.status for answer in found[:10]] == [200] * 10
    assert_error(next(answer for answer in found if answer.status != 200), 429, "Too many requests")
    assert gateway.ask(LOAD, token=bob).status == 200


def test_requests_at_a_time_are_limited(start: Start) -> None:
    gateway = start(connections=2)
    gateway.champion.delay = gateway.challenger.delay = 1.0
    statuses: list[int] = []
    threads = [threading.Thread(target=lambda: statuses.append(gateway.ask(LOAD).status)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200, 200, 429, 429, 429]


def _reload(gateway: Running) -> None:
    gateway.gateway.read_tokens()
    gateway.gateway.configure(gateway.upstreams())
    gateway.gateway.reload()


def test_a_removed_client_is_refused_after_the_reload(start: Start) -> None:
    gateway = start()
    bob = add_token(gateway.settings.tokens, "bob")
    assert gateway.ask(LOAD, token=bob).status == 401
    _reload(gateway)
    assert gateway.ask(LOAD, token=bob).status == 200
    remove_tokens(gateway.settings.tokens, "bob")
    _reload(gateway)
    assert gateway.ask(LOAD, token=bob).status == 401
    assert gateway.ask(LOAD).status == 200


def test_a_broken_configuration_leaves_the_old_one_serving(start: Start) -> None:
    gateway = start()
    (gateway.folder / "tokens.map").write_text('"Bearer 00" "x" ; broken {')
    gateway.gateway._process.send(1)  # SIGHUP past our own check
    time.sleep(0.5)
    assert gateway.ask(LOAD).status == 200
    with pytest.raises(ServingError, match="kept its former configuration"):
        _reload_unchecked(gateway.gateway)


def _reload_unchecked(gateway: Gateway) -> None:
    gateway.reload()


def test_reloads_under_load_lose_no_request(start: Start) -> None:
    gateway = start()
    gateway.champion.delay = gateway.challenger.delay = 0.005
    over = threading.Event()
    failed: list[Any] = []
    done = [0] * 8

    def ask(i: int) -> None:
        while not over.is_set():
            try:
                answer = gateway.ask(LOAD, RECORDS if i % 2 else None)
                done[i] += 1
                if answer.status != 200:
                    failed.append(answer)
            except OSError as error:
                failed.append(error)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        gateway.gateway.reload()
        time.sleep(0.05)
    over.set()
    for thread in threads:
        thread.join()
    assert failed == []
    assert min(done) > 5


# ------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    "path",
    ["/", "/invocations", "/docs", "/openapi.json", "/ping", "/version", "/api/v1/analytics", f"{LOAD}/", f"{LOAD}x",
     "/_error/500", "/_up/champion", "/_forecast/stored", "/_anomalies", "/nginx.conf", "/tokens.map",
     f"{LOAD}/../../../../../invocations", "/api/v1/analytics/predictive/load-forecast%00"],
)  # fmt: skip
def test_nothing_else_is_reachable(gateway: Running, path: str) -> None:
    for body in (None, RECORDS):
        answer = gateway.ask(path, body)
        assert answer.status in (404, 400 if "%00" in path else 404)
        assert answer.json["error_code"] in ("ENDPOINT_NOT_FOUND", "BAD_REQUEST")
    assert gateway.champion.seen == gateway.anomaly.seen == []


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [*((m, LOAD, "GET, POST") for m in ("PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "GETT", "TRACE")),
     *((m, ANOMALIES, "POST") for m in ("GET", "PUT", "DELETE", "HEAD", "TRACE")),
     *((m, "/health", "GET, HEAD") for m in ("POST", "DELETE", "TRACE"))],
)  # fmt: skip
def test_other_methods_are_told_which_there_are(gateway: Running, method: str, path: str, allowed: str) -> None:
    answer = gateway.ask(path, method=method)
    assert (answer.status, answer.headers["Allow"]) == (405, allowed)
    if method != "HEAD":
        assert_error(answer, 405, "Allow")


def test_a_long_request_line_and_a_long_header_are_refused(gateway: Running) -> None:
    assert_error(gateway.ask(f"{LOAD}?sensor_id={'a' * 9000}"), 414, "request line")
    assert_error(gateway.ask(LOAD, X_Long="a" * 9000), 400, "longer than 8 kB")


@pytest.mark.parametrize(
    "request_", [b"GARBAGE\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n"]
)
def test_what_is_no_http_gets_json_too(gateway: Running, request_: bytes) -> None:
    text = gateway.raw(request_)
    assert '{"error_code": "BAD_REQUEST", "message": "The request is not valid HTTP.", "request_id": "' in text


def test_the_models_sentence_passes(gateway: Running) -> None:
    gateway.champion.status = gateway.challenger.status = 400
    gateway.champion.body = gateway.challenger.body = b'{"message": "avg_value must be a number."}'
    answer = gateway.ask(LOAD, RECORDS)
    assert (answer.status, answer.json) == (400, {"message": "avg_value must be a number."})
    assert answer.headers["X-Model-Version"] == "7"


@pytest.mark.parametrize(("status", "told"), [(500, 500), (502, 502), (503, 502), (504, 504), (415, 415)])
def test_a_servers_failure_is_told_without_its_words(gateway: Running, status: int, told: int) -> None:
    gateway.anomaly.status, gateway.anomaly.body = status, b'{"stack_trace": "Traceback: /srv/secret.py"}'
    answer = gateway.ask(ANOMALIES, RECORDS)
    assert_error(answer, told, "")
    assert "secret" not in answer.text


def test_a_model_that_takes_too_long_is_a_504(gateway: Running) -> None:
    gateway.anomaly.delay = 3.0
    assert_error(gateway.ask(ANOMALIES, RECORDS), 504, "longer than 2 s")


def test_a_server_that_is_down_is_a_502_that_says_when_to_come_back(start: Start) -> None:
    gateway = start()
    gateway.anomaly.close()
    answer = gateway.ask(ANOMALIES, RECORDS)
    assert_error(answer, 502, "does not answer")
    assert answer.headers["Retry-After"] == "5"
    assert _line_of(gateway, answer)["model_version"] == ""


def test_a_client_that_sends_slowly_is_let_go(start: Start) -> None:
    gateway = start()
    with socket.create_connection(("127.0.0.1", gateway.settings.port), timeout=30) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost:")
        begun = time.monotonic()
        assert connection.recv(100) == b""
        assert 8 < time.monotonic() - begun < 15


# ------------------------------------------------------------------------------------------------ every answer


@pytest.mark.parametrize(("path", "token"), [(LOAD, None), ("/nothing", None), (LOAD, "0" * 64), ("/health", "")])
def test_every_answer_has_the_headers_of_safety(gateway: Running, path: str, token: str | None) -> None:
    headers = gateway.ask(path, token=token).headers
    assert re.fullmatch("[0-9a-f]{32}", headers["X-Request-Id"])
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Server"] == "nginx"
    assert headers["Connection"] == "close"


def test_the_log_tells_who_asked_what_and_which_version_answered(gateway: Running) -> None:
    answer = gateway.ask(f"{LOAD}?hours_ahead=2")
    line = _line_of(gateway, answer)
    assert (line["client"], line["path"], line["query"], line["status"]) == ("alice", LOAD, "hours_ahead=2", 200)
    assert (line["variant"], line["model_version"]) == ("champion", "7")
    assert line["upstream"] == gateway.champion.address
    assert line["seconds"] >= 0


def test_the_log_holds_no_token_and_no_query_that_was_not_understood(gateway: Running) -> None:
    answer = gateway.ask(f"{LOAD}?token=my-secret%22")
    line = _line_of(gateway, answer)
    assert (line["status"], line["query"]) == (400, "refused")
    text = (gateway.folder / "logs" / "access.log").read_text()
    assert gateway.token not in text
    assert "my-secret" not in text


def _line_of(gateway: Running, answer: Answer) -> dict[str, Any]:
    """Return the line of the log, which is written after the answer is sent."""
    end = time.monotonic() + 5
    while True:
        found = [entry for entry in gateway.log() if entry["request_id"] == answer.headers["X-Request-Id"]]
        if found or time.monotonic() > end:
            (line,) = found
            return line
        time.sleep(0.01)


def test_health_asks_the_servers(start: Start) -> None:
    gateway = start()
    answer = gateway.ask("/health", token="")
    assert (answer.status, answer.headers["Content-Type"]) == (200, JSON)
    assert answer.json == {
        "status": "ok",
        "load_forecast": {"status": "ok", "model_version": "7"},
        "anomalies": {"status": "ok", "model_version": "7"},
    }
    gateway.anomaly.close()
    answer = gateway.ask("/health", token="")
    assert (answer.status, answer.json["anomalies"]["status"]) == (200, "down")
    gateway.champion.close()
    answer = gateway.ask("/health", token="")
    assert_error(answer, 503, "The server of the load model does not answer")


# ------------------------------------------------------------------------------------------------ canary


def _clients(gateway: Running, count: int) -> list[str]:
    tokens = [add_token(gateway.settings.tokens, f"client-{i}") for i in range(count)]
    _reload(gateway)
    return tokens


def test_the_share_of_clients_goes_to_the_challenger_and_stays_there(start: Start) -> None:
    gateway = start(canary=0.25)
    tokens = _clients(gateway, 60)
    found = [[gateway.ask(LOAD, token=t).headers["X-Model-Variant"] for t in tokens] for _ in range(2)]
    assert found[0] == found[1]
    assert 5 <= found[0].count("challenger") <= 27  # 15 expected; 4 standard deviations


@pytest.mark.parametrize(("canary", "variant"), [(0, "champion"), (1, "challenger")])
def test_none_and_all_are_shares_too(start: Start, canary: float, variant: str) -> None:
    gateway = start(canary=canary)
    assert {gateway.ask(LOAD, token=t).headers["X-Model-Variant"] for t in _clients(gateway, 8)} == {variant}


@pytest.mark.parametrize("failure", ["down", "failing", "hanging"])
def test_a_challenger_that_fails_hurts_nobody_and_the_answer_names_the_champion(start: Start, failure: str) -> None:
    gateway = start(canary=1)
    if failure == "down":
        gateway.challenger.close()
    gateway.challenger.status = 500
    gateway.challenger.delay = 3.0 if failure == "hanging" else 0.0
    for body in (None, RECORDS):
        answer = gateway.ask(LOAD, body)
        assert (answer.status, answer.headers["X-Model-Variant"]) == (200, "champion")
        line = _line_of(gateway, answer)
        assert line["variant"] == "champion"
        assert line["upstream"].endswith(gateway.champion.address)
    assert gateway.champion.seen[1][2] == RECORDS


def test_a_refusal_of_the_challenger_is_an_answer(start: Start) -> None:
    gateway = start(canary=1)
    gateway.challenger.status = 400
    assert gateway.ask(LOAD, RECORDS).status == 400
    assert gateway.champion.seen == []


def test_a_server_on_another_port_is_taken_up_by_a_reload(start: Start) -> None:
    gateway = start()
    gateway.ask(LOAD)
    other = Upstream("champion")
    gateway.gateway.configure(replace(gateway.upstreams(), champion=other.address))
    gateway.gateway.reload()
    assert gateway.ask(LOAD).status == 200
    end = time.monotonic() + 10
    while not gateway.gateway.drained():
        assert time.monotonic() < end
        time.sleep(0.02)
    assert (len(gateway.champion.seen), len(other.seen)) == (1, 1)
    other.close()


# ------------------------------------------------------------------------------------------------ TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", folder / "key.pem",
         "-out", folder / "certificate.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder / "certificate.pem", folder / "key.pem"


def test_with_a_certificate_the_gateway_speaks_https_only(start: Start, certificate: tuple[Path, Path]) -> None:
    gateway = start(certificate=certificate[0], key=certificate[1])
    trusting = ssl.create_default_context(cafile=str(certificate[0]))
    connection = http.client.HTTPSConnection("127.0.0.1", gateway.settings.port, timeout=10, context=trusting)
    connection.request("GET", LOAD, headers={"Authorization": f"Bearer {gateway.token}"})
    answer = connection.getresponse()
    assert answer.status == 200
    assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"
    connection.close()
    assert_error(gateway.ask(LOAD), 400, "speaks HTTPS only")


def test_old_versions_of_tls_are_refused(start: Start, certificate: tuple[Path, Path]) -> None:
    gateway = start(certificate=certificate[0], key=certificate[1])
    done = subprocess.run(
        ["openssl", "s_client", "-connect", gateway.settings.address, "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "Cipher is (NONE)" in done.stdout
