"""Proof that a queue is served: an echo comes back through it (DESIGN §7).

A queue is Celery's, served by workers, or a channel of background consumers, which is told `echo`.

A worker's heartbeat proves nothing: after a restart of Redis some releases live on without consuming.
"""

import time
from typing import Any

from orchestrator.celery import app
from orchestrator.redis import get_redis
from orchestrator.workflow.envelope import enqueue, queue_name
from orchestrator.workflow.hints import hint

KEPT_MS = 30_000
FRESH_MS = 5_000
"""An echo of this age proves that a worker is alive."""
MOST_TASKS = 1_000
"""A queue this long is not asked for another echo."""
WAIT_SECONDS = 2.0
_POLL_SECONDS = 0.02


@app.task(name="orchestrator.echo")
def echo(queue: str, **_: object) -> None:
    """Note that a worker has taken a task from this queue now; passes over what later releases add."""
    answer(queue)


def answer(queue: str) -> None:
    """Note that this process serves the queue; for those that are no Celery workers."""
    get_redis().set(_echo_key(queue), "1", px=KEPT_MS)


def is_served(queue: str) -> bool:
    """Say whether a worker takes tasks from the queue; waits up to 2 s for its echo if none is fresh.

    Nobody waits in vain twice: an echo that was asked for 2 s ago and has not come is not waited for.
    Raises redis.RedisError if the store is away.
    """
    deadline = time.monotonic() + WAIT_SECONDS
    while not _is_fresh(queue):
        if time.monotonic() >= deadline or _was_asked_in_vain(queue):
            return False
        _ask_once(queue)
        time.sleep(_POLL_SECONDS)
    return True


def age_seconds(queue: str) -> float | None:
    """Return how old the queue's last echo is; None if there was none for half a minute."""
    left_ms: Any = get_redis().pttl(_echo_key(queue))  # by the time left, as clocks of two machines differ
    return None if left_ms < 0 else (KEPT_MS - left_ms) / 1_000


def queued_tasks() -> int:
    """Return how many tasks wait for a worker."""
    length: Any = get_redis().llen(queue_name())
    return int(length)


def _is_fresh(queue: str) -> bool:
    age = age_seconds(queue)
    return age is not None and age * 1_000 < FRESH_MS


def _was_asked_in_vain(queue: str) -> bool:
    left_ms: Any = get_redis().pttl(_asked_key(queue))
    return bool(0 < left_ms < FRESH_MS - WAIT_SECONDS * 1_000)


def ask(queue: str) -> None:
    """Ask for an echo unless one is fresh or asked for; what has not come in time is asked for again."""
    if not _is_fresh(queue):
        _ask_once(queue)


def _ask_once(queue: str) -> None:
    """Enqueue an echo unless one was enqueued a moment ago: a queue nobody serves must not fill with them."""
    if not get_redis().set(_asked_key(queue), "1", nx=True, px=FRESH_MS):
        return
    if queue == app.conf.task_default_queue:
        if queued_tasks() < MOST_TASKS:  # rather than an expiry, which is by the clocks of two machines
            enqueue("orchestrator.echo", queue)
    else:
        hint(queue, "echo")


def _asked_key(queue: str) -> str:
    return f"{_echo_key(queue)}:asked"


def _echo_key(queue: str) -> str:
    return f"torpor:echo:{queue}"
