"""The channel layer, which carries hints to background consumers, made to outlive its Redis."""

import asyncio
import logging
from typing import Any

import redis
from channels_redis.core import RedisChannelLayer  # type: ignore[import-untyped]

logger = logging.getLogger(__name__)

AGAIN_SECONDS = 0.5


class PatientLayer(RedisChannelLayer):  # type: ignore[misc]  # channels_redis has no types
    """Waits for messages although Redis is away for a while.

    Channels' background worker ends with the first error of a `receive`. A connector that ended would take the
    runners that hang on its streams with it, and a Redis that restarts would end them all.
    """

    async def receive(self, channel: str) -> dict[str, Any]:
        """Return the next message for the channel, however long that takes."""
        complained = False
        while True:
            try:
                message: dict[str, Any] = await super().receive(channel)
                return message
            except (redis.RedisError, OSError) as error:
                if not complained:
                    logger.warning("no message can be received: %s", error, extra={"action": "layer_away"})
                complained = True
                await asyncio.sleep(AGAIN_SECONDS)
