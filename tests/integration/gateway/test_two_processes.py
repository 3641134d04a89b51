"""The client at this process, its actor's runner at another: what passes between them (DESIGN §4)."""

import asyncio

import pytest

from actors.services import destroy_actor, sleep_actor
from orchestrator.db import run_db
from orchestrator.redis import get_redis
from runners.models import Runner
from runners.protocol.messages import (
    ToClientPing,
    ToClientRequestAbort,
    ToClientTunnelMessage,
    ToServerResponseStart,
    ToServerTunnelMessage,
)
from tests.support.gateway import NOTHING, refusal
from tests.support.live import actor_row, has_status, running_actor
from tests.support.management import make_actor
from tests.support.scripted_runner import ScriptedRunner, connected
from tests.support.web import eventually

pytestmark = pytest.mark.django_db(transaction=True)

MIB = 1024 * 1024


@pytest.fixture
async def runner(other_web, namespace):
    get_redis().config_set("client-output-buffer-limit", "pubsub 256mb 0 0")  # as the embedded store has it
    async with connected(other_web) as running:
        yield running


async def never(request):
    """Answer nothing."""


async def test_requests_wake_and_reach_an_actor_over_there(worker, runner, client, namespace, held):
    actor = await run_db(make_actor, namespace)
    answers = await asyncio.gather(*(client.post(f"/gateway/{actor.pk}/{n}", content=b"x") for n in range(20)))
    assert [answer.json()["path"] for answer in answers] == [f"/{n}" for n in range(20)]
    await run_db(sleep_actor, actor=await actor_row(actor.pk))
    await has_status(actor.pk, "asleep")
    assert (await client.get(f"/gateway/{actor.pk}")).json()["generation"] == 1
    assert runner.started == [(actor.pk, 0), (actor.pk, 1)]
    assert held() == NOTHING


async def test_more_than_the_link_can_hold_comes_through_all_the_same(worker, runner, client, namespace, held):
    """The runner is not read while the way is full."""

    async def answer(request):
        await request.answer(bytes([int(request.start.path[1:])]) * 20 * MIB)

    runner.answer = answer
    actor_id = await running_actor(namespace)
    answers = await asyncio.gather(*(client.get(f"/gateway/{actor_id}/{n}") for n in range(4)))
    assert [answer.status_code for answer in answers] == [200] * 4
    for number, answer in enumerate(answers):
        assert answer.content == bytes([number]) * 20 * MIB
    assert held() == NOTHING


async def test_a_stream_is_passed_on_chunk_by_chunk(worker, runner, client, namespace):
    requests = asyncio.Queue()
    runner.answer = requests.put
    actor_id = await running_actor(namespace)
    sending = asyncio.create_task(client.send(client.build_request("GET", f"/gateway/{actor_id}"), stream=True))
    request = await requests.get()
    await request.begin(b"0")
    chunks = (await sending).aiter_raw()
    assert await anext(chunks) == b"0"
    for number in range(1, 5):
        await request.chunk(b"%d" % number, finish=number == 4)
        assert await anext(chunks) == b"%d" % number


async def test_a_client_that_hangs_up_aborts_its_request(worker, runner, client, namespace, held):
    runner.answer = never
    actor_id = await running_actor(namespace)
    waiting = asyncio.create_task(client.get(f"/gateway/{actor_id}"))
    request = await runner.take_request()
    waiting.cancel()
    abort = await runner.take(
        ToClientTunnelMessage, lambda message: isinstance(message.message_kind, ToClientRequestAbort)
    )
    assert abort.message_id.request_id == request.id.request_id
    await eventually(lambda: held() == NOTHING)


async def test_a_foreign_runner_cannot_answer(worker, runner, other_web, client, namespace):
    runner.answer = never
    actor_id = await running_actor(namespace)
    async with connected(other_web, key="thief") as thief:
        waiting = asyncio.create_task(client.get(f"/gateway/{actor_id}"))
        request = await runner.take_request()
        stolen = ToServerResponseStart(200, {}, b"stolen", stream=False)
        await thief.send(ToServerTunnelMessage(request.id, stolen))
        await thief.socket.ping()
        await request.answer(b"mine")
        assert (await waiting).content == b"mine"


async def test_no_process_remembers_the_way_to_a_destroyed_actor(worker, runner, client, namespace):
    actor_id = await running_actor(namespace)
    assert (await client.get(f"/gateway/{actor_id}")).status_code == 200
    await run_db(destroy_actor, actor=await actor_row(actor_id))
    assert refusal(await client.get(f"/gateway/{actor_id}")) == (404, "actor.not_found")


def _socket_is_away():
    return run_db(Runner.objects.filter(socket_id="").exists)


async def test_a_runner_may_come_back_to_another_process_than_it_left(
    worker, runner, client, engine_url, other_web, namespace
):
    actor_id = await running_actor(namespace)
    there = runner.url
    here = ScriptedRunner(engine_url).url
    for url in (here, there, here):
        await runner.drop()
        await eventually(_socket_is_away)  # what is written to a dead socket before that, nobody has
        waiting = asyncio.create_task(client.get(f"/gateway/{actor_id}"))
        runner.url = url
        await runner.connect()
        assert (await waiting).json()["generation"] == 0
    assert runner.started == [(actor_id, 0)]


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_request_whose_answer_a_lost_link_may_have_taken_is_repeated_if_it_is_safe_else_refused_at_once(
    worker, runner, client, namespace, held, method
):
    runner.answer = never
    actor_id = await running_actor(namespace)
    waiting = asyncio.create_task(client.request(method, f"/gateway/{actor_id}"))
    await runner.take_request()
    get_redis().client_kill_filter(_type="pubsub")
    if method == "GET":
        await (await runner.take_request()).answer(b"again")
        assert (await waiting).content == b"again"
    else:
        assert refusal(await waiting) == (503, "guard.tunnel_response_closed")
    assert len(runner.requests) == (2 if method == "GET" else 1)
    assert held() == NOTHING


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_request_whose_answer_a_dead_process_may_have_taken_is_repeated_or_refused_once_its_runner_is_back(
    worker, runner, client, namespace, held, env, method
):
    """Also if it is proven to have arrived: nobody knows what the dead process had heard."""
    env(runner_ping_interval_ms=50, gateway_proof_ms=300, gateway_retry_pause_ms=0)
    runner.answer = never
    actor_id = await running_actor(namespace)
    waiting = asyncio.create_task(client.request(method, f"/gateway/{actor_id}"))
    await runner.take_request()
    for _ in range(3):
        await runner.take(ToClientPing)
    await runner.drop()
    await eventually(_socket_is_away)
    assert not waiting.done()
    await run_db(Runner.objects.update, socket_id="of a process that was killed")
    await runner.connect()
    if method == "GET":
        await (await runner.take_request()).answer(b"again")
        assert (await waiting).content == b"again"
    else:
        assert refusal(await waiting) == (503, "guard.tunnel_response_closed")
    assert held() == NOTHING
