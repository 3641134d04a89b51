"""The gateway's HTTP consumer: a client's request to its actor, and the answer back (PROTOCOL §5.2, §8)."""

import asyncio
import json
import logging
from collections import deque
from collections.abc import Mapping

from django.conf import settings

from gateway.attempts import until_answered, watch_actor
from gateway.client import Client, ClientGone
from gateway.errors import (
    RequestBodyTooLarge,
    ResponseStartTimeout,
    TunnelBroken,
    TunnelOverloaded,
    TunnelRequestAborted,
)
from gateway.hub import Hub
from gateway.routing import actor_target
from gateway.tunnel import cors_headers, preflight_headers, request_start, response_head
from gateway.waiting import Wait
from gateway.watch import Exchange, Route, Watch
from orchestrator.arrows import Arrow, Participant
from orchestrator.consumers import LeanConsumer
from orchestrator.errors import OrchestratorError
from orchestrator.ids import new_id
from runners.protocol.messages import (
    ToClientRequestAbort,
    ToClientRequestStart,
    ToServerResponseAbort,
    ToServerResponseChunk,
    ToServerResponseStart,
    ToServerTunnelMessageKind,
)

logger = logging.getLogger(__name__)

BUFFER_BYTES = 64 * 1024 * 1024
"""What may wait for a client that reads slowly."""


class GatewayRequest(LeanConsumer):
    """One HTTP request for an actor."""

    async def serve(self) -> None:
        """Answer the request: with what the actor says, or with a reason."""
        self.ray_id = new_id()
        self.method: str = self.scope["method"]
        self.headers: list[tuple[bytes, bytes]] = self.scope["headers"]
        named = dict(self.headers)
        self.cors = cors_headers(named.get(b"origin"))
        self.started = False  # the client has part of an answer
        self._client = Client(self._disconnect)
        if self.method == "OPTIONS":
            return await self._respond(204, preflight_headers(named, self.ray_id), b"")
        try:
            await self._serve_actor(
                {name.decode("latin-1"): value.decode("latin-1") for name, value in named.items()}
            )
        except ClientGone:
            pass
        except OrchestratorError as error:
            await self._refuse(error)
        except Exception:
            logger.exception("request failed", extra={"action": "gateway_request", "ray_id": self.ray_id})
            await self._refuse(OrchestratorError())
        finally:
            self._client.leave()
        return None

    async def _serve_actor(self, headers: dict[str, str]) -> None:
        path = self.scope["raw_path"].decode("latin-1")
        target = actor_target(path, self.scope["query_string"].decode("latin-1"), headers)
        body = await self._body()
        start = request_start(target.actor_id, self.method, target.path, self.headers, body, self.ray_id)
        hub, watch = await watch_actor(self._client, target.actor_id)
        try:
            await until_answered(
                self._client,
                Wait(watch, f"{self.method} {start.path}"[:180]),
                lambda route: self._exchange(hub, watch, route, start),
                lambda: self.started,
            )
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

    async def _exchange(self, hub: Hub, watch: Watch, route: Route, start: ToClientRequestStart) -> None:
        """Send the request to the runner and pass the answer on.

        Raises:
            ActorStopped, TunnelRequestAborted: before anything was answered; it may be tried again.
        """
        answers = Answers()
        exchange = Exchange(route, asyncio.get_running_loop().time(), answers.fail)
        request_id = hub.attach(route.runner_id, answers)
        finished = False
        try:
            watch.join(exchange)
            if answers.failure is not None:
                raise answers.failure
            first, watch.woken_by_us = watch.woken_by_us, False
            if first:
                hub.note(_request_arrow(start.actor_id, route))
            frame = hub.frame(request_id, 0, start)
            if not hub.send_here(route.runner_id, frame):
                await self._client.while_connected(hub.send(route.runner_id, frame, lambda: not answers.failure))
            answers.awaited = True
            answer = await self._first(answers)
            if first:
                hub.note(_response_arrow(start.actor_id, route))
            await self._pass_on(answer, answers)
            finished = True
        finally:
            watch.leave(exchange)
            hub.detach(request_id)
            if not finished and answers.failure is None:
                hub.send_and_forget(route.runner_id, hub.frame(request_id, 1, ToClientRequestAbort()))

    async def _first(self, answers: "Answers") -> ToServerResponseStart:
        limit_ms = settings.ENV.gateway_response_start_ms
        try:
            kind = await self._client.while_connected(answers.next(), limit_ms / 1000)
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
        self._client.listen()
        await self.send_message({"type": "http.response.start", "status": head.status, "headers": head.headers})
        if body:
            await self.send_message({"type": "http.response.body", "body": body, "more_body": True})
        while True:
            kind = await self._client.while_connected(answers.next())
            if not isinstance(kind, ToServerResponseChunk):
                raise TunnelRequestAborted(phase="in the middle of the answer")
            part = kind.body if head.has_body else b""
            await self.send_message({"type": "http.response.body", "body": part, "more_body": not kind.finish})
            if kind.finish:
                return None

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
