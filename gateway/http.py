"""The gateway's HTTP consumer: a client's request to its actor, and the answer back (PROTOCOL §5.2, §8)."""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Callable, Mapping

from django.conf import settings

from gateway import admission
from gateway.access import admit, attended
from gateway.answers import Answers
from gateway.attempts import until_answered, watch_actor
from gateway.client import Client, ClientGone
from gateway.errors import (
    ActorNotFound,
    ActorStopped,
    ResponseStartTimeout,
    TunnelBroken,
    TunnelRequestAborted,
)
from gateway.features import features_of
from gateway.hub import Hub
from gateway.line import Line
from gateway.resolving import resolve
from gateway.routing import Target, request_target, told
from gateway.tunnel import (
    ResponseHead,
    Stream,
    cors_headers,
    is_bodyless,
    preflight_headers,
    request_start,
    response_head,
)
from gateway.upload import Upload
from gateway.waiting import Wait
from gateway.wake_trace import tell_wake
from gateway.watch import Exchange, Route, Watch
from orchestrator import failures, lifespan, logs, metrics, tracing
from orchestrator.arrows import Arrow, Participant
from orchestrator.consumers import LeanConsumer
from orchestrator.errors import OrchestratorError
from orchestrator.ids import new_id
from runners import features
from runners.background import spawn
from runners.protocol.messages import (
    ToClientRequestChunk,
    ToClientRequestStart,
    ToServerResponseAbort,
    ToServerResponseChunk,
    ToServerResponseStart,
)

_SAFE_METHODS = ("GET", "HEAD")
_SAFE_PROOF_SECONDS = 0.5
"""A safe request that a returned runner may have lost is tried again after this: to do it twice does no harm."""

logger = logging.getLogger(__name__)

FINISH_SECONDS = 2.0
"""When the process ends, requests have so long to be answered before runners are sent away."""
_FINISH_LOOK_SECONDS = 0.02

_under_way: set["GatewayRequest"] = set()

GRANT = ToClientRequestChunk(b"", finish=False)
"""To a runner that keeps to a window: it may send another half of it (docs/decisions/0009)."""


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
        self._grant_again: Callable[[], object] | None = None
        self.started = False  # the client has part of an answer
        self._upload = Upload(self.receive, settings.ENV.gateway_body_bytes)
        self._client = Client(self._upload.listen)
        if self.method == "OPTIONS":
            return await self._respond(204, preflight_headers(named, self.ray_id), b"")
        self.trace = tracing.begin("gateway", named.get(tracing.HEADER), [("http.request.method", self.method)])
        self.headers = self.trace.passed_on(self.headers)
        _under_way.add(self)
        try:
            with admission.client(self.scope):
                admission.check_head(self.scope)
                self._upload.announced(named.get(b"content-length"))
                await self._serve_actor(
                    {name.decode("latin-1"): value.decode("latin-1") for name, value in named.items()}
                )
        except ClientGone:
            pass
        except OrchestratorError as error:
            metrics.GATEWAY_ERRORS.labels(f"{error.group}.{error.code}").inc()
            self.trace.fail(f"{error.group}.{error.code}")
            await self._refuse(error)
        except Exception as error:
            logger.exception("request failed", extra={"action": "gateway_request", "ray_id": self.ray_id})
            await self._refuse(failures.told(error))
        finally:
            _under_way.discard(self)
            self.trace.end()
            self._client.leave()
        return None

    async def _serve_actor(self, headers: dict[str, str]) -> None:
        path = self.scope["raw_path"].decode("latin-1")
        target = request_target(path, self.scope["query_string"].decode("latin-1"), headers)
        await self._upload.begin()
        if not self._upload.complete:
            self._client.listen()
        await admit(target)
        if isinstance(target.actor, str):
            actor_id = target.actor
        else:
            actor_id = await self._client.while_connected(resolve(target))
        with admission.request_of(actor_id):
            hub, watch = await watch_actor(self._client, actor_id)
            try:
                await until_answered(
                    self._client,
                    Wait(watch, told(self.method, target.path), target.skip_ready_wait),
                    lambda route: self._exchange(hub, watch, route, target),
                    lambda: self.started,
                )
            finally:
                hub.watches.unwatch(watch)

    async def _exchange(self, hub: Hub, watch: Watch, route: Route, target: Target) -> None:
        """Send the request to the runner and pass the answer on.

        Raises:
            ActorStopped, TunnelRequestAborted: before anything was answered; it may be tried again.
        """
        task = asyncio.current_task()
        assert task is not None
        answers = Answers(overflow=task.cancel, lost=self._lost())
        clock = asyncio.get_running_loop().time

        def returned(seconds: float, *, untold: bool) -> None:
            since = answers.awaited_since
            if since is not None and clock() - since > seconds and (untold or answers.doubtful):
                self._doubt(answers, is_back=True)

        exchange = Exchange(route, clock(), answers.fail, returned)
        line = Line(hub, route.runner_id, answers, lambda is_back: self._doubt(answers, is_back))
        tunnel = self.trace.begin("tunnel")
        feeding: asyncio.Task[None] | None = None
        finished = False
        try:
            watch.join(exchange)
            upload = self._upload
            stream = not upload.complete and not is_bodyless(self.method) and await self._is_streamed_to(route)
            if answers.failure is not None:
                raise answers.failure
            first, watch.woken_by_us = watch.woken_by_us, False
            if first:
                hub.recorder.note(_request_arrow(watch.actor_id, route))
                tell_wake(self.trace, watch.actor_id, hub.recorder)
            sent = len(upload.parts)
            body = upload.parts[0] if sent == 1 else b"".join(upload.parts)
            start = request_start(
                watch.actor_id, self.method, target.path, self.headers, body, self.ray_id, stream=stream
            )
            await self._begin(line, start)
            answers.awaited_since = clock()
            if stream:
                feeding = asyncio.create_task(self._feed(line, answers, sent))
            answer = await self._first(answers, feeding)
            if first:
                hub.recorder.note(_response_arrow(watch.actor_id, route))
            await self._pass_on(answer, answers, line, route, target)
            finished = feeding is None or feeding.done()
        except asyncio.CancelledError:
            if not answers.overflowed or task.uncancel() or answers.failure is None:
                raise
            raise answers.failure from None
        finally:
            tunnel.end()
            if feeding is not None:
                feeding.cancel()
            watch.leave(exchange)
            line.close()
            answers.close()
            if not finished and not isinstance(answers.failure, ActorStopped | ActorNotFound):
                line.abort()

    async def _begin(self, line: Line, start: ToClientRequestStart) -> None:
        """Send the request's first frame, once its runner is there."""
        if line.say_here(start):
            return
        try:
            await line.say(start, self._client)
        except TunnelBroken:
            raise self._lost() from None

    @property
    def _is_safe(self) -> bool:
        return self.method in _SAFE_METHODS

    def _lost(self) -> OrchestratorError:
        """Return what an attempt ends with that may be lost, or its answer: a safe one is repeated."""
        return TunnelRequestAborted(phase="on the way to the runner") if self._is_safe else TunnelBroken()

    def _doubt(self, answers: Answers, is_back: bool) -> None:
        """Give the runner a while, to answer after all or to be declared lost (docs/decisions/0010)."""
        env = settings.ENV
        proof_seconds = env.gateway_proof_ms / 1000
        if self._grant_again is not None:
            self._grant_again()
        elif not is_back:
            answers.doubt(env.runner_lost_ms / 1000 + proof_seconds)
        else:
            answers.doubt(min(proof_seconds, _SAFE_PROOF_SECONDS) if self._is_safe else proof_seconds)

    async def _is_streamed_to(self, route: Route) -> bool:
        """Say whether the rest of the body is to follow in chunks; if not, there is no rest to wait for."""
        if (await self._client.while_connected(features_of(route.runner_id))).request_streaming:
            return True
        await self._client.while_connected(self._upload.whole())
        return False

    async def _feed(self, line: Line, answers: Answers, sent: int) -> None:
        """Send what comes of the body after the first `sent` parts."""
        upload = self._upload
        try:
            while True:
                await upload.more(sent)
                parts = upload.parts[sent:]
                sent += len(parts)
                finish = upload.complete
                if parts or finish:
                    await line.say(ToClientRequestChunk(b"".join(parts), finish))
                if finish:
                    return
        except OrchestratorError as error:
            answers.fail(error)

    async def _first(
        self, answers: Answers, feeding: "asyncio.Task[None] | None"
    ) -> tuple[int, ToServerResponseStart]:
        """Return the beginning of the answer, and its number. The time for it begins with the end of the body."""
        limit_ms = settings.ENV.gateway_response_start_ms
        coming = answers.next()
        if feeding is not None:
            await self._client.while_connected(
                asyncio.wait((coming, feeding), return_when=asyncio.FIRST_COMPLETED)
            )
        try:
            index, kind = await self._client.while_connected(coming, limit_ms / 1000)
        except TimeoutError:
            raise ResponseStartTimeout(phase="response_start", timeout=limit_ms) from None
        match kind:
            case ToServerResponseStart(503, headers) if _names_unknown_actor(headers):
                raise TunnelRequestAborted(phase="runner has no such actor")
            case ToServerResponseStart():
                return index, kind
            case ToServerResponseAbort():
                raise TunnelRequestAborted(phase="before the answer")
            case _:
                raise TunnelRequestAborted(phase="unexpected message")

    async def _pass_on(
        self,
        numbered: tuple[int, ToServerResponseStart],
        answers: Answers,
        line: Line,
        route: Route,
        target: Target,
    ) -> None:
        index, answer = numbered
        runner = features.NONE
        if answer.stream or "\n" in "".join(answer.headers.values()):
            runner = await self._client.while_connected(features_of(route.runner_id))
        head = response_head(answer, self.method, self.cors, self.ray_id, multi_headers=runner.multi_headers)
        if not answer.stream:
            return await self._respond(head.status, head.headers, (answer.body or b"") if head.has_body else b"")
        if not head.has_body:
            line.abort()  # what follows is for nobody
            return await self._respond(head.status, head.headers, b"")
        first_index = index if runner.numbered else None
        stream = Stream(window_bytes=runner.response_window, length=head.length, first_index=first_index)
        with attended(target, answers.fail):
            return await self._stream(head, answer.body or b"", stream, answers, line)

    async def _stream(self, head: ResponseHead, body: bytes, stream: Stream, answers: Answers, line: Line) -> None:
        """Pass on what comes as it comes; the client takes it before the runner may send much more."""
        self.started = True
        self._client.listen()
        if stream.is_windowed:
            self._grant_again = lambda: spawn(_say_twice(line))  # for what may be lost; grants too many do no harm
        await self.send_message({"type": "http.response.start", "status": head.status, "headers": head.headers})
        finish = False
        while True:
            stream.arrived(len(body), finish=finish)
            if body or finish:
                await self.send_message({"type": "http.response.body", "body": body, "more_body": not finish})
            if finish:
                return
            for _ in range(stream.taken(len(body))):
                await line.say(GRANT, self._client)
            body, finish = await self._chunk(stream, answers)

    async def _chunk(self, stream: Stream, answers: Answers) -> tuple[bytes, bool]:
        while True:
            index, kind = await self._client.while_connected(answers.next())
            if not stream.is_new(index):
                continue
            if not isinstance(kind, ToServerResponseChunk):
                raise TunnelRequestAborted(phase="in the middle of the answer")
            return kind.body, kind.finish

    async def _refuse(self, error: OrchestratorError) -> None:
        """Answer with an error body; an answer that has begun can only be cut off, which the server does."""
        if self.started:
            fields = {"action": "answer_cut_off", "code": error.code, "ray_id": self.ray_id}
            logger.info("an answer is cut off: %s", error.message, extra=fields)
            return
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


async def _say_twice(line: Line) -> None:
    """Grant the whole window."""
    with contextlib.suppress(OrchestratorError):
        await line.say(GRANT)
        await line.say(GRANT)


def _names_unknown_actor(headers: Mapping[str, str]) -> bool:
    """Say whether a runner answers that it does not have the actor (PROTOCOL §5.3)."""
    return any(
        name.lower() == "x-rivet-error" and value == "runner.actor_not_found" for name, value in headers.items()
    )


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


async def _finish_all() -> None:
    """Let the requests that are under way be answered, for a while, as the process ends."""
    deadline = time.monotonic() + FINISH_SECONDS
    while _under_way and time.monotonic() < deadline:  # noqa: ASYNC110 (a set that empties tells nobody)
        await asyncio.sleep(_FINISH_LOOK_SECONDS)


lifespan.on_shutdown(_finish_all, first=True)  # while runners can still answer
