import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest

from runners.sdk import Actor, Response, scheduled
from runners.sdk.saver import PREFIX
from runners.sdk.schedule import GUARD
from runners.sdk.testing import LocalEngine

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)


class Reminder(Actor):
    """Does what the path says; notes the calls that were made, and when, outside of any life."""

    calls: list[tuple[object, datetime, int]]
    failures = 0

    def __init_subclass__(cls):
        cls.calls = []

    async def fetch(self, ctx, request):
        params = request.params
        name = params.get("name")
        match request.path:
            case "/in":
                delay = timedelta(seconds=float(params["s"]))
                name = await ctx.schedule.after(delay, self.remind, params.get("what"), name=name)
            case "/cancel":
                return Response.json(await ctx.schedule.cancel(name))
            case "/list":
                return Response.json([planned.name for planned in ctx.schedule.pending])
            case "/sleep":
                ctx.sleep()
        return Response.text(name or "")

    @scheduled
    async def remind(self, ctx, payload):
        self.calls.append((payload, ctx.now(), ctx.generation))
        if type(self).failures:
            type(self).failures -= 1
            raise ValueError("no luck")


@pytest.fixture
def kind():
    class Fresh(Reminder): ...

    return Fresh


@pytest.fixture
async def engine(kind):
    async with LocalEngine({"reminder": kind}) as engine:
        yield engine


def kept(actor) -> list[bytes]:
    return [key for key in actor.kv if key.startswith(PREFIX + b"schedule/")]


async def test_a_call_is_made_at_its_time_while_the_actor_is_awake(engine, kind):
    actor = engine.actor("reminder")
    began = engine.clock.now()
    await actor.fetch("/in?s=10&what=tea")
    await engine.advance(timedelta(seconds=9.999))
    assert kind.calls == []
    await engine.advance(SECOND)
    assert kind.calls == [("tea", began + 10 * SECOND, 0)]
    assert kept(actor) == []
    await engine.advance(MINUTE)
    assert len(kind.calls) == 1


async def test_a_sleeping_actor_is_woken_for_its_calls_each_in_its_turn(engine, kind):
    actor = engine.actor("reminder")
    began = engine.clock.now()
    for seconds, what in [(60, "late"), (10, "early"), (20, "middle")]:
        await actor.fetch(f"/in?s={seconds}&what={what}")
    await actor.sleep()
    assert actor.alarm == began + 10 * SECOND
    await engine.advance(10 * SECOND)
    assert [call[0] for call in kind.calls] == ["early"]
    await actor.sleep()
    assert actor.alarm == began + 20 * SECOND
    await engine.advance(MINUTE)
    assert [call[0] for call in kind.calls] == ["early", "middle", "late"]
    assert [call[2] for call in kind.calls] == [1, 2, 2]
    await actor.sleep()
    assert actor.alarm is None


async def test_a_name_given_again_replaces_the_call(engine, kind):
    actor = engine.actor("reminder")
    await actor.fetch("/in?s=10&what=one&name=x")
    await actor.fetch("/in?s=20&what=two&name=x")
    assert (await actor.fetch("/list")).json() == ["x"]
    await engine.advance(MINUTE)
    assert [call[0] for call in kind.calls] == ["two"]


async def test_a_cancelled_call_is_not_made_and_no_alarm_is_left(engine, kind):
    actor = engine.actor("reminder")
    await actor.fetch("/in?s=10&name=x")
    assert (await actor.fetch("/cancel?name=x")).json() is True
    assert (await actor.fetch("/cancel?name=x")).json() is False
    assert (kept(actor), actor.alarm) == ([], None)
    await engine.advance(MINUTE)
    assert kind.calls == []


async def test_a_call_that_fails_is_made_again_after_growing_pauses_also_in_the_next_life(engine, kind):
    kind.failures = 3
    actor = engine.actor("reminder")
    began = engine.clock.now()
    await actor.fetch("/in?s=10")
    await engine.advance(11 * SECOND)
    await actor.sleep()
    await engine.advance(MINUTE)
    assert [(call[1] - began).total_seconds() for call in kind.calls] == [10, 11, 13, 17]
    assert kept(actor) == []


async def test_what_a_call_has_changed_is_saved_before_the_call_is_forgotten():
    class Counting(Reminder):
        initial_state = {"calls": 0}

        @scheduled
        async def remind(self, ctx, payload):
            ctx.state["calls"] += 1

    async with LocalEngine({"counting": Counting}) as engine:
        actor = engine.actor("counting")
        await actor.fetch("/in?s=10")
        await engine.advance(10 * SECOND)
        assert kept(actor) == []
        assert json.loads(actor.kv[PREFIX + b"state"]) == {"calls": 1}


async def test_a_call_that_is_cut_off_by_the_loss_of_the_actor_is_made_again(engine, kind):
    begun = asyncio.Event()

    class Cut(kind):
        calls = kind.calls

        @scheduled
        async def remind(self, ctx, payload):
            kind.calls.append((payload, ctx.now(), ctx.generation))
            begun.set()
            if ctx.generation == 0:
                await asyncio.Event().wait()

    async with LocalEngine({"reminder": Cut}) as engine:
        actor = engine.actor("reminder")
        await actor.fetch("/in?s=10&what=tea")
        await engine.advance(10 * SECOND)
        await begun.wait()
        await engine.advance(5 * MINUTE)
        assert actor.alarm > engine.clock.now(), "the engine would wake it, were it lost"
        await actor.lose()
        await engine.advance(timedelta())
        assert [(call[0], call[2]) for call in kind.calls] == [("tea", 0), ("tea", 1)]


async def test_while_awake_the_engines_alarm_comes_later_than_the_call(engine):
    actor = engine.actor("reminder")
    await actor.fetch("/in?s=10")
    assert actor.alarm == engine.clock.now() + 10 * SECOND + GUARD


async def test_a_call_may_plan_the_next_one_under_its_own_name():
    times = []

    class Ticking(Actor):
        async def on_start(self, ctx):
            if not ctx.schedule.pending:
                await ctx.schedule.after(MINUTE, "tick", 0, name="tick")

        @scheduled
        async def tick(self, ctx, count):
            times.append(count)
            await ctx.schedule.after(MINUTE, "tick", count + 1, name="tick")
            ctx.sleep()

    async with LocalEngine({"ticking": Ticking}) as engine:
        actor = engine.actor("ticking")
        await actor.wake()
        await engine.advance(3 * MINUTE)
        assert times == [0, 1, 2]
        assert not actor.is_awake


async def test_what_cannot_be_planned_is_refused(engine):
    seen = []

    class Wrong(Reminder):
        async def fetch(self, ctx, request):
            for error, words, call in [
                (ValueError, "@scheduled", lambda: ctx.schedule.after(SECOND, "fetch")),
                (ValueError, "@scheduled", lambda: ctx.schedule.after(SECOND, "no_such_method")),
                (ValueError, "zone", lambda: ctx.schedule.at(datetime(2030, 1, 1), self.remind)),
                (TypeError, "JSON", lambda: ctx.schedule.after(SECOND, self.remind, object())),
            ]:
                with pytest.raises(error, match=words):
                    await call()
            with pytest.raises(TypeError, match=r"ctx\.schedule"):
                ctx.set_alarm(datetime(2030, 1, 1, tzinfo=UTC))
            seen.append("all")
            return Response()

    async with LocalEngine({"wrong": Wrong}) as engine:
        assert (await engine.actor("wrong").fetch()).status_code == 200
    assert seen == ["all"]


async def test_a_scheduled_call_keeps_an_idle_actor_awake_and_pending_ones_do_not():
    class Sleepy(Reminder):
        sleep_after = 5 * SECOND

    async with LocalEngine({"sleepy": Sleepy}) as engine:
        actor = engine.actor("sleepy")
        await actor.fetch("/in?s=60")
        await engine.advance(6 * SECOND)
        assert not actor.is_awake
        await engine.advance(MINUTE)
        assert len(Sleepy.calls) == 1
        assert not actor.is_awake
