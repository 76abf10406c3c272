"""What keeps a supervisor from starting is told in one sentence, before any server is started."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Any

import mlflow
import pytest

from smartgrid_pyfunc.lifecycle.errors import LifecycleError
from smartgrid_pyfunc.schema import ANOMALY_MODEL, LOAD_MODEL, InputError
from smartgrid_pyfunc.serving.errors import ServingError
from smartgrid_pyfunc.serving.gateway import find_nginx
from smartgrid_pyfunc.serving.settings import GatewaySettings, ServerSettings
from smartgrid_pyfunc.serving.supervisor import Supervisor, places, running
from smartgrid_pyfunc.serving.tokens import add_token
from tests.e2e.support import free_port

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def _nginx() -> None:
    try:
        find_nginx()
    except ServingError as error:
        pytest.skip(str(error))


@pytest.fixture
def promoted(tracking: str) -> None:
    """A registry with a load model in Production; nobody gets as far as to read its files."""
    client = mlflow.MlflowClient()
    client.create_registered_model(LOAD_MODEL)
    client.create_model_version(LOAD_MODEL, "file:///nowhere")
    client.transition_model_version_stage(LOAD_MODEL, "1", "Production")


def settings(tmp_path: Path, **chosen: Any) -> GatewaySettings:
    add_token(tmp_path / "tokens", "alice")
    return GatewaySettings(**{"tokens": tmp_path / "tokens", "port": free_port(), **chosen})


def refusal(tmp_path: Path, gateway: GatewaySettings, servers: ServerSettings | None = None) -> LifecycleError:
    """Start; return why not. Nothing may be left of the attempt."""
    ports = [free_port() for _ in range(3)]
    servers = servers or ServerSettings(*ports)
    with pytest.raises((LifecycleError, InputError)) as caught, running(gateway, servers, tmp_path / "run"):
        pass
    assert not (tmp_path / "run").exists()
    return caught.value  # type: ignore[return-value]


def test_without_a_promoted_version_it_says_what_to_do(tracking: str, tmp_path: Path) -> None:
    error = refusal(tmp_path, settings(tmp_path))
    assert isinstance(error, ServingError)
    assert str(error).startswith(f"No version of {LOAD_MODEL} is in Production: ")
    assert f"`mlflow run . -e promote -P model={LOAD_MODEL}`" in str(error)


def test_without_tokens_it_says_how_to_add_a_client(promoted: None, tmp_path: Path) -> None:
    error = refusal(tmp_path, settings(tmp_path, tokens=tmp_path / "none"))
    assert isinstance(error, InputError)
    assert "`mlflow run . -e tokens -P client=NAME`" in str(error)


@pytest.mark.parametrize("place", ["gateway", "champion"])
def test_a_port_in_use_is_named_with_its_purpose_and_parameter(promoted: None, tmp_path: Path, place: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        gateway = settings(tmp_path, **({"port": port} if place == "gateway" else {}))
        servers = ServerSettings(port if place == "champion" else free_port(), free_port(), free_port())
        error = refusal(tmp_path, gateway, servers)
    purposes = {"gateway": ("gateway", "port"), "champion": (f"champion of {LOAD_MODEL}", "champion_port")}
    purpose, parameter = purposes[place]
    assert re.fullmatch(f"Port {port} on 127.0.0.1, for the {purpose}, is in use .* -P {parameter}=PORT.", str(error))


def test_a_registry_that_does_not_answer_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tracking: str
) -> None:
    mlflow.set_tracking_uri("http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert "cannot be reached" in str(refusal(tmp_path, settings(tmp_path)))


def test_a_champion_that_cannot_be_loaded_ends_the_start_and_names_its_log(promoted: None, tmp_path: Path) -> None:
    """The version's files are nowhere: `mlflow models serve` fails at once, twice."""
    gateway, servers = settings(tmp_path), ServerSettings(free_port(), free_port(), free_port())
    told = pytest.raises(ServingError, match="The champion does not start; see the logs in")
    with told, running(gateway, servers, tmp_path / "run"):
        pass
    assert (tmp_path / "run" / "logs" / f"{LOAD_MODEL}-champion.log").read_text()


def test_what_is_served_is_what_stages_hold() -> None:
    found = {name: (place.model, place.stage, place.port) for name, place in places(ServerSettings()).items()}
    assert found == {
        "champion": (LOAD_MODEL, "Production", 5101),
        "challenger": (LOAD_MODEL, "Staging", 5102),
        "anomaly": (ANOMALY_MODEL, "Production", 5103),
    }


def test_nothing_is_served_before_the_start(tmp_path: Path) -> None:
    supervisor = Supervisor(settings(tmp_path), ServerSettings(), tmp_path / "run")
    assert [supervisor.version(name) for name in ("champion", "challenger", "anomaly")] == [None] * 3
    supervisor.stop()
