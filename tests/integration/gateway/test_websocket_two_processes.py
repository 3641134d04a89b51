"""The WebSocket's client at this process, its actor's runner at another: numbers, gaps, silence (DESIGN §4)."""

import asyncio

import pytest

from gateway import lane
from gateway.hub import open_hub
from orchestrator.bus import get_bus
from orchestrator.db import run_db
from orchestrator.redis import get_redis
from orchestrator.workflow import mailbox
from runners import channel
from runners.models import Runner
from runners.protocol.messages import ToClientWebSocketMessage
from tests.support.gateway import NOTHING, next_life_unheard_of
from tests.support.live import has_status, running_actor
from tests.support.scripted_runner import RUNNING, SLEEP, ScriptedRunner, connected
from tests.support.scripted_sockets import client_of, closed, refused, take_accepted
from tests.support.web import eventually

pytestmark = pytest.mark.django_db(transaction=True)

MIB = 1024 * 1024


@pytest.fixture
async def runner(other_web, namespace):
    get_redis().config_set("client-output-buffer-limit", "pubsub 256mb 0 0")  # as the embedded store has it
    async with connected(other_web) as running:
        yield running


@pytest.fixture
async def actor_id(worker, runner, namespace, engine_url):
    return await running_actor(namespace)


@pytest.fixture
async def both(runner, actor_id, engine_url):
    """A client and its actor's end of one open WebSocket, which may not hibernate."""
    async with client_of(engine_url, actor_id) as client:
        yield client, await opened(client, runner)


@pytest.fixture
async def sleeper(runner, actor_id, engine_url):
    """The same, but it may hibernate."""
    async with client_of(engine_url, actor_id) as client:
        yield client, await opened(client, runner, can_hibernate=True)


async def opened(client, runner, **options):
    socket = await take_accepted(runner, **options)
    await socket.send("open")
    assert await client.recv() == "open"
    return socket


def the_lane():
    (one,) = open_hub()._lanes.values()
    return one


async def test_messages_pass_both_ways_in_order(both, held):
    client, socket = both
    for number in range(500):
        await client.send(str(number))
    for number in range(500):
        assert (await socket.take_text(), socket.index) == (str(number), number + 1)
        await socket.send(str(number))
    for number in range(500):
        assert await client.recv() == str(number)
    for message in (b"x" * 16 * MIB, ""):
        await client.send(message)
        assert (await socket.take(ToClientWebSocketMessage)).binary == isinstance(message, bytes)
        await socket.send(message)
        assert await client.recv() == message
    await client.close(4000, "enough")
    assert await socket.take_close() == (4000, "enough")
    await eventually(lambda: held() == NOTHING and not open_hub()._lanes)


async def test_many_sockets_share_the_way_and_nothing_is_mixed_up(runner, actor_id, engine_url):
    async def converse(name):
        async with client_of(engine_url, f"{actor_id}/{name}") as client:
            for number in range(20):
                await client.send(f"{name} {number}")
            return [await client.recv() for _ in range(20)]

    async def echo():
        for _ in range(20):
            socket = await take_accepted(runner)
            tasks.append(asyncio.create_task(echo_one(socket)))

    async def echo_one(socket):
        for _ in range(20):
            await socket.send(await socket.take_text())

    tasks = [asyncio.create_task(echo())]
    heard = await asyncio.gather(*(converse(name) for name in range(20)))
    assert heard == [[f"{name} {number}" for number in range(20)] for name in range(20)]
    await asyncio.gather(*tasks)


async def test_the_actor_stops(both, runner, actor_id):
    client, _ = both
    await runner.say(actor_id, SLEEP)
    assert await closed(client) == (1000, "actor.stopped")


async def test_a_link_that_was_lost_and_lost_nothing_ends_nothing(both):
    client, socket = both
    get_redis().client_kill_filter(_type="pubsub")  # both processes' links
    await eventually(lambda: not get_bus().connected)
    await eventually(lambda: get_bus().connected)
    await client.send("still here")
    assert await socket.take_text() == "still here"
    await socket.send("so am I")
    assert await client.recv() == "so am I"


async def lose_one_to_the_runner(client):
    """Have one message of the client vanish on its way, as a lost link may have it."""
    way = the_lane()
    await eventually(lambda: not way._under_way)
    [rider] = way.riders
    way._unseen.append((way._number, [rider.request_id]))
    way._number += 1
    await client.send("after the gap")


async def test_a_message_lost_on_the_way_to_the_runner_ends_the_socket(both):
    client, socket = both
    await lose_one_to_the_runner(client)
    assert await refused(client) == (1011, "guard.websocket_tunnel_lost")
    assert await socket.take_close() == (1011, "ws.downstream_closed")


async def test_one_that_may_hibernate_says_it_again(sleeper):
    client, socket = sleeper
    await lose_one_to_the_runner(client)
    assert (await socket.take_text(), socket.index) == ("after the gap", 1)
    await client.send("and on")
    assert (await socket.take_text(), socket.index) == ("and on", 2)


async def test_what_is_sent_before_the_gateway_knows_of_a_new_life_does_not_come_before_what_that_has_to_hear(
    sleeper, runner, actor_id
):
    client, socket = sleeper
    await client.send("1")
    assert await socket.take_text() == "1"
    async with next_life_unheard_of(runner, actor_id):
        await has_status(actor_id, "starting", generation=1)
        await eventually(lambda: len(runner.commands()) == 3)
        await client.send("2")
        await eventually(lambda: the_lane()._number == 3 and not the_lane()._waiting)
    runner.lives[actor_id] = 1
    runner._indexes[actor_id] = -1
    await runner.say(actor_id, RUNNING)
    assert [(await socket.take_text(), socket.index) for _ in range(2)] == [("1", 1), ("2", 2)]


async def test_what_waits_for_a_life_that_has_ended_is_not_sent(sleeper, runner, actor_id):
    client, _ = sleeper
    await runner.drop()
    await client.send("1")
    await eventually(lambda: the_lane()._waiting)
    way = the_lane()
    await run_db(Runner.objects.filter(pk=runner.runner_id).update, state="stopped")
    await run_db(
        mailbox.post, "actors", actor_id, {"t": "missing", "runner_id": runner.runner_id, "generation": 0}
    )
    await eventually(lambda: not way._waiting)
    assert way._waiting_bytes == 0


@pytest.mark.parametrize("can_hibernate", [True, False], ids=["may hibernate", "may not"])
async def test_a_message_lost_with_the_runners_connection_ends_any_socket(
    runner, actor_id, engine_url, can_hibernate
):
    async with client_of(engine_url, actor_id) as client:
        socket = await opened(client, runner, can_hibernate=can_hibernate)
        await runner.drop()
        socket.lose()
        await runner.connect()
        await socket.send("after the gap")
        assert await refused(client) == (1011, "guard.websocket_tunnel_lost")


@pytest.mark.parametrize("can_hibernate", [True, False], ids=["may hibernate", "may not"])
async def test_a_message_lost_on_the_way_from_the_runner_ends_any_socket(
    runner, actor_id, engine_url, can_hibernate
):
    async with client_of(engine_url, actor_id) as client:
        socket = await opened(client, runner, can_hibernate=can_hibernate)
        way = the_lane()
        way._heard = (way._heard[0], way._heard[1] - 1)
        await socket.send("after the gap")
        assert await refused(client) == (1011, "guard.websocket_tunnel_lost")


async def test_a_last_message_that_was_lost_is_missed_at_the_next_look(both):
    client, _ = both
    way = the_lane()
    way._heard = (way._heard[0], way._heard[1] - 1)
    assert await refused(client) == (1011, "guard.websocket_tunnel_lost")


async def test_a_runner_that_is_not_heard_of_loses_its_sockets_but_not_those_that_may_hibernate(
    runner, actor_id, both, sleeper, monkeypatch
):
    """As if the other process had lost its link, and only it."""
    monkeypatch.setattr(lane, "SILENT_SECONDS", 1.0)
    monkeypatch.setattr(channel, "runner_channel", lambda runner_id: f"nowhere:{runner_id}")
    client, socket = both
    assert await refused(client) == (1011, "guard.websocket_tunnel_ping_timeout")
    monkeypatch.undo()
    other, its_end = sleeper
    await other.send("patience")
    assert await its_end.take_text() == "patience"
    assert await socket.take_close() == (1011, "ws.downstream_closed")


async def test_a_runner_may_come_back_to_another_process(sleeper, engine_url, other_web):
    client, socket = sleeper
    runner = socket.runner
    here, there = ScriptedRunner(engine_url).url, ScriptedRunner(other_web).url
    for number, url in enumerate((here, there, here), 1):
        await runner.drop()
        await client.send(str(number))
        await eventually(lambda: run_db(Runner.objects.filter(socket_id="").exists))  # it was missed there
        runner.url = url
        await runner.connect()
        while (await socket.take_text()) != str(number):  # what was in doubt is said again
            pass
        assert socket.index == number
        await socket.ack(number)
        await socket.send("ok")
        assert await client.recv() == "ok"


async def test_what_a_runner_says_until_it_hears_that_its_process_ends_arrives(
    passing_web, worker, namespace, engine_url, other_web
):
    web, url = passing_web
    async with connected(url) as runner, client_of(engine_url, await running_actor(namespace)) as client:
        socket = await opened(client, runner, can_hibernate=True)
        runner.socket.transport.pause_reading()
        web.ask_to_end()
        await eventually(lambda: "runner socket closed" in web.output())
        for number in range(3):
            await socket.send(str(number))
        runner.socket.transport.resume_reading()
        assert await runner.has_closed() == (1011, "ws.going_away")
        runner.url = ScriptedRunner(other_web).url
        await runner.connect()
        await socket.send("3")
        assert [await client.recv() for _ in range(4)] == ["0", "1", "2", "3"]


async def test_a_process_that_ends_takes_no_message_to_a_runner_along(
    passing_web, worker, namespace, engine_url, other_web
):
    web, url = passing_web
    async with connected(url) as runner, client_of(engine_url, await running_actor(namespace)) as client:
        socket = await opened(client, runner)
        await client.send("1")
        assert await socket.take_text() == "1"
        web.ask_to_end()
        assert await runner.has_closed() == (1011, "ws.going_away")
        await client.send("2")
        runner.url = ScriptedRunner(other_web).url
        await runner.connect()
        assert (await socket.take_text(), socket.index) == ("2", 2)
        await socket.send("3")
        assert await client.recv() == "3"


async def test_what_a_runner_was_just_saying_and_says_again_is_heard_once(runner, actor_id, engine_url):
    """Our SDK counts what was being written when its connection broke as not sent."""
    async with client_of(engine_url, actor_id) as client:
        socket = await opened(client, runner, can_hibernate=True)
        await socket.send("once")
        assert await client.recv() == "once"
        await runner.close()
        await runner.connect()
        socket.say_again()
        await socket.send("once")
        await socket.send("and on")
        assert await client.recv() == "and on"


async def bereave(runner, url):
    """Have the runner leave as if its process had died: this one does not hear of the end of its socket."""
    hub = open_hub()
    name = channel.gateway_channel(hub.gateway_id)
    get_bus().unsubscribe(name, hub._on_bus)
    await runner.drop()
    await eventually(lambda: run_db(Runner.objects.filter(socket_id="").exists))
    await get_bus().subscribe(name, hub._on_bus)
    runner.url = url


@pytest.mark.parametrize("can_hibernate", [False, True])
async def test_a_runner_whose_process_has_died_loses_its_sockets_when_it_comes_to_this_one(
    runner, actor_id, engine_url, can_hibernate
):
    """Those that may hibernate as well: what the actor has said to the dead process it does not say again."""
    async with client_of(engine_url, actor_id) as client:
        await opened(client, runner, can_hibernate=can_hibernate)
        await bereave(runner, ScriptedRunner(engine_url).url)
        await runner.connect()
        assert await refused(client) == (1011, "guard.websocket_tunnel_lost")


async def test_two_gateways_have_a_client_each_of_one_actor(runner, actor_id, engine_url, other_web):
    async with client_of(engine_url, actor_id) as here, client_of(other_web, actor_id) as there:
        await here.send("here")
        await there.send("there")
        for _ in range(2):
            socket = await take_accepted(runner)
            await socket.send(f"you are {await socket.take_text()}")
        assert await here.recv() == "you are here"
        assert await there.recv() == "you are there"


async def test_two_gateways_have_a_sleeping_client_each_of_one_actor(runner, actor_id, engine_url, other_web):
    async with client_of(engine_url, actor_id) as here, client_of(other_web, actor_id) as there:
        ends = []
        for client in (here, there):
            await client.send("hello")
        for _ in range(2):
            socket = await take_accepted(runner, can_hibernate=True)
            name = await socket.take_text()
            await socket.ack(1)
            await socket.send(name)
            ends.append(socket)
        assert await here.recv() == await there.recv() == "hello"
        await runner.say(actor_id, SLEEP)
        await eventually(lambda: runner.stopped == [(actor_id, 0)])
        await there.send("wake")
        await here.send("wake")
        for socket in ends:
            assert (await socket.take_text(), socket.index) == ("wake", 2)
            await socket.send("awake")
        assert await here.recv() == await there.recv() == "awake"
