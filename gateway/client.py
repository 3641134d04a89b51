"""The client's side of a connection: what is done for it is done no longer than it stays."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE_SECONDS = 0.1
"""Work that takes longer makes it worth looking whether the client is still there."""


class ClientGone(Exception):
    """The client has hung up; nobody waits for an answer."""


class Client:
    """Who waits at the other end. `listen` takes in what the client sends and returns once it has hung up.

    Listening begins when there is a reason to: most clients have their answer sooner.
    """

    def __init__(self, listen: Callable[[], Awaitable[None]]) -> None:
        self._listen = listen
        self._gone: asyncio.Future[None] | None = None

    def listen(self) -> "asyncio.Future[None]":
        """Begin to listen, unless begun; return what is done when the client has hung up."""
        if self._gone is None:
            self._gone = asyncio.ensure_future(self._listen())
        return self._gone

    async def while_connected(self, work: Awaitable[T], limit_seconds: float = math.inf) -> T:
        """Await work, but not for longer than the client waits for its answer.

        Raises:
            ClientGone: the client hung up first; the work is cancelled.
            TimeoutError: the limit came first; likewise.
        """
        future = asyncio.ensure_future(work)
        try:
            if self._gone is None:
                await asyncio.wait((future,), timeout=min(PATIENCE_SECONDS, limit_seconds))
                limit_seconds -= PATIENCE_SECONDS
            if not future.done() or self._gone is not None:
                gone = self.listen()
                limit = None if limit_seconds == math.inf else max(limit_seconds, 0)
                await asyncio.wait((future, gone), timeout=limit, return_when=asyncio.FIRST_COMPLETED)
                if gone.done():
                    raise ClientGone
                if not future.done():
                    raise TimeoutError
            return future.result()
        finally:
            if future.done() and not future.cancelled():
                future.exception()  # nobody else looks at it if the client has gone
            future.cancel()

    def leave(self) -> None:
        """Listen no more."""
        if self._gone is not None:
            self._gone.cancel()
