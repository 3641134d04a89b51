"""One client's WebSocket in the runner protocol's words, from its open to its one close (PROTOCOL §5.4 to §5.6).

Events in, effects out: no I/O and no clock. Messages keep their order, and none is sent twice with two numbers or
left out: the client's are numbered as they come, and those of a socket that may hibernate are kept until the actor
acknowledges them, to be said again to whoever takes the socket up.
"""

from collections import deque
from dataclasses import dataclass, field
from enum import Enum, auto

from gateway.errors import (
    SocketMessageTooLarge,
    SocketOverloaded,
    SocketPendingLimit,
    SocketTunnelLost,
    SocketUnacknowledged,
    TunnelOverloaded,
)
from orchestrator.errors import OrchestratorError
from runners.protocol.messages import (
    ToClientTunnelMessageKind,
    ToClientWebSocketClose,
    ToClientWebSocketMessage,
    ToClientWebSocketOpen,
    ToServerResponseAbort,
    ToServerTunnelMessageKind,
    ToServerWebSocketClose,
    ToServerWebSocketMessage,
    ToServerWebSocketMessageAck,
    ToServerWebSocketOpen,
)

INDEXES = 2**16
CLOSED = (1000, "ws.closed")
"""What a client hears when the actor closes without a code."""
STOPPED = (1000, "actor.stopped")
DOWNSTREAM = ToClientWebSocketClose(1011, "ws.downstream_closed")
"""What the actor hears when the gateway gives the socket up."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one socket may hold, and for how long."""

    message_bytes: int = 32 * 1024 * 1024 - 64  # with its head a tunnel frame of 32 MiB
    unacked_messages: int = INDEXES - 1
    unacked_bytes: int = 128 * 1024 * 1024
    unacked_seconds: float = 30.0
    ahead_bytes: int = 32 * 1024 * 1024  # of the actor's, before the socket counts as open


@dataclass(frozen=True, slots=True)
class ToRunner:
    """Send the runner a message with this index."""

    index: int
    kind: ToClientTunnelMessageKind


@dataclass(frozen=True, slots=True)
class ToClient:
    """Send the client a message; UTF-8 unless `binary`."""

    data: bytes
    binary: bool


@dataclass(frozen=True, slots=True)
class Accepted:
    """The actor takes the socket. `admit` it once what has to be written down is."""

    can_hibernate: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """The actor does not take the socket."""


@dataclass(frozen=True, slots=True)
class Close:
    """Close the client's side. `at_once`: without what waits to be written to it. `by`: the actor, or an error."""

    code: int
    reason: str
    at_once: bool = False
    by: str = field(default="actor", compare=False)  # for those who look on: it is not said


@dataclass(frozen=True, slots=True)
class Detach:
    """Let go of the runner; the client stays. `resume` with the next one."""


@dataclass(frozen=True, slots=True)
class Wake:
    """The actor is wanted."""


@dataclass(frozen=True, slots=True)
class Over:
    """Nothing is left to do; the last effect there is, once."""


Effect = ToRunner | ToClient | Accepted | Refused | Close | Detach | Wake | Over


class Phase(Enum):
    """How far a socket has come."""

    CONNECTING = auto()  # a runner is, or will be, asked
    ACCEPTED = auto()  # it has agreed; not admitted yet
    OPEN = auto()
    HIBERNATING = auto()  # the client is there, the actor sleeps
    CLOSING = auto()  # the client has left; the actor was told and is to confirm it: it may be falling asleep
    LEAVING = auto()  # the client has left while the actor sleeps, which has to be told
    OVER = auto()


@dataclass(frozen=True, slots=True)
class _Unacked:
    index: int
    message: ToClientWebSocketMessage
    at: float


class SocketTunnel:
    """A WebSocket between a client and an actor. `now` is any clock of seconds that does not go back."""

    __slots__ = (
        "_ahead",
        "_ahead_bytes",
        "_farewell",
        "_held",
        "_left_at",
        "_next",
        "_ray_id",
        "_resumed_at",
        "_unacked",
        "can_hibernate",
        "held_bytes",
        "limits",
        "phase",
        "unacked_bytes",
    )

    def __init__(self, ray_id: str, limits: Limits) -> None:
        self.phase = Phase.CONNECTING
        self.can_hibernate = False
        self.limits = limits
        self.held_bytes = 0  # of the client's messages that came before the socket was open
        self.unacked_bytes = 0
        self._ray_id = ray_id
        self._next = 0  # index of the next message to the runner
        self._held: list[ToClientWebSocketMessage] = []
        self._ahead: list[ToServerTunnelMessageKind] = []  # what the actor said before the socket counts as open
        self._ahead_bytes = 0
        self._unacked: deque[_Unacked] = deque()  # without a gap
        self._resumed_at = 0.0
        self._farewell = ToRunner(0, ToClientWebSocketClose(1000, None))  # of a client that has left
        self._left_at = 0.0

    # The beginning

    def connect(self, start: ToClientWebSocketOpen) -> list[Effect]:
        """Ask a runner, the first or the next one: whatever the last one said is void."""
        self.phase = Phase.CONNECTING
        self._ahead, self._ahead_bytes, self._next = [], 0, 0
        return [self._to_runner(start)]

    def give_up(self) -> list[Effect]:
        """Withdraw the question; `connect` may follow."""
        if self.phase not in (Phase.CONNECTING, Phase.ACCEPTED) or not self._next:
            return []
        self.phase = Phase.CONNECTING
        effects: list[Effect] = [self._to_runner(DOWNSTREAM)]
        self._next = 0
        return effects

    def admit(self, now: float) -> list[Effect]:
        """Open the socket the actor has accepted; what both sides have said meanwhile is passed on."""
        assert self.phase is Phase.ACCEPTED, f"{self.phase} is not to be admitted"
        self.phase, self._resumed_at = Phase.OPEN, now
        if self._ahead_bytes > self.limits.ahead_bytes:
            return self.fail(SocketOverloaded())
        effects: list[Effect] = []
        ahead, self._ahead = self._ahead, []
        for kind in ahead:
            effects += self.from_runner(kind)
        held, self._held, self.held_bytes = self._held, [], 0
        for message in held:
            effects += self._pass_on(message, now)
        return effects

    # What happens

    def from_client(self, data: bytes, binary: bool, now: float) -> list[Effect]:
        """The client has sent a message."""
        message = ToClientWebSocketMessage(data, binary)
        if self.phase in (Phase.CONNECTING, Phase.ACCEPTED):
            self._held.append(message)
            self.held_bytes += len(data)
            return []
        return self._pass_on(message, now)

    def from_runner(self, kind: ToServerTunnelMessageKind) -> list[Effect]:
        """The runner the socket is with has sent a message."""
        if self.phase in (Phase.CONNECTING, Phase.ACCEPTED):
            return self._before_open(kind)
        if self.phase is Phase.OVER:
            return []
        match kind:
            case ToServerWebSocketMessage(data, binary):
                return [] if self.is_leaving else [ToClient(data, binary)]
            case ToServerWebSocketMessageAck(index):
                self._acknowledge(index)
            case ToServerWebSocketClose(_, _, True) if self.can_hibernate:
                return self._hibernate()
            case ToServerWebSocketClose(code, reason, _):
                own, why = CLOSED
                told = Close(own if code is None else code, (reason or "") if code is not None else reason or why)
                return self._end(ToClientWebSocketClose(1000, None), told)
            case ToServerResponseAbort():
                return self.fail(TunnelOverloaded())
        return []

    def client_left(self, code: int, reason: str | None, now: float) -> list[Effect]:
        """The client has closed the socket, or vanished. Whoever has it closes it too, which confirms that."""
        close = ToClientWebSocketClose(code, reason)
        if self.is_leaving:
            return []
        if not self.can_hibernate or self.phase not in (Phase.OPEN, Phase.HIBERNATING):
            return self._end(close, None)
        self._farewell, self._left_at = self._to_runner(close), now
        if self.phase is Phase.OPEN:
            self.phase = Phase.CLOSING
            return [self._farewell]
        self.phase = Phase.LEAVING
        return [Wake()]

    def stopped(self) -> list[Effect]:
        """The actor's life, or its runner's, has ended. Not for a socket that is not open yet."""
        if self.phase not in (Phase.OPEN, Phase.CLOSING):
            return []
        return self._hibernate() if self.can_hibernate else self._end(ToClientWebSocketClose(*STOPPED), _STOPPED)

    def destroyed(self) -> list[Effect]:
        """The actor is no more."""
        return self._end(ToClientWebSocketClose(*STOPPED), _STOPPED)

    def lost(self) -> list[Effect]:
        """Messages to the runner may be lost: say again what can be said again. The runner knows the numbers."""
        if self.phase is Phase.CLOSING:
            return [*self._again(), self._farewell]
        if self.phase is not Phase.OPEN:
            return []
        if self.can_hibernate:
            return self._again()
        return self.fail(SocketTunnelLost())

    def fail(self, error: OrchestratorError) -> list[Effect]:
        """The gateway cannot go on."""
        at_once = isinstance(error, SocketOverloaded)
        return self._end(DOWNSTREAM, closing(error, self._ray_id, at_once=at_once))

    def resume(self, now: float) -> list[Effect]:
        """The actor lives again: say again what is not acknowledged; then, if the client has left, the close."""
        if self.phase is Phase.HIBERNATING:
            self.phase, self._resumed_at = Phase.OPEN, now
            return self._again()
        if self.phase is Phase.LEAVING:
            return [*self._again(), self._farewell, *self._end(DOWNSTREAM, None)]
        return []

    def check(self, now: float) -> list[Effect]:
        """Time has passed."""
        if self.phase is Phase.CLOSING and now - self._left_at > self.limits.unacked_seconds:
            return self._end(DOWNSTREAM, None)
        if self.phase is not Phase.OPEN or not self._unacked:
            return []
        waited = now - max(self._unacked[0].at, self._resumed_at)
        return self.fail(SocketUnacknowledged()) if waited > self.limits.unacked_seconds else []

    @property
    def is_leaving(self) -> bool:
        """Whether the client is gone and the actor may not know it yet."""
        return self.phase in (Phase.CLOSING, Phase.LEAVING)

    @property
    def wants_actor(self) -> bool:
        """Whether a hibernating socket has something to tell the actor."""
        return self.phase is Phase.LEAVING or bool(self._unacked)

    # Steps

    def _to_runner(self, kind: ToClientTunnelMessageKind) -> ToRunner:
        index = self._next
        self._next = (index + 1) % INDEXES
        return ToRunner(index, kind)

    def _pass_on(self, message: ToClientWebSocketMessage, now: float) -> list[Effect]:
        if len(message.data) > self.limits.message_bytes:
            return self.fail(SocketMessageTooLarge())
        if self.phase is Phase.OPEN:
            numbered = self._to_runner(message)
            return self._keep(numbered.index, message, now) if self.can_hibernate else [numbered]
        if self.phase is Phase.HIBERNATING:
            return self._keep(self._to_runner(message).index, message, now)
        return []

    def _keep(self, index: int, message: ToClientWebSocketMessage, now: float) -> list[Effect]:
        self._unacked.append(_Unacked(index, message, now))
        self.unacked_bytes += len(message.data)
        too_many = len(self._unacked) > self.limits.unacked_messages
        if too_many or self.unacked_bytes > self.limits.unacked_bytes:
            return self.fail(SocketPendingLimit())
        return [ToRunner(index, message)] if self.phase is Phase.OPEN else [Wake()]

    def _before_open(self, kind: ToServerTunnelMessageKind) -> list[Effect]:
        connecting = self.phase is Phase.CONNECTING
        match kind:
            case ToServerWebSocketOpen(can_hibernate) if connecting:
                self.phase, self.can_hibernate = Phase.ACCEPTED, can_hibernate
                return [Accepted(can_hibernate)]
            case ToServerWebSocketClose() | ToServerResponseAbort() if connecting:
                return [Refused()]
            case ToServerWebSocketMessage(data, _):
                self._ahead_bytes += len(data)
        if self._ahead_bytes <= self.limits.ahead_bytes:  # else it is closed as soon as it is open
            self._ahead.append(kind)
        return []

    def _acknowledge(self, index: int) -> None:
        """Drop what is acknowledged: everything up to this index, unless that was dropped before."""
        if not self._unacked:
            return
        count = (index - self._unacked[0].index) % INDEXES + 1
        if count <= len(self._unacked):
            for _ in range(count):
                self.unacked_bytes -= len(self._unacked.popleft().message.data)

    def _again(self) -> list[Effect]:
        return [ToRunner(one.index, one.message) for one in self._unacked]

    def _hibernate(self) -> list[Effect]:
        if self.phase not in (Phase.OPEN, Phase.CLOSING):
            return []
        self.phase = Phase.HIBERNATING if self.phase is Phase.OPEN else Phase.LEAVING
        return [Detach(), Wake()] if self.wants_actor else [Detach()]

    def _end(self, last_word: ToClientWebSocketClose, close: Close | None) -> list[Effect]:
        """End for good: tell the runner, if one has the socket, and the client, unless it has left."""
        was_leaving = self.is_leaving
        before, self.phase = self.phase, Phase.OVER
        if before is Phase.OVER:
            return []
        asked = before in (Phase.CONNECTING, Phase.ACCEPTED) and self._next > 0
        effects: list[Effect] = [self._to_runner(last_word)] if asked or before is Phase.OPEN else []
        if close is not None and not was_leaving:
            effects.append(close)
        self._held, self._ahead, self.held_bytes, self.unacked_bytes = [], [], 0, 0
        self._unacked.clear()
        return [*effects, Over()]


def closing(error: OrchestratorError, ray_id: str, *, at_once: bool = False) -> Close:
    """Return how a client is told of an error."""
    return Close(error.close_code, error.close_reason(ray_id), at_once, by=f"{error.group}.{error.code}")


_STOPPED = Close(*STOPPED, by="actor.stopped")
