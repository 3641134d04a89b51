"""The storage requests of one runner's socket (PROTOCOL §6): worked through beside the read loop, never in it.

Those of one actor are carried out in the order they came; those of several actors at the same time, but no more
than a few for one runner. A request is decoded, carried out and its answer encoded in a database thread, as all
three may take a while. When the connection ends, what waits is dropped: the runner knows that it was not answered,
and what it says over its next connection must not be overtaken.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from django.conf import settings

from orchestrator.db import run_db_in
from runners import storage
from runners.background import spawn
from runners.connection import Events
from runners.errors import RunnerProtocolError
from runners.protocol import codec
from runners.protocol.messages import KvErrorResponse, KvResponseData, ToClientKvResponse, ToServerKvRequest
from runners.send_queue import SendQueue
from runners.storage import Caller

logger = logging.getLogger(__name__)

WAITING_BYTES = 64 * 1024 * 1024
"""What may wait of one runner; beyond it requests are refused, as only reading no more would keep them back."""
REQUEST_BYTES = 512
"""What a waiting request takes here beside its frame."""

_THREADS = ThreadPoolExecutor(settings.ENV.storage_threads, thread_name_prefix="storage")
"""Threads of their own: slow storage delays no heartbeat."""
AT_ONCE = max(1, settings.ENV.storage_threads - 1)
"""Requests of one runner carried out at a time: it leaves something to the others."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request that waits. `generation` is that of the actor's life when it came in."""

    frame: bytes
    request_id: int
    generation: int | None

    @property
    def size(self) -> int:
        return len(self.frame) + REQUEST_BYTES


class StorageDesk:
    """Takes the requests of one connection and puts the answers into its queue."""

    def __init__(self, socket_id: str, protocol_version: int, events: Events, queue: SendQueue) -> None:
        self._socket_id = socket_id
        self._version = protocol_version
        self._events = events
        self._queue = queue
        self._lines: dict[str, deque[_Asked | Callable[[], None]]] = {}  # by actor
        self._tasks: set[asyncio.Task[None]] = set()
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._waiting_bytes = 0

    def take(self, frame: bytes) -> None:
        """Take a request. Returns at once.

        Raises:
            RunnerProtocolError: not even whose it is can be read.
        """
        ids = codec.kv_ids(frame)
        if ids is None:
            raise RunnerProtocolError("storage request without ids")
        actor_id, request_id = ids
        asked = _Asked(frame, request_id, self._events.generation(actor_id))
        if self._waiting_bytes + asked.size > WAITING_BYTES:
            refusal = KvErrorResponse("too many storage requests of this runner are waiting")
            self._queue.put(codec.encode_to_client(ToClientKvResponse(request_id, refusal), self._version))
            return
        self._waiting_bytes += asked.size
        self._line_up(actor_id, asked)

    def after(self, actor_id: str, act: Callable[[], None]) -> None:
        """Act when the requests of an actor that came before are answered: at once if there are none.

        So a Stopped does not take from an actor what it had written before.
        """
        if actor_id in self._lines:
            self._line_up(actor_id, act)
        else:
            act()

    async def finish(self) -> None:
        """Return when every request that waits is carried out and its answer queued."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def close(self) -> None:
        """Drop the requests that wait, and act where it was to be done after them."""
        for task in self._tasks:
            task.cancel()
        for line in self._lines.values():
            for waiting in line:
                if not isinstance(waiting, _Asked):
                    waiting()
        self._lines.clear()

    def _line_up(self, actor_id: str, waiting: _Asked | Callable[[], None]) -> None:
        line = self._lines.get(actor_id)
        if line is not None:
            line.append(waiting)
            return
        self._lines[actor_id] = deque([waiting])
        task = spawn(self._work(actor_id))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self, actor_id: str) -> None:
        line = self._lines[actor_id]
        while line:
            waiting = line.popleft()
            if isinstance(waiting, _Asked):
                await self._answer(waiting)
            else:
                waiting()
        self._lines.pop(actor_id, None)

    async def _answer(self, asked: _Asked) -> None:
        async with self._turns:
            await self._queue.room()
            caller = Caller(self._events.runner_id, self._socket_id, asked.generation)
            answer = await run_db_in(_THREADS, _answered, caller, asked, self._version)
            self._waiting_bytes -= asked.size
            if answer is not None:
                self._queue.put_answer(answer)  # in its turn: the next one looks for room


def _answered(caller: Caller, asked: _Asked, version: int) -> bytes | None:
    """Return the frame that answers a request; None for one that means nothing, which is noted (DESIGN §11)."""
    try:
        request = codec.decode_to_server(asked.frame, version)
    except RunnerProtocolError as error:
        what = {"action": "frame_skipped", "runner_id": caller.runner_id}
        logger.warning("frame skipped: %s", error.message, extra=what)
        return None
    assert isinstance(request, ToServerKvRequest), "its first byte says so"
    return codec.encode_to_client(ToClientKvResponse(request.request_id, _served(caller, request)), version)


def _served(caller: Caller, request: ToServerKvRequest) -> KvResponseData:
    try:
        return storage.serve(caller, request.actor_id, request.data)
    except Exception:
        what = {"action": "storage_failed", "runner_id": caller.runner_id, "actor_id": request.actor_id}
        logger.exception("storage failed", extra=what)
        return KvErrorResponse("internal error")
