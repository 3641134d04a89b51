"""Clients' WebSockets as a scripted runner sees them, and the clients."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from websockets.asyncio.client import ClientConnection

from runners.protocol.messages import (
    HibernatingRequest,
    MessageId,
    ToClientTunnelMessage,
    ToClientWebSocketClose,
    ToClientWebSocketMessage,
    ToClientWebSocketOpen,
    ToServerTunnelMessage,
    ToServerTunnelMessageKind,
    ToServerWebSocketClose,
    ToServerWebSocketMessage,
    ToServerWebSocketMessageAck,
    ToServerWebSocketOpen,
)
from tests.support.scripted_runner import ScriptedRunner, dial, without_ray

K = TypeVar("K")


class ActorSocket:
    """One WebSocket at the actor's end. `take` waits for the next message and notes its index."""

    def __init__(self, runner: ScriptedRunner, pair: HibernatingRequest) -> None:
        self.runner, self.pair = runner, pair
        self.index = 0  # of the message taken last
        self._sent = 0

    def on(self, runner: ScriptedRunner) -> "ActorSocket":
        """Return the same WebSocket at another runner."""
        return ActorSocket(runner, self.pair)

    async def say(self, *kinds: ToServerTunnelMessageKind) -> None:
        for kind in kinds:
            place = MessageId(self.pair.gateway_id, self.pair.request_id, self._sent % 2**16)
            self._sent += 1
            await self.runner.send(ToServerTunnelMessage(place, kind))

    def lose(self) -> None:
        """Say something that a broken connection takes along."""
        self._sent += 1

    def say_again(self) -> None:
        """Let what is said next be what was said last."""
        self._sent -= 1

    async def accept(self, *, can_hibernate: bool = False) -> None:
        await self.say(ToServerWebSocketOpen(can_hibernate))

    async def send(self, message: str | bytes) -> None:
        data = message.encode() if isinstance(message, str) else message
        await self.say(ToServerWebSocketMessage(data, binary=isinstance(message, bytes)))

    async def ack(self, index: int) -> None:
        await self.say(ToServerWebSocketMessageAck(index))

    async def close(self, code: int | None = None, reason: str | None = None, *, hibernate: bool = False) -> None:
        await self.say(ToServerWebSocketClose(code, reason, hibernate))

    async def take(self, kind: type[K]) -> K:
        """Return the next message of the client, which must be of this kind."""

        def of_this_socket(message: ToClientTunnelMessage) -> bool:
            return message.message_id.request_id == self.pair.request_id

        message = await self.runner.take(ToClientTunnelMessage, of_this_socket)
        assert isinstance(message.message_kind, kind), message
        self.index = message.message_id.message_index
        return message.message_kind

    async def take_text(self) -> str:
        message = await self.take(ToClientWebSocketMessage)
        assert not message.binary
        return message.data.decode()

    async def take_close(self, *, confirm: bool = True) -> tuple[int | None, str | None]:
        """Return code and reason of the client's close; a client of the protocol closes then too."""
        close = await self.take(ToClientWebSocketClose)
        if confirm:
            await self.close(close.code, close.reason)
        return close.code, close.reason


async def take_open(runner: ScriptedRunner) -> tuple[ActorSocket, ToClientWebSocketOpen]:
    """Wait for a client's WebSocket, and return it with what was asked."""

    def wanted(message: ToClientTunnelMessage) -> bool:
        return isinstance(message.message_kind, ToClientWebSocketOpen)

    message = await runner.take(ToClientTunnelMessage, wanted)
    assert message.message_id.message_index == 0
    assert isinstance(message.message_kind, ToClientWebSocketOpen)
    ids = message.message_id
    return ActorSocket(runner, HibernatingRequest(ids.gateway_id, ids.request_id)), message.message_kind


async def take_accepted(runner: ScriptedRunner, *, can_hibernate: bool = False) -> ActorSocket:
    """Wait for a client's WebSocket and accept it."""
    socket, _ = await take_open(runner)
    await socket.accept(can_hibernate=can_hibernate)
    return socket


async def take_opened(
    runner: ScriptedRunner, client: ClientConnection, *, can_hibernate: bool = False
) -> ActorSocket:
    """Accept a client's WebSocket and wait until it is open: if the actor ends sooner, the next one is asked."""
    socket = await take_accepted(runner, can_hibernate=can_hibernate)
    await socket.send("open")
    assert await client.recv() == "open"
    return socket


def gateway_url(engine_url: str, path: str) -> str:
    return f"{engine_url.replace('http', 'ws', 1)}/gateway/{path}"


@asynccontextmanager
async def client_of(
    engine_url: str, path: str, offers: Sequence[str] = (), **headers: str
) -> AsyncIterator[ClientConnection]:
    """Connect a client to an actor; it hangs up in the end."""
    async with dial(gateway_url(engine_url, path), offers, headers) as client:
        yield client


async def closed(client: Any) -> tuple[int, str]:
    """Wait until the gateway or the actor has closed the client's side; return code and reason."""
    await client.wait_closed()
    return client.close_code, client.close_reason


async def refused(client: Any) -> tuple[int, str]:
    """Wait until the gateway has closed the client's side; return code and reason without the ray id."""
    code, reason = await closed(client)
    return code, without_ray(reason)
