"""The gateway of one process: what goes to runners, what comes back, and the actors it watches."""

import asyncio
import contextlib
import logging
import secrets
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Protocol

from django.db import transaction
from django.utils import timezone

from gateway import looks
from gateway.errors import ActorNotFound, TunnelBroken, TunnelOverloaded
from gateway.lane import Lane, Rider
from gateway.pairs import Pairs
from gateway.socket_story import SocketStory
from gateway.watch import Watch
from orchestrator.arrows import Arrow
from orchestrator.bus import get_bus
from orchestrator.db import run_db
from orchestrator.errors import BusOverloaded, BusUnavailable
from orchestrator.metrics import start_flushing
from orchestrator.timeline import record
from runners import channel, sockets
from runners.errors import RunnerProtocolError
from runners.links import NOTICE, decode_standing
from runners.protocol import codec
from runners.protocol.messages import (
    MessageId,
    ToClientTunnelMessage,
    ToClientTunnelMessageKind,
    ToServerTunnelMessage,
    ToServerTunnelMessageKind,
)

logger = logging.getLogger(__name__)

IDLE_WATCHES = 10_000
"""Actors without a request whose routes are remembered."""
AUDIT_SECONDS = 2.0
"""The rows of actors with requests older than this are looked at this often: a message may have been lost."""
SOCKET_AUDIT_SECONDS = 20.0
"""The rows of actors with WebSockets are looked at this often: there may be many, and they last."""
AWAY_SECONDS = 0.1
"""A frame for a runner whose socket is away is tried again after this."""
RECORD_SECONDS = 0.05
_NOTICE = bytes([NOTICE])
TUNNEL_VERSION = codec.VERSIONS[-1]  # tunnel frames are the same in all of them


class Inbox(Protocol):
    """What belongs to one request: takes the runner's messages."""

    def put(self, kind: ToServerTunnelMessageKind, index: int) -> None:
        """Take a message, in the order the runner has sent them, and the number it has given it."""

    def link_lost(self) -> None:
        """Take note that messages may have been lost between this process and the runner's."""


class SocketInbox(Rider, Protocol):
    """What belongs to one WebSocket, whichever runner has it."""

    def take(self, runner_id: str, kind: ToServerTunnelMessageKind) -> None:
        """Take a message of a runner, in the order the runner has sent them."""

    def lapsed(self) -> None:
        """Take note that a StartActor may have been sent without this socket."""

    def check(self, now: float) -> None:
        """Take note of the time, in the loop's seconds."""


class Hub:
    """One per event loop. Requests are known by (gateway id, request id), as on the wire."""

    def __init__(self) -> None:
        self.gateway_id = secrets.token_bytes(4)
        self._inboxes: dict[bytes, tuple[str, Inbox]] = {}  # by request id: the runner it is with
        self._doubts: dict[bytes, Callable[[bool], None]] = {}
        self._sockets: dict[bytes, SocketInbox] = {}  # by request id
        self._lanes: dict[str, Lane] = {}  # by runner id
        self.pairs = Pairs(self.gateway_id, self._pairs_lapsed)
        self._watches: dict[str, Watch] = {}
        self._idle: OrderedDict[str, Watch] = OrderedDict()
        self._handlers: dict[str, Callable[[bytes], None]] = {}
        self._opening: dict[str, asyncio.Future[Watch]] = {}
        self._arrows: list[tuple[datetime, Arrow]] = []
        self._recorder: asyncio.Task[None] | None = None
        self.story = SocketStory(self.note)
        self._bus = get_bus()
        self._ready: asyncio.Task[None] | None = None
        self._auditor: asyncio.Task[None] | None = None
        self._audit_all_at = 0.0  # loop time

    @property
    def is_open(self) -> bool:
        """Whether runner sockets can answer this gateway."""
        return self._ready is not None and self._ready.done() and not self._ready.cancelled()

    @property
    def in_touch(self) -> bool:
        """Whether the messages of actors reach this process now; if not, no remembered route can be trusted."""
        return self._bus.connected

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
        for task in (self._ready, self._auditor, self._recorder):
            if task is not None:
                task.cancel()
        self.pairs.close()

    # Watches

    def known(self, actor_id: str) -> Watch | None:
        """Return what `watch` would, if that needs no waiting."""
        watch = self._watches.get(actor_id)
        if watch is None:
            return None
        if watch.destroyed:
            raise ActorNotFound(actor_id=actor_id)
        watch.users += 1
        self._idle.pop(actor_id, None)
        return watch

    def hears_of(self, actor_id: str) -> bool:
        """Whether this process would know if the actor were no more."""
        watch = self._watches.get(actor_id)
        return watch is not None and not watch.destroyed and self.in_touch

    async def watch(self, actor_id: str) -> Watch:
        """Return the watch of an actor, subscribed to its messages; `unwatch` it when done.

        Raises:
            ActorNotFound: the actor is known to be no more.
        """
        while (watch := self.known(actor_id)) is None:
            await self.prepare(actor_id)
        return watch

    async def prepare(self, actor_id: str) -> None:
        """See to it that there is a watch of the actor, subscribed to its messages; it may be gone again soon."""
        if actor_id not in self._watches:
            opening = self._opening.get(actor_id)
            if opening is None:
                opening = self._opening[actor_id] = asyncio.ensure_future(self._open_watch(actor_id))
            await asyncio.shield(opening)

    async def _open_watch(self, actor_id: str) -> Watch:
        watch = Watch(actor_id)
        try:
            handler = self._handlers[actor_id] = partial(self._hear, watch)
            await self._bus.subscribe(channel.actor_channel(actor_id), handler)
            self._watches[actor_id] = self._idle[actor_id] = watch
        finally:
            del self._opening[actor_id]
        return watch

    def _hear(self, watch: Watch, payload: bytes) -> None:
        if receipt := watch.hear(payload):
            self._bus.publish(receipt, b"")

    def unwatch(self, watch: Watch) -> None:
        """Note that one user less needs the watch; a known route stays remembered for a while."""
        watch.users -= 1
        if watch.users:
            return
        self._idle[watch.actor_id] = watch
        if watch.route is None:
            self._drop(watch)
        elif len(self._idle) > IDLE_WATCHES:
            self._drop(next(iter(self._idle.values())))

    def _drop(self, watch: Watch) -> None:
        self._idle.pop(watch.actor_id, None)
        self._watches.pop(watch.actor_id, None)
        handler = self._handlers.pop(watch.actor_id)
        self._bus.unsubscribe(channel.actor_channel(watch.actor_id), handler)

    def _ask_again(self) -> None:
        """The link was lost for a while: no route is sure, and requests may wait for what was said meanwhile."""
        self._audit_all_at = 0.0
        for watch in list(self._watches.values()):
            watch.forget_route()
        for watch in list(self._idle.values()):
            self._drop(watch)
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
            in_full = now >= self._audit_all_at
            if in_full:
                self._audit_all_at = now + SOCKET_AUDIT_SECONDS
            old = now - AUDIT_SECONDS
            waiting = {
                watch.actor_id: watch
                for watch in self._watches.values()
                if (in_full and watch.users) or any(exchange.since < old for exchange in watch.exchanges)
            }
            if not waiting:
                continue
            try:
                found = await run_db(looks.look_at_many, list(waiting))
            except Exception:  # the database is away for a moment; the next look will tell
                logger.exception("audit failed", extra={"action": "gateway_audit"})
                continue
            for actor_id, look in found.items():
                waiting[actor_id].look(look)

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
        request_id = secrets.token_bytes(4)
        while request_id in self._inboxes or request_id in self._sockets:
            request_id = secrets.token_bytes(4)
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
        message = ToClientTunnelMessage(MessageId(self.gateway_id, request_id, index), kind)
        return codec.encode_to_client(message, TUNNEL_VERSION)

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
            message = codec.decode_to_server(frame, TUNNEL_VERSION)
        except RunnerProtocolError as error:
            logger.warning("tunnel frame skipped: %s", error, extra={"action": "frame_skipped"})
            return
        if not isinstance(message, ToServerTunnelMessage):
            return
        if inbox is not None:
            inbox.take(runner_id, message.message_kind)
        elif known is not None:
            known[1].put(message.message_kind, message.message_id.message_index)

    def _doubted(self, runner_id: str, frame: bytes) -> None:
        unproven = channel.decode_unproven(frame)
        if unproven is None:
            return
        request_id, is_back = unproven
        known, doubt = self._inboxes.get(request_id), self._doubts.get(request_id)
        if known is not None and known[0] == runner_id and doubt is not None:
            doubt(is_back)

    # Arrows

    def note(self, arrow: Arrow, at: datetime | None = None) -> None:
        """Have an arrow of now, or of a given time, stored soon; should that fail, only the picture lacks it."""
        self._arrows.append((at or timezone.now(), arrow))
        if self._recorder is None:
            self._recorder = asyncio.create_task(self._record())

    async def _record(self) -> None:
        await asyncio.sleep(RECORD_SECONDS)
        self._recorder = None
        arrows, self._arrows = self._arrows, []
        with contextlib.suppress(Exception):
            await run_db(_store, arrows)


def _store(arrows: list[tuple[datetime, Arrow]]) -> None:
    with transaction.atomic():
        for at, arrow in arrows:
            record([arrow], at)


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
