"""What runners say to a WebSocket while its gateway does not know yet that its actor is there again."""

from runners.protocol.messages import ToServerTunnelMessageKind, ToServerWebSocketMessage

STASH_BYTES = 8 * 1024 * 1024
"""More than this is not kept, and the socket is not whole any more."""
_FRAME_BYTES = 64


class Stash:
    """Messages of any runner, in order: only later it turns out which one has the actor."""

    def __init__(self) -> None:
        self._messages: list[tuple[str, ToServerTunnelMessageKind]] = []
        self._bytes = 0

    def put(self, runner_id: str, kind: ToServerTunnelMessageKind) -> None:
        """Keep a message."""
        data = kind.data if isinstance(kind, ToServerWebSocketMessage) else b""
        self._bytes += len(data) + _FRAME_BYTES
        if self._bytes <= STASH_BYTES:
            self._messages.append((runner_id, kind))

    def take(self, runner_id: str) -> list[ToServerTunnelMessageKind] | None:
        """Empty it; return what this runner has said, None if something of it may be missing."""
        messages, is_whole = self._messages, self._bytes <= STASH_BYTES
        self._messages, self._bytes = [], 0
        return [kind for whose, kind in messages if whose == runner_id] if is_whole else None
