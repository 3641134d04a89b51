"""What this process knows of one actor right now, and who must be told when that changes. Does no I/O.

A watch is fed with the actor's messages and with looks at its row; it keeps the route to the actor, and ends
exchanges whose generation has stopped.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from gateway.errors import ActorDestroyedWhileWaiting, ActorNotFound, ActorStopped, GatewayError


@dataclass(frozen=True, slots=True)
class Route:
    """Where an actor takes traffic."""

    runner_id: str
    generation: int


@dataclass(frozen=True, slots=True)
class Look:
    """An actor's row, as far as the gateway is concerned."""

    exists: bool
    destroyed: bool = False
    generation: int = -1
    runner_id: str = ""  # holds it now, connectable or not
    connectable: bool = False
    starting: bool = False  # its runner was told to start it
    pool_error: object = None  # why its pool starts no runner, while it waits for one


class Returned(Protocol):
    """What is to be done when a runner has come back."""

    def __call__(self, seconds: float, *, untold: bool) -> None:
        """Take note that the runner has had another connection for so many seconds.

        `untold`: nobody has said what may be lost of the one before; its process is dead, or has not noticed.
        """


class Exchange:
    """One request on its way through the tunnel: whom it is with, and how to end it early."""

    __slots__ = ("fail", "generation", "returned", "runner_id", "since")

    def __init__(
        self,
        route: Route,
        since: float,
        fail: Callable[[GatewayError], None],
        returned: Returned | None = None,
    ) -> None:
        """`returned` is called when the runner comes back over another connection."""
        self.runner_id = route.runner_id
        self.generation = route.generation
        self.since = since
        self.fail = fail
        self.returned = returned


@dataclass(slots=True, eq=False)
class Watch:
    """One actor as seen from here."""

    actor_id: str
    route: Route | None = None
    assigned: Route | None = None  # where it was told to start, when last looked at
    destroyed: bool = False
    stops: int = 0  # generations seen to stop since the watch began
    stopped_generation: int = -1
    users: int = 0
    exchanges: dict[Exchange, None] = field(default_factory=dict)  # in the order they came
    listeners: list[Callable[[], None]] = field(default_factory=list)
    woken_by_us: bool = False  # the next exchange is the first after a wake that was asked for here
    _informed: bool = False  # something was heard or seen before: what has stopped since has done so in our time

    def join(self, exchange: Exchange) -> None:
        """Take an exchange in. One whose route is out of date by now ends at once."""
        self.exchanges[exchange] = None
        if self.destroyed:
            exchange.fail(ActorNotFound(actor_id=self.actor_id))
        elif exchange.generation <= self.stopped_generation:
            exchange.fail(ActorStopped(actor_id=self.actor_id))

    def leave(self, exchange: Exchange) -> None:
        """Forget an exchange that is over."""
        self.exchanges.pop(exchange, None)

    def hear(self, payload: bytes) -> str | None:
        """Take a message of the actor workflow, as it is published (`actors/turn.py`, `actors/services.py`).

        One of them is of its runner's socket: it has taken the place of another one (`runners/conversation.py`).

        Returns the channel on which its sender waits for a receipt, if it does.
        """
        message = json.loads(payload)
        kind, generation = message["m"], message.get("generation", -1)
        if kind == "ready" and generation > self.stopped_generation:
            self._is_at(Route(message["runner"], generation))
        elif kind == "stopping":
            self._withdraw(generation)
        elif kind == "stopped":
            self._stopped(generation)
        elif kind == "destroyed":
            self._destroyed()
        elif kind == "returned":
            self._returned(message["runner"], message["seconds"], untold=message["untold"])
        self._informed = True
        self._tell()
        receipt: str | None = message.get("receipt")
        return receipt

    def look(self, look: Look) -> None:
        """Take what the row says: the truth, should a message have been lost."""
        if look.destroyed or not look.exists:
            self._destroyed()
        elif look.generation > self.stopped_generation:
            if not look.runner_id:
                self._stopped(look.generation)
            elif look.connectable:
                self._stopped(look.generation - 1)
                self._is_at(Route(look.runner_id, look.generation))
            else:
                self._stopped(look.generation - 1)
                self._withdraw(look.generation)
                self.assigned = Route(look.runner_id, look.generation) if look.starting else None
        self._informed = True
        self._tell()

    def forget_route(self) -> None:
        """Look again before the next request: a message may have been lost."""
        self.route = self.assigned = None

    def _is_at(self, route: Route) -> None:
        self.route, self.assigned = route, None

    def _withdraw(self, generation: int) -> None:
        if self.route is not None and self.route.generation <= generation:
            self.route = None
        if self.assigned is not None and self.assigned.generation <= generation:
            self.assigned = None

    def _stopped(self, generation: int) -> None:
        if generation <= self.stopped_generation:
            return
        self.stopped_generation = generation
        self.stops += self._informed
        self._withdraw(generation)
        for exchange in [one for one in self.exchanges if one.generation <= generation]:
            exchange.fail(ActorStopped(actor_id=self.actor_id))

    def _returned(self, runner_id: str, seconds: float, *, untold: bool) -> None:
        for exchange in list(self.exchanges):
            if exchange.runner_id == runner_id and exchange.returned is not None:
                exchange.returned(seconds, untold=untold)

    def _destroyed(self) -> None:
        self.destroyed = True
        self.route = self.assigned = None
        for exchange in list(self.exchanges):
            exchange.fail(ActorNotFound(actor_id=self.actor_id))

    def _tell(self) -> None:
        for listener in list(self.listeners):
            listener()

    def gone(self) -> GatewayError:
        """Return why a request that waits for a destroyed actor ends."""
        return ActorDestroyedWhileWaiting(actor_id=self.actor_id)
