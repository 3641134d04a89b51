"""Time, chance, and what is known to go wrong."""

import heapq
import itertools
import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

BEGINNING = datetime(2030, 1, 1, tzinfo=UTC)
TRANSCRIPT_LINES = 400


class Violation(BaseException):
    """An invariant does not hold, and the pump's care for poisonous signals must not hide it."""


@dataclass(frozen=True)
class Faults:
    """How likely each fault is at each chance it gets; lengths in seconds of simulated time."""

    crash_before_commit: float = 0.01
    crash_after_commit: float = 0.01
    lapsed_lease: float = 0.01
    lost_effect: float = 0.01
    lost_task: float = 0.02
    twice: float = 0.02
    wipe_every: float = 20.0
    cut_every: float = 6.0  # a runner's socket
    kill_every: float = 15.0  # a runner's process
    connector_dies_every: float = 25.0
    endpoint_fails: float = 0.1
    mute_start: float = 0.01  # a runner that never says running
    mute_stop: float = 0.01  # one that never says stopped


NONE = Faults(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)


class World:
    """An event queue under a virtual clock. Everything random comes from the seed."""

    def __init__(self, seed: int, faults: Faults) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.faults = faults
        self.now = BEGINNING
        self.steps = 0
        self.counts: Counter[str] = Counter()
        self.transcript: deque[str] = deque(maxlen=TRANSCRIPT_LINES)
        self._queue: list[tuple[datetime, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = itertools.count()

    @property
    def seconds(self) -> float:
        """The time since the beginning."""
        return (self.now - BEGINNING).total_seconds()

    def later(self, seconds: float, action: Callable[..., None], *args: Any) -> None:
        """Have something happen after a while; at the same moment, in the order it was asked for."""
        at = self.now + timedelta(seconds=max(seconds, 0.0))
        heapq.heappush(self._queue, (at, next(self._order), action, args))

    def soon(self, action: Callable[..., None], *args: Any) -> None:
        """Have something happen within a few milliseconds."""
        self.later(self.random.uniform(0.0002, 0.005), action, *args)

    def chance(self, likelihood: float, what: str) -> bool:
        """Say whether a fault happens now, and count it."""
        if likelihood <= 0 or self.random.random() >= likelihood:
            return False
        self.counts[f"fault: {what}"] += 1
        self.tell(f"*** {what}")
        return True

    def run(self, seconds: float) -> None:
        """Let everything happen that is due within the next seconds."""
        until = self.now + timedelta(seconds=seconds)
        while self._queue and self._queue[0][0] <= until:
            self.now, _, action, args = heapq.heappop(self._queue)
            self.steps += 1
            action(*args)
        self.now = until

    def tell(self, what: str) -> None:
        """Write a line of the transcript."""
        self.transcript.append(f"{self.seconds:10.4f} {what}")

    def fail(self, what: str) -> None:
        """End the run with an invariant that does not hold."""
        raise Violation(f"seed {self.seed}, step {self.steps}: {what}")
