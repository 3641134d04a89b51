"""How the rest of the engine gets at a bus: one per event loop, or a pipeline for code without a loop."""

import asyncio
from collections.abc import Iterable

from django.conf import settings
from redis import Redis

from orchestrator.bus.bus import Bus

_buses: dict[asyncio.AbstractEventLoop, Bus] = {}


def get_bus() -> Bus:
    """Return the bus of the running event loop, made and launched (to `settings.REDIS_URL`) when first asked.

    It lives as long as the loop; the end of `asyncio.run` closes it with the loop's other tasks.
    `await get_bus().start()` waits for the connection; nothing else has to.
    """
    loop = asyncio.get_running_loop()
    bus = _buses.get(loop)
    if bus is None:
        for closed in [other for other in _buses if other.is_closed()]:
            del _buses[closed]
        bus = _buses[loop] = Bus(settings.REDIS_URL)
        bus.launch()
    return bus


async def close_bus() -> None:
    """Stop the running loop's bus, if there is one; the next `get_bus` makes a new one."""
    bus = _buses.pop(asyncio.get_running_loop(), None)
    if bus:
        await bus.stop()


def publish_sync(redis: Redis, messages: Iterable[tuple[str, bytes]]) -> None:
    """Publish (channel, payload) pairs in order and in one round trip, where no event loop runs.

    Raises:
        redis.RedisError: the server could not be reached; some may have been published.
    """
    with redis.pipeline(transaction=False) as pipeline:
        for channel, payload in messages:
            pipeline.publish(channel, payload)
        pipeline.execute()
