"""The way from this process to one runner, shared by all WebSockets that are with it: in order, or not at all.

While the runner's socket is in this process a frame is a direct call. Otherwise frames gather for as long as those
before are on their way, and are published together and numbered; while the runner has no socket they wait for it.
What its socket says of the numbers it has seen (`runners/links.py`) tells what is lost.
"""

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from gateway.errors import TunnelOverloaded
from orchestrator.bus import Bus
from orchestrator.errors import BusOverloaded, BusUnavailable
from runners import channel, sockets
from runners.channel import Life
from runners.links import NOTICE, Flag, Standing, request_id_of

AWAY_SECONDS = 0.05
"""Frames for a runner whose socket is away are tried again after this."""
BATCH_BYTES = 1024 * 1024
"""Frames are published together up to about so much."""
WAITING_BYTES = 64 * 1024 * 1024
"""What may wait for a runner whose socket is away."""
BUSY_BYTES = 4 * 1024 * 1024
"""With more than this on the way to the runner, its clients are not read from."""
SILENT_SECONDS = 10.0
"""A runner whose socket has not been heard of for so long loses the WebSockets that cannot wait."""

LINGER_SECONDS = 20.0
"""The last words of WebSockets that are over wait for the runner's next socket so long."""

_epochs = itertools.count(1)


class Rider(Protocol):
    """A WebSocket as its way to the runner sees it."""

    @property
    def request_id(self) -> bytes:
        """Which one it is."""

    def runner_gone(self) -> None:
        """Take note that the runner's connection has ended; it may come back."""

    def tunnel_lost(self) -> None:
        """Take note that messages to the runner are lost; what waited is, too."""

    def tunnel_broken(self) -> None:
        """Take note that messages of the runner are lost."""

    def tunnel_silent(self) -> None:
        """Take note that there has been no way to the runner for a while."""


class Lane:
    """Frames of this process's WebSockets to one runner. `closed` is called when the last rider has left."""

    def __init__(self, bus: Bus, gateway_id: bytes, runner_id: str, closed: Callable[["Lane"], None]) -> None:
        self.runner_id = runner_id
        self.riders: dict[Rider, None] = {}
        self._bus = bus
        self._gateway_id = gateway_id
        self._closed = closed
        self._waiting: deque[tuple[bytes, Life]] = deque()  # frames, and the life each is for
        self._waiting_bytes = 0
        self._sender: asyncio.Task[None] | None = None
        self._more = asyncio.Event()
        self._epoch, self._number = next(_epochs), 0
        self._unseen: deque[tuple[int, list[bytes]]] = deque()  # published, by number: whose frames they are
        self._under_way = 0  # so many of the waiting are being published, together
        self._in_doubt = False  # they may have been, though the link to Redis broke
        self._heard: tuple[bytes, int] | None = None  # the runner's socket, and its next number
        self._reads_lives = False  # that socket, as far as is known
        self._heard_at = self._left_at = asyncio.get_running_loop().time()

    @property
    def is_busy(self) -> bool:
        """Whether the runner, or the way to it, is behind: its clients had better wait."""
        socket = sockets.local_socket(self.runner_id)
        behind = self._bus.pending_bytes if socket is None else socket.pending_bytes
        return behind + self._waiting_bytes > BUSY_BYTES

    def join(self, rider: Rider) -> None:
        """Take a WebSocket in."""
        self.riders[rider] = None

    def withdraw(self, rider: Rider) -> None:
        """Take back what waits of a WebSocket: its actor's life is over, and the next is told anew."""
        waiting = list(self._waiting)
        kept = [one for one in waiting[self._under_way :] if request_id_of(one[0]) != rider.request_id]
        self._keep([*waiting[: self._under_way], *kept])

    def leave(self, rider: Rider) -> None:
        """Let a WebSocket go; what it has sent still goes out, should the runner have a socket soon."""
        self.riders.pop(rider, None)
        if self.riders:
            return
        self._left_at = asyncio.get_running_loop().time()
        if self._sender is None:
            self._closed(self)
        else:
            self._more.set()

    def send(self, frame: bytes, life: Life) -> None:
        """Send a frame after all that were sent before, to this life and no later one.

        Raises:
            TunnelOverloaded: too much waits already.
        """
        if not self._waiting:
            socket = sockets.local_socket(self.runner_id)
            if socket is not None:
                try:
                    return socket.write(frame, life)
                except BusOverloaded as error:
                    raise TunnelOverloaded(runner_id=self.runner_id) from error
        if self._waiting_bytes > WAITING_BYTES:
            raise TunnelOverloaded(runner_id=self.runner_id)
        self._waiting.append((frame, life))
        self._waiting_bytes += len(frame)
        self._more.set()
        if self._sender is None:
            self._sender = asyncio.create_task(self._send_waiting())
        return None

    # What the runner's socket has seen

    def hear(self, message: channel.FromRunner) -> None:
        """Look at the number of what has come of the runner's socket, before it is dealt with."""
        self._heard_at = asyncio.get_running_loop().time()
        before, is_notice = self._heard, message.frame[0] == NOTICE
        self._heard = (message.nonce, message.number if is_notice else message.number + 1)
        if before is None:
            return
        if before[0] != message.nonce:
            self._succeed_the_dead()
        elif before[1] != message.number:
            self._break()

    def stand(self, standing: Standing) -> None:
        """Compare with what the runner's socket has seen of ours."""
        self._heard_at = asyncio.get_running_loop().time()
        if standing.flags & (Flag.HERE | Flag.GONE):
            for rider in self.riders:
                rider.runner_gone()
        if standing.flags & Flag.HERE:
            return self._come_here()
        self._reads_lives = Flag.LIVES in standing.flags and Flag.GONE not in standing.flags
        lost = set(standing.doubtful)
        if standing.epoch == self._epoch:
            while self._unseen and self._unseen[0][0] < standing.received:
                self._unseen.popleft()
            if self._under_way and self._number < standing.received:
                self._through()
        if standing.flags & Flag.GONE:
            self._heard = None
            self._lose(lost | self._in_flight())
        elif standing.flags & Flag.BROKEN and standing.epoch == self._epoch:
            self._lose(lost | self._in_flight())
        return None

    def _come_here(self) -> None:
        """Go on by direct calls, which have no numbers."""
        if self._heard is not None or self._unseen:
            self._heard = None
            self._succeed_the_dead()

    def _succeed_the_dead(self) -> None:
        """Begin anew with another socket. The former has not said its end: what it had heard may be lost, too."""
        self._reads_lives = False
        self._lose(self._all())
        self._break()

    def _break(self) -> None:
        for rider in list(self.riders):
            rider.tunnel_broken()

    def probe(self) -> None:
        """Ask the runner's socket, wherever it is, what it has seen."""
        if sockets.local_socket(self.runner_id) is not None:
            self._heard_at = asyncio.get_running_loop().time()
        elif self.riders and self._bus.connected:
            payload = channel.encode(channel.Probe(self._gateway_id))
            try:
                self._bus.publish(channel.runner_channel(self.runner_id), payload)
            except BusOverloaded:
                return

    def check(self, now: float) -> None:
        """Take note of the time, in the loop's seconds."""
        self.probe()
        if now - self._heard_at > SILENT_SECONDS:
            for rider in list(self.riders):
                rider.tunnel_silent()

    def _in_flight(self) -> set[bytes]:
        """Return whose frames are on their way.

        Those just being published still wait here: whichever socket they reach takes none of them, as their number
        is not the next one there; unless it is the first.
        """
        gone = [ids for number, ids in self._unseen if not number or number < self._number or not self._under_way]
        return {request_id for request_ids in gone for request_id in request_ids}

    def _all(self) -> set[bytes]:
        return {rider.request_id for rider in self.riders}

    def _lose(self, request_ids: Collection[bytes]) -> None:
        """Begin anew: whose messages are lost may say them again, after nothing that was to follow them."""
        self._epoch, self._number = next(_epochs), 0
        self._unseen.clear()
        self._under_way, self._in_doubt = 0, False
        self._keep([one for one in self._waiting if request_id_of(one[0]) not in request_ids])
        for rider in [one for one in self.riders if one.request_id in request_ids]:
            rider.tunnel_lost()

    def _keep(self, waiting: Sequence[tuple[bytes, Life]]) -> None:
        self._waiting, self._waiting_bytes = deque(waiting), sum(len(frame) for frame, _ in waiting)

    # Sending what waits

    async def _send_waiting(self) -> None:
        """Send what waits, for as long as anybody rides or anything waits."""
        while self.riders or self._waiting:
            if not self._waiting:
                self._more.clear()
                await self._more.wait()
            elif not await self._send_some():
                if not self.riders and asyncio.get_running_loop().time() - self._left_at > LINGER_SECONDS:
                    break
                await asyncio.sleep(AWAY_SECONDS)
        self._sender = None
        self._closed(self)

    async def _send_some(self) -> bool:
        """Send the first that wait, as many as go together; False if the runner has no socket."""
        socket = sockets.local_socket(self.runner_id)
        if socket is not None:
            try:
                socket.write(*self._waiting[0])
            except BusOverloaded:
                return False
            self._waiting_bytes -= len(self._waiting.popleft()[0])
            return True
        epoch, number = self._epoch, self._number
        if not self._under_way:
            going = list(self._first())
            self._under_way = len(going)
            self._unseen.append((number, [request_id_of(frame) for frame, _ in going]))
        frames, lives = zip(*itertools.islice(self._waiting, self._under_way), strict=True)
        batch = channel.Frames(self._gateway_id, epoch, number, frames, lives if self._reads_lives else None)
        payload, is_through, in_doubt = channel.encode(batch), False, False
        try:
            is_through = await self._bus.publish_counted(channel.runner_channel(self.runner_id), payload) > 0
        except BusOverloaded:
            pass
        except BusUnavailable:
            in_doubt = True
        if (epoch, number) != (self._epoch, self._number):
            return True  # what has become of it was told meanwhile
        self._in_doubt = self._in_doubt or in_doubt  # if so, the same is said again with the same number
        if is_through:
            self._through()
        elif not self._in_doubt:
            self._under_way = 0
            self._unseen.pop()
        return is_through

    def _through(self) -> None:
        """Take off what was just being published: it has been taken."""
        self._number += 1
        for _ in range(self._under_way):
            self._waiting_bytes -= len(self._waiting.popleft()[0])
        self._under_way, self._in_doubt = 0, False

    def _first(self) -> "itertools.takewhile[tuple[bytes, Life]]":
        sizes = itertools.accumulate((len(frame) for frame, _ in self._waiting), initial=0)
        return itertools.takewhile(lambda _: next(sizes) < BATCH_BYTES, self._waiting)
