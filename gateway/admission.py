"""Who is let in: the limits of `gateway/limits.py` with this process's settings and clock.

Requests and WebSockets of the gateway share these counters; a consumer enters both contexts for its whole life.
"""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from typing import Any

from django.conf import settings

from gateway.limits import (
    ActorLimit,
    ClientLimits,
    Network,
    address_key,
    check_headers,
    client_address,
    parse_networks,
)

requests = ActorLimit("requests")
"""Requests of each actor, under way in this process."""
sockets = ActorLimit("sockets")
"""WebSockets of each actor, open in this process."""

_UNCOUNTED = nullcontext()
_trusted = lru_cache(parse_networks)


@lru_cache(maxsize=1)
def _clients(rate: int, window_ms: int, at_a_time: int) -> ClientLimits:
    return ClientLimits(rate, window_ms / 1000, at_a_time)


def check_head(scope: dict[str, Any]) -> None:
    """Refuse a request or handshake with too long a head.

    Raises:
        HeadersTooLarge: it is.
    """
    env = settings.ENV
    check_headers(scope["headers"], env.gateway_headers, env.gateway_header_bytes)


def client(scope: dict[str, Any]) -> AbstractContextManager[None]:
    """Count a request or WebSocket of its client's address, for as long as the block.

    Raises:
        RateLimited: the address has too many; the block is not entered.
    """
    env = settings.ENV
    if not env.gateway_ip_requests and not env.gateway_ip_in_flight:
        return _UNCOUNTED
    return _counted(scope)


@contextmanager
def _counted(scope: dict[str, Any]) -> Iterator[None]:
    env = settings.ENV
    clients = _clients(env.gateway_ip_requests, env.gateway_ip_window_ms, env.gateway_ip_in_flight)
    address = address_key(_address(scope, _trusted(env.trusted_proxies)))
    clients.enter(address, time.monotonic(), method=scope.get("method", "GET"), path=scope["path"])
    try:
        yield
    finally:
        clients.leave(address)


class _OneMore:
    """One more of an actor, for as long as the block. As quick as can be: every request enters one."""

    __slots__ = ("_actor_id", "_limit", "_most")

    def __init__(self, limit: ActorLimit, actor_id: str, most: int) -> None:
        self._limit, self._actor_id, self._most = limit, actor_id, most

    def __enter__(self) -> None:
        self._limit.enter(self._actor_id, self._most)

    def __exit__(self, *_: object) -> None:
        self._limit.leave(self._actor_id)


def request_of(actor_id: str) -> _OneMore:
    """Count a request of an actor, for as long as the block.

    Entering raises ActorBusy if it has too many.
    """
    return _OneMore(requests, actor_id, settings.ENV.gateway_actor_requests)


def socket_of(actor_id: str) -> _OneMore:
    """Count a WebSocket of an actor, for as long as the block.

    Entering raises ActorBusy if it has too many.
    """
    return _OneMore(sockets, actor_id, settings.ENV.gateway_actor_sockets)


def _address(scope: dict[str, Any], trusted: tuple[Network, ...]) -> str:
    peer = scope.get("client")
    forwarded = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
    return client_address(peer[0] if peer else "", forwarded, trusted)
