"""The gateway's configuration: the templates of ``deploy/gateway`` filled in from settings. Text in, text out."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from smartgrid_pyfunc.serving.settings import TEMPLATES, GatewaySettings

_PLACE = re.compile(r"\$\{(GATEWAY_[A-Z_]+)\}")


@dataclass(frozen=True)
class Upstreams:
    """Where the models are served now, as ``host:port``; `challenger` is None if there is none."""

    champion: str
    anomaly: str
    challenger: str | None = None


def render(settings: GatewaySettings, upstreams: Upstreams, templates: Path = TEMPLATES) -> dict[str, str]:
    """Return the text of every configuration file by name.

    Raises
    ------
    KeyError
        For a placeholder that no setting fills.
    """
    values = _values(settings) | _places(settings, upstreams)
    files = {path.name: path.read_text(encoding="utf-8") for path in sorted(templates.glob("*.conf"))}
    return {name: _PLACE.sub(lambda found: values[found[1]], text) for name, text in files.items()}


def _values(settings: GatewaySettings) -> dict[str, str]:
    return {
        # Workers of root would become `nobody`, who may not pass through a private folder to his temporary files.
        "GATEWAY_USER": "user root;" if os.geteuid() == 0 else "",
        "GATEWAY_LISTEN": settings.address + (" ssl" if settings.certificate else ""),
        "GATEWAY_TLS": _tls(settings),
        "GATEWAY_RATE": str(settings.rate),
        "GATEWAY_BURST": str(2 * settings.rate),
        "GATEWAY_CONNECTIONS": str(settings.connections),
        "GATEWAY_MAX_BODY_MB": str(settings.max_body_mb),
        "GATEWAY_TIMEOUT_SECONDS": str(settings.timeout),
        "GATEWAY_DRAIN_SECONDS": str(settings.drain),
    }


def _places(settings: GatewaySettings, upstreams: Upstreams) -> dict[str, str]:
    champion = f"server {upstreams.champion}"
    if upstreams.challenger is None:
        challenger = f"{champion} max_fails=0;"
    else:
        challenger = f"server {upstreams.challenger} max_fails=1 fail_timeout=10s;\n    {champion} backup;"
    return {
        "GATEWAY_CHAMPION": upstreams.champion,
        "GATEWAY_CHALLENGER": challenger,
        "GATEWAY_ANOMALY": upstreams.anomaly,
        "GATEWAY_SHARES": _shares(settings.canary),
    }


def _shares(canary: float) -> str:
    """Return the lines of ``split_clients``, which takes neither 0 % nor more than two decimals."""
    if canary in (0, 1):
        return f"* {'challenger' if canary else 'champion'};"
    return f"{100 * canary:.2f}% challenger;\n    * champion;"


def _tls(settings: GatewaySettings) -> str:
    if settings.certificate is None or settings.key is None:
        return ""
    return "\n".join(
        [
            f'ssl_certificate "{settings.certificate.resolve()}";',
            f'ssl_certificate_key "{settings.key.resolve()}";',
            "ssl_protocols TLSv1.2 TLSv1.3;",
            "ssl_session_cache shared:tls:4m;",
            "ssl_session_timeout 1h;",
            "ssl_session_tickets off;",
        ]
    )
