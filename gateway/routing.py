"""From a request's path and headers to the actor it is for. Does no I/O (PROTOCOL §8.1)."""

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum, auto
from typing import NamedTuple
from urllib.parse import unquote

from gateway import query as queries
from gateway.errors import InvalidHeader, MissingHeader, NoRoute
from gateway.query import ActorQuery
from orchestrator.errors import PathNotFound

PREFIX = "/gateway/"
SKIP_HEADER = "x-rivet-skip-ready-wait"
MAX_TOLD = 180

_TARGET, _ACTOR, _TOKEN = "rivet_target.", "rivet_actor.", "rivet_token."
_SKIP_OFFER = "rivet_skip_ready_wait"


SUBPROTOCOL = "rivet"
"""The one subprotocol that is ever selected, and only if it is offered."""


class Destination(Enum):
    """Who answers a request."""

    API = auto()
    RUNNER = auto()
    ACTOR = auto()


class Target(NamedTuple):
    """An actor, by its id or by what it is, and the path (with query) it shall see.

    An id is as the client wrote it, decoded. With `skip_ready_wait` the actor's runner is enough: it gets the
    request although the actor does not take traffic yet.
    """

    actor: str | ActorQuery
    path: str
    token: str | None = None
    skip_ready_wait: bool = False


def destination(path: str, target: str | None) -> Destination:
    """Return who answers, from the undecoded path and the `x-rivet-target` header: paths win over targets.

    Raises:
        NoRoute: the target is unknown.
    """
    if is_gateway_path(path):
        return Destination.ACTOR
    if path in ("/runners/connect", "/runners/connect/"):
        return Destination.RUNNER
    match target:
        case None | "api-public":
            return Destination.API
        case "actor":
            return Destination.ACTOR
        case "runner":
            return Destination.RUNNER
        case _:
            raise NoRoute(path=path)


def is_gateway_path(path: str) -> bool:
    """Say whether the undecoded path itself names an actor, or should."""
    return path == "/gateway" or path.startswith(PREFIX)


def request_target(path: str, query: str, headers: Mapping[str, str]) -> Target:
    """Return the actor of a request, from its undecoded path and query and its lower-case headers.

    Raises:
        PathNotFound: the path names no actor.
        NoRoute: addressed by header, but to another target, or the path is not under `/request`.
        MissingHeader: addressed by header, but no actor is named.
        GatewayError: a query-backed path or a header breaks a rule (`gateway/query.py`).
    """
    path, query = _without_fragment(path, query)
    skip = SKIP_HEADER in headers and _skip_by_header(headers)
    if is_gateway_path(path):
        return _by_path(path, query, headers.get("x-rivet-token"), skip)
    beneath_request = path == "/request" or path.startswith("/request/")
    if headers.get("x-rivet-target") != "actor" or not beneath_request:
        raise NoRoute(host=headers.get("host", ""), path=path)
    actor_id = headers.get("x-rivet-actor")
    if not actor_id:
        raise MissingHeader(header="x-rivet-actor")
    return Target(actor_id, _with_query(path, query), headers.get("x-rivet-token"), skip)


def socket_target(path: str, query: str, headers: Mapping[str, str], offers: Sequence[str]) -> Target:
    """Return the actor of a WebSocket, whose subprotocols `offers` may name it.

    Raises:
        NoRoute: neither the path nor the subprotocols lead to actors.
        MissingHeader: the subprotocols do, but name none.
        Others: as `request_target`.
    """
    path, query = _without_fragment(path, query)
    skip = _skip_by_header(headers) or _SKIP_OFFER in offers
    token = headers.get("x-rivet-token") or _offered(offers, _TOKEN)
    if is_gateway_path(path):
        return _by_path(path, query, token, skip)
    if _offered(offers, _TARGET) != "actor":
        raise NoRoute(host=headers.get("host", ""), path=path)
    actor_id = _offered(offers, _ACTOR)
    if not actor_id:
        raise MissingHeader(header="sec-websocket-protocol")
    return Target(unquote(actor_id), _with_query(path, query), token, skip)


def told(verb: str, path: str) -> str:
    """Return how the timeline tells of a call: without its query, which may hold what is for the actor alone."""
    return f"{verb} {path.partition('?')[0]}"[:MAX_TOLD]


def selected(offers: Sequence[str]) -> str | None:
    """Return the subprotocol to select."""
    return SUBPROTOCOL if SUBPROTOCOL in offers else None


def without_token(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return a handshake's headers without the token among its subprotocols, which is not for the actor."""
    return [
        (name, value if name != b"sec-websocket-protocol" or _TOKEN.encode() not in value else _no_token(value))
        for name, value in headers
    ]


def _no_token(offers: bytes) -> bytes:
    kept = (offer.strip() for offer in offers.split(b","))
    return b", ".join(offer for offer in kept if not offer.startswith(_TOKEN.encode()))


def offered_target(offers: Sequence[str]) -> str | None:
    """Return the target that a subprotocol names, as the header `x-rivet-target` does for requests."""
    return _offered(offers, _TARGET)


def _by_path(path: str, query: str, token: str | None, skip: bool) -> Target:
    segment, slash, rest = path.removeprefix(PREFIX).partition("/")
    if "//" in path or path == "/gateway":
        raise PathNotFound
    beyond = slash + rest or "/"
    if queries.is_query_backed(query):
        parsed = queries.parse(segment, query)
        return Target(
            parsed.query, _with_query(beyond, parsed.rest), parsed.token or token, skip or parsed.skip_ready_wait
        )
    if not segment:
        raise PathNotFound
    if queries.SKIP_READY_WAIT in query:
        values, query = queries.split(query)
        skip = skip or _flag(values.get(queries.SKIP_READY_WAIT, "0"), queries.SKIP_READY_WAIT)
    actor_id, at, given = segment.partition("@")
    return Target(unquote(actor_id), _with_query(beyond, query), unquote(given) if at else token, skip)


def _without_fragment(path: str, query: str) -> tuple[str, str]:
    """Drop what a client should have kept to itself."""
    if "#" in path:
        return path.partition("#")[0], ""
    return path, query.partition("#")[0] if "#" in query else query


def _skip_by_header(headers: Mapping[str, str]) -> bool:
    text = headers.get(SKIP_HEADER)
    return False if text is None else _flag(text, SKIP_HEADER)


def _flag(text: str, header: str) -> bool:
    wanted = queries.flag(text)
    if wanted is None:
        raise InvalidHeader(header=header, detail="must be true, 1, false or 0")
    return wanted


def _offered(offers: Sequence[str], prefix: str) -> str | None:
    return next((offer.removeprefix(prefix) for offer in offers if offer.startswith(prefix)), None)


def _with_query(path: str, query: str) -> str:
    return f"{path}?{query}" if query else path
