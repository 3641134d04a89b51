"""A request whose actor is not there yet: how long it waits, what it is told, what is tried again."""

import asyncio
import time
from datetime import datetime, timedelta

import pytest
from django.utils import timezone

from actors.models import Actor
from actors.services import destroy_actor, sleep_actor
from gateway.hub import get_hub
from orchestrator.bus import get_bus
from orchestrator.db import run_db
from orchestrator.redis import get_redis
from runners.channel import actor_channel
from runners.models import RunnerConfig
from runners.protocol.messages import (
    CommandStartActor,
    ToClientRequestAbort,
    ToClientTunnelMessage,
    ToServerResponseAbort,
)
from tests.support.gateway import NOTHING, refusal
from tests.support.live import actor_row, running_actor
from tests.support.management import make_actor, signals
from tests.support.scripted_runner import CRASHED, tell
from tests.support.start_endpoint import connector, start_endpoint
from tests.support.web import eventually

pytestmark = pytest.mark.django_db(transaction=True)


async def never(request):
    """Answer nothing."""


def get(client, actor_id):
    return asyncio.create_task(client.get(f"/gateway/{actor_id}"))


# The actor stops before it has answered


async def test_a_request_the_actor_leaves_unanswered_is_asked_again_in_its_next_life(
    worker, host, client, namespace, held
):
    runner = await host(answer=never)
    actor_id = await running_actor(namespace)
    waiting = get(client, actor_id)
    first = await runner.take_request()
    runner.answer = tell
    await run_db(sleep_actor, actor=await actor_row(actor_id))
    answer = await waiting
    assert (answer.status_code, answer.json()["generation"]) == (200, 1)
    [_, second] = runner.requests
    assert second.start.headers["x-rivet-ray-id"] == first.start.headers["x-rivet-ray-id"]
    assert second.id.request_id != first.id.request_id
    assert (first.id.message_index, second.id.message_index) == (0, 0)
    assert not [m for m in runner.received if isinstance(m, ToClientTunnelMessage) and aborts(m)]
    assert held() == NOTHING


def aborts(message):
    return isinstance(message.message_kind, ToClientRequestAbort)


async def test_a_request_to_an_actor_that_stops_just_now_waits_for_its_next_life(worker, host, client, namespace):
    runner = await host()
    actor_id = await running_actor(namespace)
    await client.get(f"/gateway/{actor_id}")  # the route is remembered
    runner.obeys = False
    await run_db(sleep_actor, actor=await actor_row(actor_id))
    stop = await take_stop(runner)
    waiting = get(client, actor_id)
    await eventually(lambda: run_db(lambda: "wake" in str(signals("actors", actor_id)) or woken(actor_id)))
    runner.obeys = True
    await runner.obey(stop)
    answer = await waiting
    assert (answer.status_code, answer.json()["generation"]) == (200, 1)
    assert len(runner.requests) == 2


def woken(actor_id):
    return Actor.objects.get(pk=actor_id).wake_after


async def take_stop(runner):
    while True:
        command = await runner.take_command()
        if not isinstance(command.inner, CommandStartActor):
            return command


async def test_an_actor_that_stops_each_time_is_given_up(worker, host, client, namespace, env, held):
    env(gateway_rewakes=3)

    async def crash(request):
        await runner.say(request.start.actor_id, CRASHED)
        del runner.lives[request.start.actor_id]

    runner = await host(answer=crash)
    actor_id = await running_actor(namespace)
    answer = await hurry(client, actor_id)
    assert refusal(answer) == (400, "guard.actor_wake_retries_exceeded")
    assert answer.json()["metadata"]["wake_retries"] == 4
    assert len(runner.requests) == 4
    assert held() == NOTHING


async def hurry(client, actor_id):
    """Send a request, and cut short every pause between two lives."""
    waiting = get(client, actor_id)
    pauses = Actor.objects.filter(pk=actor_id, status="backoff")
    while not waiting.done():
        await run_db(lambda: pauses.update(due_at=timezone.now(), state_due_at=timezone.now()))
        await asyncio.wait([waiting], timeout=0.02)
    return await waiting


# The runner gives the request up


@pytest.mark.parametrize("how", ["abort", "no such actor", "No Such Actor"])
async def test_a_request_the_runner_gives_up_is_tried_again(worker, host, client, namespace, env, how):
    env(gateway_retry_pause_ms=10)

    async def give_up(request):
        runner.answer = tell
        if how == "abort":
            await request.send(ToServerResponseAbort())
        else:
            name = "x-rivet-error" if how.islower() else "X-Rivet-Error"
            await request.answer(b"", 503, {name: "runner.actor_not_found"})

    runner = await host(answer=give_up)
    actor_id = await running_actor(namespace)
    answer = await client.get(f"/gateway/{actor_id}")
    assert (answer.status_code, answer.json()["generation"]) == (200, 0)
    assert len(runner.requests) == 2
    assert len({request.id.request_id for request in runner.requests}) == 2


async def test_a_request_the_runner_always_gives_up_is_refused(worker, host, client, namespace, env, held):
    env(gateway_retry_pause_ms=1)

    async def give_up(request):
        await request.send(ToServerResponseAbort())

    runner = await host(answer=give_up)
    actor_id = await running_actor(namespace)
    answer = await client.get(f"/gateway/{actor_id}")
    assert refusal(answer) == (502, "guard.retry_attempts_exceeded")
    assert answer.json()["metadata"] == {
        "attempts": 7,
        "last_error_code": "tunnel_request_aborted",
        "last_status": 503,
        "last_target_kind": "actor",
    }
    assert len(runner.requests) == 7
    assert held() == NOTHING


async def test_an_answer_of_503_for_another_reason_is_the_actors_own(worker, host, client, namespace):
    async def busy(request):
        await request.answer(b"busy", 503, {"x-rivet-error": "mine"})

    runner = await host(answer=busy)
    actor_id = await running_actor(namespace)
    answer = await client.get(f"/gateway/{actor_id}")
    assert (answer.status_code, answer.content) == (503, b"busy")
    assert len(runner.requests) == 1


# The actor does not come


async def test_a_request_nobody_serves_is_refused_in_time(worker, client, namespace, env, held):
    env(gateway_ready_ms=300, gateway_repeat_wake_ms=100)
    await run_db(RunnerConfig.objects.create, namespace=namespace, name="pool", kind="normal")
    actor = await run_db(make_actor, namespace)
    answer = await client.get(f"/gateway/{actor.pk}")
    assert refusal(answer) == (503, "guard.actor_ready_timeout")
    assert answer.json()["metadata"]["actor_id"] == actor.pk
    assert answer.json()["metadata"]["explain"]
    assert held() == NOTHING


async def test_a_refusal_tells_of_runners_but_not_their_keys(worker, host, client, namespace, env):
    env(gateway_ready_ms=300)
    runner = await host(key="a key of its own", slots=1)
    await running_actor(namespace)
    actor = await run_db(make_actor, namespace)
    answer = await client.get(f"/gateway/{actor.pk}")
    (told,) = answer.json()["metadata"]["explain"]["runners"]
    assert (told["runner_id"], told["refused"]) == (runner.runner_id, "full")
    assert "key" not in told
    assert "a key of its own" not in answer.text


async def test_a_request_waits_for_no_longer_than_it_may_in_all(worker, host, client, namespace, env, held):
    """Each stop begins the wait for a start anew, but not the wait in all."""
    env(gateway_ready_ms=60_000, gateway_request_ms=500)
    runner = await host()
    runner.obeys = False
    actor = await run_db(make_actor, namespace)
    began = time.monotonic()
    answer = await client.get(f"/gateway/{actor.pk}")
    assert refusal(answer) == (503, "guard.actor_ready_timeout")
    assert time.monotonic() - began >= 0.5
    assert held() == NOTHING


async def test_a_failing_pool_is_named_within_three_seconds(worker, client, namespace, held):
    async with start_endpoint() as endpoint, connector():
        configured = {"kind": "serverless", "url": endpoint.url, "request_lifespan": timedelta(minutes=5)}
        configured["headers"] = {"authorization": "a secret"}
        await run_db(RunnerConfig.objects.create, namespace=namespace, name="pool", **configured)
        actor = await run_db(make_actor, namespace)
        began = time.monotonic()
        waiting = get(client, actor.pk)
        await (await endpoint.request()).answer(500, {}, b"broken")
        answer = await waiting
        assert refusal(answer) == (503, "guard.actor_runner_failed")
        assert time.monotonic() - began < 3
        told = answer.json()["metadata"]
        reason = {"serverless_http_error": {"status_code": 500, "body": "broken"}}
        assert told["reason"] == reason
        explained = told["explain"]
        assert (explained["status"], explained["step"]) == ("pending", "waiting for a slot on a runner")
        assert explained["since"]
        assert explained["pool"]["error"] == reason
        retry_at = datetime.fromisoformat(explained["pool"]["retry_at"])
        assert f"again at {retry_at:%Y-%m-%d %H:%M:%S} UTC" in explained["unblocked_by"]
        assert "secret" not in answer.text
        assert held() == NOTHING


async def test_a_wake_that_redis_loses_is_repeated(worker, host, client, namespace, env):
    env(gateway_repeat_wake_ms=100)
    runner = await host()
    actor = await run_db(make_actor, namespace)
    worker.pause()
    waiting = get(client, actor.pk)
    await eventually(lambda: signals("actors", actor.pk))
    get_redis().flushall()
    worker.go()
    assert (await waiting).status_code == 200
    assert runner.started == [(actor.pk, 0)]


async def test_a_ready_that_redis_loses_is_noticed(worker, host, client, namespace, env):
    """The row says what the message would have."""
    env(gateway_repeat_wake_ms=100)
    runner = await host()
    actor = await run_db(make_actor, namespace)
    runner.obeys = False
    waiting = get(client, actor.pk)
    start = await runner.take_command()
    await run_db(_set_running, actor.pk)
    runner.lives[start.checkpoint.actor_id] = 0
    assert (await waiting).status_code == 200


def _set_running(actor_id):
    from datetime import timedelta

    from actors.models import Actor

    now = timezone.now()
    running = {"status": "running", "connectable_at": now, "due_at": now + timedelta(minutes=5)}
    Actor.objects.filter(pk=actor_id).update(**running, event_index=0)


# The actor is destroyed


async def test_a_request_that_waits_ends_when_its_actor_is_destroyed(worker, host, client, namespace, held):
    runner = await host()
    runner.obeys = False
    actor = await run_db(make_actor, namespace)
    waiting = get(client, actor.pk)
    await runner.take_command()
    await run_db(destroy_actor, actor=actor)
    assert refusal(await waiting) == (400, "actor.destroyed_while_waiting_for_ready")
    assert held() == NOTHING


async def test_a_request_in_flight_ends_when_its_actor_is_destroyed(worker, host, client, namespace, held):
    runner = await host(answer=never)
    actor_id = await running_actor(namespace)
    waiting = get(client, actor_id)
    await runner.take_request()
    await run_db(destroy_actor, actor=await actor_row(actor_id))
    assert refusal(await waiting) == (404, "actor.not_found")
    assert held() == NOTHING


async def test_a_remembered_route_does_not_outlive_its_actor(worker, host, client, namespace):
    runner = await host()
    actor_id = await running_actor(namespace)
    assert (await client.get(f"/gateway/{actor_id}")).status_code == 200
    await run_db(destroy_actor, actor=await actor_row(actor_id))
    answers = await asyncio.gather(*(client.get(f"/gateway/{actor_id}") for _ in range(5)))
    assert {refusal(answer) for answer in answers} == {(404, "actor.not_found")}
    assert len(runner.requests) == 1


# The runner's socket is away


async def test_a_request_is_held_while_the_socket_of_its_runner_is_away(worker, host, client, namespace):
    runner = await host()
    actor_id = await running_actor(namespace)
    await client.get(f"/gateway/{actor_id}")
    await runner.drop()
    waiting = [get(client, actor_id) for _ in range(3)]
    await asyncio.wait(waiting, timeout=0.2)
    assert not any(request.done() for request in waiting)
    await runner.connect()
    assert [(await request).json()["generation"] for request in waiting] == [0] * 3
    assert len(runner.requests) == 4


async def test_a_request_whose_runner_is_lost_is_served_by_another(worker, host, client, namespace, env, held):
    env(runner_lost_ms=600, runner_eligible_ms=600, runner_ping_interval_ms=100)
    first = await host(key="first")
    actor_id = await running_actor(namespace)
    await client.get(f"/gateway/{actor_id}")
    await first.drop()
    waiting = get(client, actor_id)
    second = await host(key="second")
    answer = await waiting
    assert (answer.status_code, answer.json()["generation"]) == (200, 1)
    assert second.started == [(actor_id, 1)]
    assert held() == NOTHING


async def test_a_stop_that_nobody_tells_the_gateway_of_is_found_in_the_row(worker, host, client, namespace, env):
    runner = await host(answer=never)
    actor_id = await running_actor(namespace)
    waiting = get(client, actor_id)
    await runner.take_request()
    hub = await get_hub()
    get_bus().unsubscribe(actor_channel(actor_id), hub.watches._handlers[actor_id])  # as if its messages were lost
    runner.answer = tell
    await run_db(sleep_actor, actor=await actor_row(actor_id))
    answer = await waiting
    assert (answer.status_code, answer.json()["generation"]) == (200, 1)
