"""The command log over a runner's socket: every entry once, in order, whatever is lost (PROTOCOL §4.3, §4.4)."""

import asyncio
import random
import threading

import pytest
import redis
from django.conf import settings
from django.db import transaction
from django.utils import timezone

from actors.services import sleep_actor
from orchestrator.db import run_db
from orchestrator.ids import new_id
from orchestrator.redis import get_redis
from runners.channel import LogEntry, TunnelFrame, encode, runner_channel
from runners.models import Command
from runners.protocol.codec import encode_to_client
from runners.protocol.messages import (
    ActorCheckpoint,
    ActorConfig,
    CommandStartActor,
    CommandStopActor,
    MessageId,
    ToClientCommands,
    ToClientInit,
    ToClientPing,
    ToClientRequestAbort,
    ToClientTunnelMessage,
    ToServerAckCommands,
    ToServerPong,
)
from runners.slots import LockedRunners
from tests.support.live import actor_row, has_status, running_actor, wake
from tests.support.management import signals
from tests.support.web import eventually

pytestmark = pytest.mark.django_db(transaction=True)


def commit(runner_id, *orders):
    """Append commands (actor id, generation, "start" or "stop") to a runner's log and tell nobody."""
    with transaction.atomic():
        runners = LockedRunners(timezone.now())
        runners.lock([runner_id], [])
        for actor_id, generation, kind in orders:
            if kind == "start":
                runners.append_start(runner_id, actor_id, generation, ActorConfig("a", None, 0, None))
            else:
                runners.append_stop(runner_id, actor_id, generation)
        runners.save()
    return [LogEntry(command.seq, bytes(command.frame)) for command in runners.commands]


def publish(runner_id, *entries):
    for entry in entries:
        get_redis().publish(runner_channel(runner_id), encode(entry))


def told(runner):
    kinds = {CommandStartActor: "start", CommandStopActor: "stop"}
    return [(c.checkpoint.actor_id, c.checkpoint.generation, kinds[type(c.inner)]) for c in runner.commands()]


async def has_been_told(runner, *orders):
    await eventually(lambda: len(told(runner)) >= len(orders))
    assert told(runner) == list(orders)


A, B, C, D = (new_id() for _ in range(4))


async def test_what_was_committed_while_no_socket_was_there_is_sent_on_connect(host):
    runner = await host(obeys=False)
    await runner.close()
    await run_db(commit, runner.runner_id, (A, 0, "start"), (A, 0, "stop"), (B, 3, "start"))
    await runner.connect()
    await has_been_told(runner, (A, 0, "start"), (A, 0, "stop"), (B, 3, "start"))
    assert [command.checkpoint.index for command in runner.commands()] == [0, 1, 0]


async def test_a_publish_that_is_lost_is_noticed_with_the_next_ping(host, env):
    env(runner_ping_interval_ms=100)
    runner = await host(obeys=False)
    await runner.take(ToClientPing)
    await run_db(commit, runner.runner_id, (A, 0, "start"))
    await runner.take(ToClientCommands)
    await run_db(commit, runner.runner_id, (A, 0, "stop"), (B, 0, "start"))
    await has_been_told(runner, (A, 0, "start"), (A, 0, "stop"), (B, 0, "start"))


async def test_a_gap_on_the_bus_is_filled_from_the_log(host):
    runner = await host(obeys=False)
    entries = await run_db(commit, runner.runner_id, (A, 0, "start"), (B, 0, "start"), (C, 0, "start"))
    publish(runner.runner_id, entries[2])
    await has_been_told(runner, (A, 0, "start"), (B, 0, "start"), (C, 0, "start"))


@pytest.mark.parametrize("seed", range(3))
async def test_bus_and_log_may_race_but_all_arrives_once_and_in_order(host, seed):
    chance = random.Random(seed)
    runner = await host(obeys=False)
    orders = []
    for _ in range(30):
        burst = [(new_id(), 0, "start") for _ in range(chance.randint(1, 4))]
        orders += burst
        entries = await run_db(commit, runner.runner_id, *burst)
        sent = chance.choices(entries, k=chance.randint(0, 6))
        chance.shuffle(sent)
        publish(runner.runner_id, *sent)
        if chance.random() < 0.5:
            await asyncio.sleep(0)
    [last] = await run_db(commit, runner.runner_id, (A, 0, "start"))
    publish(runner.runner_id, last)
    await has_been_told(runner, *orders, (A, 0, "start"))


async def test_a_spent_entry_leaves_no_gap(host):
    runner = await host(obeys=False)
    publish(runner.runner_id, *(await run_db(commit, runner.runner_id, (A, 0, "start"))))
    await has_been_told(runner, (A, 0, "start"))
    _, third = await run_db(commit, runner.runner_id, (B, 0, "start"), (C, 0, "start"))
    await run_db(Command.objects.filter(actor_id=B).delete)
    publish(runner.runner_id, third)
    await has_been_told(runner, (A, 0, "start"), (C, 0, "start"))
    publish(runner.runner_id, *(await run_db(commit, runner.runner_id, (D, 0, "start"))))
    await has_been_told(runner, (A, 0, "start"), (C, 0, "start"), (D, 0, "start"))


async def test_a_command_acknowledgement_takes_starts_off_the_log_and_leaves_stops(host):
    runner = await host(obeys=False)
    await run_db(commit, runner.runner_id, (A, 1, "start"), (A, 1, "stop"), (B, 0, "start"), (A, 2, "start"))
    ack = ToServerAckCommands((ActorCheckpoint(A, 1, 5), ActorCheckpoint("no id", 0, 0)))
    await runner.send(ack)
    await eventually(lambda: run_db(lambda: Command.objects.count() == 3))
    left = await run_db(
        lambda: list(Command.objects.order_by("seq").values_list("actor_id", "generation", "kind"))
    )
    assert left == [(A, 1, "stop"), (B, 0, "start"), (A, 2, "start")]


async def test_version_4_gets_its_own_form_and_runs_actors(worker, host, namespace):
    runner = await host(version=4)
    actor_id = await running_actor(namespace)
    assert told(runner) == [(actor_id, 0, "start")]
    assert runner.commands()[0].inner.config.name == "counter"
    await run_db(sleep_actor, actor=await actor_row(actor_id))
    await has_status(actor_id, "asleep")
    await wake(actor_id)
    await has_status(actor_id, "running", generation=1)
    assert runner.started == [(actor_id, 0), (actor_id, 1)]


async def test_an_acknowledgement_of_version_4_means_the_present_generation(host):
    runner = await host(version=4, obeys=False)
    await run_db(commit, runner.runner_id, (A, 7, "start"))
    await runner.send(ToServerAckCommands((ActorCheckpoint(A, 0, 0),)))
    await eventually(lambda: run_db(lambda: not Command.objects.exists()))


async def test_the_init_comes_first_whatever_the_bus_brings_meanwhile(host):
    runner = await host(obeys=False)
    await runner.close()
    entries = await run_db(commit, runner.runner_id, (A, 0, "start"))
    frames = [encode(entry) for entry in entries] + [encode(TunnelFrame(encode_to_client(TOLD, 7)))]
    over = threading.Event()
    thread = threading.Thread(target=_flood, args=(runner_channel(runner.runner_id), frames, over))
    thread.start()
    try:
        for _ in range(5):
            runner.received.clear()
            await runner.connect()
            await runner.take(ToClientTunnelMessage)
            assert isinstance(runner.received[0], ToClientInit)
            await runner.drop()
            runner._untaken.clear()
    finally:
        over.set()
        thread.join()


TOLD = ToClientTunnelMessage(MessageId(b"gate", b"once", 0), ToClientRequestAbort())


def _flood(channel, payloads, over):
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        while not over.is_set():
            pipeline = client.pipeline(transaction=False)
            for payload in payloads * 50:
                pipeline.publish(channel, payload)
            pipeline.execute()


# A runner that comes back


async def test_a_reconnect_never_restarts_an_actor_that_has_spoken(worker, host, namespace):
    runner = await host()
    actor_id = await running_actor(namespace)
    worker.pause()
    await runner.drop()
    # Committed, but its runner's socket went before it could be told: one start, and one that it had, again.
    await run_db(Command.objects.all().delete)
    await run_db(commit, runner.runner_id, (actor_id, 0, "start"), (A, 0, "start"), (B, 0, "stop"))
    await runner.connect()
    await eventually(lambda: len(told(runner)) == 3)
    assert told(runner) == [(actor_id, 0, "start"), (A, 0, "start"), (B, 0, "stop")]
    assert runner.started == [(actor_id, 0), (A, 0)]
    worker.go()
    await wake(actor_id)
    assert (await has_status(actor_id, "running")).generation == 0


async def test_a_stop_asked_for_while_the_runner_was_away_is_delivered(worker, host, namespace):
    runner = await host()
    actor_id = await running_actor(namespace)
    await runner.drop()
    await run_db(sleep_actor, actor=await actor_row(actor_id))
    await has_status(actor_id, "stopping")
    await runner.connect()
    await has_status(actor_id, "asleep")
    assert runner.started == runner.stopped == [(actor_id, 0)]


async def test_nothing_is_sent_to_a_returning_runner_before_it_has_spoken(host, env):
    env(runner_ping_interval_ms=100)
    runner = await host(obeys=False)
    await runner.close()
    runner.pongs = False
    await run_db(commit, runner.runner_id, (A, 0, "start"))
    await runner.connect()
    ping = await runner.take(ToClientPing)
    publish(runner.runner_id, *(await run_db(commit, runner.runner_id, (B, 0, "start"))))
    for _ in range(3):
        await runner.take(ToClientPing)
    assert told(runner) == []
    await runner.send(ToServerPong(ping.ts_ms))
    await has_been_told(runner, (A, 0, "start"), (B, 0, "start"))


async def test_an_actor_the_runner_has_forgotten_is_lost_and_one_it_still_has_is_not(worker, host, namespace):
    runner = await host()
    kept, lost = [await running_actor(namespace) for _ in range(2)]
    await runner.drop()
    del runner.lives[lost]
    del runner._history[lost]
    await runner.connect()
    row = await has_status(lost, "asleep")
    assert row.failure["kind"] == "runner_connection_lost"
    assert (await actor_row(kept)).status == "running"
    assert runner.started == [(kept, 0), (lost, 0)]


async def test_a_process_that_comes_back_empty_with_its_key_loses_all_and_can_be_given_them_again(
    worker, host, namespace
):
    runner = await host()
    actors = [await running_actor(namespace) for _ in range(3)]
    await runner.drop()
    runner.forget()
    await runner.connect()
    for actor_id in actors:
        await has_status(actor_id, "asleep")
        await wake(actor_id)
        await has_status(actor_id, "running", generation=1)
    assert runner.lives == dict.fromkeys(actors, 1)


async def test_actors_started_after_a_return_are_not_taken_for_forgotten(worker, host, namespace, env):
    env(runner_ping_interval_ms=100)
    runner = await host()
    await runner.drop()
    await runner.connect()
    actors = [await running_actor(namespace) for _ in range(3)]
    await pings(runner, 4)
    for actor_id in actors:
        assert (await actor_row(actor_id)).status == "running"
    assert runner.started == [(actor_id, 0) for actor_id in actors]


async def test_what_a_returning_runner_has_forgotten_is_found_though_redis_is_emptied(
    worker, host, namespace, env
):
    env(runner_ping_interval_ms=100)
    runner = await host()
    actor_id = await running_actor(namespace)
    await runner.drop()
    runner.forget()
    worker.pause()
    await runner.connect()
    await eventually(lambda: [one for one in signals("actors", actor_id) if one["t"] == "missing"])
    get_redis().flushall()
    worker.go()
    await has_status(actor_id, "asleep")


async def test_an_actor_that_has_lived_twice_on_one_runner_survives_its_return(worker, host, namespace, env):
    """npm clients let an ack of the first life prune the events of the second, by which it is known again."""
    env(runner_ping_interval_ms=100)
    runner = await host()
    actor_id = await running_actor(namespace)
    for generation in range(1, 4):
        await run_db(sleep_actor, actor=await actor_row(actor_id))
        await wake(actor_id)  # as a rule while it stops, so that the next life begins with the end of this
        await has_status(actor_id, "running", generation=generation)
    await pings(runner, 2)  # all acks are out by then
    await runner.drop()
    await runner.connect()
    await pings(runner, 4)  # what is forgotten would be found by then
    assert (await actor_row(actor_id)).status == "running"
    assert runner.started == [(actor_id, generation) for generation in range(4)]


async def pings(runner, count):
    runner._untaken.clear()
    for _ in range(count):
        await runner.take(ToClientPing)
