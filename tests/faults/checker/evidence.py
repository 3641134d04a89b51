"""What a verdict is based on: the history, the database, the runners' journals, and who was alive at the end."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.faults.facts import Facts
from tests.faults.history import History, Injected

HARMLESS = (
    "kill worker",
    "kill all workers",
    "kill connector",
    "kill sweeper",
    "freeze worker",
    "freeze connector",
    "freeze sweeper",
    "restart worker",
    "restart connector",
    "wipe valkey",
    "host",
    "later worker",
    "later connector",
    "later sweeper",
    "older worker",
    "older connector",
    "older sweeper",
    "clock of",
    "serializable",
    "delay one link of valkey",
)
"""Beginnings of the kinds of fault that may slow requests down, and make none fail."""
AFTERMATH_SECONDS = 45.0
"""So long after it has ended a fault may be felt: the lost threshold and the wait for a runner together."""
Event = dict[str, Any]


@dataclass(slots=True)
class Evidence:
    """`journals`: the runners' events, each with the name of its `process`; `pids`: runners alive at the end."""

    history: History
    facts: Facts = field(default_factory=Facts)
    journals: Sequence[Event] = ()
    pids: frozenset[int] = frozenset()
    fewest: int = 1  # successful operations of each kind
    ended: tuple[str, ...] = ()  # processes that ended by themselves

    def faults(
        self, began: float, ended: float, *kinds: str, after: float = AFTERMATH_SECONDS
    ) -> Iterator[Injected]:
        """Give the faults that may be felt between two moments, of kinds that begin so."""
        for one in self.history.injected:
            is_felt = one.began <= ended and one.ended + after >= began
            if is_felt and (not kinds or one.fault.kind.startswith(kinds)):
                yield one

    def harmful(self, began: float, ended: float) -> bool:
        """Whether a fault is felt that may make requests fail."""
        return any(not one.fault.kind.startswith(HARMLESS) for one in self.faults(began, ended))
