"""What time it is for the engine: one clock for all its processes, the database's, wherever they run.

Deadlines, leases and pings are moments in rows, written by one process and judged by another. A machine whose
clock is wrong, or is set while it runs, would make them early or late; so a process asks the database for the time
now and then (`orchestrator.db`), and counts on from there by its monotonic clock, which nobody sets. Before it has
asked, and on SQLite, where all processes share a machine, the time is the machine's. Does no I/O.
"""

import time
from dataclasses import dataclass
from datetime import UTC, datetime

KEEP_SECONDS = 60.0
"""A reading is used for so long, unless a more exact one comes."""
WIDEST_SECONDS = 1.0
"""An answer that took longer tells nothing."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The database's time less our monotonic clock's, in seconds; it is exact to half the `width`."""

    offset: float
    width: float
    taken_at: float  # by the monotonic clock


def read(asked_at: float, told: float, heard_at: float) -> Reading:
    """Return what an answer says: the time it told (seconds since the epoch) was that of half the way."""
    return Reading(told - (asked_at + heard_at) / 2, heard_at - asked_at, heard_at)


def better(kept: Reading | None, new: Reading) -> Reading | None:
    """Return the reading to go by: the more exact one, until it is old."""
    if new.width > WIDEST_SECONDS:
        return kept
    if kept is None or new.width <= kept.width or new.taken_at - kept.taken_at > KEEP_SECONDS:
        return new
    return kept


class _Kept:
    """What this process goes by."""

    reading: Reading | None = None


_kept = _Kept()


def take(reading: Reading) -> None:
    """Go by this reading if it is the better one."""
    _kept.reading = better(_kept.reading, reading)


def forget() -> None:
    """Go by the machine's clock again."""
    _kept.reading = None


def seconds() -> float:
    """Return the time in seconds since the epoch."""
    reading = _kept.reading
    return time.time() if reading is None else time.monotonic() + reading.offset


def now() -> datetime:
    """Return the present moment."""
    return datetime.fromtimestamp(seconds(), UTC)
