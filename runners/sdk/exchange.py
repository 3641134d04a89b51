"""One request or WebSocket of a client, from its arrival in the tunnel to its end (PROTOCOL §5)."""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable

from runners.errors import RunnerProtocolError
from runners.protocol.codec import encode_to_server
from runners.protocol.messages import (
    MessageId,
    ToServerResponseStart,
    ToServerTunnelMessage,
    ToServerTunnelMessageKind,
    ToServerWebSocketOpen,
)
from runners.sdk.actor import Actor
from runners.sdk.context import Context
from runners.sdk.errors import WebSocketClosed
from runners.sdk.http import Request, Response
from runners.sdk.outbox import Outbox
from runners.sdk.session.reconnect import PROTOCOL_VERSION
from runners.sdk.websocket import WebSocket

ACTOR_NOT_FOUND = "runner.actor_not_found"

log = logging.getLogger(__name__)


class Channel:
    """The runner's side of one request or WebSocket: sends its messages, numbered from 0 (u16, wrapping)."""

    def __init__(self, gateway_id: bytes, request_id: bytes, outbox: Outbox) -> None:
        self._gateway_id = gateway_id
        self._request_id = request_id
        self._outbox = outbox
        self._index = 0
        self._silent = False

    def send(self, kind: ToServerTunnelMessageKind) -> None:
        """Queue a message, to be sent on this connection or the next.

        Raises RunnerProtocolError for what the tunnel does not take, such as more than 20 MiB: sent, it would cost
        the runner its connection (PROTOCOL pitfall 20).
        """
        if self._silent:
            return
        message_id = MessageId(self._gateway_id, self._request_id, self._index)
        frame = encode_to_server(ToServerTunnelMessage(message_id, kind), PROTOCOL_VERSION)
        self._outbox.put(frame, durable=True)
        self._index = (self._index + 1) % 2**16

    async def room(self) -> None:
        """Wait while too much is queued."""
        await self._outbox.room()

    def silence(self) -> None:
        """Send nothing any more."""
        self._silent = True


class Exchange(ABC):
    """What an actor's life needs to know of a request or WebSocket."""

    def __init__(self, channel: Channel, finished: Callable[["Exchange"], None]) -> None:
        self._channel = channel
        self._finished = finished
        self._over = False
        self.task: asyncio.Task[None] | None = None

    def begin(self, actor: Actor, ctx: Context) -> None:
        """Start serving, in `task`, unless it is over already."""
        if not self._over:
            self.task = asyncio.create_task(self._serve(actor, ctx))
            self.task.add_done_callback(lambda _: self.cut())

    def cut(self) -> None:
        """End it at once, without another word to the client."""
        if self._over:
            return
        self._over = True
        self._channel.silence()
        if self.task is not None:
            self.task.cancel()
        self._finished(self)

    def refuse(self) -> None:
        """End it at once, unless it is over, and tell the gateway that the actor is not here: it tries again."""
        if not self._over:
            self._say_not_here()
            self.cut()

    def actor_stops(self) -> None:
        """Hear that the actor is about to stop; a request simply goes on to its answer."""
        return

    @abstractmethod
    async def _serve(self, actor: Actor, ctx: Context) -> None:
        """Serve it to its end; raise nothing."""

    @abstractmethod
    def _say_not_here(self) -> None:
        """Tell the gateway that this runner does not have the actor."""


class HttpExchange(Exchange):
    """A request, answered exactly once or cut."""

    def __init__(self, channel: Channel, finished: Callable[[Exchange], None], request: Request) -> None:
        super().__init__(channel, finished)
        self._request = request

    async def _serve(self, actor: Actor, ctx: Context) -> None:
        answer = await self._ask(actor, ctx)
        await self._channel.room()
        try:
            self._channel.send(answer)
        except RunnerProtocolError:
            log.exception("an answer does not fit into the tunnel", extra=_fields(ctx, "response_refused"))
            self._channel.send(INTERNAL_ERROR)
        self._channel.silence()  # one answer, even if the life is cut off before this task is seen to be done

    async def _ask(self, actor: Actor, ctx: Context) -> ToServerResponseStart:
        try:
            return wire_response(await actor.fetch(ctx, self._request))
        except Exception:
            log.exception("a request handler failed", extra=_fields(ctx, "fetch_failed"))
        except asyncio.CancelledError:
            if self._over:
                raise
            log.exception("a request handler was cancelled from within", extra=_fields(ctx, "fetch_failed"))
        return INTERNAL_ERROR

    def _say_not_here(self) -> None:
        self._channel.send(ToServerResponseStart(503, {"x-rivet-error": ACTOR_NOT_FOUND}, None, stream=False))


class WebSocketExchange(Exchange):
    """A WebSocket, accepted as soon as the actor runs, if the actor serves WebSockets at all."""

    def __init__(self, channel: Channel, finished: Callable[[Exchange], None], request: Request) -> None:
        super().__init__(channel, finished)
        self.socket = WebSocket(request, channel.send, channel.room)

    def actor_stops(self) -> None:
        """Close the socket: it does not outlive this life."""
        self.socket.close_now(1000, "actor.stopped")

    async def _serve(self, actor: Actor, ctx: Context) -> None:
        if type(actor).websocket is Actor.websocket:
            self.socket.close_now(1011, "ws.not_supported")
            return
        self._channel.send(ToServerWebSocketOpen(can_hibernate=False))
        try:
            await actor.websocket(ctx, self.socket)
            self.socket.close_now(1000, "")
        except WebSocketClosed:
            self.socket.close_now(1000, "")  # of another socket, perhaps; this one may be open
        except Exception:
            log.exception("a WebSocket handler failed", extra=_fields(ctx, "websocket_failed"))
            self.socket.close_now(1011, "Server Error")

    def _say_not_here(self) -> None:
        self.socket.close_now(1011, ACTOR_NOT_FOUND)


def wire_response(response: Response) -> ToServerResponseStart:
    """Return the whole answer as one message, with its length. Raises TypeError if it is none."""
    if not isinstance(response, Response):
        raise TypeError(f"fetch must return a Response, not {type(response).__name__}")
    body = response.body_bytes
    headers = dict(response.headers)
    if body:
        headers["content-length"] = str(len(body))
    return ToServerResponseStart(response.status, headers, body or None, stream=False)


INTERNAL_ERROR = wire_response(Response(500, {"content-type": "text/plain"}, "Internal Server Error"))


def _fields(ctx: Context, action: str) -> dict[str, object]:
    return {"action": action, "actor_id": ctx.actor_id, "generation": ctx.generation}
