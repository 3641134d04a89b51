"""What has to happen before a process that serves connections ends.

Both servers run these callbacks at SIGTERM: after they have stopped listening and before they close a socket.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

logger = logging.getLogger(__name__)

Callback = Callable[[], Awaitable[None]]

SHUTDOWN_SECONDS = 5.0

_callbacks: list[Callback] = []


def on_shutdown(callback: Callback) -> Callable[[], None]:
    """Have `callback` awaited before the process ends; return a function that takes it off again."""
    _callbacks.append(callback)

    def forget() -> None:
        if callback in _callbacks:
            _callbacks.remove(callback)

    return forget


async def run_shutdown() -> None:
    """Run all callbacks at the same time, for a few seconds at most; what is not done by then is cancelled.

    One that fails is logged and harms no other.
    """
    callbacks = list(_callbacks)
    tasks = [asyncio.ensure_future(callback()) for callback in callbacks]
    if not tasks:
        return
    _, late = await asyncio.wait(tasks, timeout=SHUTDOWN_SECONDS)
    for task in late:
        task.cancel()
    for callback, outcome in zip(callbacks, await asyncio.gather(*tasks, return_exceptions=True), strict=True):
        if isinstance(outcome, asyncio.CancelledError):
            logger.error("%r took too long to prepare for the end of the process", callback)
        elif isinstance(outcome, BaseException):
            logger.error("%r failed to prepare for the end of the process", callback, exc_info=outcome)
