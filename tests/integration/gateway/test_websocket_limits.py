"""What one client and one actor may have of WebSockets; beyond it a handshake is closed with the code."""

import contextlib
from contextlib import asynccontextmanager

import pytest
from websockets.exceptions import ConnectionClosed

from gateway import admission
from tests.support.echo_runner import EchoRunner
from tests.support.gateway import NOTHING
from tests.support.live import running_actor
from tests.support.scripted_runner import dial
from tests.support.scripted_sockets import gateway_url
from tests.support.web import eventually

pytestmark = pytest.mark.django_db(transaction=True)

BUSY = (1011, "guard.actor_busy")
TOO_MANY = (1011, "guard.rate_limit")


@pytest.fixture
async def echo(worker, engine_url, namespace, held):
    """A runner that echoes; every count begins with nothing, and ends so."""
    admission._clients.cache_clear()
    runner = EchoRunner(engine_url, can_hibernate=False)
    await runner.connect()
    yield runner
    await eventually(lambda: held() == NOTHING)
    await runner.end()
    assert not admission.sockets._counts
    admission._clients.cache_clear()


@asynccontextmanager
async def talking(url, actor_id, **options):
    async with dial(gateway_url(url, actor_id), **options) as client:
        await client.send("hello")
        assert await client.recv() == "hello"
        yield client


async def refusal(url, actor_id, **options):
    """Return code and reason, without the ray, of the close that answers a handshake."""
    async with dial(gateway_url(url, actor_id), **options) as client:
        with contextlib.suppress(ConnectionClosed):
            await client.recv()
        return client.close_code, (client.close_reason or "").partition("#")[0]


async def test_an_actor_has_so_many_at_a_time(echo, engine_url, namespace, env):
    env(gateway_actor_sockets=2)
    actor_id, other_id = await running_actor(namespace), await running_actor(namespace)
    async with talking(engine_url, actor_id) as first, talking(engine_url, actor_id):
        assert await refusal(engine_url, actor_id) == BUSY
        async with talking(engine_url, other_id):
            pass
        await first.close()
        await eventually(lambda: admission.sockets._counts.get(actor_id) == 1)
        async with talking(engine_url, actor_id):
            assert await refusal(engine_url, actor_id) == BUSY


async def test_an_address_has_so_many_at_a_time(echo, engine_url, namespace, env):
    env(gateway_ip_in_flight=1)
    actor_id = await running_actor(namespace)
    async with talking(engine_url, actor_id):
        assert await refusal(engine_url, actor_id) == TOO_MANY
    await eventually(lambda: not admission.sockets._counts)
    async with talking(engine_url, actor_id):
        pass


@pytest.mark.parametrize("trusted", ["", "127.0.0.0/8"])
async def test_an_address_opens_so_many_in_a_while_and_only_a_trusted_proxy_may_name_it(
    echo, engine_url, namespace, env, trusted
):
    env(gateway_ip_requests=2, gateway_ip_window_ms=3_600_000, trusted_proxies=trusted)
    actor_id = await running_actor(namespace)
    for address in ("9.9.9.9", "9.9.9.9"):
        async with talking(engine_url, actor_id, headers={"x-forwarded-for": address}):
            pass
    headers = {"x-forwarded-for": "8.8.8.8"}
    if trusted:
        async with talking(engine_url, actor_id, headers=headers):
            pass
    else:
        assert await refusal(engine_url, actor_id, headers=headers) == TOO_MANY


async def test_a_head_that_is_too_large_is_refused(echo, engine_url, namespace):
    actor_id = await running_actor(namespace)
    many = {f"x-{number}": "1" for number in range(101)}
    refused = await refusal(engine_url, actor_id, headers=many)
    assert refused == (1011, "guard.request_headers_too_large")
