"""Daphne as we run it: its parsing and its event loop, with our protocols, back-pressure and graceful end."""

import asyncio
import contextlib
import logging
import signal
import socket
from functools import partial
from typing import Any

from daphne.server import Server as DaphneServer  # type: ignore[import-untyped]
from twisted.logger import (
    FilteringLogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    STDLibLogObserver,
    globalLogBeginner,
)

from orchestrator import lifespan
from orchestrator.server import daphne_http, daphne_websocket
from orchestrator.server.daphne_flow import Inbox
from orchestrator.server.daphne_reactor import loop, reactor
from orchestrator.server.guard import Application, Message, Scope
from orchestrator.server.limits import BODY_MARGIN_BYTES, STOP_SECONDS, Pings
from orchestrator.server.listening import BACKLOG, waiting

logger = logging.getLogger(__name__)

Protocol = daphne_http.Request | daphne_websocket.WebSocket

APPLICATION_END_SECONDS = 30
"""How long an application may go on after its connection has ended."""

CUT_OFF_SECONDS = 1
"""How long one may take to clean up that is cancelled because the process ends."""


class Server(DaphneServer):  # type: ignore[misc]  # daphne has no types
    """Serves an application on one listening socket until SIGTERM or SIGINT."""

    def __init__(
        self, application: Application, listener: socket.socket, body_bytes: int, pings: Pings | None
    ) -> None:
        super().__init__(
            application,
            endpoints=["the listening socket"],
            application_close_timeout=APPLICATION_END_SECONDS,
            request_buffer_size=body_bytes + BODY_MARGIN_BYTES + 1,  # a body is given in one piece
            server_name="",
        )
        self.body_bytes = body_bytes + BODY_MARGIN_BYTES
        self.open: set[daphne_http.Channel | daphne_websocket.WebSocket] = set()
        self.connections: dict[Protocol, dict[str, Any]] = {}
        self.http_factory = daphne_http.Factory(self)
        self.ws_factory = daphne_websocket.Factory(self, pings)
        self._listener = listener
        self._port: Any = None
        self._less = asyncio.Event()  # something ended
        self._stopping: asyncio.Task[None] | None = None

    def run(self) -> None:
        """Serve until the process is told to end, then end gracefully and return."""
        _log_errors()
        asyncio.set_event_loop(loop)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        self._listener.listen(BACKLOG)
        self._port = reactor.adoptStreamPort(self._listener.fileno(), self._listener.family, self.http_factory)
        self._listener.close()
        self.application_checker()
        self.timeout_checker()
        reactor.run(installSignalHandlers=False)
        _end_loop()

    # The connections' book-keeping. Daphne finds ended applications once a second; these act at once.

    def create_application(self, protocol: Protocol, scope: Scope) -> Inbox | None:
        """Start the application for a request or a WebSocket and return where its events go."""
        request = protocol.upgraded if scope["type"] == "websocket" else protocol
        scope |= {"asgi": {"version": "3.0"}, "http_version": "1.1", "root_path": "", "headers": request.headers}
        if scope["type"] == "websocket":
            offers = b",".join(value for name, value in request.headers if name == b"sec-websocket-protocol")
            scope |= {
                "scheme": "wss" if request.isSecure() else "ws",
                "path": daphne_http.decode_path(request.path),
                "raw_path": request.path,
                "subprotocols": [offer.strip() for offer in offers.decode("latin-1").split(",") if offer],
            }
        inbox = Inbox(protocol.transport if scope["type"] == "websocket" else None)
        task = loop.create_task(self.application(scope, inbox.get, partial(self.handle_reply, protocol)))
        self.connections[protocol]["application_instance"] = task
        task.add_done_callback(partial(self._application_ended, protocol))
        return inbox

    async def handle_reply(self, protocol: Protocol, message: Message) -> None:
        """Write a message of the application, once the client has taken enough of what was written before.

        A close does not wait: the client may never take anything.
        """
        if message["type"] != "websocket.close":
            await protocol.outflow.wait()
        details = self.connections.get(protocol)
        if details and "disconnected" not in details:
            self.check_headers_type(message)
            protocol.handle_reply(message)
        else:
            await asyncio.sleep(0)  # an application that sends without end must not keep the loop to itself

    def protocol_disconnected(self, protocol: Protocol) -> None:
        """Forget a connection that has ended, as soon as its application has ended too."""
        details = self.connections.get(protocol)
        if details is None:
            return
        if "application_instance" in details:
            details.setdefault("disconnected", loop.time())
        else:
            del self.connections[protocol]

    def application_checker(self) -> None:
        """Cancel, once a second, applications that go on for too long after their connection's end."""
        now = loop.time()
        for details in self.connections.values():
            if now - details.get("disconnected", now) > self.application_close_timeout:
                details["application_instance"].cancel()
        reactor.callLater(1, self.application_checker)

    def timeout_checker(self) -> None:
        """Look, every two seconds, for handshakes that got no answer."""
        for protocol in list(self.connections):
            protocol.check_timeouts()
        reactor.callLater(2, self.timeout_checker)

    def closed(self, protocol: daphne_http.Channel | daphne_websocket.WebSocket) -> None:
        """Note that a connection has ended or turned into a WebSocket."""
        self.open.discard(protocol)
        self._less.set()

    def _application_ended(self, protocol: Protocol, task: asyncio.Task[None]) -> None:
        self._less.set()
        details = self.connections[protocol]
        del details["application_instance"]
        if isinstance(protocol, daphne_websocket.WebSocket):
            protocol.application_ended()
        if "disconnected" in details:
            if not task.cancelled():
                task.exception()  # nobody is left to be told; what was wrong, the guard has logged
            del self.connections[protocol]
        elif task.cancelled():
            protocol.handle_exception(asyncio.CancelledError())
        elif error := task.exception():
            protocol.handle_exception(error)

    # The end.

    def _stop(self) -> None:
        if self._stopping is None:
            self._stopping = loop.create_task(self._end())
        else:
            self._stopping.cancel()  # told twice: at once, then

    async def _end(self) -> None:
        try:
            for client in self._stop_listening():
                reactor.adoptStreamConnection(client.fileno(), client.family, self.http_factory)
                client.close()
            await lifespan.run_shutdown()
            for connection in list(self.open):
                connection.going_away()
            if not await self._wait_for_quiet(STOP_SECONDS):
                logger.warning("%d applications are cut off", len(self.connections))
                for details in self.connections.values():
                    details["application_instance"].cancel()
                await self._wait_for_quiet(CUT_OFF_SECONDS)
        finally:
            reactor.stop()

    def _stop_listening(self) -> list[socket.socket]:
        """Close the port at once, which Twisted does a turn of its loop later; return who had connected."""
        self._port.stopReading()
        found = waiting(self._port.socket)
        self._port.socket.close()
        return found

    async def _wait_for_quiet(self, seconds: float) -> bool:
        """Wait until no connection and no application is left; say whether it came to that in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.open or self.connections:
                    self._less.clear()
                    await self._less.wait()
        return not self.open and not self.connections


def _end_loop() -> None:
    """Cancel what still runs, as `asyncio.run` does at its end: applications, the bus."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks, timeout=STOP_SECONDS))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


def _log_errors() -> None:
    """Have Twisted's errors logged like ours, and drop the rest of what it has to say."""
    errors: Any = LogLevelFilterPredicate(defaultLogLevel=LogLevel.error)
    everything: Any = STDLibLogObserver(__name__)
    observer: Any = FilteringLogObserver(everything, [errors])
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False, discardBuffer=True)
