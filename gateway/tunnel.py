"""One HTTP request in the runner protocol's words, and its answer back (PROTOCOL §5.2, §5.3, §8.4). No I/O."""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

from gateway.errors import InvalidResponse, TunnelBroken
from runners.protocol.messages import ToClientRequestStart, ToServerResponseStart

Headers = list[tuple[bytes, bytes]]

_VISIBLE = re.compile(rb"[\x20-\x7e\t]*")
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[^\x00\r\n]*")
_DIGITS = re.compile(r"[0-9]{1,18}")
_TOKEN = "x-rivet-token"
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "upgrade", "proxy-connection", "te", "trailer"}
_USUAL = {"close", "keep-alive", "upgrade", "te"}  # in most Connection headers; they name nothing else
_OURS = _HOP_BY_HOP | {"expect", _TOKEN}  # what the client has settled with this server
_CORS = {"access-control-allow-origin", "access-control-allow-credentials", "access-control-expose-headers"}
_REPLACED = _HOP_BY_HOP | _CORS | {"x-rivet-ray-id"}
_REPLACED_FOR_ORIGIN = _REPLACED | {"vary"}
_NAMES = 256  # of headers that are remembered
_BODYLESS_METHODS = {"GET", "HEAD"}
_BODYLESS_STATUSES = {204, 304}


class ResponseHead(NamedTuple):
    """What of an answer goes before its body; `has_body` is False where HTTP allows none.

    `length` is that of a streamed body, if the runner announces it.
    """

    status: int
    headers: Headers
    has_body: bool
    length: int | None = None


def is_bodyless(method: str) -> bool:
    """Say whether requests of this method go to the runner without a body: npm clients fail on it."""
    return method in _BODYLESS_METHODS


def request_start(
    actor_id: str,
    method: str,
    path: str,
    headers: Iterable[tuple[bytes, bytes]],
    body: bytes,
    ray_id: str,
    *,
    stream: bool = False,
) -> ToClientRequestStart:
    """Return the first frame of a request; with `stream`, chunks with the rest of the body follow it.

    The token was for the gateway and stays there. Repeated headers are joined as HTTP allows; values that are not
    visible ASCII are dropped (PROTOCOL §5.2), and so is what concerns only the client's connection (RFC 9110
    §7.6.1).
    """
    bodyless = is_bodyless(method)
    dropped = _OURS
    joined: dict[str, str] = {}
    for raw_name, raw_value in headers:
        value = raw_value.decode("latin-1")
        if not (value.isascii() and value.isprintable()) and not _VISIBLE.fullmatch(raw_value):
            continue
        name = _lower(raw_name)
        if name == "connection" and value not in _USUAL:
            dropped = dropped | {named.strip().lower() for named in value.split(",")} - _USUAL
        if name in dropped or (bodyless and name == "content-length"):
            continue
        if name in joined:
            value = f"{joined[name]}{'; ' if name == 'cookie' else ', '}{value}"
        joined[name] = value
    if len(dropped) > len(_OURS):
        joined = {name: value for name, value in joined.items() if name not in dropped}
    joined["x-rivet-ray-id"] = ray_id
    return ToClientRequestStart(
        actor_id=actor_id,
        method=method,
        path=path,
        headers=joined,
        body=None if bodyless or not body else body,
        stream=stream,
    )


def response_head(
    start: ToServerResponseStart, method: str, cors: Headers, ray_id: str, *, multi_headers: bool = False
) -> ResponseHead:
    """Return what the client gets before the body.

    The length of a whole body is set here whatever the runner says, so that no answer is cut or hangs. With
    `multi_headers` a value of several lines is as many headers.

    Raises:
        InvalidResponse: the status or a header is not legal HTTP.
    """
    if not 200 <= start.status <= 599:
        raise InvalidResponse(f"the actor answered with the status {start.status}")
    replaced = _REPLACED_FOR_ORIGIN if cors[-1][0] == b"vary" else _REPLACED
    headers: Headers = []
    announced: str | None = None
    for name, text in start.headers.items():
        lower, encoded = _answered(name)
        values = [text]
        if not text.isprintable():
            values = text.split("\n") if multi_headers else values
            if not all(map(_VALUE.fullmatch, values)):
                raise _illegal(name)
        if lower == "content-length":
            announced = text
        elif lower not in replaced:
            for value in values:
                headers.append((encoded, value.encode()))
    has_body = method != "HEAD" and start.status not in _BODYLESS_STATUSES
    length = None
    if not start.stream and has_body:
        headers.append((b"content-length", str(len(start.body or b"")).encode()))
    elif announced is not None:
        length = _length(announced)
        headers.append((b"content-length", str(length).encode()))
    headers += [*cors, (b"x-rivet-ray-id", ray_id.encode())]
    return ResponseHead(start.status, headers, has_body, length)


@lru_cache(maxsize=_NAMES)
def _lower(raw_name: bytes) -> str:
    return raw_name.decode("latin-1").lower()


@lru_cache(maxsize=_NAMES)
def _answered(name: str) -> tuple[str, bytes]:
    """Return the name of a runner's header in lower case, as text and as it is sent."""
    if not _NAME.fullmatch(name):
        raise _illegal(name)
    lower = name.lower()
    return lower, lower.encode("ascii")


def _illegal(name: str) -> InvalidResponse:
    return InvalidResponse(f"the actor answered with an illegal header {name[:64]!r}")


def _length(text: str) -> int:
    if not _DIGITS.fullmatch(text):
        raise InvalidResponse(f"the actor announced a body of {text[:32]!r} bytes")
    return int(text)


class Stream:
    """The body of a streamed answer: whether it is whole, and when the runner may send more.

    `window_bytes` is the runner's (`runners/features.py`), `length` what it announced, `first_index` the number of
    the message that began the answer; None where there is no such thing to keep to.
    """

    def __init__(self, *, window_bytes: int | None, length: int | None, first_index: int | None) -> None:
        self._grant_bytes = None if window_bytes is None else window_bytes // 2
        self._ungranted = 0
        self._left = length
        self._last_index = first_index

    @property
    def is_windowed(self) -> bool:
        """Whether the runner waits for grants."""
        return self._grant_bytes is not None

    def is_new(self, index: int) -> bool:
        """Say whether a message of this number is the next one: after a reconnect one may come again.

        Raises:
            TunnelBroken: one is missing.
        """
        if self._last_index is None:
            return True
        ahead = (index - self._last_index) % 2**16
        if 1 < ahead < 2**15:
            raise TunnelBroken("a part of the answer is lost")
        if ahead == 1:
            self._last_index = index
        return ahead == 1

    def arrived(self, size: int, *, finish: bool) -> None:
        """Count a part of the body.

        Raises:
            InvalidResponse: it is more, or in the end less, than was announced.
        """
        if self._left is None:
            return
        self._left -= size
        if self._left < 0 or (finish and self._left):
            raise InvalidResponse("the actor's answer is not as long as announced")

    def taken(self, size: int) -> int:
        """Return how many grants the runner is due, now that the client has taken so many bytes more."""
        if self._grant_bytes is None:
            return 0
        grants, self._ungranted = divmod(self._ungranted + size, self._grant_bytes)
        return grants


def cors_headers(origin: bytes | None) -> Headers:
    """Return the CORS headers of an answer to an actor's client (PROTOCOL §8.4)."""
    headers = [
        (b"access-control-allow-origin", origin or b"*"),
        (b"access-control-allow-credentials", b"true"),
        (b"access-control-expose-headers", b"*"),
    ]
    return [*headers, (b"vary", b"Origin")] if origin else headers


def preflight_headers(headers: Mapping[bytes, bytes], ray_id: str) -> Headers:
    """Return the headers of the answer to OPTIONS, which is given before any actor is looked at."""
    return [
        *cors_headers(headers.get(b"origin")),
        (b"access-control-allow-methods", b"GET, POST, PUT, DELETE, OPTIONS, PATCH"),
        (b"access-control-allow-headers", headers.get(b"access-control-request-headers", b"*")),
        (b"access-control-max-age", b"86400"),
        (b"x-rivet-ray-id", ray_id.encode()),
    ]
