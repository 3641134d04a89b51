"""Where a client's WebSocket is: with one life of its actor, at one runner, and the way there."""

import math
from collections.abc import Callable

from gateway.errors import GatewayError
from gateway.lane import Lane, Rider
from gateway.said import Place, Said
from gateway.watch import Exchange, Route, Watch
from runners.channel import ANY_LIFE
from runners.protocol.messages import ToServerTunnelMessageKind, ToServerWebSocketOpen


class Berth:
    """A WebSocket's place at the runner of a route. `take` it, and `leave` it."""

    def __init__(
        self, rider: Rider, lane: Lane, actor_id: str, route: Route, over: Callable[[GatewayError], None]
    ) -> None:
        """`over` is called once the life of the route is over, perhaps at once when it is taken."""
        self.generation = route.generation
        self._rider, self._lane, self._actor_id = rider, lane, actor_id
        self._exchange = Exchange(route, math.inf, over)
        self.said = Said()

    @property
    def runner_id(self) -> str:
        """Whose it is."""
        return self._lane.runner_id

    @property
    def is_busy(self) -> bool:
        """Whether the way to the runner is behind: the client had better not be read from for now."""
        return self._lane.is_busy

    def take(self, watch: Watch) -> None:
        """Be told of the runner and of the life's end."""
        self._lane.join(self._rider)
        watch.join(self._exchange)

    def leave(self, watch: Watch) -> None:
        """Let it go; what was sent still goes out."""
        watch.leave(self._exchange)
        self._lane.leave(self._rider)

    def withdraw(self) -> None:
        """Take back what waits for this life: the next one is told anew."""
        self._lane.withdraw(self._rider)

    def send(self, frame: bytes, *, to_any_life: bool) -> None:
        """Send the runner a frame, for this life of the actor or for any.

        Raises:
            TunnelOverloaded: too much waits already.
        """
        self._lane.send(frame, ANY_LIFE if to_any_life else (self._actor_id, self.generation))

    def hear(self, kind: ToServerTunnelMessageKind, index: int) -> Place:
        """Take note of the runner's next message, and say where it stands."""
        if isinstance(kind, ToServerWebSocketOpen):
            self.said.opened(index)
            return Place.NEXT
        return self.said.take(index)
