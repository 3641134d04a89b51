"""What waits to be sent to one runner: one queue, so that the order of everything is kept."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from orchestrator.errors import BusOverloaded

LIMIT_BYTES = 64 * 1024 * 1024
"""What may wait for one runner; beyond it requests to it are refused."""


class SendQueue:
    """Frames for one runner, written one after the other as fast as its socket takes them."""

    def __init__(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        self._send = send
        self._frames: deque[bytes] = deque()
        self._bytes = 0
        self._more = asyncio.Event()

    @property
    def pending_bytes(self) -> int:
        """What waits to be written."""
        return self._bytes

    def put(self, frame: bytes) -> None:
        """Queue what the engine itself has to say, however much waits: a runner that reads nothing is cut off."""
        self._frames.append(frame)
        self._bytes += len(frame)
        self._more.set()

    def offer(self, frame: bytes) -> None:
        """Queue a client's traffic.

        Raises:
            BusOverloaded: too much waits already, as the runner does not read.
        """
        if self._bytes > LIMIT_BYTES:
            raise BusOverloaded("the runner does not read what it is sent")
        self.put(frame)

    async def run(self) -> None:
        """Write until cancelled, or until writing fails."""
        while True:
            while self._frames:
                frame = self._frames.popleft()
                await self._send(frame)
                self._bytes -= len(frame)
            self._more.clear()
            await self._more.wait()
