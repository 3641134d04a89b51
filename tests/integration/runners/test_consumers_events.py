"""What a runner says of its actors: each event is dealt with once, whatever is lost (PROTOCOL §4.5)."""

import asyncio
import time

import pytest
import redis

from actors.models import Actor
from actors.services import sleep_actor
from orchestrator.db import run_db
from orchestrator.models import SetAsideSignal
from orchestrator.redis import get_redis
from orchestrator.workflow.mailbox import postman
from runners.models import Command
from runners.protocol.messages import (
    ActorCheckpoint,
    EventActorSetAlarm,
    EventWrapper,
    ToClientAckEvents,
    ToClientPing,
    ToServerEvents,
)
from tests.support.live import actor_row, has_status, running_actor
from tests.support.management import signals
from tests.support.scripted_runner import CRASHED, RUNNING, SLEEP, STOPPED
from tests.support.web import eventually

pytestmark = pytest.mark.django_db(transaction=True)

ALARMS = [EventActorSetAlarm(4_000_000_000_000 + number) for number in range(5)]


async def test_an_event_that_redis_loses_is_dealt_with_within_a_ping_interval(worker, host, namespace, env):
    env(runner_ping_interval_ms=300)
    runner = await host()
    actor_id = await running_actor(namespace)
    worker.pause()
    await runner.say(actor_id, SLEEP)
    await eventually(lambda: signals("actors", actor_id))
    get_redis().flushall()
    worker.go()
    began = time.monotonic()
    await has_status(actor_id, "asleep")
    assert time.monotonic() - began < 2  # a ping interval, its jitter, a third of it, and a busy machine
    assert runner.stopped == [(actor_id, 0)]


async def test_an_event_that_redis_loses_is_not_overtaken_by_the_next(worker, host, namespace, env):
    """Overtaken, it would be taken for a repetition when it is said again."""
    env(runner_ping_interval_ms=300)
    runner = await host()
    actor_id = await running_actor(namespace)
    worker.pause()
    await runner.say(actor_id, ALARMS[0])
    await eventually(lambda: signals("actors", actor_id))
    get_redis().flushall()
    worker.go()
    await runner.say(actor_id, SLEEP)
    row = await has_status(actor_id, "asleep")
    assert row.alarm_at is not None
    assert row.alarm_at.timestamp() * 1000 == pytest.approx(ALARMS[0].alarm_ts_ms)
    assert runner.stopped == [(actor_id, 0)]


async def test_an_event_that_the_cut_connection_has_lost_is_not_overtaken_by_one_said_before_the_init(
    worker, host, namespace
):
    """npm clients say what is new as soon as they are connected, and what is old when the init has come."""
    runner = await host()
    actor_id = await running_actor(namespace)
    await runner.drop()
    runner.event(actor_id, ALARMS[0])
    runner.first_words = (ToServerEvents((runner.event(actor_id, SLEEP),)),)
    await runner.connect()
    row = await has_status(actor_id, "asleep")
    assert row.alarm_at is not None


async def test_an_event_that_could_not_be_posted_is_not_overtaken_by_the_next(worker, host, namespace, env):
    env(runner_ping_interval_ms=300)
    runner = await host()
    actor_id = await running_actor(namespace)
    get_redis().config_set("maxmemory", 1)
    try:
        await runner.say(actor_id, ALARMS[0])
        await (await runner.socket.ping())
        with pytest.raises(redis.ResponseError):
            await asyncio.wrap_future(postman.post("actors", actor_id, {"t": "tick"}))  # in its turn, after it
    finally:
        get_redis().config_set("maxmemory", 0)
    await runner.say(actor_id, SLEEP)
    await has_status(actor_id, "asleep")
    assert (await actor_row(actor_id)).alarm_at is not None


async def test_events_are_acknowledged_after_they_are_committed_and_never_the_last_of_a_living_actor(
    worker, host, namespace
):
    runner = await host()
    actor_id = await running_actor(namespace)
    worker.pause()
    await runner.say(actor_id, *ALARMS)
    await eventually(lambda: len(signals("actors", actor_id)) == len(ALARMS))
    assert not [message for message in runner.received if isinstance(message, ToClientAckEvents)]
    worker.go()
    newest = -1
    while newest < len(ALARMS) - 1:  # the events have the indexes 0 (running) to 5
        [ack] = (await runner.take(ToClientAckEvents)).last_event_checkpoints
        assert (ack.actor_id, ack.generation) == (actor_id, 0)
        assert newest < ack.index < len(ALARMS)
        assert (await actor_row(actor_id)).event_index > ack.index
        newest = ack.index


async def test_the_events_of_a_life_that_is_over_are_acknowledged_to_the_last(worker, host, namespace):
    runner = await host()
    actor_id = await running_actor(namespace)
    await runner.say(actor_id, STOPPED)
    ack = await runner.take(ToClientAckEvents)
    assert ack.last_event_checkpoints == (ActorCheckpoint(actor_id, 0, 1),)
    assert (await actor_row(actor_id)).status == "destroyed"


async def test_events_come_in_any_grouping_and_are_applied_in_order(worker, host, namespace):
    runner = await host()
    actors = [await running_actor(namespace) for _ in range(3)]
    batch = [runner.event(actor_id, event) for event in (*ALARMS, SLEEP) for actor_id in actors]
    await runner.send(ToServerEvents(tuple(batch)))
    for actor_id in actors:
        row = await has_status(actor_id, "asleep")
        assert row.alarm_at.timestamp() * 1000 == pytest.approx(ALARMS[-1].alarm_ts_ms)


async def test_a_repeated_event_acts_once(worker, host, namespace):
    runner = await host()
    actor_id = await running_actor(namespace)
    running = EventWrapper(ActorCheckpoint(actor_id, 0, 0), RUNNING)
    crashed = EventWrapper(ActorCheckpoint(actor_id, 0, 1), CRASHED)
    await runner.send(ToServerEvents((running, crashed, running)), ToServerEvents((crashed, running)))
    row = await has_status(actor_id, "asleep")
    await runner.send(ToServerEvents((crashed,)))
    await runner.take(ToClientAckEvents)
    assert (await actor_row(actor_id)).version == row.version


@pytest.mark.parametrize("actor_id", ["act1", "", "ä", "0" * 30, "x" * 10_000, "\0"])
async def test_events_of_unknown_actors_are_ignored_and_the_socket_stays(worker, host, namespace, env, actor_id):
    env(runner_ping_interval_ms=100)
    runner = await host()
    await runner.send(ToServerEvents((EventWrapper(ActorCheckpoint(actor_id, 0, 0), RUNNING),)))
    assert await running_actor(namespace)
    await runner.take(ToClientPing)
    assert not await run_db(SetAsideSignal.objects.exists)


@pytest.mark.parametrize(("generation", "index"), [(0, -(2**63)), (0, -1), (1, 2**63 - 1), (2**32 - 1, 0)])
async def test_numbers_at_their_limits_harm_nobody(worker, host, namespace, generation, index):
    runner = await host()
    actor_id = await running_actor(namespace)
    odd = EventWrapper(ActorCheckpoint(actor_id, generation, index), CRASHED)
    await runner.send(ToServerEvents((odd,)))
    await runner.say(actor_id, ALARMS[0])
    await eventually(lambda: run_db(Actor.objects.filter(pk=actor_id, alarm_at__isnull=False).exists))
    assert (await actor_row(actor_id)).status == "running"
    assert not await run_db(SetAsideSignal.objects.exists)


async def test_events_of_another_runner_are_ignored(worker, host, namespace):
    owner = await host(key="owner")
    actor_id = await running_actor(namespace)
    thief = await host(key="thief")
    stolen = [EventWrapper(ActorCheckpoint(actor_id, 0, index), CRASHED) for index in (1, 2)]
    await thief.send(ToServerEvents(tuple(stolen)))
    await thief.take(ToClientAckEvents)  # they are dealt with
    assert (await actor_row(actor_id)).status == "running"
    await owner.say(actor_id, SLEEP)
    await has_status(actor_id, "asleep")


async def test_a_start_leaves_the_log_with_the_first_word_of_its_actor_and_a_stop_with_the_last(
    worker, host, namespace
):
    runner = await host()
    actor_id = await running_actor(namespace)
    assert not await run_db(Command.objects.exists)
    runner.obeys = False
    await run_db(sleep_actor, actor=await actor_row(actor_id))
    await has_status(actor_id, "stopping")
    assert await run_db(Command.objects.filter(kind="stop").count) == 1
    await runner.say(actor_id, STOPPED)
    await has_status(actor_id, "asleep")
    assert not await run_db(Command.objects.exists)
