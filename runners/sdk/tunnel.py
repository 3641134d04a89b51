"""Brings the clients' requests and WebSockets to the lives of the actors they are for (PROTOCOL §5)."""

from collections.abc import Callable
from typing import Protocol

from runners.protocol.messages import (
    ToClientRequestAbort,
    ToClientRequestChunk,
    ToClientRequestStart,
    ToClientTunnelMessage,
    ToClientWebSocketClose,
    ToClientWebSocketMessage,
    ToClientWebSocketOpen,
)
from runners.sdk.channel import Channel
from runners.sdk.exchange import Exchange, HttpExchange
from runners.sdk.http import Request
from runners.sdk.outbox import Outbox
from runners.sdk.upload import Upload
from runners.sdk.websocket_exchange import WebSocketExchange

NO_STATUS = 1005  # what a close without a code counts as (RFC 6455 §7.1.5)


class Accepting(Protocol):
    """Whoever takes an exchange for an actor."""

    def accept(self, exchange: Exchange) -> None:
        """Serve it, keep it for later or refuse it."""


class Tunnel:
    """Knows the exchange behind each (gateway id, request id)."""

    def __init__(self, outbox: Outbox, find: Callable[[str], Accepting | None]) -> None:
        """`find` gives the life of an actor that is here."""
        self._outbox = outbox
        self._find = find
        self._exchanges: dict[tuple[bytes, bytes], Exchange] = {}

    def receive(self, message: ToClientTunnelMessage) -> None:
        """Take a message of a gateway; one for an exchange that is over is dropped."""
        key = (message.message_id.gateway_id, message.message_id.request_id)
        match message.message_kind:
            case ToClientRequestStart() as start:
                self._request(key, start)
            case ToClientRequestChunk(body, finish):
                self._chunk(key, body, finish=finish)
            case ToClientRequestAbort():
                if exchange := self._exchanges.get(key):
                    exchange.cut()
            case ToClientWebSocketOpen(actor_id, path, headers):
                request = Request.of_target("GET", path, headers, None)
                channel, finished = self._line(key)
                self._open(key, actor_id, WebSocketExchange(channel, finished, request))
            case ToClientWebSocketMessage(data, binary):
                exchange = self._exchanges.get(key)
                if isinstance(exchange, WebSocketExchange):
                    exchange.arrived(message.message_id.message_index, data, binary=binary)
            case ToClientWebSocketClose(code, reason):
                exchange = self._exchanges.get(key)
                if isinstance(exchange, WebSocketExchange):
                    exchange.was_closed(NO_STATUS if code is None else code, reason or "")

    def resume(self, gateway_id: bytes, request_id: bytes) -> WebSocketExchange:
        """Return the exchange of a socket that has hibernated; what comes for it is kept until it is restored."""
        key = (gateway_id, request_id)
        exchange = WebSocketExchange(*self._line(key), None)
        self._replace(key, exchange)
        return exchange

    def _chunk(self, key: tuple[bytes, bytes], body: bytes, *, finish: bool) -> None:
        """Take a part of a request's body; an empty one in the middle makes room for its answer."""
        exchange = self._exchanges.get(key)
        if not isinstance(exchange, HttpExchange):
            return
        if not body and not finish:
            exchange.window.granted()
        elif exchange.upload is not None:
            exchange.upload.feed(body, finish=finish)

    def _request(self, key: tuple[bytes, bytes], start: ToClientRequestStart) -> None:
        upload = None
        if start.stream:
            upload = Upload()
            upload.feed(start.body or b"", finish=False)
        body = start.body if upload is None else upload
        request = Request.of_target(start.method, start.path, start.headers, body)
        channel, finished = self._line(key)
        self._open(key, start.actor_id, HttpExchange(channel, finished, request, upload))

    def _line(self, key: tuple[bytes, bytes]) -> tuple[Channel, Callable[[Exchange], None]]:
        def finished(exchange: Exchange) -> None:
            if self._exchanges.get(key) is exchange:
                del self._exchanges[key]

        return Channel(*key, self._outbox), finished

    def _open(self, key: tuple[bytes, bytes], actor_id: str, exchange: Exchange) -> None:
        self._replace(key, exchange)
        life = self._find(actor_id)
        if life is None:
            exchange.refuse()
        else:
            life.accept(exchange)

    def _replace(self, key: tuple[bytes, bytes], exchange: Exchange) -> None:
        if former := self._exchanges.get(key):
            former.cut()  # the gateway has begun anew with the same id: nobody hears the first one
        self._exchanges[key] = exchange
