"""Frames on their way to the engine, in order, with or without a connection."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

ROOM_BYTES = 2**20  # senders of tunnel messages wait while more than this is queued


class Outbox:
    """A queue between whoever has something to say and the one task that writes to the socket.

    A *durable* frame survives the loss of a connection and goes out on the next; the others belong to the
    connection they were made for. One being written when the connection breaks counts as not sent: answers may
    arrive twice but not never.
    """

    def __init__(self, room_bytes: int = ROOM_BYTES) -> None:
        self._room_bytes = room_bytes
        self._frames: deque[tuple[bytes, bool]] = deque()
        self._in_order = 0  # so many frames at the front are not overtaken
        self._queued_bytes = 0
        self._filled = asyncio.Event()
        self._roomy = asyncio.Event()
        self._empty = asyncio.Event()
        self._settle()

    @property
    def queued_bytes(self) -> int:
        """What waits to be written."""
        return self._queued_bytes

    def put(self, frame: bytes, *, durable: bool = False, first: bool = False) -> None:
        """Queue a frame; with `first` ahead of all it may overtake: no pong should wait behind a large answer."""
        if first:
            self._frames.insert(self._in_order, (frame, durable))
        else:
            self._frames.append((frame, durable))
        self._queued_bytes += len(frame)
        self._settle()

    def keep_order(self) -> None:
        """Let nothing overtake what is queued now."""
        self._in_order = len(self._frames)

    async def room(self) -> None:
        """Wait until little enough is queued. Without a connection that may be until the next one."""
        await self._roomy.wait()

    async def emptied(self) -> None:
        """Wait until everything is written."""
        await self._empty.wait()

    async def pump(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        """Write the frames in order until cancelled or until `send` raises."""
        while True:
            await self._filled.wait()
            frame, durable = self._frames.popleft()
            self._in_order = max(0, self._in_order - 1)
            sent = False
            try:
                await send(frame)
                sent = True
            finally:
                if not sent and durable:
                    self._frames.appendleft((frame, durable))
                else:
                    self._queued_bytes -= len(frame)
                self._settle()

    def disconnected(self) -> None:
        """Drop the frames that meant nothing on another connection."""
        self._keep([(frame, durable) for frame, durable in self._frames if durable])

    def clear(self) -> None:
        """Drop everything: the engine knows this runner under a new id."""
        self._keep([])

    def _keep(self, frames: list[tuple[bytes, bool]]) -> None:
        self._frames = deque(frames)
        self._in_order = 0
        self._queued_bytes = sum(len(frame) for frame, _ in frames)
        self._settle()

    def _settle(self) -> None:
        _set(self._filled, bool(self._frames))
        _set(self._empty, self._queued_bytes == 0)
        _set(self._roomy, self._queued_bytes <= self._room_bytes)


def _set(event: asyncio.Event, wanted: bool) -> None:
    if wanted:
        event.set()
    else:
        event.clear()
