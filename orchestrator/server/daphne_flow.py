"""Back-pressure, both ways, between an application and a Twisted transport."""

import asyncio
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IPushProducer, ITransport
from zope.interface import implementer  # type: ignore[import-untyped]

from orchestrator.server.limits import READ_BUFFER_BYTES

Event = dict[str, Any]

_EVENT_BYTES = 256  # about what one event costs beside its payload


@implementer(IPushProducer)
class Outflow:
    """Says whether the transport takes more. Twisted tells it when 64 KiB are unsent and when all is sent."""

    def __init__(self, resumed: Callable[[], object] = lambda: None) -> None:
        """`resumed` is called when the client has caught up."""
        self._resumed = resumed
        self._open = asyncio.Event()
        self._open.set()

    async def wait(self) -> None:
        """Return once the client keeps up, or is gone."""
        if not self._open.is_set():
            await self._open.wait()

    def pauseProducing(self) -> None:
        """Twisted's buffer is full."""
        self._open.clear()

    def resumeProducing(self) -> None:
        """Twisted's buffer is empty."""
        self._resumed()
        self._open.set()

    def stopProducing(self) -> None:
        """The connection is gone."""
        self._open.set()


class Inbox:
    """The events an application has not received yet; a client that sends too much of it is not read from."""

    def __init__(self, transport: ITransport | None) -> None:
        """Take events of `transport`, or of a request that was read whole if there is none."""
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._transport: Any = transport
        self._bytes = 0
        self._paused = False

    @property
    def is_full(self) -> bool:
        """Whether the client is not read from."""
        return self._paused

    def put_nowait(self, event: Event) -> None:
        """Queue an event."""
        self._events.put_nowait(event)
        if self._transport:
            self._bytes += _size(event)
            if self._bytes > READ_BUFFER_BYTES and not self._paused:
                self._paused = True
                self._transport.pauseProducing()

    async def get(self) -> Event:
        """Return the next event."""
        event = await self._events.get()
        if self._transport:
            self._bytes -= _size(event)
            if self._bytes <= READ_BUFFER_BYTES // 2:
                self.flow()
        return event

    def flow(self) -> None:
        """Read from the client again."""
        if self._paused:
            self._paused = False
            self._transport.resumeProducing()


def _size(event: Event) -> int:
    return _EVENT_BYTES + len(event.get("bytes") or event.get("text") or b"")
