"""A client's WebSocket as an actor sees it."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Self

from runners.protocol.messages import ToServerWebSocketClose, ToServerWebSocketMessage
from runners.protocol.tunnel import MAX_PAYLOAD_BYTES
from runners.sdk.channel import Channel
from runners.sdk.errors import WebSocketClosed
from runners.sdk.http import Request
from runners.sdk.session.arrivals import Arrival
from runners.sdk.socket_memory import SocketMemory
from runners.sdk.state import State

UNREAD_BYTES = 32 * 2**20  # of a socket whose actor does not read
UNREAD_MESSAGES = 10_000
SUSPENSION_S = 1.0


class WebSocket:
    """An accepted WebSocket. Iterate over it, or receive and send, until it is closed.

    `request` is the upgrade request. Text messages are str, binary ones bytes. `id` names the socket as long as it
    lasts. Of one that hibernates (`Actor.hibernate_websockets`) `state` is kept over the actor's sleep; after it
    `restored` is true.
    """

    def __init__(self, channel: Channel, request: Request) -> None:
        self.request = request
        self.state = State({}, _nothing, _nothing_awaited)
        self.restored = False
        self.memory: SocketMemory | None = None
        self._channel = channel
        self._unread: deque[tuple[int, str | bytes]] = deque()
        self._unread_bytes = 0
        self._given: int | None = None  # the index of the message the actor deals with
        self._news = asyncio.Event()
        self._closed: WebSocketClosed | None = None
        self._has_said_close = False
        self._waiting = False
        self._suspended: Callable[[], None] | None = None

    @property
    def id(self) -> str:
        """Which socket this is, the same in every life of the actor."""
        return (self._channel.gateway_id + self._channel.request_id).hex()

    @property
    def closed(self) -> bool:
        """Whether either side has closed it."""
        return self._closed is not None

    async def receive(self) -> str | bytes:
        """Return the next message. Raises WebSocketClosed once the socket is closed and all of them are read.

        On a socket that hibernates, asking for a message says that the one before is dealt with: it will not come
        again. If the actor goes to sleep meanwhile, this never returns; the handler is cancelled here.
        """
        self.dealt_with()
        while self._suspended is not None or not self._unread:
            if self._closed is not None and self._suspended is None:
                raise self._closed
            self._news.clear()
            await self._wait()
        self._given, message = self._unread.popleft()
        self._unread_bytes -= len(message)
        return message

    async def send(self, message: str | bytes) -> None:
        """Send a message, of at most 20 MiB. Raises WebSocketClosed, and ValueError for one too large."""
        data = message.encode() if isinstance(message, str) else bytes(message)
        if len(data) > MAX_PAYLOAD_BYTES:
            raise ValueError(f"a message of {len(data)} bytes, more than {MAX_PAYLOAD_BYTES}")
        if self._closed is None:
            await self._channel.room()
        if self._closed is not None:
            raise self._closed
        self._channel.send(ToServerWebSocketMessage(data, binary=not isinstance(message, str)))

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the socket; one that is closed stays as it is."""
        self.close_now(code, reason)

    def close_now(self, code: int, reason: str) -> None:
        """Close the socket from this side, without waiting."""
        if self._closed is None:
            self._say_close(code, reason)
            self.was_closed(code, reason)

    def was_closed(self, code: int, reason: str) -> None:
        """Note that the other side has closed the socket."""
        if self._closed is None:
            self._closed = WebSocketClosed(code, reason)
            self._tell_news()

    def confirm_close(self) -> None:
        """Say that a close of the other side is dealt with: until then the next life is told of it once more."""
        if self._closed is not None and not self._has_said_close:
            self._say_close(self._closed.code, self._closed.reason)

    def arrived(self, index: int, data: bytes, *, binary: bool) -> None:
        """Take a message of the client; an actor that reads too little loses the socket (1011)."""
        if self._closed is not None:
            return
        if self.memory is not None:
            arrival = self.memory.arrived(index)
            if arrival is Arrival.GAP:
                self.close_now(1008, "ws.message_index_skip")
            if arrival is not Arrival.NEXT:
                return
        message = data if binary else data.decode(errors="replace")
        self._unread.append((index, message))
        self._unread_bytes += len(message)
        if self._unread_bytes > UNREAD_BYTES or len(self._unread) > UNREAD_MESSAGES:
            self.close_now(1011, "ws.receive_limit_reached")
        self._tell_news()

    def keep_in(self, memory: SocketMemory) -> None:
        """Have it hibernate, with this memory."""
        self.memory = memory
        self.state = memory.state

    def silence(self) -> None:
        """Say nothing any more: the life this belongs to is over."""
        self._channel.silence()

    def dealt_with(self) -> None:
        """Note that the actor is done with the message it was given last."""
        if self._given is not None and self.memory is not None:
            self.memory.dealt_with(self._given)
        self._given = None

    def suspend(self, then: Callable[[], None]) -> None:
        """Give out no further message, and call back as soon as the one given last is dealt with.

        A handler that deals with none may never ask for one: it gets a moment to finish what it does.
        """
        self._suspended = then
        if self._waiting:
            then()
        elif self._given is None:
            asyncio.get_running_loop().call_later(SUSPENSION_S, then)

    def _say_close(self, code: int, reason: str) -> None:
        self._has_said_close = True
        self._channel.send(ToServerWebSocketClose(code, reason or None, hibernate=False))

    async def _wait(self) -> None:
        if self._suspended is not None:
            self._suspended()
        self._waiting = True
        if self.memory is not None and self._closed is None and not self._unread:
            self.memory.awake.release()
        try:
            await self._news.wait()
        finally:
            self._waiting = False
            if self.memory is not None:
                self.memory.awake.take()

    def _tell_news(self) -> None:
        self._news.set()
        if self.memory is not None:
            self.memory.awake.take()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str | bytes:
        try:
            return await self.receive()
        except WebSocketClosed:
            raise StopAsyncIteration from None


def _nothing() -> None:
    """Take no notice."""


async def _nothing_awaited() -> None:
    """Have nothing to save."""
