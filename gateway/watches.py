"""The actors this process watches: those with requests, and those whose routes are worth remembering."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from functools import partial

from gateway import looks
from gateway.errors import ActorNotFound
from gateway.watch import Watch
from orchestrator.bus import Bus
from orchestrator.db import run_db
from runners import channel

logger = logging.getLogger(__name__)

IDLE_WATCHES = 10_000
"""Actors without a request whose routes are remembered."""
AUDIT_SECONDS = 2.0
"""The rows of actors with requests older than this are looked at this often: a message may have been lost."""
SOCKET_AUDIT_SECONDS = 20.0
"""The rows of actors with WebSockets are looked at this often: there may be many, and they last."""


class Watches:
    """One watch for each actor, subscribed to the actor's messages for as long as it is kept."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._watches: dict[str, Watch] = {}
        self._idle: OrderedDict[str, Watch] = OrderedDict()
        self._handlers: dict[str, Callable[[bytes], None]] = {}
        self._opening: dict[str, asyncio.Future[Watch]] = {}
        self._audit_all_at = 0.0  # loop time

    @property
    def in_touch(self) -> bool:
        """Whether the messages of actors reach this process now; if not, no remembered route can be trusted."""
        return self._bus.connected

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
                opening = self._opening[actor_id] = asyncio.ensure_future(self._open(actor_id))
            await asyncio.shield(opening)

    async def _open(self, actor_id: str) -> Watch:
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
        if watch.destroyed and watch.actor_id in self._idle:
            self._drop(watch)

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

    def ask_again(self) -> None:
        """The link was lost for a while: no route is sure, and requests may wait for what was said meanwhile."""
        self._audit_all_at = 0.0
        for watch in list(self._watches.values()):
            watch.forget_route()
        for watch in list(self._idle.values()):
            self._drop(watch)

    async def audit(self, now: float) -> None:
        """Look at the rows of the actors that have had a request for a while; `now` is the loop's time."""
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
            return
        try:
            found = await run_db(looks.look_at_many, list(waiting))
        except Exception:  # the database is away for a moment; the next look will tell
            logger.exception("audit failed", extra={"action": "gateway_audit"})
            return
        for actor_id, look in found.items():
            waiting[actor_id].look(look)
