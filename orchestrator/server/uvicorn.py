"""Uvicorn as we run it: uvloop and httptools if installed, lengths, closes and the end mended.

Mended in its WebSockets: `websocket.disconnect` comes when the closing handshake is done and not at the attempt;
a connection that breaks off is 1006; a message over the limit is answered 1009 and the client can read it; any
close code or reason is written as far as allowed; what is sent after the end is dropped without an error.
"""

import asyncio
import contextlib
import socket
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets import http11
from websockets.frames import Frame

from orchestrator import lifespan
from orchestrator.server.guard import Application
from orchestrator.server.limits import (
    CLOSE_SECONDS,
    GOING_AWAY,
    HEADER_LINE_BYTES,
    HEADERS,
    KEEP_ALIVE_SECONDS,
    READS_ON,
    SILENT,
    STOP_SECONDS,
    TOO_MANY_FRAMES,
    VANISHED,
    WEBSOCKET_BYTES,
    WEBSOCKET_FRAMES,
    Pings,
    closing,
)
from orchestrator.server.listening import BACKLOG, waiting
from orchestrator.server.pulse import Pulse
from orchestrator.server.uvicorn_http import Http


class WebSocket(WebSocketsSansIOProtocol):
    """One WebSocket, from its handshake on."""

    _told = False  # whether the application knows of the end
    _own_close: tuple[int | None, str] | None = None
    _reads_on = False  # after its own close
    _failed = False
    _pulse: Pulse | None = None

    def data_received(self, data: bytes) -> None:
        """Take in what the client sent, unless the connection has failed already."""
        if self._pulse:
            self._pulse.seen = True
        if not self._failed:
            super().data_received(data)

    def resume_writing(self) -> None:
        """The client has caught up."""
        if self._pulse:
            self._pulse.seen = True
        super().resume_writing()

    def start_keepalive(self) -> None:
        """See to it that the client is there, in our own way (`pulse.py`)."""
        if self.ping_interval is not None and self.ping_timeout is not None:
            pings = Pings(self.ping_interval, self.ping_timeout)
            self._pulse = Pulse(
                self.loop, pings, ping=self._ping, is_deaf=lambda: self.read_paused, silent=self._give_up
            )

    def stop_keepalive(self) -> None:
        """Ask no more."""
        if self._pulse:
            self._pulse.stop()

    def _ping(self) -> None:
        if not self.close_sent and not self.transport.is_closing():
            self.conn.send_ping(b"")
            self.transport.write(b"".join(self.conn.data_to_send()))

    def _give_up(self) -> None:
        if not self.close_sent:
            self._close(*SILENT)
            self._tell(*VANISHED)

    def handle_cont(self, event: Frame) -> None:
        """Take in one more frame of a message, unless it has too many."""
        if self._failed:
            return
        if len(self.frames) < WEBSOCKET_FRAMES:
            super().handle_cont(event)
        elif self.close_sent:
            self.transport.abort()
        else:
            self.frames = []
            self.conn.send_close(*TOO_MANY_FRAMES)
            self.handle_parser_exception()

    def send_receive_event_to_app(self) -> None:
        """Give a message to the application; after its close, too, if it reads on."""
        if not self._reads_on:
            return super().send_receive_event_to_app()
        if self.curr_msg_data_type == "bytes":  # text that is none could not be refused any more
            self.close_sent = False
            try:
                super().send_receive_event_to_app()
            finally:
                self.close_sent = True
        return None

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        """The application has ended: nobody reads on."""
        super().on_task_complete(task)
        if self._reads_on:
            self._reads_on = False
            self._resume_reading()

    def handle_close(self, event: Frame) -> None:
        """The client's close, or its answer to ours."""
        if self.close_sent and self._own_close:
            self._tell(*self._own_close)
        self._told = True
        super().handle_close(event)
        self._hang_up_later()

    def handle_parser_exception(self) -> None:
        """Say why the connection fails, and read on for a while: a client still sending must get to read it."""
        assert self.conn.close_sent is not None
        self._tell(self.conn.close_sent.code, self.conn.close_sent.reason)
        self._failed = self.close_sent = True
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.transport.write_eof()
        self._resume_reading()
        self._hang_up_later()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the application, unless it knows."""
        self._tell(*(self._own_close or VANISHED))
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Close because the process ends."""
        if self.handshake_complete and not self.close_sent:
            self._close(*GOING_AWAY)
        elif not self.close_sent:
            super().shutdown()

    async def send(self, message: Any) -> None:
        """Write a message of the application; over a closing WebSocket it goes nowhere.

        A close does not wait for a client that takes nothing.
        """
        if message["type"] != "websocket.close":
            await self.writable.wait()
        if self.disconnected or (self.close_sent and self.handshake_complete):
            await asyncio.sleep(0)  # an application that sends without end must not keep the loop to itself
        elif message["type"] == "websocket.close" and self.handshake_complete:
            self._reads_on = message.get(READS_ON, False)
            self._close(*closing(message.get("code"), message.get("reason")))
        else:
            with contextlib.suppress(ClientDisconnected):
                await super().send(message)

    def _close(self, code: int | None, reason: str) -> None:
        if self.transport.is_closing():
            return
        self._own_close = (code or 1005, reason)
        self.conn.send_close(code, reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self._resume_reading()
        self._hang_up_later()

    def _hang_up_later(self) -> None:
        """Don't wait forever for a client that does not answer a close, or takes nothing."""
        if self.close_timer is None:
            self.close_timer = self.loop.call_later(CLOSE_SECONDS, self.transport.abort)

    def _resume_reading(self) -> None:
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()

    def _tell(self, code: int | None, reason: str) -> None:
        if not self._told:
            self._told = True
            self.queue.put_nowait({"type": "websocket.disconnect", "code": code or 1005, "reason": reason})


class Server(uvicorn.Server):
    """Serves until SIGTERM or SIGINT and then ends with status 0."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End gracefully; told twice, at once."""
        self.force_exit = self.should_exit
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, let the process's consumers say goodbye, then close what is open."""
        clients = [client for one in sockets or [] for client in waiting(one)]
        for server in self.servers:
            server.close()
        await asyncio.gather(*(self._take(client) for client in clients))
        await lifespan.run_shutdown()
        await super().shutdown(sockets)

    async def _take(self, client: socket.socket) -> None:
        """Serve a connection that was accepted by hand."""
        common = {"config": self.config, "server_state": self.server_state, "app_state": self.lifespan.state}
        await asyncio.get_running_loop().connect_accepted_socket(lambda: Http(**common), client)


def run(application: Application, listener: socket.socket, pings: Pings | None) -> None:
    """Serve on a listening socket until the process is told to end, then end gracefully and return."""
    make_server(application, pings).run([listener])


def make_server(application: Application, pings: Pings | None) -> Server:
    """Return a server of the application that does not run yet."""
    # The gateway refuses long heads itself, with a reason; websockets has no other way to be told.
    http11.MAX_LINE_LENGTH, http11.MAX_NUM_HEADERS = HEADER_LINE_BYTES, HEADERS
    config = uvicorn.Config(
        application,
        interface="asgi3",
        lifespan="off",
        http=Http,
        ws=WebSocket,
        ws_max_size=WEBSOCKET_BYTES,
        ws_per_message_deflate=False,
        ws_ping_interval=None if pings is None else pings.interval,  # see `start_keepalive`
        ws_ping_timeout=None if pings is None else pings.timeout,
        h11_max_incomplete_event_size=HEADER_LINE_BYTES,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=STOP_SECONDS,
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_config=None,
        log_level="critical",  # the guard has logged what the application did wrong
    )
    return Server(config)
