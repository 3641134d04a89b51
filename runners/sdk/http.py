"""A request to an actor and its answer (PROTOCOL §5.2, §5.3)."""

import json
import re
from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self, TypeAlias
from urllib.parse import parse_qsl

from runners.protocol.tunnel import MAX_PAYLOAD_BYTES
from runners.sdk.errors import RequestTooLarge
from runners.sdk.upload import Upload

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")

Headers: TypeAlias = Mapping[str, str | Sequence[str]]
"""Header values by name; a list stands for a header that is repeated, as `set-cookie` is."""


class Request:
    """An HTTP request, as the client sent it behind the gateway's prefix.

    `path` starts with `/` and, like `query` (without its `?`), is still percent-encoded; the names of `headers`
    are lower-case, and of repeated ones the last value is there.
    """

    __slots__ = ("_body", "_upload", "headers", "method", "path", "query")

    def __init__(
        self,
        method: str,
        path: str,
        query: str = "",
        headers: Mapping[str, str] | None = None,
        body: bytes | Upload = b"",
    ) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.headers: Mapping[str, str] = {} if headers is None else headers
        self._upload = body if isinstance(body, Upload) else None
        self._body = None if isinstance(body, Upload) else body

    @classmethod
    def of_target(cls, method: str, target: str, headers: Mapping[str, str], body: bytes | Upload | None) -> Self:
        """Return the request for a path with its query, the form in which it comes through the tunnel."""
        path, _, query = target.partition("?")
        return cls(method, path, query, headers, b"" if body is None else body)

    @property
    def target(self) -> str:
        """Path and query together."""
        return f"{self.path}?{self.query}" if self.query else self.path

    @property
    def params(self) -> dict[str, str]:
        """The decoded query; of a repeated name the last value."""
        return dict(parse_qsl(self.query, keep_blank_values=True))

    async def stream(self) -> AsyncIterator[bytes]:
        """Give the body piece by piece, as it comes; once, unless `body` was read before.

        Raises RequestTooLarge if the actor reads so slowly that too much waits.
        """
        if self._body is None and self._upload is not None:
            async for chunk in self._upload:
                yield chunk
        elif self._body:
            yield self._body

    async def body(self) -> bytes:
        """Return the whole body, as often as you like. Raises RequestTooLarge beyond 20 MiB: use `stream`."""
        if self._body is None:
            whole = bytearray()
            async for chunk in self.stream():
                whole += chunk
                if len(whole) > MAX_PAYLOAD_BYTES:
                    raise RequestTooLarge(f"a body of more than {MAX_PAYLOAD_BYTES} bytes")
            self._body = bytes(whole)
        return self._body

    async def text(self) -> str:
        """Return the body as UTF-8 text. Raises UnicodeDecodeError."""
        return (await self.body()).decode()

    async def json(self) -> Any:
        """Return the body as JSON. Raises ValueError."""
        return json.loads(await self.body())


@dataclass(frozen=True, slots=True)
class Response:
    """An answer. A body given as text is sent as UTF-8, as `text/plain` unless the headers say otherwise.

    Header names are lower-cased. Raises ValueError for a status outside 200 to 599 and for headers that HTTP
    cannot carry.
    """

    status: int = 200
    headers: Headers = field(default_factory=dict)
    body: bytes | str = b""

    def __post_init__(self) -> None:
        headers = _checked(self.status, self.headers)
        if isinstance(self.body, str):
            headers.setdefault("content-type", "text/plain; charset=utf-8")
        object.__setattr__(self, "headers", headers)

    @property
    def body_bytes(self) -> bytes:
        """The body as it is sent."""
        return self.body.encode() if isinstance(self.body, str) else self.body

    @classmethod
    def text(cls, text: str, status: int = 200, headers: Headers | None = None) -> Self:
        """Return an answer of plain text."""
        return cls(status, headers or {}, text)

    @classmethod
    def json(cls, value: Any, status: int = 200, headers: Headers | None = None) -> Self:
        """Return an answer of JSON. Raises TypeError for what JSON cannot say."""
        typed = {"content-type": "application/json"} | dict(headers or {})
        return cls(status, typed, json.dumps(value, ensure_ascii=False).encode())


@dataclass(frozen=True, slots=True)
class StreamingResponse:
    """An answer whose body is made while it is sent; text is sent as UTF-8.

    The next chunk is asked for when there is room for it. If the client goes away, the iterator is closed; if the
    iterator raises, the client sees its answer break off. Raises ValueError as Response does.
    """

    chunks: AsyncIterable[bytes | str]
    status: int = 200
    headers: Headers = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "headers", _checked(self.status, self.headers))


Answer: TypeAlias = Response | StreamingResponse
"""What `fetch` may return."""


def wire_headers(headers: Headers) -> dict[str, str]:
    """Return the headers as they go through the tunnel: the values of a repeated one on lines of their own."""
    return {name: value if isinstance(value, str) else "\n".join(value) for name, value in headers.items()}


def _checked(status: int, headers: Headers) -> dict[str, str | Sequence[str]]:
    if not 200 <= status <= 599:
        raise ValueError(f"the status must be within 200 and 599, not {status}")
    for name, values in headers.items():
        fit = all(_HEADER_VALUE.fullmatch(value) for value in ([values] if isinstance(values, str) else values))
        if not fit or not _HEADER_NAME.fullmatch(name):
            raise ValueError(f"HTTP cannot carry the header {name!r}")
    return {name.lower(): values if isinstance(values, str) else tuple(values) for name, values in headers.items()}
