"""What the gateway's tests share."""

from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from tests.support.gateway import count_held


@pytest.fixture
async def client(engine_url: str) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=100)
    async with httpx.AsyncClient(base_url=engine_url, trust_env=False, timeout=30, limits=limits) as running:
        yield running


@pytest.fixture
def held() -> Callable[[], dict[str, int]]:
    """Count what the gateway has not let go of."""
    return count_held
