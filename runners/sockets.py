"""The runner sockets and the gateways of this process, for calls that need no bus (DESIGN §4)."""

from collections.abc import Callable
from typing import Protocol

from runners.channel import ANY_LIFE, Life


class TunnelSocket(Protocol):
    """A runner's socket as a gateway of the same process sees it."""

    protocol_version: int

    @property
    def pending_bytes(self) -> int:
        """What waits to be written to the runner."""

    def write(self, frame: bytes, life: Life = ANY_LIFE) -> None:
        """Queue a frame for the runner, and for this life; BusOverloaded if too much waits already."""


FromRunner = Callable[[str, bytes], None]
"""Takes the runner's id and a ToServerTunnelMessage, encoded, or a notice of its socket (`links.py`)."""

_sockets: dict[str, TunnelSocket] = {}
_gateways: dict[bytes, FromRunner] = {}


def local_socket(runner_id: str) -> TunnelSocket | None:
    """Return the runner's socket if this process holds it."""
    return _sockets.get(runner_id)


def hold(runner_id: str, socket: TunnelSocket) -> None:
    """Have gateways of this process find the socket; a newer one of the same runner takes its place."""
    _sockets[runner_id] = socket


def let_go(runner_id: str, socket: TunnelSocket) -> None:
    """Take the socket out, unless a newer one has taken its place."""
    if _sockets.get(runner_id) is socket:
        del _sockets[runner_id]


def local_gateways() -> list[bytes]:
    """Return the ids of the gateways in this process."""
    return list(_gateways)


def local_gateway(gateway_id: bytes) -> FromRunner | None:
    """Return the gateway of this id if it is in this process."""
    return _gateways.get(gateway_id)


def open_gateway(gateway_id: bytes, handler: FromRunner) -> None:
    """Have the runner sockets of this process find the gateway."""
    _gateways[gateway_id] = handler


def close_gateway(gateway_id: bytes) -> None:
    """Take the gateway out again."""
    _gateways.pop(gateway_id, None)
