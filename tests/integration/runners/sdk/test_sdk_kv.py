import asyncio

import pytest

from runners.protocol.messages import (
    KvDeleteRangeRequest,
    KvDeleteRequest,
    KvDeleteResponse,
    KvErrorResponse,
    KvGetRequest,
    KvGetResponse,
    KvListPrefixQuery,
    KvListRangeQuery,
    KvListRequest,
    KvListResponse,
    KvMetadata,
    KvPutRequest,
    KvPutResponse,
    ProtocolMetadata,
    ToClientInit,
    ToClientKvResponse,
    ToServerKvRequest,
)
from runners.sdk import Actor, Kv, KvError, KvTimeout
from runners.sdk.kv import KvCalls
from runners.sdk.saver import PREFIX
from tests.support.scripted_engine import stop

META = KvMetadata(b"1.0", 1)

CALLS = [  # what the actor calls, what is asked of the engine, its answer, what the actor gets
    (lambda kv: kv.get("é"), KvGetRequest((b"\xc3\xa9",)), KvGetResponse([b"\xc3\xa9"], [b"v"], [META]), b"v"),
    (lambda kv: kv.get(b"k"), KvGetRequest((b"k",)), KvGetResponse([], [], []), None),
    (
        lambda kv: kv.get_many(["a", b"b", "c"]),
        KvGetRequest((b"a", b"b", b"c")),
        KvGetResponse([b"c", b"a"], [b"3", b""], [META, META]),
        {b"c": b"3", b"a": b""},
    ),
    (lambda kv: kv.put("k", "é"), KvPutRequest((b"k",), (b"\xc3\xa9",)), KvPutResponse(), None),
    (lambda kv: kv.put_many({"a": b"1", "b": ""}), KvPutRequest((b"a", b"b"), (b"1", b"")), KvPutResponse(), None),
    (lambda kv: kv.delete("a", b"b"), KvDeleteRequest((b"a", b"b")), KvDeleteResponse(), None),
    (
        lambda kv: kv.delete_range("a", b"c"),
        KvDeleteRangeRequest(b"a", b"c"),
        KvDeleteResponse(),
        None,
    ),
    (lambda kv: kv.drop(), KvDeleteRangeRequest(b"", PREFIX), KvDeleteResponse(), None),
    (
        lambda kv: kv.list_range("a", b"c", limit=1),
        KvListRequest(KvListRangeQuery(b"a", b"c", exclusive=True), reverse=False, limit=1),
        KvListResponse([b"b"], [b"1"], [META]),
        [(b"b", b"1")],
    ),
    (
        lambda kv: kv.list(),
        KvListRequest(KvListRangeQuery(b"", PREFIX, exclusive=True), reverse=False, limit=None),
        KvListResponse([], [], []),
        [],
    ),
    (
        lambda kv: kv.list("p/", reverse=True, limit=2),
        KvListRequest(KvListPrefixQuery(b"p/"), reverse=True, limit=2),
        KvListResponse([b"p/2", b"p/1"], [b"b", b"a"], [META, META]),
        [(b"p/2", b"b"), (b"p/1", b"a")],
    ),
]


@pytest.fixture
async def store(engine, host):
    """An actor's store and the connection it goes through."""
    stores: asyncio.Queue[Kv] = asyncio.Queue()

    class Storing(Actor):
        async def on_start(self, ctx):
            stores.put_nowait(ctx.kv)

    await host(Storing)
    connection = await engine.connection()
    await connection.running()
    return await stores.get(), connection


@pytest.mark.parametrize(("call", "request_", "response", "result"), CALLS)
async def test_a_call_is_put_to_the_engine_and_its_answer_understood(store, call, request_, response, result):
    kv, connection = store
    calling = asyncio.create_task(call(kv))
    asked = await connection.take(ToServerKvRequest)
    assert (asked.actor_id, asked.data) == ("a1", request_)
    await connection.send(ToClientKvResponse(asked.request_id, response))
    assert await calling == result


async def test_answers_are_matched_by_their_number_whatever_their_order(store):
    kv, connection = store
    calls = [asyncio.create_task(kv.get(str(number))) for number in range(3)]
    asked = [await connection.take(ToServerKvRequest) for _ in calls]
    for request in reversed(asked):
        (key,) = request.data.keys
        await connection.send(ToClientKvResponse(request.request_id, KvGetResponse([key], [b"v" + key], [META])))
    await connection.send(ToClientKvResponse(4_000_000_000, KvPutResponse()))
    assert await asyncio.gather(*calls) == [b"v0", b"v1", b"v2"]


@pytest.mark.parametrize("answer", [KvErrorResponse("key is too long (max 2048 bytes)"), KvPutResponse()])
async def test_a_refusal_or_a_misfit_raises(store, answer):
    kv, connection = store
    calling = asyncio.create_task(kv.get("k"))
    await connection.send(ToClientKvResponse((await connection.take(ToServerKvRequest)).request_id, answer))
    with pytest.raises(KvError, match=r"too long|KvPutResponse"):
        await calling


async def test_a_call_made_without_a_connection_is_sent_on_the_next_but_one_sent_before_is_not_repeated(
    engine, store
):
    kv, first = store
    before = asyncio.create_task(kv.put("before", "1"))
    await first.take(ToServerKvRequest)
    await first.close()
    with pytest.raises(KvError, match="lost"):
        await before
    meanwhile = asyncio.create_task(kv.put("meanwhile", "2"))
    second = await engine.connection()
    asked = await second.take(ToServerKvRequest)
    assert asked.data.keys == (b"meanwhile",)
    await second.send(ToClientKvResponse(asked.request_id, KvPutResponse()))
    await meanwhile


async def test_a_call_is_not_repeated_when_the_engine_says_its_init_again(store):
    kv, connection = store
    calling = asyncio.create_task(kv.put("k", "1"))
    asked = await connection.take(ToServerKvRequest)
    await connection.send(ToClientInit("run1", ProtocolMetadata(15_000, 60_000, None)))
    await connection.send(ToClientKvResponse(asked.request_id, KvPutResponse()))
    await calling
    await connection.command(stop())
    await connection.take_state()  # goes out behind whatever else there was to say
    assert sum(isinstance(message, ToServerKvRequest) for message in connection.received) == 1


async def test_a_call_is_given_up_after_its_limit_and_not_sent_later():
    sent = []
    calls = KvCalls(lambda request: bool(sent.append(request)), limit_s=0.01)  # never connected
    with pytest.raises(KvTimeout):
        await Kv("a1", calls).get("k")
    assert len(sent) == 1
    calls.connected()
    assert len(sent) == 1


async def test_a_runner_that_has_stopped_refuses_calls(host, engine):
    stores = []

    class Storing(Actor):
        async def on_start(self, ctx):
            stores.append(ctx.kv)

    runner = await host(Storing)
    connection = await engine.connection()
    await connection.running()
    waiting = asyncio.create_task(stores[0].get("k"))
    await connection.take(ToServerKvRequest)
    await runner.shutdown(drain_s=0)
    for call in (waiting, stores[0].get("k")):
        with pytest.raises(KvError):
            await call
