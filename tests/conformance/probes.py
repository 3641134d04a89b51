"""What the cases ask of a runner: each probe returns what was seen."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable

from runners.protocol.messages import (
    ActorCheckpoint,
    ActorIntentSleep,
    ActorStateRunning,
    ActorStateStopped,
    EventActorIntent,
    EventActorSetAlarm,
    EventActorStateUpdate,
    ProtocolMetadata,
    ToClientAckEvents,
    ToClientInit,
    ToClientPing,
    ToClientRequestChunk,
    ToClientWebSocketClose,
    ToClientWebSocketMessage,
    ToClientWebSocketOpen,
    ToServerAckCommands,
    ToServerEvents,
    ToServerInit,
    ToServerPong,
    ToServerStopping,
    ToServerTunnelMessage,
    ToServerWebSocketClose,
    ToServerWebSocketMessageAck,
    ToServerWebSocketOpen,
)
from tests.conformance.stage import SILENCE_S, Stage
from tests.support.kinds import SPOKEN
from tests.support.scripted_engine import start, stop
from tests.support.web import eventually

Probe = Callable[[Stage], Awaitable[object]]

LARGEST_BYTES = 20 * 1024 * 1024

_socket_ids = (number.to_bytes(4, "big") for number in itertools.count(2**24))  # far from the requests'


async def introduction(stage: Stage) -> object:
    connection = stage.connection
    offers = [offer.strip() for offer in connection.offers.split(",")]
    return type(connection.received[0]).__name__, connection.version == SPOKEN[stage.kind], "rivet" in offers


async def ping_while_busy(stage: Stage) -> object:
    actor_id = await stage.actor()
    slow = await stage.connection.ask("/slow?ms=700", actor_id=actor_id)
    await stage.connection.send(ToClientPing(-5))
    pong = await stage.connection.take(ToServerPong)
    answered = [m for m in stage.connection.received if isinstance(m, ToServerTunnelMessage)]
    waits = not [m for m in answered if m.message_id.request_id == slow]
    await stage.connection.take_answer(slow)
    return pong.ts_ms, waits


async def repeated_start(stage: Stage) -> object:
    actor_id = await stage.actor()
    await stage.connection.fetch("/", actor_id=actor_id)
    await stage.connection.command(start(actor_id, name="counter"))
    await stage.connection.fetch("/", actor_id=actor_id)
    return len([e for e in stage.events(actor_id) if e.inner == EventActorStateUpdate(ActorStateRunning())])


async def prompt_acks(stage: Stage) -> object:
    await stage.actor()
    return await stage.said(ToServerAckCommands)


async def later_index(stage: Stage) -> object:
    actor_id = await stage.actor(generation=3, index=1)
    [running] = stage.events(actor_id)
    return running.checkpoint.generation, running.checkpoint.index


async def foreign_stop(stage: Stage) -> object:
    actor_id = await stage.actor(generation=1)
    await stage.connection.command(stop(actor_id, generation=0, index=5))
    await stage.connection.command(stop("nobody", generation=0, index=5))
    answer = await stage.connection.fetch("/", actor_id=actor_id)
    return answer.status, len(stage.events(actor_id)), len(stage.events("nobody"))


async def stop_code_of_sleep(stage: Stage) -> object:
    actor_id = await stage.actor()
    answer = await stage.connection.fetch("/sleep", actor_id=actor_id)
    _, intent = await stage.has_said(actor_id, 2)
    assert intent.inner == EventActorIntent(ActorIntentSleep())
    assert (await stage.connection.fetch("/", actor_id=actor_id)).status == answer.status == 200  # it still serves
    await stage.connection.command(stop(actor_id))
    stopped = (await stage.has_said(actor_id, 3))[-1]
    assert isinstance(stopped.inner, EventActorStateUpdate)
    assert isinstance(stopped.inner.state, ActorStateStopped)
    return stopped.checkpoint.index, stopped.inner.state.code.name


async def streamed_body(stage: Stage) -> object:
    actor_id = await stage.actor()
    request_id = await stage.connection.ask("/length", actor_id=actor_id, method="POST", stream=True)
    await stage.connection.tunnel(request_id, ToClientRequestChunk(b"abc", finish=True), index=1)
    answer = await stage.answer(request_id)
    return None if answer is None else answer.status


async def body_of_a_get(stage: Stage) -> object:
    actor_id = await stage.actor()
    return (await stage.connection.fetch("/", actor_id=actor_id, body=b"body")).status


async def largest_body(stage: Stage) -> object:
    actor_id = await stage.actor()
    answer = await stage.connection.fetch("/length", actor_id=actor_id, method="POST", body=bytes(LARGEST_BYTES))
    return answer.status, str(LARGEST_BYTES).encode() in (answer.body or b"")


async def unknown_actor(stage: Stage) -> object:
    answer = await stage.answer(await stage.connection.ask("/", actor_id="nobody"))
    return None if answer is None else (answer.status, answer.headers.get("x-rivet-error"))


async def alarm(stage: Stage) -> object:
    actor_id = await stage.actor()
    answer = await stage.connection.fetch("/alarm?ms=60000", actor_id=actor_id)
    event = (await stage.has_said(actor_id, 2))[-1]
    assert isinstance(event.inner, EventActorSetAlarm)
    return event.checkpoint.index, str(event.inner.alarm_ts_ms).encode() in (answer.body or b"")


async def websocket(stage: Stage) -> object:
    actor_id = await stage.actor()
    socket = next(_socket_ids)
    await stage.connection.tunnel(socket, ToClientWebSocketOpen(actor_id, "/ws", {}))
    opened = await stage.connection.take_tunnel(socket)
    await stage.connection.tunnel(socket, ToClientWebSocketMessage(b"hello", binary=False), index=1)
    echo = await stage.connection.take_tunnel(socket)
    await stage.connection.tunnel(socket, ToClientWebSocketClose(1000, None), index=2)
    return opened, echo


async def gap_in_a_hibernatable_websocket(stage: Stage) -> object:
    actor_id = await stage.actor()
    socket = next(_socket_ids)
    await stage.connection.tunnel(socket, ToClientWebSocketOpen(actor_id, "/hibernate", {}))
    opened = await stage.connection.take_tunnel(socket)
    assert isinstance(opened, ToServerWebSocketOpen)
    assert opened.can_hibernate
    await stage.connection.tunnel(socket, ToClientWebSocketMessage(b"1", binary=True), index=1)
    said = [await stage.connection.take_tunnel(socket) for _ in range(2)]
    assert ToServerWebSocketMessageAck(1) in said
    await stage.connection.tunnel(socket, ToClientWebSocketMessage(b"3", binary=True), index=3)
    closed = await stage.connection.take_tunnel(socket)
    assert isinstance(closed, ToServerWebSocketClose)
    return closed.code, closed.reason


async def replay(stage: Stage) -> object:
    """Cut the connection twice; in between, acknowledge one of three events."""
    actor_id = await stage.actor()
    for _ in range(2):
        await stage.connection.fetch("/alarm?ms=60000", actor_id=actor_id)
    await stage.has_said(actor_id, 3)
    said = []
    for _ in range(2):
        await stage.connection.close()
        await stage.meet()
        again = await stage.has_said(actor_id, 1)
        said.append([event.checkpoint.index for event in again])
        await stage.connection.send(ToClientAckEvents((ActorCheckpoint(actor_id, 0, 1),)))
        answer = await stage.connection.fetch("/", actor_id=actor_id)
        assert answer.status == 200
    return said


async def pong_after_replay(stage: Stage) -> object:
    """Ping together with the init, as the engine does: it takes the pong as the end of what is said again."""
    actor_id = await stage.actor()
    await stage.connection.close()
    await stage.next_connection()
    await stage.connection.take(ToServerInit)
    init = ToClientInit(stage.runner_id, ProtocolMetadata(15_000, 60_000, None))
    await stage.connection.send(init, ToClientPing(7))
    await stage.connection.take(ToServerPong)
    return len(stage.events(actor_id))


async def same_key(stage: Stage) -> object:
    key = stage.connection.query["runner_key"]
    await stage.connection.close(1000, "ws.closed")
    await stage.meet()
    return stage.connection.query["runner_key"] == key


async def changed_runner_id(stage: Stage) -> object:
    actor_id = await stage.actor()
    await stage.connection.close()
    stage.runner_id = f"run{next(stage.runner_ids)}"
    await stage.meet()
    stopped = await stage.journal("actor_stop", actorId=actor_id)
    await stage.actor()  # it goes on under its new id
    return stopped, len([e for e in stage.events(actor_id) if isinstance(e.inner, EventActorSetAlarm)])


async def leaving(stage: Stage) -> object:
    actor_id = await stage.actor()
    stage.app.ask_to_end()
    await stage.connection.take(ToServerStopping)
    assert (await stage.connection.fetch("/", actor_id=actor_id)).status == 200
    await stage.connection.command(*(stop(actor_id=other) for other in stage_actors(stage)))
    await stage.connection.take_state(actor_id)
    return await stage.connection.has_closed()


def stage_actors(stage: Stage) -> list[str]:
    """Return the actors that the present connection has heard of."""
    heard = [m for m in stage.connection.received if isinstance(m, ToServerEvents)]
    return list(dict.fromkeys(event.checkpoint.actor_id for message in heard for event in message.events))


async def eviction(stage: Stage) -> object:
    await stage.connection.close(1000, "ws.eviction#ray")
    await stage.journal("evicted")
    await asyncio.sleep(1.5)  # the first pause before a reconnect is over
    return stage.engine.connections.empty()


def bad_frame(frame: bytes | str) -> Probe:
    """Return a probe that sends a frame no engine should send, and says what becomes of the runner."""

    async def probe(stage: Stage) -> object:
        actor_id = await stage.actor()
        await stage.connection.socket.send(frame)
        try:  # the last thing a process does may be to answer
            await eventually(lambda: not stage.app.alive, SILENCE_S)
        except TimeoutError:
            return "goes on" if (await stage.connection.fetch("/", actor_id=actor_id)).status == 200 else "fails"
        return "dies"

    return probe
