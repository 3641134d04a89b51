"""A clock that a test moves."""

import asyncio
import heapq
import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

SETTLING_TURNS = 200  # of the event loop, enough for what follows from one moment


class ManualTimer:
    """Something that will happen when the clock is moved that far."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Keep it from happening."""
        self.callback = None


class ManualClock:
    """Stands still until `advance`."""

    def __init__(self, now: datetime = datetime(2030, 1, 1, tzinfo=UTC)) -> None:
        self._now = now
        self._timers: list[tuple[datetime, int, ManualTimer]] = []
        self._order = itertools.count()

    def now(self) -> datetime:
        """Return the present moment."""
        return self._now

    def call_at(self, when: datetime, callback: Callable[[], None]) -> ManualTimer:
        """Call back at that moment; if it is over, at the next `advance`."""
        timer = ManualTimer(callback)
        heapq.heappush(self._timers, (when, next(self._order), timer))
        return timer

    async def advance(self, by: timedelta) -> None:
        """Let time pass, moment by moment; at each, all that follows is done before time goes on."""
        await settle()
        until = self._now + by
        while self._timers and self._timers[0][0] <= until:
            when, _, timer = heapq.heappop(self._timers)
            if timer.callback is not None:
                self._now = max(self._now, when)
                timer.callback()
                await settle()
        self._now = until


async def settle() -> None:
    """Let everybody in this event loop do what can be done now."""
    for _ in range(SETTLING_TURNS):
        await asyncio.sleep(0)
