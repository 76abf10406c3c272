"""Settings of the gateway and of the model servers behind it, checked before anything is started."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field
from pathlib import Path

from smartgrid_pyfunc.schema import InputError

TOKENS_VARIABLE = "SMARTGRID_TOKENS"
#: The stock configuration that is filled in from these settings.
TEMPLATES = Path(__file__).resolve().parents[2] / "deploy" / "gateway"
_UNSAFE = set("\"'\\$;{}\n\r")  # means something in nginx's configuration

_LEAST_SHARE = 0.0001  # nginx knows two decimals of a per cent


def default_tokens() -> Path:
    """Return the tokens file: of the variable ``SMARTGRID_TOKENS``, else below the user's configuration."""
    named = os.environ.get(TOKENS_VARIABLE)
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return Path(named) if named else home / "smartgrid" / "tokens"


def default_folder(port: int) -> Path:
    """Return the folder of configuration and logs of the gateway at `port`, below the user's state."""
    home = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return home / "smartgrid" / f"gateway-{port}"


@dataclass(frozen=True)
class GatewaySettings:
    """What the gateway's configuration is filled in from.

    Attributes
    ----------
    tokens : Path
        File of the clients' tokens; outside the checkout.
    host, port : str, int
        IP address and port to listen on.
    canary : float
        Share of the clients that the challenger answers, 0…1.
    rate : int
        Requests a second of one client; bursts of twice as many pass at once.
    connections : int
        Requests of one client at a time.
    max_body_mb : int
        Largest body [MB].
    timeout : int
        Longest time for an answer of a model [s].
    certificate, key : Path or None
        PEM files; with both the gateway speaks HTTPS only.
    """

    tokens: Path = field(default_factory=default_tokens)
    host: str = "127.0.0.1"
    port: int = 5000
    canary: float = 0.0
    rate: int = 50
    connections: int = 32
    max_body_mb: int = 32
    timeout: int = 60
    certificate: Path | None = None
    key: Path | None = None

    def __post_init__(self) -> None:
        """Refuse what nginx would refuse later, or read as something else."""
        _check_address(self.host, self.port)
        _check_range("canary", self.canary, 0, 1)
        if 0 < self.canary < _LEAST_SHARE:
            raise InputError(f"canary must be 0 or at least {_LEAST_SHARE}", found=self.canary)
        for name in ("rate", "connections", "max_body_mb", "timeout"):
            _check_range(name, getattr(self, name), 1, 100_000)
        if (self.certificate is None) != (self.key is None):
            raise InputError("TLS needs a certificate and a key", remedy="give both files, or neither")
        for path in (self.certificate, self.key):
            _check_file(path)

    @property
    def address(self) -> str:
        """Host and port as nginx and URLs write them."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def in_the_clear(self) -> bool:
        """True if tokens would cross a network unencrypted."""
        return self.certificate is None and not ipaddress.ip_address(self.host).is_loopback

    @property
    def url(self) -> str:
        """Where clients on this machine reach the gateway."""
        return f"{'https' if self.certificate else 'http'}://{self.address}"

    @property
    def drain(self) -> int:
        """Longest time that workers of a former configuration may take to finish [s]."""
        return self.timeout + 5


@dataclass(frozen=True)
class ServerSettings:
    """How `mlflow models serve` is started.

    Attributes
    ----------
    champion, challenger, anomaly : int
        Ports, on loopback; a version taken up later starts on a spare one.
    workers : int
        Worker processes of each server.
    env_manager : str
        ``local`` (this environment), ``uv``, ``virtualenv`` or ``conda``.
    startup : int
        Longest time from start to the first answer [s].
    poll : float
        Time between looks into the registry [s].
    """

    champion: int = 5101
    challenger: int = 5102
    anomaly: int = 5103
    workers: int = 1
    env_manager: str = "local"
    startup: int = 300
    poll: float = 10.0

    def __post_init__(self) -> None:
        """Refuse ports that are none or the same."""
        ports = (self.champion, self.challenger, self.anomaly)
        for port in ports:
            _check_range("port", port, 1, 65535)
        if len(set(ports)) < len(ports):
            raise InputError("champion, challenger and anomaly model need ports of their own", found=ports)
        _check_range("workers", self.workers, 1, 64)
        _check_range("poll", self.poll, 0.1, 86_400)


def _check_address(host: str, port: int) -> None:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise InputError("host must be an IP address", found=host, remedy="127.0.0.1 is this machine alone") from None
    _check_range("port", port, 1, 65535)


def _check_range(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise InputError(f"{name} must lie in {least}…{most}", found=value)


def _check_file(path: Path | None) -> None:
    if path is None:
        return
    if _UNSAFE & set(str(path)):
        raise InputError("a path may hold no quotes, $, ;, braces or backslashes", found=path)
    if not path.is_file():
        raise InputError("certificate and key must be files", found=path, remedy="check the path")
