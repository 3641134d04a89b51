"""What actions share: the fleet, and who is being hit just now."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager

from tests.faults.fleet import Fleet
from tests.faults.history import History
from tests.faults.schedule import Fault
from tests.support.child import Child

STOP_SECONDS = 20.0
LOOK_SECONDS = 0.02

Hit = list[tuple[str, int]]
"""Names and process ids of those that were hit; none: the fault found nobody and does not count."""


class Site:
    """A fleet under attack. A process that is being hit already is left alone by other faults."""

    def __init__(self, fleet: Fleet, history: History) -> None:
        self.fleet = fleet
        self.history = history
        self._busy: set[str] = set()

    def is_free(self, name: str) -> bool:
        """Say whether nobody hits that process or cable."""
        return name not in self._busy

    @contextmanager
    def holding(self, *names: str) -> Iterator[None]:
        """Keep others off these, which are free."""
        self._busy |= set(names)
        try:
            yield
        finally:
            self._busy -= set(names)

    async def hit(
        self, group: Sequence[Child], fault: Fault, how: Callable[[Child, float], Awaitable[None]]
    ) -> Hit:
        """Do it to the first process, from the fault's target on, that is free and runs."""
        turn = fault.target % len(group)
        for child in [*group[turn:], *group[:turn]]:
            if self.is_free(child.name) and child.alive:
                hit = [(child.name, child.pid)]
                with self.holding(child.name):
                    await how(child, fault.seconds)
                return hit
        return []


Action = Callable[[Site, Fault], Awaitable[Hit]]
"""Carries one fault out, to its end."""


async def has_ended(child: Child, within: float = STOP_SECONDS) -> bool:
    """Wait until a process has ended; False if it takes too long."""
    deadline = time.monotonic() + within
    while child.alive:
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(LOOK_SECONDS)
    return True
