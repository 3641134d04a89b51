"""The runner's side of one request or WebSocket in the tunnel (PROTOCOL §5.1)."""

from runners.protocol.codec import encode_to_server
from runners.protocol.messages import MessageId, ToServerTunnelMessage, ToServerTunnelMessageKind
from runners.sdk.outbox import Outbox
from runners.sdk.session.reconnect import PROTOCOL_VERSION


class Channel:
    """Sends the messages of one exchange, numbered from 0 (u16, wrapping)."""

    def __init__(self, gateway_id: bytes, request_id: bytes, outbox: Outbox) -> None:
        self.gateway_id = gateway_id
        self.request_id = request_id
        self._outbox = outbox
        self._index = 0
        self._silent = False

    def send(self, kind: ToServerTunnelMessageKind) -> None:
        """Queue a message, to be sent on this connection or the next.

        Raises RunnerProtocolError for what the tunnel does not take, such as more than 20 MiB: sent, it would cost
        the runner its connection (PROTOCOL pitfall 20).
        """
        if self._silent:
            return
        message_id = MessageId(self.gateway_id, self.request_id, self._index)
        frame = encode_to_server(ToServerTunnelMessage(message_id, kind), PROTOCOL_VERSION)
        self._outbox.put(frame, durable=True)
        self._index = (self._index + 1) % 2**16

    async def room(self) -> None:
        """Wait while too much is queued."""
        await self._outbox.room()

    def silence(self) -> None:
        """Send nothing any more."""
        self._silent = True
