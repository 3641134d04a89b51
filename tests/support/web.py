"""The engine's real ASGI application behind a real Uvicorn, in the event loop of the test."""

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from django.db import connections

SOON_S = 10.0


@asynccontextmanager
async def serving(application: Any) -> AsyncIterator[str]:
    """Serve an application on a free port and give its URL; afterwards the server ends as at SIGTERM."""
    from orchestrator.server.guard import guarded
    from orchestrator.server.limits import WEBSOCKET_BYTES
    from orchestrator.server.listening import bind
    from orchestrator.server.uvicorn import Server, WebSocket

    listener = bind("127.0.0.1", 0)
    config = uvicorn.Config(
        guarded(application),
        interface="asgi3",
        lifespan="off",
        ws=WebSocket,
        ws_max_size=WEBSOCKET_BYTES,
        ws_per_message_deflate=False,
        ws_ping_interval=None,
        timeout_graceful_shutdown=5,
        proxy_headers=False,
        access_log=False,
        log_config=None,
        log_level="critical",
    )
    config.load()
    server = Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup([listener])
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        await server.shutdown([listener])
        listener.close()


@asynccontextmanager
async def engine() -> AsyncIterator[str]:
    """Serve the engine, and give its URL."""
    from gateway.hub import close_hub
    from orchestrator.asgi import application
    from orchestrator.bus import close_bus

    async with serving(application) as url:
        yield url
    close_hub()
    await close_bus()


def close_connections(threads: ThreadPoolExecutor) -> None:
    """Close the connections to the database that the threads of a pool keep, each its own."""
    everyone = threading.Barrier(threads._max_workers)

    def close() -> None:
        everyone.wait(SOON_S)
        connections.close_all()

    for closing in [threads.submit(close) for _ in range(threads._max_workers)]:
        closing.result()


async def eventually(look: Callable[[], Any | Awaitable[Any]], seconds: float = SOON_S) -> Any:
    """Look again and again until what is seen is true, and return it; for what nothing tells us about."""
    async with asyncio.timeout(seconds):
        while True:
            seen = look()
            if inspect.isawaitable(seen):
                seen = await seen
            if seen:
                return seen
            await asyncio.sleep(0.01)
