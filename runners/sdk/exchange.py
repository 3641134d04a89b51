"""One request of a client, from its arrival in the tunnel to its end (PROTOCOL §5); the WebSocket is beside it."""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterable, Callable

from runners.errors import RunnerProtocolError
from runners.protocol.messages import ToServerResponseAbort, ToServerResponseChunk, ToServerResponseStart
from runners.sdk.actor import Actor
from runners.sdk.channel import Channel
from runners.sdk.context import Context
from runners.sdk.errors import RequestTooLarge
from runners.sdk.home import Home
from runners.sdk.http import Answer, Request, Response, StreamingResponse, wire_headers
from runners.sdk.idle import KeepAwake
from runners.sdk.upload import Upload
from runners.sdk.window import Window

ACTOR_NOT_FOUND = "runner.actor_not_found"
CHUNK_BYTES = 256 * 1024  # larger chunks of a streamed answer are cut, so that others get their turn

log = logging.getLogger(__name__)


class Exchange(ABC):
    """What an actor's life needs to know of a request or WebSocket."""

    def __init__(self, channel: Channel, finished: Callable[["Exchange"], None]) -> None:
        self._channel = channel
        self._finished = finished
        self._over = False
        self._awake: KeepAwake | None = None
        self.task: asyncio.Task[None] | None = None

    def begin(self, actor: Actor, ctx: Context, home: Home) -> None:
        """Start serving, in `task`, unless it is over already."""
        if not self._over:
            self._stay_awake(home)
            self.task = asyncio.create_task(self._serve(actor, ctx, home))
            self.task.add_done_callback(lambda _: self.cut())

    def cut(self) -> None:
        """End it at once, without another word to the client."""
        if self._over:
            return
        self._over = True
        self._channel.silence()
        if self.task is not None:
            self.task.cancel()
        if self._awake is not None:
            self._awake.release()
        self._finished(self)

    def refuse(self) -> None:
        """End it at once, unless it is over, and tell the gateway that the actor is not here: it tries again."""
        if not self._over:
            self._say_not_here()
            self.cut()

    def actor_stops(self, *, for_good: bool) -> None:
        """Hear that the actor is about to stop; a request simply goes on to its answer."""
        return

    def _stay_awake(self, home: Home) -> KeepAwake:
        if self._awake is None:
            self._awake = home.idle.keep_awake()
        return self._awake

    @abstractmethod
    async def _serve(self, actor: Actor, ctx: Context, home: Home) -> None:
        """Serve it to its end; raise nothing."""

    @abstractmethod
    def _say_not_here(self) -> None:
        """Tell the gateway that this runner does not have the actor."""


class HttpExchange(Exchange):
    """A request, answered exactly once or cut. `upload` is its body, if that is still coming."""

    def __init__(
        self,
        channel: Channel,
        finished: Callable[[Exchange], None],
        request: Request,
        upload: Upload | None = None,
    ) -> None:
        super().__init__(channel, finished)
        self.upload = upload
        self.window = Window()
        self._request = request
        self._begun = False  # the answer

    async def _serve(self, actor: Actor, ctx: Context, home: Home) -> None:
        answer = await self._ask(actor, ctx)
        await self._channel.room()
        try:
            self._channel.send(wire_start(answer))
        except RunnerProtocolError:
            log.exception("an answer does not fit into the tunnel", extra=fields_of(ctx, "response_refused"))
            self._channel.send(wire_start(INTERNAL_ERROR))
        if isinstance(answer, StreamingResponse):
            self._begun = True
            await self._stream(answer.chunks, ctx)
        self._channel.silence()  # one answer, even if the life is cut off before this task is seen to be done

    async def _ask(self, actor: Actor, ctx: Context) -> Answer:
        try:
            answer = await actor.fetch(ctx, self._request)
            if isinstance(answer, Response | StreamingResponse):
                return answer
            log.error("fetch must return a response, not %r", type(answer), extra=fields_of(ctx, "fetch_failed"))
        except RequestTooLarge:
            log.warning("a request is too large", exc_info=True, extra=fields_of(ctx, "request_too_large"))
            return Response.text("Payload Too Large", 413)
        except Exception:
            log.exception("a request handler failed", extra=fields_of(ctx, "fetch_failed"))
        except asyncio.CancelledError:
            if self._over:
                raise
            log.exception("a request handler was cancelled from within", extra=fields_of(ctx, "fetch_failed"))
        return INTERNAL_ERROR

    async def _stream(self, chunks: AsyncIterable[bytes | str], ctx: Context) -> None:
        """Send the body, as fast as it is taken, to its end or to where it breaks off."""
        pieces = _pieces(chunks)
        try:
            async for piece in pieces:
                self._channel.send(ToServerResponseChunk(piece, finish=False))
                self.window.sent(len(piece))
                await self._channel.room()
                await self.window.room()
            self._channel.send(ToServerResponseChunk(b"", finish=True))
        except asyncio.CancelledError:
            if self._over:
                raise
            log.exception("a streamed answer was cancelled from within", extra=fields_of(ctx, "stream_failed"))
            self._channel.send(ToServerResponseAbort())
        except Exception:
            log.exception("a streamed answer broke off", extra=fields_of(ctx, "stream_failed"))
            self._channel.send(ToServerResponseAbort())
        finally:
            await pieces.aclose()

    def _say_not_here(self) -> None:
        if self._begun:
            self._channel.send(ToServerResponseAbort())
        else:
            self._channel.send(ToServerResponseStart(503, {"x-rivet-error": ACTOR_NOT_FOUND}, None, stream=False))


INTERNAL_ERROR = Response(500, {"content-type": "text/plain"}, "Internal Server Error")


def wire_start(answer: Answer) -> ToServerResponseStart:
    """Return the message an answer begins with: all of it, with its length, unless it is streamed."""
    headers = wire_headers(answer.headers)
    if isinstance(answer, StreamingResponse):
        return ToServerResponseStart(answer.status, headers, None, stream=True)
    body = answer.body_bytes
    if body:
        headers["content-length"] = str(len(body))
    return ToServerResponseStart(answer.status, headers, body or None, stream=False)


def fields_of(ctx: Context, action: str) -> dict[str, object]:
    """Return the fields of a log record about what an actor does."""
    return {"action": action, "actor_id": ctx.actor_id, "generation": ctx.generation}


async def _pieces(chunks: AsyncIterable[bytes | str]) -> AsyncGenerator[bytes, None]:
    """Give the chunks as bytes, none empty and none large; close their generator with this one."""
    try:
        async for chunk in chunks:
            data = chunk.encode() if isinstance(chunk, str) else bytes(chunk)
            for start in range(0, len(data), CHUNK_BYTES):
                yield data[start : start + CHUNK_BYTES]
    finally:
        if (close := getattr(chunks, "aclose", None)) is not None:
            await close()
