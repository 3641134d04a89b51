"""The serverless connector: holds the `/start` requests that bring runners (PROTOCOL §7.2).

A Channels background consumer: `manage.py runworker serverless`, any number of them. A message on its channel
is only a hint to look; what is to be done is in the rows.
"""

import asyncio
import contextlib
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import redis
from channels.routing import ChannelNameRouter
from django.conf import settings
from django.db import connection

from orchestrator import VERSION, clock
from orchestrator.consumers import LeanConsumer
from orchestrator.db import run_db, run_db_in
from orchestrator.ids import new_id
from orchestrator.tokens import ticket
from orchestrator.workflow import echo
from orchestrator.workflow.mailbox import Signal, postman
from orchestrator.workflow.outbox import Outbox
from runners import claims, polls
from runners.claims import Claimed, Held
from runners.models import RunnerConfig, ServerlessConnection
from runners.outbound import make_client
from runners.poll_claims import claim_polls
from runners.pool_tasks import CONNECTORS
from runners.sse import EventStream, EventTooLong
from runners.start_request import (
    BODY_EXCERPT,
    StartFailed,
    check_answer,
    connection_error,
    invalid_payload,
    read_init,
    start_headers,
    start_url,
)

logger = logging.getLogger(__name__)

POOLS = "pools"
State = ServerlessConnection.State
LOOK_SECONDS = 1.0
"""How often claims are renewed and rows looked at, hint or not; more often where a claim would lapse meanwhile."""
LOOKS_PER_CLAIM = 3
OPENED_SECONDS = 0.1
"""That a stream is open is told with the name of its runner, or by itself if that has not come after so long."""
EXCERPT_SECONDS = 10.0
"""How long the beginning of a refusal is waited for."""
POLLS_AT_ONCE = 8
BODY_BYTES = 4 * BODY_EXCERPT


@dataclass(slots=True, eq=False)
class _Stream:
    """A request that is held here."""

    pool_id: str
    task: asyncio.Task[None]
    opened: Signal | None = None  # what is told when the endpoint has answered
    ready: Signal | None = None  # what is told when it has named its runner
    ours: bool = True  # else another connector has it, or may have it

    def story(self) -> list[Signal]:
        """Return what there is to tell of it so far."""
        return [signal for signal in (self.opened, self.ready) if signal is not None]


class Connector(LeanConsumer):
    """Holds streams for as long as the process lives; made by the first hint."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._id = new_id()
        self._streams: dict[str, _Stream] = {}  # by request
        self._over: dict[str, tuple[str, list[Signal]]] = {}  # by request: pool, what to tell it
        self._polls: set[asyncio.Task[None]] = set()
        self._pollers = ThreadPoolExecutor(POLLS_AT_ONCE, thread_name_prefix="poll")
        self._hint = asyncio.Event()
        self._client = make_client()  # a stream may be silent; its lifespan ends it

    async def serve(self) -> None:
        """Serve the channel: note hints, and look at the rows in the background."""
        keeper = asyncio.create_task(self._keep_looking())
        try:
            while True:
                message = await self.receive()
                if message["type"] == "echo":
                    with contextlib.suppress(redis.RedisError):  # who asked will ask again
                        await run_db(echo.answer, CONNECTORS)
                self._hint.set()
        finally:
            keeper.cancel()
            streams = list(self._streams.values())
            for stream in streams:
                self._let_go(stream)
            await asyncio.gather(keeper, *(stream.task for stream in streams), return_exceptions=True)
            await self._client.aclose()
            self._pollers.shutdown(wait=False, cancel_futures=True)
            await run_db(_release, self._id)

    async def _keep_looking(self) -> None:
        while True:
            try:
                await self._look()
            except Exception:  # the database is away for a moment; the rows wait
                logger.exception("connector could not look", extra={"action": "connector_look"})
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(look_seconds(settings.ENV.serverless_claim_ms)):
                    await self._hint.wait()
            self._hint.clear()

    async def _look(self) -> None:
        """Renew claims, end what is to be ended, repeat what was not heard, and claim what nobody holds."""
        if self._streams or self._over:
            held = await run_db(claims.renew, connector_id=self._id)
            for id_, stream in list(self._streams.items()):
                if id_ not in held:
                    self._let_go(stream)
                elif held[id_].state == State.CLOSING:
                    stream.task.cancel()
            self._repeat(held)
        room = settings.ENV.serverless_streams - len(self._streams)
        if room > 0:
            for request in await run_db(claims.claim, connector_id=self._id, limit=room):
                task = asyncio.create_task(self._hold(request))
                self._streams[request.id] = _Stream(request.pool_id, task)
        for config in await run_db(claim_polls, limit=POLLS_AT_ONCE):
            task = asyncio.create_task(run_db_in(self._pollers, _poll, config))
            self._polls.add(task)
            task.add_done_callback(self._polled)

    def _polled(self, task: "asyncio.Task[None]") -> None:
        self._polls.discard(task)
        if not task.cancelled() and (error := task.exception()):
            logger.error("metadata poll failed", exc_info=error, extra={"action": "poll_failed"})

    def _let_go(self, stream: _Stream) -> None:
        """End a stream without a word: how the request goes on is another connector's to tell."""
        stream.ours = False
        stream.task.cancel()

    def _repeat(self, held: dict[str, Held]) -> None:
        """Tell again what the rows do not show yet: Redis may have lost it (DESIGN §2, rule 4)."""
        for id_, (pool_id, signals) in list(self._over.items()):
            if id_ in held:
                self._tell(pool_id, *signals)
            else:
                del self._over[id_]
        for id_, stream in self._streams.items():
            if stream.ready is not None and id_ in held and not held[id_].named:
                self._tell(stream.pool_id, *stream.story())

    def _tell(self, pool_id: str, *signals: Signal) -> None:
        for signal in signals:
            postman.post(POOLS, pool_id, signal)

    async def _hold(self, request: Claimed) -> None:
        """Send the request and hold its stream to the end; then tell the pool how it went."""
        stream = self._streams[request.id]
        ended: Signal = {"t": "ended", "request_id": request.id}
        try:
            await self._receive_stream(request, stream)
        except StartFailed as failure:
            ended |= {"error": failure.error, "status": failure.status}
        except httpx.HTTPError as error:
            ended |= {"error": connection_error(error).error}
        except Exception:
            logger.exception("start request failed", extra={"action": "start_failed"})
            ended |= {"error": "internal_error"}
        finally:
            if self._streams.get(request.id) is stream:
                del self._streams[request.id]
            if stream.ours:
                signals = [*stream.story(), ended]
                self._over[request.id] = (request.pool_id, signals)
                self._tell(request.pool_id, *signals)

    async def _receive_stream(self, request: Claimed, stream: _Stream) -> None:
        headers = start_headers(
            request.headers,
            endpoint=settings.ENV.public_url,
            slots=request.slots,
            pool=request.pool,
            namespace=request.namespace,
            token=ticket(
                namespace_id=request.namespace_id, namespace=request.namespace, lifespan=request.lifespan
            ),
            version=VERSION,
        )
        sent = [(name.encode("ascii"), value.encode()) for name, value in headers.items()]
        async with self._client.stream("GET", start_url(request.url), headers=sent) as answer:
            body = await _excerpt(answer) if answer.status_code != 200 else ""
            check_answer(answer.status_code, answer.headers.get("content-type", ""), body)
            self._is_open(request, stream, answer.status_code)
            events = EventStream()
            async for piece in answer.aiter_raw():
                if stream.ready is not None:
                    continue  # what comes after the runner's name means nothing
                try:
                    messages = [event.data for event in events.feed(piece) if event.name == "message"]
                except EventTooLong:
                    raise invalid_payload("an event without an end", "") from None
                if messages:
                    await self._is_ready(request, stream, messages[0])

    def _is_open(self, request: Claimed, stream: _Stream, status: int) -> None:
        """Tell the pool of it a moment later, as most runners are named by then."""
        opened: Signal = {"t": "opened", "request_id": request.id, "status": status}
        stream.opened = opened | {"at": clock.now().isoformat()}

        def tell() -> None:
            if stream.ready is None and not stream.task.done():
                self._tell(request.pool_id, *stream.story())

        asyncio.get_running_loop().call_later(OPENED_SECONDS, tell)

    async def _is_ready(self, request: Claimed, stream: _Stream, message: str) -> None:
        """Take the runner's name out of the first message and tell the pool."""
        runner_id = read_init(message)
        if not await run_db(claims.is_runner_of, pool_id=request.pool_id, runner_id=runner_id):
            raise invalid_payload("no runner of this pool", message)
        stream.ready = {"t": "ready", "request_id": request.id, "runner_id": runner_id}
        self._tell(request.pool_id, *stream.story())


def look_seconds(claim_ms: int) -> float:
    """Return how long a connector waits from one look to the next: it may be late and its claims still hold."""
    return min(LOOK_SECONDS, claim_ms / 1000 / LOOKS_PER_CLAIM)


def _release(connector_id: str) -> None:
    """Leave what a connector holds to the others, and have one of them look at once."""
    claims.release(connector_id=connector_id)
    outbox = Outbox()
    outbox.hint(CONNECTORS)
    outbox.perform()


def _poll(config: RunnerConfig) -> None:
    """Poll a pool's endpoint; the thread keeps no database connection for the long time until the next."""
    try:
        polls.poll(config)
    finally:
        connection.close()


async def _excerpt(answer: httpx.Response) -> str:
    """Return the beginning of a body, however long the whole of it is, and however slowly it comes."""
    read = b""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(EXCERPT_SECONDS):
            async for chunk in answer.aiter_raw():
                read += chunk
                if len(read) >= BODY_BYTES:
                    break
    return read[:BODY_BYTES].decode("utf-8", "replace")


background = ChannelNameRouter({CONNECTORS: Connector.as_asgi()})
"""The ASGI application of background consumers."""
