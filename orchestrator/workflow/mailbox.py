"""Signals on their way to a workflow: one Redis stream per shard, and a task that drains it.

`post` is the only way to reach an actor, a runner or a pool. What it writes is a hint: Redis may lose it, so
whoever waits asks again and the sweep signals what is overdue (DESIGN §2, rule 4). A signal is a JSON object;
its shape is its house's affair (`codec.py`). Signals to one key are handled in the order they were posted by
one sender.
"""

import json
import logging
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import redis
from django.conf import settings
from django.db import transaction
from redis.client import Pipeline

from orchestrator.redis import get_redis
from orchestrator.workflow.envelope import enqueue, queue_name, task_message

logger = logging.getLogger(__name__)

Signal = dict[str, Any]

_POST = """
redis.call('XADD', KEYS[1], '*', 'k', ARGV[1], 's', ARGV[2])
if redis.call('EXISTS', KEYS[2]) == 1 then return end
if not redis.call('SET', KEYS[3], '1', 'NX', 'PX', ARGV[3]) then return end
if ARGV[5] == '1' and redis.call('LLEN', KEYS[4]) <= 1 then return 1 end
redis.call('LPUSH', KEYS[4], ARGV[4])
"""
"""Append, and send a task if one is needed: none is while the lock is held, as its holder looks again before it
lets go, nor while one is under way. Should that task be lost, the sweep sends another, whatever the mark says.
If the sender offers to do it itself (ARGV[5]), and no more than one other waits for a worker, it is told to."""

_TASK_MARK_MS = 5_000


@dataclass(frozen=True, slots=True)
class Letter:
    """One signal to one actor, runner or pool."""

    workflow: str
    key: str
    signal: Signal


Place = tuple[str, int]
"""A mailbox: workflow and shard."""
Carrier = Callable[[list[Letter]], None]


def shard_of(key: str) -> int:
    """Return the shard of an actor, runner or pool; the same in every process."""
    return zlib.crc32(key.encode()) % settings.ENV.shards


def stream_name(workflow: str, shard: int) -> str:
    """Return the Redis key of a shard's mailbox. The braces keep a shard's keys in one slot of a cluster."""
    return f"torpor:mailbox:{{{workflow}:{shard}}}"


def lock_name(workflow: str, shard: int) -> str:
    """Return the Redis key of a shard's lock."""
    return f"torpor:lock:{{{workflow}:{shard}}}"


def mark_name(workflow: str, shard: int) -> str:
    """Return the Redis key that says a task for this shard is under way."""
    return f"torpor:due:{{{workflow}:{shard}}}"


def post(workflow: str, key: str, *signals: Signal) -> None:
    """Append signals to the mailbox of one actor, runner or pool and see to it that a task drains it.

    Blocks for a Redis round trip; raises `redis.RedisError` if the store is away.
    """
    post_all(Letter(workflow, key, signal) for signal in signals)


def post_on_commit(workflow: str, key: str, *signals: Signal) -> None:
    """Post when the running transaction commits, for a row that has a deadline.

    What was committed stands: a store that is away is logged, and the sweep signals the row when it is due.
    """

    def deliver() -> None:
        try:
            post(workflow, key, *signals)
        except (redis.RedisError, OSError):
            logger.exception("signal not posted", extra={"action": "post_failed", "key": key})

    transaction.on_commit(deliver)


def post_all(letters: Iterable[Letter]) -> None:
    """Post many signals in one round trip."""
    if posted := list(letters):
        _carrier(posted)


@contextmanager
def carried_by(carrier: Carrier) -> Iterator[None]:
    """Have whatever this process posts carried by something else than Redis, for a simulation."""
    global _carrier
    before, _carrier = _carrier, carrier
    try:
        yield
    finally:
        _carrier = before


def _carry(letters: list[Letter]) -> None:
    pipeline = get_redis().pipeline(transaction=False)
    for letter in letters:
        _append(pipeline, letter)
    pipeline.execute()


def post_from_task(letters: Sequence[Letter]) -> Place | None:
    """Post many signals in one round trip; for a task that is about to end, and may go on with one mailbox itself.

    That is the one of the first letter. It is returned if it needs a task, and no more than one other waits.
    """
    if not letters:
        return None
    pipeline = get_redis().pipeline(transaction=False)
    for letter in letters:
        _append(pipeline, letter, offer=letter is letters[0])
    left_to_us = pipeline.execute()[0]
    return (letters[0].workflow, shard_of(letters[0].key)) if left_to_us else None


def _append(pipeline: Pipeline, letter: Letter, *, offer: bool = False) -> None:
    name, shard = letter.workflow, shard_of(letter.key)
    keys = (stream_name(name, shard), lock_name(name, shard), mark_name(name, shard), queue_name())
    body = json.dumps(letter.signal, separators=(",", ":"))
    task = task_message(_task_name(name), shard)
    pipeline.eval(_POST, len(keys), *keys, letter.key, body, _TASK_MARK_MS, task, int(offer))


def send_task(workflow: str, shard: int) -> None:
    """Enqueue the task that drains a shard."""
    enqueue(_task_name(workflow), shard)


def _task_name(workflow: str) -> str:
    """Return the name of the task; it itself lives in a higher house."""
    return f"{workflow}.advance_shard"


_carrier: Carrier = _carry


class Postman:
    """Posts from an event loop without ever blocking it: a thread takes whatever has gathered, in order."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Letter, Future[None]]] = deque()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def post(self, workflow: str, key: str, signal: Signal) -> Future[None]:
        """Queue a signal; the future ends when Redis has it, or with the error that kept it."""
        future: Future[None] = Future()
        self._waiting.append((Letter(workflow, key, signal), future))
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="postman", daemon=True)
            self._thread.start()
        self._wake.set()
        return future

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            batch: list[tuple[Letter, Future[None]]] = []
            while self._waiting:
                batch.append(self._waiting.popleft())
            self._deliver(batch)

    def _deliver(self, batch: Sequence[tuple[Letter, Future[None]]]) -> None:
        # A sender that has stopped waiting has sent all the same; from here on it can no longer do so.
        listening = [future for _, future in batch if future.set_running_or_notify_cancel()]
        try:
            post_all(letter for letter, _ in batch)
        except Exception as error:  # every sender learns of it; the thread lives on
            for future in listening:
                future.set_exception(error)
        else:
            for future in listening:
                future.set_result(None)


postman = Postman()
"""This process's postman, for consumers."""
