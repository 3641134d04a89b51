"""A background consumer goes on waiting while Redis is away."""

import asyncio
import shutil
import tempfile
from pathlib import Path

import pytest
import redis

from orchestrator.channel_layer import PatientLayer
from tests.support.valkey import Valkey
from tests.support.web import SOON_S

MESSAGE = {"type": "look"}


@pytest.fixture
def valkey():
    directory = Path(tempfile.mkdtemp(prefix="torpor-layer-"))  # short of path, for the socket
    server = Valkey(directory)
    server.start()
    yield server
    server.kill()
    shutil.rmtree(directory)


async def send(layer):
    """Send a message as soon as Redis takes it."""
    async with asyncio.timeout(SOON_S):
        while True:
            try:
                return await layer.send("channel", MESSAGE)
            except redis.RedisError:
                await asyncio.sleep(0.05)


async def test_whoever_waits_is_told_after_redis_was_killed(valkey, caplog):
    layer = PatientLayer(hosts=[{"address": valkey.url}])
    waiting = asyncio.create_task(layer.receive("channel"))
    await send(layer)
    assert await waiting == MESSAGE
    waiting = asyncio.create_task(layer.receive("channel"))
    await asyncio.sleep(0.1)  # it is in the middle of its wait
    valkey.kill()
    async with asyncio.timeout(SOON_S):
        while not caplog.records:  # noqa: ASYNC110 (a log)
            await asyncio.sleep(0.02)
    valkey.start()
    await send(layer)
    async with asyncio.timeout(SOON_S):
        assert await waiting == MESSAGE
    await layer.close_pools()


async def test_whoever_waits_is_told_after_redis_was_read_only(valkey):
    layer = PatientLayer(hosts=[{"address": valkey.url}])
    with redis.Redis.from_url(valkey.url) as client:
        client.execute_command("REPLICAOF", "127.0.0.1", "1")
        waiting = asyncio.create_task(layer.receive("channel"))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        client.execute_command("REPLICAOF", "NO", "ONE")
    await send(layer)
    async with asyncio.timeout(SOON_S):
        assert await waiting == MESSAGE
    await layer.close_pools()


async def test_what_is_left_twice_is_received_once(valkey):
    layer = PatientLayer(hosts=[{"address": valkey.url}])
    with redis.Redis.from_url(valkey.url) as client, client.pipeline() as pipeline:
        for message in (MESSAGE, MESSAGE, {"type": "echo"}):
            layer.leave(pipeline, "channel", message)
        pipeline.execute()
        received = [await layer.receive("channel") for _ in range(2)]
        assert sorted(message["type"] for message in received) == ["echo", "look"]
        waiting = asyncio.create_task(layer.receive("channel"))
        layer.leave(pipeline, "channel", MESSAGE)
        pipeline.execute()
        async with asyncio.timeout(SOON_S):
            assert await waiting == MESSAGE
    await layer.close_pools()
