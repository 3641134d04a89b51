"""The way from this process to one runner, shared by all WebSockets that are with it: in order, or not at all.

While the runner's socket is in this process a frame is a direct call. Otherwise frames gather for as long as the
one before is on its way, and are published together; while the runner has no socket they wait for it.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from gateway.errors import TunnelOverloaded
from orchestrator.bus import Bus
from orchestrator.errors import BusOverloaded, BusUnavailable
from runners import channel, sockets

AWAY_SECONDS = 0.05
"""Frames for a runner whose socket is away are tried again after this."""
BATCH_BYTES = 1024 * 1024
"""Frames are published together up to about so much."""
WAITING_BYTES = 64 * 1024 * 1024
"""What may wait for a runner whose socket is away."""
BUSY_BYTES = 4 * 1024 * 1024
"""With more than this on the way to the runner, its clients are not read from."""


class Rider(Protocol):
    """A WebSocket as its way to the runner sees it."""

    def tunnel_lost(self) -> None:
        """Take note that messages to the runner may have been lost."""


class Lane:
    """Frames of this process's WebSockets to one runner. `closed` is called when the last rider has left."""

    def __init__(self, bus: Bus, runner_id: str, closed: Callable[["Lane"], None]) -> None:
        self.runner_id = runner_id
        self.riders: dict[Rider, None] = {}
        self._bus = bus
        self._closed = closed
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._sender: asyncio.Task[None] | None = None
        self._more = asyncio.Event()

    @property
    def is_busy(self) -> bool:
        """Whether the runner, or the way to it, is behind: its clients had better wait."""
        socket = sockets.local_socket(self.runner_id)
        behind = self._bus.pending_bytes if socket is None else socket.pending_bytes
        return behind + self._waiting_bytes > BUSY_BYTES

    def join(self, rider: Rider) -> None:
        """Take a WebSocket in."""
        self.riders[rider] = None

    def leave(self, rider: Rider) -> None:
        """Let a WebSocket go; what it has sent still goes out, if the runner has a socket."""
        self.riders.pop(rider, None)
        if self.riders:
            return
        if self._sender is None:
            self._closed(self)
        else:
            self._more.set()

    def link_lost(self) -> None:
        """Take note that this process's link to the others was lost for a while."""
        if sockets.local_socket(self.runner_id) is None:
            for rider in list(self.riders):
                rider.tunnel_lost()

    def send(self, frame: bytes) -> None:
        """Send a frame after all that were sent before.

        Raises:
            TunnelOverloaded: too much waits already.
        """
        if not self._waiting:
            socket = sockets.local_socket(self.runner_id)
            if socket is not None:
                try:
                    return socket.write(frame)
                except BusOverloaded as error:
                    raise TunnelOverloaded(runner_id=self.runner_id) from error
        if self._waiting_bytes > WAITING_BYTES:
            raise TunnelOverloaded(runner_id=self.runner_id)
        self._waiting.append(frame)
        self._waiting_bytes += len(frame)
        self._more.set()
        if self._sender is None:
            self._sender = asyncio.create_task(self._send_waiting())
        return None

    async def _send_waiting(self) -> None:
        """Send what waits, for as long as anybody rides or anything waits."""
        while self.riders or self._waiting:
            if not self._waiting:
                self._more.clear()
                await self._more.wait()
                continue
            batch: list[bytes] = []
            size = 0
            while len(batch) < len(self._waiting) and size < BATCH_BYTES:
                batch.append(self._waiting[len(batch)])
                size += len(batch[-1])
            if not await self._deliver(batch):
                break
            for _ in batch:  # only now: until it is through, whatever comes waits behind it
                self._waiting_bytes -= len(self._waiting.popleft())
        self._sender = None
        self._closed(self)

    async def _deliver(self, batch: list[bytes]) -> bool:
        """Bring frames to the runner's socket once it has one; False if nobody rides with it any more."""
        for frame in batch:
            while not await self._bring(frame):
                if not self.riders:
                    return False
                await asyncio.sleep(AWAY_SECONDS)
        return True

    async def _bring(self, frame: bytes) -> bool:
        socket = sockets.local_socket(self.runner_id)
        try:
            if socket is not None:
                socket.write(frame)
                return True
            name, payload = channel.runner_channel(self.runner_id), channel.encode(channel.TunnelFrame(frame))
            return await self._bus.publish_counted(name, payload) > 0
        except (BusOverloaded, BusUnavailable):
            return False
