"""The channel layer, which carries hints to background consumers, made to outlive its Redis."""

import asyncio
import logging
import time
from typing import Any

import redis
from channels_redis.core import RedisChannelLayer  # type: ignore[import-untyped]
from redis.client import Pipeline

logger = logging.getLogger(__name__)

AGAIN_SECONDS = 0.5


class PatientLayer(RedisChannelLayer):  # type: ignore[misc]  # channels_redis has no types
    """Waits for messages although Redis is away for a while.

    Channels' background worker ends with the first error of a `receive`. A connector that ended would take the
    runners that hang on its streams with it, and a Redis that restarts would end them all.
    """

    def leave(self, pipeline: Pipeline, channel: str, message: dict[str, Any]) -> None:
        """Leave a message on a channel, from code without an event loop; the same message never waits there twice.

        What is sent the usual way has a random prefix, so that two of the same content are two; this one has none.
        """
        same = bytes(self._serializer.random_prefix_length) + self._serializer.as_bytes(message)
        pipeline.zadd(f"{self.prefix}{channel}", {same: time.time()})
        pipeline.expire(f"{self.prefix}{channel}", int(self.expiry))

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
