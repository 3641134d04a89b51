"""The ties of one runner's socket to the gateways: what passed either way, and what becomes of it at the end."""

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Iterable, Sequence

from orchestrator import metrics
from runners import channel, forwarding, sockets
from runners.background import spawn
from runners.channel import Life
from runners.delivery import Deliveries, request_begun_by
from runners.errors import RunnerProtocolError, TunnelPayloadTooLarge
from runners.links import Flag, Links, is_of_socket


class Ties:
    """One socket's; a runner's next socket has its own."""

    def __init__(self, runner_id: str, protocol_version: int) -> None:
        self._runner_id, self._version = runner_id, protocol_version
        self._links = Links()
        self._deliveries = Deliveries()
        self._ponged = asyncio.Event()  # since it was cleared
        self.parted = False

    def tell(self, gateway_id: bytes, flags: Flag = Flag.NONE) -> None:
        """Tell a gateway how far this socket has come with it."""
        forwarding.tell_standing(self._runner_id, gateway_id, self._links, flags)

    # From the runner

    async def forward(self, frame: bytes) -> None:
        """Hand the runner's tunnel frame to its gateway.

        Raises:
            TunnelPayloadTooLarge: it costs the connection.
            RunnerProtocolError: it names no gateway.
        """
        metrics.FRAMES_FROM_RUNNERS.n += 1
        metrics.BYTES_FROM_RUNNERS.n += len(frame)
        if self.parted and is_of_socket(frame):
            return  # one before it may be missing, and the next socket's would hide that
        try:
            links = None if self.parted else self._links
            await forwarding.forward(self._runner_id, frame, self._version, links)
        except (asyncio.CancelledError, TunnelPayloadTooLarge):
            self.part()  # it is lost, and is to be missed
            raise

    async def hear_out(self, frame: bytes | None) -> None:
        """Pass on a tunnel frame that the runner has sent before it heard of our close: it says it once."""
        if frame and frame[0] == forwarding.TUNNEL_TAG:
            with contextlib.suppress(RunnerProtocolError):
                await self.forward(frame)

    # To the runner

    def take(self, message: channel.Frames) -> Iterable[tuple[bytes, Life]]:
        """Return the frames of a gateway's message, and the life each is for; none if it is not the next one."""
        is_new = not self._links.knows(message.gateway_id)
        if self._links.take(message):
            if is_new:  # by which it learns what we can read
                self.tell(message.gateway_id)
            return zip(message.frames, message.lives or itertools.repeat(channel.ANY_LIFE), strict=False)
        if self._links.is_broken(message.gateway_id):
            self.tell(message.gateway_id)
        return ()

    def wrote(self, frame: bytes) -> None:
        """Note a tunnel frame that was written to the runner."""
        self._deliveries.sent(frame)
        self._links.wrote(frame)

    def pinged(self, ts_ms: int) -> None:
        """Note a ping."""
        self._deliveries.pinged(ts_ms)
        self._links.pinged(ts_ms)

    def ponged(self, ts_ms: int) -> None:
        """Note a pong: all that was written before its ping has arrived."""
        self._deliveries.ponged(ts_ms)
        self._links.ponged(ts_ms)
        self._ponged.set()

    @property
    def has_doubts(self) -> bool:
        """Whether something that was written to the runner may not have arrived."""
        return self._links.has_doubts or bool(self._deliveries.unproven())

    async def confirm(self, ping: Callable[[], None]) -> None:
        """Have the runner confirm all that was written to it."""
        while self.has_doubts:
            self._ponged.clear()
            ping()
            await self._ponged.wait()

    # The end

    def give_late_back(self, message: object) -> None:
        """Have a gateway send again what was on its way to us: Redis has told it that somebody takes it."""
        match message:
            case channel.TunnelFrame(frame):
                spawn(forwarding.give_back(self._runner_id, frame, self._version))
            case channel.Frames(gateway_id):
                self.tell(gateway_id, Flag.GONE)

    def part(self) -> None:
        """Tell gateways that this socket takes and brings nothing more, once."""
        if not self.parted:
            self.parted = True
            for gateway_id in self._links.gateways():
                self.tell(gateway_id, Flag.GONE)

    def account(self, unsent_frames: Sequence[bytes], *, replaced: bool) -> None:
        """Have gateways send again what the runner cannot have had, and tell them what it may not have had.

        `replaced`: it has another socket, wherever.
        """
        unsent = {begun: frame for frame in unsent_frames if (begun := request_begun_by(frame)) is not None}
        for frame in unsent.values():
            spawn(forwarding.give_back(self._runner_id, frame, self._version))
        is_back = replaced or sockets.local_socket(self._runner_id) is not None
        for request in self._deliveries.unproven() - unsent.keys():
            forwarding.tell_unproven(self._runner_id, request, is_back=is_back)
