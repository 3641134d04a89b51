"""A client's WebSocket to an actor in a test."""

import asyncio
from collections import deque
from types import TracebackType
from typing import Protocol, Self

from runners.protocol.messages import (
    MessageId,
    ToClientTunnelMessage,
    ToClientTunnelMessageKind,
    ToClientWebSocketClose,
    ToClientWebSocketMessage,
    ToClientWebSocketOpen,
    ToServerTunnelMessageKind,
    ToServerWebSocketClose,
    ToServerWebSocketMessage,
    ToServerWebSocketMessageAck,
    ToServerWebSocketOpen,
)
from runners.sdk.errors import WebSocketClosed
from runners.sdk.session.arrivals import INDEXES


class Wakeable(Protocol):
    """The actor a socket leads to."""

    @property
    def id(self) -> str:
        """Its id."""
        ...

    @property
    def is_awake(self) -> bool:
        """Whether it runs."""
        ...

    def deliver(self, message: ToClientTunnelMessage) -> None:
        """Hand the runner a message."""

    async def wake(self) -> None:
        """Have it run."""


class LocalSocket:
    """Send, receive, iterate, close; as a gateway does, it keeps what the actor has not acknowledged."""

    def __init__(self, actor: Wakeable, gateway_id: bytes, request_id: bytes) -> None:
        self.ids = (gateway_id, request_id)
        self.hibernates = False
        self._actor = actor
        self._index = 0
        self._unacknowledged: deque[tuple[int, ToClientTunnelMessageKind]] = deque()
        self._incoming: asyncio.Queue[str | bytes] = asyncio.Queue()
        self._opened = asyncio.Event()
        self._closed: WebSocketClosed | None = None
        self._over = asyncio.Event()

    @property
    def open(self) -> bool:
        """Whether nobody has closed it."""
        return self._closed is None

    @property
    def unacknowledged(self) -> int:
        """How many of the client's messages the actor has not acknowledged."""
        return len(self._unacknowledged)

    async def begin(self, path: str, headers: dict[str, str]) -> None:
        """Open the socket. Raises WebSocketClosed if the actor refuses it."""
        await self._actor.wake()
        self._say(ToClientWebSocketOpen(self._actor.id, path, headers))
        await self._opened.wait()
        if self._closed is not None:
            raise self._closed

    async def send(self, message: str | bytes) -> None:
        """Send a message; a sleeping actor wakes. Raises WebSocketClosed."""
        if self._closed is not None:
            raise self._closed
        data = message.encode() if isinstance(message, str) else message
        await self._tell(ToClientWebSocketMessage(data, binary=isinstance(message, bytes)))

    async def recv(self) -> str | bytes:
        """Return the next message of the actor. Raises WebSocketClosed once there is none and will be none."""
        message = asyncio.ensure_future(self._incoming.get())
        over = asyncio.ensure_future(self._over.wait())
        await asyncio.wait([message, over], return_when=asyncio.FIRST_COMPLETED)
        over.cancel()
        if message.done():
            return message.result()
        message.cancel()
        assert self._closed is not None
        raise self._closed

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the socket; a sleeping actor wakes to hear of it."""
        if self._closed is None:
            self._end(code, reason)
            await self._tell(ToClientWebSocketClose(code, reason or None))

    def heard(self, kind: ToServerTunnelMessageKind) -> None:
        """Take what the actor says."""
        match kind:
            case ToServerWebSocketOpen(can_hibernate):
                self.hibernates = can_hibernate
                self._opened.set()
            case ToServerWebSocketMessage(data, binary):
                self._incoming.put_nowait(data if binary else data.decode())
            case ToServerWebSocketMessageAck(index):
                if any(kept == index for kept, _ in self._unacknowledged):
                    while self._unacknowledged.popleft()[0] != index:
                        pass
            case ToServerWebSocketClose(code, reason):
                self._end(1000 if code is None else code, reason or "")

    def actor_stopped(self, *, for_good: bool) -> None:
        """Hear that the actor has stopped."""
        if for_good or not self.hibernates:
            self._end(1000, "actor.stopped")

    def replay(self) -> None:
        """Send again what the actor has not acknowledged: it runs again."""
        for index, kind in self._unacknowledged:
            self._deliver(index, kind)
            if isinstance(kind, ToClientWebSocketClose):
                self._unacknowledged.clear()
                break

    async def _tell(self, kind: ToClientTunnelMessageKind) -> None:
        self._index = (self._index + 1) % INDEXES
        closing = isinstance(kind, ToClientWebSocketClose)
        if not self.hibernates or (closing and self._actor.is_awake):
            self._deliver(self._index, kind)
            return
        self._unacknowledged.append((self._index, kind))
        if self._actor.is_awake:
            self._deliver(self._index, kind)
        else:
            await self._actor.wake()

    def _say(self, kind: ToClientTunnelMessageKind) -> None:
        self._deliver(self._index, kind)

    def _deliver(self, index: int, kind: ToClientTunnelMessageKind) -> None:
        self._actor.deliver(ToClientTunnelMessage(MessageId(*self.ids, index), kind))

    def _end(self, code: int, reason: str) -> None:
        if self._closed is None:
            self._closed = WebSocketClosed(code, reason)
            self._opened.set()
            self._over.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str | bytes:
        try:
            return await self.recv()
        except WebSocketClosed:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
