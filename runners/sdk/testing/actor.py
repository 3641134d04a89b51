"""An actor in a test, as its clients see it."""

import asyncio
import itertools
import json
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import httpx

from runners.protocol.messages import (
    ActorCheckpoint,
    ActorConfig,
    ActorIntentSleep,
    ActorStateRunning,
    ActorStateStopped,
    Command,
    CommandStartActor,
    CommandStopActor,
    CommandWrapper,
    Event,
    EventActorIntent,
    EventActorSetAlarm,
    EventActorStateUpdate,
    HibernatingRequest,
    MessageId,
    StopCode,
    ToClient,
    ToClientCommands,
    ToClientRequestAbort,
    ToClientRequestChunk,
    ToClientRequestStart,
    ToClientTunnelMessage,
    ToClientTunnelMessageKind,
    ToServerResponseAbort,
    ToServerResponseChunk,
    ToServerResponseStart,
    ToServerTunnelMessageKind,
)
from runners.sdk.errors import SdkError
from runners.sdk.testing.clock import ManualClock, ManualTimer
from runners.sdk.testing.socket import LocalSocket
from runners.sdk.testing.store import MemoryStore

GATEWAY = b"test"
NOT_HERE = "x-rivet-error"
TRY_AGAIN = ToServerResponseStart(503, {NOT_HERE: "runner.actor_not_found"}, None, stream=False)

_request_ids = itertools.count(1)


class ActorFailed(SdkError):
    """The actor could not start, or broke off; the text is the message of its end."""


class ActorGone(SdkError):
    """The actor has been destroyed."""


class LocalActor:
    """An actor of a LocalEngine. It starts when it is first needed, and wakes when it is needed again."""

    def __init__(
        self,
        actor_id: str,
        name: str,
        key: str | None,
        given: bytes | None,
        clock: ManualClock,
        tell: Callable[[ToClient], None],
    ) -> None:
        self.id = actor_id
        self.generation = -1
        self.is_destroyed = False
        self.store = MemoryStore()
        self.alarm: datetime | None = None
        self._config = ActorConfig(name, key, 0, given)
        self._clock = clock
        self._tell = tell
        self._state = "asleep"
        self._going = ""  # what it has asked for: sleep or end
        self._failure: str | None = None
        self._changed = asyncio.Event()
        self._sockets: dict[bytes, LocalSocket] = {}
        self._requests: dict[bytes, asyncio.Queue[ToServerTunnelMessageKind]] = {}
        self._answering: set[bytes] = set()  # the requests whose answers have begun
        self._alarm_timer: ManualTimer | None = None
        self._wakes: set[asyncio.Task[None]] = set()

    @property
    def is_awake(self) -> bool:
        """Whether it runs."""
        return self._state == "running"

    @property
    def kv(self) -> Mapping[bytes, bytes]:
        """What is in its store."""
        return self.store.entries

    async def wake(self) -> None:
        """Have it run; it may be about to stop. Raises ActorFailed if it cannot start, ActorGone."""
        while not self.is_awake:
            if self.is_destroyed:
                raise ActorGone(f"{self._config.name} {self.id} is destroyed")
            if self._state == "asleep":
                self._start()
            await self._news()
            if self._failure is not None and self._state == "asleep":
                raise ActorFailed(self._failure)

    async def sleep(self) -> None:
        """Put it to sleep, as an engine does that drains its runner, and wait until it sleeps."""
        while self._state == "starting":
            await self._news()
        if self.is_awake:
            self._going = self._going or "sleep"
            self._stop()
        await self.asleep()

    async def lose(self) -> None:
        """Have the engine believe that its runner is lost: it lives anew, and its former life can save nothing."""
        await self.wake()
        for socket in self._sockets.values():
            socket.actor_stopped(for_good=False)
        for request_id, answers in self._requests.items():
            answers.put_nowait(ToServerResponseAbort() if request_id in self._answering else TRY_AGAIN)
        self._become("asleep")
        await self.wake()

    async def asleep(self) -> None:
        """Wait until it sleeps, or is destroyed. Raises ActorFailed if it ends with an error instead."""
        while self._state not in ("asleep", "destroyed"):
            await self._news()
        if self._failure is not None:
            raise ActorFailed(self._failure)

    async def fetch(
        self,
        path: str = "/",
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: bytes | str | AsyncIterable[bytes] = b"",
        json: Any = None,
    ) -> httpx.Response:
        """Send a request and return the answer, of which the body is read to its end."""
        async with self.stream(path, method=method, headers=headers, body=body, json=json) as response:
            await response.aread()
        return response

    @asynccontextmanager
    async def stream(
        self,
        path: str = "/",
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: bytes | str | AsyncIterable[bytes] = b"",
        json: Any = None,
    ) -> AsyncIterator[httpx.Response]:
        """Send a request and give the answer while its body is still coming; leaving aborts it.

        A body that is an async iterable is sent in chunks.
        """
        request_id = next(_request_ids).to_bytes(4, "big")
        sent = {name.lower(): value for name, value in (headers or {}).items()}
        if json is not None:
            body, sent = _dumped(json), {"content-type": "application/json"} | sent
        answers: asyncio.Queue[ToServerTunnelMessageKind] = asyncio.Queue()
        self._requests[request_id] = answers
        try:
            start = await self._ask(request_id, answers, method, path, sent, body)
            lines = [(name, line) for name, value in start.headers.items() for line in value.split("\n")]
            content = _chunks(answers) if start.stream else (start.body or b"")
            yield httpx.Response(start.status, headers=lines, content=content)
        finally:
            del self._requests[request_id]
            self._answering.discard(request_id)
            self._request(request_id, 1, ToClientRequestAbort())

    async def websocket(self, path: str = "/", *, headers: Mapping[str, str] | None = None) -> LocalSocket:
        """Open a WebSocket. Raises WebSocketClosed if the actor refuses it."""
        request_id = next(_request_ids).to_bytes(4, "big")
        socket = self._sockets[request_id] = LocalSocket(self, GATEWAY, request_id)
        await socket.begin(path, {name.lower(): value for name, value in (headers or {}).items()})
        return socket

    def deliver(self, message: ToClientTunnelMessage) -> None:
        """Hand the runner a message."""
        self._tell(message)

    def heard(self, request_id: bytes, kind: ToServerTunnelMessageKind) -> None:
        """Take what the actor says on a request or a socket."""
        if (answers := self._requests.get(request_id)) is not None:
            answers.put_nowait(kind)
        elif (socket := self._sockets.get(request_id)) is not None:
            socket.heard(kind)

    def happened(self, event: Event, generation: int) -> None:
        """Take an event of the actor's, as an engine does (PROTOCOL §4.5)."""
        if generation != self.generation:
            return
        match event:
            case EventActorIntent(intent):
                self._going = self._going or ("sleep" if isinstance(intent, ActorIntentSleep) else "end")
                if self._state == "running":
                    self._stop()
            case EventActorSetAlarm(alarm_ts_ms):
                self._set_alarm(alarm_ts_ms)
            case EventActorStateUpdate(ActorStateRunning()):
                self._become("running")
                for socket in tuple(self._sockets.values()):
                    socket.replay()
            case EventActorStateUpdate(ActorStateStopped() as end):
                self._stopped(end)

    def knows(self, request_id: bytes) -> bool:
        """Whether this request or socket is the actor's."""
        return request_id in self._requests or request_id in self._sockets

    async def _ask(
        self,
        request_id: bytes,
        answers: "asyncio.Queue[ToServerTunnelMessageKind]",
        method: str,
        path: str,
        headers: dict[str, str],
        body: bytes | str | AsyncIterable[bytes],
    ) -> ToServerResponseStart:
        """Send a request until a life of the actor has answered it."""
        while True:
            await self.wake()
            whole = body.encode() if isinstance(body, str) else body
            if isinstance(whole, bytes):
                start = ToClientRequestStart(self.id, method, path, headers, whole or None, stream=False)
                self._request(request_id, 0, start)
            else:
                start = ToClientRequestStart(self.id, method, path, headers, None, stream=True)
                self._request(request_id, 0, start)
                async for chunk in whole:
                    self._request(request_id, 1, ToClientRequestChunk(chunk, finish=False))
                    await asyncio.sleep(0)
                self._request(request_id, 1, ToClientRequestChunk(b"", finish=True))
            answer = await answers.get()
            assert isinstance(answer, ToServerResponseStart)
            if NOT_HERE not in answer.headers:
                self._answering.add(request_id)
                return answer

    def _request(self, request_id: bytes, index: int, kind: ToClientTunnelMessageKind) -> None:
        self.deliver(ToClientTunnelMessage(MessageId(GATEWAY, request_id, index), kind))

    def _start(self) -> None:
        self.generation += 1
        self._failure = None
        self._going = ""
        self._become("starting")
        waiting = [HibernatingRequest(*socket.ids) for socket in self._sockets.values() if socket.hibernates]
        self._command(0, CommandStartActor(self._config, waiting))

    def _stop(self) -> None:
        self._become("stopping")
        self._command(1, CommandStopActor())

    def _command(self, index: int, command: Command) -> None:
        checkpoint = ActorCheckpoint(self.id, self.generation, index)
        self._tell(ToClientCommands([CommandWrapper(checkpoint, command)]))

    def _stopped(self, end: ActorStateStopped) -> None:
        self._failure = end.message if end.code is StopCode.ERROR else None
        self.is_destroyed = self._going == "end" or (end.code is StopCode.OK and self._going != "sleep")
        for request_id, socket in tuple(self._sockets.items()):
            socket.actor_stopped(for_good=self.is_destroyed)
            if not socket.open and not socket.unacknowledged:
                del self._sockets[request_id]
        self._become("destroyed" if self.is_destroyed else "asleep")
        if self.is_destroyed:
            self.store.entries.clear()
            self._set_alarm(None)
        elif any(socket.unacknowledged for socket in self._sockets.values()):
            self._wake_soon()
        elif self.alarm is not None and self.alarm <= self._clock.now():
            self._alarm_due()

    def _set_alarm(self, alarm_ts_ms: int | None) -> None:
        if self._alarm_timer is not None:
            self._alarm_timer.cancel()
        self.alarm = None if alarm_ts_ms is None else datetime.fromtimestamp(alarm_ts_ms / 1000, UTC)
        if self.alarm is not None:
            self._alarm_timer = self._clock.call_at(self.alarm, self._alarm_due)

    def _alarm_due(self) -> None:
        """Wake the actor, if it sleeps; otherwise the alarm is spent without effect (PROTOCOL §4.7)."""
        self.alarm = None
        if self._state == "asleep":
            self._wake_soon()

    def _wake_soon(self) -> None:
        task = asyncio.create_task(self.wake())
        self._wakes.add(task)
        task.add_done_callback(self._wakes.discard)

    def _become(self, state: str) -> None:
        self._state = state
        self._changed.set()
        self._changed = asyncio.Event()

    async def _news(self) -> None:
        await self._changed.wait()


async def _chunks(answers: "asyncio.Queue[ToServerTunnelMessageKind]") -> AsyncGenerator[bytes, None]:
    while True:
        kind = await answers.get()
        if isinstance(kind, ToServerResponseAbort):
            raise ActorFailed("the answer broke off")
        assert isinstance(kind, ToServerResponseChunk)
        if kind.body:
            yield kind.body
        if kind.finish:
            return


def _dumped(value: Any) -> bytes:
    return json.dumps(value).encode()
