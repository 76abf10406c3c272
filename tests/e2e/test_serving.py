"""Champion, challenger, anomaly model and gateway as `serve` runs them, on small models in a real registry."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow import MlflowClient

from smartgrid_pyfunc.serving.errors import ServingError
from smartgrid_pyfunc.serving.gateway import find_nginx
from smartgrid_pyfunc.serving.tokens import add_token
from tests.e2e.odd_requests import TABLE, Endpoint, Odd, verify
from tests.e2e.served import (
    ANOMALIES,
    ANOMALY,
    FORECAST,
    LOAD,
    Answer,
    Served,
    add_client,
    options,
    project,
    promote,
    register,
    script,
    serving_all,
)
from tests.e2e.small_models import STORED_SENSOR, saved_models

pytestmark = pytest.mark.e2e

READING = {"sensor_id": "m", "sensor_type": "power", "timestamp": "2026-03-01T12:00:00Z", "value": 1.0}


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URI of a registry with three versions of the load model and one of the anomaly model."""
    try:
        find_nginx()
    except ServingError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("served-models")
    models = saved_models(folder)
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    register(uri, models)
    return uri


@pytest.fixture(scope="session")
def served(store: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """All of it, once for the tests of this file; half of the clients go to the challenger."""
    folder = tmp_path_factory.mktemp("served")
    add_token(folder / "tokens", "alice")
    chosen = options(folder / "tokens", folder / "run", canary=0.5, rate=500)
    with serving_all(script(chosen), chosen, store, folder / "output") as running:
        yield running


@pytest.fixture(scope="session")
def tokens(served: Served) -> dict[str, str]:
    """Tokens of clients that the champion answers and of one that the challenger does, by variant."""
    found: dict[str, str] = {}
    for number in range(20):
        token = add_token(served.tokens, f"client-{number}")
        answer = admitted(served, token)
        found.setdefault(answer.headers["x-model-variant"], token)
        if len(found) == 2:
            return found
    raise AssertionError(f"20 clients, and all of them go to {list(found)}")


def admitted(served: Served, token: str) -> Answer:
    """Wait until a new client is let in by every worker: for some 0.1 s of a reload the former ones still accept."""
    answer: Answer = eventually(lambda: served.ask(FORECAST, token), lambda answer: answer.status == 200)
    time.sleep(0.5)
    return answer


def eventually(ask: Callable[[], Any], right: Callable[[Any], bool], seconds: float = 60.0) -> Any:
    """Ask until the answer is right."""
    end = time.monotonic() + seconds
    while not right(found := ask()):
        assert time.monotonic() < end, found
        time.sleep(0.1)
    return found


# ------------------------------------------------------------------------------------------------ the API


def test_the_former_call_is_answered_by_the_model_in_production(served: Served, tokens: dict[str, str]) -> None:
    answer = served.ask(f"{FORECAST}?use_ml=true", tokens["champion"])
    assert answer.status == 200
    rows = answer.json["predictions"]
    assert len(rows) == 3 * 24
    assert {row["sensor_id"] for row in rows} == {STORED_SENSOR, "house", "Zähler ß"}
    assert answer.headers["x-model-version"] == "1"


def test_the_former_call_works_with_curl(served: Served, tokens: dict[str, str]) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    url = f"http://localhost:{served.port}{FORECAST}?use_ml=true"
    done = subprocess.run(
        ["curl", "-sS", "--fail", url, "-H", f"Authorization: Bearer {tokens['champion']}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith('{"predictions": [{"sensor_id": ')


def test_a_get_answers_as_the_post_that_asks_the_same(served: Served, tokens: dict[str, str]) -> None:
    query = f"?sensor_id={STORED_SENSOR}&hours_ahead=5&use_ml=false"
    body = {"dataframe_records": [{"sensor_id": STORED_SENSOR}], "params": {"hours_ahead": 5, "use_ml": False}}
    got = served.ask(FORECAST + query, tokens["champion"])
    assert got.json == served.ask(FORECAST, tokens["champion"], body).json
    assert [row["model"] for row in got.json["predictions"]] == ["seasonal_naive"] * 5


def test_readings_are_judged(served: Served, tokens: dict[str, str]) -> None:
    body = {"dataframe_records": [READING, READING | {"value": None, "timestamp": "2026-03-01T13:00:00Z"}]}
    answer = served.ask(ANOMALIES, tokens["champion"], body)
    assert answer.status == 200
    assert [row["reason"] for row in answer.json["predictions"]][1] == "no value"
    assert answer.headers["x-model-name"] == ANOMALY


def test_health_names_both_models(served: Served) -> None:
    assert served.ask("/health", "").json == {
        "status": "ok",
        "load_forecast": {"status": "ok", "model_version": "1"},
        "anomalies": {"status": "ok", "model_version": "1"},
    }


def test_the_variant_that_answered_is_named_in_answer_and_log(served: Served, tokens: dict[str, str]) -> None:
    for variant, version in (("champion", "1"), ("challenger", "2")):
        answer = served.ask(FORECAST, tokens[variant])
        assert (answer.headers["x-model-variant"], answer.headers["x-model-version"]) == (variant, version)
        line = eventually(lambda answer=answer: _logged(served, answer), bool)[0]
        assert (line["variant"], line["model_version"], line["model"]) == (variant, version, LOAD)


def _logged(served: Served, answer: Answer) -> list[dict[str, Any]]:
    return [line for line in served.log() if line["request_id"] == answer.headers["x-request-id"]]


@pytest.mark.parametrize("odd", [odd for odd in TABLE if not odd.stall], ids=lambda odd: odd.name)
def test_an_odd_request_is_answered_as_the_table_says(odd: Odd, served: Served, tokens: dict[str, str]) -> None:
    verify(odd, _endpoint(served, tokens), STORED_SENSOR, gateway=True)


def _endpoint(served: Served, tokens: dict[str, str], stall: float = 2.0) -> Endpoint:
    paths, headers = {LOAD: FORECAST, ANOMALY: ANOMALIES}, {"Authorization": f"Bearer {tokens['champion']}"}
    return Endpoint(f"http://127.0.0.1:{served.port}", paths, headers, stall)


def test_a_slow_client_is_cut_off_and_logged(served: Served, tokens: dict[str, str]) -> None:
    """Nginx closes such a connection without an answer."""
    (odd,) = [odd for odd in TABLE if odd.stall]
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        verify(odd, _endpoint(served, tokens, stall=12.0), STORED_SENSOR, gateway=True)
    eventually(lambda: [line for line in served.log() if line["status"] == odd.gateway_status], bool)


def test_the_api_is_as_described(served: Served, repo: Path, tmp_path: Path) -> None:
    """By schemathesis: requests made from the description, good and bad, and every answer held against it.

    Not checked: that each request which fits the description is answered with 200. It cannot say which sensors are
    known, nor that the rows of a sensor belong together.
    """
    token = add_token(served.tokens, "schemathesis")
    admitted(served, token)
    done = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", "run", str(repo / "deploy" / "gateway" / "openapi.yaml"),
         "--url", f"http://127.0.0.1:{served.port}", "--header", f"Authorization: Bearer {token}", "--checks", "all",
         "--exclude-checks", "positive_data_acceptance", "--max-examples", "15", "--seed", "1",
         "--phases", "examples,coverage,fuzzing", "--request-timeout", "60", "--no-color"],
        cwd=tmp_path, capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "4 passed" in done.stdout or "No issues found" in done.stdout, done.stdout


def test_the_examples_for_python_work_as_written(served: Served, tokens: dict[str, str], repo: Path) -> None:
    text = (repo / "docs" / "serving.md").read_text()
    found = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(found) == 2
    code = "\n".join(found).replace("http://localhost:5000", f"http://127.0.0.1:{served.port}")
    assert "building-0005" in code
    names: dict[str, Any] = {"token": tokens["champion"]}
    exec(code.replace("building-0005", STORED_SENSOR), names)
    assert len(names["rows"]) == 48
    assert names["answer"].status_code == 200
    answer = names["Gateway"](tokens["champion"]).predict(inputs={"dataframe_records": [{"sensor_id": "all"}]})
    assert len(answer["predictions"]) == 3 * 24


def test_the_csv_example_works(served: Served, tokens: dict[str, str]) -> None:
    answer = served.ask(FORECAST, tokens["champion"], f"sensor_id\n{STORED_SENSOR}\n".encode(), "text/csv")
    assert answer.status == 200
    assert len(answer.json["predictions"]) == 24


# ------------------------------------------------------------------------------------------------ clients


def test_a_client_is_added_and_removed_while_serving(served: Served) -> None:
    token = add_client(served.tokens, "bob")
    eventually(lambda: served.ask(FORECAST, token).status, lambda status: status == 200)
    add_client(served.tokens, "bob", action="remove")
    eventually(lambda: served.ask(FORECAST, token).status, lambda status: status in (401, 429))


def test_a_broken_tokens_file_leaves_the_former_tokens_valid(served: Served, tokens: dict[str, str]) -> None:
    before = served.tokens.read_text()
    served.tokens.write_text(before + "not a token\n")
    served.wait_for("the former tokens stay valid: a line must be", 60)
    assert f"({served.tokens}, line {len(before.splitlines()) + 1})" in served.said()
    assert served.ask(FORECAST, tokens["champion"]).status == 200
    served.tokens.write_text(before)
    eventually(lambda: served.said().count("the tokens file changed and was read"), lambda n: n > 1)
    assert served.ask(FORECAST, tokens["champion"]).status == 200


# ------------------------------------------------------------------------------------------------ faults, promotion
# One set of servers for all of these: they stand in the order in which stages change.


class Load:
    """Clients that ask without pause, in threads, until the end of a ``with``."""

    def __init__(self, served: Served, tokens: list[str]) -> None:
        self.answers: list[Answer] = []
        self.failures: list[Any] = []
        self._served, self._over = served, threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(token, i)) for i, token in enumerate(tokens)]

    def _ask(self, token: str, number: int) -> None:
        body = {"dataframe_records": [{"sensor_id": STORED_SENSOR}], "params": {"hours_ahead": 2}}
        while not self._over.is_set():
            try:
                answer = self._served.ask(FORECAST, token, body if number % 2 else None)
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(error)
                continue
            (self.answers if answer.status == 200 else self.failures).append(answer)

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


def test_the_challengers_clients_are_answered_by_the_champion_while_it_is_down(
    served: Served, tokens: dict[str, str]
) -> None:
    with Load(served, [tokens["challenger"]] * 2) as load:
        for process in served.server("challenger"):
            process.kill()
        eventually(lambda: [a.headers["x-model-variant"] for a in load.answers], lambda seen: "champion" in seen)
        served.wait_for("the challenger of LoadForecastingModel, version 2, ended")
        eventually(
            lambda: served.ask(FORECAST, tokens["challenger"]),
            lambda a: a.headers["x-model-variant"] == "challenger",
            120,
        )
    # What a killed server was working on is asked of the other one, so not even those requests are lost.
    assert load.failures == []


def test_a_promoted_version_is_taken_up_without_a_failed_request(served: Served, tokens: dict[str, str]) -> None:
    with Load(served, [tokens["champion"]] * 4) as load:
        promote(served.uri, LOAD, 3)
        eventually(lambda: served.ask(FORECAST, tokens["champion"]), lambda a: a.headers["x-model-version"] == "3", 180)
        served.wait_for("version 1 on port")  # has answered its last request
        seen = len(load.answers)
        eventually(lambda: len(load.answers), lambda n: n > seen + 20)
    assert load.failures == []
    versions = [answer.headers["x-model-version"] for answer in load.answers]
    assert set(versions) == {"1", "3"}
    assert set(versions[seen:]) == {"3"}
    eventually(
        lambda: served.server("champion"),
        lambda found: all("Version:3" in p.environ()["UVICORN_HEADERS"] for p in found),
        30,
    )


def test_a_challenger_without_its_stage_stops_and_a_new_one_starts(served: Served, tokens: dict[str, str]) -> None:
    with Load(served, [tokens["challenger"]] * 2) as load:
        promote(served.uri, LOAD, 2, "Archived")
        eventually(
            lambda: served.ask(FORECAST, tokens["challenger"]), lambda a: a.headers["x-model-variant"] == "champion", 60
        )
        eventually(lambda: served.server("challenger"), lambda found: not found, 60)
        promote(served.uri, LOAD, 1, "Staging")
        eventually(
            lambda: served.ask(FORECAST, tokens["challenger"]), lambda a: a.headers["x-model-version"] == "1", 180
        )
    assert load.failures == []


def test_a_champion_that_is_killed_comes_back(served: Served, tokens: dict[str, str]) -> None:
    before = served.ask(FORECAST, tokens["champion"]).headers["x-model-version"]
    for process in served.server("champion"):
        process.kill()
    down = eventually(lambda: served.ask(FORECAST, tokens["champion"]), lambda a: a.status != 200, 60)
    assert (down.status, down.json["error_code"], down.headers["retry-after"]) == (502, "TEMPORARILY_UNAVAILABLE", "5")
    assert served.ask(ANOMALIES, tokens["champion"], {"dataframe_records": [READING]}).status == 200
    back = eventually(lambda: served.ask(FORECAST, tokens["champion"]), lambda a: a.status == 200, 180)
    assert back.headers["x-model-version"] == before


def test_a_gateway_that_is_killed_comes_back(served: Served, tokens: dict[str, str]) -> None:
    for process in served.descendants():
        if process.name() == "nginx":
            process.kill()

    def ask() -> int:
        try:
            return served.ask(FORECAST, tokens["champion"]).status
        except OSError:
            return 0

    eventually(ask, lambda status: status == 200)


# ------------------------------------------------------------------------------------------------ start and end


@pytest.fixture
def alone(store: str, tmp_path: Path) -> tuple[str, Path]:
    """A store whose only promoted version is one load model, so that starting is quick, and a tokens file."""
    folder = tmp_path / "alone"
    folder.mkdir()
    shutil.copy(store.removeprefix("sqlite:///"), folder / "mlflow.db")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    for name, stage in ((LOAD, "Staging"), (ANOMALY, "Production")):
        for version in client.get_latest_versions(name, [stage]):
            client.transition_model_version_stage(name, version.version, "Archived")
    add_token(folder / "tokens", "alice")
    return uri, folder / "tokens"


@pytest.mark.parametrize(("end", "status"), [(signal.SIGINT, "FAILED"), (signal.SIGKILL, "RUNNING")])
def test_mlflow_run_serves_and_leaves_no_process_behind(
    alone: tuple[str, Path], tmp_path: Path, end: signal.Signals, status: str
) -> None:
    """Ctrl-C reaches the whole group of the terminal; a SIGKILL of the launcher reaches nobody else by itself."""
    uri, tokens = alone
    chosen = options(tokens, tmp_path / "run")
    with serving_all(project(chosen), chosen, uri, tmp_path / "output") as running:
        assert running.ask("/health", "").json["anomalies"]["status"] == "down"
        assert "no version of AnomalyDetectionModel is in Production" in running.said()
        started = running.descendants()
        assert {"nginx"} < {process.name() for process in started}
        if end == signal.SIGINT:
            os.killpg(running.process.pid, signal.SIGINT)
        else:
            running.process.kill()
        running.process.wait(timeout=60)
        _, left = psutil.wait_procs(started, timeout=60)
        assert left == []
    client = MlflowClient(tracking_uri=uri)
    (run,) = client.search_runs(["0"], max_results=1)
    assert run.info.status == status


def test_a_port_in_use_ends_it_with_a_sentence(alone: tuple[str, Path], tmp_path: Path) -> None:
    uri, tokens = alone
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run(
            script(options(tokens, tmp_path / "run", champion_port=port)),
            cwd=Path(__file__).resolve().parents[2], env=os.environ | {"MLFLOW_TRACKING_URI": uri},
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert f"Port {port} on 127.0.0.1, for the champion of {LOAD}, is in use" in done.stderr.splitlines()[-1]
    assert "-P champion_port=PORT" in done.stderr.splitlines()[-1]


def test_a_killed_supervisor_takes_everything_with_it(served: Served) -> None:
    """The last of all: afterwards nothing is served any more."""
    started = served.descendants()
    assert len(started) > 6
    served.process.kill()
    served.process.wait(timeout=10)
    _, left = psutil.wait_procs(started, timeout=60)
    assert left == []
