"""A request to an actor and its answer. Both are whole: bodies are not streamed (PROTOCOL §5.2, §5.3)."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import parse_qsl

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


@dataclass(frozen=True, slots=True)
class Request:
    """An HTTP request, as the client sent it behind the gateway's prefix.

    `path` starts with `/` and, like `query` (without its `?`), is still percent-encoded; the names of `headers`
    are lower-case, and of repeated ones the last value is there.
    """

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @classmethod
    def of_target(cls, method: str, target: str, headers: Mapping[str, str], body: bytes | None) -> Self:
        """Return the request for a path with its query, the form in which it comes through the tunnel."""
        path, _, query = target.partition("?")
        return cls(method, path, query, headers, body or b"")

    @property
    def params(self) -> dict[str, str]:
        """The decoded query; of a repeated name the last value."""
        return dict(parse_qsl(self.query, keep_blank_values=True))

    def text(self) -> str:
        """Return the body as UTF-8 text. Raises UnicodeDecodeError."""
        return self.body.decode()

    def json(self) -> Any:
        """Return the body as JSON. Raises ValueError."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Response:
    """An answer. A body given as text is sent as UTF-8, as `text/plain` unless the headers say otherwise.

    Header names are lower-cased. Raises ValueError for a status outside 200 to 599 and for headers that HTTP
    cannot carry.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | str = b""

    def __post_init__(self) -> None:
        if not 200 <= self.status <= 599:
            raise ValueError(f"the status must be within 200 and 599, not {self.status}")
        for name, value in self.headers.items():
            if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
                raise ValueError(f"HTTP cannot carry the header {name!r}")
        headers = {name.lower(): value for name, value in self.headers.items()}
        if isinstance(self.body, str):
            headers.setdefault("content-type", "text/plain; charset=utf-8")
        object.__setattr__(self, "headers", headers)

    @property
    def body_bytes(self) -> bytes:
        """The body as it is sent."""
        return self.body.encode() if isinstance(self.body, str) else self.body

    @classmethod
    def text(cls, text: str, status: int = 200, headers: Mapping[str, str] | None = None) -> Self:
        """Return an answer of plain text."""
        return cls(status, headers or {}, text)

    @classmethod
    def json(cls, value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Self:
        """Return an answer of JSON. Raises TypeError for what JSON cannot say."""
        typed = {"content-type": "application/json"} | dict(headers or {})
        return cls(status, typed, json.dumps(value, ensure_ascii=False).encode())
