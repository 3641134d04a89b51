"""WebSockets under Daphne, mended: reasons and all codes of a close, empty messages, back-pressure, lengths.

Autobahn below Daphne refuses to send most close codes and drops a connection that breaks a rule without saying
why; so the frames are written one layer deeper, and a broken rule is answered with a close frame.
"""

import logging
from typing import Any, cast

from autobahn.websocket.types import ConnectionDeny
from daphne.ws_protocol import WebSocketFactory, WebSocketProtocol  # type: ignore[import-untyped]

from orchestrator.server.daphne_flow import Inbox, Outflow
from orchestrator.server.daphne_reactor import loop, reactor
from orchestrator.server.limits import (
    ACCEPT_SECONDS,
    CLOSE_SECONDS,
    GOING_AWAY,
    READS_ON,
    SILENT,
    TOO_MANY_FRAMES,
    VANISHED,
    WEBSOCKET_BYTES,
    WEBSOCKET_FRAMES,
    Pings,
    closing,
)
from orchestrator.server.pulse import Pulse

logger = logging.getLogger(__name__)

EARLY_BYTES = 64 * 1024
"""What a client may send before its WebSocket is accepted; it ought to send nothing."""


class WebSocket(WebSocketProtocol):  # type: ignore[misc]  # daphne has no types
    """One WebSocket, from its handshake on. `upgraded` is the HTTP request it came in."""

    upgraded: Any
    application_queue: Inbox

    def __init__(self) -> None:
        super().__init__()
        self.outflow = Outflow(resumed=self._sign_of_life)
        self._pulse: Pulse | None = None
        self._handshaking = False
        self._early = b""
        self._hanging_up: Any = None
        self._frames = 0  # of the message that is coming
        self._reads_on = False  # after its own close
        self._told = False  # the application knows of the end
        self._opened_at = loop.time()

    def makeConnection(self, transport: Any) -> None:
        """Take over the connection from HTTP."""
        transport.unregisterProducer()
        transport.registerProducer(self.outflow, True)
        self.factory.server_class.open.add(self)
        super().makeConnection(transport)

    def dataReceived(self, data: bytes) -> None:
        """Keep what comes before the application has accepted: Autobahn would read it as one more handshake."""
        self._sign_of_life()
        if not self._handshaking:
            super().dataReceived(data)
        elif len(self._early) + len(data) > EARLY_BYTES:
            self.transport.abortConnection()
        else:
            self._early += data

    def onConnect(self, request: Any) -> Any:
        """Start the application; the deferred returned is called with its answer to the handshake."""
        self._handshaking = True
        return super().onConnect(request)

    def onMessageBegin(self, isBinary: bool) -> None:
        """Take in the beginning of a message."""
        self._frames = 0
        super().onMessageBegin(isBinary)

    def onMessageFrameBegin(self, length: int) -> None:
        """Take in the beginning of one of its frames, unless it has too many."""
        super().onMessageFrameBegin(length)
        self._frames += 1
        if self._frames > WEBSOCKET_FRAMES and not self.failedByMe:
            self._fail_connection(*TOO_MANY_FRAMES)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        """Give a message to the application."""
        if self.state != self.STATE_OPEN and not (self._reads_on and self.state == self.STATE_CLOSING):
            return
        if isBinary:
            self.application_queue.put_nowait({"type": "websocket.receive", "bytes": payload})
            return
        try:
            text = payload.decode()
        except UnicodeDecodeError:
            self.sendCloseFrame(code=1007, reasonUtf8=b"text that is not UTF-8")
        else:
            self.application_queue.put_nowait({"type": "websocket.receive", "text": text})

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        """Tell the application who ended the connection and why."""
        self.outflow.stopProducing()
        if self._pulse:
            self._pulse.stop()
        if self._hanging_up and self._hanging_up.active():
            self._hanging_up.cancel()
        server = self.factory.server_class
        server.closed(self)
        server.protocol_disconnected(self)
        if self.closedByMe:
            code, reason = self.localCloseCode, (self.localCloseReason or b"").decode(errors="replace")
        elif not wasClean:
            code, reason = VANISHED
        self._tell(code, reason)

    def dropConnection(self, abort: bool = False) -> None:
        """Hang up. After a complete closing handshake without a reset, unless the client takes nothing."""
        super().dropConnection(abort=abort and not self.wasClean)
        if self._hanging_up is None:
            self._hanging_up = reactor.callLater(CLOSE_SECONDS, self.transport.abortConnection)

    def handle_reply(self, message: dict[str, Any]) -> None:
        """Write a message of the application; over a closing WebSocket it goes nowhere.

        Raises:
            ValueError: it makes no sense now; the application's mistake.
        """
        kind = message["type"]
        if self.state == self.STATE_CONNECTING:
            if kind == "websocket.accept":
                self._accept(message.get("subprotocol"), message.get("headers", ()))
            elif kind == "websocket.close":
                self._deny(403, "Forbidden")
            else:
                raise ValueError(f"{kind} before websocket.accept")
        elif self.state == self.STATE_OPEN:
            if kind == "websocket.send":
                data = message.get("bytes")
                if data is not None:
                    self.sendMessage(bytes(data), True)
                else:
                    self.sendMessage(message["text"].encode(), False)
            elif kind == "websocket.close":
                self._reads_on = message.get(READS_ON, False)
                self._close(message.get("code"), message.get("reason"))
            else:
                raise ValueError(f"{kind} after websocket.accept")

    def handle_exception(self, exception: BaseException) -> None:
        """The application failed before it had answered the handshake."""
        if self.state == self.STATE_CONNECTING:
            self._deny(500, "Internal Server Error")
        else:
            self.dropConnection(abort=True)

    def application_ended(self) -> None:
        """Nobody reads on."""
        if self._reads_on:
            self._reads_on = False
            self.application_queue.flow()

    def duration(self) -> float:
        """Return how many seconds ago the handshake began."""
        return loop.time() - self._opened_at

    def check_timeouts(self) -> None:
        """Give up an application that answers no handshake. Nothing is pinged here; see `pulse.py`."""
        if self.state == self.STATE_CONNECTING and self.duration() > ACCEPT_SECONDS:
            self._deny(504, "Gateway Timeout")

    def going_away(self) -> None:
        """Close because the process ends."""
        if self.state == self.STATE_CONNECTING:
            self._deny(503, "Service Unavailable")
        else:
            self._close(*GOING_AWAY)

    def _accept(self, subprotocol: str | None, headers: Any) -> None:
        if subprotocol is not None and subprotocol not in self.websocket_protocols:
            raise ValueError(f"subprotocol {subprotocol!r} was not offered")
        extra: dict[str, list[str]] = {}
        for name, value in headers:
            extra.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))
        self._handshaking = False
        deferred = self.handshake_deferred
        del self.handshake_deferred
        deferred.callback((subprotocol, extra))
        self._take_pulse()
        early, self._early = self._early, b""
        if early:
            super().dataReceived(early)

    def _deny(self, status: int, text: str) -> None:
        if hasattr(self, "handshake_deferred"):
            deferred = self.handshake_deferred
            del self.handshake_deferred
            deferred.errback(ConnectionDeny(code=status, reason=text))  # type: ignore[no-untyped-call]

    def _take_pulse(self) -> None:
        pings = self.factory.pings
        if pings is not None and self.state == self.STATE_OPEN:
            self._pulse = Pulse(
                loop,
                pings,
                ping=self.sendPing,
                is_deaf=lambda: self.application_queue.is_full,
                silent=self._give_up,
            )

    def _sign_of_life(self) -> None:
        if self._pulse:
            self._pulse.seen = True

    def _give_up(self) -> None:
        if self.state == self.STATE_OPEN:
            self._close(*SILENT)
            self._tell(*VANISHED)

    def _tell(self, code: int | None, reason: str | None) -> None:
        if hasattr(self, "application_queue") and not self._told:
            self._told = True
            event = {"type": "websocket.disconnect", "code": code or 1005, "reason": reason or ""}
            self.application_queue.put_nowait(event)

    def _close(self, code: int | None, reason: str | None) -> None:
        code, reason = closing(code, reason)
        self.sendCloseFrame(code=code, reasonUtf8=reason.encode() if code is not None else None)


class Factory(WebSocketFactory):  # type: ignore[misc]  # daphne has no types
    """Makes a `WebSocket` for the request that has just put itself into `upgraded`."""

    protocol = WebSocket
    upgraded: Any = None

    def __init__(self, server: Any, pings: Pings | None) -> None:
        super().__init__(server, server="")
        self.pings = pings
        self.setProtocolOptions(
            autoPingInterval=0,  # see `pulse.py`
            autoPingTimeout=0,
            closeHandshakeTimeout=CLOSE_SECONDS,
            echoCloseCodeReason=True,
            failByDrop=False,
            maxMessagePayloadSize=WEBSOCKET_BYTES,
            openHandshakeTimeout=0,  # a handshake is read whole before it comes here
            tcpNoDelay=True,
            utf8validateIncoming=False,  # decoding does it
        )

    def buildProtocol(self, addr: Any) -> WebSocket:
        """Return the protocol that takes over the connection."""
        websocket = cast(WebSocket, super().buildProtocol(addr))
        websocket.upgraded, self.upgraded = self.upgraded, None
        return websocket
