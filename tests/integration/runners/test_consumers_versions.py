"""A whole life over the wire in each version of the protocol, and what the API shows of the runner meanwhile."""

import httpx
import pytest
from django.utils import timezone

from actors.services import destroy_actor
from orchestrator.db import run_db
from runners.models import Command
from runners.protocol.codec import VERSIONS
from runners.protocol.messages import (
    CommandStopActor,
    EventActorSetAlarm,
    ToClientAckEvents,
    ToServerAckCommands,
    ToServerStopping,
)
from tests.support.live import actor_row, has_state, has_status, running_actor
from tests.support.scripted_runner import SLEEP
from tests.support.web import eventually

pytestmark = pytest.mark.django_db(transaction=True)


def in_ms(delay_ms):
    return int(timezone.now().timestamp() * 1000) + delay_ms


@pytest.mark.parametrize("version", VERSIONS)
async def test_an_actor_runs_sets_its_alarm_sleeps_wakes_survives_a_reconnect_and_ends(
    worker, host, namespace, version
):
    runner = await host(version=version)
    actor_id = await running_actor(namespace)
    await runner.say(actor_id, EventActorSetAlarm(in_ms(60_000)), EventActorSetAlarm(None))
    due = in_ms(700)
    await runner.say(actor_id, EventActorSetAlarm(due), SLEEP)
    ack = await runner.take(ToClientAckEvents)
    assert {one.actor_id for one in ack.last_event_checkpoints} == {actor_id}

    row = await has_status(actor_id, "running", generation=1)
    assert row.connectable_at.timestamp() * 1000 >= due
    assert runner.started == [(actor_id, 0), (actor_id, 1)]

    commands = [command.checkpoint for command in runner.commands()]
    await runner.send(ToServerAckCommands(tuple(commands)))
    await runner.close()
    await runner.connect()
    await runner.say(actor_id, SLEEP)
    await has_status(actor_id, "asleep")
    assert runner.started == [(actor_id, 0), (actor_id, 1)]

    await run_db(destroy_actor, actor=await actor_row(actor_id))
    await runner.send(ToServerStopping())
    assert await runner.has_closed() == (1000, "ws.eviction")
    await has_state(runner.runner_id, "stopped")
    assert not await run_db(Command.objects.exists)


@pytest.mark.parametrize("version", VERSIONS)
async def test_an_actor_destroyed_while_its_runner_is_away_is_stopped_when_it_is_back(
    worker, host, namespace, version
):
    runner = await host(version=version)
    actor_id = await running_actor(namespace)
    await runner.drop()
    await run_db(destroy_actor, actor=await actor_row(actor_id))
    await runner.connect()
    await eventually(lambda: runner.stopped == [(actor_id, 0)])
    assert [type(command.inner) for command in runner.commands()][1:] == [CommandStopActor]
    await eventually(lambda: run_db(lambda: not Command.objects.exists()))


async def test_the_api_shows_the_metadata_and_the_actor_names_of_the_last_init(host, engine_url):
    runner = await host(metadata='{"client": "a"}', names={"chat": '{"icon": "x"}', "room": "no json"})
    await runner.close()
    await host(metadata='{"client": "b"}', names={"chat": '{"icon": "y"}'})
    async with httpx.AsyncClient(base_url=engine_url, trust_env=False) as client:
        [shown] = (await client.get("/runners", params={"namespace": "default"})).json()["runners"]
        names = (await client.get("/actors/names", params={"namespace": "default"})).json()["names"]
    assert (shown["runner_id"], shown["metadata"]) == (runner.runner_id, {"client": "b"})
    assert names == {"chat": {"metadata": {"icon": "y"}}, "room": {"metadata": {}}}
