"""What one runner's socket and the gateways know of each other, so that nothing gets lost between them unnoticed.

Whatever passes between processes is numbered, each way; what a gateway learns of the numbers that its runner's
socket has seen is a `Standing`. And what was written to the runner counts as doubtful until a pong has come back
for a ping that was written after it: a connection that breaks may have taken it along. Does no I/O.
"""

import secrets
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntFlag

from runners.channel import Frames

NOTICE = 0xF0
"""The first byte of what is no frame of a runner but a `Standing` of its socket."""

_HEAD = struct.Struct("<BBIQ")
_FIRST_SOCKET_KIND = 3  # of tunnel messages, either way: those before are of requests, which look after themselves
_IDS_AT, _REQUEST_ID_AT, _KIND_AT = 1, 5, 11  # in a tunnel frame: tag, gateway id, request id, index, kind


class Flag(IntFlag):
    """What else a standing says."""

    NONE = 0
    BROKEN = 1  # a message of the gateway is missing: nothing more is taken of this epoch
    GONE = 2  # the socket has ended
    HERE = 4  # it has just begun, in the gateway's own process
    LIVES = 8  # it reads for which life a frame is


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a runner's socket has come with one gateway. `doubtful` are request ids."""

    epoch: int
    received: int  # messages of the gateway, of this epoch
    flags: Flag = Flag.NONE
    doubtful: frozenset[bytes] = frozenset()


def encode_standing(standing: Standing) -> bytes:
    """Return the standing as bytes, beginning with `NOTICE`."""
    head = _HEAD.pack(NOTICE, standing.flags, standing.epoch, standing.received)
    return head + b"".join(sorted(standing.doubtful))


def decode_standing(notice: bytes) -> Standing:
    """Return the standing of bytes made by `encode_standing`."""
    _, flags, epoch, received = _HEAD.unpack_from(notice)
    ids = notice[_HEAD.size :]
    doubtful = frozenset(ids[at : at + 4] for at in range(0, len(ids), 4))
    return Standing(epoch, received, Flag(flags), doubtful)


def request_id_of(frame: bytes) -> bytes:
    """Return the request id of a tunnel frame, which must be one."""
    return frame[_REQUEST_ID_AT : _REQUEST_ID_AT + 4]


def is_of_socket(frame: bytes) -> bool:
    """Whether a tunnel frame, either way, is of a WebSocket and not of a request."""
    return len(frame) > _KIND_AT and frame[_KIND_AT] >= _FIRST_SOCKET_KIND


@dataclass(slots=True)
class _Incoming:
    epoch: int
    received: int = 0
    broken: bool = False


@dataclass(slots=True)
class Links:
    """One runner's socket and all gateways it has to do with. `nonce` tells it from the runner's other sockets."""

    nonce: bytes = field(default_factory=lambda: secrets.token_bytes(3) + b"\1")  # not 0, which means none
    _sent: dict[bytes, int] = field(default_factory=dict)
    _incoming: dict[bytes, _Incoming] = field(default_factory=dict)
    _doubtful: set[bytes] = field(default_factory=set)  # gateway id and request id, since the last ping
    _pinged: set[bytes] = field(default_factory=set)  # before it
    _pinged_at: int | None = None

    # To the gateways

    def next_number(self, gateway_id: bytes) -> int:
        """Return the number of the next message to a gateway."""
        return self._sent.get(gateway_id, 0)

    def sent(self, gateway_id: bytes) -> None:
        """Note that it was sent."""
        self._sent[gateway_id] = self.next_number(gateway_id) + 1

    def standing(self, gateway_id: bytes, flags: Flag = Flag.NONE) -> Standing:
        """Return how far this socket has come with a gateway."""
        flags |= Flag.LIVES
        incoming = self._incoming.get(gateway_id, _Incoming(0))
        if incoming.broken:
            flags |= Flag.BROKEN
        doubtful: Iterable[bytes] = ()
        if flags & Flag.GONE:
            doubtful = (ids[4:] for ids in self._doubtful | self._pinged if ids[:4] == gateway_id)
        return Standing(incoming.epoch, incoming.received, flags, frozenset(doubtful))

    def gateways(self) -> set[bytes]:
        """Return the ids of the gateways that have to hear of this socket's end."""
        return {*self._sent, *self._incoming, *(ids[:4] for ids in self._doubtful | self._pinged)}

    # From the gateways

    def take(self, message: Frames) -> bool:
        """Say whether a gateway's message is the next one; if it is not, the gateway may have to be told."""
        incoming = self._incoming.get(message.gateway_id)
        if incoming is None or message.epoch > incoming.epoch:
            incoming = self._incoming[message.gateway_id] = _Incoming(message.epoch)
        if message.epoch < incoming.epoch or incoming.broken or message.number < incoming.received:
            return False
        if message.number > incoming.received:
            incoming.broken = True
            return False
        incoming.received += 1
        return True

    def knows(self, gateway_id: bytes) -> bool:
        """Whether a message of a gateway has come."""
        return gateway_id in self._incoming

    def is_broken(self, gateway_id: bytes) -> bool:
        """Whether a message of a gateway is missing."""
        incoming = self._incoming.get(gateway_id)
        return incoming is not None and incoming.broken

    # To the runner

    def wrote(self, frame: bytes) -> None:
        """Note a tunnel frame that was written to the runner."""
        if is_of_socket(frame):
            self._doubtful.add(frame[_IDS_AT : _KIND_AT - 2])

    @property
    def has_doubts(self) -> bool:
        """Whether something that was written may not have come."""
        return bool(self._doubtful or self._pinged)

    def pinged(self, ts_ms: int) -> None:
        """Note a ping: when its pong comes, all that was written before has come."""
        if self._pinged_at is None:
            self._pinged, self._doubtful, self._pinged_at = self._doubtful, set(), ts_ms

    def ponged(self, ts_ms: int) -> None:
        """Note a pong."""
        if ts_ms == self._pinged_at:
            self._pinged, self._pinged_at = set(), None
