"""What a client gets when the application fails or ends too early, the same under both servers."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from orchestrator.errors import OrchestratorError
from orchestrator.server.limits import CRASHED, HEADERS

logger = logging.getLogger(__name__)


class Stopped(OrchestratorError):
    """This process ends; another one will answer."""

    group, code, status = "guard", "service_unavailable", 503


class HeadTooLarge(OrchestratorError):
    """The request has too many headers."""

    group, code, status = "guard", "request_headers_too_large", 431


Message = dict[str, Any]
Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


def guarded(application: Application) -> Application:
    """Wrap an application so that no connection is left open or unanswered.

    One that fails: an unanswered request gets 500, an open WebSocket is closed 1011 `core.internal_error`, an
    unanswered handshake gets 500 from the server, and a response already begun is cut off. One that returns
    too early: the same, but an open WebSocket is closed 1000. One that is cancelled because the process ends:
    an unanswered request gets 503. The body of a 204 or 304, which has none, is dropped.
    """

    def guard(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http":
            return _serve_websocket(application, scope, receive, send)
        if len(scope["headers"]) > HEADERS:
            return send_error(HeadTooLarge(), send)
        return _serve_request(application, scope, receive, send)

    return guard


async def _serve_request(application: Application, scope: Scope, receive: Receive, send: Send) -> None:
    started = finished = bodyless = False

    async def watched(message: Message) -> None:
        nonlocal started, finished, bodyless
        if message["type"] == "http.response.start":
            started, bodyless = True, message["status"] in (204, 304)
            if bodyless:  # else Uvicorn would insist on as many bytes as the head announces
                message = message | {"headers": _without_length(message.get("headers", ()))}
        else:
            finished = not message.get("more_body")
            if bodyless:
                message = message | {"body": b""}
        await send(message)

    try:
        await application(scope, receive, watched)
    except asyncio.CancelledError:
        if not started:
            await send_error(Stopped(), send)
        raise
    except Exception:
        logger.exception("the application failed to answer a request")
    if not started:
        await send_error(OrchestratorError(), send)
    elif not finished:
        raise RuntimeError("the application left a response unfinished")


async def _serve_websocket(application: Application, scope: Scope, receive: Receive, send: Send) -> None:
    accepted = closed = False

    async def watched(message: Message) -> None:
        nonlocal accepted, closed
        accepted = accepted or message["type"] == "websocket.accept"
        closed = closed or message["type"] == "websocket.close"
        await send(message)

    try:
        await application(scope, receive, watched)
    except Exception:
        logger.exception("the application failed to serve a WebSocket")
        if not accepted:
            raise
        code, reason = CRASHED
        await watched({"type": "websocket.close", "code": code, "reason": reason})
    if not accepted and not closed:
        raise RuntimeError("the application neither accepted nor refused a WebSocket")
    if not closed:
        await send({"type": "websocket.close", "code": 1000})


def _without_length(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, value in headers if name.lower() != b"content-length"]


async def send_error(error: OrchestratorError, send: Send, more: Iterable[tuple[bytes, bytes]] = ()) -> None:
    """Answer a request with an error of ours (PROTOCOL §8.6), and `more` headers."""
    body = json.dumps(error.body()).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), *more]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
