"""From a WebSocket's path and offered subprotocols to the actor it is for. Does no I/O (PROTOCOL §8.1)."""

from collections.abc import Mapping, Sequence
from urllib.parse import unquote

from gateway.errors import MissingHeader, NoRoute
from gateway.routing import PREFIX, ActorTarget, actor_target

PROTOCOL = "rivet"
"""The one subprotocol that is ever selected, and only if it is offered."""
_TARGET, _ACTOR, _TOKEN = "rivet_target.", "rivet_actor.", "rivet_token."


def select(offers: Sequence[str]) -> str | None:
    """Return the subprotocol to select."""
    return PROTOCOL if PROTOCOL in offers else None


def offered_target(offers: Sequence[str]) -> str | None:
    """Return the target that a subprotocol names, as the header `x-rivet-target` does for requests."""
    return _named(offers, _TARGET)


def socket_target(path: str, query: str, headers: Mapping[str, str], offers: Sequence[str]) -> ActorTarget:
    """Return the actor of a WebSocket, from its undecoded path and query, its headers and its offers.

    Raises:
        PathNotFound: the path names no actor.
        NoRoute: addressed by subprotocol, but to another target.
        MissingHeader: addressed by subprotocol, but no actor is named.
    """
    token = _named(offers, _TOKEN)
    if path == "/gateway" or path.startswith(PREFIX):
        target = actor_target(path, query, headers)
        return target if target.token else ActorTarget(target.actor_id, target.path, token)
    if offered_target(offers) != "actor":
        raise NoRoute(host=headers.get("host", ""), path=path)
    actor_id = _named(offers, _ACTOR)
    if not actor_id:
        raise MissingHeader(header="sec-websocket-protocol: rivet_actor.")
    return ActorTarget(unquote(actor_id), f"{path}?{query}" if query else path, token)


def _named(offers: Sequence[str], prefix: str) -> str | None:
    return next((offer[len(prefix) :] for offer in offers if offer.startswith(prefix)), None)
