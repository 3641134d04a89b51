"""WebSockets that stay open while their actor sleeps (PROTOCOL §5.6; DESIGN §11)."""

import asyncio

import pytest

from actors.services import destroy_actor
from gateway.hub import open_hub
from gateway.models import GatewayLease, HibernatingPair
from gateway.socket_tunnel import Phase
from orchestrator import lifespan
from orchestrator.db import run_db
from runners.protocol.messages import (
    CommandStartActor,
    ToClientCommands,
    ToServerStopping,
)
from tests.support.gateway import NOTHING, next_life_unheard_of
from tests.support.live import actor_row, has_status, running_actor, wake
from tests.support.scripted_runner import CRASHED, RUNNING, SLEEP, STOPPED
from tests.support.scripted_sockets import client_of, closed, refused, take_accepted, take_opened
from tests.support.web import eventually

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
async def runner(worker, host):
    return await host()


@pytest.fixture
async def actor_id(runner, namespace):
    return await running_actor(namespace)


@pytest.fixture
async def client(runner, actor_id, engine_url):
    async with client_of(engine_url, actor_id) as connected:
        yield connected


@pytest.fixture
async def socket(runner, client):
    """The actor's end of the client's socket, which may hibernate and is open."""
    return await take_opened(runner, client, can_hibernate=True)


async def put_to_sleep(runner, actor_id):
    """Have the actor sleep, and the gateway know it."""
    await runner.say(actor_id, SLEEP)
    await has_status(actor_id, "asleep")
    await eventually(
        lambda: all(socket._tunnel.phase is not Phase.OPEN for socket in open_hub()._sockets.values())
    )


async def take_start(runner, generation):
    """Wait for the StartActor of a generation and return the pairs it lists."""

    def wanted(message):
        return any(
            isinstance(one.inner, CommandStartActor) and one.checkpoint.generation == generation
            for one in message.commands
        )

    message = await runner.take(ToClientCommands, wanted)
    return message.commands[0].inner.hibernating_requests


def count_pairs():
    return run_db(HibernatingPair.objects.count)


async def test_a_message_wakes_the_actor_and_is_delivered_after(runner, actor_id, client, socket):
    await client.send("first")
    assert await socket.take_text() == "first"
    await socket.ack(1)
    await put_to_sleep(runner, actor_id)
    await client.send("wake up")
    assert await take_start(runner, 1) == (socket.pair,)
    assert (await socket.take_text(), socket.index) == ("wake up", 2)
    await socket.send("good morning")
    assert await client.recv() == "good morning"
    await client.close(4000, "done")
    assert await socket.take_close() == (4000, "done")
    await eventually(_gone)


async def _gone():
    return await count_pairs() == 0


async def test_what_was_not_acknowledged_is_said_again_with_its_number(runner, actor_id, client, socket):
    for number in range(1, 6):
        await client.send(str(number))
        assert (await socket.take_text(), socket.index) == (str(number), number)
    await socket.ack(3)
    await runner.say(actor_id, SLEEP)  # but there is something to tell it, so it is woken at once
    await has_status(actor_id, "running", generation=1)
    for number in (4, 5):
        assert (await socket.take_text(), socket.index) == (str(number), number)
    await client.send("6")
    assert (await socket.take_text(), socket.index) == ("6", 6)


async def test_an_actor_woken_by_others_takes_its_sockets_up(runner, actor_id, client, socket):
    await put_to_sleep(runner, actor_id)
    await wake(actor_id)
    assert await take_start(runner, 1) == (socket.pair,)
    await has_status(actor_id, "running")
    await socket.send("hello again")
    assert await client.recv() == "hello again"
    await client.send("hello")
    assert (await socket.take_text(), socket.index) == ("hello", 1)


async def test_nothing_wakes_an_actor_whose_sockets_are_silent(runner, actor_id, client, socket):
    await put_to_sleep(runner, actor_id)
    hub = open_hub()
    for inbox in hub._sockets.values():
        inbox.check(10**9)
    await asyncio.sleep(0.2)
    assert (await actor_row(actor_id)).status == "asleep"
    assert client.state.name == "OPEN"


async def test_sockets_survive_a_crash(runner, actor_id, client, socket):
    await runner.say(actor_id, CRASHED)
    await talk(client, socket, runner, generation=1)


async def test_sockets_survive_a_stop_during_which_somebody_calls(runner, actor_id, client, socket):
    runner.obeys = False
    await runner.say(actor_id, SLEEP)
    await has_status(actor_id, "stopping")
    await wake(actor_id)
    await runner.say(actor_id, STOPPED)
    await begin_life(runner, actor_id, 1)
    await client.send("are you there")
    assert await socket.take_text() == "are you there"


async def test_sockets_survive_the_loss_of_their_runner(worker, host, engine_url, namespace, env):
    env(runner_lost_ms=600, runner_eligible_ms=600, runner_ping_interval_ms=100)
    runner = await host()
    actor_id = await running_actor(namespace)
    async with client_of(engine_url, actor_id) as client:
        socket = await take_opened(runner, client, can_hibernate=True)
        await runner.drop()
        other = await host(key="other")
        await talk(client, socket.on(other), other, generation=1)


async def test_sockets_survive_that_their_actor_moves_to_another_runner(runner, actor_id, client, socket, host):
    other = await host(key="other")
    await runner.send(ToServerStopping())
    await talk(client, socket.on(other), other, generation=1)


async def test_a_runner_that_lost_its_connection_is_told_again_what_it_may_have_missed(
    runner, actor_id, client, socket
):
    await client.send("1")
    assert await socket.take_text() == "1"
    await runner.drop()
    await client.send("2")
    await runner.connect()
    assert [await socket.take_text(), await socket.take_text()] == ["1", "2"]
    assert socket.index == 2


async def test_a_message_lost_with_the_runners_connection_ends_the_socket(runner, actor_id, client, socket):
    """Nobody says it again, and nobody would notice."""
    await runner.drop()
    await runner.connect()
    await socket.send("all is well")
    assert await client.recv() == "all is well"
    await runner.drop()
    socket.lose()
    await runner.connect()
    await socket.send("after the gap")
    assert await refused(client) == (1011, "guard.websocket_tunnel_lost")


async def test_what_is_sent_before_the_gateway_knows_of_a_new_life_does_not_come_before_what_that_has_to_hear(
    runner, actor_id, client, socket
):
    """An npm client would close the socket: ws.message_index_skip (PROTOCOL §5.6)."""
    await client.send("1")
    assert await socket.take_text() == "1"
    async with next_life_unheard_of(runner, actor_id):
        await begin_life(runner, actor_id, 1)
        await client.send("2")
        await (await client.ping())
        await (await runner.socket.ping())
    assert [(await socket.take_text(), socket.index) for _ in range(2)] == [("1", 1), ("2", 2)]


async def talk(client, socket, runner, *, generation):
    """Have the actor's next life take the socket up, and both say something."""
    await client.send("are you there")
    assert await take_start(runner, generation) == (socket.pair,)
    assert await socket.take_text() == "are you there"
    await socket.send("yes")
    assert await client.recv() == "yes"


async def begin_life(runner, actor_id, generation):
    """Have a runner that does not obey say that an actor runs."""
    await take_start(runner, generation)
    runner.lives[actor_id] = generation
    runner._indexes[actor_id] = -1
    await runner.say(actor_id, RUNNING)


async def test_a_runner_may_speak_before_the_gateway_knows_that_the_actor_runs(runner, actor_id, client, socket):
    await client.send("1")
    assert await socket.take_text() == "1"
    runner.obeys = False
    await runner.say(actor_id, SLEEP, STOPPED)
    assert await take_start(runner, 1) == (socket.pair,)
    await socket.send("early")
    await socket.ack(1)
    runner.lives[actor_id] = 1
    runner._indexes[actor_id] = -1
    await runner.say(actor_id, RUNNING)
    assert await client.recv() == "early"
    await client.send("2")
    assert (await socket.take_text(), socket.index) == ("2", 2)


async def test_a_runner_may_close_before_the_gateway_knows_that_the_actor_runs(
    runner, actor_id, client, socket, held
):
    await put_to_sleep(runner, actor_id)
    runner.obeys = False
    await wake(actor_id)
    await take_start(runner, 1)
    await socket.close(1000, "ws.meta_not_found_during_restore")
    runner.lives[actor_id] = 1
    runner._indexes[actor_id] = -1
    await runner.say(actor_id, RUNNING)
    assert await closed(client) == (1000, "ws.meta_not_found_during_restore")
    await eventually(lambda: held() == NOTHING)
    await eventually(_gone)


async def test_a_client_that_leaves_while_the_actor_sleeps_is_listed_once_and_told_of(
    runner, actor_id, client, socket, held
):
    await put_to_sleep(runner, actor_id)
    await client.close(4001, "good night")
    assert await take_start(runner, 1) == (socket.pair,)
    assert await socket.take_close() == (4001, "good night")
    assert socket.index == 1
    await eventually(lambda: held() == NOTHING)
    await eventually(_gone)
    await put_to_sleep(runner, actor_id)
    await wake(actor_id)
    assert await take_start(runner, 2) == ()


@pytest.mark.parametrize("hibernates", [False, True], ids=["stops", "hibernates and stops"])
async def test_a_client_that_leaves_as_the_actor_falls_asleep_is_told_of_in_the_next_life(
    runner, actor_id, client, socket, held, hibernates
):
    await client.close(4001, "good night")
    assert await socket.take_close(confirm=False) == (4001, "good night")
    if hibernates:
        await socket.close(hibernate=True)
    await runner.say(actor_id, SLEEP)
    assert await take_start(runner, 1) == (socket.pair,)
    assert await socket.take_close() == (4001, "good night")
    assert socket.index == 1
    await eventually(lambda: held() == NOTHING)
    await eventually(_gone)


async def test_a_client_whose_leave_the_actor_has_confirmed_is_forgotten(runner, actor_id, client, socket, held):
    await client.close(4001, "enough")
    assert await socket.take_close() == (4001, "enough")
    await eventually(lambda: held() == NOTHING)
    await eventually(_gone)
    await put_to_sleep(runner, actor_id)
    await wake(actor_id)
    assert await take_start(runner, 1) == ()


async def test_what_the_client_said_before_it_left_comes_before_its_close(runner, actor_id, client, socket):
    await put_to_sleep(runner, actor_id)
    await client.send("last words")
    await client.close()
    assert await take_start(runner, 1) == (socket.pair,)
    assert await socket.take_text() == "last words"
    assert await socket.take_close() == (1000, None)


async def test_one_that_left_is_not_listed_again_if_that_start_comes_to_nothing(runner, actor_id, client, socket):
    await put_to_sleep(runner, actor_id)
    runner.obeys = False
    await client.close()
    assert await take_start(runner, 1) == (socket.pair,)
    runner.lives[actor_id] = 1
    runner._indexes[actor_id] = -1
    await runner.say(actor_id, CRASHED)
    runner.obeys = True
    await has_status(actor_id, "running", generation=2)
    assert await take_start(runner, 2) == ()


async def test_an_actor_may_let_go_of_a_socket_although_it_runs(runner, actor_id, client, socket):
    await socket.close(hibernate=True)
    await client.send("still there?")
    assert (await socket.take_text(), socket.index) == ("still there?", 1)
    assert (await actor_row(actor_id)).generation == 0


async def test_a_destroyed_actor_closes_its_sleeping_sockets(runner, actor_id, client, socket, held):
    await put_to_sleep(runner, actor_id)
    await run_db(destroy_actor, actor=await actor_row(actor_id))
    assert await closed(client) == (1000, "actor.stopped")
    await eventually(lambda: held() == NOTHING)
    await eventually(_gone)


async def test_a_socket_that_may_not_hibernate_is_not_listed(runner, actor_id, engine_url):
    async with client_of(engine_url, actor_id) as other:
        await take_opened(runner, other)
        await runner.say(actor_id, SLEEP)
        assert await closed(other) == (1000, "actor.stopped")
    assert await count_pairs() == 0


async def test_an_actor_that_cannot_be_woken_ends_the_socket_with_the_reason(
    runner, actor_id, client, socket, env, held
):
    await put_to_sleep(runner, actor_id)
    await runner.close()
    env(gateway_ready_ms=300)
    await client.send("anybody?")
    assert await refused(client) == (1011, "guard.actor_ready_timeout")
    await eventually(lambda: held() == NOTHING)
    await eventually(_gone)


async def test_unacknowledged_for_too_long_the_socket_is_given_up(runner, actor_id, client, socket):
    await client.send("1")
    await socket.take_text()
    for inbox in list(open_hub()._sockets.values()):
        inbox.check(asyncio.get_running_loop().time() + 31)
    assert await refused(client) == (1011, "guard.websocket_garbage_collected")
    assert await socket.take_close() == (1011, "ws.downstream_closed")


async def test_a_process_that_ends_lists_its_sockets_no_more(runner, actor_id, client, socket):
    await put_to_sleep(runner, actor_id)
    await lifespan.run_shutdown()
    assert await refused(client) == (1012, "ws.going_away")
    assert await count_pairs() == await run_db(GatewayLease.objects.count) == 0


async def test_a_gateway_that_vanished_is_not_listed_once_its_lease_is_over(runner, actor_id, client, socket):
    await put_to_sleep(runner, actor_id)
    await run_db(GatewayLease.objects.update, expires_at="2020-01-01T00:00:00Z")
    await wake(actor_id)
    assert await take_start(runner, 1) == ()


async def test_a_lapsed_lease_ends_the_sockets_that_a_start_may_have_missed(runner, actor_id, engine_url, env):
    env(gateway_lease_ms=600)
    async with client_of(engine_url, actor_id) as client:
        await take_opened(runner, client, can_hibernate=True)
        await put_to_sleep(runner, actor_id)
        await run_db(GatewayLease.objects.update, expires_at="2020-01-01T00:00:00Z")
        assert await refused(client) == (1011, "guard.websocket_not_kept")


async def test_many_sockets_of_one_actor_are_all_listed_and_all_served(runner, actor_id, engine_url):
    clients, sockets = [], []
    for _ in range(20):
        opening = client_of(engine_url, actor_id)
        clients.append((opening, await opening.__aenter__()))
        sockets.append(await take_accepted(runner, can_hibernate=True))
    await eventually(lambda: _are(20))
    await put_to_sleep(runner, actor_id)
    for number, (_, client) in enumerate(clients):
        await client.send(str(number))
    assert set(await take_start(runner, 1)) == {socket.pair for socket in sockets}
    for number, socket in enumerate(sockets):
        assert await socket.take_text() == str(number)
    for opening, _ in clients:
        await opening.__aexit__(None, None, None)


async def _are(count):
    return await count_pairs() == count
