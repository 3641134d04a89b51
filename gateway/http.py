"""The gateway's HTTP consumer: a client's request to its actor, and the answer back (PROTOCOL §5.2, §8)."""

import asyncio
import json
import logging
import math
from collections import deque
from collections.abc import Awaitable, Mapping
from typing import TypeVar

from django.conf import settings

from gateway.errors import (
    ActorNotFound,
    ActorReadyTimeout,
    ActorStopped,
    RequestBodyTooLarge,
    ResponseStartTimeout,
    RetryAttemptsExceeded,
    TunnelBroken,
    TunnelOverloaded,
    TunnelRequestAborted,
)
from gateway.hub import Hub, get_hub, open_hub
from gateway.routing import actor_target
from gateway.tunnel import cors_headers, preflight_headers, request_start, response_head
from gateway.waiting import Wait, until_connectable
from gateway.wake_trace import tell_wake
from gateway.watch import Exchange, Route, Watch
from orchestrator import logs, metrics, tracing
from orchestrator.arrows import Arrow, Participant
from orchestrator.consumers import LeanConsumer
from orchestrator.errors import OrchestratorError
from orchestrator.ids import is_id, new_id
from runners.protocol.messages import (
    ToClientRequestAbort,
    ToClientRequestStart,
    ToServerResponseAbort,
    ToServerResponseChunk,
    ToServerResponseStart,
    ToServerTunnelMessageKind,
)

logger = logging.getLogger(__name__)

T = TypeVar("T")

PATIENCE_SECONDS = 0.1
"""An answer that takes longer makes it worth looking whether the client is still there."""
ABORTS = 7
"""Attempts that runners may give up before the client is told (PROTOCOL §8.5)."""
BUFFER_BYTES = 64 * 1024 * 1024
"""What may wait for a client that reads slowly."""


class ClientGone(Exception):
    """The client has hung up; nobody waits for an answer."""


class GatewayRequest(LeanConsumer):
    """One HTTP request for an actor."""

    async def serve(self) -> None:
        """Answer the request: with what the actor says, or with a reason."""
        self.ray_id = new_id()
        logs.ray_id.set(self.ray_id)
        metrics.GATEWAY_REQUESTS.n += 1
        self.method: str = self.scope["method"]
        self.headers: list[tuple[bytes, bytes]] = self.scope["headers"]
        named = dict(self.headers)
        self.cors = cors_headers(named.get(b"origin"))
        self.started = False  # the client has part of an answer
        self._gone: asyncio.Future[None] | None = None  # done when the client has hung up
        if self.method == "OPTIONS":
            return await self._respond(204, preflight_headers(named, self.ray_id), b"")
        self.trace = tracing.begin("gateway", named.get(tracing.HEADER), [("http.request.method", self.method)])
        self.headers = self.trace.passed_on(self.headers)
        try:
            await self._serve_actor(
                {name.decode("latin-1"): value.decode("latin-1") for name, value in named.items()}
            )
        except ClientGone:
            pass
        except OrchestratorError as error:
            metrics.GATEWAY_ERRORS.labels(f"{error.group}.{error.code}").inc()
            self.trace.fail(f"{error.group}.{error.code}")
            await self._refuse(error)
        except Exception:
            logger.exception("request failed", extra={"action": "gateway_request", "ray_id": self.ray_id})
            await self._refuse(OrchestratorError())
        finally:
            self.trace.end()
            if self._gone is not None:
                self._gone.cancel()
        return None

    async def _serve_actor(self, headers: dict[str, str]) -> None:
        path = self.scope["raw_path"].decode("latin-1")
        target = actor_target(path, self.scope["query_string"].decode("latin-1"), headers)
        body = await self._body()
        if not is_id(target.actor_id):
            raise ActorNotFound(actor_id=target.actor_id)
        start = request_start(target.actor_id, self.method, target.path, self.headers, body, self.ray_id)
        hub = open_hub()
        if hub is None:
            hub = await self._while_connected(_prepare(target.actor_id))
        while (watch := hub.known(target.actor_id)) is None:
            await self._while_connected(_prepare(target.actor_id))
        try:
            await self._until_answered(hub, watch, start)
        finally:
            hub.unwatch(watch)

    async def _body(self) -> bytes:
        """Return the whole body; a request is sent again if its actor stops, so it is kept (PROTOCOL §5.2)."""
        limit, size, parts = settings.ENV.gateway_body_bytes, 0, []
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            part = message.get("body", b"")
            size += len(part)
            if size > limit:
                raise RequestBodyTooLarge(reason=f"the body is longer than {limit} bytes")
            parts.append(part)
            if not message.get("more_body", False):
                return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _until_answered(self, hub: Hub, watch: Watch, start: ToClientRequestStart) -> None:
        """Try until the actor has answered: again when it stopped or its runner gave up before it did."""
        wait = Wait(watch, f"{self.method} {start.path}"[:180])
        aborts = 0
        if not hub.in_touch:
            watch.forget_route()
        while True:
            route = watch.route
            if route is None:
                route = await self._while_connected(until_connectable(wait))
            try:
                return await self._exchange(hub, watch, route, start)
            except ActorStopped:
                if self.started:
                    raise
                watch.forget_route()
                metrics.GATEWAY_RETRIES.labels("stopped").inc()
            except TunnelRequestAborted as error:
                if self.started:
                    raise
                aborts += 1
                if aborts >= ABORTS:
                    raise RetryAttemptsExceeded(
                        attempts=aborts,
                        last_error_code=error.code,
                        last_status=error.status,
                        last_target_kind="actor",
                    ) from error
                watch.forget_route()
                metrics.GATEWAY_RETRIES.labels("aborted").inc()
                pause_ms = settings.ENV.gateway_retry_pause_ms * 2 ** (aborts - 1)
                await self._while_connected(asyncio.sleep(pause_ms / 1000))

    async def _exchange(self, hub: Hub, watch: Watch, route: Route, start: ToClientRequestStart) -> None:
        """Send the request to the runner and pass the answer on.

        Raises:
            ActorStopped, TunnelRequestAborted: before anything was answered; it may be tried again.
        """
        answers = Answers()
        exchange = Exchange(route, asyncio.get_running_loop().time(), answers.fail)
        request_id = hub.attach(route.runner_id, answers)
        tunnel = self.trace.begin("tunnel")
        finished = False
        try:
            watch.join(exchange)
            if answers.failure is not None:
                raise answers.failure
            first, watch.woken_by_us = watch.woken_by_us, False
            if first:
                hub.note(_request_arrow(start.actor_id, route))
                tell_wake(self.trace, start.actor_id)
            frame = hub.frame(request_id, 0, start)
            if not hub.send_here(route.runner_id, frame):
                await self._while_connected(hub.send(route.runner_id, frame, lambda: not answers.failure))
            answers.awaited = True
            answer = await self._first(answers)
            if first:
                hub.note(_response_arrow(start.actor_id, route))
            await self._pass_on(answer, answers)
            finished = True
        finally:
            tunnel.end()
            watch.leave(exchange)
            hub.detach(request_id)
            if not finished and answers.failure is None:
                hub.send_and_forget(route.runner_id, hub.frame(request_id, 1, ToClientRequestAbort()))

    async def _first(self, answers: "Answers") -> ToServerResponseStart:
        limit_ms = settings.ENV.gateway_response_start_ms
        try:
            kind = await self._while_connected(answers.next(), limit_ms / 1000)
        except TimeoutError:
            raise ResponseStartTimeout(phase="response_start", timeout=limit_ms) from None
        match kind:
            case ToServerResponseStart(503, headers) if _names_unknown_actor(headers):
                raise TunnelRequestAborted(phase="runner has no such actor")
            case ToServerResponseStart():
                return kind
            case ToServerResponseAbort():
                raise TunnelRequestAborted(phase="before the answer")
            case _:
                raise TunnelRequestAborted(phase="unexpected message")

    async def _pass_on(self, answer: ToServerResponseStart, answers: "Answers") -> None:
        head = response_head(answer, self.method, self.cors, self.ray_id)
        body = (answer.body or b"") if head.has_body else b""
        if not answer.stream:
            return await self._respond(head.status, head.headers, body)
        self.started = True
        self._watch_client()
        await self.send_message({"type": "http.response.start", "status": head.status, "headers": head.headers})
        if body:
            await self.send_message({"type": "http.response.body", "body": body, "more_body": True})
        while True:
            kind = await self._while_connected(answers.next())
            if not isinstance(kind, ToServerResponseChunk):
                raise TunnelRequestAborted(phase="in the middle of the answer")
            part = kind.body if head.has_body else b""
            await self.send_message({"type": "http.response.body", "body": part, "more_body": not kind.finish})
            if kind.finish:
                return None

    async def _while_connected(self, work: "Awaitable[T]", limit_seconds: float = math.inf) -> T:
        """Await work, but not for longer than the client waits for its answer.

        Raises:
            ClientGone: the client hung up first; the work is cancelled.
            TimeoutError: the limit came first; likewise.
        """
        future = asyncio.ensure_future(work)
        try:
            if self._gone is None:
                await asyncio.wait((future,), timeout=min(PATIENCE_SECONDS, limit_seconds))
                limit_seconds -= PATIENCE_SECONDS
            if not future.done() or self._gone is not None:
                gone = self._watch_client()
                limit = None if limit_seconds == math.inf else max(limit_seconds, 0)
                await asyncio.wait((future, gone), timeout=limit, return_when=asyncio.FIRST_COMPLETED)
                if gone.done():
                    raise ClientGone
                if not future.done():
                    raise TimeoutError
            return future.result()
        finally:
            if future.done() and not future.cancelled():
                future.exception()  # nobody else looks at it if the client has gone
            future.cancel()

    def _watch_client(self) -> "asyncio.Future[None]":
        """Return what is done when the client has hung up."""
        if self._gone is None:
            self._gone = asyncio.ensure_future(self._disconnect())
        return self._gone

    async def _disconnect(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass

    async def _refuse(self, error: OrchestratorError) -> None:
        """Answer with an error body; an answer that has begun can only be cut off."""
        if self.started:
            raise error
        body = json.dumps(error.body()).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"x-rivet-error", f"{error.group}.{error.code}".encode()),
            (b"x-rivet-ray-id", self.ray_id.encode()),
            *self.cors,
        ]
        await self._respond(error.status, headers, b"" if self.method == "HEAD" else body)

    async def _respond(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        self.started = True
        await self.send_message({"type": "http.response.start", "status": status, "headers": headers})
        await self.send_message({"type": "http.response.body", "body": body})


async def _prepare(actor_id: str) -> Hub:
    """Return the hub with a watch of the actor, within the time the actor may take: Redis may be away."""
    try:
        async with asyncio.timeout(settings.ENV.gateway_ready_ms / 1000):
            hub = await get_hub()
            await hub.prepare(actor_id)
            return hub
    except TimeoutError:
        raise ActorReadyTimeout(actor_id=actor_id) from None


def _names_unknown_actor(headers: Mapping[str, str]) -> bool:
    """Say whether a runner answers that it does not have the actor (PROTOCOL §5.3)."""
    return any(
        name.lower() == "x-rivet-error" and value == "runner.actor_not_found" for name, value in headers.items()
    )


class Answers:
    """What the runner has sent for one request, in order, and what ended it early."""

    def __init__(self) -> None:
        self.failure: OrchestratorError | None = None
        self.awaited = False  # the request is on its way, or with the runner
        self._kinds: deque[ToServerTunnelMessageKind] = deque()
        self._bytes = 0
        self._waiter: asyncio.Future[ToServerTunnelMessageKind] | None = None

    def next(self) -> "asyncio.Future[ToServerTunnelMessageKind]":
        """Return the next message as a future. One reader at a time."""
        future: asyncio.Future[ToServerTunnelMessageKind] = asyncio.get_running_loop().create_future()
        if self._kinds:
            kind = self._kinds.popleft()
            self._bytes -= _size(kind)
            future.set_result(kind)
        elif self.failure is not None:
            future.set_exception(self.failure)
        else:
            self._waiter = future
        return future

    def put(self, kind: ToServerTunnelMessageKind) -> None:
        """Take a message; if the client reads too slowly for what waits already, the request ends."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(kind)
            return
        self._kinds.append(kind)
        self._bytes += _size(kind)
        if self._bytes > BUFFER_BYTES:
            self.fail(TunnelOverloaded("the client reads its answer too slowly"))

    def fail(self, error: OrchestratorError) -> None:
        """End the request with an error, once what has arrived is read."""
        self.failure = error
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)

    def link_lost(self) -> None:
        """End the request: its answer may be what was lost."""
        if self.awaited:
            self.fail(TunnelBroken())


def _size(kind: ToServerTunnelMessageKind) -> int:
    return len(kind.body or b"") if isinstance(kind, ToServerResponseStart | ToServerResponseChunk) else 0


def _request_arrow(actor_id: str, route: Route) -> Arrow:
    return Arrow(
        Participant.GATEWAY,
        Participant.RUNNER,
        "request start",
        via=(Participant.RUNNER_WS,),
        actor_id=actor_id,
        generation=route.generation,
        data={"runner_id": route.runner_id},
    )


def _response_arrow(actor_id: str, route: Route) -> Arrow:
    return Arrow(
        Participant.RUNNER,
        Participant.USER,
        "response start",
        via=(Participant.RUNNER_WS, Participant.GATEWAY),
        actor_id=actor_id,
        generation=route.generation,
        data={"runner_id": route.runner_id},
    )
