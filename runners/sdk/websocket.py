"""A client's WebSocket as an actor sees it. It does not outlive a sleep of the actor."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Self

from runners.protocol.messages import (
    ToServerTunnelMessageKind,
    ToServerWebSocketClose,
    ToServerWebSocketMessage,
)
from runners.protocol.tunnel import MAX_PAYLOAD_BYTES
from runners.sdk.errors import WebSocketClosed
from runners.sdk.http import Request

UNREAD_BYTES = 32 * 2**20  # of a socket whose actor does not read
UNREAD_MESSAGES = 10_000


class WebSocket:
    """An accepted WebSocket. Iterate over it, or receive and send, until it is closed.

    `request` is the upgrade request. Text messages are str, binary ones bytes.
    """

    def __init__(
        self,
        request: Request,
        tell: Callable[[ToServerTunnelMessageKind], None],
        room: Callable[[], Awaitable[None]],
    ) -> None:
        self.request = request
        self._tell = tell
        self._room = room
        self._unread: deque[str | bytes] = deque()
        self._unread_bytes = 0
        self._news = asyncio.Event()
        self._closed: WebSocketClosed | None = None

    async def receive(self) -> str | bytes:
        """Return the next message. Raises WebSocketClosed once the socket is closed and all of them are read."""
        while not self._unread:
            if self._closed is not None:
                raise self._closed
            self._news.clear()
            await self._news.wait()
        message = self._unread.popleft()
        self._unread_bytes -= len(message)
        return message

    async def send(self, message: str | bytes) -> None:
        """Send a message, of at most 20 MiB. Raises WebSocketClosed, and ValueError for one too large."""
        data = message.encode() if isinstance(message, str) else bytes(message)
        if len(data) > MAX_PAYLOAD_BYTES:
            raise ValueError(f"a message of {len(data)} bytes, more than {MAX_PAYLOAD_BYTES}")
        await self._room()
        if self._closed is not None:
            raise self._closed
        self._tell(ToServerWebSocketMessage(data, binary=not isinstance(message, str)))

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the socket; one that is closed stays as it is."""
        self.close_now(code, reason)

    def close_now(self, code: int, reason: str) -> None:
        """Close the socket from this side, without waiting."""
        if self._closed is None:
            self._tell(ToServerWebSocketClose(code, reason or None, hibernate=False))
            self.was_closed(code, reason)

    def was_closed(self, code: int, reason: str) -> None:
        """Note that the other side has closed the socket."""
        if self._closed is None:
            self._closed = WebSocketClosed(code, reason)
            self._news.set()

    def arrived(self, data: bytes, *, binary: bool) -> None:
        """Take a message of the client; an actor that reads too little loses the socket (1011)."""
        if self._closed is not None:
            return
        message = data if binary else data.decode(errors="replace")
        self._unread.append(message)
        self._unread_bytes += len(message)
        if self._unread_bytes > UNREAD_BYTES or len(self._unread) > UNREAD_MESSAGES:
            self.close_now(1011, "ws.receive_limit_reached")
        self._news.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str | bytes:
        try:
            return await self.receive()
        except WebSocketClosed:
            raise StopAsyncIteration from None
