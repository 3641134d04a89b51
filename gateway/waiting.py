"""Waiting until an actor takes traffic: look, wake, listen, and ask again (PROTOCOL §8.2; DESIGN §2, rule 4).

All requests of this process that wait for one actor share one waker.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings

from gateway import looks
from gateway.calling import call_actor
from gateway.errors import (
    ActorNotFound,
    ActorReadyTimeout,
    ActorRunnerFailed,
    ActorWakeRetriesExceeded,
    GatewayError,
)
from gateway.watch import Route, Watch
from orchestrator.db import run_db
from orchestrator.metrics import GATEWAY_WAIT_SECONDS

logger = logging.getLogger(__name__)

EXPLAINED_AT_ONCE = 32
"""Refusals that come with an explanation, at a time: after an outage thousands may be due together."""

_explaining: set[object] = set()


@dataclass(slots=True, eq=False)
class Waker:
    """Asks for one actor until it takes traffic or nobody waits any more."""

    watch: Watch
    request: str
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    failure: GatewayError | None = None
    task: asyncio.Task[None] | None = None
    waiting: int = 0

    async def run(self) -> None:
        """Look and wake, then again whenever a generation has stopped or nothing was heard for a while."""
        again, request = False, self.request or None
        while self.watch.route is None and not self.watch.destroyed:
            stops = self.watch.stops
            try:
                look = await call_actor(looks.Call(self.watch.actor_id, request, again))
            except Exception:  # a store is away for a moment: ask again
                logger.exception("could not wake", extra={"action": "wake", "actor_id": self.watch.actor_id})
            else:
                if not look.exists or (look.destroyed and not again):  # it was gone before anybody waited
                    self.failure = ActorNotFound(actor_id=self.watch.actor_id)
                elif look.pool_error is not None:
                    self.failure = await self._runner_failed(look.pool_error)
                if not look.connectable:
                    self.watch.woken_by_us = True
                self.watch.look(look)
            self.changed.set()
            if self.failure:
                return
            again, request = True, None  # what it is for is told once
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(settings.ENV.gateway_repeat_wake_ms / 1000):
                    while self.watch.route is None and not self.watch.destroyed and self.watch.stops == stops:
                        self.changed.clear()
                        await self.changed.wait()
                    again = self.watch.stops == stops

    async def _runner_failed(self, reason: object) -> GatewayError:
        told = await _explained(self.watch.actor_id)
        return ActorRunnerFailed(actor_id=self.watch.actor_id, reason=reason, explain=told)


_wakers: dict[Watch, Waker] = {}


@dataclass(slots=True)
class Wait:
    """How long one request has waited for its actor, over all its attempts."""

    watch: Watch
    request: str  # what for, in the timeline, which is told once
    skip_ready_wait: bool = False  # a runner that was told to start it will do
    stops: int = field(init=False)
    waited_seconds: float = 0.0

    def __post_init__(self) -> None:
        self.stops = self.watch.stops

    @property
    def rewakes(self) -> int:
        """The generations that have stopped since the request came."""
        return self.watch.stops - self.stops

    def way(self) -> Route | None:
        """Where the request may go now."""
        return self.watch.route or (self.watch.assigned if self.skip_ready_wait else None)

    def check_rewakes(self) -> None:
        """Raise ActorWakeRetriesExceeded if the actor has stopped too often."""
        if self.rewakes > settings.ENV.gateway_rewakes:
            reason = "the actor stopped each time before it answered"
            actor_id, rewakes = self.watch.actor_id, self.rewakes
            raise ActorWakeRetriesExceeded(actor_id=actor_id, wake_retries=rewakes, reason=reason)


async def until_connectable(wait: Wait) -> Route:
    """Return the actor's route once it takes traffic, waking it if it sleeps.

    Bounded by the time a request may wait in all, and by a shorter one for each generation (DESIGN §11).

    Raises:
        ActorNotFound: there is no such actor.
        ActorDestroyedWhileWaiting: it was destroyed.
        ActorRunnerFailed: its pool cannot start runners.
        ActorWakeRetriesExceeded: it stopped again and again.
        ActorReadyTimeout: nothing came of it in time.
    """
    loop, env, watch = asyncio.get_running_loop(), settings.ENV, wait.watch
    began = loop.time()
    deadline = began + env.gateway_request_ms / 1000 - wait.waited_seconds
    rewakes, ready_by = wait.rewakes, began + env.gateway_ready_ms / 1000
    request, wait.request = wait.request, ""
    with _waker(watch, request) as waker:
        changed = asyncio.Event()
        watch.listeners.append(changed.set)
        try:
            while (route := wait.way()) is None:
                if waker.failure is not None:
                    raise waker.failure
                if watch.destroyed:
                    raise watch.gone()
                wait.check_rewakes()
                if wait.rewakes != rewakes:
                    rewakes, ready_by = wait.rewakes, loop.time() + env.gateway_ready_ms / 1000
                changed.clear()
                try:
                    async with asyncio.timeout_at(min(deadline, ready_by)):
                        await changed.wait()
                except TimeoutError:
                    told = await _explained(watch.actor_id)
                    raise ActorReadyTimeout(actor_id=watch.actor_id, explain=told) from None
            return route
        finally:
            watch.listeners.remove(changed.set)
            wait.waited_seconds += loop.time() - began
            GATEWAY_WAIT_SECONDS.observe(loop.time() - began)


async def _explained(actor_id: str) -> dict[str, Any] | None:
    """Return what is known of the actor, unless too many ask: a refusal is not worth waiting for."""
    if len(_explaining) >= EXPLAINED_AT_ONCE:
        return None
    asked = object()
    _explaining.add(asked)
    try:
        return await run_db(looks.explain_actor, actor_id)
    except Exception:
        logger.exception("could not explain", extra={"action": "explain", "actor_id": actor_id})
        return None
    finally:
        _explaining.discard(asked)


@contextlib.contextmanager
def _waker(watch: Watch, request: str) -> Iterator[Waker]:
    """Share the actor's waker, started by the first that waits and ended with the last."""
    waker = _wakers.get(watch)
    if waker is None or waker.task is None or waker.task.done():
        waker = _wakers[watch] = Waker(watch, request)
        watch.listeners.append(waker.changed.set)
        waker.task = asyncio.create_task(waker.run())
        waker.task.add_done_callback(lambda _: _tell(watch))
    waker.waiting += 1
    try:
        yield waker
    finally:
        waker.waiting -= 1
        if not waker.waiting:
            if waker.task:
                waker.task.cancel()
            watch.listeners.remove(waker.changed.set)
            if _wakers.get(watch) is waker:
                del _wakers[watch]


def _tell(watch: Watch) -> None:
    for listener in list(watch.listeners):
        listener()
