"""The base of the consumers that carry traffic."""

from collections.abc import Awaitable, Callable
from typing import Any

from channels.consumer import AsyncConsumer

Message = dict[str, Any]
Send = Callable[[Message], Awaitable[None]]
Receive = Callable[[], Awaitable[Message]]


class LeanConsumer(AsyncConsumer):
    """A Channels consumer that reads its messages itself.

    Channels' dispatch closes old database connections in a thread for every message, which costs more than
    a whole request through the tunnel; this one touches the database only where it says so (`run_db`).
    """

    scope: dict[str, Any]  # type: ignore[assignment]  # channels types it for its own consumers only
    receive: Receive
    send_message: Send

    async def __call__(  # type: ignore[override]
        self, scope: dict[str, Any], receive: Receive, send: Send
    ) -> None:
        """Serve one connection, from the first message to the last."""
        self.scope, self.receive, self.send_message = scope, receive, send
        await self.serve()

    async def serve(self) -> None:
        """Serve the connection described by `self.scope`."""
        raise NotImplementedError
