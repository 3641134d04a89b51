"""A cheap HTTP/1.1 client: requests prepared once, connections kept, one answer at a time on each."""

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; `seconds` is the time from the first byte sent to the last one received."""

    status: int
    body: bytes
    seconds: float


class Connection(asyncio.Protocol):
    """One kept connection, from `connect`."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._sent_at = 0.0
        self._waiter: asyncio.Future[Answer] | None = None
        self._transport: asyncio.Transport | None = None

    def ask(self, request: bytes) -> "asyncio.Future[Answer]":
        """Send a request; the future gets its answer, or ConnectionError if the server hangs up."""
        assert self._transport is not None, "made by connect"
        assert self._waiter is None, "one request at a time"
        self._waiter = asyncio.get_running_loop().create_future()
        self._sent_at = time.perf_counter()
        self._transport.write(request)
        return self._waiter

    def close(self) -> None:
        """Hang up."""
        assert self._transport is not None, "made by connect"
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0 or self._waiter is None:
            return None
        length = _LENGTH.search(self._received, 0, end + 2)
        if length is None:
            return self._settle(ValueError(f"an answer without a length: {bytes(self._received[:end])!r}"))
        total = end + 4 + int(length[1])
        if len(self._received) < total:
            return None
        seconds = time.perf_counter() - self._sent_at
        answer = Answer(int(self._received[9:12]), bytes(self._received[end + 4 : total]), seconds)
        self._received.clear()
        return self._settle(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        self._settle(ConnectionError("the server has hung up"))

    def _settle(self, outcome: Answer | Exception) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is None or waiter.done():
            return
        if isinstance(outcome, Answer):
            waiter.set_result(outcome)
        else:
            waiter.set_exception(outcome)


async def connect(url: str, count: int = 1) -> list[Connection]:
    """Open connections to the server at a URL."""
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    host, port = parts.hostname or "", parts.port or 80
    return [(await loop.create_connection(Connection, host, port))[1] for _ in range(count)]


def get(path: str) -> bytes:
    """Return a GET request."""
    return b"GET %b HTTP/1.1\r\nhost: bench\r\n\r\n" % path.encode()


def post(path: str, body: bytes) -> bytes:
    """Return a POST request of JSON."""
    return _json(b"POST", path, body)


def put(path: str, body: bytes) -> bytes:
    """Return a PUT request of JSON."""
    return _json(b"PUT", path, body)


def _json(method: bytes, path: str, body: bytes) -> bytes:
    head = b"%b %b HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return head % (method, path.encode(), len(body)) + body


async def ask_for(seconds: float, connections: Sequence[Connection], request: Callable[[], bytes]) -> list[Answer]:
    """Send what `request` returns over all connections at once, again and again for some seconds."""
    until = time.perf_counter() + seconds
    answers: list[Answer] = []

    async def go_on(connection: Connection) -> None:
        while time.perf_counter() < until:
            answers.append(await connection.ask(request()))

    await asyncio.gather(*map(go_on, connections))
    return answers
