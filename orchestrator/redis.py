"""The one synchronous Redis client of a process, and Celery's way to write the same address."""

import os
from urllib.parse import parse_qs, urlencode, urlsplit

import redis
from django.conf import settings
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

CONNECT_SECONDS = 3.0
ANSWER_SECONDS = 10.0
HEALTH_CHECK_SECONDS = 15
RETRIES = 3
"""Attempts after the first. A command may therefore run twice, which is no news to the engine (DESIGN §2)."""

_client: redis.Redis | None = None


def get_redis() -> redis.Redis:
    """Return this process's client for `settings.REDIS_URL`: thread-safe, bytes in and out.

    It gives up after a few tries with `redis.ConnectionError` or `redis.TimeoutError`.
    """
    global _client
    if _client is None:
        _client = redis.Redis.from_url(
            settings.REDIS_URL,
            socket_connect_timeout=CONNECT_SECONDS,
            socket_timeout=ANSWER_SECONDS,
            health_check_interval=HEALTH_CHECK_SECONDS,
            retry=Retry(ExponentialBackoff(cap=0.5, base=0.02), RETRIES),
        )
    return _client


def celery_broker_url(redis_url: str) -> str:
    """Return the address as Celery's Redis transport reads it.

    That transport has its own scheme for sockets, takes the database from the path and not from `?db=`, and
    will not open a TLS connection unless told how to check the certificate.
    """
    parts = urlsplit(redis_url)
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    database = query.pop("db", "")
    if parts.scheme == "unix":
        options = {"virtual_host": database or "0", **query}
        return f"redis+socket://{_login(parts.netloc)}{parts.path}?{urlencode(options)}"
    if parts.scheme == "rediss":
        query.setdefault("ssl_cert_reqs", "required")
    path = f"/{database}" if database else parts.path
    return f"{parts.scheme}://{parts.netloc}{path}" + (f"?{urlencode(query)}" if query else "")


def _login(netloc: str) -> str:
    """Keep `user:password@` of a socket's URL, which has no host."""
    login, at, _ = netloc.rpartition("@")
    return login + at


def _forget() -> None:
    """A forked child must not talk over its parent's sockets."""
    global _client
    _client = None


os.register_at_fork(after_in_child=_forget)
