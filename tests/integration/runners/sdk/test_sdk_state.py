import asyncio
import json
from datetime import timedelta

import pytest

from runners.protocol.messages import (
    ActorStateStopped,
    KvErrorResponse,
    KvGetResponse,
    KvListRequest,
    KvListResponse,
    StopCode,
    ToClientKvResponse,
    ToServerKvRequest,
)
from runners.sdk import Actor, Response, SdkError
from runners.sdk.saver import PREFIX
from runners.sdk.testing import ActorFailed, LocalEngine
from tests.support.scripted_engine import start, stop

SECOND = timedelta(seconds=1)
STATE = PREFIX + b"state"


class Counter(Actor):
    initial_state = {"count": 0, "seen": []}

    async def fetch(self, ctx, request):
        match request.path:
            case "/add":
                ctx.state["count"] += 1
                ctx.state["seen"].append(request.query)
            case "/save":
                ctx.state["count"] += 1
                await ctx.state.save()
            case "/bad":
                ctx.state["count"] = object()
            case "/deep":
                ctx.state["seen"].append(object())
            case "/clear":
                del ctx.state["seen"]
        return Response.json(dict(ctx.state))


def kept(actor):
    return json.loads(actor.kv[STATE])


async def test_a_state_outlasts_the_sleep_of_its_actor():
    async with LocalEngine({"counter": Counter}) as engine:
        alice = engine.actor("counter", key="alice")
        await alice.fetch("/add?a")
        await alice.sleep()
        assert (await alice.fetch("/add?b")).json() == {"count": 2, "seen": ["a", "b"]}
        assert alice.generation == 1
        assert (await engine.actor("counter", key="bob").fetch()).json() == {"count": 0, "seen": []}


async def test_changes_are_saved_together_after_a_while():
    async with LocalEngine({"counter": Counter}) as engine:
        alice = engine.actor("counter")
        await alice.fetch("/add?a")
        await alice.fetch("/add?b")
        assert not alice.kv
        await engine.advance(SECOND)
        assert kept(alice) == {"count": 2, "seen": ["a", "b"]}
        await alice.lose()
        assert (await alice.fetch()).json()["count"] == 2


async def test_what_is_saved_on_demand_survives_the_loss_of_the_actor_and_the_rest_does_not():
    async with LocalEngine({"counter": Counter}) as engine:
        alice = engine.actor("counter")
        await alice.fetch("/save")
        await alice.fetch("/add")
        await alice.lose()
        assert (await alice.fetch()).json()["count"] == 1


async def test_a_state_that_is_only_read_is_not_written():
    async with LocalEngine({"counter": Counter}) as engine:
        alice = engine.actor("counter")
        await alice.fetch("/save")
        await engine.advance(SECOND)
        alice.store.entries[STATE] = b'{"count":7}'  # if it wrote, this would be gone
        await alice.fetch("/")
        await engine.advance(SECOND)
        await alice.sleep()
        assert (await alice.fetch()).json() == {"count": 7, "seen": []}


async def test_a_change_nobody_noticed_is_saved_at_the_end():
    class Sly(Actor):
        initial_state = {"seen": []}

        async def fetch(self, ctx, request):
            seen = ctx.state["seen"]
            held.set()
            await go.wait()
            seen.append(request.path)
            return Response()

    held, go = asyncio.Event(), asyncio.Event()
    async with LocalEngine({"counter": Sly}) as engine:
        alice = engine.actor("counter")
        request = asyncio.create_task(alice.fetch("/x"))
        await held.wait()
        await engine.advance(SECOND)  # and the state is saved as it was
        go.set()
        await request
        await alice.sleep()
        assert kept(alice) == {"seen": ["/x"]}


async def test_what_json_cannot_say_is_refused_where_it_is_set():
    async with LocalEngine({"counter": Counter}) as engine:
        alice = engine.actor("counter")
        assert (await alice.fetch("/bad")).status_code == 500
        assert (await alice.fetch("/add?a")).json() == {"count": 1, "seen": ["a"]}


async def test_a_state_that_cannot_be_saved_is_the_failure_of_its_life():
    async with LocalEngine({"counter": Counter}) as engine:
        alice = engine.actor("counter")
        await alice.fetch("/deep")
        with pytest.raises(ActorFailed, match="saving failed: TypeError"):
            await alice.sleep()


async def test_a_state_too_large_is_the_failure_of_its_life():
    class Large(Actor):
        initial_state = {"text": ""}

        async def fetch(self, ctx, request):
            ctx.state["text"] = "x" * 128 * 1024
            return Response()

    async with LocalEngine({"counter": Large}) as engine:
        alice = engine.actor("counter")
        await alice.fetch()
        with pytest.raises(ActorFailed, match="value is too large"):
            await alice.sleep()


async def test_the_initial_state_is_not_shared_by_actors():
    async with LocalEngine({"counter": Counter}) as engine:
        await engine.actor("counter").fetch("/add?a")
        assert (await engine.actor("counter").fetch()).json()["seen"] == []
        assert Counter.initial_state == {"count": 0, "seen": []}


async def test_a_name_that_is_new_in_the_initial_state_is_there_after_an_update_of_the_code():
    async with LocalEngine({"counter": Counter}) as engine:
        alice = engine.actor("counter")
        alice.store.entries[STATE] = b'{"count":3}'
        assert (await alice.fetch()).json() == {"count": 3, "seen": []}


async def test_an_actor_without_an_initial_state_has_none_and_reads_nothing():
    reads = []

    class Plain(Actor):
        async def on_start(self, ctx):
            reads.append(len(ctx.home.saver._stored))

        async def fetch(self, ctx, request):
            with pytest.raises(SdkError, match="initial_state"):
                ctx.state["x"] = 1
            return Response()

    async with LocalEngine({"plain": Plain}) as engine:
        plain = engine.actor("plain")
        plain.store.entries[STATE] = b"not json"
        assert (await plain.fetch()).status_code == 200


async def test_what_the_sdk_keeps_is_not_the_actors_to_list_or_drop():
    class Storing(Counter):
        async def fetch(self, ctx, request):
            ctx.state["count"] += 1
            await ctx.state.save()
            await ctx.kv.put_many({b"a": b"1", b"\xff\xfe": b"2"})
            seen = [key for key, _ in await ctx.kv.list()]
            assert seen == [key for key, _ in await ctx.kv.list(reverse=True)][::-1]
            await ctx.kv.drop()
            return Response.json([len(seen), len(await ctx.kv.list())])

    async with LocalEngine({"storing": Storing}) as engine:
        storing = engine.actor("storing")
        assert (await storing.fetch()).json() == [2, 0]
        assert list(storing.kv) == [STATE]


@pytest.mark.parametrize(
    ("message", "code"),
    [("actor does not exist", StopCode.OK), ("could not be stored", StopCode.ERROR)],
    ids=["destroyed", "failed"],
)
async def test_an_actor_that_was_destroyed_has_nothing_left_to_save(engine, host, message, code):
    class Busy(Actor):
        initial_state = {"count": 0}

        async def on_start(self, ctx):
            ctx.state["count"] = 1

    await host(Busy)
    connection = await engine.connection()
    await connection.command(start())
    load = await connection.take(ToServerKvRequest)
    nothing = KvListResponse if isinstance(load.data, KvListRequest) else KvGetResponse
    await connection.send(ToClientKvResponse(load.request_id, nothing([], [], [])))
    await connection.take_state()
    await connection.command(stop())
    save = await connection.take(ToServerKvRequest)
    await connection.send(ToClientKvResponse(save.request_id, KvErrorResponse(message)))
    state = await connection.take_state()
    assert isinstance(state, ActorStateStopped)
    assert state.code is code
