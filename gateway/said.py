"""How far what an actor says to one WebSocket has come: whether something is missing after a broken connection.

A runner numbers its messages of a WebSocket, one after the other (PROTOCOL §5.1). Within one connection none gets
lost; of the last before it broke nobody repeats what was on its way, but our SDK the one it was just writing. The
next one's number tells. Does no I/O.
"""

from dataclasses import dataclass
from enum import Enum, auto

_INDEXES = 2**16


class Place(Enum):
    """Where a message stands among those of its WebSocket."""

    NEXT = auto()
    AGAIN = auto()  # it is the one before, said once more
    BEYOND = auto()  # one before it is missing


@dataclass(slots=True)
class Said:
    """The messages of one life of the actor, in order."""

    _last: int | None = None  # the number of the newest, if it is known
    _interrupted: bool = False  # since then

    def interrupted(self) -> None:
        """Take note that the runner's connection has ended."""
        self._interrupted = True

    def opened(self, index: int) -> None:
        """Take the first message, which accepts the WebSocket."""
        self._last = index

    def take(self, index: int) -> Place:
        """Take the next message, and say where it stands.

        Only the first after an interruption is looked at, and in a later life than the one that has accepted the
        WebSocket not before a number is known: clients count on, or begin at 0. Any other 0 tells nothing: npm
        clients say it when in doubt. Our SDK says again what it was just writing when its connection broke; it may
        have come.
        """
        last, self._last = self._last, index or None
        interrupted, self._interrupted = self._interrupted, False
        if not interrupted or last is None or not index:
            return Place.NEXT
        if index == last:
            return Place.AGAIN
        missing = (index - last - 1) % _INDEXES
        return Place.BEYOND if 0 < missing < _INDEXES // 2 else Place.NEXT
