"""HTTP under Daphne, mended.

A request body is kept in memory and bounded, and a form is not parsed, because a gateway passes bodies on as they
are. Headers reach the application whole, also those with an underscore (Django drops these itself). The head of
a response leaves at once, so that a stream begins before its first byte; the answer to HEAD has no body.
"""

import json
from io import BytesIO
from typing import Any
from urllib.parse import unquote

from daphne.http_protocol import HTTPFactory, WebRequest  # type: ignore[import-untyped]
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, Request as TwistedRequest
from twisted.web.http_headers import Headers

from orchestrator.errors import BadRequest, OrchestratorError
from orchestrator.server.daphne_flow import Outflow
from orchestrator.server.daphne_reactor import reactor
from orchestrator.server.limits import (
    FIRST_HEAD_SECONDS,
    HEAD_SECONDS,
    HEAD_TIMEOUT,
    HEADER_LINE_BYTES,
    HEADERS,
    HEADERS_BYTES,
    KEEP_ALIVE_SECONDS,
)

DRAIN_SECONDS = 5
"""How long a client that was refused may go on sending: it reads the answer only when it is done, or never."""

# All that Daphne and Autobahn have to see; they would check, fold or refuse some of the rest.
_HANDSHAKE = (
    b"host",
    b"upgrade",
    b"connection",
    b"sec-websocket-key",
    b"sec-websocket-version",
    b"sec-websocket-protocol",
)
_CONTROL_BYTES = frozenset(range(0x20)) - {0x09} | {0x7F}


def decode_path(raw_path: bytes) -> str:
    """Return a path with its percent-escapes resolved, as ASGI's `path` is."""
    return unquote(raw_path.decode("ascii"))


class BodyTooLarge(OrchestratorError):
    """The request body is too large."""

    group, code, status = "guard", "invalid_request_body", 413


class Channel(HTTPChannel):
    """One connection while it speaks HTTP."""

    MAX_LENGTH = HEADER_LINE_BYTES
    maxHeaders = HEADERS
    totalHeadersSize = HEADERS_BYTES

    _head: Any = None  # the call that gives up
    _head_due = True  # what comes next, or is coming, is the head of a request
    _head_begun = False
    _is_new = True  # no request has come

    def connectionMade(self) -> None:
        """Let the server know of the connection, so that it can wait for its end."""
        self.factory.server.open.add(self)
        super().connectionMade()  # type: ignore[no-untyped-call]
        self._wait_for_head()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Let the server know of the end."""
        self._have_head()
        self.factory.server.closed(self)
        super().connectionLost(reason)  # type: ignore[no-untyped-call]

    def dataReceived(self, data: bytes) -> None:
        """Take in what the client sent."""
        super().dataReceived(data)  # type: ignore[no-untyped-call]
        if self._head_due:
            self._head_begun = True
            self._wait_for_head()

    def allHeadersReceived(self) -> None:
        """Have the request served when its body is there, too."""
        self._head_due = self._is_new = False
        self._have_head()
        super().allHeadersReceived()  # type: ignore[no-untyped-call]

    def requestDone(self, request: Any) -> None:
        """Go on to the next request."""
        self._head_due = True
        super().requestDone(request)  # type: ignore[no-untyped-call]

    def _wait_for_head(self) -> None:
        if self._head is None:
            self._head = reactor.callLater(HEAD_SECONDS, self._give_up)

    def _have_head(self) -> None:
        if self._head is not None and self._head.active():
            self._head.cancel()
        self._head, self._head_begun = None, False

    def _give_up(self) -> None:
        if self._head_begun:
            self.transport.write(HEAD_TIMEOUT)  # type: ignore[union-attr, call-arg, misc]
        self.loseConnection()  # type: ignore[no-untyped-call]

    def going_away(self) -> None:
        """Finish the response that is under way, if there is one, and close; a first request is waited for."""
        if self._is_new:
            self._is_new = False
            reactor.callLater(FIRST_HEAD_SECONDS, self.going_away)
            return
        self.persistent = False  # before a first request it would have that dropped
        if not self.requests:
            self.loseConnection()  # type: ignore[no-untyped-call]


class Request(WebRequest):  # type: ignore[misc]  # daphne has no types
    """One request, which may turn out to be a WebSocket's handshake."""

    requestHeaders: Headers

    def __init__(self, *args: Any, **options: Any) -> None:
        self.outflow = Outflow()
        self.headers: list[tuple[bytes, bytes]] = []
        self._received = 0
        self._refused = False
        self._drain: Any = None
        super().__init__(*args, **options, parsePOSTFormSubmission=False)

    def gotLength(self, length: int | None) -> None:
        """Keep the body in memory, unless it is announced as too large."""
        self.content = BytesIO()
        if length is not None and length > self.server.body_bytes:
            self._refuse()

    def handleContentChunk(self, data: bytes) -> None:
        """Take a piece of the body, or drop it if the request is refused."""
        self._received += len(data)
        if not self._refused and self._received > self.server.body_bytes:
            self._refuse()
        if not self._refused:
            self.content.write(data)

    def process(self) -> Any:
        """Serve the request, which is read whole."""
        if self._refused:
            self.channel.loseConnection()
            return None
        self.headers = [
            (name.lower(), value) for name, values in self.requestHeaders.getAllRawHeaders() for value in values
        ]
        if any(_CONTROL_BYTES.intersection(value) for _, value in self.headers):
            self.basic_error(400, b"Bad Request", "a header has a control character")
            return None
        if self.requestHeaders.getRawHeaders(b"upgrade", [b""])[0].lower() == b"websocket":
            self.server.ws_factory.upgraded = self
            self.server.closed(self.channel)
        else:
            self.registerProducer(self.outflow, True)
        kept = {name: self.requestHeaders.getRawHeaders(name) for name in _HANDSHAKE}
        self.requestHeaders = Headers({name: values for name, values in kept.items() if values})
        return super().process()

    def handle_reply(self, message: dict[str, Any]) -> None:
        """Write a message of the application."""
        if message["type"] == "http.response.start":
            super().handle_reply(message)
            if not self.finished and self.channel:
                TwistedRequest.write(self, b"")  # type: ignore[no-untyped-call]
        elif self.method == b"HEAD":
            super().handle_reply({**message, "body": b""})
        else:
            super().handle_reply(message)

    def handle_exception(self, exception: BaseException) -> None:
        """Cut off a response that cannot be finished: without its last chunk or byte, the client sees that."""
        if self.channel and not self.finished:
            self.channel.loseConnection()

    def basic_error(self, status: int, status_text: bytes, body: str) -> None:
        """Refuse a request that Daphne could not read."""
        error = BadRequest(body) if status == 400 else OrchestratorError()
        content = json.dumps(error.body()).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
        self.handle_reply({"type": "http.response.start", "status": error.status, "headers": headers})
        self.handle_reply({"type": "http.response.body", "body": content})

    def finish(self) -> None:
        """End the response."""
        if self.producer:
            self.unregisterProducer()
        super().finish()

    def connectionLost(self, reason: Failure) -> None:
        """Let the application know, and whoever waits for the client to catch up."""
        self.outflow.stopProducing()
        if self._drain and self._drain.active():
            self._drain.cancel()
        super().connectionLost(reason)

    def _refuse(self) -> None:
        """Answer 413 now, and read on for a while so that the answer isn't lost in a connection reset."""
        self._refused = True
        self.content = BytesIO()
        self.requestHeaders.removeHeader(b"expect")
        limit = self.server.body_bytes
        body = json.dumps(BodyTooLarge(reason=f"body is longer than {limit} bytes").body()).encode()
        self.channel.transport.write(
            b"HTTP/1.1 413 Request Entity Too Large\r\nconnection: close\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n\r\n%b" % (len(body), body)
        )
        self._drain = reactor.callLater(DRAIN_SECONDS, self.channel.transport.abortConnection)


class Factory(HTTPFactory):  # type: ignore[misc]  # daphne has no types
    """Makes a `Channel` for each connection, and has it make `Request`s."""

    protocol = Channel

    def __init__(self, server: Any) -> None:
        super().__init__(server)
        self.timeOut = KEEP_ALIVE_SECONDS

    def buildProtocol(self, addr: Any) -> Channel:
        """Return the protocol of a new connection."""
        channel: Channel = super().buildProtocol(addr)
        channel.requestFactory = Request
        return channel

    def log(self, request: Request) -> None:
        """Keep no access log; Twisted would write a line for each request and throw it away."""
