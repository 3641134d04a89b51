"""The client's side of a connection: what is done for it is done no longer than it stays."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

T = TypeVar("T")

PATIENCE_SECONDS = 0.1
"""Work that takes longer makes it worth looking whether the client is still there; twice as long at the most."""


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
        if self._gone is not None and self._gone.done():
            future.cancel()
            raise ClientGone
        wait = _Wait(self, future, limit_seconds)
        try:
            if self._gone is None and limit_seconds > PATIENCE_SECONDS:
                wait.begin()
            else:
                wait.listen()
            return await future
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if wait.interruption is None or (task is not None and task.cancelling()):
                raise
            raise wait.interruption from None
        finally:
            wait.end()

    def leave(self) -> None:
        """Listen no more."""
        if self._gone is not None:
            self._gone.cancel()


class _Wait:
    """One wait for some work. It is cancelled, and `interruption` says why, if the client or its time is gone."""

    __slots__ = ("_client", "_clock", "_deadline", "_future", "_gone", "_timer", "interruption")

    def __init__(self, client: Client, future: "asyncio.Future[Any]", limit_seconds: float) -> None:
        self.interruption: Exception | None = None
        self._client, self._future = client, future
        self._clock = _clock_of(future.get_loop())
        self._deadline = limit_seconds if limit_seconds == math.inf else self._clock.loop.time() + limit_seconds
        self._gone: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Have `listen` called in a while."""
        self._clock.add(self)

    def listen(self) -> None:
        """See to it that the work is given up with the client, or when its time is over."""
        self._gone = self._client.listen()
        self._gone.add_done_callback(self._client_is_gone)
        if self._deadline != math.inf:
            self._timer = self._clock.loop.call_at(self._deadline, self._interrupt, TimeoutError())

    def end(self) -> None:
        """The work is done, or not waited for any more."""
        if self._gone is None:
            self._clock.remove(self)
            return
        self._gone.remove_done_callback(self._client_is_gone)
        if self._timer is not None:
            self._timer.cancel()

    def _client_is_gone(self, _: object) -> None:
        self._interrupt(ClientGone())

    def _interrupt(self, error: Exception) -> None:
        if self.interruption is None and self._future.cancel():
            self.interruption = error


class _Clock:
    """One timer for all waits of an event loop: a timer for each would cost as much as half of the gateway."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._young: dict[_Wait, None] = {}
        self._old: dict[_Wait, None] = {}
        self._ticks = False

    def add(self, wait: _Wait) -> None:
        """Have it listen when patience is at its end."""
        self._young[wait] = None
        if not self._ticks:
            self._ticks = True
            self.loop.call_later(PATIENCE_SECONDS, self._tick)

    def remove(self, wait: _Wait) -> None:
        """Forget it, if it is known."""
        self._young.pop(wait, None)
        self._old.pop(wait, None)

    def _tick(self) -> None:
        impatient, self._old, self._young = self._old, self._young, {}
        for wait in impatient:
            wait.listen()
        self._ticks = bool(self._old)
        if self._ticks:
            self.loop.call_later(PATIENCE_SECONDS, self._tick)


_clock: _Clock | None = None


def _clock_of(loop: asyncio.AbstractEventLoop) -> _Clock:
    global _clock
    if _clock is None or _clock.loop is not loop:
        _clock = _Clock(loop)
    return _clock
