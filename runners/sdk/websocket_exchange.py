"""One WebSocket of a client, from its arrival in the tunnel to its end (PROTOCOL §5.4 to §5.6)."""

import asyncio
import logging
from collections.abc import Callable

from runners.protocol.messages import ToServerWebSocketClose, ToServerWebSocketOpen
from runners.sdk.actor import Actor
from runners.sdk.channel import Channel
from runners.sdk.context import Context
from runners.sdk.errors import WebSocketClosed
from runners.sdk.exchange import ACTOR_NOT_FOUND, Exchange, fields_of
from runners.sdk.home import Home
from runners.sdk.http import Request
from runners.sdk.socket_memory import SocketMemory
from runners.sdk.websocket import WebSocket

log = logging.getLogger(__name__)


class WebSocketExchange(Exchange):
    """A WebSocket, accepted as soon as the actor runs, if the actor serves WebSockets at all.

    One that was open when its actor fell asleep is there again from the start of the next life, without a request
    until the actor's store is read: then it is restored, or closed because nothing is known of it.
    """

    def __init__(self, channel: Channel, finished: Callable[[Exchange], None], request: Request | None) -> None:
        super().__init__(channel, finished)
        self.socket = WebSocket(channel, request or Request("GET", "/"))
        self._restoring = request is None
        self._early: list[Callable[[], None]] = []  # what came while it is restored
        self._home: Home | None = None

    @property
    def key(self) -> bytes:
        """Where its record is kept."""
        return SocketMemory.key_of(self._channel.gateway_id, self._channel.request_id)

    def arrived(self, index: int, data: bytes, *, binary: bool) -> None:
        """Take a message of the client."""
        self._take(lambda: self.socket.arrived(index, data, binary=binary))

    def was_closed(self, code: int, reason: str) -> None:
        """Hear that the client has closed the socket."""
        self._take(lambda: self.socket.was_closed(code, reason))

    def restore(self, home: Home, record: bytes | None, *, stale: bool = False) -> None:
        """Bring the socket to where its record says it was. A stale one was closed meanwhile, unheard."""
        self._restoring = False
        if record is None:
            self._channel.send(ToServerWebSocketClose(1000, "ws.meta_not_found_during_restore", hibernate=False))
            self.cut()
            return
        self._move_in(home)
        home.restore(self.socket, self._channel, self._stay_awake(home), record)
        for take in self._early:
            take()
        self._early.clear()
        if stale:
            self._channel.silence()
            self.socket.was_closed(1006, "ws.stale_metadata")

    def actor_stops(self, *, for_good: bool) -> None:
        """Close the socket, which does not outlive this life; one that hibernates stays open."""
        if self.socket.memory is None or for_good:
            self.socket.close_now(1000, "actor.stopped")
        else:
            self.socket.suspend(self._hibernate)

    def cut(self) -> None:
        """End it at once, without another word to the client."""
        if not self._over:
            super().cut()
            self.socket.was_closed(1006, "")
            if self._home is not None:
                self._home.sockets.pop(self.socket, None)

    def _hibernate(self) -> None:
        """Leave the socket open and its handler behind. The channel stays, for the last acknowledgement."""
        if not self._over:
            self._over = True
            if self.task is not None:
                self.task.cancel()
            self._finished(self)

    async def _serve(self, actor: Actor, ctx: Context, home: Home) -> None:
        if self.socket.restored or await self._accept(actor, ctx, home):
            await self._run(actor, ctx)

    async def _accept(self, actor: Actor, ctx: Context, home: Home) -> bool:
        if type(actor).websocket is Actor.websocket:
            self.socket.close_now(1011, "ws.not_supported")
            return False
        try:
            hibernates = actor.can_hibernate(self.socket.request)
            if hibernates:
                await home.remember(self.socket, self._channel, self._stay_awake(home))
        except Exception:
            log.exception("a WebSocket cannot be accepted", extra=fields_of(ctx, "websocket_failed"))
            self.socket.close_now(1011, "Server Error")
            return False
        self._channel.send(ToServerWebSocketOpen(can_hibernate=hibernates))
        self._move_in(home)
        return True

    async def _run(self, actor: Actor, ctx: Context) -> None:
        try:
            await actor.websocket(ctx, self.socket)
            self._end(1000, "")
        except WebSocketClosed:
            self._end(1000, "")  # of another socket, perhaps; this one may be open
        except asyncio.CancelledError:
            if self._over:
                raise
            log.exception(
                "a WebSocket handler was cancelled from within", extra=fields_of(ctx, "websocket_failed")
            )
            self._end(1011, "Server Error")
        except Exception:
            log.exception("a WebSocket handler failed", extra=fields_of(ctx, "websocket_failed"))
            self._end(1011, "Server Error")

    def _end(self, code: int, reason: str) -> None:
        self.socket.close_now(code, reason)
        if self.socket.memory is not None:
            self.socket.memory.forget()
            self.socket.confirm_close()

    def _take(self, what: Callable[[], None]) -> None:
        if self._restoring:
            self._early.append(what)
        else:
            what()

    def _say_not_here(self) -> None:
        if self.socket.memory is None and not self._restoring:  # a socket that hibernates waits for the next life
            self.socket.close_now(1011, ACTOR_NOT_FOUND)

    def _move_in(self, home: Home) -> None:
        self._home = home
        home.sockets[self.socket] = None
