"""An engine that does exactly what a test tells it, over a real socket: the other side of a runner."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from runners.protocol.codec import MAX_FRAME_BYTES, decode_to_server, encode_to_client
from runners.protocol.messages import (
    ActorCheckpoint,
    ActorConfig,
    ActorState,
    CommandStartActor,
    CommandStopActor,
    CommandWrapper,
    Event,
    EventActorStateUpdate,
    HibernatingRequest,
    MessageId,
    ProtocolMetadata,
    ToClient,
    ToClientCommands,
    ToClientInit,
    ToClientKvResponse,
    ToClientRequestStart,
    ToClientTunnelMessage,
    ToClientTunnelMessageKind,
    ToServer,
    ToServerEvents,
    ToServerInit,
    ToServerKvRequest,
    ToServerResponseStart,
    ToServerTunnelMessage,
    ToServerTunnelMessageKind,
)
from runners.sdk.testing.store import MemoryStore

SOON_S = 5.0
GATEWAY = b"gate"

K = TypeVar("K")


def start(
    actor_id: str = "a1",
    generation: int = 0,
    index: int = 0,
    *,
    name: str = "actor",
    key: str | None = None,
    given: bytes | None = None,
    hibernating: tuple[HibernatingRequest, ...] = (),
) -> CommandWrapper:
    command = CommandStartActor(ActorConfig(name, key, 1, given), hibernating)
    return CommandWrapper(ActorCheckpoint(actor_id, generation, index), command)


def stop(actor_id: str = "a1", generation: int = 0, index: int = 1) -> CommandWrapper:
    return CommandWrapper(ActorCheckpoint(actor_id, generation, index), CommandStopActor())


class Connection:
    """One connection of a runner. `received` is all it has said, in order; `take` waits and uses up."""

    def __init__(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        self.socket = socket
        self.path = urlsplit(socket.request.path).path
        self.query = dict(parse_qsl(urlsplit(socket.request.path).query))
        self.version = int(self.query["protocol_version"])
        self.offers = socket.request.headers.get("sec-websocket-protocol", "")
        self.received: list[ToServer] = []
        self._untaken: list[ToServer] = []
        self._news = asyncio.Event()
        self._request_ids = itertools.count(1)
        self.closed = asyncio.Event()
        self.stores: Mapping[str, MemoryStore] | None = None  # by actor, if the engine is to answer for them

    async def read(self) -> None:
        try:
            async for frame in self.socket:
                assert isinstance(frame, bytes)
                message = decode_to_server(frame, self.version)
                if self.stores is not None and isinstance(message, ToServerKvRequest):
                    answer = self.stores[message.actor_id].answer(message.data)
                    await self.send(ToClientKvResponse(message.request_id, answer))
                    continue
                self.received.append(message)
                self._untaken.append(message)
                self._news.set()
        except ConnectionClosed:
            pass
        finally:
            self.closed.set()

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

    async def take_event(self) -> tuple[ActorCheckpoint, Event]:
        """Return the next event; it must have come alone."""
        (wrapper,) = (await self.take(ToServerEvents)).events
        return wrapper.checkpoint, wrapper.inner

    async def take_state(self, actor_id: str = "a1", generation: int = 0) -> ActorState:
        """Return the next state of a life, passing over what else it has to tell."""

        def wanted(message: ToServerEvents) -> bool:
            return any(
                (event.checkpoint.actor_id, event.checkpoint.generation) == (actor_id, generation)
                and isinstance(event.inner, EventActorStateUpdate)
                for event in message.events
            )

        (event,) = (await self.take(ToServerEvents, wanted)).events
        assert isinstance(event.inner, EventActorStateUpdate)
        return event.inner.state

    async def send(self, *messages: ToClient) -> None:
        for message in messages:
            await self.socket.send(encode_to_client(message, self.version))

    async def welcome(
        self, runner_id: str = "run1", *, lost_ms: int = 15_000, stop_ms: int = 60_000, grace_ms: int | None = None
    ) -> ToServerInit:
        """Take the runner's init and answer it."""
        init = await self.take(ToServerInit)
        await self.greet(runner_id, lost_ms=lost_ms, stop_ms=stop_ms, grace_ms=grace_ms)
        return init

    async def greet(
        self, runner_id: str = "run1", *, lost_ms: int = 15_000, stop_ms: int = 60_000, grace_ms: int | None = None
    ) -> None:
        """Answer the runner's init."""
        await self.send(ToClientInit(runner_id, ProtocolMetadata(lost_ms, stop_ms, grace_ms)))

    async def command(self, *commands: CommandWrapper) -> None:
        await self.send(ToClientCommands(commands))

    async def running(self, **fields: Any) -> None:
        """Start an actor and see it run."""
        command = start(**fields)
        await self.command(command)
        await self.take_state(command.checkpoint.actor_id, command.checkpoint.generation)

    async def tunnel(self, request_id: bytes, kind: ToClientTunnelMessageKind, index: int = 0) -> None:
        await self.send(ToClientTunnelMessage(MessageId(GATEWAY, request_id, index), kind))

    async def ask(
        self,
        path: str = "/",
        *,
        actor_id: str = "a1",
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        stream: bool = False,
    ) -> bytes:
        """Send a request through the tunnel and return its id."""
        request_id = next(self._request_ids).to_bytes(4, "big")
        await self.tunnel(
            request_id, ToClientRequestStart(actor_id, method, path, headers or {}, body, stream=stream)
        )
        return request_id

    async def take_tunnel(self, request_id: bytes) -> ToServerTunnelMessageKind:
        """Return the next tunnel message of that request or WebSocket."""

        def wanted(message: ToServerTunnelMessage) -> bool:
            return message.message_id.request_id == request_id

        message = await self.take(ToServerTunnelMessage, wanted)
        assert message.message_id.gateway_id == GATEWAY
        return message.message_kind

    async def take_answer(self, request_id: bytes) -> ToServerResponseStart:
        kind = await self.take_tunnel(request_id)
        assert isinstance(kind, ToServerResponseStart)
        return kind

    async def fetch(self, path: str = "/", **fields: Any) -> ToServerResponseStart:
        """Send a request through the tunnel and return its answer."""
        return await self.take_answer(await self.ask(path, **fields))

    async def close(self, code: int = 1011, reason: str = "core.internal_error#ray") -> None:
        await self.socket.close(code, reason)
        await self.closed.wait()

    async def has_closed(self) -> tuple[int | None, str | None]:
        """Wait until the connection is closed; return code and reason the runner gave."""
        async with asyncio.timeout(SOON_S):
            await self.closed.wait()
        return self.socket.close_code, self.socket.close_reason


class ScriptedEngine:
    """Listens on a free port of loopback. `connection` returns the runners' connections as they come."""

    def __init__(self, port: int, connections: "asyncio.Queue[Connection]") -> None:
        self.endpoint = f"http://127.0.0.1:{port}"
        self.connections = connections

    async def connection(self, **welcome: Any) -> Connection:
        """Return the next connection, welcomed as `Connection.welcome` says."""
        connection = await self.greeted()
        await connection.welcome(**welcome)
        return connection

    async def greeted(self) -> Connection:
        """Return the next connection as it is."""
        async with asyncio.timeout(SOON_S):
            return await self.connections.get()


@asynccontextmanager
async def scripted_engine(port: int = 0) -> AsyncIterator[ScriptedEngine]:
    """Run an engine; its connections end with it."""
    connections: asyncio.Queue[Connection] = asyncio.Queue()

    async def handle(socket: ServerConnection) -> None:
        connection = Connection(socket)
        connections.put_nowait(connection)
        await connection.read()

    async with serve(
        handle,
        "127.0.0.1",
        port,
        subprotocols=[Subprotocol("rivet")],
        compression=None,
        max_size=MAX_FRAME_BYTES,
    ) as server:
        yield ScriptedEngine(server.sockets[0].getsockname()[1], connections)
