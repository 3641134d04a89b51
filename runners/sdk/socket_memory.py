"""What of a client's WebSocket outlasts the sleep of its actor (PROTOCOL §5.6)."""

import json
from collections.abc import Mapping
from typing import Any, Self

from runners.protocol.messages import ToServerWebSocketMessageAck
from runners.sdk.channel import Channel
from runners.sdk.http import Request
from runners.sdk.idle import KeepAwake
from runners.sdk.saver import PREFIX, Saver
from runners.sdk.session.arrivals import Arrival, judge
from runners.sdk.state import State

SOCKETS = PREFIX + b"socket/"
OPEN_INDEX = 0  # of the message that opened the socket


class SocketMemory:
    """The record of one socket: its request, its state, and the last message that was dealt with.

    A message is acknowledged once the store knows that it was dealt with, together with what its handler changed
    in the states of socket and actor. Until then the gateway keeps it, and sends it to the actor's next life.
    """

    def __init__(
        self,
        channel: Channel,
        request: Request,
        saver: Saver,
        awake: KeepAwake,
        *,
        index: int = OPEN_INDEX,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        self.request = request
        self.awake = awake
        self.state = State(state or {}, lambda: saver.changed(self), saver.save)
        self._channel = channel
        self._saver = saver
        self._last_seen = self._dealt_with = self._written = self._acknowledged = index
        self._forgotten = False

    @staticmethod
    def key_of(gateway_id: bytes, request_id: bytes) -> bytes:
        """Return where the record of that socket is kept."""
        return SOCKETS + (gateway_id + request_id).hex().encode()

    @staticmethod
    def ids_of(key: bytes) -> tuple[bytes, bytes]:
        """Return gateway id and request id, of 4 bytes each, of the socket whose record is kept there."""
        both = bytes.fromhex(key.removeprefix(SOCKETS).decode())
        return both[:4], both[4:]

    @classmethod
    def of_json(cls, channel: Channel, saver: Saver, awake: KeepAwake, value: bytes) -> Self:
        """Return the memory that was kept."""
        kept = json.loads(value)
        request = Request.of_target("GET", kept["target"], kept["headers"], None)
        return cls(channel, request, saver, awake, index=kept["index"], state=kept["state"])

    @property
    def key(self) -> bytes:
        """Where it is kept."""
        return self.key_of(self._channel.gateway_id, self._channel.request_id)

    def value(self) -> bytes | None:
        """Return what is to be kept."""
        if self._forgotten:
            return None
        self._written = self._dealt_with
        kept = {
            "target": self.request.target,
            "headers": dict(self.request.headers),
            "index": self._dealt_with,
            "state": json.loads(self.state.as_json()),
        }
        return json.dumps(kept, ensure_ascii=False, separators=(",", ":")).encode()

    def saved(self) -> None:
        """Acknowledge what the store knows now."""
        if not self._forgotten and self._written != self._acknowledged:
            self._acknowledged = self._written
            self._channel.send(ToServerWebSocketMessageAck(self._acknowledged))

    def arrived(self, index: int) -> Arrival:
        """Judge the message of that index; one that was acknowledged before is acknowledged again."""
        arrival = judge(self._last_seen, index)
        if arrival is Arrival.NEXT:
            self._last_seen = index
        elif arrival is Arrival.REPEATED and judge(self._acknowledged, index) is Arrival.REPEATED:
            self._channel.send(ToServerWebSocketMessageAck(self._acknowledged))
        return arrival

    def dealt_with(self, index: int) -> None:
        """Note that the actor is done with the message of that index."""
        self._dealt_with = index
        self._saver.changed(self)

    def forget(self) -> None:
        """Keep nothing of it any more: the socket is closed."""
        self._forgotten = True
        self._saver.changed(self)
