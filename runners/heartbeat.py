"""A runner's heartbeat on one socket: its pings, and what is looked after with them (PROTOCOL §4.1)."""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from typing import TypeAlias

from django.conf import settings

from orchestrator import clock
from orchestrator.db import run_db
from orchestrator.errors import Forbidden, OrchestratorError
from orchestrator.ids import is_id
from orchestrator.workflow.mailbox import postman
from runners import services
from runners.command_feed import CommandFeed
from runners.connection import MAX_UNDER_WAY, Events, Evicted, PingTimeout
from runners.protocol.messages import ActorCheckpoint
from runners.services import Registration

logger = logging.getLogger(__name__)

PING_JITTER_MS = 127

Allow: TypeAlias = Callable[[], Awaitable[object]]
"""Raises Forbidden once the runner's token is good no more."""
End: TypeAlias = Callable[[OrchestratorError | None], None]


class Heartbeat:
    """Of a runner on one socket. It ends the conversation with whoever is silent for too long, or replaced."""

    def __init__(
        self, registration: Registration, socket_id: str, events: Events, feed: CommandFeed, allow: Allow, end: End
    ) -> None:
        self._runner_id = registration.runner_id
        self._socket_id = socket_id
        self._drain_grace = registration.drain_grace
        self._events, self._feed = events, feed
        self._allow, self._end = allow, end
        self._pong_at = time.monotonic()
        self._rtt_ms = 0
        self._pinged = asyncio.Event()  # since the runner was looked after
        self._stopping = False  # it has said that it goes away
        self._acknowledged: dict[tuple[str, int | None], int] = {}  # commands: (actor, generation) -> index

    # From the runner

    def ponged(self, ts_ms: int) -> None:
        """Take its answer to the ping of that moment."""
        self._pong_at = time.monotonic()
        self._rtt_ms = min(max(now_ms() - ts_ms, 0), 2**31 - 1)

    def acknowledge(self, checkpoints: Iterable[ActorCheckpoint], *, anonymous: bool) -> None:
        """Keep its acks for the next ping; those beyond a number it sends again, as is its habit.

        `anonymous`: they name no generation (PROTOCOL §1.3).
        """
        for one in checkpoints:
            if is_id(one.actor_id) and len(self._acknowledged) < MAX_UNDER_WAY:
                self._acknowledged[one.actor_id, None if anonymous else one.generation] = one.index

    def stops(self) -> None:
        """Have it drained, as it has asked to be. Asked again, it is noticed with the pings."""
        if not self._stopping:
            self._stopping = True
            self._ask_to_drain()

    # Time

    async def ping(self, say_ping: Callable[[], None], is_waiting_for_us: Callable[[], bool]) -> None:
        """Ping the runner, whatever the database is doing, until it does not answer."""
        env = settings.ENV
        while True:
            await asyncio.sleep((env.runner_ping_interval_ms + random.uniform(0, PING_JITTER_MS)) / 1000)
            if is_waiting_for_us():  # its pongs wait behind what we have not dealt with
                self._pong_at = time.monotonic()
            if self._silent_ms > env.runner_ping_timeout_ms:
                return self._end(PingTimeout())
            say_ping()
            self._pinged.set()

    async def look_after(self) -> None:
        """Look once per ping, or less often, for what lost messages may have hidden (DESIGN §2, rule 4)."""
        while True:
            await self._pinged.wait()
            self._pinged.clear()
            try:
                await self._allow()
                await self._look()
            except Forbidden as error:
                return self._end(error)
            except Exception:  # a database that is away for a moment costs no connection
                logger.exception("heartbeat failed", extra={"action": "heartbeat", "runner_id": self._runner_id})

    async def _look(self) -> None:
        if self._acknowledged:  # there is no hurry: what has taken effect has left the log by itself
            marks = [(*life, index) for life, index in self._acknowledged.items()]
            self._acknowledged.clear()
            await run_db(services.acknowledge_commands, runner_id=self._runner_id, checkpoints=marks)
        standing = await run_db(
            services.heartbeat,
            runner_id=self._runner_id,
            socket_id=self._socket_id,
            silent_ms=self._silent_ms,
            rtt_ms=self._rtt_ms,
        )
        if standing is None:
            return self._end(Evicted())
        self._feed.look(standing.newest_seq)
        if self._stopping and not standing.drains:
            self._ask_to_drain()
        patience = timedelta(milliseconds=settings.ENV.runner_ping_interval_ms) / 3
        for actor_id, signal in self._events.repeat(patience, clock.now()):
            postman.post("actors", actor_id, signal)
        return None

    @property
    def _silent_ms(self) -> int:
        """How long ago its last pong came."""
        return int((time.monotonic() - self._pong_at) * 1000)

    def _ask_to_drain(self) -> None:
        signal = {"t": "drain", "grace_ms": milliseconds(self._drain_grace), "by": "runner"}
        postman.post("runners", self._runner_id, signal)


def now_ms() -> int:
    """Return the time as the protocol counts it."""
    return int(clock.seconds() * 1000)


def milliseconds(length: timedelta) -> int:
    """Return a length as the protocol and signals give it."""
    return int(length.total_seconds() * 1000)
