"""Bodies that are passed on while they come, for runners that say they can (docs/decisions/0009)."""

import asyncio
import json

import httpx
import pytest

from gateway import features
from gateway.answers import BUFFER_BYTES
from runners.protocol.messages import (
    MessageId,
    ToClientRequestAbort,
    ToClientRequestChunk,
    ToClientTunnelMessage,
    ToServerResponseAbort,
    ToServerResponseChunk,
    ToServerTunnelMessage,
)
from tests.support.gateway import NOTHING, refusal
from tests.support.live import running_actor
from tests.support.web import eventually

pytestmark = pytest.mark.django_db(transaction=True)

KIB, MIB = 1024, 1024 * 1024
WINDOW = 64 * KIB


@pytest.fixture(autouse=True)
def _nothing_remembered():
    features._known.clear()


@pytest.fixture
def able(host):
    """Connect a runner that can do what an SDK of ours can; its requests come as a queue."""

    async def connect(**abilities):
        told = {"request_streaming": True, "multi_headers": True, "response_window": WINDOW} | abilities
        requests = asyncio.Queue()
        runner = await host(answer=requests.put, metadata=json.dumps({"torpor": told}))
        return runner, requests

    return connect


def body_of(queue):
    """The parts a queue gives, until None."""

    async def parts():
        while (part := await queue.get()) is not None:
            yield part

    return parts()


def is_chunk(message):
    return isinstance(message.message_kind, ToClientRequestChunk)


def is_abort(message):
    return isinstance(message.message_kind, ToClientRequestAbort)


# To the runner


async def test_a_body_is_passed_on_while_it_comes_and_may_be_answered_meanwhile(
    worker, able, client, namespace, held
):
    runner, requests = await able()
    actor_id = await running_actor(namespace)
    parts = asyncio.Queue()
    await parts.put(b"first")
    asked = client.build_request("POST", f"/gateway/{actor_id}", content=body_of(parts))
    sending = asyncio.create_task(client.send(asked, stream=True))
    request = await requests.get()
    assert request.start.stream
    received = request.start.body or b""
    while received != b"first":
        received += (await runner.take(ToClientTunnelMessage, is_chunk)).message_kind.body
    await parts.put(b"second")
    assert (await runner.take(ToClientTunnelMessage, is_chunk)).message_kind.body == b"second"
    await request.begin(b"answer")
    await request.chunk(b"", finish=True)
    await parts.put(None)
    answer = await sending
    assert await answer.aread() == b"answer"
    assert held() == NOTHING


async def test_a_runner_that_does_not_say_so_gets_every_body_in_one_piece(worker, host, client, namespace):
    runner = await host()
    actor_id = await running_actor(namespace)
    parts = asyncio.Queue()
    asking = asyncio.create_task(client.post(f"/gateway/{actor_id}", content=body_of(parts)))
    for part in (b"a" * 100_000, b"b" * 100_000, None):
        await parts.put(part)
    assert (await asking).json()["body_bytes"] == 200_000
    assert (runner.requests[0].start.stream, runner.requests[0].start.body[:1]) == (False, b"a")


async def test_a_streamed_body_is_sent_again_from_its_beginning(worker, able, client, namespace, env):
    env(gateway_retry_pause_ms=0)
    runner, requests = await able()
    actor_id = await running_actor(namespace)
    parts = asyncio.Queue()
    await parts.put(b"first")
    asking = asyncio.create_task(client.post(f"/gateway/{actor_id}", content=body_of(parts)))
    first = await requests.get()
    await first.send(ToServerResponseAbort())
    second = await requests.get()
    assert (second.start.stream, second.id.message_index) == (True, 0)
    received = second.start.body or b""
    await parts.put(b"second")
    await parts.put(None)
    while True:
        message = await runner.take(ToClientTunnelMessage, is_chunk)
        if message.message_id.request_id == second.id.request_id:
            received += message.message_kind.body
            if message.message_kind.finish:
                break
    assert received == b"firstsecond"
    await second.answer(b"done")
    assert (await asking).content == b"done"


async def test_a_body_that_grows_too_large_under_way_is_refused_and_given_up(
    worker, able, client, namespace, env, held
):
    env(gateway_body_bytes=10)
    runner, requests = await able()
    actor_id = await running_actor(namespace)
    parts = asyncio.Queue()
    await parts.put(b"12345")
    asking = asyncio.create_task(client.post(f"/gateway/{actor_id}", content=body_of(parts)))
    await requests.get()
    await parts.put(b"678901")
    await parts.put(None)
    assert refusal(await asking) == (413, "guard.invalid_request_body")
    await runner.take(ToClientTunnelMessage, is_abort)
    assert held() == NOTHING


async def test_a_client_that_leaves_in_the_middle_of_its_body_leaves_nothing(
    worker, able, client, namespace, held
):
    runner, requests = await able()
    actor_id = await running_actor(namespace)
    parts = asyncio.Queue()
    await parts.put(b"first")
    asking = asyncio.create_task(client.post(f"/gateway/{actor_id}", content=body_of(parts)))
    await requests.get()
    asking.cancel()
    await runner.take(ToClientTunnelMessage, is_abort)
    await eventually(lambda: held() == NOTHING)


# From the runner


async def test_several_cookies_are_several_headers(worker, able, client, namespace):
    _, requests = await able()
    actor_id = await running_actor(namespace)
    asking = asyncio.create_task(client.get(f"/gateway/{actor_id}"))
    await (await requests.get()).answer(b"", headers={"set-cookie": "a=1; path=/\nb=2", "x-one": "1, 2"})
    answer = await asking
    assert answer.headers.get_list("set-cookie") == ["a=1; path=/", "b=2"]
    assert answer.headers["x-one"] == "1, 2"


async def streamed(client, actor_id, requests, headers=None):
    sending = asyncio.create_task(client.send(client.build_request("GET", f"/gateway/{actor_id}"), stream=True))
    request = await requests.get()
    await request.begin(None, headers)
    return await sending, request


async def grant(runner):
    """Wait until the runner may send another half of its window."""
    message = await runner.take(ToClientTunnelMessage, is_chunk)
    assert (message.message_kind.body, message.message_kind.finish) == (b"", False)


async def test_a_runner_is_told_when_the_client_has_taken_half_of_its_window(
    worker, able, client, namespace, held
):
    runner, requests = await able()
    actor_id = await running_actor(namespace)
    answer, request = await streamed(client, actor_id, requests)
    body = answer.aiter_raw()
    for _ in range(4):
        await request.chunk(bytes(WINDOW // 2))
        received = 0
        while received < WINDOW // 2:
            received += len(await anext(body))
        await grant(runner)
    await request.chunk(b"", finish=True)
    assert [part async for part in body] == []
    assert held() == NOTHING


async def test_a_client_that_reads_slowly_stops_its_own_runner_only(worker, able, client, namespace, held):
    """The runner sends as it may, and has to stop; the gateway has kept little; another answer passes."""
    runner, requests = await able()
    actor_id = await running_actor(namespace)
    answer, request = await streamed(client, actor_id, requests)
    sent, allowed = 0, WINDOW
    while True:
        while sent < allowed:
            await request.chunk(bytes(16 * KIB))
            sent += 16 * KIB
        try:
            async with asyncio.timeout(0.3):
                await grant(runner)
        except TimeoutError:
            break
        allowed += WINDOW // 2
    assert sent < 12 * MIB  # what the kernel's buffers of both ends and the server's take
    other = asyncio.create_task(client.get(f"/gateway/{actor_id}/other"))
    await (await requests.get()).answer(b"quick")
    assert (await other).content == b"quick"
    body = b"".join([part async for part in _first(answer.aiter_raw(), sent)])
    assert len(body) == sent
    await request.chunk(b"", finish=True)
    await answer.aclose()
    await eventually(lambda: held() == NOTHING)


async def _first(parts, size):
    async for part in parts:
        yield part
        size -= len(part)
        if not size:
            return


async def test_a_part_that_comes_twice_is_passed_on_once(worker, able, client, namespace):
    runner, requests = await able()
    actor_id = await running_actor(namespace)
    answer, request = await streamed(client, actor_id, requests)
    await request.chunk(b"one,")
    again = MessageId(request.id.gateway_id, request.id.request_id, 1)
    await runner.send(ToServerTunnelMessage(again, ToServerResponseChunk(b"one,", False)))
    await request.chunk(b"two", finish=True)
    assert await answer.aread() == b"one,two"


@pytest.mark.parametrize("how", ["a part is missing", "too long", "too short", "not read in time"])
async def test_an_answer_that_cannot_be_whole_is_cut_off(worker, able, client, namespace, held, how):
    able_to = {} if how != "not read in time" else {"response_window": None}
    runner, requests = await able(**able_to)
    actor_id = await running_actor(namespace)
    length = {"content-length": "8"} if how.startswith("too") else None
    answer, request = await streamed(client, actor_id, requests, length)
    if how == "a part is missing":
        await request.chunk(b"one")
        request._index += 1
        await request.chunk(b"three", finish=True)
    elif how == "too long":
        await request.chunk(b"123456789", finish=True)
    elif how == "too short":
        await request.chunk(b"1234567", finish=True)
    else:
        for _ in range(BUFFER_BYTES // MIB + 16):
            await request.chunk(bytes(MIB))
    if how != "too short":
        await runner.take(ToClientTunnelMessage, is_abort)
    with pytest.raises(httpx.RemoteProtocolError):
        await answer.aread()
    assert held() == NOTHING


async def test_head_of_a_stream_is_answered_and_the_stream_given_up(worker, able, client, namespace, held):
    runner, requests = await able()
    actor_id = await running_actor(namespace)
    asking = asyncio.create_task(client.head(f"/gateway/{actor_id}"))
    await (await requests.get()).begin(None, {"content-type": "text/event-stream"})
    answer = await asking
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream")
    await runner.take(ToClientTunnelMessage, is_abort)
    assert held() == NOTHING
