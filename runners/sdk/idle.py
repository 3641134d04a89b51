"""When an actor falls asleep by itself."""

from collections.abc import Callable
from datetime import datetime, timedelta
from types import TracebackType
from typing import Self

from runners.sdk.clock import Clock, Timer


class KeepAwake:
    """A reason for an actor to stay awake until `release`; in a `with` statement that comes by itself.

    It holds off only the sleep that comes of idleness: `ctx.sleep()` and the engine's orders go ahead.
    """

    def __init__(self, watch: "IdleWatch") -> None:
        self._watch = watch
        self._held = False
        self.take()

    def take(self) -> None:
        """Hold it again; held twice is held once."""
        if not self._held:
            self._held = True
            self._watch.count(1)

    def release(self) -> None:
        """Let it go; released twice is released once."""
        if self._held:
            self._held = False
            self._watch.count(-1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class IdleWatch:
    """Calls `sleep` once the actor has had no reason to stay awake for so long; never, if `after` is None."""

    def __init__(self, clock: Clock, after: timedelta | None, sleep: Callable[[], None]) -> None:
        self._clock = clock
        self._after = after
        self._sleep = sleep
        self._reasons = 0
        self._on = False
        self._idle_since: datetime | None = None
        self._timer: Timer | None = None

    def keep_awake(self) -> KeepAwake:
        """Return a new reason to stay awake."""
        return KeepAwake(self)

    def start(self) -> None:
        """Begin to watch."""
        self._on = True
        self.count(0)

    def stop(self) -> None:
        """Watch no more."""
        self._on = False
        if self._timer is not None:
            self._timer.cancel()

    def count(self, more: int) -> None:
        """Note so many more reasons, or fewer. The timer runs on meanwhile and looks again when it is up."""
        self._reasons += more
        if self._after is None or not self._on:
            return
        if self._reasons:
            self._idle_since = None
            return
        self._idle_since = self._clock.now()
        if self._timer is None:
            self._timer = self._clock.call_at(self._idle_since + self._after, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._idle_since is None or self._after is None:
            return
        if self._clock.now() >= self._idle_since + self._after:
            self._on = False
            self._sleep()
        else:
            self._timer = self._clock.call_at(self._idle_since + self._after, self._look)
