"""The application of `served_app`, run by one of our servers as a child process, and what tests say to it."""

import asyncio
import contextlib
import json
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import websockets
from websockets.asyncio.client import ClientConnection

from tests.support.child import Child
from tests.support.processes import free_port

SOON = 15.0
START_SECONDS = 60.0

HANDSHAKE = (
    b"GET %s HTTP/1.1\r\nHost: x.test:1\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n%s\r\n"
)


class Served(Child):
    """A server on a port of its own."""

    def __init__(self, server: str, directory: Path, *options: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._entries_seen = 0
        command = [sys.executable, "-m", "tests.support.served_app", server, str(self.port), *options]
        super().__init__(server, command, directory / f"{server}.log")

    def start(self) -> None:
        """Start it and wait until it listens."""
        super().start()
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port)):
                    return
            except ConnectionRefusedError:
                assert self.alive, self.output()
                assert time.monotonic() < deadline, self.output()
                time.sleep(0.02)

    def wait(self) -> int:
        """Wait for its end and return the exit status."""
        assert self._process is not None
        return self._process.wait(SOON)

    def get(self, path: str, **options: Any) -> httpx.Response:
        """Return the answer to a GET."""
        return httpx.get(self.url + path, timeout=SOON, **options)

    async def journal(self, count: int) -> list[Any]:
        """Wait until the application has written so many more entries than the last time, and return them."""
        async with asyncio.timeout(SOON), httpx.AsyncClient(base_url=self.url) as client:
            while True:
                entries: list[Any] = (await client.get("/journal")).json()["journal"][self._entries_seen :]
                if len(entries) >= count:
                    self._entries_seen += len(entries)
                    return entries
                await asyncio.sleep(0.02)

    async def sent(self, kind: str) -> int:
        """Wait until the application can't send any more, and return how many `kind` it could."""
        async with asyncio.timeout(SOON), httpx.AsyncClient(base_url=self.url) as client:
            before = -1
            while True:
                now: int = (await client.get("/journal")).json()["sent"][kind]
                if now == before:
                    return now
                before = now
                await asyncio.sleep(0.3)

    @asynccontextmanager
    async def open(self, path: str = "/echo", **options: Any) -> AsyncIterator[ClientConnection]:
        """Open a WebSocket."""
        options = {"max_size": None, "compression": None, "ping_interval": None, "proxy": None} | options
        async with websockets.connect(f"ws://127.0.0.1:{self.port}{path}", **options) as connection:
            yield connection

    @asynccontextmanager
    async def talk(self, first: bytes) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """Open a plain connection and send some bytes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(first)
        try:
            async with asyncio.timeout(SOON):
                yield reader, writer
        finally:
            writer.transport.abort()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


@contextmanager
def running(server: str, directory: Path, *options: str) -> Iterator[Served]:
    """Run a server for as long as the block."""
    served = Served(server, directory, *options)
    try:
        served.start()
        yield served
    finally:
        if served.alive:
            served.kill()


async def closed(connection: ClientConnection) -> tuple[int, str]:
    """Wait for the end and return the close frame that came: 1005 if it had no code, 1006 if none came."""
    with contextlib.suppress(websockets.ConnectionClosed):
        async with asyncio.timeout(SOON):
            while True:
                await connection.recv()
    received = connection.protocol.close_rcvd
    return (received.code, received.reason) if received else (1006, "")


def frame(opcode: int, payload: bytes) -> bytes:
    """Return one short frame as a client sends it."""
    return bytes([0x80 | opcode, 0x80 | len(payload), 0, 0, 0, 0]) + payload


async def read_text(reader: asyncio.StreamReader) -> Any:
    """Read one text frame of a server and return its JSON."""
    first, length = await reader.readexactly(2)
    assert first == 0x81
    if length == 126:
        length = int.from_bytes(await reader.readexactly(2))
    return json.loads(await reader.readexactly(length))
