"""Which requests a runner may not have had when its connection ends. Does no I/O and has no clock.

A runner answers each ping after all that was sent before it, so its pong proves that it has had that
(PROTOCOL §4.2). What was sent later it may have had or not. What was still queued it has not had.
"""

from collections import deque
from typing import TypeAlias

from runners.protocol import codec, tunnel

RequestId: TypeAlias = tuple[bytes, bytes]
"""Gateway id and request id."""

_START, _CHUNK = 0, 1  # as the union of kinds has them (PROTOCOL §3.1)
_KIND_AT = 1 + tunnel.TO_CLIENT.least - 1


def request_begun_by(frame: bytes) -> RequestId | None:
    """Return the request a ToClientTunnelMessage begins; None for others."""
    return _request_of(frame, _START)


def _request_of(frame: bytes, *kinds: int) -> RequestId | None:
    ids = codec.tunnel_ids_to_client(frame)
    if ids is None or frame[_KIND_AT] not in kinds:
        return None
    return ids.gateway_id, ids.request_id


class Deliveries:
    """The frames of one connection that no pong has proven to be there."""

    def __init__(self) -> None:
        self._frames: deque[bytes] = deque()  # their beginnings
        self._pings: deque[tuple[int, int]] = deque()  # time of the ping, frames sent since the one before

    def sent(self, frame: bytes) -> None:
        """Take note of a tunnel frame, in the order in which frames and pings go out."""
        self._frames.append(frame[: _KIND_AT + 1])

    def pinged(self, ts_ms: int) -> None:
        """Take note of a ping."""
        self._pings.append((ts_ms, len(self._frames) - sum(count for _, count in self._pings)))

    def ponged(self, ts_ms: int) -> None:
        """Take note of the answer to a ping; one to a ping that was not sent proves nothing."""
        if not any(ts_ms == sent_ms for sent_ms, _ in self._pings):
            return
        while self._pings:
            sent_ms, count = self._pings.popleft()
            for _ in range(count):
                self._frames.popleft()
            if sent_ms == ts_ms:
                return

    def unproven(self) -> set[RequestId]:
        """Return the requests of which something may not have arrived."""
        found = (_request_of(frame, _START, _CHUNK) for frame in self._frames)
        return {request for request in found if request is not None}
