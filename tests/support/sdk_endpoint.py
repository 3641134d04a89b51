"""The application of examples/node-runner once more, on our own SDK: same paths, same control, same journal.

    python sdk_endpoint.py --port 0
    python sdk_endpoint.py --runner --endpoint http://127.0.0.1:6420 --pool sdk --slots 100

Events of the SDK's own come out of its log records.
"""

import argparse
import asyncio
import base64
import json
import logging
import math
import os
import random
import socket
import sys
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import uvicorn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from runners.sdk import (
    Actor,
    Context,
    Registry,
    Request,
    Response,
    Runner,
    ServerlessApp,
    StreamingResponse,
    WebSocket,
    WebSocketClosed,
    serverless_app,
)
from runners.sdk.http import Answer
from tests.support import sdk_storage as storage

COUNT_KEY = b"count"
STATUS_OF_MODE = {"fail": 500, "end": 200}
MISLED = {"stray": (b"x-rivet-runner-name", b"elsewhere"), "stranger": (b"x-rivet-namespace-name", b"nowhere")}
"""Headers of a start request that its runner is told wrong."""
NONSENSE = ((b"text/event-stream", b"data: bm9uc2Vuc2U=\n\n"), (b"text/html", b"<p>Welcome</p>"))
EVENT_STREAM = NONSENSE[0][0]
JOURNALED = {
    "runner_connected": "connected",
    "runner_evicted": "evicted",
    "runner_stopped": "shutdown",
    "connection_lost": "disconnected",
}


def log(event: str, **fields: Any) -> None:
    """Write one line of the journal."""
    line = {"event": event, "at": int(time.time() * 1000), "pid": os.getpid()} | fields
    print(json.dumps(line, separators=(",", ":")), flush=True)


class Journal(logging.Handler):
    """Turns the SDK's log records into lines of the journal."""

    def emit(self, record: logging.LogRecord) -> None:
        event = JOURNALED.get(getattr(record, "action", ""))
        if event is not None:
            log(event, runnerId=getattr(record, "runner_id", None), reason=getattr(record, "reason", None))


class Counter(Actor):
    """A counter that can be told to sleep, end or be slow."""

    def __init__(self) -> None:
        self.count = 0
        self.stop_ms = 0.0
        self.released = asyncio.Event()

    async def on_start(self, ctx: Context) -> None:
        log("actor_start", actorId=ctx.actor_id, generation=ctx.generation, name=ctx.name, key=ctx.key)

    async def on_stop(self, ctx: Context) -> None:
        log("actor_stopping", actorId=ctx.actor_id, generation=ctx.generation)
        try:
            await asyncio.sleep(self.stop_ms / 1000)
        finally:  # it may be cut off
            log("actor_stop", actorId=ctx.actor_id, generation=ctx.generation)

    async def fetch(self, ctx: Context, request: Request) -> Answer:
        self.count += 1
        about = {
            "actorId": ctx.actor_id,
            "generation": ctx.generation,
            "count": self.count,
            "pid": os.getpid(),
        }
        wait = timedelta(milliseconds=float(request.params.get("ms", 1000)))
        self.stop_ms = float(request.params.get("stop_ms", self.stop_ms))
        match request.path:
            case "/":
                pass
            case "/sleep":
                log("sleep_intent", actorId=ctx.actor_id, generation=ctx.generation)
                ctx.sleep()
            case "/destroy":
                ctx.destroy()
            case "/count":
                about["durable"] = await self._count_durably(ctx)
            case "/storage":
                about["seen"] = await storage.walk(ctx.kv)
            case "/alarm":
                due = datetime.now(UTC) + wait
                ctx.set_alarm(due)
                about["alarm"] = math.ceil(due.timestamp() * 1000)
            case "/alarm/clear":
                ctx.set_alarm(None)
            case "/slow":  # with `before`, only in lives of a lower generation
                if ctx.generation < float(request.params.get("before", math.inf)):
                    log("slow_request", actorId=ctx.actor_id, generation=ctx.generation)
                    await asyncio.sleep(wait.total_seconds())
            case "/length":
                about["bytes"] = len(await request.body())
            case "/echo":
                path = request.path + (f"?{request.query}" if request.query else "")
                about |= {"method": request.method, "path": path}
                about |= {"headers": dict(request.headers), "body": await request.text()}
            case "/mirror":
                return await _mirror(request)
            case "/flow":
                return StreamingResponse(_flow(int(request.params["bytes"])))
            case "/events":
                return StreamingResponse(self._events(), headers={"content-type": "text/event-stream"})
            case "/release":
                self.released.set()
            case _:
                return Response.json(about | {"error": "no such path"}, status=404)
        return Response.json(about)

    async def websocket(self, ctx: Context, socket: WebSocket) -> None:
        log("socket", actorId=ctx.actor_id, path=socket.request.path, restoring=socket.restored)
        try:
            while True:
                await socket.send(await socket.receive())
        except WebSocketClosed as closed:
            log("socket_closed", actorId=ctx.actor_id, code=closed.code, reason=closed.reason)

    def can_hibernate(self, request: Request) -> bool:
        return request.path.startswith("/hibernate")

    async def _events(self) -> AsyncIterator[str]:
        yield "data: first\n\n"
        await self.released.wait()
        yield "data: last\n\n"

    async def _count_durably(self, ctx: Context) -> int:
        """Add one to the count kept in the actor's own storage, which outlives its sleep."""
        count = int(await ctx.kv.get(COUNT_KEY) or b"0") + 1
        await ctx.kv.put(COUNT_KEY, str(count).encode())
        return count


async def _mirror(request: Request) -> Response:
    """Give the body back, and all else in `x-told`; with the status and headers that `x-return` asks for."""
    path = request.path + (f"?{request.query}" if request.query else "")
    told = json.dumps({"method": request.method, "path": path, "headers": dict(request.headers)})
    wanted = json.loads(base64.b64decode(request.headers.get("x-return", "e30=")))
    headers: dict[str, list[str]] = {"x-told": [base64.b64encode(told.encode()).decode()]}
    for name, value in wanted.get("headers", ()):
        headers.setdefault(name.lower(), []).append(value)
    return Response(wanted.get("status", 200), headers, await request.body())


async def _flow(size: int) -> AsyncIterator[bytes]:
    """Give so many bytes, a piece at a time."""
    piece = bytes(range(256)) * 256
    while size > 0:
        yield piece[:size]
        size -= len(piece)


class Controlled:
    """The SDK's endpoint behind a gate.

    `POST /control/{mode}` says what becomes of a `GET /start`, and `cut` breaks off those under way. Modes:

        go, hold         served; kept waiting until `go`
        fail, end        500; 200 and over
        nonsense, never  200 and no runner: something else, or pings until the engine hangs up
        stray, stranger  served, by a runner that connects to another pool, or names no namespace
    """

    def __init__(self, app: ServerlessApp) -> None:
        self._app = app
        self._open = asyncio.Event()
        self._open.set()
        self._mode = "go"
        self._streams: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope.get("path", "")
        if path.startswith("/control/"):
            self._control(path.removeprefix("/control/"))
            await _answer(send, 200)
            return
        if path == "/start":
            headers = {name.decode(): value.decode() for name, value in scope["headers"]}
            log("start_request", pool=headers.get("x-rivet-runner-name"))
            if self._mode in STATUS_OF_MODE:
                await _answer(send, STATUS_OF_MODE[self._mode])
                return
            if self._mode == "nonsense":
                await _answer(send, 200, *random.choice(NONSENSE))
                return
            if not await self._may_go(receive):
                return
            if self._mode in MISLED:
                scope = scope | {"headers": [*scope["headers"], MISLED[self._mode]]}
            served = _ping(receive, send) if self._mode == "never" else self._app(scope, receive, send)
            stream = asyncio.create_task(served)
            self._streams.add(stream)
            stream.add_done_callback(self._streams.discard)
            await asyncio.wait([stream])
            return
        await self._app(scope, receive, send)

    def _control(self, mode: str) -> None:
        if mode == "cut":
            for stream in self._streams:
                stream.cancel()
            return
        self._mode = mode
        if mode == "hold":
            self._open.clear()
        else:
            self._open.set()

    async def _may_go(self, receive: Any) -> bool:
        """Wait for the gate; False if the engine has gone away meanwhile."""
        if self._open.is_set():
            return True
        await receive()  # the request's body, which is empty; what comes next is its end
        gone = asyncio.create_task(receive())
        gate = asyncio.create_task(self._open.wait())
        await asyncio.wait([gone, gate], return_when=asyncio.FIRST_COMPLETED)
        gone.cancel()
        gate.cancel()
        return self._open.is_set()


async def _answer(send: Any, status: int, content_type: bytes = EVENT_STREAM, body: bytes = b"") -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", content_type)]})
    await send({"type": "http.response.body", "body": body})


async def _ping(receive: Any, send: Any) -> None:
    """Answer as an endpoint whose runner never comes."""
    start = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", EVENT_STREAM)]}
    await send(start)
    await receive()  # the request's body, which is empty; what comes next is its end
    gone = asyncio.create_task(receive())
    try:
        while not gone.done():
            await send({"type": "http.response.body", "body": b"event: ping\ndata:\n\n", "more_body": True})
            await asyncio.wait([gone], timeout=1)
    finally:
        gone.cancel()


def main() -> None:
    """Serve, or host actors, until SIGTERM."""
    options = _options()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("runners.sdk").addHandler(Journal())
    actors = Registry({"counter": Counter})
    if options.runner:
        runner = Runner(
            actors=actors,
            endpoint=options.endpoint,
            pool=options.pool,
            total_slots=options.slots,
            version=options.version,
            key=options.key,
            token=options.token,
        )
        asyncio.run(runner.run())
    else:
        _serve(serverless_app(actors), options.port)


def _options() -> argparse.Namespace:
    options = argparse.ArgumentParser()
    options.add_argument("--port", type=int, default=3000)
    options.add_argument("--runner", action="store_true")
    options.add_argument("--endpoint", default="http://127.0.0.1:6420")
    options.add_argument("--pool", default="sdk")
    options.add_argument("--slots", type=int, default=100)
    options.add_argument("--version", type=int, default=1)
    options.add_argument("--key")
    options.add_argument("--token")
    return options.parse_args()


def _serve(serverless: ServerlessApp, port: int) -> None:
    listener = socket.create_server(("127.0.0.1", port))
    log("listening", port=listener.getsockname()[1])
    app = Controlled(serverless)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="on", timeout_graceful_shutdown=10))
    server.run(sockets=[listener])


if __name__ == "__main__":
    main()
