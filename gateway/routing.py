"""From a request's path and headers to the actor it is for. Does no I/O (PROTOCOL §8.1)."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from urllib.parse import unquote

from gateway.errors import MissingHeader, NoRoute
from orchestrator.errors import PathNotFound

PREFIX = "/gateway/"


class Destination(Enum):
    """Who answers a request."""

    API = auto()
    RUNNER = auto()
    ACTOR = auto()


@dataclass(frozen=True, slots=True)
class ActorTarget:
    """An actor, and the path (with query) it shall see. The id is as the client wrote it, decoded."""

    actor_id: str
    path: str
    token: str | None = None


def destination(path: str, target: str | None) -> Destination:
    """Return who answers, from the undecoded path and the `x-rivet-target` header: paths win over targets.

    Raises:
        NoRoute: the target is unknown.
    """
    if path == "/gateway" or path.startswith(PREFIX):
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


def actor_target(path: str, query: str, headers: Mapping[str, str]) -> ActorTarget:
    """Return the actor of a request, from its undecoded path and query and its lower-case headers.

    Raises:
        PathNotFound: the path names no actor.
        NoRoute: addressed by header, but to another target, or the path is not under `/request`.
        MissingHeader: addressed by header, but no actor is named.
    """
    if path == "/gateway" or path.startswith(PREFIX):
        return _by_path(path, query)
    beneath_request = path == "/request" or path.startswith("/request/")
    if headers.get("x-rivet-target") != "actor" or not beneath_request:
        raise NoRoute(host=headers.get("host", ""), path=path)
    actor_id = headers.get("x-rivet-actor")
    if not actor_id:
        raise MissingHeader(header="x-rivet-actor")
    return ActorTarget(actor_id, _with_query(path, query), headers.get("x-rivet-token"))


def _by_path(path: str, query: str) -> ActorTarget:
    segment, slash, rest = path.removeprefix(PREFIX).partition("/")
    if "//" in path or path == "/gateway" or not segment:
        raise PathNotFound
    actor_id, at, token = segment.partition("@")
    return ActorTarget(unquote(actor_id), _with_query(slash + rest or "/", query), unquote(token) if at else None)


def _with_query(path: str, query: str) -> str:
    return f"{path}?{query}" if query else path
