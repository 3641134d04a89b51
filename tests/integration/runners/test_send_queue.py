"""What waits for one runner is sent in order and bounded; a runner that reads nothing costs nobody else."""

import asyncio
import contextlib

import httpx
import pytest

from gateway.errors import TunnelOverloaded
from gateway.hub import get_hub
from orchestrator.bus import get_bus
from orchestrator.errors import BusOverloaded
from orchestrator.ids import new_id
from runners import send_queue
from runners.channel import TunnelFrame, encode, runner_channel
from runners.connection import GoingAway
from runners.protocol.messages import ToClientRequestStart, ToServerResponseAbort
from runners.send_queue import SendQueue
from runners.sockets import local_socket
from tests.support.gateway import refusal
from tests.support.live import running_actor
from tests.support.web import eventually

MIB = 1024 * 1024


async def test_everything_is_sent_in_order_though_only_traffic_is_refused(monkeypatch):
    monkeypatch.setattr(send_queue, "LIMIT_BYTES", 4)
    sent, may_send = [], asyncio.Event()

    async def send(frame):
        await may_send.wait()
        sent.append(frame)

    queue = SendQueue(send, overflow=pytest.fail)
    writer = asyncio.create_task(queue.run())
    queue.put(b"init")
    queue.offer(b"a")
    with pytest.raises(BusOverloaded):
        queue.offer(b"b")
    queue.put(b"command")
    may_send.set()
    await eventually(lambda: len(sent) == 3)
    queue.offer(b"c")
    await eventually(lambda: len(sent) == 4)
    assert sent == [b"init", b"a", b"command", b"c"]
    writer.cancel()


async def test_a_runner_is_cut_off_when_even_what_the_engine_has_to_say_does_not_get_through(monkeypatch):
    monkeypatch.setattr(send_queue, "END_BYTES", 8)
    overflows = []
    queue = SendQueue(pytest.fail, overflow=lambda: overflows.append("now"))
    queue.put(b"commands")
    assert not overflows
    queue.put(b"!")
    assert overflows


async def test_answers_let_the_rest_go_first_but_not_for_ever(monkeypatch):
    monkeypatch.setattr(send_queue, "FRAMES_PER_ANSWER", 2)
    sent = []

    async def send(frame):
        sent.append(frame)

    queue = SendQueue(send, overflow=pytest.fail)
    queue.put_answer(b"answer 1")
    queue.put_answer(b"answer 2")
    for frame in (b"a", b"b", b"c"):
        queue.put(frame)
    writer = asyncio.create_task(queue.run())
    await eventually(lambda: len(sent) == 5)
    assert sent == [b"a", b"b", b"answer 1", b"c", b"answer 2"]
    queue.put_answer(b"answer 3")
    await eventually(lambda: sent[-1] == b"answer 3")
    writer.cancel()


async def test_no_more_answers_are_worked_out_for_a_runner_that_does_not_read_and_its_traffic_goes_on(monkeypatch):
    monkeypatch.setattr(send_queue, "ANSWERS_BYTES", 4)
    monkeypatch.setattr(send_queue, "LIMIT_BYTES", 4)
    may_send = asyncio.Event()

    async def send(frame):
        await may_send.wait()

    queue = SendQueue(send, overflow=pytest.fail)
    await queue.room()
    queue.put_answer(b"long answer")
    queue.offer(b"traffic")
    writer = asyncio.create_task(queue.run())
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.room(), 0.05)
    may_send.set()
    await asyncio.wait_for(queue.room(), 5)
    writer.cancel()


@pytest.fixture
async def deaf(host, monkeypatch, worker, namespace):
    """A runner that reads nothing any more, with an actor; it has as much waiting as it may."""
    monkeypatch.setattr(send_queue, "LIMIT_BYTES", MIB)
    runner = await host()
    actor_id = await running_actor(namespace)
    runner.socket.transport.pause_reading()
    hub = await get_hub()
    frame = hub.frame(b"junk", 0, ToClientRequestStart("x" * MIB, "GET", "/", {}, None, stream=False))
    with contextlib.suppress(TunnelOverloaded):
        while True:  # the kernel takes some of it
            hub.send_here(runner.runner_id, frame)
            await asyncio.sleep(0)
    yield runner, actor_id
    runner.socket.transport.abort()


@pytest.mark.django_db(transaction=True)
async def test_a_request_to_a_runner_that_does_not_read_is_refused(deaf, engine_url):
    _, actor_id = deaf
    async with httpx.AsyncClient(base_url=engine_url, trust_env=False) as client:
        answer = await client.get(f"/gateway/{actor_id}")
    assert refusal(answer) == (503, "guard.service_unavailable")


class Inbox:
    def __init__(self):
        self.kinds = asyncio.Queue()

    def put(self, kind, index):
        self.kinds.put_nowait(kind)


@pytest.mark.django_db(transaction=True)
async def test_one_that_comes_from_another_process_is_given_back(deaf):
    runner, actor_id = deaf
    hub, inbox = await get_hub(), Inbox()
    request_id = hub.attach(runner.runner_id, inbox)
    start = ToClientRequestStart(actor_id, "GET", "/", {}, None, stream=False)
    get_bus().publish(runner_channel(runner.runner_id), encode(TunnelFrame(hub.frame(request_id, 0, start))))
    assert await asyncio.wait_for(inbox.kinds.get(), 5) == ToServerResponseAbort()


@pytest.mark.django_db(transaction=True)
async def test_one_that_is_on_its_way_as_the_socket_ends_is_given_back(host):
    runner = await host()
    hub, inbox = await get_hub(), Inbox()
    request_id = hub.attach(runner.runner_id, inbox)
    start = ToClientRequestStart(new_id(), "GET", "/", {}, None, stream=False)
    get_bus().publish(runner_channel(runner.runner_id), encode(TunnelFrame(hub.frame(request_id, 0, start))))
    local_socket(runner.runner_id).end(GoingAway())
    assert await asyncio.wait_for(inbox.kinds.get(), 5) == ToServerResponseAbort()
