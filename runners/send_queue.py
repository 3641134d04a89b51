"""What waits to be sent to one runner: one queue, so that the order of everything is kept.

Beside it there is a lane for answers that may be long and whose order means nothing: they let the rest go first.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from orchestrator.errors import BusOverloaded

LIMIT_BYTES = 64 * 1024 * 1024
"""What may wait for one runner; beyond it requests to it are refused."""
END_BYTES = 2 * LIMIT_BYTES
"""With so much waiting the runner is cut off, whatever it is that waits."""
ANSWERS_BYTES = 16 * 1024 * 1024
"""Answers of this length in all may wait; beyond it, no more of them are worked out."""
FRAMES_PER_ANSWER = 64
"""So many frames go ahead of an answer at the most, or a busy tunnel would hold it up for good."""


class SendQueue:
    """Frames for one runner, written one after the other as fast as its socket takes them."""

    def __init__(self, send: Callable[[bytes], Awaitable[None]], overflow: Callable[[], None]) -> None:
        self._send = send
        self._overflow = overflow  # called when the runner is to be cut off
        self._frames: deque[bytes] = deque()
        self._bytes = 0
        self._answers: deque[bytes] = deque()
        self._answers_bytes = 0
        self._more = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._room = asyncio.Event()
        self._room.set()

    @property
    def pending_bytes(self) -> int:
        """What waits to be written."""
        return self._bytes

    def put(self, frame: bytes) -> None:
        """Queue what the engine itself has to say. There is no gap: a runner that does not read is cut off."""
        self._frames.append(frame)
        self._bytes += len(frame)
        self._empty.clear()
        self._more.set()
        if self._bytes > END_BYTES:
            self._overflow()

    def offer(self, frame: bytes) -> None:
        """Queue a client's traffic.

        Raises:
            BusOverloaded: too much waits already, as the runner does not read.
        """
        if self._bytes > LIMIT_BYTES:
            raise BusOverloaded("the runner does not read what it is sent")
        self.put(frame)

    def put_answer(self, frame: bytes) -> None:
        """Queue an answer that lets the rest go first; `room` says when there is a place for it."""
        self._answers.append(frame)
        self._answers_bytes += len(frame)
        if self._answers_bytes > ANSWERS_BYTES:
            self._room.clear()
        self._empty.clear()
        self._more.set()

    async def room(self) -> None:
        """Wait until the runner has read enough of its answers."""
        await self._room.wait()

    async def drained(self) -> None:
        """Wait until everything is written."""
        await self._empty.wait()

    def unsent(self) -> list[bytes]:
        """Return the frames nobody has begun to write, in order."""
        return list(self._frames)

    async def run(self) -> None:
        """Write until cancelled, or until writing fails."""
        while True:
            while self._frames or self._answers:
                for _ in range(min(len(self._frames), FRAMES_PER_ANSWER)):
                    frame = self._frames.popleft()
                    await self._send(frame)
                    self._bytes -= len(frame)
                if self._answers:
                    await self._send_answer()
            self._empty.set()
            self._more.clear()
            await self._more.wait()

    async def _send_answer(self) -> None:
        answer = self._answers.popleft()
        await self._send(answer)
        self._answers_bytes -= len(answer)
        if self._answers_bytes <= ANSWERS_BYTES:
            self._room.set()
