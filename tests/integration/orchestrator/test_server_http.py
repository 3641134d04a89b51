"""HTTP of both servers, which are real processes, seen from the wire."""

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest

from tests.support.served import Served

MIB = 1024 * 1024
BODY_BYTES = 20 * MIB  # what served_app tells its server


async def answer(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Read one answer that says its length, and return head and body."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    _, _, rest = head.partition(b"content-length:")
    return head, await reader.readexactly(int(rest.partition(b"\r\n")[0]))


async def test_path_query_and_headers_reach_the_application_untouched(served: Served) -> None:
    request = (
        b"PATCH /a%2Fb%20c;p=%C3%BC/~'(*)?x=%20&y=a+b&z=%2f HTTP/1.1\r\nHost: x.test:1\r\nX-Many: 1\r\n"
        b"x_under: yes\r\nX-Many: 2,3\r\nDaphne-Root-Path: /evil\r\nX-Latin: f\xfcr\r\nX-MANY: 4\r\n"
        b"X-Utf8: \xc3\x85\r\n\r\n"
    )
    async with served.talk(request) as (reader, writer):
        head, body = await answer(reader)
        scope = json.loads(body)
        assert {
            name: scope[name] for name in ("type", "method", "scheme", "path", "raw_path", "query_string")
        } == {
            "type": "http",
            "method": "PATCH",
            "scheme": "http",
            "path": "/a/b c;p=ü/~'(*)",
            "raw_path": "/a%2Fb%20c;p=%C3%BC/~'(*)",
            "query_string": "x=%20&y=a+b&z=%2f",
        }
        assert scope["root_path"] == ""
        assert scope["client"] == list(writer.get_extra_info("sockname"))
        assert [value for name, value in scope["headers"] if name == "x-many"] == ["1", "2,3", "4"]
        for header in (
            ["x_under", "yes"],
            ["daphne-root-path", "/evil"],
            ["x-latin", "f\xfcr"],
            ["x-utf8", "\xc3\x85"],
        ):
            assert header in scope["headers"]
        assert head.count(b"set-cookie:") == 2
        assert b"\r\nserver:" not in head


async def test_bodies_up_to_the_limit_arrive_whole(served: Served) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield bytes(MIB)

    async with httpx.AsyncClient(base_url=served.url, timeout=15) as client:
        for body, length in ((b"", 0), (b"x", 1), (bytes(BODY_BYTES), BODY_BYTES), (pieces(), BODY_BYTES)):
            assert (await client.post("/length", content=body)).json() == {"length": length}


async def test_a_body_that_looks_like_a_form_is_not_read_by_the_server(served: Served) -> None:
    async with httpx.AsyncClient(base_url=served.url) as client:
        for kind in (
            "multipart/form-data; boundary=x",
            "multipart/form-data",
            "application/x-www-form-urlencoded",
        ):
            response = await client.post("/length", content=b"no form", headers={"content-type": kind})
            assert response.json() == {"length": 7}


async def test_a_client_that_expects_100_is_told_to_go_on(served: Served) -> None:
    head = b"POST /length HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    async with served.talk(head) as (reader, writer):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
        writer.write(b"ab")
        assert (await answer(reader))[1] == b'{"length": 2}'


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 99999999\r\n\r\n",
        b"Content-Length: 99999999\r\nExpect: 100-continue\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n1500000\r\n" + bytes(0x1500000),
    ],
    ids=["announced", "asked for", "chunked"],
)
async def test_daphne_refuses_a_body_that_is_too_long_without_reading_it(served: Served, head: bytes) -> None:
    if served.name != "daphne":
        return  # Uvicorn gives the application the body in pieces, and the application refuses it
    async with served.talk(b"POST /length HTTP/1.1\r\nHost: x\r\n" + head) as (reader, writer):
        head, body = await answer(reader)
        assert head.startswith(b"http/1.1 413 ")
        assert b"connection: close" in head
        error = json.loads(body)
        assert (error["group"], error["code"]) == ("guard", "invalid_request_body")
        assert error["metadata"]["reason"]
        with pytest.raises(TimeoutError):  # no 100 Continue behind it
            await asyncio.wait_for(reader.read(1), 0.1)
        writer.write(bytes(MIB))  # it may go on sending for a while, and does not see a reset
        await writer.drain()
    assert served.get("/").status_code == 200


async def test_a_response_streams_from_its_head_on(served: Served) -> None:
    async with served.talk(b"GET /quiet-stream HTTP/1.1\r\nHost: x\r\n\r\n") as (reader, _):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    assert await served.journal(1) == ["http.disconnect"]
    response = served.get("/stream")
    assert (response.status_code, response.text) == (200, "0,1,2,")
    assert response.headers["transfer-encoding"] == "chunked"


@pytest.mark.parametrize(
    "first", [b"HEAD /stream", b"HEAD /", b"GET /stream?204", b"GET /stream?304", b"GET /not-modified"]
)
async def test_a_response_without_a_body_has_none(served: Served, first: bytes) -> None:
    async with served.talk(first + b" HTTP/1.1\r\nHost: x\r\n\r\n") as (reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"transfer-encoding" not in head.lower()
        writer.write(b"GET /journal HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await answer(reader))[0].startswith(b"http/1.1 200 ")


async def test_requests_sent_at_once_are_answered_in_order(served: Served) -> None:
    requests = b"".join(
        b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n" % path for path in (b"slow?0.2", b"1", b"slow?0.1", b"2")
    )
    async with served.talk(requests) as (reader, _):
        bodies = [json.loads((await answer(reader))[1]) for _ in range(4)]
    assert [body if body == "slow" else body["path"] for body in bodies] == ["slow", "/1", "slow", "/2"]


@pytest.mark.parametrize("path", ["/crash", "/nothing"])
async def test_an_application_that_fails_to_answer_is_answered_for(served: Served, path: str) -> None:
    response = served.get(path)
    assert response.status_code == 500
    assert (response.json()["group"], response.json()["code"]) == ("core", "internal_error")
    assert response.headers["content-type"] == "application/json"


async def test_a_response_that_fails_half_way_is_cut_off(served: Served) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        served.get("/crash-late")


@pytest.mark.parametrize(
    "request_",
    [
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: a\x1cb\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX Y: a\r\n\r\n",
    ],
)
async def test_a_malformed_request_is_answered_400(served: Served, request_: bytes) -> None:
    async with served.talk(request_) as (reader, _):
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 400 ")


async def test_send_waits_for_a_client_that_does_not_read(served: Served) -> None:
    async with served.talk(b"GET /flood HTTP/1.1\r\nHost: x\r\n\r\n") as (_, writer):
        writer.transport.pause_reading()
        assert await served.sent("chunks") < 32  # what the kernel's buffers hold, plus one
    assert await served.journal(1) == ["http.disconnect"]
