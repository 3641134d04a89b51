import asyncio
import json
import os
import signal

import pytest

from runners.protocol.messages import (
    ActorCheckpoint,
    ActorIntentSleep,
    ActorStateRunning,
    ActorStateStopped,
    EventActorIntent,
    EventActorStateUpdate,
    ProtocolMetadata,
    StopCode,
    ToClientAckEvents,
    ToClientInit,
    ToClientPing,
    ToServerAckCommands,
    ToServerEvents,
    ToServerPong,
    ToServerStopping,
    ToServerTunnelMessage,
)
from runners.sdk import Actor, Response, Runner, RunnerStopped
from tests.support.scripted_engine import SOON_S, scripted_engine, start, stop

RUNNING = EventActorStateUpdate(ActorStateRunning())
SLEEP = EventActorIntent(ActorIntentSleep())


def witness() -> type[Actor]:
    """An actor class that notes what happens to its objects, in `story`."""

    class Witness(Actor):
        story: list[str] = []
        stopped = asyncio.Event()

        async def on_start(self, ctx):
            self.story.append(f"start {ctx.actor_id} {ctx.generation}")

        async def on_stop(self, ctx):
            self.story.append(f"stop {ctx.actor_id} {ctx.generation}")
            self.stopped.set()

        async def fetch(self, ctx, request):
            if request.path == "/sleep":
                ctx.sleep()
            return Response.text(request.path)

    return Witness


async def test_a_runner_introduces_itself(engine, host):
    runner = await host(
        actors={"counter": Actor, "a b": Actor},
        pool="p1",
        namespace="n s",
        total_slots=7,
        version=3,
        token="s3cret",
    )
    connection = await engine.greeted()
    init = await connection.welcome(runner_id="run9")
    await runner.wait_ready()
    assert (connection.path, connection.query) == (
        "/runners/connect",
        {"protocol_version": "7", "namespace": "n s", "runner_key": runner.key},
    )
    assert connection.offers == "rivet, rivet_token.s3cret"
    assert connection.socket.subprotocol == "rivet"
    assert (init.name, init.version, init.total_slots) == ("p1", 3, 7)
    assert {name: json.loads(metadata) for name, metadata in init.prepopulate_actor_names.items()} == {
        "counter": {},
        "a b": {},
    }
    assert runner.runner_id == "run9"


async def test_a_ping_is_answered_while_handlers_are_busy(engine, host):
    answer = asyncio.Event()

    async def busy(ctx, request):
        await answer.wait()
        return Response()

    await host(busy)
    connection = await engine.connection()
    await connection.running()
    requests = [await connection.ask() for _ in range(3)]
    await connection.send(ToClientPing(1_700_000_000_000))
    assert await connection.take(ToServerPong) == ToServerPong(1_700_000_000_000)
    answer.set()
    for request in requests:
        assert (await connection.take_answer(request)).status == 200


async def test_frames_that_cannot_be_read_are_skipped(engine, host):
    await host()
    connection = await engine.connection()
    for frame in ("text", b"", b"\xff", b"\x05\x00"):
        await connection.socket.send(frame)
    await connection.send(ToClientPing(1))
    assert await connection.take(ToServerPong) == ToServerPong(1)


async def test_what_comes_before_the_init_is_ignored_and_nothing_is_said(engine, host):
    actor = witness()
    await host(actor)
    connection = await engine.greeted()
    await connection.command(start())
    await connection.send(ToClientPing(1))
    await connection.welcome()
    await connection.send(ToClientPing(2))
    assert await connection.take(ToServerPong) == ToServerPong(2)
    assert len(connection.received) == 2
    assert actor.story == []


class TestReconnect:
    async def test_the_same_runner_comes_back_and_its_actors_live_on(self, engine, host):
        actor = witness()
        runner = await host(actor)
        first = await engine.connection()
        await first.running()
        await first.close(1011, "ws.going_away#ray")
        second = await engine.connection()
        assert second.query["runner_key"] == first.query["runner_key"] == runner.key
        assert (await second.fetch("/x")).body == b"/x"
        assert actor.story == ["start a1 0"]

    async def test_events_are_said_again_in_one_message_until_they_are_acknowledged(self, engine, host):
        await host(witness())
        first = await engine.connection()
        await first.running()
        await first.running(actor_id="a2", generation=4)
        await first.fetch("/sleep")
        await first.close()
        second = await engine.connection()
        again = await second.take(ToServerEvents)
        assert [(event.checkpoint, event.inner) for event in again.events] == [
            (ActorCheckpoint("a1", 0, 0), RUNNING),
            (ActorCheckpoint("a2", 4, 0), RUNNING),
            (ActorCheckpoint("a1", 0, 1), SLEEP),
        ]
        await second.send(ToClientAckEvents([ActorCheckpoint("a1", 0, 0), ActorCheckpoint("a2", 4, 0)]))
        await second.fetch("/")  # frames are read in order: the acknowledgement has been seen
        await second.close()
        third = await engine.connection()
        again = await third.take(ToServerEvents)
        assert [(event.checkpoint, event.inner) for event in again.events] == [
            (ActorCheckpoint("a1", 0, 1), SLEEP)
        ]

    async def test_a_command_that_comes_again_is_acknowledged_but_acts_once(self, engine, host):
        actor = witness()
        await host(actor)
        first = await engine.connection()
        await first.running()
        assert await first.take(ToServerAckCommands) == ToServerAckCommands((ActorCheckpoint("a1", 0, 0),))
        await first.close()
        second = await engine.connection()
        await second.take(ToServerEvents)
        await second.command(start())
        assert await second.take(ToServerAckCommands) == ToServerAckCommands((ActorCheckpoint("a1", 0, 0),))
        await second.command(stop())
        assert await second.take(ToServerAckCommands) == ToServerAckCommands((ActorCheckpoint("a1", 0, 1),))
        assert await second.take_state() == ActorStateStopped(StopCode.OK, None)
        await second.command(start(), stop())
        await second.take(ToServerAckCommands)
        assert (await second.fetch("/")).status == 503
        assert actor.story == ["start a1 0", "stop a1 0"]

    async def test_an_answer_made_without_a_connection_is_sent_on_the_next_ahead_of_the_events(self, engine, host):
        asked, answer = asyncio.Event(), asyncio.Event()

        async def slow(ctx, request):
            asked.set()
            await answer.wait()
            ctx.sleep()
            return Response.text("late")

        await host(slow)
        first = await engine.connection()
        await first.running()
        request = await first.ask()
        await asked.wait()
        await first.close()
        answer.set()
        second = await engine.connection()
        assert (await second.take_answer(request)).body == b"late"
        await second.take(ToServerEvents)
        kinds = [type(message) for message in second.received]
        assert kinds.index(ToServerTunnelMessage) < kinds.index(ToServerEvents)

    async def test_an_engine_that_is_not_there_yet_is_waited_for(self, engine, unused_tcp_port):
        runner = Runner(endpoint=f"http://127.0.0.1:{unused_tcp_port}", pool="pool", actors={})
        await runner.start()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", unused_tcp_port)
        async with scripted_engine(unused_tcp_port) as late:
            await late.connection()
            await asyncio.wait_for(runner.wait_ready(), SOON_S)
            await runner.shutdown(drain_s=0)

    @pytest.mark.parametrize("code_reason", [(1000, ""), (1000, "ws.closed"), (1011, "namespace.not_found#r")])
    async def test_a_refusal_is_no_reason_to_stay_away(self, engine, host, code_reason):
        await host()
        await (await engine.greeted()).close(*code_reason)
        await engine.connection()


async def test_an_evicted_runner_stops_its_actors_and_does_not_come_back(engine, host):
    actor = witness()
    runner = await host(actor)
    connection = await engine.connection()
    await connection.running()
    await connection.close(1000, "ws.eviction#ray")
    await asyncio.wait_for(runner.wait_stopped(), SOON_S)
    assert actor.story == ["start a1 0", "stop a1 0"]
    assert engine.connections.empty()
    with pytest.raises(RunnerStopped):
        await runner.start()


async def test_a_runner_with_a_new_id_lets_its_actors_go_in_silence(engine, host):
    actor = witness()
    runner = await host(actor)
    first = await engine.connection(runner_id="run1")
    await first.running()
    await first.close()
    second = await engine.connection(runner_id="run2")
    await asyncio.wait_for(actor.stopped.wait(), SOON_S)
    await second.running(generation=1)
    assert runner.runner_id == "run2"
    assert actor.story == ["start a1 0", "stop a1 0", "start a1 1"]
    assert {
        event.checkpoint.generation
        for message in second.received
        if isinstance(message, ToServerEvents)
        for event in message.events
    } == {1}


async def test_under_a_new_id_all_commands_are_news_and_answers_made_for_the_old_one_are_dropped(engine, host):
    asked, answer = asyncio.Event(), asyncio.Event()

    async def slow(ctx, request):
        asked.set()
        await answer.wait()
        return Response.text("late")

    await host(slow)
    first = await engine.connection(runner_id="run1")
    await first.running()
    await first.ask()
    await asked.wait()
    await first.close()
    answer.set()
    second = await engine.greeted()  # by now the answer waits for a welcome
    await second.welcome("run2")
    await second.running()
    assert not any(isinstance(message, ToServerTunnelMessage) for message in second.received)


async def test_events_of_earlier_generations_are_not_said_again(engine, host):
    await host(witness())
    first = await engine.connection()
    for generation in (0, 1):
        await first.running(generation=generation)
        await first.command(stop(generation=generation))
        await first.take_state(generation=generation)
    await first.running(generation=2)
    await first.close()
    again = await (await engine.connection()).take(ToServerEvents)
    assert [event.checkpoint for event in again.events] == [ActorCheckpoint("a1", 2, 0)]


async def test_a_connection_regained_in_time_calls_off_the_stopping_of_the_actors(engine, host):
    actor = witness()
    await host(actor)
    first = await engine.connection(lost_ms=400)
    await first.running()
    await first.close()
    second = await engine.connection(lost_ms=400)  # after 0.1 s
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(actor.stopped.wait(), 0.5)
    assert (await second.fetch("/x")).body == b"/x"


async def test_the_same_id_again_on_the_same_connection_changes_nothing(engine, host):
    actor = witness()
    await host(actor)
    connection = await engine.connection()
    await connection.running()
    await connection.send(ToClientInit("run1", ProtocolMetadata(15_000, 60_000, None)))
    assert (await connection.fetch("/x")).body == b"/x"
    assert actor.story == ["start a1 0"]


async def test_actors_are_stopped_after_too_long_without_a_connection_and_the_engine_hears_of_it(host):
    actor = witness()
    async with scripted_engine() as engine:
        runner = await host(actor, endpoint=engine.endpoint)
        connection = await engine.connection(lost_ms=50)
        await connection.running()
        port = int(engine.endpoint.rpartition(":")[2])
    await asyncio.wait_for(actor.stopped.wait(), SOON_S)
    async with scripted_engine(port) as engine:
        again = await (await engine.connection()).take(ToServerEvents)
        running, stopped = (event.inner for event in again.events)
        assert running == RUNNING
        assert stopped.state.code is StopCode.ERROR
        await runner.shutdown(drain_s=0)


class TestShutdown:
    async def test_the_engine_takes_the_actors_away_before_the_runner_leaves(self, engine, host):
        actor = witness()
        runner = await host(actor)
        connection = await engine.connection()
        await connection.running()
        leaving = asyncio.create_task(runner.shutdown())
        await connection.take(ToServerStopping)
        assert (await connection.fetch("/still")).body == b"/still"
        await connection.command(stop())
        assert await connection.take_state() == ActorStateStopped(StopCode.OK, None)
        assert await connection.has_closed() == (1000, "pegboard.runner_shutdown")
        await asyncio.wait_for(leaving, SOON_S)
        assert actor.story == ["start a1 0", "stop a1 0"]

    async def test_an_actor_the_engine_does_not_take_in_time_ends_with_an_error(self, engine, host):
        # OK without a stop command would destroy the actor (PROTOCOL §4.6)
        actor = witness()
        runner = await host(actor)
        connection = await engine.connection()
        await connection.running()
        await runner.shutdown(drain_s=0)
        assert (await connection.take_state()).code is StopCode.ERROR
        assert actor.story == ["start a1 0", "stop a1 0"]

    async def test_eviction_ends_a_drain(self, engine, host):
        actor = witness()
        runner = await host(actor)
        connection = await engine.connection()
        await connection.running()
        leaving = asyncio.create_task(runner.shutdown())
        await connection.take(ToServerStopping)
        await connection.close(1000, "ws.eviction#ray")
        await asyncio.wait_for(leaving, SOON_S)
        assert actor.story == ["start a1 0", "stop a1 0"]

    async def test_a_hurried_shutdown_overtakes_a_patient_one(self, engine, host):
        runner = await host(witness())
        connection = await engine.connection()
        await connection.running()
        patient = asyncio.create_task(runner.shutdown())
        await connection.take(ToServerStopping)
        await asyncio.wait_for(runner.shutdown(drain_s=0), SOON_S)
        await asyncio.wait_for(patient, SOON_S)
        assert sum(isinstance(message, ToServerStopping) for message in connection.received) == 1

    async def test_a_shutdown_repeated_after_the_connection_is_gone_leaves_the_actors_their_goodbye(self, host):
        stopping, goodbye, story = asyncio.Event(), asyncio.Event(), []

        class Slow(Actor):
            async def on_stop(self, ctx):
                stopping.set()
                await goodbye.wait()
                story.append("goodbye")

        async with scripted_engine() as engine:
            runner = await host(Slow, endpoint=engine.endpoint)
            await (await engine.connection()).running()
        leaving = [asyncio.create_task(runner.shutdown())]
        await stopping.wait()
        leaving.append(asyncio.create_task(runner.shutdown(drain_s=0)))
        await asyncio.sleep(0)
        goodbye.set()
        await asyncio.wait_for(asyncio.gather(*leaving), SOON_S)
        await runner.wait_stopped()
        assert story == ["goodbye"]

    async def test_without_an_engine_it_is_over_at_once(self, unused_tcp_port):
        runner = Runner(endpoint=f"http://127.0.0.1:{unused_tcp_port}", pool="pool", actors={})
        await runner.start()
        await asyncio.wait_for(runner.shutdown(), SOON_S)
        with pytest.raises(RunnerStopped):
            await runner.wait_ready()

    async def test_a_runner_that_never_started_is_stopped(self):
        runner = Runner(pool="pool", actors={})
        await runner.shutdown()
        await asyncio.wait_for(runner.wait_stopped(), SOON_S)
        with pytest.raises(RunnerStopped):
            await runner.start()

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    async def test_a_signal_drains_and_a_second_one_hurries(self, engine, number):
        actor = witness()
        runner = Runner(endpoint=engine.endpoint, pool="pool", actors={"actor": actor})
        running = asyncio.create_task(runner.run())
        connection = await engine.connection()
        await connection.running()
        os.kill(os.getpid(), number)
        await connection.take(ToServerStopping)
        os.kill(os.getpid(), number)
        await asyncio.wait_for(running, SOON_S)
        assert actor.story == ["start a1 0", "stop a1 0"]

    async def test_cancelling_run_stops_the_actors(self, engine):
        actor = witness()
        runner = Runner(endpoint=engine.endpoint, pool="pool", actors={"actor": actor})
        running = asyncio.create_task(runner.run())
        connection = await engine.connection()
        await connection.running()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert actor.story == ["start a1 0", "stop a1 0"]


async def test_waiting_for_a_runner_may_begin_before_it_runs(engine):
    runner = Runner(endpoint=engine.endpoint, pool="pool", actors={})
    waiting = asyncio.create_task(runner.wait_ready())
    running = asyncio.create_task(runner.run())
    await engine.connection()
    await asyncio.wait_for(waiting, SOON_S)
    await runner.shutdown(drain_s=0)
    await asyncio.wait_for(running, SOON_S)
