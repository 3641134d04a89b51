"""Integration tests find an empty Valkey."""

import pytest
import redis


@pytest.fixture(scope="session")
def _redis_client(redis_url: str):
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture(autouse=True)
def _empty_redis(_redis_client: redis.Redis) -> None:
    _redis_client.flushall()
