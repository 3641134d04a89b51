"""Trying until an actor has answered: again when it stopped, or its runner gave up, before (PROTOCOL §8.5)."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from django.conf import settings

from gateway.client import Client
from gateway.errors import (
    ActorNotFound,
    ActorReadyTimeout,
    ActorStopped,
    RetryAttemptsExceeded,
    TunnelRequestAborted,
)
from gateway.hub import Hub, get_hub, open_hub
from gateway.waiting import Wait, until_connectable
from gateway.watch import Route, Watch
from orchestrator import metrics
from orchestrator.ids import is_id

T = TypeVar("T")

ABORTS = 7
"""Attempts that runners may give up before the client is told (PROTOCOL §8.5)."""


async def watch_actor(client: Client, actor_id: str) -> tuple[Hub, Watch]:
    """Return the hub and a watch of the actor, once they are there; `unwatch` it when done.

    Raises:
        ActorNotFound: there is no such actor.
        ActorReadyTimeout: Redis was away for longer than an actor may take to be ready.
        ClientGone: the client did not wait for it.
    """
    if not is_id(actor_id):
        raise ActorNotFound(actor_id=actor_id)
    hub = open_hub()
    if hub is None:
        hub = await client.while_connected(_prepare(actor_id))
    while (watch := hub.watches.known(actor_id)) is None:
        await client.while_connected(_prepare(actor_id))
    if not hub.watches.in_touch:
        watch.forget_route()
    return hub, watch


async def until_answered(
    client: Client,
    wait: Wait,
    attempt: Callable[[Route], Awaitable[T]],
    has_begun: Callable[[], bool],
) -> T:
    """Return what the first attempt returns that the actor answers.

    An attempt that ends with `ActorStopped` or `TunnelRequestAborted` is followed by another one, which wakes the
    actor if need be; but not once an answer has begun, which nobody can take back.

    Raises:
        RetryAttemptsExceeded: runners gave it up too often; its cause is the last error.
        ClientGone: the client did not wait for it.
    """
    watch, aborts = wait.watch, 0
    while True:
        route = watch.route
        if route is None:
            route = await client.while_connected(until_connectable(wait))
        try:
            return await attempt(route)
        except ActorStopped:
            if has_begun():
                raise
            watch.forget_route()
            metrics.GATEWAY_RETRIES.labels("stopped").inc()
        except TunnelRequestAborted as error:
            if has_begun():
                raise
            aborts += 1
            if aborts >= ABORTS:
                raise RetryAttemptsExceeded(
                    attempts=aborts,
                    last_error_code=error.code,
                    last_status=error.status,
                    last_target_kind="actor",
                ) from error
            watch.forget_route()
            metrics.GATEWAY_RETRIES.labels("aborted").inc()
            pause_ms = settings.ENV.gateway_retry_pause_ms * 2 ** (aborts - 1)
            await client.while_connected(asyncio.sleep(pause_ms / 1000))


async def _prepare(actor_id: str) -> Hub:
    """Return the hub with a watch of the actor, within the time the actor may take: Redis may be away."""
    try:
        async with asyncio.timeout(settings.ENV.gateway_ready_ms / 1000):
            hub = await get_hub()
            await hub.watches.prepare(actor_id)
            return hub
    except TimeoutError:
        raise ActorReadyTimeout(actor_id=actor_id) from None
