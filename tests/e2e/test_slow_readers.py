"""Clients that read slowly, and what the engine's processes keep for them meanwhile: next to nothing."""

import asyncio
import time

import httpx
import pytest
from websockets.asyncio.client import connect

from tests.support.stories import engines

pytestmark = [
    pytest.mark.e2e,
    engines("sqlite-daphne", "sqlite-uvicorn"),
    pytest.mark.parametrize("endpoint", ["sdk"], indirect=True),
]

MIB = 1024 * 1024
PIECE_BYTES = MIB // 10
PAUSE_SECONDS = 0.1  # together: 1 MiB per second
GROWTH_BYTES = 12 * MIB
MESSAGES = 16


async def test_a_download_that_is_read_slowly_is_made_slowly(cluster, pool):
    """The actor would give 64 MiB at once. Of them 3 are read; the rest is not even made."""
    actor_id = cluster.api.create_actor(pool)
    for url in cluster.urls:
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as client:
            path = f"/gateway/{actor_id}/flow?bytes="
            await client.get(f"{path}{MIB}")
            before = {web.name: web.rss_bytes() for web in cluster.webs}
            began, received = time.monotonic(), 0
            async with client.stream("GET", f"{path}{64 * MIB}") as answer:
                async for part in answer.aiter_raw(PIECE_BYTES):
                    received += len(part)
                    if received >= 3 * MIB:
                        break
                    await asyncio.sleep(PAUSE_SECONDS)
            assert time.monotonic() - began > 2
            for web in cluster.webs:
                assert web.peak_rss_bytes() - before[web.name] < GROWTH_BYTES
            assert (await client.get(f"/gateway/{actor_id}")).status_code == 200


async def test_what_a_slow_client_of_a_websocket_has_not_read_is_kept_and_no_more(cluster, pool):
    """Nobody can make an actor's WebSocket slower (docs/gateway.md), so what is on its way is kept: once."""
    actor_id = cluster.api.create_actor(pool)
    for url in cluster.urls:
        address = f"{url.replace('http', 'ws', 1)}/gateway/{actor_id}"
        options = {"compression": None, "max_size": None, "max_queue": 1, "proxy": None, "ping_interval": None}
        async with connect(address, **options) as client:
            await client.send(b"x")
            assert await client.recv() == b"x"
            before = {web.name: web.rss_bytes() for web in cluster.webs}
            sending = asyncio.create_task(send_all(client))
            for number in range(MESSAGES):
                assert await client.recv() == bytes([number]) * MIB
                await asyncio.sleep(PAUSE_SECONDS)
            await sending
            for web in cluster.webs:
                assert web.peak_rss_bytes() - before[web.name] < (MESSAGES * MIB) + 2 * GROWTH_BYTES


async def send_all(client):
    for number in range(MESSAGES):
        await client.send(bytes([number]) * MIB)
