"""The two ASGI servers, made to behave the same: Daphne, the default, and Uvicorn, the quicker one.

Both give an application the untouched path, query and headers, whole messages up to 40 MiB, and the code and
reason of a close; both make `send` wait for a slow client and stop reading from one that is ahead; both ping
WebSockets; both end gracefully.
"""

import importlib
import socket
from collections.abc import Callable

from orchestrator.server.guard import Application, guarded
from orchestrator.server.limits import Pings
from orchestrator.server.listening import bind

__all__ = ["SERVERS", "serve"]

BODY_BYTES = 20 * 1024 * 1024


def _serve_daphne(application: Application, listener: socket.socket, body_bytes: int, pings: Pings | None) -> None:
    # Importing it replaces Twisted's reactor, which must happen in no other process.
    importlib.import_module("orchestrator.server.daphne").Server(application, listener, body_bytes, pings).run()


def _serve_uvicorn(
    application: Application, listener: socket.socket, body_bytes: int, pings: Pings | None
) -> None:
    importlib.import_module("orchestrator.server.uvicorn").run(application, listener, pings)


SERVERS: dict[str, Callable[[Application, socket.socket, int, Pings | None], None]] = {
    "daphne": _serve_daphne,
    "uvicorn": _serve_uvicorn,
}


def serve(
    host: str,
    port: int,
    server: str,
    application: str | Application = "orchestrator.asgi:application",
    *,
    body_bytes: int = BODY_BYTES,
    pings: Pings | None = None,
) -> None:
    """Serve an application, or the one of that name, until SIGTERM or SIGINT.

    `body_bytes` is the longest request body the application takes; Daphne, which reads it whole before, refuses
    one that is much longer with 413. Without `pings` no WebSocket is pinged.

    Raises:
        PortInUse: the message names the port.
        OSError: the host is no address of this machine.
    """
    with bind(host, port) as listener:
        if isinstance(application, str):
            module, name = application.split(":")
            application = getattr(importlib.import_module(module), name)
        assert callable(application)
        SERVERS[server](guarded(application), listener, body_bytes, pings)
