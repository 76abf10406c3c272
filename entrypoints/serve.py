"""Serve what is promoted: champion, challenger, anomaly model and the gateway before them, on this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
from _command import command, option

PORT = click.IntRange(1, 65535)
POSITIVE = click.IntRange(min=1)


@command()
@option("--host", default="127.0.0.1", help="IP address of the gateway; anything but loopback wants TLS.")
@option("--port", type=PORT, default=5000, help="Port of the gateway.")
@option("--champion-port", type=PORT, default=5101, help="Port of the load model in Production, on loopback.")
@option("--challenger-port", type=PORT, default=5102, help="Port of the load model in Staging, on loopback.")
@option("--anomaly-port", type=PORT, default=5103, help="Port of the anomaly model in Production, on loopback.")
@option("--canary", type=click.FloatRange(0, 1), default=0.0, help="Share of clients for the challenger, 0…1.")
@option("--tokens", default=None, help="Tokens file; empty: SMARTGRID_TOKENS, else ~/.config/smartgrid/tokens.")
@option("--tls-certificate", default=None, help="PEM file; with the key: HTTPS only.")
@option("--tls-key", default=None, help="PEM file of the certificate's key.")
@option("--rate", type=POSITIVE, default=50, help="Requests a second of one client.")
@option("--connections", type=POSITIVE, default=32, help="Requests of one client at a time.")
@option("--max-body-mb", type=POSITIVE, default=32, help="Largest body [MB].")
@option("--timeout", type=POSITIVE, default=60, help="Longest time for an answer [s].")
@option("--workers", type=POSITIVE, default=1, help="Worker processes of each model server.")
@option(
    "--env-manager",
    type=click.Choice(["local", "uv", "virtualenv", "conda"]),
    default="local",
    help="Environment of the model servers, as of `mlflow models serve`.",
)
@option("--poll-seconds", type=click.FloatRange(0.1), default=10.0, help="Time between looks into the registry [s].")
@option("--folder", default=None, help="Configuration and logs; empty: ~/.local/state/smartgrid/gateway-PORT.")
def main(**given: Any) -> None:
    """Start model servers and gateway, keep them running, take up what is promoted; Ctrl-C stops all of it."""
    from smartgrid_pyfunc.serving.processes import end_with_parent
    from smartgrid_pyfunc.serving.settings import default_folder
    from smartgrid_pyfunc.serving.supervisor import serve

    if "MLFLOW_RUN_ID" in os.environ:
        end_with_parent()  # a launcher that is killed must not leave servers behind
    folder = Path(given["folder"]) if given["folder"] else default_folder(given["port"])
    serve(_gateway(given), _servers(given), folder)


def _gateway(given: dict[str, Any]) -> Any:
    from smartgrid_pyfunc.serving.settings import GatewaySettings, default_tokens

    same = ("host", "port", "canary", "rate", "connections", "max_body_mb", "timeout")
    paths = {name: Path(given[f"tls_{name}"]) if given[f"tls_{name}"] else None for name in ("certificate", "key")}
    tokens = Path(given["tokens"]) if given["tokens"] else default_tokens()
    return GatewaySettings(tokens=tokens, **paths, **{name: given[name] for name in same})


def _servers(given: dict[str, Any]) -> Any:
    from smartgrid_pyfunc.serving.settings import ServerSettings

    ports = {name: given[f"{name}_port"] for name in ("champion", "challenger", "anomaly")}
    return ServerSettings(
        **ports, workers=given["workers"], env_manager=given["env_manager"], poll=given["poll_seconds"]
    )


if __name__ == "__main__":
    main()
