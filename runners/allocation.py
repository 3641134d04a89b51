"""Which runner gets an actor (PROTOCOL §4.8). Does no I/O; who may be asked at all is settled in `slots.py`."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True)
class Candidate:
    """A runner that may be given actors, and the slots it has left; `allocate` takes them off."""

    runner_id: str
    total_slots: int
    free_slots: int


def allocate(candidates: list[Candidate], draw: Callable[[], float]) -> Candidate | None:
    """Take one slot, at random weighted by the share of free slots; None if there is no slot.

    `draw` returns a number in [0, 1).
    """
    weights = [candidate.free_slots / candidate.total_slots for candidate in candidates if candidate.free_slots]
    point = draw() * sum(weights)
    chosen: Candidate | None = None
    for candidate in candidates:
        if not candidate.free_slots:
            continue
        chosen = candidate
        point -= candidate.free_slots / candidate.total_slots
        if point < 0:
            break
    if chosen is not None:
        chosen.free_slots -= 1
    return chosen
