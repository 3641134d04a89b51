"""Integration tests find an empty Valkey, and the default namespace and a whole engine if they ask for them."""

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
import redis

from tests.support.management import Management
from tests.support.scripted_runner import ScriptedRunner
from tests.support.web import close_connections, engine
from tests.support.workers import Worker, working


@pytest.fixture(scope="session")
def _redis_client(redis_url: str):
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture(scope="session", autouse=True)
def _database_threads() -> Iterator[None]:
    """The database threads of this process keep their connections; leave none open in the end."""
    yield
    for name in ("orchestrator.db", "runners.storage_desk"):
        if (module := sys.modules.get(name)) is not None:
            close_connections(module._THREADS)


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


@pytest.fixture
def env(settings) -> Callable[..., None]:
    """Change variables of the environment, as the settings know them, for this test."""

    def change(**variables: Any) -> None:
        settings.ENV = settings.ENV.model_copy(update=variables)

    return change


@pytest.fixture
def worker(transactional_db) -> Iterator[Worker]:
    """A worker and a sweeper; they run until the test is over."""
    with working() as running:
        yield running


@pytest.fixture
async def engine_url(namespace) -> AsyncIterator[str]:
    """The engine's web process, inside this one; its URL."""
    async with engine() as url:
        yield url


@pytest.fixture
async def host(engine_url) -> AsyncIterator[Callable[..., Awaitable[ScriptedRunner]]]:
    """Connect runners; options as `ScriptedRunner` has them. They leave after the test."""
    runners: list[ScriptedRunner] = []

    async def connect(**options: Any) -> ScriptedRunner:
        runner = ScriptedRunner(engine_url, **options)
        runners.append(runner)
        await runner.connect()
        return runner

    yield connect
    for runner in runners:
        await runner.end()
