"""A runner that does what a test tells it, over a real socket: the other side of the engine.

By default it obeys: it starts and stops actors as it is told, keeps its events until they are acknowledged and
says them again when it comes back, as the npm client does (PROTOCOL §4), and answers requests with `answer`.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from urllib.parse import urlencode

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from runners.protocol.codec import decode_to_client, encode_to_server
from runners.protocol.messages import (
    ActorCheckpoint,
    ActorIntentSleep,
    ActorIntentStop,
    ActorStateRunning,
    ActorStateStopped,
    CommandStartActor,
    CommandStopActor,
    CommandWrapper,
    Event,
    EventActorIntent,
    EventActorStateUpdate,
    EventWrapper,
    MessageId,
    StopCode,
    ToClient,
    ToClientAckEvents,
    ToClientCommands,
    ToClientInit,
    ToClientPing,
    ToClientRequestStart,
    ToClientTunnelMessage,
    ToServer,
    ToServerEvents,
    ToServerInit,
    ToServerPong,
    ToServerResponseChunk,
    ToServerResponseStart,
    ToServerTunnelMessage,
    ToServerTunnelMessageKind,
)

SOON_S = 10.0
MAX_BYTES = 48 * 1024 * 1024

RUNNING = EventActorStateUpdate(ActorStateRunning())
STOPPED = EventActorStateUpdate(ActorStateStopped(StopCode.OK, None))
CRASHED = EventActorStateUpdate(ActorStateStopped(StopCode.ERROR, "it crashed"))
SLEEP = EventActorIntent(ActorIntentSleep())
STOP = EventActorIntent(ActorIntentStop())

K = TypeVar("K")
Life = tuple[str, int]
"""Actor id and generation."""


def socket_url(url: str, key: str | None = "key", namespace: str | None = "default", version: object = 7) -> str:
    """Return the address of the runner socket; what is None is left out."""
    values = {"protocol_version": version, "namespace": namespace, "runner_key": key}
    query = urlencode({name: value for name, value in values.items() if value is not None})
    return f"{url.replace('http', 'ws', 1)}/runners/connect?{query}"


def dial(url: str, offers: Sequence[str] = ("rivet",), headers: Mapping[str, str] | None = None) -> connect:
    """Open a WebSocket as the tests need it: no compression, no limit, no pings of its own."""
    return connect(
        url,
        subprotocols=list(offers) or None,  # type: ignore[arg-type]
        additional_headers=headers,
        compression=None,
        max_size=MAX_BYTES,
        ping_interval=None,
        proxy=None,
    )


async def end_of(socket: ClientConnection) -> tuple[int | None, str]:
    """Wait until the engine has closed a WebSocket and return the code and reason."""
    async with asyncio.timeout(SOON_S):
        await socket.wait_closed()
    return socket.close_code, without_ray(socket.close_reason or "")


class Request:
    """A request that has reached the runner, to be answered in whatever way."""

    def __init__(self, runner: "ScriptedRunner", message_id: MessageId, start: ToClientRequestStart) -> None:
        self.start = start
        self.id = message_id
        self._runner = runner
        self._index = 0

    async def send(self, *kinds: ToServerTunnelMessageKind) -> None:
        for kind in kinds:
            place = MessageId(self.id.gateway_id, self.id.request_id, self._index)
            self._index += 1
            await self._runner.send(ToServerTunnelMessage(place, kind))

    async def answer(
        self, body: bytes | None = b"hello", status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        await self.send(ToServerResponseStart(status, headers or {}, body, stream=False))

    async def begin(self, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> None:
        await self.send(ToServerResponseStart(200, headers or {}, body, stream=True))

    async def chunk(self, body: bytes, *, finish: bool = False) -> None:
        await self.send(ToServerResponseChunk(body, finish))


async def tell(request: Request) -> None:
    """Answer with what the runner knows of the request."""
    start = request.start
    told = {"actor": start.actor_id, "method": start.method, "path": start.path, "headers": dict(start.headers)}
    told |= {"generation": request._runner.lives.get(start.actor_id), "body_bytes": len(start.body or b"")}
    await request.answer(json.dumps(told).encode(), headers={"content-type": "application/json"})


class ScriptedRunner:
    """One runner over all its connections. `received` is all it was ever sent; `take` waits and uses up."""

    def __init__(
        self,
        url: str,
        *,
        key: str = "key",
        pool: str = "pool",
        namespace: str = "default",
        version: int = 7,
        slots: int = 10,
        release: int = 1,
        names: Mapping[str, str] | None = None,
        metadata: str | None = None,
        offers: Sequence[str] = ("rivet",),
        obeys: bool = True,
        pongs: bool = True,
        answer: Callable[[Request], Any] = tell,
    ) -> None:
        self.url = socket_url(url, key, namespace, version)
        self.version = version
        self.init = ToServerInit(pool, release, slots, names, metadata)
        self.offers = offers
        self.obeys, self.pongs, self.answer = obeys, pongs, answer
        self.received: list[ToClient] = []
        self.lives: dict[str, int] = {}  # generation by actor
        self.started: list[Life] = []
        self.stopped: list[Life] = []
        self.requests: list[Request] = []
        self.runner_id = ""
        self.welcome: ToClientInit | None = None
        self.first_words: tuple[ToServer, ...] = ()  # said at once, before the engine's init is there
        self._history: dict[str, list[EventWrapper]] = {}  # like the npm client: by actor alone
        self._indexes: dict[str, int] = {}  # of the last event of each actor's present life
        self._untaken: list[ToClient] = []
        self._news = asyncio.Event()
        self._socket: ClientConnection | None = None
        self._reader: asyncio.Task[None] | None = None
        self._answers: set[asyncio.Task[None]] = set()

    @property
    def socket(self) -> ClientConnection:
        assert self._socket is not None, "the runner is not connected"
        return self._socket

    async def connect(self) -> ToClientInit:
        """Connect, introduce itself and wait for the engine's init."""
        self._socket = await dial(self.url, self.offers)
        self._reader = asyncio.create_task(self._read(self._socket))
        await self.send(self.init, *self.first_words)
        self.welcome = await self.take(ToClientInit)
        return self.welcome

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the connection in an orderly way."""
        await self.socket.close(code, reason)
        await self._has_ended()

    async def drop(self) -> None:
        """Lose the connection as when a cable is cut."""
        self.socket.transport.abort()
        await self._has_ended()

    async def has_closed(self) -> tuple[int | None, str]:
        """Wait until the engine has closed the connection; return code and reason without the ray id."""
        async with asyncio.timeout(SOON_S):
            await self.socket.wait_closed()
        return self.socket.close_code, without_ray(self.socket.close_reason)

    async def send(self, *messages: ToServer) -> None:
        for message in messages:
            await self.socket.send(encode_to_server(message, self.version))

    def event(self, actor_id: str, event: Event, generation: int | None = None) -> EventWrapper:
        """Return an event of an actor with its number, and remember it."""
        of = self.lives[actor_id] if generation is None else generation
        index = self._indexes[actor_id] = self._indexes.get(actor_id, -1) + 1
        wrapper = EventWrapper(ActorCheckpoint(actor_id, of, index), event)
        self._history.setdefault(actor_id, []).append(wrapper)
        return wrapper

    async def say(self, actor_id: str, *events: Event, generation: int | None = None) -> None:
        """Tell the engine events of an actor, each in a message of its own."""
        for event in events:
            await self.send(ToServerEvents((self.event(actor_id, event, generation),)))

    async def take(self, kind: type[K], wanted: Callable[[K], bool] = lambda message: True) -> K:
        """Return the first message of that kind not taken yet, waiting for it, and use it up."""
        async with asyncio.timeout(SOON_S):
            while True:
                for message in self._untaken:
                    if isinstance(message, kind) and wanted(message):
                        self._untaken.remove(message)
                        return message
                self._news.clear()
                await self._news.wait()

    async def take_command(self) -> CommandWrapper:
        """Return the next command, which must have come alone."""
        (command,) = (await self.take(ToClientCommands)).commands
        return command

    async def take_request(self) -> Request:
        """Return the next request that nobody has taken."""

        def wanted(message: ToClientTunnelMessage) -> bool:
            return isinstance(message.message_kind, ToClientRequestStart)

        message = await self.take(ToClientTunnelMessage, wanted)
        return next(request for request in self.requests if request.id == message.message_id)

    def commands(self) -> list[CommandWrapper]:
        """Return every command received so far, in order."""
        return [
            one for message in self.received if isinstance(message, ToClientCommands) for one in message.commands
        ]

    async def obey(self, command: CommandWrapper) -> None:
        """Do as it is told."""
        actor_id, generation = command.checkpoint.actor_id, command.checkpoint.generation
        match command.inner:
            case CommandStartActor():
                self.lives[actor_id] = generation
                self._history[actor_id] = []
                self._indexes[actor_id] = -1
                self.started.append((actor_id, generation))
                await self.say(actor_id, RUNNING)
            case CommandStopActor():
                if self.lives.get(actor_id) != generation:
                    return
                await self.say(actor_id, STOPPED)
                self.stopped.append((actor_id, generation))
                del self.lives[actor_id]
                del self._history[actor_id]

    def forget(self) -> None:
        """Lose everything, as a restarted process does that keeps its key."""
        self.lives.clear()
        self._history.clear()
        self._indexes.clear()

    async def _read(self, socket: ClientConnection) -> None:
        try:
            async for frame in socket:
                assert isinstance(frame, bytes), "the engine sends binary frames only"
                await self._take_in(decode_to_client(frame, self.version))
        except ConnectionClosed:
            pass
        finally:
            self._news.set()

    async def _take_in(self, message: ToClient) -> None:
        match message:
            case ToClientInit(runner_id):
                await self._welcomed(runner_id)
            case ToClientPing(ts) if self.pongs:
                await self.send(ToServerPong(ts))
            case ToClientCommands(commands) if self.obeys:
                for command in commands:
                    await self.obey(command)
            case ToClientAckEvents(checkpoints):
                for one in checkpoints:
                    kept = self._history.get(one.actor_id, [])
                    self._history[one.actor_id] = [e for e in kept if e.checkpoint.index > one.index]
            case ToClientTunnelMessage(message_id, ToClientRequestStart() as start):
                self._requested(Request(self, message_id, start))
        self.received.append(message)
        self._untaken.append(message)
        self._news.set()

    async def _welcomed(self, runner_id: str) -> None:
        if runner_id != self.runner_id:
            self.forget()
        self.runner_id = runner_id
        if events := tuple(event for history in self._history.values() for event in history):
            await self.send(ToServerEvents(events))

    def _requested(self, request: Request) -> None:
        self.requests.append(request)
        if request.start.actor_id in self.lives:
            task = asyncio.create_task(self.answer(request))
            self._answers.add(task)
            task.add_done_callback(self._answers.discard)

    async def _has_ended(self) -> None:
        assert self._reader is not None
        await self._reader

    async def end(self) -> None:
        """Leave nothing behind."""
        if self._socket is not None:
            await self._socket.close()
            await self._has_ended()
        for task in self._answers:
            task.cancel()


def without_ray(reason: str | None) -> str:
    """Return `group.code` of a close reason, which has to name a ray id too."""
    code, _, ray = (reason or "").partition("#")
    assert len(ray) == 30, f"no ray id in the reason {reason!r}"
    return code


@asynccontextmanager
async def connected(url: str, **options: Any) -> AsyncIterator[ScriptedRunner]:
    """Give a runner that is connected."""
    runner = ScriptedRunner(url, **options)
    try:
        await runner.connect()
        yield runner
    finally:
        await runner.end()
