"""What clients did to an engine, what they saw of it, and what was done to it meanwhile. Does no I/O.

Moments are seconds since the epoch, as `time.time` gives them.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from tests.faults.schedule import Fault

Outcome = Literal["waiting", "ok", "refused", "broken"]
"""`refused`: an answer with a code; `broken`: the connection ended without an answer."""


@dataclass(slots=True)
class Operation:
    """One thing a client asked for, from beginning to end."""

    kind: str  # call, count, sleep, alarm, create, destroy, read, stranger (reads from another namespace), …
    actor_id: str
    web: int  # the web process it was sent to
    began: float
    ended: float = 0.0
    outcome: Outcome = "waiting"
    status: int = 0  # of the HTTP answer
    code: str = ""  # `group.code` of a refusal; what broke, otherwise
    value: int | None = None  # what was counted; when the alarm is due, in ms since the epoch; how many were found
    generation: int | None = None  # that answered
    key: str = ""  # of what was created
    told: str = ""  # the body of a refusal

    @property
    def seconds(self) -> float:
        return self.ended - self.began


@dataclass(slots=True)
class SocketLog:
    """One WebSocket of a client to an actor that echoes; messages are consecutive numbers from 0."""

    actor_id: str
    web: int
    may_hibernate: bool
    opened: float
    sent: int = 0
    heard: list[int] = field(default_factory=list)
    closed: float | None = None
    code: int | None = None  # None: it ended without a close frame
    reason: str = ""
    left: bool = False  # the client itself closed it


@dataclass(slots=True)
class Sleeper:
    """An alarm that a client set, and the sleep after it. Nobody calls the actor until it rings."""

    actor_id: str
    due_ms: int
    generation: int  # that set it
    set_at: float
    asleep: float  # when it was seen asleep
    rung: float | None = None  # when it was seen awake again


@dataclass(frozen=True, slots=True)
class LateWrite:
    """A write of a life that was over, carried out when the next one had begun on the same runner."""

    actor_id: str
    generation: int  # of the life that is over
    accepted: bool


@dataclass(slots=True)
class Injected:
    """A fault that was carried out: `began` to `ended`, and who was hit (the processes' names)."""

    fault: Fault
    began: float
    ended: float
    hit: tuple[str, ...]
    pids: tuple[int, ...] = ()


@dataclass(slots=True)
class History:
    """Everything that happened in a run, in the order it began."""

    operations: list[Operation] = field(default_factory=list)
    sockets: list[SocketLog] = field(default_factory=list)
    sleepers: list[Sleeper] = field(default_factory=list)
    injected: list[Injected] = field(default_factory=list)
    late_writes: list[LateWrite] = field(default_factory=list)
    quiet_at: float = 0.0  # when everything was whole again
    ended_at: float = 0.0

    def of(self, kind: str) -> Iterator[Operation]:
        """Give the operations of a kind."""
        return (operation for operation in self.operations if operation.kind == kind)

    def counts(self) -> Counter[str]:
        """Return how many operations of each kind had each outcome, as `kind outcome`."""
        return Counter(f"{operation.kind} {operation.outcome}" for operation in self.operations)
