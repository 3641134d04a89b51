"""Pings, draining, loss and the end of the process, as seen over a runner's socket (PROTOCOL §4.2, §4.9)."""

import asyncio
import json
import threading
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.utils import timezone

from orchestrator import lifespan
from orchestrator.bus import get_bus
from orchestrator.db import run_db
from orchestrator.redis import get_redis
from runners import channel
from runners.models import Runner
from runners.protocol.messages import (
    CommandStartActor,
    CommandStopActor,
    ToClientPing,
    ToServerPong,
    ToServerStopping,
)
from tests.support.live import actor_row, has_state, has_status, runner_row, running_actor
from tests.support.management import signals
from tests.support.scripted_runner import RUNNING, STOPPED
from tests.support.scripted_sockets import client_of, take_opened
from tests.support.web import SOON_S, eventually

pytestmark = pytest.mark.django_db(transaction=True)


async def test_every_pong_is_noted_with_the_time_it_took(host, env):
    env(runner_ping_interval_ms=100)
    runner = await host(pongs=False)
    connected_at = (await runner_row(runner.runner_id)).last_ping_at
    ping = await runner.take(ToClientPing)
    assert abs(ping.ts_ms - timezone.now().timestamp() * 1000) < 5_000
    await runner.send(ToServerPong(ping.ts_ms - 1_000))  # as if it had taken a second
    row = await eventually(lambda: run_db(Runner.objects.filter(last_rtt_ms__gte=1_000).first))
    assert row.last_rtt_ms < 5_000
    assert row.last_ping_at > connected_at


@pytest.mark.parametrize("ts_ms", [0, -(2**63), 2**63 - 1])
async def test_a_pong_with_a_time_of_its_own_harms_nobody(host, env, ts_ms):
    env(runner_ping_interval_ms=100)
    runner = await host(pongs=False)
    await runner.send(ToServerPong(ts_ms))
    for _ in range(3):
        await runner.take(ToClientPing)


async def test_a_runner_that_does_not_answer_pings_is_cut_off_and_may_come_back(host, env):
    env(runner_ping_interval_ms=100, runner_ping_timeout_ms=1_000)
    runner = await host(pongs=False)
    assert await runner.has_closed() == (1011, "core.internal_error")
    assert [message for message in runner.received if isinstance(message, ToClientPing)]
    runner_id = runner.runner_id
    runner.pongs = True
    await runner.connect()
    assert runner.runner_id == runner_id


async def test_its_last_sign_of_life_is_its_last_pong_not_our_last_ping(host, env):
    env(runner_ping_interval_ms=100)
    runner = await host(pongs=False)
    connected_at = (await runner_row(runner.runner_id)).connected_at
    for _ in range(4):
        await runner.take(ToClientPing)
    assert (await runner_row(runner.runner_id)).last_ping_at - connected_at < timedelta(milliseconds=100)


async def test_pings_go_on_while_the_database_is_locked(host, env):
    env(runner_ping_interval_ms=50)
    runner = await host(pongs=False)
    await runner.take(ToClientPing)
    async with locked_row(runner.runner_id):
        for _ in range(5):
            await runner.take(ToClientPing)
    heard_at = timezone.now()
    await runner.send(ToServerPong((await runner.take(ToClientPing)).ts_ms))
    await eventually(lambda: run_db(Runner.objects.filter(last_ping_at__gt=heard_at).exists))


@asynccontextmanager
async def locked_row(runner_id):
    """Keep others from writing a runner's row; on SQLite, anything at all."""
    locked, done = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def lock():
        try:
            with transaction.atomic():
                Runner.objects.select_for_update().get(pk=runner_id)
                loop.call_soon_threadsafe(locked.set)
                done.wait(60)  # longer than anybody waits for a ping
        finally:
            connection.close()

    locking = asyncio.create_task(asyncio.to_thread(lock))
    await locked.wait()
    try:
        yield
    finally:
        done.set()
        await locking


# Draining


async def test_an_idle_runner_that_wants_to_go_is_evicted_at_once(worker, host):
    runner = await host()
    await runner.send(ToServerStopping())
    assert await runner.has_closed() == (1000, "ws.eviction")
    assert (await has_state(runner.runner_id, "stopped")).stop_reason == "drained"


async def test_a_runner_that_wants_to_go_is_told_to_stop_its_actors_and_then_evicted(worker, host, namespace):
    runner = await host()
    runner.obeys = False
    actor_id = await start_by_hand(runner, namespace)
    await runner.send(ToServerStopping())
    stop = await runner.take_command()
    assert isinstance(stop.inner, CommandStopActor)
    assert stop.checkpoint.actor_id == actor_id
    assert (await actor_row(actor_id)).stop_reason == "drain"
    assert (await runner_row(runner.runner_id)).state == "draining"
    assert runner.socket.close_code is None
    await runner.say(actor_id, STOPPED)
    assert await runner.has_closed() == (1000, "ws.eviction")
    row = await has_status(actor_id, "asleep")
    assert row.failure is None


async def test_actors_that_outstay_the_grace_are_lost_after_the_closing_handshake(worker, host, namespace, env):
    env(normal_drain_grace_ms=200)
    runner = await host()
    runner.obeys = False
    actor_id = await start_by_hand(runner, namespace)
    await runner.send(ToServerStopping())
    assert await runner.has_closed() == (1000, "ws.eviction")
    row = await has_status(actor_id, "asleep")
    assert row.failure["kind"] == "runner_draining_timeout"


async def test_nobody_is_declared_lost_before_the_close_is_answered(worker, host, namespace, env):
    """A client that is slow to answer keeps its actors until then, for a while (DESIGN §11)."""
    env(normal_drain_grace_ms=0, evict_handshake_ms=60_000)
    runner = await host()
    runner.obeys = False
    actor_id = await start_by_hand(runner, namespace)
    runner.socket.transport.pause_reading()
    await runner.send(ToServerStopping())
    await has_state(runner.runner_id, "evicting")
    tasks = worker.tasks
    await eventually(lambda: worker.sweeps > 3)
    assert (await actor_row(actor_id)).status == "stopping", f"after {worker.tasks - tasks} tasks"
    runner.socket.transport.resume_reading()
    await has_status(actor_id, "asleep")


async def test_a_wish_to_go_that_redis_loses_is_repeated(worker, host, env):
    env(runner_ping_interval_ms=100)
    runner = await host()
    worker.pause()
    await runner.send(ToServerStopping())
    await eventually(lambda: "drain" in [signal["t"] for signal in signals("runners", runner.runner_id)])
    get_redis().flushall()
    worker.go()
    assert await runner.has_closed() == (1000, "ws.eviction")


async def test_nothing_new_is_given_to_a_runner_that_drains(worker, host, namespace):
    first = await host(key="first")
    first.obeys = False
    await start_by_hand(first, namespace)
    await first.send(ToServerStopping())
    await has_state(first.runner_id, "draining")
    second = await host(key="second")
    await running_actor(namespace)
    assert len(second.started) == 1


# Loss


async def test_the_actors_of_a_runner_that_does_not_come_back_follow_their_crash_policy(
    worker, host, namespace, env
):
    env(runner_lost_ms=600, runner_eligible_ms=600, runner_ping_interval_ms=100)
    runner = await host()
    actors = {
        policy: await running_actor(namespace, crash_policy=policy) for policy in ("sleep", "destroy", "restart")
    }
    await runner.drop()
    assert (await has_state(runner.runner_id, "stopped")).stop_reason == "connection_lost"
    assert (await has_status(actors["sleep"], "asleep")).failure["kind"] == "runner_connection_lost"
    await has_status(actors["destroy"], "destroyed")
    await has_status(actors["restart"], "pending")
    again = await host()
    assert again.runner_id != runner.runner_id
    await has_status(actors["restart"], "running", generation=1)


async def test_a_runner_that_comes_back_in_time_loses_nothing(worker, host, namespace, env):
    env(runner_lost_ms=5_000)
    runner = await host()
    actor_id = await running_actor(namespace)
    for _ in range(3):
        await runner.drop()
        await runner.connect()
    assert (await actor_row(actor_id)).status == "running"
    assert runner.started == [(actor_id, 0)]


# The end of the process


async def test_a_process_that_ends_sends_its_runners_away_but_not_for_good(host):
    runners = [await host(key=f"k{number}") for number in range(3)]
    ids = [runner.runner_id for runner in runners]
    await lifespan.run_shutdown()
    assert [await runner.has_closed() for runner in runners] == [(1011, "ws.going_away")] * 3
    for runner in runners:
        await runner.connect()
    assert [runner.runner_id for runner in runners] == ids


async def test_a_runner_that_reads_nothing_holds_nobody_up(host, env):
    env(evict_handshake_ms=200)
    deaf, other = await host(key="deaf"), await host(key="other")
    deaf.socket.transport.pause_reading()
    async with asyncio.timeout(5):
        await lifespan.run_shutdown()
        assert await other.has_closed() == (1011, "ws.going_away")
    deaf.socket.transport.resume_reading()


async def test_a_runner_that_hangs_up_meanwhile_is_not_waited_for(host, engine_url, worker, namespace):
    runner = await host(pongs=False)
    async with client_of(engine_url, await running_actor(namespace)) as client:
        await take_opened(runner, client)  # nothing of it is confirmed
        ending = asyncio.create_task(lifespan.run_shutdown())
        await runner.take(ToClientPing)
        await runner.drop()
        async with asyncio.timeout(0.8):
            await ending


async def start_by_hand(runner, namespace):
    """Start an actor on a runner that does only what it is told here."""
    starting = asyncio.create_task(running_actor(namespace))
    command = await runner.take_command()
    assert isinstance(command.inner, CommandStartActor)
    actor_id = command.checkpoint.actor_id
    runner.lives[actor_id] = command.checkpoint.generation
    await runner.say(actor_id, RUNNING)
    return await starting


async def test_gateways_are_told_when_a_runner_is_back_and_whether_its_last_socket_gave_an_account(
    worker, host, namespace
):
    runner = await host()
    actor_id = await running_actor(namespace, pool_name="pool")
    told = asyncio.Queue()
    await get_bus().subscribe(channel.actor_channel(actor_id), told.put_nowait)
    away = Runner.objects.filter(pk=runner.runner_id, socket_id="")
    for untold in (False, True):
        await runner.drop()
        await eventually(lambda: run_db(away.exists))
        if untold:
            await run_db(away.update, socket_id="of a process that was killed")
        await runner.connect()
        async with asyncio.timeout(SOON_S):
            news = json.loads(await told.get())
        assert (news["m"], news["runner"], news["untold"]) == ("returned", runner.runner_id, untold)
        assert 0 < news["seconds"] < SOON_S
    assert told.empty()
