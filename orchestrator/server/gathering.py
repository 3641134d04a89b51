"""Writes that belong together, in one: head and body of an answer, many clients' frames for one runner.

Neither asyncio nor uvloop waits with a write, and each costs a way through the kernel, and wakes the other side.
"""

import asyncio
from typing import Any

from orchestrator.server.limits import WRITE_BUFFER_BYTES


class Gathering:
    """A transport that writes once in a turn of the event loop; sooner, if it is much."""

    __slots__ = ("_bytes", "_loop", "_parts", "_transport", "is_closing", "pause_reading", "resume_reading")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._parts: list[bytes] = []
        self._bytes = 0
        self.is_closing = transport.is_closing  # these for every message, the rest now and then
        self.pause_reading, self.resume_reading = transport.pause_reading, transport.resume_reading

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Write soon, after all that was written before."""
        if not self._parts:
            self._loop.call_soon(self.flush)
        self._parts.append(data)
        self._bytes += len(data)
        if self._bytes > WRITE_BUFFER_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what has come, unless the connection has ended meanwhile, on which uvloop fails."""
        parts, self._parts, self._bytes = self._parts, [], 0
        if parts and not self.is_closing():
            self._transport.write(parts[0] if len(parts) == 1 else b"".join(parts))

    def get_write_buffer_size(self) -> int:
        """Return how much the kernel has not taken."""
        return self._bytes + self._transport.get_write_buffer_size()

    def write_eof(self) -> None:
        """Write no more after what has come."""
        self.flush()
        self._transport.write_eof()

    def close(self) -> None:
        """Write what has come, and hang up."""
        self.flush()
        self._transport.close()
