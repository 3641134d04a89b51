"""Requests written to a connection that had died already, and what becomes of them (docs/decisions/0010)."""

import asyncio

import pytest

from runners.protocol.messages import ToClientPing
from tests.support.gateway import NOTHING, refusal
from tests.support.live import running_actor

pytestmark = pytest.mark.django_db(transaction=True)


async def never(request):
    """Answer nothing."""


@pytest.fixture
async def deaf(worker, host, namespace, env):
    """A runner that has stopped to read, as one whose network is gone; its actor."""
    env(gateway_proof_ms=300, gateway_retry_pause_ms=0)
    runner = await host(answer=never)
    actor_id = await running_actor(namespace)
    return runner, actor_id


async def come_back(runner):
    """Connect anew while the engine still believes in the old connection, which has taken nothing in."""
    old = runner.socket
    await runner.connect()
    old.transport.abort()


def ask(client, method, actor_id):
    return asyncio.create_task(client.request(method, f"/gateway/{actor_id}"))


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_request_is_answered_by_a_runner_that_had_it_after_all(deaf, client, method, held):
    runner, actor_id = deaf
    asking = ask(client, method, actor_id)
    request = await runner.take_request()
    await come_back(runner)
    await request.answer(b"late")
    assert (await asking).content == b"late"
    assert len(runner.requests) == 1
    assert held() == NOTHING


async def test_a_safe_request_that_may_be_lost_is_asked_again(deaf, client, held):
    runner, actor_id = deaf
    asking = ask(client, "GET", actor_id)
    await runner.take_request()  # as if it had not
    await come_back(runner)
    await (await runner.take_request()).answer(b"again")
    assert (await asking).content == b"again"
    assert held() == NOTHING


async def test_any_other_is_refused_soon_for_nobody_knows_whether_it_was_carried_out(deaf, client, held):
    runner, actor_id = deaf
    asking = ask(client, "POST", actor_id)
    await runner.take_request()
    await come_back(runner)
    assert refusal(await asking) == (503, "guard.tunnel_response_closed")
    assert len(runner.requests) == 1
    assert held() == NOTHING


async def test_one_that_is_proven_to_have_arrived_waits_for_its_answer(deaf, client, env, held):
    env(runner_ping_interval_ms=50)
    runner, actor_id = deaf
    await come_back(runner)  # with pings that come soon
    asking = ask(client, "POST", actor_id)
    request = await runner.take_request()
    for _ in range(2):
        await runner.take(ToClientPing)
    await asyncio.wait([asking], timeout=0.2)
    await come_back(runner)
    await asyncio.wait([asking], timeout=1)
    await request.answer(b"at last")
    assert (await asking).content == b"at last"
    assert held() == NOTHING
