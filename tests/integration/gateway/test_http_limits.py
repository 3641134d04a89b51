"""What one client, one actor and one request may have (DESIGN §11)."""

import asyncio

import httpx
import pytest

from gateway import admission
from orchestrator.ids import new_id
from tests.support.gateway import NOTHING, refusal
from tests.support.live import running_actor
from tests.support.web import eventually

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def counts():
    """Start from nothing, as an engine does, and leave nothing."""
    admission._clients.cache_clear()
    yield
    admission._clients.cache_clear()
    assert not admission.requests._counts


async def never(request):
    """Answer nothing."""


async def test_an_actor_has_so_many_requests_at_a_time(worker, host, client, namespace, env, counts, held):
    env(gateway_actor_requests=2)
    runner = await host(answer=never)
    actor_id, other_id = await running_actor(namespace), await running_actor(namespace)
    waiting = [asyncio.create_task(client.get(f"/gateway/{actor_id}")) for _ in range(2)]
    requests = [await runner.take_request() for _ in waiting]
    answer = await client.get(f"/gateway/{actor_id}")
    assert refusal(answer) == (429, "guard.actor_busy")
    assert answer.json()["metadata"] == {"actor_id": actor_id, "limit": 2, "of": "requests"}
    elsewhere = asyncio.create_task(client.get(f"/gateway/{other_id}"))
    for request in [*requests, await runner.take_request()]:
        await request.answer()
    assert [(await one).status_code for one in (*waiting, elsewhere)] == [200] * 3
    assert held() == NOTHING


async def test_an_address_has_so_many_requests_in_a_while(client, env, counts):
    env(gateway_ip_requests=3, gateway_ip_window_ms=3_600_000)
    path = f"/gateway/{new_id()}"
    assert [(await client.get(path)).status_code for _ in range(3)] == [404] * 3
    answer = await client.get(path, headers={"x-forwarded-for": "9.9.9.9"})
    assert refusal(answer) == (429, "guard.rate_limit")
    assert answer.json()["metadata"] == {"method": "GET", "path": path, "ip": "127.0.0.1"}
    assert (await client.options(path)).status_code == 204  # nothing is done for it


async def test_a_trusted_proxy_says_whose_request_it_is(client, env, counts):
    env(gateway_ip_requests=1, gateway_ip_window_ms=3_600_000, trusted_proxies="127.0.0.0/8")
    path = f"/gateway/{new_id()}"
    for expected in (404, 429):
        for address in ("9.9.9.9", "8.8.8.8"):
            answer = await client.get(path, headers={"x-forwarded-for": f"6.6.6.6, {address}"})
            assert answer.status_code == expected


async def test_an_address_has_so_many_requests_at_a_time(worker, host, client, namespace, env, counts, held):
    env(gateway_ip_in_flight=1)
    runner = await host(answer=never)
    actor_id = await running_actor(namespace)
    first = asyncio.create_task(client.get(f"/gateway/{actor_id}"))
    request = await runner.take_request()
    assert refusal(await client.get(f"/gateway/{actor_id}")) == (429, "guard.rate_limit")
    await request.answer()
    assert (await first).status_code == 200
    left = asyncio.create_task(client.get(f"/gateway/{actor_id}"))
    await runner.take_request()
    left.cancel()
    await eventually(lambda: held() == NOTHING)
    runner.answer = lambda request: request.answer()
    assert (await client.get(f"/gateway/{actor_id}")).status_code == 200


@pytest.mark.parametrize(
    ("headers", "metadata"),
    [
        ([("x-many", "1")] * 101, "limit"),
        ([("x-long", "v" * 16 * 1024)], "limit_bytes"),
    ],
)
async def test_a_head_that_is_too_large_is_refused(client, headers, metadata):
    answer = await client.get(f"/gateway/{new_id()}", headers=headers)
    assert refusal(answer) == (431, "guard.request_headers_too_large")
    assert metadata in answer.json()["metadata"]


async def test_a_body_that_is_announced_as_too_large_is_not_waited_for(engine_url, client, env):
    """A client that asks first is told before it has sent a byte."""
    env(gateway_body_bytes=10)
    url = httpx.URL(engine_url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    head = "POST /gateway/x HTTP/1.1\r\nhost: x\r\ncontent-length: 11\r\nexpect: 100-continue\r\n\r\n"
    writer.write(head.encode())
    assert (await reader.readline()).startswith(b"HTTP/1.1 413")
    writer.close()
    await writer.wait_closed()


async def test_a_client_that_asks_first_may_send_its_body(worker, host, engine_url, namespace):
    runner = await host()
    actor_id = await running_actor(namespace)
    url = httpx.URL(engine_url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    head = f"POST /gateway/{actor_id} HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n"
    writer.write(head.encode())
    assert await reader.readline() == b"HTTP/1.1 100 Continue\r\n"
    assert runner.requests == []
    writer.write(b"body")
    await reader.readline()
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    assert runner.requests[0].start.body == b"body"
    assert "expect" not in runner.requests[0].start.headers
    writer.close()
    await writer.wait_closed()
