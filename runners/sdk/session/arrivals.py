"""Which messages of a client's hibernatable WebSocket are news: unacknowledged ones come again (PROTOCOL §5.6)."""

import enum

INDEXES = 2**16


class Arrival(enum.Enum):
    """What a message's index says of it."""

    NEXT = enum.auto()  # it follows the last one
    REPEATED = enum.auto()  # it was here before
    GAP = enum.auto()  # at least one before it is missing


def judge(last: int, index: int) -> Arrival:
    """Return what the message of that index is after the one of index `last`; both wrap at 2^16."""
    ahead = (index - last) % INDEXES
    if ahead == 1:
        return Arrival.NEXT
    return Arrival.GAP if 1 < ahead < INDEXES // 2 - 1 else Arrival.REPEATED
