"""The body of a request that is still coming."""

import asyncio
from collections import deque
from typing import Self

from runners.sdk.errors import RequestTooLarge

UNREAD_BYTES = 32 * 2**20  # of a body that the actor reads more slowly than it comes


class Upload:
    """Chunks as they come, to be read once, by one reader."""

    def __init__(self) -> None:
        self._unread: deque[bytes] = deque()
        self._unread_bytes = 0
        self._complete = False
        self._overrun = False
        self._news = asyncio.Event()

    def feed(self, chunk: bytes, *, finish: bool) -> None:
        """Take a chunk; `finish` says that it is the last one. What comes after an overrun is dropped."""
        if chunk and not self._overrun:
            self._unread.append(chunk)
            self._unread_bytes += len(chunk)
        if self._unread_bytes > UNREAD_BYTES:
            self._overrun = True
            self._unread.clear()
        self._complete = self._complete or finish
        self._news.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """Return the next chunk, never an empty one. Raises RequestTooLarge if too much was left unread."""
        while not self._unread:
            if self._overrun:
                raise RequestTooLarge(f"more than {UNREAD_BYTES} bytes of the request were left unread")
            if self._complete:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        chunk = self._unread.popleft()
        self._unread_bytes -= len(chunk)
        return chunk
