"""Whether the client of a WebSocket is still there, the same under both servers.

Uvicorn takes a client for dead whose pong waits behind what the server itself does not read; Autobahn below Daphne
counts in whole seconds, and hangs up without a close frame.
"""

import asyncio
from collections.abc import Callable

from orchestrator.server.limits import Pings


class Pulse:
    """Calls `ping`, and `silent` if nothing comes of it. Whoever sees a sign of life sets `seen`.

    Whatever a client sends is one, and that it takes what it is sent: its pong comes after that. While the server
    does not read (`is_deaf`), nothing is held against the client.
    """

    __slots__ = ("_is_deaf", "_loop", "_ping", "_pings", "_silent", "_timer", "seen")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        pings: Pings,
        *,
        ping: Callable[[], object],
        is_deaf: Callable[[], bool],
        silent: Callable[[], object],
    ) -> None:
        self.seen = False
        self._loop, self._pings = loop, pings
        self._ping, self._is_deaf, self._silent = ping, is_deaf, silent
        self._timer = loop.call_later(pings.interval, self._ask)

    def stop(self) -> None:
        """Ask no more."""
        self._timer.cancel()

    def _ask(self) -> None:
        self.seen = False
        self._timer = self._loop.call_later(self._pings.timeout, self._look)
        self._ping()

    def _look(self) -> None:
        if self.seen or self._is_deaf():
            pause = max(self._pings.interval - self._pings.timeout, 0)
            self._timer = self._loop.call_later(pause, self._ask)
        else:
            self._silent()
