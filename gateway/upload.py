"""The body of a client's request: read as it comes, and kept, as it may have to be sent again (PROTOCOL §5.2)."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from gateway.client import ClientGone
from gateway.errors import RequestBodyTooLarge
from orchestrator.errors import OrchestratorError

Receive = Callable[[], Awaitable[dict[str, Any]]]


class Upload:
    """A body of at most `limit_bytes`. `parts` is what has come; `complete` says whether that is all."""

    __slots__ = ("_bytes", "_limit", "_news", "_receive", "complete", "failure", "parts")

    def __init__(self, receive: Receive, limit_bytes: int) -> None:
        self.parts: list[bytes] = []
        self.complete = False
        self.failure: OrchestratorError | None = None
        self._receive = receive
        self._limit = limit_bytes
        self._bytes = 0
        self._news: asyncio.Event | None = None  # somebody waits for more

    def announced(self, length: bytes | None) -> None:
        """Take the length a client announces; one that is too large is refused before it sends anything.

        Raises:
            RequestBodyTooLarge: it is.
        """
        if length is not None and length.isdigit() and int(length[:20]) > self._limit:
            raise self._too_large()

    async def begin(self) -> None:
        """Read the first part, which mostly is all.

        Raises:
            ClientGone: the client hung up instead.
            RequestBodyTooLarge: it is longer than allowed.
        """
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        body = message.get("body", b"")
        if not message.get("more_body") and len(body) <= self._limit:  # as nearly always
            self.parts, self.complete = [body], True
            return
        self._take(message)
        if self.failure is not None:
            raise self.failure

    async def listen(self) -> None:
        """Read on; return when the client has hung up."""
        while (message := await self._receive())["type"] != "http.disconnect":
            if not self.complete and self.failure is None:
                self._take(message)

    async def whole(self) -> bytes:
        """Return the body once it is complete; somebody has to `listen` meanwhile.

        Raises:
            RequestBodyTooLarge: it is longer than allowed.
        """
        while not self.complete:
            await self.more(len(self.parts))
        if len(self.parts) > 1:
            self.parts = [b"".join(self.parts)]
        return self.parts[0] if self.parts else b""

    async def more(self, seen: int) -> None:
        """Return once there are more than the `seen` parts, or there will be none. Raises as `whole`."""
        while True:
            if self.failure is not None:
                raise self.failure
            if self.complete or len(self.parts) > seen:
                return
            self._news = self._news or asyncio.Event()
            self._news.clear()
            await self._news.wait()

    def _take(self, message: dict[str, Any]) -> None:
        part = message.get("body", b"")
        self._bytes += len(part)
        if self._bytes > self._limit:
            self.parts.clear()
            self.failure = self._too_large()
        else:
            if part:
                self.parts.append(part)
            self.complete = not message.get("more_body", False)
        if self._news is not None:
            self._news.set()

    def _too_large(self) -> RequestBodyTooLarge:
        return RequestBodyTooLarge(reason=f"the body is longer than {self._limit} bytes")
