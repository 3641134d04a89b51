"""Redis is restarted, and is empty then, while clients talk to an actor by two web processes."""

import asyncio
import contextlib
import shutil
import tempfile
import time
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.support.cluster import Cluster
from tests.support.endpoint import node_runner
from tests.support.valkey import Valkey

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

POOL = "restarts"
AWAY_SECONDS = 1.0
SECONDS = 20.0
"""In which everything is settled; a response that is lost would be waited for for five minutes."""


@pytest.fixture
def engine(tmp_path):
    """An engine with a Redis of its own, and that."""
    home = Path(tempfile.mkdtemp(prefix="torpor-valkey-"))
    redis = Valkey(home)
    try:
        redis.start()
        database_url = f"sqlite:///{tmp_path}/torpor.sqlite3"
        with Cluster(tmp_path, database_url, redis.url, "uvicorn") as cluster:
            yield cluster, redis
    finally:
        redis.kill()
        shutil.rmtree(home)


async def restart(redis):
    redis.kill()
    await asyncio.sleep(AWAY_SECONDS)
    await asyncio.to_thread(redis.start)


async def answer(url, path, method="GET"):
    """Return the status of an answer, its code if it is an error, and how long it took."""
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as client:
        began = time.monotonic()
        given = await client.request(method, path)
        code = given.json().get("code") if given.status_code != 200 else None
        return given.status_code, code, time.monotonic() - began


async def says_or_ends(client):
    """Return whether a message comes back; if not, the socket was closed with a code that says why."""
    try:
        async with asyncio.timeout(SECONDS):
            await client.send("still there?")
            return await client.recv() == "still there?"
    except ConnectionClosed:
        assert client.close_code == 1011
        assert client.close_reason.startswith("guard.websocket_tunnel_")
        return False


async def test_what_is_under_way_ends_soon_and_the_rest_goes_on(engine, tmp_path):
    cluster, redis = engine
    here, elsewhere = cluster.urls
    with node_runner(tmp_path, here, POOL, slots=5) as runner:
        await asyncio.to_thread(runner.wait, "connected")
        actor_id = await asyncio.to_thread(cluster.api.create_actor, POOL)
        await asyncio.to_thread(cluster.api.wait_running, actor_id)
        path = f"/gateway/{actor_id}"
        async with contextlib.AsyncExitStack() as stack:
            sockets = [await stack.enter_async_context(open_socket(url, path)) for url in cluster.urls]
            for client in sockets:
                await client.send("hello")
                assert await client.recv() == "hello"
            under_way = [
                asyncio.create_task(answer(here, f"{path}/slow?ms=5000")),
                asyncio.create_task(answer(elsewhere, f"{path}/slow?ms=60000", "POST")),
            ]
            await asyncio.to_thread(runner.wait, "slow_request", 2, actorId=actor_id)
            await restart(redis)
            assert (await under_way[0])[:2] == (200, None)  # no link is between them
            status, code, seconds = await under_way[1]
            assert (status, code) == (503, "tunnel_response_closed")
            assert seconds < SECONDS
            assert await says_or_ends(sockets[0])
            await says_or_ends(sockets[1])
        for url in cluster.urls:
            status, code, seconds = await answer(url, path)
            assert (status, code) == (200, None)
            assert seconds < SECONDS
            async with open_socket(url, path) as client:
                await client.send("again")
                assert await client.recv() == "again"


def open_socket(url, path):
    address = url.replace("http", "ws", 1) + path
    return connect(address, compression=None, proxy=None, ping_interval=None, close_timeout=1)
