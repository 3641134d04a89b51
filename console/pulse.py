"""What has happened lately, by the arrows recorded meanwhile: wakes, how long they took, failures. Does no I/O."""

from bisect import bisect_left
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

SECONDS_SHOWN = 60
LATELY = timedelta(minutes=5)
"""How long a wake counts for the histogram."""
FAILURES_SHOWN = 20
OPEN_WAKES = 10_000
"""Wakes under way that are remembered; older ones are not measured."""
SEEN = 20_000
"""Arrows known by their ids, as those of a slow transaction come late and others are read again."""
BOUNDS_MS = (5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000)

_CALLS = ("wake", "create", "reschedule", "alarm due", "backoff over")
_FAILURES = ("failed", "runner lost", "runner has lost it", "did not ", "silent ", "waited too long")


@dataclass(frozen=True, slots=True)
class Happened:
    """One arrow, as far as it matters here. `state`: what the actor became by it, empty if nothing else."""

    id: int
    at: datetime
    actor_id: str
    runner_id: str
    label: str
    target: str
    state: str = ""
    pool_id: str = ""


@dataclass(frozen=True, slots=True)
class Repeated:
    """A failure, as it came the last time, and how often it came in a row."""

    newest: Happened
    times: int = 1


@dataclass(slots=True)
class Pulse:
    """The last minutes. Fed with arrows in the order they were read."""

    _seen: OrderedDict[int, None] = field(default_factory=OrderedDict)
    _began: OrderedDict[str, datetime] = field(default_factory=OrderedDict)
    _wakes: deque[datetime] = field(default_factory=deque)
    _took: deque[tuple[datetime, float]] = field(default_factory=deque)  # when it ran, milliseconds
    failures: deque[Repeated] = field(default_factory=lambda: deque(maxlen=FAILURES_SHOWN))

    @property
    def last_id(self) -> int:
        """The newest arrow heard of; 0 before the first."""
        return next(reversed(self._seen), 0)

    def hear(self, arrows: Iterable[Happened], now: datetime) -> None:
        """Take in arrows, each once however often it is read, and let go of what is long past."""
        for arrow in arrows:
            if arrow.id not in self._seen:
                self._seen[arrow.id] = None
                self._take(arrow)
        while len(self._seen) > SEEN:
            self._seen.popitem(last=False)
        while len(self._began) > OPEN_WAKES:
            self._began.popitem(last=False)
        while self._wakes and self._wakes[0] < now - timedelta(seconds=SECONDS_SHOWN):
            self._wakes.popleft()
        while self._took and self._took[0][0] < now - LATELY:
            self._took.popleft()

    def _take(self, arrow: Happened) -> None:
        if arrow.target == "Actor workflow" and arrow.label in _CALLS:
            self._began.setdefault(arrow.actor_id, arrow.at)
        elif arrow.label == "running" and arrow.state == "running":
            self._wakes.append(arrow.at)
            if began := self._began.pop(arrow.actor_id, None):
                self._took.append((arrow.at, (arrow.at - began).total_seconds() * 1000))
        elif arrow.label.startswith(_FAILURES) or (arrow.label == "stopped" and arrow.state == "backoff"):
            self._began.pop(arrow.actor_id, None)
            self._note_failure(arrow)

    def _note_failure(self, arrow: Happened) -> None:
        """Keep it; what fails again and again in the same way does not push out everything else."""
        before = self.failures[0] if self.failures else None
        if before is not None and _kind_of(before.newest) == _kind_of(arrow):
            self.failures[0] = Repeated(arrow, before.times + 1)
        else:
            self.failures.appendleft(Repeated(arrow))

    def wakes_by_second(self, now: datetime) -> list[int]:
        """Return how many actors began to run in each of the last seconds, the newest last."""
        counts = [0] * SECONDS_SHOWN
        for at in self._wakes:
            age = int((now - at).total_seconds())
            if 0 <= age < SECONDS_SHOWN:
                counts[-1 - age] += 1
        return counts

    def histogram(self) -> list[int]:
        """Return how many wakes took up to each of `BOUNDS_MS`, and last how many took longer."""
        counts = [0] * (len(BOUNDS_MS) + 1)
        for _, took_ms in self._took:
            counts[bisect_left(BOUNDS_MS, took_ms)] += 1
        return counts

    def quantile_ms(self, share: float) -> float | None:
        """Return how long the given share of the wakes took at the most; None without wakes."""
        took = sorted(took_ms for _, took_ms in self._took)
        return took[min(int(len(took) * share), len(took) - 1)] if took else None


def _kind_of(failure: Happened) -> tuple[str, ...]:
    return (failure.label, failure.actor_id, failure.runner_id, failure.pool_id)
