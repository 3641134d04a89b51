"""An ASGI app by which an engine starts runners on demand (PROTOCOL §7)."""

import asyncio
import base64
import json
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from runners.protocol.codec import encode_serverless_init
from runners.protocol.messages import ToServerlessServerInit
from runners.sdk.actor import ActorLike, Registry
from runners.sdk.asgi import Receive, Scope, Send
from runners.sdk.runner import Runner
from runners.sdk.session.reconnect import PROTOCOL_VERSION, connect_url, subprotocols

SDK_VERSION = "0.1.0"
PING_S = 1.0
PING_EVENT = b"event: ping\ndata:\n\n"

log = logging.getLogger(__name__)


class StartRefused(ValueError):
    """A start request cannot be served; the text says why, `header` which header is at fault."""

    def __init__(self, header: str, problem: str) -> None:
        self.header = header
        super().__init__(f"{header} {problem}")


@dataclass(frozen=True, slots=True)
class StartRequest:
    """What the engine says in a start request (PROTOCOL §7.2)."""

    endpoint: str
    namespace: str
    pool: str
    total_slots: int
    token: str | None

    @classmethod
    def of_headers(cls, headers: Mapping[str, str]) -> "StartRequest":
        """Read the headers, by lower-case names. Raises StartRefused."""
        slots = _required(headers, "x-rivet-total-slots")
        if not (slots.isascii() and slots.isdigit() and 1 <= int(slots) < 2**32):
            raise StartRefused("x-rivet-total-slots", "must be a whole number of at least 1")
        start = cls(
            endpoint=_required(headers, "x-rivet-endpoint"),
            namespace=_required(headers, "x-rivet-namespace-name"),
            pool=_required(headers, "x-rivet-runner-name"),
            total_slots=int(slots),
            token=headers.get("x-rivet-token") or None,
        )
        try:
            connect_url(start.endpoint, namespace=start.namespace, key="")
        except ValueError as error:
            raise StartRefused("x-rivet-endpoint", f"cannot be used: {error}") from None
        try:
            subprotocols(start.token)
        except ValueError as error:
            raise StartRefused("x-rivet-token", f"cannot be used: {error}") from None
        return start


def serverless_app(
    actors: Mapping[str, ActorLike] | Registry,
    *,
    version: int = 1,
    engines: Collection[str] | None = None,
) -> "ServerlessApp":
    """Return an ASGI app that hosts these actors for whichever engine calls it, under any path prefix.

    `version` is that of the actors' code: an engine may drain runners of a lower one. `engines`, if given, are the
    only endpoints connected to; otherwise whoever reaches the app can have it connect anywhere.
    """
    return ServerlessApp(Registry(actors), version, engines)


class ServerlessApp:
    """`GET …/start` runs a runner while the response lasts; `GET …/metadata` and `…/health` tell of the app."""

    def __init__(self, registry: Registry, version: int, engines: Collection[str] | None) -> None:
        self._registry = registry
        self._version = version
        self._engines = None if engines is None else {engine.rstrip("/") for engine in engines}
        self._runners: set[Runner] = set()
        self._farewells: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1000})
        else:
            await self._http(scope, receive, send)

    async def shutdown(self) -> None:
        """Drain all runners and wait until they are gone. Servers with a lifespan do this by themselves."""
        await asyncio.gather(*(runner.shutdown() for runner in tuple(self._runners)), *self._farewells)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.shutdown()
        await send({"type": "lifespan.shutdown.complete"})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        last = scope["path"].rstrip("/").rpartition("/")[2]
        if last not in ("start", "metadata", "health"):
            await _answer(send, 404, _error("not_found", "there is nothing at this path"))
        elif scope["method"] not in ("GET", "HEAD") or (last == "start" and scope["method"] == "HEAD"):
            await _answer(send, 405, _error("method_not_allowed", "only GET is served here"))
        elif last == "start":
            await self._start(scope, receive, send)
        elif last == "metadata":
            await _answer(send, 200, self._metadata())
        else:
            await _answer(send, 200, {"status": "ok", "runtime": "rivetkit", "version": SDK_VERSION})

    def _metadata(self) -> dict[str, object]:
        return {
            "runtime": "rivetkit",
            "version": SDK_VERSION,
            "actorNames": {name: {"metadata": {}} for name in self._registry.names},
            "runner": {"version": self._version},
        }

    async def _start(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            start = StartRequest.of_headers(
                {_text(name).lower(): _text(value) for name, value in scope["headers"]}
            )
            if self._engines is not None and start.endpoint.rstrip("/") not in self._engines:
                raise StartRefused("x-rivet-endpoint", "is not an engine this endpoint serves")
        except StartRefused as refusal:
            error = _error("invalid_start_request", str(refusal), {"header": refusal.header})
            await _answer(send, 400, error)
            return
        runner = Runner(
            actors=self._registry,
            pool=start.pool,
            endpoint=start.endpoint,
            namespace=start.namespace,
            total_slots=start.total_slots,
            version=self._version,
            token=start.token,
        )
        await runner.start()
        self._runners.add(runner)
        gone = asyncio.create_task(_disconnected(receive))
        stream = asyncio.create_task(_stream(runner, send))
        server_ends = False
        try:
            await asyncio.wait([gone, stream], return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            server_ends = True  # so the response ends in order, and the lifespan waits for the farewell
        farewell = asyncio.create_task(self._dismiss(runner))
        self._farewells.add(farewell)
        farewell.add_done_callback(self._farewells.discard)
        gone.cancel()
        stream.cancel()
        await asyncio.wait([gone, stream])
        if not stream.cancelled() and (failure := stream.exception()) is not None:
            log.warning("a start request broke: %s", failure, extra={"action": "start_request_broke"})
        if not server_ends:
            await asyncio.shield(farewell)

    async def _dismiss(self, runner: Runner) -> None:
        await runner.shutdown()
        self._runners.discard(runner)


async def _stream(runner: Runner, send: Send) -> None:
    """Send the event stream of a runner, from its start to its end."""
    headers = [
        (b"content-type", b"text/event-stream"),
        (b"cache-control", b"no-cache"),
        (b"x-accel-buffering", b"no"),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": PING_EVENT, "more_body": True})
    ready = asyncio.create_task(runner.wait_ready())
    stopped = asyncio.create_task(runner.wait_stopped())
    awaited: set[asyncio.Task[None]] = {ready, stopped}
    try:
        while stopped in awaited:
            done, awaited = await asyncio.wait(awaited, timeout=PING_S, return_when=asyncio.FIRST_COMPLETED)
            if ready in done and ready.exception() is None:
                await send({"type": "http.response.body", "body": init_event(runner), "more_body": True})
            elif not done:
                await send({"type": "http.response.body", "body": PING_EVENT, "more_body": True})
        await stopped
    finally:
        ready.cancel()
        stopped.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def init_event(runner: Runner) -> bytes:
    """Return the event that tells the engine which runner its start request has brought up."""
    assert runner.runner_id is not None
    payload = encode_serverless_init(ToServerlessServerInit(runner.runner_id, PROTOCOL_VERSION))
    return b"data: " + base64.b64encode(payload) + b"\n\n"


async def _disconnected(receive: Receive) -> None:
    """Wait until the client of a request is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _answer(send: Send, status: int, value: Mapping[str, object]) -> None:
    body = json.dumps(value).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _error(code: str, message: str, metadata: Mapping[str, str] | None = None) -> dict[str, object]:
    error: dict[str, object] = {"group": "serverless", "code": code, "message": message}
    return error | {"metadata": metadata} if metadata else error


def _required(headers: Mapping[str, str], name: str) -> str:
    value = headers.get(name, "").strip()
    if not value:
        raise StartRefused(name, "is missing")
    return value


def _text(header: bytes) -> str:
    """Return a header's text: UTF-8, which the names of pools may need, else Latin-1, which is always possible."""
    try:
        return header.decode()
    except UnicodeDecodeError:
        return header.decode("latin-1")
