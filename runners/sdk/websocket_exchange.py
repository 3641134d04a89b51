"""One WebSocket of a client, from its arrival in the tunnel to its end (PROTOCOL §5.4, §5.5)."""

import logging
from collections.abc import Callable

from runners.protocol.messages import ToServerWebSocketOpen
from runners.sdk.actor import Actor
from runners.sdk.channel import Channel
from runners.sdk.context import Context
from runners.sdk.errors import WebSocketClosed
from runners.sdk.exchange import ACTOR_NOT_FOUND, Exchange, fields_of
from runners.sdk.http import Request
from runners.sdk.websocket import WebSocket

log = logging.getLogger(__name__)


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
            log.exception("a WebSocket handler failed", extra=fields_of(ctx, "websocket_failed"))
            self.socket.close_now(1011, "Server Error")

    def _say_not_here(self) -> None:
        self.socket.close_now(1011, ACTOR_NOT_FOUND)
