"""What waits to be written to one WebSocket client, in order, and the close that ends it."""

import asyncio
from collections import deque

from gateway.socket_tunnel import Close, ToClient

LIMIT_BYTES = 32 * 1024 * 1024
"""What may wait for a client that reads slowly; a single message may be longer."""
DRAIN_SECONDS = 30.0
"""So long a client may take to read what was written before its socket was closed."""


class Outbox:
    """One reader, `next`, and whoever writes. After `close` nothing is taken any more."""

    def __init__(self) -> None:
        self.closing: Close | None = None
        self.cut: asyncio.Future[None] = asyncio.get_running_loop().create_future()  # the rest need not be written
        self._messages: deque[ToClient] = deque()
        self._bytes = 0
        self._waiter: asyncio.Future[None] | None = None

    def put(self, message: ToClient) -> bool:
        """Take a message; False if too much waits already."""
        if self.closing is not None or self.cut.done():
            return True
        self._messages.append(message)
        self._bytes += len(message.data)
        self._wake()
        return self._bytes <= LIMIT_BYTES or len(self._messages) == 1

    def close(self, close: Close) -> None:
        """Take the last thing there is to write."""
        if self.closing is None:
            self.closing = close
            asyncio.get_running_loop().call_later(0 if close.at_once else DRAIN_SECONDS, self._cut)
            self._wake()

    def _cut(self) -> None:
        if not self.cut.done():
            self.cut.set_result(None)

    async def next(self) -> ToClient | None:
        """Return the next message, once there is one; None when all are written."""
        while not self.cut.done():
            if self._messages:
                message = self._messages.popleft()
                self._bytes -= len(message.data)
                return message
            if self.closing is not None:
                break
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        self._messages.clear()
        return None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
