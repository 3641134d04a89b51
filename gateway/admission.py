"""Who is let in: the limits of `gateway/limits.py` with this process's settings and clock.

Requests and WebSockets of the gateway share these counters; a consumer enters both contexts for its whole life.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def client(scope: dict[str, Any]) -> Iterator[None]:
    """Count a request or WebSocket of its client's address, for as long as the block.

    Raises:
        RateLimited: the address has too many; the block is not entered.
    """
    env = settings.ENV
    if not env.gateway_ip_requests and not env.gateway_ip_in_flight:
        yield
        return
    clients = _clients(env.gateway_ip_requests, env.gateway_ip_window_ms, env.gateway_ip_in_flight)
    address = address_key(_address(scope, _trusted(env.trusted_proxies)))
    clients.enter(address, time.monotonic(), method=scope.get("method", "GET"), path=scope["path"])
    try:
        yield
    finally:
        clients.leave(address)


@contextmanager
def request_of(actor_id: str) -> Iterator[None]:
    """Count a request of an actor, for as long as the block.

    Raises:
        ActorBusy: it has too many; the block is not entered.
    """
    requests.enter(actor_id, settings.ENV.gateway_actor_requests)
    try:
        yield
    finally:
        requests.leave(actor_id)


@contextmanager
def socket_of(actor_id: str) -> Iterator[None]:
    """Count a WebSocket of an actor, for as long as the block.

    Raises:
        ActorBusy: it has too many; the block is not entered.
    """
    sockets.enter(actor_id, settings.ENV.gateway_actor_sockets)
    try:
        yield
    finally:
        sockets.leave(actor_id)


def _address(scope: dict[str, Any], trusted: tuple[Network, ...]) -> str:
    peer = scope.get("client")
    forwarded = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
    return client_address(peer[0] if peer else "", forwarded, trusted)
