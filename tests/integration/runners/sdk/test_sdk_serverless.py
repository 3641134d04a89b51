import asyncio
import socket
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx
import pytest

from runners.protocol.messages import ActorStateStopped, StopCode, ToServerStopping
from runners.sdk.serverless import SDK_VERSION, serverless_app
from runners.sdk.testing.store import MemoryStore
from tests.support.child import REPOSITORY, Child
from tests.support.scripted_engine import SOON_S, ScriptedEngine, stop

EXAMPLE = REPOSITORY / "examples" / "counter"
RUN1_INIT = "data: BwAABHJ1bjEHAA=="  # PROTOCOL §7.2


def headers(engine: ScriptedEngine, **changes: str | None) -> dict[str, str]:
    given = {
        "x-rivet-endpoint": f"{engine.endpoint}/",
        "x-rivet-total-slots": "10",
        "x-rivet-runner-name": "counter",
        "x-rivet-namespace-name": "default",
        "x-rivet-namespace-id": "default",
        "accept": "text/event-stream",
    }
    changed = given | {name.replace("_", "-"): value for name, value in changes.items()}
    return {name: value for name, value in changed.items() if value is not None}


@contextmanager
def serving(server: str, port: int, log: Path) -> Iterator[Child]:
    """Run the counter example on a real server."""
    command = {
        "uvicorn": [sys.executable, str(EXAMPLE / "app.py"), "--port", str(port)],
        "daphne": [sys.executable, "-m", "daphne", "-b", "127.0.0.1", "-p", str(port), "app:app"],
    }[server]
    child = Child(server, command, log, env={"PYTHONPATH": str(EXAMPLE)})
    child.start()
    try:
        until = time.monotonic() + 30
        while not listens(port):
            assert child.alive, child.output()
            assert time.monotonic() < until, child.output()
            time.sleep(0.02)
        yield child
    finally:
        child.kill()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module", params=["uvicorn", "daphne"])
def endpoint(request, tmp_path_factory, unused_tcp_port_factory) -> Iterator[str]:
    """The address of the counter example."""
    port = unused_tcp_port_factory()
    with serving(request.param, port, tmp_path_factory.mktemp(request.param) / "log"):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
async def client(endpoint) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=endpoint, trust_env=False, timeout=SOON_S) as client:
        yield client


@asynccontextmanager
async def started(client: httpx.AsyncClient, engine: ScriptedEngine, path: str = "/start") -> AsyncIterator:
    """A start request that is open: the lines of its stream, and the runner's connection, not yet welcomed."""
    async with client.stream("GET", path, headers=headers(engine)) as response:
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/event-stream"
        connection = await engine.greeted()
        connection.stores = defaultdict(MemoryStore)
        yield response.aiter_lines(), connection


async def until(lines: AsyncIterator[str], wanted: str) -> None:
    async with asyncio.timeout(SOON_S):
        async for line in lines:
            if line == wanted:
                return
    pytest.fail(f"the stream ended without {wanted!r}")


class TestStart:
    @pytest.mark.parametrize("path", ["/start", "/api/rivet/start"])
    async def test_a_runner_connects_back_and_the_stream_tells_its_id(self, client, engine, path):
        async with started(client, engine, path) as (lines, connection):
            await until(lines, "event: ping")  # also while the runner has no id yet
            init = await connection.welcome("run1")
            await until(lines, RUN1_INIT)
            await until(lines, "event: ping")
            assert (init.name, init.total_slots, init.version) == ("counter", 10, 1)
            assert connection.query["namespace"] == "default"
            await connection.running(name="counter")
            assert (await connection.fetch("/")).body == b'{"count": 1, "generation": 0}'

    async def test_the_stream_ends_when_the_runner_is_evicted(self, client, engine):
        async with started(client, engine) as (lines, connection):
            await connection.welcome("run1")
            await connection.close(1000, "ws.eviction#ray")
            async with asyncio.timeout(SOON_S):
                rest = [line async for line in lines]
            assert RUN1_INIT in rest

    async def test_the_runner_leaves_in_peace_when_the_engine_ends_the_request(self, client, engine):
        async with started(client, engine) as (lines, connection):
            await connection.welcome("run1")
            await connection.running(name="counter")
            await until(lines, RUN1_INIT)
        await connection.take(ToServerStopping)
        await connection.command(stop())
        assert await connection.take_state() == ActorStateStopped(StopCode.OK, None)
        assert await connection.has_closed() == (1000, "pegboard.runner_shutdown")

    async def test_each_start_request_has_its_own_runner(self, client, engine):
        async with started(client, engine) as (_, first), started(client, engine) as (_, second):
            assert first.query["runner_key"] != second.query["runner_key"]

    @pytest.mark.parametrize("header", ["x-rivet-endpoint", "x-rivet-total-slots", "x-rivet-runner-name"])
    async def test_a_request_without_what_is_needed_is_refused(self, client, engine, header):
        response = await client.get("/start", headers=headers(engine, **{header: None}))
        assert response.status_code == 400
        error = response.json()
        assert (error["group"], error["code"]) == ("serverless", "invalid_start_request")
        assert error["metadata"] == {"header": header}
        assert header in error["message"]
        assert engine.connections.empty()


async def test_metadata_and_health_tell_of_the_app(client):
    assert (await client.get("/prefix/metadata")).json() == {
        "runtime": "rivetkit",
        "version": SDK_VERSION,
        "actorNames": {"counter": {"metadata": {}}},
        "runner": {"version": 1},
    }
    health = (await client.get("/health")).json()
    assert health == {"status": "ok", "runtime": "rivetkit", "version": SDK_VERSION}


@pytest.mark.parametrize(
    ("method", "path", "status"), [("POST", "/start", 405), ("HEAD", "/start", 405), ("GET", "/x", 404)]
)
async def test_nothing_else_is_served(client, method, path, status):
    assert (await client.request(method, path)).status_code == status


async def test_a_server_that_is_told_to_end_drains_its_runners_first(engine, tmp_path, unused_tcp_port):
    with serving("uvicorn", unused_tcp_port, tmp_path / "log") as server:
        address = f"http://127.0.0.1:{unused_tcp_port}"
        async with (
            httpx.AsyncClient(base_url=address, trust_env=False) as client,
            started(client, engine) as (lines, connection),
        ):
            await connection.welcome("run1")
            await connection.running(name="counter")
            stopping = asyncio.create_task(asyncio.to_thread(server.stop))
            await connection.take(ToServerStopping)
            async with asyncio.timeout(SOON_S):
                assert [line async for line in lines]  # the stream ends in order, not torn off
            await connection.command(stop())
            assert await connection.take_state() == ActorStateStopped(StopCode.OK, None)
            assert await connection.has_closed() == (1000, "pegboard.runner_shutdown")
        await stopping
        assert "Traceback" not in server.output()


async def test_an_app_for_certain_engines_connects_to_no_other(engine):
    app = serverless_app({}, engines=["http://engine.example"])
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        response = await client.get("/start", headers=headers(engine))
    assert (response.status_code, response.json()["metadata"]) == (400, {"header": "x-rivet-endpoint"})
    assert engine.connections.empty()


async def test_an_app_for_certain_engines_serves_them(engine):
    app = serverless_app({}, engines=[engine.endpoint])
    request = {
        "type": "http",
        "method": "GET",
        "path": "/start",
        "headers": [(name.encode(), value.encode()) for name, value in headers(engine).items()],
    }
    sent: list[dict] = []
    gone = asyncio.Event()

    async def receive():
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    serving = asyncio.create_task(app(request, receive, send))
    await engine.connection()
    gone.set()
    await asyncio.wait_for(serving, SOON_S)
    assert sent[0]["status"] == 200
