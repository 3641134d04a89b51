"""What the gateway's tests share."""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.child import Child
from tests.support.gateway import count_held
from tests.support.processes import free_port
from tests.support.web import eventually


@pytest.fixture
async def client(engine_url: str) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=100)
    async with httpx.AsyncClient(base_url=engine_url, trust_env=False, timeout=30, limits=limits) as running:
        yield running


@pytest.fixture
def held() -> Callable[[], dict[str, int]]:
    """Count what the gateway has not let go of."""
    return count_held


@pytest.fixture(scope="module")
def other_web(redis_url: str, django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Another web process; its URL."""
    with _web("uvicorn", tmp_path_factory.mktemp("web")) as (_, url):
        yield url


@pytest.fixture(params=["uvicorn", "daphne"])
def passing_web(
    request: pytest.FixtureRequest, redis_url: str, django_db_setup: None, tmp_path: Path
) -> Iterator[tuple[Child, str]]:
    """Yet another web process, which the test may end; its URL."""
    with _web(request.param, tmp_path) as found:
        yield found


@contextmanager
def _web(server: str, directory: Path) -> Iterator[tuple[Child, str]]:
    port = free_port()
    command = [sys.executable, "manage.py", "serve", "--port", str(port), "--server", server]
    child = Child("web", command, directory / "web.log")
    child.start()
    try:
        asyncio.run(eventually(lambda: _listens(port) or not child.alive, 30))
        assert child.alive, child.output()
        yield child, f"http://127.0.0.1:{port}"
    finally:
        child.stop()
        assert "Traceback" not in child.output(), child.output()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
