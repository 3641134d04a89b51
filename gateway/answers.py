"""What a runner sends for one request, on its way to the client."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TypeAlias

from gateway.errors import TunnelOverloaded
from orchestrator.errors import OrchestratorError
from runners.protocol.messages import (
    ToServerResponseChunk,
    ToServerResponseStart,
    ToServerTunnelMessageKind,
)

BUFFER_BYTES = 32 * 1024 * 1024
"""What may wait for a client that reads slowly, of a runner that does not wait for it."""

Numbered: TypeAlias = tuple[int, ToServerTunnelMessageKind]
"""A message and the number the runner has given it."""


class Answers:
    """What the runner has sent for one request, in order, and what ended it early."""

    def __init__(self, overflow: Callable[[], object], lost: OrchestratorError) -> None:
        """`overflow` is called when too much waits: the reader may wait for the client, and not for more.

        `lost` is what the request ends with if it or its answer may be lost.
        """
        self.failure: OrchestratorError | None = None
        self.overflowed = False
        self.begun = False  # something has come
        self.closed = False
        self._doubt: asyncio.TimerHandle | None = None
        self.awaited_since: float | None = None  # loop time from which the request is on its way to the runner
        self._overflow, self._lost = overflow, lost
        self._waiting: deque[Numbered] = deque()
        self._bytes = 0
        self._waiter: asyncio.Future[Numbered] | None = None

    def next(self) -> "asyncio.Future[Numbered]":
        """Return the next message as a future. One reader at a time."""
        future: asyncio.Future[Numbered] = asyncio.get_running_loop().create_future()
        if self._waiting:
            numbered = self._waiting.popleft()
            self._bytes -= _size(numbered[1])
            future.set_result(numbered)
        elif self.failure is not None:
            future.set_exception(self.failure)
        else:
            self._waiter = future
        return future

    def put(self, kind: ToServerTunnelMessageKind, index: int) -> None:
        """Take a message; if the client reads too slowly for what waits already, the request ends."""
        if self.failure is not None:
            return
        self.begun = True
        if self._doubt is not None:
            self._doubt.cancel()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result((index, kind))
            return
        self._waiting.append((index, kind))
        self._bytes += _size(kind)
        if self._bytes > BUFFER_BYTES:
            self._waiting.clear()
            self._bytes = 0
            self.overflowed = True
            self.fail(TunnelOverloaded("the client reads its answer too slowly"))
            self._overflow()

    def fail(self, error: OrchestratorError) -> None:
        """End the request with an error, once what has arrived is read."""
        if self.failure is None:
            self.failure = error
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(self.failure)

    @property
    def doubtful(self) -> bool:
        """Whether the request may end as nothing comes for it."""
        return self._doubt is not None

    def doubt(self, seconds: float) -> None:
        """End the request if nothing comes for it in time: it may be lost, or its answer.

        Said again, what is sooner counts.
        """
        loop = asyncio.get_running_loop()
        at = loop.time() + seconds
        if self.begun or (self._doubt is not None and self._doubt.when() <= at):
            return
        if self._doubt is not None:
            self._doubt.cancel()
        self._doubt = loop.call_at(at, self.fail, self._lost)

    def close(self) -> None:
        """Take nothing more."""
        self.closed = True
        if self._doubt is not None:
            self._doubt.cancel()

    def link_lost(self) -> None:
        """End the request: its answer may be what was lost."""
        if self.awaited_since is not None:
            self.fail(self._lost)


def _size(kind: ToServerTunnelMessageKind) -> int:
    return len(kind.body or b"") if isinstance(kind, ToServerResponseStart | ToServerResponseChunk) else 0
