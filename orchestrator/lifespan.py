"""What has to happen before a process that serves connections ends.

Both servers run these callbacks at SIGTERM: after they have stopped listening and before they close a socket.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

logger = logging.getLogger(__name__)

Callback = Callable[[], Awaitable[None]]

SHUTDOWN_SECONDS = 5.0
"""Half of it for those that are first."""

_callbacks: list[Callback] = []
_first_callbacks: list[Callback] = []


def on_shutdown(callback: Callback, *, first: bool = False) -> Callable[[], None]:
    """Have `callback` awaited before the process ends; return a function that takes it off again.

    Those that are to be `first` are over before the others begin.
    """
    callbacks = _first_callbacks if first else _callbacks
    callbacks.append(callback)

    def forget() -> None:
        if callback in callbacks:
            callbacks.remove(callback)

    return forget


async def run_shutdown() -> None:
    """Run all callbacks, for a few seconds at most; what is not done by then is cancelled.

    Those of one kind run at the same time. One that fails is logged and harms no other.
    """
    for callbacks in (_first_callbacks, _callbacks):
        await _run(list(callbacks))


async def _run(callbacks: list[Callback]) -> None:
    tasks = [asyncio.ensure_future(callback()) for callback in callbacks]
    if not tasks:
        return
    _, late = await asyncio.wait(tasks, timeout=SHUTDOWN_SECONDS / 2)
    for task in late:
        task.cancel()
    for callback, outcome in zip(callbacks, await asyncio.gather(*tasks, return_exceptions=True), strict=True):
        if isinstance(outcome, asyncio.CancelledError):
            logger.error("%r took too long to prepare for the end of the process", callback)
        elif isinstance(outcome, BaseException):
            logger.error("%r failed to prepare for the end of the process", callback, exc_info=outcome)
