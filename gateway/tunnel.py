"""One HTTP request in the runner protocol's words, and its answer back (PROTOCOL §5.2, §5.3, §8.4). No I/O."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gateway.errors import InvalidResponse
from runners.protocol.messages import ToClientRequestStart, ToServerResponseStart

Headers = list[tuple[bytes, bytes]]

_VISIBLE = re.compile(rb"[\x20-\x7e\t]*")
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[^\x00\r\n]*")
_TOKEN = "x-rivet-token"
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "upgrade", "proxy-connection"}
_BODYLESS_METHODS = {"GET", "HEAD"}
_BODYLESS_STATUSES = {204, 304}


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """What of an answer goes before its body; `has_body` is False where HTTP allows none."""

    status: int
    headers: Headers
    has_body: bool


def request_start(
    actor_id: str, method: str, path: str, headers: Iterable[tuple[bytes, bytes]], body: bytes, ray_id: str
) -> ToClientRequestStart:
    """Return the one frame of a request. A GET or HEAD loses its body, which npm clients fail on.

    The token was for the gateway and stays there. Repeated headers are joined as HTTP allows; values that are
    not visible ASCII are dropped (PROTOCOL §5.2).
    """
    bodyless = method in _BODYLESS_METHODS
    joined: dict[str, str] = {}
    for raw_name, raw_value in headers:
        if not _VISIBLE.fullmatch(raw_value):
            continue
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("ascii")
        if name == _TOKEN or (bodyless and name == "content-length"):
            continue
        if name in joined:
            value = f"{joined[name]}{'; ' if name == 'cookie' else ', '}{value}"
        joined[name] = value
    joined["x-rivet-ray-id"] = ray_id
    return ToClientRequestStart(
        actor_id=actor_id,
        method=method,
        path=path,
        headers=joined,
        body=None if bodyless or not body else body,
        stream=False,
    )


def response_head(start: ToServerResponseStart, method: str, cors: Headers, ray_id: str) -> ResponseHead:
    """Return what the client gets before the body.

    The length of a whole body is set here whatever the runner says, so that no answer is cut or hangs.

    Raises:
        InvalidResponse: the status or a header is not legal HTTP.
    """
    if not 200 <= start.status <= 599:
        raise InvalidResponse(f"the actor answered with the status {start.status}")
    overwritten = {name for name, _ in cors}
    headers: Headers = []
    for name, value in start.headers.items():
        lower = name.lower()
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise InvalidResponse(f"the actor answered with an illegal header {name[:64]!r}")
        if lower in _HOP_BY_HOP or lower.encode() in overwritten or lower in ("content-length", "x-rivet-ray-id"):
            continue
        headers.append((lower.encode("ascii"), value.encode("utf-8")))
    has_body = method != "HEAD" and start.status not in _BODYLESS_STATUSES
    if not start.stream and has_body:
        headers.append((b"content-length", str(len(start.body or b"")).encode()))
    elif "content-length" in (given := {name.lower(): value for name, value in start.headers.items()}):
        headers.append((b"content-length", given["content-length"].encode("ascii", "ignore")))
    headers += [*cors, (b"x-rivet-ray-id", ray_id.encode())]
    return ResponseHead(start.status, headers, has_body)


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
