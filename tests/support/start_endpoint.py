"""A serverless endpoint that answers `GET /start` as a test tells it, in the event loop of the test."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from tests.support.web import SOON_S, serving

SSE = {"content-type": "text/event-stream"}


class StartRequest:
    """One request that has come in, unanswered until the test says how."""

    def __init__(self, scope: Mapping[str, Any], send: Any) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.over = asyncio.Event()
        self.closed = asyncio.Event()  # the engine has hung up
        self._send = send

    async def answer(self, status: int = 200, headers: Mapping[str, str] = SSE, body: bytes | None = None) -> None:
        """Begin an answer, and end it too if it has a body."""
        lines = [(name.encode(), value.encode()) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": lines})
        await self._send({"type": "http.response.body", "body": body or b"", "more_body": body is None})
        if body is not None:
            self.over.set()

    async def event(self, data: str, name: str = "message") -> None:
        await self.say(f"event: {name}\ndata: {data}\n\n".encode())

    async def say(self, piece: bytes) -> None:
        """Send a piece of the stream as it is."""
        await self._send({"type": "http.response.body", "body": piece, "more_body": True})

    async def end(self) -> None:
        await self._send({"type": "http.response.body", "body": b""})
        self.over.set()

    def hang_up(self) -> None:
        """Break off in the middle of the answer."""
        self.over.set()

    async def has_closed(self) -> None:
        async with asyncio.timeout(SOON_S):
            await self.closed.wait()


class StartEndpoint:
    """Where the requests arrive. `requests` is all there were."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[StartRequest] = []
        self._new: asyncio.Queue[StartRequest] = asyncio.Queue()

    async def request(self) -> StartRequest:
        """Return the next request."""
        async with asyncio.timeout(SOON_S):
            return await self._new.get()

    async def __call__(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        if scope["path"] != "/api/start":
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body", "body": b"no such path"})
            return
        request = StartRequest(scope, send)
        self.requests.append(request)
        self._new.put_nowait(request)
        waiter = asyncio.create_task(self._until_closed(receive, request))
        try:
            await request.over.wait()
        finally:
            waiter.cancel()

    async def _until_closed(self, receive: Any, request: StartRequest) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        request.closed.set()
        request.over.set()


@asynccontextmanager
async def start_endpoint() -> AsyncIterator[StartEndpoint]:
    """Run an endpoint."""
    endpoint = StartEndpoint()
    async with serving(endpoint) as url:
        endpoint.url = f"{url}/api/"
        yield endpoint
        for request in endpoint.requests:
            request.over.set()


@asynccontextmanager
async def connector() -> AsyncIterator[asyncio.Task[None]]:
    """Run a connector as Channels' worker does: a consumer that is given what comes for its channel."""
    from channels.layers import get_channel_layer

    from runners.pool_tasks import CONNECTORS
    from runners.serverless import background

    hints: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    hints.put_nowait({"type": "look"})
    layer = get_channel_layer()

    async def listen() -> None:
        while True:
            hints.put_nowait(await layer.receive(CONNECTORS))

    async def send(message: dict[str, Any]) -> None:
        raise AssertionError("a connector answers nobody")

    listener = asyncio.create_task(listen())
    consumer = asyncio.create_task(background({"type": "channel", "channel": CONNECTORS}, hints.get, send))
    try:
        yield consumer
    finally:
        for task in (listener, consumer):
            task.cancel()
        await asyncio.gather(listener, consumer, return_exceptions=True)
