"""The gateway of one process: what goes to runners, and what comes back."""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable
from typing import Protocol

from gateway.errors import TunnelBroken, TunnelOverloaded
from gateway.lane import Lane, Rider
from gateway.pairs import Pairs
from gateway.recorder import Recorder
from gateway.socket_story import SocketStory
from gateway.watches import AUDIT_SECONDS, Watches
from orchestrator.bus import get_bus
from orchestrator.errors import BusOverloaded, BusUnavailable
from orchestrator.metrics import start_flushing
from runners import channel, sockets
from runners.errors import RunnerProtocolError
from runners.links import NOTICE, decode_standing
from runners.protocol import codec
from runners.protocol.messages import ToClientTunnelMessageKind, ToServerTunnelMessageKind

logger = logging.getLogger(__name__)

AWAY_SECONDS = 0.1
"""A frame for a runner whose socket is away is tried again after this."""
_NOTICE = bytes([NOTICE])


class Inbox(Protocol):
    """What belongs to one request: takes the runner's messages."""

    def put(self, kind: ToServerTunnelMessageKind, index: int) -> None:
        """Take a message, in the order the runner has sent them, and the number it has given it."""

    def link_lost(self) -> None:
        """Take note that messages may have been lost between this process and the runner's."""


class SocketInbox(Rider, Protocol):
    """What belongs to one WebSocket, whichever runner has it."""

    def take(self, runner_id: str, kind: ToServerTunnelMessageKind, index: int) -> None:
        """Take a message of a runner, in the order the runner has sent them, and the number it has given it."""

    def lapsed(self) -> None:
        """Take note that a StartActor may have been sent without this socket."""

    def check(self, now: float) -> None:
        """Take note of the time, in the loop's seconds."""


class Hub:
    """One per event loop. Requests are known by (gateway id, request id), as on the wire."""

    def __init__(self) -> None:
        self.gateway_id = secrets.token_bytes(4)
        self._last_id = secrets.randbits(32)
        self._inboxes: dict[bytes, tuple[str, Inbox]] = {}  # by request id: the runner it is with
        self._doubts: dict[bytes, Callable[[bool], None]] = {}
        self._sockets: dict[bytes, SocketInbox] = {}  # by request id
        self._lanes: dict[str, Lane] = {}  # by runner id
        self.pairs = Pairs(self.gateway_id, self._pairs_lapsed)
        self._bus = get_bus()
        self.watches = Watches(self._bus)
        self.recorder = Recorder()
        self.story = SocketStory(self.recorder.note)
        self._ready: asyncio.Task[None] | None = None
        self._auditor: asyncio.Task[None] | None = None

    @property
    def is_open(self) -> bool:
        """Whether runner sockets can answer this gateway."""
        return self._ready is not None and self._ready.done() and not self._ready.cancelled()

    async def open(self) -> None:
        """Make this gateway known to runner sockets here and elsewhere; returns once both can answer."""
        if self._ready is None:
            sockets.open_gateway(self.gateway_id, self.from_runner)
            self._bus.on_reset(self._ask_again)
            name = channel.gateway_channel(self.gateway_id)
            self._ready = asyncio.create_task(self._bus.subscribe(name, self._on_bus))
            self._auditor = asyncio.create_task(self._audit())
        await asyncio.shield(self._ready)

    def close(self) -> None:
        """Take this gateway out again."""
        sockets.close_gateway(self.gateway_id)
        for task in (self._ready, self._auditor):
            if task is not None:
                task.cancel()
        self.recorder.close()
        self.pairs.close()

    def _ask_again(self) -> None:
        """The link was lost for a while: messages may be missing."""
        self.watches.ask_again()
        for runner_id, inbox in list(self._inboxes.values()):
            if sockets.local_socket(runner_id) is None:
                inbox.link_lost()
        for lane in list(self._lanes.values()):
            lane.probe()

    async def _audit(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(AUDIT_SECONDS)
            now = loop.time()
            for inbox in list(self._sockets.values()):
                inbox.check(now)
            for lane in list(self._lanes.values()):
                lane.check(now)
            await self.watches.audit(now)

    def _pairs_lapsed(self) -> None:
        for inbox in list(self._sockets.values()):
            inbox.lapsed()

    # Frames

    def attach(self, runner_id: str, inbox: Inbox, doubt: Callable[[bool], None] | None = None) -> bytes:
        """Return a fresh request id; what this runner sends for it goes to the inbox until `detach`.

        `doubt` is called when the runner may not have had what it was sent, as its connection has ended, and told
        whether the runner is connected again.
        """
        request_id = self._fresh_id()
        self._inboxes[request_id] = (runner_id, inbox)
        if doubt is not None:
            self._doubts[request_id] = doubt
        return request_id

    def _fresh_id(self) -> bytes:
        while True:
            self._last_id = (self._last_id + 1) % 2**32
            request_id = self._last_id.to_bytes(4)
            if request_id not in self._inboxes and request_id not in self._sockets:
                return request_id

    def detach(self, request_id: bytes) -> None:
        """Forget a request; what comes for it later is dropped."""
        self._inboxes.pop(request_id, None)
        self._doubts.pop(request_id, None)

    def attach_socket(self, inbox: SocketInbox) -> bytes:
        """Return a fresh request id; what runners send for it goes to the inbox until `detach_socket`."""
        request_id = self._fresh_id()
        self._sockets[request_id] = inbox
        return request_id

    def detach_socket(self, request_id: bytes) -> None:
        """Forget a WebSocket; what comes for it later is dropped."""
        self._sockets.pop(request_id, None)

    def lane(self, runner_id: str) -> Lane:
        """Return the way to a runner that the WebSockets of this process share; `join` it."""
        lane = self._lanes.get(runner_id)
        if lane is None:
            lane = self._lanes[runner_id] = Lane(self._bus, self.gateway_id, runner_id, self._close_lane)
        return lane

    def _close_lane(self, lane: Lane) -> None:
        if self._lanes.get(lane.runner_id) is lane:
            del self._lanes[lane.runner_id]

    def frame(self, request_id: bytes, index: int, kind: ToClientTunnelMessageKind) -> bytes:
        """Return a message of a request as it goes over the wire."""
        return codec.encode_tunnel(self.gateway_id, request_id, index, kind)

    def send_here(self, runner_id: str, frame: bytes) -> bool:
        """Give a frame to the runner's socket if this process holds it.

        Raises:
            TunnelOverloaded: the runner does not keep up.
        """
        socket = sockets.local_socket(runner_id)
        if socket is None:
            return False
        try:
            socket.write(frame)
        except BusOverloaded as error:
            raise TunnelOverloaded(runner_id=runner_id) from error
        return True

    async def send(self, runner_id: str, frame: bytes, wanted: Callable[[], bool]) -> None:
        """Send a frame to the runner, wherever its socket is; while it has none, wait for it.

        Ends without having sent it once it is not wanted any more: the runner was lost, and its exchange over.

        Raises:
            TunnelOverloaded: the runner, or the link to it, does not keep up.
            TunnelBroken: the link was lost just then, and nobody knows whether the frame is through.
        """
        name, payload = channel.runner_channel(runner_id), channel.encode(channel.TunnelFrame(frame))
        while wanted() and not self.send_here(runner_id, frame):
            if self._bus.connected:
                try:
                    if await self._bus.publish_counted(name, payload):
                        return
                except BusUnavailable as error:
                    raise TunnelBroken(runner_id=runner_id) from error
                except BusOverloaded as error:
                    raise TunnelOverloaded(runner_id=runner_id) from error
            await asyncio.sleep(AWAY_SECONDS)

    def send_and_forget(self, runner_id: str, frame: bytes) -> None:
        """Send a frame that is not missed if it does not arrive."""
        with contextlib.suppress(TunnelOverloaded, BusOverloaded):
            if not self.send_here(runner_id, frame):
                payload = channel.encode(channel.TunnelFrame(frame))
                self._bus.publish(channel.runner_channel(runner_id), payload)

    def _on_bus(self, payload: bytes) -> None:
        message = channel.decode_from_runner(payload)
        lane = self._lanes.get(message.runner_id)
        if lane is not None and message.nonce != channel.UNNUMBERED:
            lane.hear(message)
        self.from_runner(message.runner_id, message.frame)

    def from_runner(self, runner_id: str, frame: bytes) -> None:
        """Take a tunnel frame of a runner, or a notice of its socket.

        A frame for a request that is not with this runner is dropped.
        """
        if frame[:1] == _NOTICE:
            if (lane := self._lanes.get(runner_id)) is not None:
                lane.stand(decode_standing(frame))
            return
        ids = codec.tunnel_ids(frame)
        if ids is None:
            self._doubted(runner_id, frame)
            return
        known = self._inboxes.get(ids.request_id)
        inbox = self._sockets.get(ids.request_id) if known is None else None
        if inbox is None and (known is None or known[0] != runner_id):
            return
        try:
            kind = codec.decode_tunnel_kind(frame)
        except RunnerProtocolError as error:
            logger.warning("tunnel frame skipped: %s", error, extra={"action": "frame_skipped"})
            return
        if inbox is not None:
            inbox.take(runner_id, kind, ids.message_index)
        elif known is not None:
            known[1].put(kind, ids.message_index)

    def _doubted(self, runner_id: str, frame: bytes) -> None:
        unproven = channel.decode_unproven(frame)
        if unproven is None:
            return
        request_id, is_back = unproven
        known, doubt = self._inboxes.get(request_id), self._doubts.get(request_id)
        if known is not None and known[0] == runner_id and doubt is not None:
            doubt(is_back)


_hubs: dict[asyncio.AbstractEventLoop, Hub] = {}


async def get_hub() -> Hub:
    """Return the running loop's hub, opened."""
    loop = asyncio.get_running_loop()
    hub = _hubs.get(loop)
    if hub is None:
        hub = _hubs[loop] = Hub()
    await hub.open()
    start_flushing()
    return hub


def open_hub() -> Hub | None:
    """Return the running loop's hub if it is open already."""
    hub = _hubs.get(asyncio.get_running_loop())
    return hub if hub is not None and hub.is_open else None


def close_hub() -> None:
    """Close the running loop's hub, if there is one; the next `get_hub` makes a new one."""
    hub = _hubs.pop(asyncio.get_running_loop(), None)
    if hub is not None:
        hub.close()
