"""One connection to Redis: commands out, replies and published messages in (RESP3, so one socket does both).

Commands given during one turn of the event loop leave in one write. Replies come back in the order of
the commands, confirmations of SUBSCRIBE and UNSUBSCRIBE among them; published messages come in between.
A link is used once: when it is lost, `lost` is set and `orchestrator.bus.bus` makes another.
"""

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from ssl import SSLContext
from typing import Any, cast

import hiredis
import redis.asyncio as redis

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 5.0
READ_BYTES = 256 * 1024
WATCH_SECONDS = 1.5
SILENT_TURNS = 3
"""So many turns of the watch without a byte from Redis, although it was pinged, mean a dead link."""

_KEEPALIVE = {"TCP_KEEPIDLE": 5, "TCP_KEEPALIVE": 5, "TCP_KEEPINTVL": 2, "TCP_KEEPCNT": 3}
_MORE = object()  # what the reader gives while the next reply is incomplete


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where Redis is and how to log in: either `path`, or `host` and `port`."""

    path: str | None
    host: str
    port: int
    ssl: SSLContext | None
    login: tuple[bytes, ...]

    @classmethod
    def parse(cls, url: str) -> "Endpoint":
        """Read a URL as redis-py does: `unix://`, `redis://`, `rediss://`, with user, password, options.

        The database number means nothing here: published messages cross all databases of a server.

        Raises:
            ValueError: the URL is none of these.
        """
        pool = redis.ConnectionPool.from_url(url)
        parsed = pool.connection_class(**pool.connection_kwargs)
        user, password = parsed.username, parsed.password
        context = getattr(parsed, "ssl_context", None)
        return cls(
            path=getattr(parsed, "path", None),
            host=getattr(parsed, "host", ""),
            port=getattr(parsed, "port", 0),
            ssl=context.get() if context else None,
            login=(b"AUTH", (user or "default").encode(), password.encode()) if password else (),
        )


class Link(asyncio.BufferedProtocol):
    """One connection: `command` and `publish` send, `on_message(channel, payload)` gets messages."""

    def __init__(self, on_message: Callable[[bytes, bytes], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_message = on_message
        self._reader = hiredis.Reader(notEnoughData=_MORE)
        self._incoming = bytearray(READ_BYTES)
        self._replies: deque[asyncio.Future[Any] | None] = deque()
        self._outgoing: list[bytes] = []
        self._outgoing_bytes = 0
        self._silent_turns = 0
        self._watch: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self.lost = asyncio.Event()

    @property
    def pending_bytes(self) -> int:
        """The bytes written but not yet taken by the kernel."""
        return self._outgoing_bytes + (self._transport.get_write_buffer_size() if self._transport else 0)

    def command(self, *words: bytes) -> asyncio.Future[Any]:
        """Send one command.

        The future gets Redis's reply, or `hiredis.ReplyError`, or `ConnectionError` if the link is lost.
        """
        head = b"*%d\r\n" % len(words)
        return self._send([head, *(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)])

    def publish(self, channel: bytes, payload: bytes) -> None:
        """Publish one message and drop the reply."""
        # One formatted string, and no future: this is what every tunnel frame passes through.
        self._outgoing.append(
            b"*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(channel), channel, len(payload), payload)
        )
        self._outgoing_bytes += len(payload)
        self._replies.append(None)
        if len(self._outgoing) == 1:
            self._loop.call_soon(self._flush)

    def abort(self) -> None:
        """Hang up at once."""
        if self._transport:
            self._transport.abort()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start to watch whether the other side is alive."""
        self._transport = cast(asyncio.Transport, transport)
        _keep_alive(transport.get_extra_info("socket"))
        self._watch = self._loop.call_later(WATCH_SECONDS, self._look)

    def get_buffer(self, sizehint: int) -> bytearray:
        """Lend the one buffer that all reads go through; the reader copies out of it."""
        return self._incoming

    def buffer_updated(self, nbytes: int) -> None:
        """Take in what was read: hand replies to whoever waits and messages to `on_message`."""
        self._silent_turns = 0
        reader = self._reader
        try:
            reader.feed(self._incoming, 0, nbytes)  # type: ignore[arg-type]  # any buffer will do
            while (reply := reader.gets(False)) is not _MORE:
                if type(reply) is hiredis.PushNotification and reply[0] == b"message":
                    self._on_message(reply[1], reply[2])
                else:
                    self._settle(reply)
        except (hiredis.HiredisError, IndexError):
            logger.exception("redis sent something unreadable")
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail everything that still waits for a reply."""
        self._transport = None
        if self._watch:
            self._watch.cancel()
        self._outgoing.clear()
        self._outgoing_bytes = 0
        for future in self._replies:
            if future and not future.done():
                future.set_exception(ConnectionError("the link to redis is lost"))
                future.exception()  # nobody has to look at it
        self._replies.clear()
        self.lost.set()

    # Ours.

    def _send(self, pieces: list[bytes]) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self._loop.create_future()
        if self._transport is None:
            future.set_exception(ConnectionError("the link to redis is lost"))
            return future
        self._replies.append(future)
        self._outgoing.append(b"".join(pieces))
        self._outgoing_bytes += len(self._outgoing[-1])
        if len(self._outgoing) == 1:
            self._loop.call_soon(self._flush)
        return future

    def _flush(self) -> None:
        outgoing, self._outgoing, self._outgoing_bytes = self._outgoing, [], 0
        if outgoing and self._transport:
            self._transport.write(outgoing[0] if len(outgoing) == 1 else b"".join(outgoing))

    def _settle(self, reply: Any) -> None:
        future = self._replies.popleft()
        if isinstance(reply, hiredis.ReplyError):
            if future is None:
                logger.error("redis refused to publish a message: %s", reply)
            elif not future.done():
                future.set_exception(reply)
        elif future and not future.done():
            future.set_result(reply)

    def _look(self) -> None:
        """Hang up if Redis has said nothing for some turns.

        Turns are counted, not seconds, so that an event loop that was blocked itself doesn't blame Redis.
        """
        if self._silent_turns >= SILENT_TURNS:
            logger.warning("redis does not answer; the link is given up")
            self.abort()
            return
        self._silent_turns += 1
        self.command(b"PING").add_done_callback(_ignore)
        self._watch = self._loop.call_later(WATCH_SECONDS, self._look)


async def connect(endpoint: Endpoint, on_message: Callable[[bytes, bytes], None]) -> Link:
    """Connect and log in.

    Raises:
        OSError: there is no server, or it does not answer in time.
        hiredis.ReplyError: it refuses us (wrong password, or a release older than Redis 6).
    """
    loop = asyncio.get_running_loop()
    link = Link(on_message)
    async with asyncio.timeout(CONNECT_SECONDS):
        if endpoint.path is not None:
            await loop.create_unix_connection(lambda: link, endpoint.path)
        else:
            await loop.create_connection(lambda: link, endpoint.host, endpoint.port, ssl=endpoint.ssl)
        try:
            await link.command(b"HELLO", b"3", *endpoint.login, b"SETNAME", b"torpor-bus")
        except BaseException:
            link.abort()
            raise
    return link


def _keep_alive(sock: socket.socket | None) -> None:
    """Let the kernel notice a peer that vanished, also while this process is too busy to ping."""
    if sock is None or sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _ignore(future: asyncio.Future[Any]) -> None:
    future.cancelled() or future.exception()
