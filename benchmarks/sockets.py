"""A cheap WebSocket client, echoes through the gateway, and what an idle socket costs."""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

from benchmarks.client import Answer
from benchmarks.engine import Engine, memory_bytes

IDLE_SOCKETS = 1000
SETTLE_SECONDS = 5.0
_PAYLOAD = b"x" * 32
# Masked with zeros, the payload stays as it is (RFC 6455 §5.3).
_MESSAGE = bytes([0x82, 0x80 | len(_PAYLOAD), 0, 0, 0, 0]) + _PAYLOAD
_ECHO = bytes([0x82, len(_PAYLOAD)]) + _PAYLOAD


class Socket(asyncio.Protocol):
    """One WebSocket to an actor that echoes, from `open_sockets`."""

    def __init__(self) -> None:
        self.is_open: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._received = bytearray()
        self._waiting: deque[tuple[float, asyncio.Future[Answer]]] = deque()
        self._transport: asyncio.Transport | None = None

    def ask(self) -> "asyncio.Future[Answer]":
        """Send the message; the future gets the time its echo took, or status 0 if the socket was closed."""
        assert self._transport is not None, "made by open_sockets"
        echo: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((time.perf_counter(), echo))
        self._transport.write(_MESSAGE)
        return echo

    def close(self) -> None:
        """Hang up."""
        assert self._transport is not None, "made by open_sockets"
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def begin(self, host: str, path: str) -> None:
        """Send the handshake."""
        assert self._transport is not None, "made by open_sockets"
        lines = (
            f"GET {path} HTTP/1.1",
            f"host: {host}",
            "connection: upgrade",
            "upgrade: websocket",
            "sec-websocket-version: 13",
            "sec-websocket-key: YmVuY2gtYmVuY2gtYmVuYw==",
            "sec-websocket-protocol: rivet",
        )
        self._transport.write("\r\n".join((*lines, "", "")).encode())

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self.is_open.done():
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                return
            del self._received[: end + 4]
            self.is_open.set_result(None)
        while self._waiting and len(self._received) >= len(_ECHO):
            status = 200 if self._received.startswith(_ECHO) else 500
            del self._received[: len(_ECHO)]
            sent_at, echo = self._waiting.popleft()
            echo.set_result(Answer(status, b"", time.perf_counter() - sent_at))

    def connection_lost(self, exc: Exception | None) -> None:
        for sent_at, echo in self._waiting:
            if not echo.done():
                echo.set_result(Answer(0, b"", time.perf_counter() - sent_at))


async def open_sockets(url: str, actor_id: str, count: int) -> list[Socket]:
    """Open WebSockets to an actor."""
    parts, loop = urlsplit(url), asyncio.get_running_loop()
    sockets = []
    for _ in range(count):
        _, socket = await loop.create_connection(Socket, parts.hostname, parts.port)
        socket.begin(parts.netloc, f"/gateway/{actor_id}/")
        sockets.append(socket)
    await asyncio.gather(*(socket.is_open for socket in sockets))
    await asyncio.gather(*(socket.ask() for socket in sockets))  # through and through
    return sockets


async def echo_for(seconds: float, sockets: Sequence[Socket], window: int) -> list[Answer]:
    """Have so many messages under way on each socket, again and again for some seconds; return the echoes.

    A socket that is closed or answers something else is left alone from then on.
    """
    until = time.perf_counter() + seconds
    answers: list[Answer] = []

    async def go_on(socket: Socket) -> None:
        under_way = deque(socket.ask() for _ in range(window))
        while under_way:
            answers.append(answer := await under_way.popleft())
            if answer.status == 200 and time.perf_counter() < until:
                under_way.append(socket.ask())

    await asyncio.gather(*map(go_on, sockets))
    return answers


@dataclass(frozen=True, slots=True)
class IdleSockets:
    """What the gateway's process uses for each idle WebSocket, the server's part included."""

    server: str
    kilobytes: float

    def __str__(self) -> str:
        return f"an idle WebSocket, {self.server}: {self.kilobytes:.1f} KB"


async def measure_idle_sockets(engine: Engine, actor_id: str) -> IdleSockets:
    """Open a thousand WebSockets at the second web process, and leave them alone for a while."""
    web = engine.roles["web"][1].pid
    first = await open_sockets(engine.urls[1], actor_id, IDLE_SOCKETS // 10)  # what the first ones load, stays
    await asyncio.sleep(SETTLE_SECONDS)
    before = memory_bytes(web)
    sockets = await open_sockets(engine.urls[1], actor_id, IDLE_SOCKETS)
    await asyncio.sleep(SETTLE_SECONDS)
    used = memory_bytes(web) - before
    for socket in (*first, *sockets):
        socket.close()
    return IdleSockets(engine.server, used / IDLE_SOCKETS / 1000)
