"""The test kit where the tests of the SDK's own features do not go."""

import asyncio
from datetime import timedelta

import pytest

from runners.sdk import Actor, KvError, Response, StreamingResponse
from runners.sdk.testing import ActorFailed, ActorGone, LocalEngine

SECOND = timedelta(seconds=1)


class Obedient(Actor):
    def __init__(self):
        self.go = asyncio.Event()

    async def fetch(self, ctx, request):
        match request.path:
            case "/destroy":
                ctx.destroy()
            case "/slow" if ctx.generation == 0:
                await asyncio.Event().wait()
            case "/endless":
                return StreamingResponse(self.endless())
            case "/big":
                with pytest.raises(KvError, match="value is too large"):
                    await ctx.kv.put("k", bytes(128 * 1024 + 1))
                with pytest.raises(KvError, match="too long"):
                    await ctx.kv.put(bytes(2047), b"")
                await ctx.kv.put("k", b"v")
        return Response.text(f"{ctx.generation}")

    async def endless(self):
        yield b"some"
        await asyncio.Event().wait()


@pytest.fixture
async def engine():
    async with LocalEngine({"obedient": Obedient}) as engine:
        yield engine


async def test_a_name_and_key_stand_for_one_actor_until_it_is_destroyed(engine):
    first = engine.actor("obedient", key="a")
    assert engine.actor("obedient", key="a") is first
    assert engine.actor("obedient", key="b") is not first
    await first.fetch("/destroy")
    await first.asleep()
    assert first.is_destroyed
    with pytest.raises(ActorGone):
        await first.fetch()
    assert engine.actor("obedient", key="a") is not first
    with pytest.raises(LookupError, match="stranger"):
        engine.actor("stranger")


async def test_the_store_has_the_limits_of_an_engine(engine):
    actor = engine.actor("obedient")
    assert (await actor.fetch("/big")).status_code == 200
    assert actor.kv == {b"k": b"v"}


async def test_a_request_goes_on_in_the_next_life_if_its_actor_is_lost(engine):
    actor = engine.actor("obedient")
    slow = asyncio.create_task(actor.fetch("/slow"))
    await engine.advance(SECOND)
    await actor.lose()
    assert (await slow).text == "1"


async def test_an_answer_that_has_begun_breaks_off_if_its_actor_is_lost(engine):
    actor = engine.actor("obedient")
    async with actor.stream("/endless") as answer:
        pieces = answer.aiter_raw()
        assert await anext(pieces) == b"some"
        await actor.lose()
        with pytest.raises(ActorFailed, match="broke off"):
            await anext(pieces)


async def test_an_actor_that_cannot_start_says_why():
    class Broken(Actor):
        async def on_start(self, ctx):
            raise ValueError("no luck")

    async with LocalEngine({"broken": Broken}) as engine:
        with pytest.raises(ActorFailed, match="on_start failed: ValueError: no luck"):
            await engine.actor("broken").fetch()
