"""Integration tests find an empty Valkey, and the default namespace if they ask for it."""

import pytest
import redis

from tests.support.management import Management


@pytest.fixture(scope="session")
def _redis_client(redis_url: str):
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture(autouse=True)
def _empty_redis(_redis_client: redis.Redis) -> None:
    _redis_client.flushall()


@pytest.fixture
def namespace(db):
    """The namespace every engine starts with; emptying the tables between two tests takes it away."""
    from orchestrator.models import Namespace

    return Namespace.objects.get_or_create(name="default", defaults={"display_name": "Default"})[0]


@pytest.fixture
def api(namespace):
    """The management API, in that namespace."""
    return Management()
