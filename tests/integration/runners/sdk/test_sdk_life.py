import asyncio
from datetime import UTC, datetime

import pytest

from runners.protocol.messages import (
    ActorCheckpoint,
    ActorIntentSleep,
    ActorIntentStop,
    ActorStateRunning,
    ActorStateStopped,
    EventActorIntent,
    EventActorSetAlarm,
    EventActorStateUpdate,
    StopCode,
    ToServerAckCommands,
    ToServerEvents,
    ToServerResponseStart,
    ToServerTunnelMessage,
)
from runners.sdk import Actor, Response
from tests.support.scripted_engine import start, stop

RUNNING = EventActorStateUpdate(ActorStateRunning())
SLEEP = EventActorIntent(ActorIntentSleep())
DESTROY = EventActorIntent(ActorIntentStop())


def events(connection) -> list[tuple[ActorCheckpoint, object]]:
    messages = (message for message in connection.received if isinstance(message, ToServerEvents))
    return [(event.checkpoint, event.inner) for message in messages for event in message.events]


class Obedient(Actor):
    """Does what the path says."""

    async def fetch(self, ctx, request):
        if request.path == "/sleep":
            ctx.sleep()
        elif request.path == "/destroy":
            ctx.destroy()
        return Response.text(request.path)


async def test_an_actor_knows_who_it_is(engine, host):
    seen = []

    class Curious(Actor):
        async def on_start(self, ctx):
            seen.append((ctx.actor_id, ctx.name, ctx.key, ctx.generation, ctx.input))

    await host(Curious)
    connection = await engine.connection()
    await connection.running(actor_id="a7", generation=3, index=1, key="room/1", given=b"\x00x")
    assert seen == [("a7", "actor", "room/1", 3, b"\x00x")]


async def test_it_is_running_once_it_has_started_and_requests_wait_for_that(engine, host):
    go = asyncio.Event()

    class Slow(Obedient):
        async def on_start(self, ctx):
            await go.wait()

    await host(Slow)
    connection = await engine.connection()
    await connection.command(start())
    request = await connection.ask("/x")
    await connection.take(ToServerAckCommands)
    assert events(connection) == []
    go.set()
    assert (await connection.take_answer(request)).body == b"/x"
    assert events(connection) == [(ActorCheckpoint("a1", 0, 0), RUNNING)]


class TestFailingStart:
    @pytest.mark.parametrize("error", [ValueError("no luck"), asyncio.CancelledError()])
    async def test_it_says_goodbye_and_reports_the_error_and_is_never_running(self, engine, host, error):
        stopped = asyncio.Event()

        class Broken(Actor):
            async def on_start(self, ctx):
                raise error

            async def on_stop(self, ctx):
                stopped.set()

        await host(Broken)
        connection = await engine.connection()
        await connection.command(start())
        request = await connection.ask()
        state = await connection.take_state()
        assert state.code is StopCode.ERROR
        assert state.message.startswith("on_start")
        assert stopped.is_set()
        assert len(events(connection)) == 1
        assert (await connection.take_answer(request)).headers == {"x-rivet-error": "runner.actor_not_found"}

    async def test_a_constructor_that_raises_is_reported(self, engine, host):
        class Broken(Actor):
            def __init__(self):
                raise ValueError("no luck")

        await host(Broken)
        connection = await engine.connection()
        await connection.command(start())
        message = "the constructor failed: ValueError: no luck"
        assert await connection.take_state() == ActorStateStopped(StopCode.ERROR, message)

    async def test_a_name_the_runner_does_not_know_is_reported(self, engine, host):
        await host()
        connection = await engine.connection()
        await connection.command(start(name="stranger"))
        message = "this runner has no actor named 'stranger'"
        assert await connection.take_state() == ActorStateStopped(StopCode.ERROR, message)

    async def test_a_stop_does_not_wait_for_a_start_that_hangs(self, engine, host):
        class Hanging(Actor):
            async def on_start(self, ctx):
                await asyncio.Event().wait()

        await host(Hanging)
        connection = await engine.connection(grace_ms=60)
        await connection.command(start(), start("a2"))
        await connection.take(ToServerAckCommands)
        await connection.command(stop())
        assert await connection.take_state() == ActorStateStopped(StopCode.ERROR, "on_start took too long")


async def test_an_actor_that_must_stop_before_it_began_is_not_started(engine, host):
    class Untouched(Actor):
        def __init__(self):
            pytest.fail("it was made")

    await host(Untouched)
    connection = await engine.connection()
    await connection.command(start(), stop())
    assert await connection.take_state() == ActorStateStopped(StopCode.OK, None)


class TestSleep:
    async def test_an_actor_that_asks_for_sleep_serves_on_until_it_is_stopped(self, engine, host):
        await host(Obedient)
        connection = await engine.connection()
        await connection.running()
        assert (await connection.fetch("/sleep")).body == b"/sleep"
        assert (await connection.fetch("/sleep")).body == b"/sleep"
        assert (await connection.fetch("/still-here")).body == b"/still-here"
        assert events(connection)[1:] == [
            (ActorCheckpoint("a1", 0, 1), SLEEP),
            (ActorCheckpoint("a1", 0, 2), SLEEP),
        ]
        await connection.command(stop())
        assert await connection.take_state() == ActorStateStopped(StopCode.OK, None)
        assert (await connection.fetch("/gone")).status == 503

    async def test_it_sleeps_and_wakes_as_the_next_generation(self, engine, host):
        await host(Obedient)
        connection = await engine.connection()
        for generation in range(3):
            await connection.running(generation=generation)
            await connection.fetch("/sleep")
            await connection.command(stop(generation=generation))
            assert await connection.take_state(generation=generation) == ActorStateStopped(StopCode.OK, None)
        assert [checkpoint for checkpoint, _ in events(connection)] == [
            ActorCheckpoint("a1", generation, index) for generation in range(3) for index in range(3)
        ]

    async def test_a_wish_made_while_starting_is_told_after_running(self, engine, host):
        class Tired(Actor):
            async def on_start(self, ctx):
                ctx.sleep()

        await host(Tired)
        connection = await engine.connection()
        await connection.running()
        assert await connection.take_event() == (ActorCheckpoint("a1", 0, 1), SLEEP)


class TestDestroy:
    @pytest.mark.parametrize("error", [None, ValueError("no luck")])
    async def test_the_end_is_meant_even_if_the_goodbye_fails(self, engine, host, error):
        class Ending(Obedient):
            async def on_stop(self, ctx):
                if error is not None:
                    raise error

        await host(Ending)
        connection = await engine.connection()
        await connection.running()
        await connection.fetch("/destroy")
        assert await connection.take_event() == (ActorCheckpoint("a1", 0, 1), DESTROY)
        await connection.command(stop())
        assert (await connection.take_state()).code is StopCode.OK


class TestStop:
    async def test_requests_in_flight_are_answered_first_then_comes_the_goodbye(self, engine, host):
        asked, answer, story = asyncio.Event(), asyncio.Event(), []

        class Slow(Actor):
            async def fetch(self, ctx, request):
                asked.set()
                await answer.wait()
                story.append("answered")
                return Response.text("late")

            async def on_stop(self, ctx):
                story.append("stopped")

        await host(Slow)
        connection = await engine.connection()
        await connection.running()
        request = await connection.ask()
        await asked.wait()
        await connection.command(stop())
        assert (await connection.fetch("/too-late")).status == 503  # it is stopping now
        answer.set()
        assert (await connection.take_answer(request)).body == b"late"
        await connection.take_state()
        assert story == ["answered", "stopped"]
        kinds = [
            type(getattr(message, "message_kind", message))
            for message in connection.received
            if isinstance(message, ToServerTunnelMessage | ToServerEvents)
        ]
        assert kinds[-2:] == [ToServerResponseStart, ToServerEvents]

    async def test_a_request_that_takes_too_long_is_handed_back_for_the_gateway_to_try_again(self, engine, host):
        asked, cleaned = asyncio.Event(), asyncio.Event()

        async def endless(ctx, request):
            asked.set()
            try:
                await asyncio.Event().wait()
            finally:
                cleaned.set()

        await host(endless)
        connection = await engine.connection(grace_ms=100)
        await connection.running()
        request = await connection.ask()
        await asked.wait()
        await connection.command(stop())
        answer = await connection.take_answer(request)
        assert (answer.status, answer.headers) == (503, {"x-rivet-error": "runner.actor_not_found"})
        assert await connection.take_state() == ActorStateStopped(StopCode.OK, None)
        assert cleaned.is_set()

    async def test_a_goodbye_that_fails_is_reported(self, engine, host):
        class Broken(Actor):
            async def on_stop(self, ctx):
                raise ValueError("no luck")

        await host(Broken)
        connection = await engine.connection()
        await connection.running()
        await connection.command(stop())
        message = "on_stop failed: ValueError: no luck"
        assert await connection.take_state() == ActorStateStopped(StopCode.ERROR, message)

    async def test_a_goodbye_that_hangs_is_cut_off(self, engine, host):
        class Hanging(Actor):
            async def on_stop(self, ctx):
                await asyncio.Event().wait()

        await host(Hanging)
        connection = await engine.connection(grace_ms=100)
        await connection.running()
        await connection.command(stop())
        assert await connection.take_state() == ActorStateStopped(StopCode.ERROR, "on_stop took too long")

    async def test_a_stop_of_another_generation_or_actor_means_nothing(self, engine, host):
        await host(Obedient)
        connection = await engine.connection()
        await connection.running(generation=2)
        await connection.command(stop(generation=1), stop(generation=3, index=0), stop("a9"))
        assert (await connection.fetch("/x")).body == b"/x"

    async def test_a_stop_numbered_like_its_start_counts(self, engine, host):
        await host(Obedient)
        connection = await engine.connection()
        await connection.running()
        await connection.command(stop(index=0))
        assert await connection.take_state() == ActorStateStopped(StopCode.OK, None)


async def test_a_newer_life_replaces_an_older_one_that_ends_first_and_in_silence(engine, host):
    story = []

    class Replaced(Actor):
        async def on_start(self, ctx):
            story.append(f"start {ctx.generation}")

        async def on_stop(self, ctx):
            await asyncio.sleep(0)
            story.append(f"stop {ctx.generation}")

    await host(Replaced)
    connection = await engine.connection()
    await connection.running(generation=0)
    await connection.running(generation=1, index=1)
    assert story == ["start 0", "stop 0", "start 1"]
    assert events(connection) == [(ActorCheckpoint("a1", generation, 0), RUNNING) for generation in (0, 1)]


async def test_an_alarm_may_be_set_at_any_time_until_the_goodbye(engine, host):
    class Alarmed(Actor):
        async def on_start(self, ctx):
            ctx.set_alarm(datetime(2030, 1, 1, tzinfo=UTC))

        async def on_stop(self, ctx):
            ctx.set_alarm(None)

    await host(Alarmed)
    connection = await engine.connection()
    await connection.running()
    await connection.command(stop())
    await connection.take_state()
    assert [inner for _, inner in events(connection)] == [
        EventActorSetAlarm(1_893_456_000_000),
        RUNNING,
        EventActorSetAlarm(None),
        EventActorStateUpdate(ActorStateStopped(StopCode.OK, None)),
    ]
