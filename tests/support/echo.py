"""Requests of every kind to an actor that gives back what it gets, generated from tables, and what must come back.

The tables are small so that their product is told in seconds; `cells` is that product, each cell once.
"""

import base64
import gzip
import itertools
import json
import zlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx

MIB = 1024 * 1024
EVERY_BYTE = bytes(range(256))

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "PROPFIND")
BODIES = {"empty": b"", "one byte": b"\0", "every byte": EVERY_BYTE, "long": EVERY_BYTE * 1000 + b"end"}
FRAMINGS = ("whole", "chunked")
ENCODINGS = {"identity": bytes, "gzip": gzip.compress, "deflate": zlib.compress}
HEADERS: dict[str, list[tuple[str, str]]] = {
    "none": [],
    "mixed case": [("X-Mixed-Case", "Value"), ("x-empty", "")],
    "repeated": [("x-a", "1"), ("X-A", "2"), ("x-a", "3, 4"), ("cookie", "a=1"), ("cookie", "b=2")],
    "many": [(f"x-h{number}", str(number)) for number in range(60)],
    "long": [("x-long", "v" * 15_000)],
    "odd": [("x-odd", "!#$%&'*+-.^_`|~ \"<>[]{}=;:@/?,\t."), ("authorization", "Bearer t"), ("x-rivet-x", "y")],
}
PATHS = ("/mirror", "/mirror?a=1&a=%20&b", "/mirror?q=%C3%A9%2F%26", "/mirror?x=//?y&=&%00")
ANSWERS: dict[str, tuple[int, list[tuple[str, str]]]] = {
    "plain": (200, []),
    "created": (201, [("location", "/x?y=%20"), ("X-Upper", "Kept")]),
    "no content": (204, [("x-a", "b")]),
    "not modified": (304, [("etag", '"1"')]),
    "moved": (307, [("location", "http://elsewhere.example/")]),
    "missing": (404, [("content-type", "application/problem+json")]),
    "broken": (503, [("retry-after", "5")]),
    "encoded": (200, [("content-encoding", "br"), ("vary", "accept-encoding")]),
}
BODYLESS = ("GET", "HEAD")


@dataclass(frozen=True)
class Cell:
    """One request, and the answer it asks for."""

    method: str = "POST"
    body: str = "every byte"
    framing: str = "whole"
    encoding: str = "identity"
    headers: str = "none"
    path: str = PATHS[0]
    answer: str = "plain"
    content: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "content", ENCODINGS[self.encoding](BODIES[self.body]))

    @property
    def sent_headers(self) -> list[tuple[str, str]]:
        encoding = [] if self.encoding == "identity" else [("content-encoding", self.encoding)]
        return [*HEADERS[self.headers], *encoding, ("accept-encoding", "identity")]


def cells() -> Iterator[Cell]:
    """Give every combination of what concerns bodies, and each of the rest with every method."""
    for method, body, framing, encoding in itertools.product(METHODS, BODIES, FRAMINGS, ENCODINGS):
        yield Cell(method, body, framing, encoding)
    for method, headers, framing in itertools.product(METHODS, HEADERS, FRAMINGS):
        yield Cell(method, framing=framing, headers=headers)
    for method, path, answer in itertools.product(METHODS, PATHS, ANSWERS):
        yield Cell(method, path=path, answer=answer)


async def send(client: httpx.AsyncClient, actor_id: str, cell: Cell) -> None:
    """Send the request of a cell and check all that comes back."""
    status, asked = ANSWERS[cell.answer]
    wanted = base64.b64encode(json.dumps({"status": status, "headers": asked}).encode()).decode()
    request = client.build_request(
        cell.method,
        f"/gateway/{actor_id}{cell.path}",
        headers=[*cell.sent_headers, ("x-return", wanted)],
        content=_pieces(cell.content) if cell.framing == "chunked" else cell.content,
    )
    answer = await client.send(request, stream=True)
    body = b"".join([part async for part in answer.aiter_raw()])
    told = json.loads(base64.b64decode(answer.headers["x-told"]))
    assert (answer.status_code, told["method"], told["path"]) == (status, cell.method, cell.path), cell
    assert body == _expected_body(cell, status), cell
    _check_sent(told["headers"], cell, answer)
    for name, value in asked:
        if name != "vary":  # CORS has the last word
            assert answer.headers[name] == value, (cell, name)
    if cell.method != "HEAD" and status not in (204, 304):
        assert answer.headers["content-length"] == str(len(body)), cell


def _expected_body(cell: Cell, status: int) -> bytes:
    if cell.method in BODYLESS or status in (204, 304):
        return b""
    return cell.content


def _check_sent(received: dict[str, Any], cell: Cell, answer: httpx.Response) -> None:
    """Check that the actor has got each header, repeated ones joined, and none of the connection's."""
    expected: dict[str, str] = {}
    for name, value in cell.sent_headers:
        lower = name.lower()
        joint = "; " if lower == "cookie" else ", "
        expected[lower] = f"{expected[lower]}{joint}{value}" if lower in expected else value
    assert {name: received.get(name) for name in expected} == expected, cell
    assert received["x-rivet-ray-id"] == answer.headers["x-rivet-ray-id"], cell
    assert not {"connection", "transfer-encoding", "keep-alive", "expect"} & received.keys(), cell


async def _pieces(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 100_000):
        yield content[start : start + 100_000]
