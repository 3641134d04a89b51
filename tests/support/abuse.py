"""Clients that do an engine harm: raw connections that say too little, too much, or nothing at all."""

import contextlib
import selectors
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

UPGRADE = (
    "GET {path} HTTP/1.1\r\nhost: engine\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    "sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
Address = tuple[str, int]


def address(url: str) -> Address:
    """Return host and port of a URL."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


def open_connections(where: Address, count: int, first: bytes = b"") -> list[socket.socket]:
    """Open so many connections, and say the same on each of them."""
    opened = []
    for _ in range(count):
        one = socket.create_connection(where, timeout=10)
        if first:
            one.sendall(first)
        opened.append(one)
    return opened


def close_connections(connections: list[socket.socket]) -> None:
    """Close them all."""
    for one in connections:
        one.close()


def still_open(connections: list[socket.socket]) -> int:
    """Return how many of them the other side has not closed yet; what it has said is thrown away."""
    ended = set()
    with selectors.DefaultSelector() as selector:
        for one in connections:
            one.setblocking(False)
            selector.register(one, selectors.EVENT_READ)
        for key, _ in selector.select(timeout=0):
            one = key.fileobj
            assert isinstance(one, socket.socket)
            try:
                if one.recv(65_536) == b"":
                    ended.add(one)
            except BlockingIOError:
                pass
            except OSError:
                ended.add(one)
    return len(connections) - len(ended)


@contextmanager
def dripping(connections: list[socket.socket], piece: bytes, every_seconds: float) -> Iterator[None]:
    """Meanwhile say a little more on each connection, again and again, as slowloris does."""
    over = threading.Event()

    def drip() -> None:
        while not over.wait(every_seconds):
            for one in connections:
                with contextlib.suppress(OSError):
                    one.send(piece)

    thread = threading.Thread(target=drip, name="slowloris")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def connect_for(where: Address, seconds: float) -> int:
    """Connect and hang up as fast as possible for a while; return how often."""
    count, until = 0, time.monotonic() + seconds
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(where, timeout=5) as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # no TIME_WAIT is left
            count += 1
    return count


def answer_to(where: Address, request: bytes, seconds: float = 20.0) -> bytes:
    """Send a request in one go and return the beginning of the answer, empty if there is none."""
    with socket.create_connection(where, timeout=seconds) as one:
        with contextlib.suppress(OSError):  # it may be refused before it has been read
            one.sendall(request)
        with contextlib.suppress(OSError):
            return one.recv(65_536)
    return b""


def frame(first: int, payload: bytes, announced: int | None = None) -> bytes:
    """Return a client's WebSocket frame by its first byte (flags and kind); it may announce more than there is."""
    length = len(payload) if announced is None else announced
    if length < 126:
        size = bytes([0x80 | length])
    else:
        assert length >= 1 << 16, "no test needs the middle form"
        size = bytes([0x80 | 127]) + length.to_bytes(8)
    return bytes([first]) + size + bytes(4) + payload


def close_code_after(where: Address, path: str, pieces: Iterable[bytes], seconds: float = 20.0) -> int:
    """Open a WebSocket, send that, and return the code it is closed with: 1006 if it ends without one."""
    with socket.create_connection(where, timeout=seconds) as one, one.makefile("rb") as answer:
        one.sendall(UPGRADE.format(path=path).encode())
        while answer.readline().strip():
            pass
        with contextlib.suppress(ConnectionError):  # it may be closed before all is said
            for piece in pieces:
                one.sendall(piece)
        with contextlib.suppress(ConnectionError):
            while head := answer.read(2):
                length = int.from_bytes(answer.read(2)) if head[1] == 126 else head[1]
                payload = answer.read(length)
                if head[0] == 0x88:
                    return int.from_bytes(payload[:2])
    return 1006
