import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from runners.sdk import Actor, Runner
from tests.support.scripted_engine import ScriptedEngine, scripted_engine


@pytest.fixture
async def engine() -> AsyncIterator[ScriptedEngine]:
    async with scripted_engine() as running:
        yield running


@pytest.fixture
async def host(engine: ScriptedEngine) -> AsyncIterator[Callable[..., Awaitable[Runner]]]:
    """Start a runner with an actor named `actor`; it is shut down after the test."""
    runners: list[Runner] = []

    async def host(actor: Any = Actor, **options: Any) -> Runner:
        runner = Runner(**{"endpoint": engine.endpoint, "pool": "pool", "actors": {"actor": actor}, **options})
        runners.append(runner)
        await runner.start()
        return runner

    yield host
    await asyncio.gather(*(runner.shutdown(drain_s=0) for runner in runners))
