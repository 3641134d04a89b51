"""What actors' timelines and the metrics tell of clients' WebSockets."""

from contextlib import AsyncExitStack

import pytest

from actors.timeline import actor_timeline
from gateway import websocket
from orchestrator import metrics
from orchestrator.db import run_db
from tests.support.live import has_status, running_actor
from tests.support.management import make_actor
from tests.support.scripted_runner import SLEEP
from tests.support.scripted_sockets import client_of, take_accepted
from tests.support.web import eventually

pytestmark = pytest.mark.django_db(transaction=True)


async def labels(actor_id):
    entries = await run_db(actor_timeline, actor_id)
    return [entry.label for entry in entries if entry.label.startswith("websocket")]


async def has_told(actor_id, *expected):
    async def told():
        return await labels(actor_id) == list(expected)

    await eventually(told)


def ends(by):
    return metrics.GATEWAY_SOCKET_ENDS.labels(by)._value.get()


async def test_a_socket_is_told_of_from_its_handshake_over_a_sleep_to_its_end(worker, host, engine_url, namespace):
    runner = await host()
    actor = await run_db(make_actor, namespace)
    before = ends("client"), metrics.SOCKET_MESSAGES_FROM_CLIENTS.n, metrics.SOCKET_MESSAGES_TO_CLIENTS.n
    async with client_of(engine_url, f"{actor.pk}/?token=secret") as client:
        socket = await take_accepted(runner, can_hibernate=True)
        await socket.send("open")
        assert await client.recv() == "open"
        assert metrics.GATEWAY_SOCKETS.made()._value.get() == 1
        await runner.say(actor.pk, SLEEP)
        await has_status(actor.pk, "asleep")
        await has_told(actor.pk, "websocket open", "websocket accepted", "websocket hibernates")
        await client.send("wake up")
        assert await socket.take_text() == "wake up"
    whole = ["websocket open", "websocket accepted", "websocket hibernates", "websocket resumes"]
    await has_told(actor.pk, *whole, "websocket closed by its client")
    await eventually(lambda: not websocket._open)
    counted = ends("client"), metrics.SOCKET_MESSAGES_FROM_CLIENTS.n, metrics.SOCKET_MESSAGES_TO_CLIENTS.n
    assert [after - was for after, was in zip(counted, before, strict=True)] == [1, 1, 1]
    assert metrics.GATEWAY_SOCKETS.made()._value.get() == 0
    entries = await run_db(actor_timeline, actor.pk)
    assert any(entry.label == "WebSocket /" for entry in entries)
    assert "secret" not in str([(entry.label, entry.data) for entry in entries])


async def test_what_many_sockets_do_at_once_is_one_arrow(worker, host, engine_url, namespace):
    runner = await host()
    actor_id = await running_actor(namespace)
    async with AsyncExitStack() as clients:
        for _ in range(3):
            await clients.enter_async_context(client_of(engine_url, actor_id))
            await take_accepted(runner, can_hibernate=True)
        await eventually(lambda: _are_open(3))
        await runner.say(actor_id, SLEEP)

        async def told():
            return "websocket hibernates, 3 at once" in await labels(actor_id)

        await eventually(told)


def _are_open(count):
    return sum(one._socket.is_open for one in websocket._open) == count


@pytest.mark.parametrize("end", ["actor", "actor.stopped"])
async def test_who_ended_a_socket_is_told(end, worker, host, engine_url, namespace):
    runner = await host()
    actor_id = await running_actor(namespace)
    before = ends(end)
    async with client_of(engine_url, actor_id) as client:
        socket = await take_accepted(runner)
        await eventually(lambda: _are_open(1))
        if end == "actor":
            await socket.close(4000, "a secret")
        else:
            await runner.say(actor_id, SLEEP)
        await client.wait_closed()
    await eventually(lambda: not websocket._open)
    assert ends(end) == before + 1

    async def told():
        return (await labels(actor_id))[-1:] == [f"websocket closed: {end}"]

    await eventually(told)
