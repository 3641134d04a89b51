"""Where the time of a wake goes: how long each of its phases took, by the arrows recorded of it. Does no I/O.

A wake begins with an arrow that calls the actor and ends with the first byte of an answer, or with *ready* if
nobody asked for one. A phase ends with an arrow; a wake that found a free slot has fewer of them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Protocol


class Phase(StrEnum):
    """The steps from the request to the first byte, in order."""

    RESOLVE = "resolve"  # from the request to the wake
    ALLOCATE = "allocate"  # until a slot is taken, or a runner is asked for
    START = "start"  # from GET /start to the runner's socket
    CONNECT = "connect"  # until its free slots are given to those that wait
    START_ACTOR = "start_actor"  # until StartActor is in the runner's log
    RUNNING = "running"  # until the runner says running
    FIRST_BYTE = "first_byte"  # until the answer begins


class Told(Protocol):
    """What is read of a recorded arrow."""

    @property
    def at(self) -> datetime:
        """When."""

    @property
    def label(self) -> str:
        """What."""

    @property
    def source(self) -> str:
        """From whom."""

    @property
    def target(self) -> str:
        """To whom."""

    @property
    def generation(self) -> int | None:
        """Of which life."""


@dataclass(frozen=True, slots=True)
class Wake:
    """One wake: when it began, which generation it led to, and its phases with their lengths."""

    began_at: datetime
    generation: int | None
    phases: tuple[tuple[Phase, timedelta], ...]

    @property
    def total(self) -> timedelta:
        """From the first arrow to the last."""
        return sum((length for _, length in self.phases), timedelta())

    def as_json(self) -> dict[str, Any]:
        """Return the wake as JSON; lengths in milliseconds."""
        return {
            "began_at": self.began_at.isoformat(),
            "generation": self.generation,
            "phases_ms": {phase.value: _ms(length) for phase, length in self.phases},
            "total_ms": _ms(self.total),
        }


_ENDS = {
    "GET /start": Phase.ALLOCATE,
    "allocate": Phase.ALLOCATE,
    "connect, init": Phase.START,
    "allocate pending": Phase.CONNECT,
    "StartActor": Phase.START_ACTOR,
    "running": Phase.RUNNING,
    "response start": Phase.FIRST_BYTE,
    "websocket accepted": Phase.FIRST_BYTE,
}
_ORDER = list(Phase)
_CALLS = ("wake", "wake (deferred until stopped)", "create", "reschedule", "alarm due", "backoff over")


def budgets(arrows: Iterable[Told]) -> list[Wake]:
    """Return the wakes among an actor's arrows, which are in order of time; one under way is the last."""
    wakes: list[Wake] = []
    marks: list[tuple[Phase, datetime]] = []
    began: datetime | None = None
    generation: int | None = None
    for arrow in arrows:
        if arrow.source == "User" and arrow.target == "Gateway":
            if not marks:
                began = arrow.at
        elif arrow.label in _CALLS and not any(phase is not Phase.RESOLVE for phase, _ in marks):
            began, marks = began or arrow.at, [(Phase.RESOLVE, arrow.at)]
        elif began is not None and marks and (phase := _ENDS.get(arrow.label)) is not None:
            if _ORDER.index(phase) <= _ORDER.index(marks[-1][0]):
                continue  # another request's, or the second try of a start
            marks.append((phase, arrow.at))
            generation = arrow.generation if phase is Phase.RUNNING else generation
            if phase is Phase.FIRST_BYTE:
                wakes.append(_wake(began, generation, marks))
                began, marks, generation = None, [], None
        elif marks and marks[-1][0] is Phase.RUNNING and arrow.label.startswith(("stopped", "intent")):
            wakes.append(_wake(began or arrow.at, generation, marks))
            began, marks, generation = None, [], None
    if began is not None and marks:
        wakes.append(_wake(began, generation, marks))
    return wakes


def _wake(began: datetime, generation: int | None, marks: list[tuple[Phase, datetime]]) -> Wake:
    before, phases = began, []
    for phase, at in marks:
        phases.append((phase, at - before))
        before = at
    return Wake(began, generation, tuple(phases))


def _ms(length: timedelta) -> float:
    return round(length.total_seconds() * 1000, 3)
