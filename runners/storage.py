"""The key-value storage of actors as runners reach it: a higher house keeps it, and says so when Django starts."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from runners.protocol.messages import KvErrorResponse, KvRequestData, KvResponseData


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks for an actor's storage: a runner, over one of its sockets, in one generation of the actor.

    A request names no generation: it is that of the actor's life which this socket has heard of when the request
    comes in; None if of none yet, as after a reconnect.
    """

    runner_id: str
    socket_id: str
    generation: int | None


Serve: TypeAlias = Callable[[Caller, str, KvRequestData], KvResponseData]
"""Answers a request for the storage of the actor of this id, in a database thread. A refusal is an answer too."""

_serves: list[Serve] = []


def register_storage(serve: Serve) -> None:
    """Have requests answered by `serve`."""
    _serves.append(serve)


def serve(caller: Caller, actor_id: str, request: KvRequestData) -> KvResponseData:
    """Return the answer of whoever keeps the storage."""
    for registered in _serves:
        return registered(caller, actor_id, request)
    return KvErrorResponse("this engine keeps no storage")
