"""Both servers ping WebSockets, and close those of clients that are gone."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.integration.orchestrator.conftest import SERVERS
from tests.support.served import HANDSHAKE, Served, frame, running

PING, CLOSE = 0x89, 0x88
PATIENCE = 4
"""Pings in a row; a client that counts as silent gets no second one."""


@pytest.fixture(scope="module", params=SERVERS)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server that pings all 0.6 s and closes when nothing has come for 0.4 s."""
    with running(request.param, tmp_path_factory.mktemp("served"), "--pings") as child:
        yield child
        assert child.alive, child.output()


async def read_frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Return the next short frame: its first byte, and what it carries."""
    first, length = await reader.readexactly(2)
    return first, await reader.readexactly(length)


async def test_a_client_that_answers_is_asked_again_and_stays(served: Served) -> None:
    async with served.talk(HANDSHAKE % (b"/echo", b"")) as (reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        for _ in range(PATIENCE):
            first, payload = await read_frame(reader)
            assert first == PING
            writer.write(frame(10, payload))
        writer.write(frame(8, b"\x03\xe8"))
        assert (await read_frame(reader))[0] == CLOSE
    assert await served.journal(1) == [["echo", 1000, ""]]


async def test_a_client_that_is_silent_is_closed_with_a_code_and_the_application_hears_of_it(
    served: Served,
) -> None:
    async with served.talk(HANDSHAKE % (b"/echo", b"")) as (reader, _):
        await reader.readuntil(b"\r\n\r\n")
        assert (await read_frame(reader))[0] == PING
        assert await read_frame(reader) == (CLOSE, (1011).to_bytes(2) + b"ws.ping_timeout")
        assert await served.journal(1) == [["echo", 1006, ""]]  # not only when the connection is gone


async def test_whatever_a_client_sends_is_a_sign_of_life(served: Served) -> None:
    async with served.talk(HANDSHAKE % (b"/echo", b"")) as (reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        for _ in range(PATIENCE):
            assert (await read_frame(reader))[0] == PING
            writer.write(frame(2, b"no pong"))
            assert (await read_frame(reader))[1] == b"no pong"
    assert await served.journal(1) == [["echo", 1006, ""]]


async def test_a_client_that_is_not_read_from_is_not_blamed_for_it(served: Served) -> None:
    async with served.talk(HANDSHAKE % (b"/deaf", b"")) as (reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        for _ in range(8):
            writer.write(b"\x82\xfe\xff\xff\0\0\0\0" + bytes(65535))
        for _ in range(PATIENCE):
            assert (await read_frame(reader))[0] == PING


async def test_a_client_that_has_much_to_read_is_given_the_time(served: Served) -> None:
    """Its pong would come after all it has to read; that it takes some is enough."""
    async with served.talk(HANDSHAKE % (b"/flood", b"")) as (reader, _):
        for _ in range(60):  # for three seconds and more
            await reader.readexactly(512 * 1024)
            await asyncio.sleep(0.05)
        assert await served.sent("messages") > 24
    assert await served.journal(1) == ["websocket.disconnect"]
