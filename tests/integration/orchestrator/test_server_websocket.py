"""WebSockets of both servers, which are real processes, seen from the wire."""

import asyncio
import contextlib
import json
import os
import re
from typing import Any

import pytest
import websockets

from orchestrator.server.limits import CLOSE_SECONDS
from tests.support.served import HANDSHAKE, SOON, Served, closed, frame, read_text

MIB = 1024 * 1024

CLOSES = [
    (1000, "ws.eviction#abc"),
    (1001, ""),
    (1008, "ws.message_index_skip"),
    (1011, "ws.going_away#0123456789"),
    (1012, "restart"),
    (1013, ""),
    (3000, "x"),
    (4000, "späte Gründe"),
    (4999, "y" * 123),
]


@pytest.mark.parametrize(("code", "reason"), CLOSES)
async def test_the_client_gets_the_applications_close_code_and_reason(
    served: Served, code: int, reason: str
) -> None:
    async with served.open("/close") as client:
        await client.send(json.dumps({"code": code, "reason": reason}))
        assert await closed(client) == (code, reason)
    assert await served.journal(1) == [["close", code, reason]]


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ({}, (1000, "")),
        ({"code": 1005}, (1005, "")),
        ({"code": 1006, "reason": "may not be sent"}, (1011, "may not be sent")),
        ({"code": 1015}, (1011, "")),
        ({"code": 999}, (1011, "")),
        ({"code": 2500}, (1011, "")),
        ({"code": 65535}, (1011, "")),
        ({"code": 1011, "reason": "a" * 122 + "ä" * 50}, (1011, "a" * 122)),
        ({"code": 1011, "reason": None}, (1011, "")),
    ],
)
async def test_a_close_that_no_frame_can_carry_is_made_to_fit(
    served: Served, order: dict[str, Any], expected: tuple[int, str]
) -> None:
    async with served.open("/close") as client:
        await client.send(json.dumps(order))
        assert await closed(client) == expected
    assert await served.journal(1) == [["close", *expected]]


@pytest.mark.parametrize(("code", "reason"), CLOSES)
async def test_the_application_gets_the_clients_close_code_and_reason(
    served: Served, code: int, reason: str
) -> None:
    async with served.open() as client:
        await client.close(code, reason)
    assert await closed(client) == (code, reason)  # the server's answer is an echo
    assert await served.journal(1) == [["echo", code, reason]]


async def test_a_client_may_close_without_a_code(served: Served) -> None:
    async with served.talk(HANDSHAKE % (b"/echo", b"")) as (reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(frame(8, b""))
        assert await reader.read() == b"\x88\x00"
    assert await served.journal(1) == [["echo", 1005, ""]]


async def test_a_connection_that_breaks_off_is_1006(served: Served) -> None:
    async with served.open() as client:
        await client.send("hello")
        await client.recv()
        client.transport.abort()
    assert await served.journal(1) == [["echo", 1006, ""]]


async def test_the_application_hears_of_its_own_close_when_the_client_has_answered(served: Served) -> None:
    async with served.talk(HANDSHAKE % (b"/close", b"")) as (reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(frame(1, b'{"code": 4001, "reason": "bye"}'))
        assert await reader.readexactly(7) == b"\x88\x05\x0f\xa1bye"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(served.journal(1), 0.4)
        writer.write(frame(8, b"\x0f\xa1bye"))
        assert await served.journal(1) == [["close", 4001, "bye"]]
        assert await reader.read() == b""


@pytest.mark.parametrize(
    ("path", "expected"), [("/crash", (1011, "core.internal_error")), ("/return", (1000, ""))]
)
async def test_an_application_that_ends_leaves_no_socket_open(
    served: Served, path: str, expected: tuple[int, str]
) -> None:
    async with served.open(path) as client:
        await client.send("go")
        assert await closed(client) == expected


@pytest.mark.parametrize("message", ["", b"", "ü€😀", b"\x00\xff", "x" * 70_000, b"y" * 70_000])
async def test_messages_pass_both_ways_as_they_are(served: Served, message: str | bytes) -> None:
    async with served.open() as client:
        for _ in range(2):
            await client.send(message)
            assert await asyncio.wait_for(client.recv(), SOON) == message
    await served.journal(1)


@pytest.mark.parametrize("size", [16 * MIB, 40 * MIB])
async def test_big_messages_pass_both_ways(served: Served, size: int) -> None:
    async with served.open() as client:
        payload = os.urandom(size)
        await client.send(payload)
        assert await asyncio.wait_for(client.recv(), SOON) == payload
        await client.send([payload[:MIB], b"", payload[-MIB:]])  # in fragments
        assert await asyncio.wait_for(client.recv(), SOON) == payload[:MIB] + payload[-MIB:]
        text = "ä" * MIB
        await client.send(text)
        assert await asyncio.wait_for(client.recv(), SOON) == text
    await served.journal(1)


@pytest.mark.parametrize("parts", [[40 * MIB + 1], [10 * MIB] * 5], ids=["one frame", "fragments"])
async def test_a_message_over_the_limit_closes_its_socket_1009_and_no_other(
    served: Served, parts: list[int]
) -> None:
    async with served.open() as other:
        async with served.open() as client:
            async with asyncio.timeout(CLOSE_SECONDS - 0.5):  # it is not left hanging
                with contextlib.suppress(websockets.ConnectionClosed):
                    await client.send(bytes(part) for part in parts)
                assert (await closed(client))[0] == 1009
        assert (await served.journal(1))[0][1] == 1009
        await other.send("still here")
        assert await asyncio.wait_for(other.recv(), SOON) == "still here"
    await served.journal(1)


async def test_text_that_is_not_utf8_closes_the_socket_1007(served: Served) -> None:
    async with served.talk(HANDSHAKE % (b"/echo", b"")) as (reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(frame(1, b"\xff\xfe"))
        assert (await reader.readexactly(4))[2:] == (1007).to_bytes(2)
    assert (await served.journal(1))[0][1] == 1007


async def test_messages_are_not_compressed_and_pings_are_answered(served: Served) -> None:
    async with served.open("/return", compression="deflate") as client:
        assert client.protocol.extensions == []
        await asyncio.wait_for(await client.ping(b"1"), SOON)


PATH = b"/scope%2Fb%20c;p=%C3%BC/~'(*)?x=%20&y=a+b&z=%2f"


async def test_path_query_and_headers_of_a_handshake_reach_the_application_untouched(served: Served) -> None:
    headers = (
        b"X-Many: 1\r\nx_under: yes\r\nX-Many: 2,3\r\nDaphne-Root-Path: /evil\r\nX-Latin: f\xfcr\r\nX-MANY: 4\r\n"
        b"Origin: nonsense\r\nX-Utf8: \xc3\x85\r\nSec-WebSocket-Protocol: rivet, rivet_token.a%20b\r\n"
    )
    async with served.talk(HANDSHAKE % (PATH, headers)) as (reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert re.findall(rb"(?i)^x-torpor: *(\d)\r$", head, re.M) == [b"1", b"2"]
        scope = await read_text(reader)
        assert {name: scope[name] for name in ("type", "scheme", "path", "raw_path", "query_string")} == {
            "type": "websocket",
            "scheme": "ws",
            "path": "/scope/b c;p=ü/~'(*)",
            "raw_path": "/scope%2Fb%20c;p=%C3%BC/~'(*)",
            "query_string": "x=%20&y=a+b&z=%2f",
        }
        assert scope["root_path"] == ""
        assert scope["subprotocols"] == ["rivet", "rivet_token.a%20b"]
        assert scope["client"] == list(writer.get_extra_info("sockname"))
        assert [value for name, value in scope["headers"] if name == "x-many"] == ["1", "2,3", "4"]
        assert ["x_under", "yes"] in scope["headers"]
        assert ["daphne-root-path", "/evil"] in scope["headers"]
        assert ["x-latin", "f\xfcr"] in scope["headers"]
        assert ["x-utf8", "\xc3\x85"] in scope["headers"]
        assert ["host", "x.test:1"] in scope["headers"]


@pytest.mark.parametrize(
    ("path", "offered", "chosen"),
    [
        ("/scope/rivet", ["other", "rivet"], "rivet"),
        ("/scope", ["rivet"], None),
        ("/scope", None, None),
    ],
)
async def test_a_subprotocol_is_spoken_only_if_the_application_says_so(
    served: Served, path: str, offered: list[Any] | None, chosen: str | None
) -> None:
    async with served.open(path, subprotocols=offered) as client:
        assert client.subprotocol == chosen


@pytest.mark.parametrize(("path", "status"), [("/deny", 403), ("/crash-early", 500)])
async def test_a_handshake_can_be_refused(served: Served, path: str, status: int) -> None:
    with pytest.raises(websockets.InvalidStatus) as refused:
        async with served.open(path):
            pass
    assert refused.value.response.status_code == status


async def test_a_client_may_send_before_it_is_accepted(served: Served) -> None:
    async with served.talk(HANDSHAKE % (b"/wait?0.4", b"")) as (reader, writer):
        for word in (b"ear\r\n\r\nly", b"bird"):
            await asyncio.sleep(0.1)
            writer.write(frame(2, word))
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(10 + 11 + 6) == b"\x81\x08accepted\x82\x09ear\r\n\r\nly\x82\x04bird"
    await served.journal(1)


async def test_a_client_that_gives_up_its_handshake_is_noticed(served: Served) -> None:
    async with served.talk(HANDSHAKE % (b"/hang", b"")) as (_, writer):
        await asyncio.sleep(0.1)
        writer.transport.abort()
        assert await served.journal(1) == [["hang", "websocket.disconnect", 1006]]


@pytest.mark.parametrize("length", [16 * 1024, 100 * 1024])
async def test_long_heads_are_left_to_the_application(served: Served, length: int) -> None:
    headers = b"".join(b"X-%d: %s\r\n" % (number, b"y" * 1000) for number in range(120))
    headers += b"X-Long: %s\r\n" % (b"z" * length)
    async with served.talk(HANDSHAKE % (b"/return?" + b"q" * length, headers)) as (reader, _):
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 101 ")


async def test_send_waits_for_a_client_that_does_not_read(served: Served) -> None:
    async with served.talk(HANDSHAKE % (b"/flood", b"")) as (_, writer):
        writer.transport.pause_reading()
        assert await served.sent("messages") < 32  # what the kernel's buffers hold, plus one
        writer.transport.abort()
        assert await served.journal(1) == ["websocket.disconnect"]


async def test_a_client_whose_messages_nobody_receives_is_not_read_from(served: Served) -> None:
    async with served.talk(HANDSHAKE % (b"/deaf", b"")) as (reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        message = b"\x82\xfe\xff\xff\0\0\0\0" + bytes(65535)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 100 * MIB:
                writer.write(message)
                await asyncio.wait_for(writer.drain(), 0.5)
                sent += len(message)
        assert sent < 32 * MIB
        writer.transport.abort()


async def test_a_client_that_closes_but_takes_nothing_is_hung_up_on_in_the_end(served: Served) -> None:
    async with served.talk(HANDSHAKE % (b"/flood", b"")) as (_, writer):
        writer.transport.pause_reading()
        await served.sent("messages")
        writer.write(frame(8, b"\x03\xe8"))
        assert await served.journal(1) == ["websocket.disconnect"]
        assert await served.sent("messages") < 64


async def test_a_client_that_takes_nothing_can_be_closed_and_is_hung_up_on_in_the_end(served: Served) -> None:
    async with served.talk(HANDSHAKE % (b"/flood-and-close", b"")) as (_, writer):
        writer.transport.pause_reading()
        assert await served.journal(1) == [["websocket.disconnect", 1011]]


async def test_the_close_of_a_client_that_is_slow_follows_what_it_was_sent(served: Served) -> None:
    async with served.open("/flood-and-close") as client:
        client.transport.pause_reading()
        await asyncio.sleep(1.0)  # longer than the application waits for it
        client.transport.resume_reading()
        assert await closed(client) == (1011, "too slow")
