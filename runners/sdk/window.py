"""How much of a streamed answer may be on its way: as much as the client has not taken, up to a limit."""

import asyncio

WINDOW_BYTES = 2**20
"""Enough that a client nearby never waits for the source. What the engine is told; half of it is one grant."""


class Window:
    """One answer's. `granted` is called when the client has taken another half of the window."""

    def __init__(self, size_bytes: int = WINDOW_BYTES) -> None:
        self._size = size_bytes
        self._outstanding = 0
        self._open = asyncio.Event()
        self._open.set()

    def sent(self, size: int) -> None:
        """Count bytes that were sent."""
        self._outstanding += size
        if self._outstanding >= self._size:
            self._open.clear()

    def granted(self) -> None:
        """Count half a window as taken. One grant too many, after a reconnect, does no harm."""
        self._outstanding = max(self._outstanding - self._size // 2, 0)
        if self._outstanding < self._size:
            self._open.set()

    async def room(self) -> None:
        """Wait until more may be sent."""
        await self._open.wait()
