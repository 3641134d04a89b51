"""What an engine may expect of any runner, one case each: the pitfalls of PROTOCOL §0 that are a runner's.

A case asks a running runner something over a scripted engine and says what was seen. `expected` is right;
`different` is what implementations are known to do instead.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runners.protocol.messages import (
    ActorCheckpoint,
    ActorIntentSleep,
    ActorStateRunning,
    ActorStateStopped,
    EventActorIntent,
    EventActorSetAlarm,
    EventActorStateUpdate,
    EventWrapper,
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
    ToServerResponseStart,
    ToServerStopping,
    ToServerTunnelMessage,
    ToServerWebSocketClose,
    ToServerWebSocketMessage,
    ToServerWebSocketMessageAck,
    ToServerWebSocketOpen,
)
from tests.support import kinds
from tests.support.endpoint import Application
from tests.support.scripted_engine import Connection, ScriptedEngine, start, stop
from tests.support.web import eventually

SILENCE_S = 1.0  # what has not been said by then is not said
SOON_S = 20.0
LARGEST_BYTES = 20 * 1024 * 1024

_ids = itertools.count(1)
_socket_ids = (number.to_bytes(4, "big") for number in itertools.count(2**24))  # far from the requests'


class Stage:
    """A runner of one kind and the engine it is connected to."""

    def __init__(self, kind: str, engine: ScriptedEngine, app: Application) -> None:
        self.kind, self.engine, self.app = kind, engine, app
        self.runner_ids = itertools.count(2)
        self.runner_id = "run1"
        self.connection: Connection

    async def meet(self) -> Connection:
        """Take the runner's next connection and welcome it."""
        async with asyncio.timeout(SOON_S):
            self.connection = await self.engine.connections.get()
        await self.connection.welcome(self.runner_id)
        return self.connection

    async def actor(self, **fields: Any) -> str:
        """Start an actor and return its id."""
        actor_id = f"actor{next(_ids)}"
        await self.connection.running(actor_id=actor_id, name="counter", **fields)
        return actor_id

    def events(self, actor_id: str) -> list[EventWrapper]:
        """Return what the present connection has heard of an actor."""
        heard = [m for m in self.connection.received if isinstance(m, ToServerEvents)]
        return [event for message in heard for event in message.events if event.checkpoint.actor_id == actor_id]

    async def has_said(self, actor_id: str, count: int) -> list[EventWrapper]:
        """Wait until so many events of an actor have come."""
        await eventually(lambda: len(self.events(actor_id)) >= count, SOON_S)
        return self.events(actor_id)

    async def answer(self, request_id: bytes) -> ToServerResponseStart | None:
        """Return the answer to a request, None if there is none for a while."""
        try:
            async with asyncio.timeout(SILENCE_S):
                return await self.connection.take_answer(request_id)
        except TimeoutError:
            return None

    async def said(self, kind: type[Any]) -> bool:
        """Say whether a message of that kind has come or comes soon."""
        try:
            async with asyncio.timeout(SILENCE_S):
                await self.connection.take(kind)
        except TimeoutError:
            return False
        return True

    async def journal(self, event: str, **fields: Any) -> bool:
        """Wait until the application tells that something has happened."""
        await eventually(lambda: self.app.events(event, **fields), SOON_S)
        return True


Probe = Callable[[Stage], Awaitable[object]]


@dataclass(frozen=True)
class Case:
    """One expectation. `alone`: the runner does not outlive it."""

    says: str
    pitfall: str
    probe: Probe
    expected: object
    different: Mapping[str, object] = field(default_factory=dict)
    alone: bool = False

    def outcome(self, kind: str) -> object:
        """Return what is to be seen of an implementation."""
        return self.different.get(kind, self.expected)


async def introduction(stage: Stage) -> object:
    connection = stage.connection
    offers = [offer.strip() for offer in connection.offers.split(",")]
    return type(connection.received[0]).__name__, connection.version == kinds.SPOKEN[stage.kind], "rivet" in offers


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
    if not opened.can_hibernate:
        await stage.connection.tunnel(socket, ToClientWebSocketClose(1000, None), index=1)
        return "does not hibernate"
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
    async with asyncio.timeout(SOON_S):
        stage.connection = await stage.engine.connections.get()
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


DIES = dict.fromkeys(kinds.NPM, "dies")
NO_ACK = dict.fromkeys(kinds.NPM, False)

CASES = {
    "init": Case(
        "introduces itself at once, in the version its address names, offering `rivet`",
        "1, 3",
        introduction,
        ("ToServerInit", True, True),
    ),
    "ping": Case("answers pings while an actor is busy", "5", ping_while_busy, (-5, True)),
    "dedupe": Case(
        "starts an actor once however often it is told", "7", repeated_start, 1, dict.fromkeys(kinds.NPM, 2)
    ),
    "acks": Case("acknowledges commands promptly", "8", prompt_acks, True, NO_ACK),
    "index": Case("takes a start of any index, and counts its events from 0", "21", later_index, (3, 0)),
    "foreign-stop": Case(
        "ignores the stop of another generation, and of a stranger", "§4.3", foreign_stop, (200, 1, 0)
    ),
    "sleep": Case(
        "serves until its stop comes after it has asked to sleep, and then stops with `OK`",
        "11, §4.11",
        stop_code_of_sleep,
        (2, "OK"),
        {"npm-2.2.1": (2, "ERROR")},
    ),
    "stream": Case(
        "answers a request whose body is streamed", "12", streamed_body, 200, dict.fromkeys(kinds.NPM, None)
    ),
    "get-body": Case("answers a GET that has a body", "13", body_of_a_get, 200, dict.fromkeys(kinds.NPM, 500)),
    "large": Case("takes a body of 20 MiB", "20", largest_body, (200, True)),
    "unknown-actor": Case(
        "answers a request for an actor it does not have",
        "14",
        unknown_actor,
        (503, "runner.actor_not_found"),
        dict.fromkeys(kinds.NPM, None),
    ),
    "alarm": Case("sends an alarm as an event with the next index", "22", alarm, (1, True)),
    "websocket": Case(
        "accepts a WebSocket and keeps text apart from data",
        "§5.4",
        websocket,
        (ToServerWebSocketOpen(can_hibernate=False), ToServerWebSocketMessage(b"hello", binary=False)),
    ),
    "gap": Case(
        "closes a hibernatable WebSocket at a gap",
        "15",
        gap_in_a_hibernatable_websocket,
        (1008, "ws.message_index_skip"),
        {"sdk": "does not hibernate"},
    ),
    "replay": Case(
        "says again after a reconnect what was not acknowledged, in order", "9", replay, [[0, 1, 2], [2]]
    ),
    "pong-after-replay": Case("answers a ping after all that it says again", "§4.5", pong_after_replay, 1),
    "key": Case("comes back with the key it had", "4", same_key, True),
    "new-id": Case("stops its actors when the engine gives it another id", "10", changed_runner_id, (True, 0)),
    "trailing": Case(
        "goes on after a frame with a trailing byte",
        "2",
        bad_frame(b"\x05" + bytes(8) + b"\0"),
        "goes on",
        DIES,
        alone=True,
    ),
    "tag": Case("goes on after a message it does not know", "2", bad_frame(b"\x63"), "goes on", DIES, alone=True),
    "text": Case("goes on after a text frame", "2", bad_frame("text"), "goes on", DIES, alone=True),
    "leaving": Case(
        "says that it goes, serves until its actors are stopped, and hangs up",
        "§4.9",
        leaving,
        (1000, "pegboard.runner_shutdown"),
        alone=True,
    ),
    "eviction": Case("never comes back after `ws.eviction`", "4", eviction, True, alone=True),
}


async def first_meeting(kind: str, engine: ScriptedEngine, directory: Path) -> Stage:
    """Start a runner of that kind and welcome it."""
    stage = Stage(kind, engine, kinds.start(kind, directory, engine.endpoint, "pool"))
    stage.app.start()
    await stage.meet()
    assert isinstance(stage.connection.received[0], ToServerInit)
    return stage
