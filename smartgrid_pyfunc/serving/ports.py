"""Ports of this machine: which are free, which are taken."""

from __future__ import annotations

import socket

from smartgrid_pyfunc.serving.errors import ServingError

LOOPBACK = "127.0.0.1"
_STEP, _LAST = 10, 100


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """Tell whether nothing listens on `port` of `host`."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a connection just closed is no hindrance
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def require_free(port: int, host: str, purpose: str, parameter: str) -> None:
    """Raise `ServingError` naming the port, what it is for and the parameter that chooses another."""
    if not is_free(port, host):
        raise ServingError(
            f"Port {port} on {host}, for the {purpose}, is in use or not allowed: "
            f"stop what listens there, or choose another with -P {parameter}=PORT."
        )


def spare(preferred: int) -> int:
    """Return `preferred` if it is free, else the first free one of every tenth above it (5101, 5111, 5121, …).

    Only where all of those are taken the system chooses: among its own ports, which any connection may take before a
    server that is starting does.
    """
    for port in range(preferred, min(preferred + _LAST, 65536), _STEP):
        if is_free(port):
            return port
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])
