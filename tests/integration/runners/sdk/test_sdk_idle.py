import asyncio
from datetime import timedelta

from runners.sdk import Actor, Response
from runners.sdk.testing import LocalEngine

SECOND = timedelta(seconds=1)


class Sleepy(Actor):
    sleep_after = timedelta(seconds=30)
    stories: list[str] = []

    def __init__(self):
        self.go = asyncio.Event()
        self.awake = None

    async def fetch(self, ctx, request):
        match request.path:
            case "/slow":
                await self.go.wait()
            case "/go":
                self.go.set()
            case "/hold":
                self.awake = ctx.keep_awake()
            case "/release":
                self.awake.release()
                self.awake.release()
            case "/with":
                with ctx.keep_awake():
                    pass
        return Response.text(str(ctx.generation))

    async def websocket(self, ctx, socket):
        async for _ in socket:
            pass


async def test_an_idle_actor_falls_asleep_and_wakes_when_it_is_asked():
    async with LocalEngine({"sleepy": Sleepy}) as engine:
        actor = engine.actor("sleepy")
        await actor.fetch()
        await engine.advance(29 * SECOND)
        assert actor.is_awake
        await engine.advance(SECOND)
        assert not actor.is_awake
        assert (await actor.fetch()).text == "1"


async def test_every_request_puts_the_sleep_off():
    async with LocalEngine({"sleepy": Sleepy}) as engine:
        actor = engine.actor("sleepy")
        for _ in range(3):
            await actor.fetch()
            await engine.advance(20 * SECOND)
            assert actor.is_awake
        await engine.advance(10 * SECOND)
        assert not actor.is_awake


async def test_a_request_in_flight_keeps_it_awake():
    async with LocalEngine({"sleepy": Sleepy}) as engine:
        actor = engine.actor("sleepy")
        slow = asyncio.create_task(actor.fetch("/slow"))
        await engine.advance(100 * SECOND)
        assert actor.is_awake
        await actor.fetch("/go")
        await slow
        await engine.advance(30 * SECOND)
        assert not actor.is_awake


async def test_keep_awake_keeps_it_awake_until_released():
    async with LocalEngine({"sleepy": Sleepy}) as engine:
        actor = engine.actor("sleepy")
        await actor.fetch("/hold")
        await actor.fetch("/with")
        await engine.advance(100 * SECOND)
        assert actor.is_awake
        await actor.fetch("/release")
        await engine.advance(30 * SECOND)
        assert not actor.is_awake


async def test_an_open_socket_keeps_it_awake():
    async with LocalEngine({"sleepy": Sleepy}) as engine:
        actor = engine.actor("sleepy")
        async with await actor.websocket():
            await engine.advance(100 * SECOND)
            assert actor.is_awake
        await engine.advance(30 * SECOND)
        assert not actor.is_awake


async def test_an_actor_that_says_nothing_of_it_stays_awake():
    async with LocalEngine({"actor": Actor}) as engine:
        actor = engine.actor("actor")
        await actor.fetch()
        await engine.advance(timedelta(days=1))
        assert actor.is_awake
