"""Whatever a client sends reaches the actor and comes back, byte for byte, on either server, by either process."""

import asyncio
import base64
import hashlib
import json
import os

import httpx
import pytest

from tests.support.echo import EVERY_BYTE, MIB, cells, send
from tests.support.endpoint import node_runner
from tests.support.stories import engines

pytestmark = [pytest.mark.e2e, engines("sqlite-daphne", "postgresql-uvicorn")]

AT_ONCE = 8
STREAM_MIB = int(os.environ.get("STREAM_MIB", "64"))
SDK = pytest.mark.parametrize("endpoint", ["sdk"], indirect=True)


def client_of(url):
    limits = httpx.Limits(max_connections=AT_ONCE)
    return httpx.AsyncClient(base_url=url, trust_env=False, timeout=60, limits=limits)


async def mirror(cluster, actor_id):
    """Send every cell by each web process; the runner's socket is at the first."""
    for url in cluster.urls:
        async with client_of(url) as client:
            waiting = iter(cells())

            async def send_some(client=client, waiting=waiting):
                for cell in waiting:
                    await send(client, actor_id, cell)

            await asyncio.gather(*(send_some() for _ in range(AT_ONCE)))
            await largest(client, actor_id)


async def largest(client, actor_id):
    body = EVERY_BYTE * (20 * MIB // 256)
    answer = await client.post(f"/gateway/{actor_id}/mirror", content=body)
    assert answer.content == body
    answer = await client.post(f"/gateway/{actor_id}/mirror", content=body + b"x")
    assert (answer.status_code, answer.json()["code"]) == (413, "invalid_request_body")


async def test_the_npm_client_mirrors_everything(cluster, request, tmp_path):
    pool = f"mirror-{request.node.callspec.id}"
    with node_runner(tmp_path, cluster.urls[0], pool, slots=1) as runner:
        await asyncio.to_thread(runner.wait, "connected")
        await mirror(cluster, cluster.api.create_actor(pool))


@SDK
async def test_the_sdk_mirrors_everything_and_several_cookies(cluster, pool):
    actor_id = cluster.api.create_actor(pool)
    await mirror(cluster, actor_id)
    cookies = [("set-cookie", "a=1; path=/"), ("set-cookie", "b=2; expires=Thu, 01 Jan 2032 00:00:00 GMT")]
    wanted = base64.b64encode(json.dumps({"headers": cookies}).encode()).decode()
    for url in cluster.urls:
        async with client_of(url) as client:
            answer = await client.get(f"/gateway/{actor_id}/mirror", headers={"x-return": wanted})
            assert answer.headers.get_list("set-cookie") == [value for _, value in cookies]


@SDK
async def test_a_long_stream_comes_whole_and_no_process_keeps_it(cluster, endpoint, pool):
    """A process that kept it would grow by 64 MiB; `STREAM_MIB=1024` makes it a long one indeed."""
    actor_id = cluster.api.create_actor(pool)
    size = STREAM_MIB * MIB
    expected = hashlib.sha256()
    for _ in range(STREAM_MIB):
        expected.update(EVERY_BYTE * (MIB // 256))
    processes = [*cluster.webs, endpoint]
    for url in cluster.urls:
        async with client_of(url) as client:
            await client.get(f"/gateway/{actor_id}/flow?bytes=1000000")
            before = {process.name: process.rss_bytes() for process in processes}
            received = hashlib.sha256()
            async with client.stream("GET", f"/gateway/{actor_id}/flow?bytes={size}") as answer:
                async for part in answer.aiter_raw():
                    received.update(part)
            assert received.hexdigest() == expected.hexdigest()
            growth = {process.name: process.peak_rss_bytes() - before[process.name] for process in processes}
            print({name: f"{grown / MIB:.1f} MiB" for name, grown in growth.items()})
            assert max(growth.values()) < 40 * MIB


@SDK
async def test_an_event_arrives_when_it_is_said(cluster, pool):
    actor_id = cluster.api.create_actor(pool)
    path = f"/gateway/{actor_id}"
    async with client_of(cluster.urls[1]) as client, client.stream("GET", f"{path}/events") as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        events = answer.aiter_text()
        assert await anext(events) == "data: first\n\n"
        await client.get(f"{path}/release")
        assert "".join([event async for event in events]) == "data: last\n\n"
