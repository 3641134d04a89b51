"""A client's WebSocket to its actor, as both ends see it (PROTOCOL §5.4, §5.5, §8)."""

import asyncio
import contextlib

import pytest
from websockets.exceptions import ConnectionClosed, NegotiationError

from actors.services import destroy_actor
from orchestrator import lifespan
from orchestrator.db import run_db
from orchestrator.ids import new_id
from runners.protocol.messages import (
    ToClientWebSocketClose,
    ToClientWebSocketMessage,
    ToServerResponseAbort,
    ToServerWebSocketMessage,
    ToServerWebSocketOpen,
)
from runners.sockets import local_socket
from tests.support.gateway import NOTHING
from tests.support.live import actor_row, running_actor
from tests.support.management import make_actor
from tests.support.scripted_runner import CRASHED, STOPPED, dial
from tests.support.scripted_sockets import (
    client_of,
    closed,
    gateway_url,
    refused,
    take_accepted,
    take_open,
    take_opened,
)
from tests.support.web import eventually

pytestmark = pytest.mark.django_db(transaction=True)

MIB = 1024 * 1024


@pytest.fixture
async def both(worker, host, engine_url, namespace):
    """A client and its actor's end of one open WebSocket."""
    runner = await host()
    actor_id = await running_actor(namespace)
    async with client_of(engine_url, actor_id) as client:
        yield client, await take_accepted(runner)


async def test_a_sleeping_actor_is_woken_and_hears_who_called(worker, host, engine_url, namespace, held):
    runner = await host()
    actor = await run_db(make_actor, namespace)
    async with client_of(engine_url, f"{actor.pk}@secret/a%2Fb/?q=1", ["rivet", "x-own"]) as client:
        socket, start = await take_open(runner)
        assert client.subprotocol == "rivet"
        assert (start.actor_id, start.path) == (actor.pk, "/a%2Fb/?q=1")
        assert start.headers["sec-websocket-protocol"].replace(" ", "") == "rivet,x-own"
        assert len(start.headers["x-rivet-ray-id"]) == 30
        await socket.accept()
        await socket.send("welcome")
        assert await client.recv() == "welcome"
    await eventually(lambda: held() == NOTHING)


async def test_messages_come_through_as_they_are_both_ways(both):
    client, socket = both
    for message in ("text", "é€𝄞", "", b"\x00\xff", b"", "x" * 100_000, b"y" * 16 * MIB):
        await client.send(message)
        taken = await socket.take(ToClientWebSocketMessage)
        sent = message.encode() if isinstance(message, str) else message
        assert (taken.data, taken.binary) == (sent, isinstance(message, bytes))
        await socket.send(message)
        assert await client.recv() == message
    assert socket.index == 7


async def test_what_is_no_text_is_mended(both):
    client, socket = both
    await socket.say(ToServerWebSocketMessage(b"a\xffb", binary=False))
    assert await client.recv() == "a\ufffdb"


async def test_order_is_kept_over_the_wrap_of_the_index(both):
    client, socket = both
    count = 2**16 + 10

    async def speak():
        for number in range(count):
            await client.send(str(number))

    speaking = asyncio.create_task(speak())
    for number in range(count):
        taken = await socket.take(ToClientWebSocketMessage)
        assert (int(taken.data), socket.index) == (number, (number + 1) % 2**16)
    await speaking


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ((4321, "ça suffit"), (4321, "ça suffit")),
        ((1000, ""), (1000, None)),
        ((None, ""), (1000, None)),
    ],
    ids=["code and reason", "code", "nothing"],
)
async def test_a_client_closes(both, held, given, told):
    client, socket = both
    code, reason = given
    if code is None:
        client.protocol.send_close()
        client.transport.write(b"".join(client.protocol.data_to_send()))
    else:
        await client.close(code, reason)
    assert await socket.take_close() == told
    await eventually(lambda: held() == NOTHING)


async def test_a_client_vanishes(both, held):
    client, socket = both
    client.transport.abort()
    assert await socket.take_close() == (1000, None)
    await eventually(lambda: held() == NOTHING)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ((4000, "enough"), (4000, "enough")),
        ((1012, "again"), (1012, "again")),
        ((1001, None), (1001, "")),
        ((None, None), (1000, "ws.closed")),
        ((1006, "not to be written"), (1011, "not to be written")),
    ],
    ids=["own code", "1012", "no reason", "nothing", "illegal code"],
)
async def test_an_actor_closes_after_its_last_message(both, held, given, told):
    client, socket = both
    await socket.send("last")
    await socket.close(*given)
    assert await client.recv() == "last"
    assert await closed(client) == told
    assert await socket.take_close() == (1000, None)
    assert held() == NOTHING


@pytest.mark.parametrize("end", [STOPPED, CRASHED], ids=["stopped", "crashed"])
async def test_the_socket_of_an_actor_that_stops_is_closed_at_once(worker, host, engine_url, namespace, held, end):
    runner = await host()
    actor_id = await running_actor(namespace)
    async with client_of(engine_url, actor_id) as client:
        await take_opened(runner, client)
        await runner.say(actor_id, end)
        assert await closed(client) == (1000, "actor.stopped")
    await eventually(lambda: held() == NOTHING)


async def test_the_socket_of_an_actor_that_is_destroyed_is_closed_at_once(
    worker, host, engine_url, namespace, held
):
    runner = await host()
    actor_id = await running_actor(namespace)
    async with client_of(engine_url, actor_id) as client:
        await take_opened(runner, client)
        await run_db(destroy_actor, actor=await actor_row(actor_id))
        assert await closed(client) == (1000, "actor.stopped")
    await eventually(lambda: held() == NOTHING)


async def test_a_refusal_is_tried_again_from_index_0(worker, host, engine_url, namespace, env):
    env(gateway_retry_pause_ms=1)
    runner = await host()
    actor_id = await running_actor(namespace)
    async with client_of(engine_url, actor_id) as client:
        await client.send("early")
        for _ in range(3):
            socket, _ = await take_open(runner)
            await socket.close(1011, "not now")
        socket = await take_accepted(runner)
        assert (await socket.take_text(), socket.index) == ("early", 1)


async def test_refused_for_good_it_is_closed_with_the_reason(worker, host, engine_url, namespace, env, held):
    env(gateway_retry_pause_ms=1)
    runner = await host()
    actor_id = await running_actor(namespace)
    async with client_of(engine_url, actor_id) as client:
        for _ in range(7):
            socket, _ = await take_open(runner)
            await socket.close(1011, "no")
        assert await refused(client) == (1011, "guard.websocket_closed_before_open")
    await eventually(lambda: held() == NOTHING)


async def test_an_actor_that_does_not_answer_is_asked_again_and_then_given_up(
    worker, host, engine_url, namespace, env, held
):
    env(gateway_socket_open_ms=100, gateway_request_ms=700, gateway_retry_pause_ms=1)
    runner = await host()
    actor_id = await running_actor(namespace)
    async with client_of(engine_url, actor_id) as client:
        first, _ = await take_open(runner)
        assert await first.take_close() == (1011, "ws.downstream_closed")
        await take_open(runner)
        assert await refused(client) == (1011, "guard.websocket_open_timeout")
    await eventually(lambda: held() == NOTHING)


async def test_an_actor_that_stops_before_it_accepts_is_woken_again(worker, host, engine_url, namespace):
    runner = await host()
    actor_id = await running_actor(namespace)
    async with client_of(engine_url, actor_id) as client:
        await take_open(runner)
        await runner.say(actor_id, CRASHED)
        socket = await take_accepted(runner)
        await socket.send("here")
        assert await client.recv() == "here"
    assert runner.started == [(actor_id, 0), (actor_id, 1)]


async def test_what_both_say_before_the_socket_is_open_is_kept(worker, host, engine_url, namespace):
    runner = await host()
    actor_id = await running_actor(namespace)
    async with client_of(engine_url, actor_id) as client:
        for number in range(100):
            await client.send(str(number))
        socket, _ = await take_open(runner)
        await socket.send("before")
        await socket.accept()
        await socket.send("after")
        assert [await client.recv(), await client.recv()] == ["before", "after"]
        assert [await socket.take_text() for _ in range(100)] == [str(number) for number in range(100)]


async def test_a_client_that_sends_too_much_too_early_is_not_read_from(worker, host, engine_url, namespace):
    runner = await host()
    actor_id = await running_actor(namespace)
    async with client_of(engine_url, actor_id) as client:
        socket, _ = await take_open(runner)
        sending = asyncio.create_task(send_all(client, [bytes([number]) * MIB for number in range(40)]))
        done, _ = await asyncio.wait({sending}, timeout=0.3)
        assert not done
        await socket.accept()
        for number in range(40):
            assert (await socket.take(ToClientWebSocketMessage)).data[:1] == bytes([number])
        await sending


async def send_all(client, messages):
    for message in messages:
        await client.send(message)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        (new_id(), "actor.not_found"),
        ("not%20ours", "actor.not_found"),
        ("", "api.not_found"),
        ("a//b", "api.not_found"),
    ],
    ids=["unknown", "foreign id", "no actor", "double slash"],
)
async def test_whatever_leads_to_no_actor_is_closed_with_a_reason(engine_url, path, reason):
    async with client_of(engine_url, path) as client:
        assert await refused(client) == (1011, reason)


async def test_an_actor_may_be_named_by_subprotocols(worker, host, engine_url, namespace):
    runner = await host()
    actor_id = await running_actor(namespace)
    offers = ["rivet", "rivet_target.actor", f"rivet_actor.{actor_id}", "rivet_token.secret"]
    async with dial(f"{engine_url.replace('http', 'ws', 1)}/any/path?x=1", offers) as client:
        _, start = await take_open(runner)
        assert (start.actor_id, start.path, client.subprotocol) == (actor_id, "/any/path?x=1", "rivet")


@pytest.mark.parametrize(
    ("offers", "reason"),
    [
        (["rivet", "rivet_target.actor"], "guard.missing_header"),
        (["rivet", "rivet_target.actor", "rivet_actor.nobody"], "actor.not_found"),
        (["rivet", "rivet_target.moon"], "guard.no_route"),
        (["rivet"], "guard.no_route"),
    ],
    ids=["no actor", "unknown actor", "unknown target", "no target"],
)
async def test_subprotocols_that_lead_nowhere_are_answered_with_a_reason(engine_url, offers, reason):
    async with dial(f"{engine_url.replace('http', 'ws', 1)}/any/path", offers) as client:
        assert await refused(client) == (1011, reason)


async def test_a_client_that_offers_something_else_gets_no_subprotocol(worker, host, engine_url, namespace):
    runner = await host()
    actor_id = await running_actor(namespace)
    connection = dial(gateway_url(engine_url, actor_id), ["own"])
    async with contextlib.AsyncExitStack() as stack:
        with contextlib.suppress(NegotiationError):  # of a strict client
            client = await stack.enter_async_context(connection)
            assert client.subprotocol is None
        _, start = await take_open(runner)
        assert start.headers["sec-websocket-protocol"] == "own"


async def test_a_client_that_does_not_read_is_closed_and_slows_nobody_else(both, engine_url, held):
    client, socket = both
    client.transport.pause_reading()
    async with client_of(engine_url, (await other_actor(both))) as other:
        quick = await take_accepted(socket.runner)
        for number in range(60):
            await socket.send(bytes([number]) * MIB)
            await quick.send(str(number))
            assert await other.recv() == str(number)
        assert await socket.take_close() == (1011, "ws.downstream_closed")
    client.transport.resume_reading()
    with contextlib.suppress(ConnectionClosed):
        while True:
            await client.recv()
    await eventually(lambda: held() == NOTHING)


async def other_actor(both):
    _, socket = both
    return next(iter(socket.runner.lives))


async def test_a_message_the_tunnel_cannot_take_is_1009(both):
    client, socket = both
    await client.send(b"x" * 33 * MIB)
    assert await refused(client) == (1009, "guard.websocket_message_too_large")
    assert await socket.take_close() == (1011, "ws.downstream_closed")


async def test_a_runner_that_cannot_take_more_ends_the_socket(both):
    client, socket = both
    await socket.say(ToServerResponseAbort())
    assert await refused(client) == (1011, "guard.service_unavailable")


@pytest.fixture
def quick_pings(env):
    """Have it known soon what a runner has read."""
    env(runner_ping_interval_ms=30)


async def test_a_runner_that_comes_back_finds_its_sockets_open(quick_pings, both):
    client, socket = both
    runner = socket.runner
    await client.send("before")
    assert await socket.take_text() == "before"
    ties = local_socket(runner.runner_id).ties
    await eventually(lambda: not ties.has_doubts)
    await runner.close()
    await client.send("while it is away")
    await runner.connect()
    await client.send("after")
    assert [await socket.take_text(), await socket.take_text()] == ["while it is away", "after"]
    await socket.send("yes")
    assert await client.recv() == "yes"


async def test_a_connection_that_may_have_taken_a_message_along_ends_the_socket(both):
    client, socket = both
    await client.send("before")
    assert await socket.take_text() == "before"
    await socket.runner.drop()
    assert await refused(client) == (1011, "guard.websocket_tunnel_lost")
    await socket.runner.connect()
    assert await socket.take_close() == (1011, "ws.downstream_closed")


async def test_a_second_open_of_the_runner_means_nothing(both):
    client, socket = both
    await socket.say(ToServerWebSocketOpen(can_hibernate=True))
    await socket.send("still here")
    assert await client.recv() == "still here"


async def test_a_process_that_ends_sends_its_clients_away(both, held):
    client, socket = both
    await socket.send("open")
    assert await client.recv() == "open"
    await lifespan.run_shutdown()
    assert await refused(client) == (1012, "ws.going_away")
    assert await eventually(lambda: held() == NOTHING)
    assert isinstance(await socket.take(ToClientWebSocketClose), ToClientWebSocketClose)


async def test_a_process_that_ends_does_not_wait_for_actors(worker, host, engine_url, namespace, held):
    await host()
    actor_id = await running_actor(namespace)
    async with client_of(engine_url, actor_id) as client:
        await lifespan.run_shutdown()
        assert await refused(client) == (1012, "ws.going_away")
    assert held() == NOTHING
