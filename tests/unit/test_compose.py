"""The containers' configuration says what a careful operator expects, service by service."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SECRETS = {"POSTGRES_PASSWORD", "S3_ACCESS_KEY", "S3_SECRET_KEY"}
PINNED = re.compile(r"[\w./-]+:[\w.-]*\d[\w.-]*")
#: Once done, it is not to run again.
ONE_SHOT = {"bucket"}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_bounded_unprivileged_and_restarted(name: str) -> None:
    service = SERVICES[name]
    user, group = service["user"].split(":")
    assert int(user) > 0 and int(group) > 0
    assert service["mem_limit"]
    assert service["restart"] == ("no" if name in ONE_SHOT else "unless-stopped")
    assert service["cap_drop"] == ["ALL"] and "no-new-privileges:true" in service["security_opt"]
    assert name in ONE_SHOT or service["healthcheck"]["test"]


@pytest.mark.parametrize("name", SERVICES)
def test_an_image_is_pinned(name: str) -> None:
    service = SERVICES[name]
    if "build" in service:
        context = (DEPLOY / service["build"]["context"]).resolve()
        text = (context / service["build"]["dockerfile"]).read_text()
        images = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
        assert re.search(r"^USER \d+:\d+$", text, re.MULTILINE)
    else:
        images = [service["image"]]
    assert images
    for image in images:
        assert PINNED.fullmatch(image) and not image.endswith(":latest"), image


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_published_on_loopback_unless_somebody_says_otherwise(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        assert port.startswith("${BIND:-127.0.0.1}:")


def test_no_secret_has_a_default_and_each_is_in_the_example() -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    required = set(re.findall(r"\$\{(\w+):\?", text))
    assert required == SECRETS
    example = dict(
        line.split("=", 1)
        for line in (DEPLOY / ".env.example").read_text().splitlines()
        if "=" in line and line[0] != "#"
    )
    assert set(re.findall(r"(?<!\$)\$\{(\w+)", text)) <= example.keys() | {"BIND"}
    assert all(example[name] == "" for name in example if re.search("PASSWORD|KEY|ACCOUNT", name))


def test_state_lives_in_named_volumes_that_are_used() -> None:
    used = {entry.split(":")[0] for service in SERVICES.values() for entry in service.get("volumes", [])}
    assert set(COMPOSE["volumes"]) == {name for name in used if not name.startswith(".")}


def test_the_tracking_server_and_the_store_start_without_a_profile_and_with_what_they_need() -> None:
    assert all("profiles" not in SERVICES[name] for name in ("mlflow", "minio", "postgres", "bucket"))
    assert {name: entry["condition"] for name, entry in SERVICES["mlflow"]["depends_on"].items()} == {
        "postgres": "service_healthy",
        "minio": "service_healthy",
        "bucket": "service_completed_successfully",
    }
    published = {name: [port.rsplit(":", 1)[1] for port in SERVICES[name]["ports"]] for name in ("mlflow", "minio")}
    assert published == {"mlflow": ["5005"], "minio": ["9000", "9001"]}


def test_signed_addresses_name_a_host_that_is_the_same_inside_and_outside() -> None:
    endpoint = SERVICES["mlflow"]["environment"]["MLFLOW_S3_ENDPOINT_URL"]
    (alias,) = SERVICES["minio"]["networks"]["default"]["aliases"]
    assert endpoint == f"http://{alias}:9000"
    assert any(port.endswith(":9000:9000") for port in SERVICES["minio"]["ports"])


# ----------------------------------------------------------------------------------------------- by their own tools


def _compose() -> list[str]:
    if shutil.which("docker") and subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0:
        return ["docker", "compose"]
    pytest.skip("docker compose is missing: the package docker-compose-plugin, or docker-compose of Debian 13")


def _config(tool: list[str], tmp_path: Path, *options: str, **given: str) -> subprocess.CompletedProcess[str]:
    file = tmp_path / "env"
    file.write_text("".join(f"{name}={value}\n" for name, value in given.items()))
    environment = {name: value for name, value in os.environ.items() if name not in SECRETS}
    command = [*tool, "--env-file", str(file), "-f", str(DEPLOY / "compose.yaml"), *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


GIVEN = dict.fromkeys(sorted(SECRETS), "a-secret")


@pytest.mark.integration
@pytest.mark.parametrize("override", [[], ["-f", str(DEPLOY / "compose.seaweedfs.yaml")]], ids=["minio", "seaweedfs"])
def test_docker_compose_takes_the_configuration(tmp_path: Path, override: list[str]) -> None:
    profiles = ["--profile", "models", "--profile", "monitoring"]
    done = _config(_compose(), tmp_path, *override, *profiles, "config", "-q", **GIVEN)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.mark.integration
@pytest.mark.parametrize("missing", sorted(SECRETS))
def test_docker_compose_names_the_secret_that_is_missing(tmp_path: Path, missing: str) -> None:
    done = _config(_compose(), tmp_path, "config", "-q", **(GIVEN | {missing: ""}))
    assert done.returncode != 0
    assert f"set {missing} in deploy/.env" in done.stderr


@pytest.mark.integration
def test_podman_compose_takes_the_configuration(tmp_path: Path) -> None:
    if not shutil.which("podman-compose"):
        pytest.skip("podman-compose is missing: pip install -r requirements-dev.txt")
    done = _config(["podman-compose"], tmp_path, "config", **GIVEN)
    assert done.returncode == 0, done.stderr
    assert set(yaml.safe_load(done.stdout)["services"]) >= {"mlflow", "minio", "postgres"}


@pytest.mark.integration
@pytest.mark.parametrize("file", sorted((DEPLOY / "docker").glob("*.Dockerfile")), ids=lambda path: path.stem)
def test_hadolint_finds_nothing_in_the_dockerfiles(file: Path) -> None:
    if not shutil.which("hadolint"):
        pytest.skip("hadolint is missing: pip install -r requirements-dev.txt")
    done = subprocess.run(["hadolint", str(file)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")
