"""Runners that break the protocol, flood it or do not read: each harms itself alone (DESIGN §11)."""

import asyncio
import logging
import time

import pytest
from django.conf import settings

from orchestrator.db import run_db
from orchestrator.ids import new_id
from orchestrator.redis import get_redis
from orchestrator.workflow import mailbox
from runners import connection, conversation, heartbeat, send_queue
from runners.models import Runner
from runners.protocol.codec import MAX_FRAME_BYTES, encode_to_client, encode_to_server
from runners.protocol.messages import (
    ActorCheckpoint,
    ActorConfig,
    CommandStartActor,
    CommandWrapper,
    EventActorSetAlarm,
    EventWrapper,
    KvGetRequest,
    ToClientAckEvents,
    ToClientCommands,
    ToClientInit,
    ToClientPing,
    ToServerAckCommands,
    ToServerEvents,
    ToServerInit,
    ToServerKvRequest,
    ToServerPong,
    ToServerStopping,
)
from tests.support.live import has_state, runner_row, running_actor
from tests.support.management import signals
from tests.support.relay import Relay
from tests.support.scripted_runner import (
    CRASHED,
    RUNNING,
    SLEEP,
    STOP,
    STOPPED,
    ScriptedRunner,
    dial,
    socket_url,
    without_ray,
)
from tests.support.web import eventually

pytestmark = pytest.mark.django_db(transaction=True)


HUGE_START = CommandWrapper(
    ActorCheckpoint("a", 0, 0), CommandStartActor(ActorConfig("a", None, 0, bytes(10_000)), ())
)
EVERY_EVENT = (RUNNING, SLEEP, STOP, EventActorSetAlarm(1), EventActorSetAlarm(None), CRASHED, STOPPED)


def strangers(count):
    """Events of actors that nobody has, with ids that look right."""
    return tuple(EventWrapper(ActorCheckpoint(new_id(), 0, 0), RUNNING) for _ in range(count))


@pytest.fixture
def conversations(monkeypatch):
    """The engine's ends of all conversations, as they begin."""
    begun = []
    hold = conversation.Conversation.hold

    async def noted(self):
        begun.append(self)
        return await hold(self)

    monkeypatch.setattr(conversation.Conversation, "hold", noted)
    return begun


def waiting():
    """Return the ids of the actors with something in their mailbox."""
    shards = range(settings.ENV.shards)
    found = [get_redis().xrange(mailbox.stream_name("actors", shard)) for shard in shards]
    return {values[b"k"] for entries in found for _, values in entries}


async def still_speaks(runner):
    """See two more pings come; they are answered."""
    for _ in range(2):
        await runner.take(ToClientPing)


# Where it connects, and how it introduces itself


@pytest.mark.parametrize("hosts", ["elsewhere.test", "elsewhere.test, 127.0.0.1:1"])
async def test_with_valid_hosts_a_runner_of_another_host_is_refused(engine_url, env, hosts):
    env(valid_hosts=hosts)
    async with dial(socket_url(engine_url)) as socket:
        await asyncio.wait_for(socket.wait_closed(), 10)
        assert (socket.close_code, without_ray(socket.close_reason)) == (1011, "guard.must_use_regional_host")


async def test_with_valid_hosts_a_runner_of_one_of_them_is_welcome(host, env):
    env(valid_hosts="elsewhere.test, 127.0.0.1")
    assert (await host()).runner_id


@pytest.mark.parametrize(
    "init",
    [
        ToServerInit("p" * 2_000, 1, 1, None, None),
        ToServerInit("", 1, 1, None, None),
        ToServerInit("pool", 1, 1, {str(number): "{}" for number in range(1_001)}, None),
        ToServerInit("pool", 1, 1, None, "x" * 2**20),
    ],
    ids=["long name", "no name", "many actor names", "long metadata"],
)
async def test_an_init_the_database_should_not_keep_is_refused(engine_url, init):
    async with dial(socket_url(engine_url)) as socket:
        await socket.send(encode_to_server(init, 7))
        await asyncio.wait_for(socket.wait_closed(), 10)
        assert (socket.close_code, without_ray(socket.close_reason)) == (1011, "ws.invalid_packet")


async def test_the_longest_names_and_numbers_an_init_may_have_are_kept(host):
    long = "".join(chr(0x4E00 + number) for number in range(341))  # 1023 bytes that do not compress
    runner = await host(pool=long, key=long[::-1], slots=2**32 - 1, release=2**32 - 1, names={long: "{}"})
    assert (await host(pool=long, key=long[::-1])).runner_id == runner.runner_id


async def test_why_a_socket_was_closed_is_in_the_log(engine_url, caplog):
    caplog.set_level(logging.INFO, "runners.consumers")
    async with dial(socket_url(engine_url, namespace="nobody")) as socket:
        await asyncio.wait_for(socket.wait_closed(), 10)
    [told] = [record for record in caplog.records if record.__dict__.get("action") == "runner_socket_closed"]
    assert told.__dict__["code"] == "namespace.not_found"


# Floods


async def test_frames_that_mean_nothing_are_counted_and_fill_no_log(host, env, caplog):
    env(runner_ping_interval_ms=200)
    runner = await host()
    for _ in range(500):
        await runner.socket.send(b"\xff")
    await still_speaks(runner)
    await runner.close()
    skipped = [record for record in caplog.records if record.__dict__.get("action") == "frame_skipped"]
    assert 1 < len(skipped) < 20
    assert skipped[-1].__dict__["frames"] == 500


async def test_a_frame_of_more_than_the_longest_is_skipped(host, env):
    env(runner_ping_interval_ms=200)
    runner = await host()
    await runner.socket.send(b"\x01" + bytes(MAX_FRAME_BYTES))
    await still_speaks(runner)


async def test_nothing_is_kept_of_the_events_of_strangers(worker, host, conversations):
    runner = await host()
    await runner.send(ToServerEvents(strangers(2_000)))
    await runner.take(ToClientAckEvents)
    [engine] = conversations
    await eventually(lambda: engine._events._newest == {} and not engine._events._waiting)
    assert not engine._events.seen


async def test_a_flood_of_events_waits_at_the_runners_own_door(
    worker, host, namespace, env, monkeypatch, conversations
):
    env(runner_ping_interval_ms=100)
    monkeypatch.setattr(connection, "MAX_UNDER_WAY", 300)
    monkeypatch.setattr(conversation, "EVENTS_AT_ONCE", 100)
    worker.pause()
    runner, other = await host(), await host(key="other", pool="calm")
    await runner.send(ToServerEvents(strangers(400)), ToServerEvents(strangers(400)))
    await eventually(lambda: len(waiting()) == 300)
    await still_speaks(other)
    flooded = conversations[0]._heartbeat
    flooded._pong_at = long_ago = time.monotonic() - 3_600  # its pongs wait behind its events, which wait for us
    await eventually(lambda: flooded._pong_at > long_ago)
    assert len(waiting()) == 300
    worker.go()
    await eventually(lambda: not waiting())
    assert runner.socket.close_code is None
    assert await running_actor(namespace, pool_name="calm")


async def test_other_runners_are_served_while_a_hundred_thousand_events_are_read(worker, host, env):
    env(runner_ping_interval_ms=100)
    flooder, other = await host(key="flooder"), await host(key="other")
    nobody = ActorCheckpoint("", 0, 0)
    await flooder.send(ToServerEvents((EventWrapper(nobody, RUNNING),) * 100_000))
    await asyncio.gather(still_speaks(other), still_speaks(flooder))


@pytest.mark.parametrize("version", [4, 7])
async def test_command_acks_of_anything_are_looked_at_once_per_ping_and_bounded(
    host, env, conversations, monkeypatch, version
):
    env(runner_ping_interval_ms=200)
    monkeypatch.setattr(heartbeat, "MAX_UNDER_WAY", 100)
    runner = await host(version=version)
    odd = [ActorCheckpoint(actor_id, 0, 2**63 - 1) for actor_id in ("", "\0", "x" * 100_000, "no id")]
    many = [ActorCheckpoint(new_id(), 0, -(2**63)) for _ in range(150)]
    await runner.send(ToServerAckCommands(tuple(odd + many)))
    [engine] = conversations
    await eventually(lambda: len(engine._heartbeat._acknowledged) == 100)
    await eventually(lambda: not engine._heartbeat._acknowledged)
    await still_speaks(runner)


async def test_a_wish_to_go_said_a_thousand_times_is_one_wish(host, env):
    env(runner_ping_interval_ms=60_000)
    runner = await host()  # no worker: what is asked for stays in the mailbox
    for _ in range(1_000):
        await runner.send(ToServerStopping())
    await runner.send(ToServerKvRequest("", 1, KvGetRequest(())))
    await eventually(lambda: len(runner.received) > 1)
    assert [signal["t"] for signal in signals("runners", runner.runner_id)] == ["connected", "drain"]


async def test_a_runner_for_whom_too_much_waits_is_cut_off(host, env, monkeypatch, conversations):
    env(evict_handshake_ms=100)
    monkeypatch.setattr(send_queue, "END_BYTES", 50_000)
    runner = await host()
    [engine] = conversations
    for _ in range(6):
        engine._queue.put(encode_to_client(ToClientCommands((HUGE_START,)), 7))
    assert await runner.has_closed() == (1011, "core.internal_error")
    assert isinstance(engine._ended.result(), connection.NotReading)


# Half-open


async def test_a_runner_behind_a_dead_cable_is_given_up_and_may_come_back_by_another(engine_url, env):
    env(runner_ping_interval_ms=100, runner_ping_timeout_ms=400, evict_handshake_ms=100)
    with Relay(int(engine_url.rpartition(":")[2])) as cable:
        runner = ScriptedRunner(cable.url)
        await runner.connect()
        assert (await runner_row(runner.runner_id)).socket_id
        cable.go_dead()
        await eventually(lambda: run_db(Runner.objects.filter(pk=runner.runner_id, socket_id="").exists))
        again = ScriptedRunner(engine_url)
        await again.connect()
        assert again.runner_id == runner.runner_id
        cable.revive()
        assert await runner.has_closed() == (1011, "core.internal_error")
        await still_speaks(again)
        await runner.end()
        await again.end()


async def test_a_socket_whose_close_is_never_answered_is_let_go_all_the_same(host, env):
    env(runner_ping_interval_ms=100, runner_ping_timeout_ms=300, evict_handshake_ms=100)
    runner = await host(pongs=False)
    runner.socket.transport.pause_reading()  # so that it never answers the close either
    await eventually(lambda: run_db(Runner.objects.filter(pk=runner.runner_id, socket_id="").exists))
    runner.socket.transport.abort()


# What it may say of others


async def test_a_runner_of_another_namespace_touches_no_actor_and_no_log(worker, host, namespace):
    from actors.models import Actor
    from orchestrator.models import Namespace, TimelineEntry

    await run_db(Namespace.objects.create, name="other", display_name="Other")
    await host()
    actor_id = await running_actor(namespace)

    def written():
        return Actor.objects.get(pk=actor_id).version, TimelineEntry.objects.filter(actor_id=actor_id).count()

    before = await run_db(written)
    thief = await host(namespace="other")
    said = tuple(
        EventWrapper(ActorCheckpoint(actor_id, generation, index), event)
        for generation in (0, 1, 2**32 - 1)
        for index, event in enumerate(EVERY_EVENT, start=7)
    )
    ack = ActorCheckpoint(actor_id, 0, 100)
    await thief.send(ToServerEvents(said), ToServerAckCommands((ack,)), ToServerPong(0))
    await thief.take(ToClientAckEvents, lambda message: message.last_event_checkpoints[0].generation == 2**32 - 1)
    assert await run_db(written) == before


async def test_a_runner_that_reconnects_again_and_again_leaves_nothing_behind(worker, host, conversations):
    runner = await host()
    for _ in range(20):
        await runner.close()
        await runner.connect()
    assert len({message.runner_id for message in runner.received if isinstance(message, ToClientInit)}) == 1
    await runner.send(ToServerStopping())
    await has_state(runner.runner_id, "stopped")
    assert all(engine._ended.done() for engine in conversations)
