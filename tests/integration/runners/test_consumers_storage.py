"""Storage over a runner's real socket: order, answers beside the rest, and the end of a life (PROTOCOL §6)."""

import asyncio
import threading
import time
from contextlib import asynccontextmanager, contextmanager

import httpx
import pytest

from actors import storage
from actors.models import Actor, StoredEntry
from actors.services import destroy_actor, sleep_actor
from orchestrator import lifespan
from orchestrator.db import run_db
from runners.models import Runner
from runners.protocol.messages import (
    KvDeleteRangeRequest,
    KvDropRequest,
    KvErrorResponse,
    KvGetRequest,
    KvListAllQuery,
    KvListRequest,
    KvListResponse,
    KvPutRequest,
    KvPutResponse,
    ToClientKvResponse,
    ToClientPing,
    ToServerKvRequest,
)
from tests.support.live import actor_row, has_status, running_actor, wake
from tests.support.scripted_runner import STOPPED
from tests.support.web import eventually

pytestmark = pytest.mark.django_db(transaction=True)

EVERYTHING = KvListRequest(KvListAllQuery(), reverse=None, limit=None)
NO_ACTOR = KvErrorResponse("actor does not exist")


async def ask(runner, actor_id, *requests, first_id=0):
    """Send requests at once and return their answers in the order of the requests."""
    ids = range(first_id, first_id + len(requests))
    await runner.send(*(ToServerKvRequest(actor_id, id_, data) for id_, data in zip(ids, requests, strict=True)))
    return [await answer_to(runner, id_) for id_ in ids]


async def answer_to(runner, request_id):
    return (await runner.take(ToClientKvResponse, lambda message: message.request_id == request_id)).data


def put(key, value=b"v"):
    return KvPutRequest((key,), (value,))


@pytest.mark.parametrize("version", [4, 5, 6, 7])
async def test_every_version_reads_what_it_has_written(worker, host, namespace, version):
    runner = await host(version=version)
    actor_id = await running_actor(namespace)
    written, read = await ask(runner, actor_id, put(b"k"), KvGetRequest((b"k", b"none")))
    assert written == KvPutResponse()
    assert (read.keys, read.values, len(read.metadata)) == ((b"k",), (b"v",), 1)
    await ask(runner, actor_id, KvDropRequest(), first_id=2)
    [empty] = await ask(runner, actor_id, EVERYTHING, first_id=3)
    assert empty == KvListResponse((), (), ())


async def test_requests_of_one_actor_are_carried_out_in_order(worker, host, namespace):
    runner = await host()
    actors = [await running_actor(namespace) for _ in range(3)]
    requests = []
    for number in range(20):
        requests += [put(b"k", b"%d" % number), KvGetRequest((b"k",))]
    answers = await asyncio.gather(
        *(ask(runner, actor_id, *requests, first_id=1000 * at) for at, actor_id in enumerate(actors))
    )
    for of_actor in answers:
        assert [answer.values for answer in of_actor[1::2]] == [(b"%d" % number,) for number in range(20)]


async def test_what_has_no_meaning_is_refused_or_skipped_and_the_socket_stays(worker, host, namespace):
    runner = await host()
    actor_id = await running_actor(namespace)
    assert await ask(runner, "act1", put(b"k")) == [NO_ACTOR]
    await runner.socket.send(b"\x05")
    await runner.socket.send(b"\x05\x01a\0\0\0\0\x09")
    await runner.socket.send(b"\x05\x01a\0\0\0\0\x05trailing")
    assert await ask(runner, actor_id, put(b"k"), first_id=7) == [KvPutResponse()]


async def test_another_runner_is_refused(worker, host, namespace):
    owner = await host(key="owner")
    actor_id = await running_actor(namespace)
    thief = await host(key="thief")
    assert await ask(owner, actor_id, put(b"k", b"mine")) == [KvPutResponse()]
    for number, request in enumerate([put(b"k", b"stolen"), EVERYTHING, KvDeleteRangeRequest(b"", b"z")]):
        refused = await ask(thief, actor_id, request, first_id=number)
        assert refused == [KvErrorResponse("actor does not belong to runner")]
    [read] = await ask(owner, actor_id, EVERYTHING, first_id=1)
    assert read.values == (b"mine",)


async def test_a_stopping_actor_may_write_until_it_has_stopped_and_the_next_generation_reads_it(
    worker, host, namespace
):
    runner = await host()
    actor_id = await running_actor(namespace)
    runner.obeys = False
    await run_db(sleep_actor, actor=await actor_row(actor_id))
    await has_status(actor_id, "stopping")
    assert await ask(runner, actor_id, put(b"k", b"late")) == [KvPutResponse()]
    await runner.say(actor_id, STOPPED)
    await has_status(actor_id, "asleep")
    assert await ask(runner, actor_id, EVERYTHING, put(b"k"), first_id=1) == [NO_ACTOR, NO_ACTOR]
    runner.obeys = True
    runner.forget()
    await wake(actor_id)
    await has_status(actor_id, "running", generation=1)
    [read] = await ask(runner, actor_id, EVERYTHING, first_id=3)
    assert read.values == (b"late",)


async def test_what_an_actor_wrote_before_its_last_word_is_written(worker, host, namespace):
    runner = await host()
    actor_id = await running_actor(namespace)
    puts = [ToServerKvRequest(actor_id, number, put(b"%d" % number)) for number in range(50)]
    await runner.send(*puts)
    await runner.say(actor_id, STOPPED)
    assert [await answer_to(runner, number) for number in range(50)] == [KvPutResponse()] * 50


async def test_an_earlier_life_on_the_same_runner_is_refused(worker, host, namespace):
    """The engine has given the actor to this runner anew and the runner has not heard of it yet."""
    runner = await host()
    actor_id = await running_actor(namespace)
    assert await ask(runner, actor_id, put(b"k")) == [KvPutResponse()]
    worker.pause()
    await run_db(Actor.objects.filter(pk=actor_id).update, generation=1, event_index=-1, status="starting")
    assert await ask(runner, actor_id, put(b"k", b"old"), EVERYTHING, first_id=1) == [NO_ACTOR, NO_ACTOR]


async def test_after_a_reconnect_a_repeated_request_is_answered_and_the_older_socket_refused(
    worker, host, namespace
):
    runner = await host()
    actor_id = await running_actor(namespace)
    await ask(runner, actor_id, put(b"k", b"1"))
    await runner.drop()
    await runner.connect()
    again, read = await ask(runner, actor_id, put(b"k", b"1"), EVERYTHING)
    assert again == KvPutResponse()
    assert read.values == (b"1",)
    await run_db(Runner.objects.update, socket_id="newer")
    [refused] = await ask(runner, actor_id, put(b"k", b"2"), first_id=2)
    assert refused == KvErrorResponse("the runner has another connection")


async def test_an_answer_is_dropped_if_the_socket_is_gone(worker, host, namespace, caplog):
    runner = await host()
    actor_id = await running_actor(namespace)
    await runner.send(*(ToServerKvRequest(actor_id, number, put(b"%d" % number)) for number in range(200)))
    await runner.drop()
    await runner.connect()
    [read] = await ask(runner, actor_id, EVERYTHING)
    assert isinstance(read, KvListResponse)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_storage_that_hangs_delays_neither_pings_nor_the_tunnel_nor_other_actors(
    worker, host, namespace, env, engine_url, hanging
):
    env(runner_ping_interval_ms=50)
    runner = await host()
    stuck, lively = [await running_actor(namespace) for _ in range(2)]
    with hanging(stuck):
        await runner.send(*(ToServerKvRequest(stuck, number, put(b"k")) for number in range(100)))
        for _ in range(5):
            await runner.take(ToClientPing)
        async with httpx.AsyncClient(base_url=engine_url) as client:
            assert (await client.get(f"/gateway/{lively}/")).status_code == 200
        assert await ask(runner, lively, put(b"k"), first_id=1000) == [KvPutResponse()]
        assert not [message for message in runner.received if answers(message, range(100))]
    assert [await answer_to(runner, number) for number in range(100)] == [KvPutResponse()] * 100


async def test_a_long_scan_does_not_hold_up_the_event_loop(worker, host, namespace):
    """Best of several, as the machine may be busy: while the loop stands still no ping can be sent."""
    runner = await host()
    actor_id = await running_actor(namespace)
    await run_db(fill, actor_id, 128)
    stood_still = []
    for number in range(8):
        began = time.monotonic()
        async with longest_pause() as pause:
            [scanned] = await ask(runner, actor_id, EVERYTHING, first_id=number)
        stood_still.append((pause[0], time.monotonic() - began))
        assert sum(map(len, scanned.values)) == 16 * 1024 * 1024
    longest, whole = min(stood_still)
    assert longest < 0.1
    assert longest < whole / 2


async def test_more_than_may_wait_is_refused_and_the_rest_served(worker, host, namespace, monkeypatch, hanging):
    monkeypatch.setattr("runners.storage_desk.WAITING_BYTES", 10_000)
    runner = await host()
    actor_id = await running_actor(namespace)
    with hanging(actor_id):
        await runner.send(*(ToServerKvRequest(actor_id, number, put(b"k")) for number in range(30)))
        refused = await answer_to(runner, 29)
    assert refused == KvErrorResponse("too many storage requests of this runner are waiting")
    assert await answer_to(runner, 0) == KvPutResponse()
    assert await ask(runner, actor_id, EVERYTHING, first_id=30) != [refused]


async def test_destroying_an_actor_erases_what_it_has_stored(worker, host, namespace):
    runner = await host()
    actor_id = await running_actor(namespace)
    await ask(runner, actor_id, put(b"k"))
    await run_db(destroy_actor, actor=await actor_row(actor_id))
    assert await ask(runner, actor_id, EVERYTHING, put(b"k"), first_id=1) == [NO_ACTOR, NO_ACTOR]

    async def erased():
        return not await run_db(StoredEntry.objects.exists)

    await eventually(erased)


def fill(actor_id, count):
    StoredEntry.objects.bulk_create(
        StoredEntry(actor_id=actor_id, key=b"%05d" % n, value=b"v" * 131_072, version="1", updated_ms=n)
        for n in range(count)
    )


def answers(message, ids):
    return isinstance(message, ToClientKvResponse) and message.request_id in ids


@pytest.fixture
def hanging(monkeypatch):
    """Have the storage of an actor answer nothing as long as a context lasts."""

    @contextmanager
    def hang(actor_id):
        release = threading.Event()

        def serve(caller, asked_id, request):
            if asked_id == actor_id:
                release.wait(30)
            return storage.serve(caller, asked_id, request)

        with monkeypatch.context() as patch:
            patch.setattr("runners.storage._serves", [serve])
            try:
                yield
            finally:
                release.set()

    return hang


@asynccontextmanager
async def longest_pause():
    """Give a list of one number: the longest time, in seconds, in which the loop ran nothing else."""
    pause = [0.0]

    async def watch():
        last = time.monotonic()
        while True:
            await asyncio.sleep(0.001)
            now = time.monotonic()
            pause[0], last = max(pause[0], now - last), now

    watching = asyncio.create_task(watch())
    try:
        yield pause
    finally:
        watching.cancel()


async def test_what_was_asked_before_the_process_ends_is_answered_before_the_socket_is_closed(
    worker, host, namespace, hanging
):
    runner = await host()
    actor_id = await running_actor(namespace)
    with hanging(actor_id):
        await runner.send(ToServerKvRequest(actor_id, 1, put(b"k")))
        ending = asyncio.create_task(lifespan.run_shutdown())
        await asyncio.sleep(0.1)  # it has begun to send its runners away
        assert not [message for message in runner.received if answers(message, [1])]
    await ending
    assert await answer_to(runner, 1) == KvPutResponse()
    assert await runner.has_closed() == (1011, "ws.going_away")
