"""ASGI apps as actors: what Django, FastAPI or Starlette serve, each actor serves."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from typing import Any, ClassVar, TypeAlias
from urllib.parse import unquote

from runners.sdk.actor import Actor
from runners.sdk.context import Context
from runners.sdk.errors import WebSocketClosed
from runners.sdk.http import Answer, Request, Response, StreamingResponse
from runners.sdk.websocket import WebSocket

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
AsgiApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

CONTEXT = "torpor.ctx"
"""Where an app finds the actor's Context in its scope."""


class AsgiActor(Actor):
    """An actor whose requests and WebSockets an ASGI app serves; `scope["torpor.ctx"]` is the Context.

    Override `app_for` to make an app for each life, or use `asgi_actor` for one app for all. The app's lifespan is
    not run: `on_start` and `on_stop` are that of the actor. A WebSocket is accepted before the app sees it.
    """

    _app: AsgiApp | None = None

    def app_for(self, ctx: Context) -> AsgiApp:
        """Return the app; called once in each life."""
        raise NotImplementedError

    async def fetch(self, ctx: Context, request: Request) -> Answer:
        """Have the app answer."""
        exchange = _HttpExchange(request)
        scope = _scope(ctx, request, "http") | {"method": request.method}
        return await exchange.run(self._app_of(ctx), scope)

    async def websocket(self, ctx: Context, socket: WebSocket) -> None:
        """Have the app serve the socket."""
        connected = False

        async def receive() -> Message:
            nonlocal connected
            if not connected:
                connected = True
                return {"type": "websocket.connect"}
            try:
                message = await socket.receive()
            except WebSocketClosed as closed:
                return {"type": "websocket.disconnect", "code": closed.code, "reason": closed.reason}
            text, data = (message, None) if isinstance(message, str) else (None, message)
            return {"type": "websocket.receive", "text": text, "bytes": data}

        async def send(message: Message) -> None:
            if message["type"] == "websocket.send":
                text = message.get("text")
                await socket.send(message["bytes"] if text is None else text)
            elif message["type"] == "websocket.close":
                await socket.close(message.get("code", 1000), message.get("reason") or "")

        scope = _scope(ctx, socket.request, "websocket") | {"subprotocols": []}
        await self._app_of(ctx)(scope, receive, send)

    def _app_of(self, ctx: Context) -> AsgiApp:
        if self._app is None:
            self._app = self.app_for(ctx)
        return self._app


def asgi_actor(app: AsgiApp) -> type[AsgiActor]:
    """Return the actor class that this ASGI app serves, in all its lives."""

    class Mounted(AsgiActor):
        mounted: ClassVar[Sequence[AsgiApp]] = (app,)  # in a tuple, or it would be taken for a method

        def app_for(self, ctx: Context) -> AsgiApp:
            """Return the app."""
            return self.mounted[0]

    return Mounted


class _HttpExchange:
    """One request with the app's answer: whole if it comes in one piece, else streamed as the app makes it."""

    def __init__(self, request: Request) -> None:
        self._body: AsyncIterator[bytes] = request.stream()
        self._complete = False
        self._gone = asyncio.Event()
        self._said: asyncio.Queue[Message] = asyncio.Queue(maxsize=1)  # the app waits until it is sent

    async def run(self, app: AsgiApp, scope: Scope) -> Answer:
        """Return the app's answer. Raises what the app raises before it answers."""
        task = asyncio.ensure_future(app(scope, self._receive, self._said.put))
        try:
            start = await self._next(task)
            status, headers = start["status"], _headers(start.get("headers", ()))
            first = await self._next(task)
            if not first.get("more_body"):
                await task
                return Response(status, headers, bytes(first.get("body", b"")))
        except BaseException:
            task.cancel()
            raise
        return StreamingResponse(self._chunks(first, task), status, headers)

    async def _receive(self) -> Message:
        if not self._complete:
            chunk = await anext(self._body, None)
            self._complete = chunk is None
            return {"type": "http.request", "body": chunk or b"", "more_body": chunk is not None}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _chunks(self, first: Message, task: "asyncio.Future[None]") -> AsyncGenerator[bytes, None]:
        try:
            message = first
            while True:
                yield bytes(message.get("body", b""))
                if not message.get("more_body"):
                    break
                message = await self._next(task)
            await task
        finally:
            self._gone.set()
            task.cancel()

    async def _next(self, task: "asyncio.Future[None]") -> Message:
        """Return what the app says next. Raises what it raises instead."""
        if self._said.empty():
            said = asyncio.ensure_future(self._said.get())
            try:
                either: list[asyncio.Future[Any]] = [said, task]
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                if said.done():
                    return said.result()
            finally:
                said.cancel()
        if not self._said.empty():  # and the app may have ended since
            return self._said.get_nowait()
        task.result()
        raise RuntimeError("the app has ended without a complete answer")


def _scope(ctx: Context, request: Request, kind: str) -> dict[str, Any]:
    return {
        "type": kind,
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "http" if kind == "http" else "ws",
        "path": unquote(request.path),
        "raw_path": request.path.encode("latin-1"),
        "root_path": "",
        "query_string": request.query.encode("latin-1"),
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in request.headers.items()],
        "client": None,
        "server": None,
        "extensions": {},
        "state": {},
        CONTEXT: ctx,
    }


def _headers(pairs: Sequence[tuple[bytes, bytes]]) -> dict[str, list[str]]:
    headers: dict[str, list[str]] = {}
    for name, value in pairs:
        headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    return headers
