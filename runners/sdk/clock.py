"""What time it is for an actor; tests bring a clock of their own."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol


class Timer(Protocol):
    """Something that will happen."""

    def cancel(self) -> None:
        """Keep it from happening."""


class Clock(Protocol):
    """Tells the time and calls back."""

    def now(self) -> datetime:
        """Return the present moment, with its zone."""

    def call_at(self, when: datetime, callback: Callable[[], None]) -> Timer:
        """Call back at that moment, or at once if it is over; it may be a little early."""


class SystemClock:
    """The machine's clock and the running event loop."""

    def now(self) -> datetime:
        """Return the present moment."""
        return datetime.now(UTC)

    def call_at(self, when: datetime, callback: Callable[[], None]) -> Timer:
        """Call back at that moment."""
        delay_s = max(0.0, (when - self.now()).total_seconds())
        return asyncio.get_running_loop().call_later(delay_s, callback)
