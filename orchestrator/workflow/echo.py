"""Proof that a worker takes tasks from a queue: an echo comes back through it (DESIGN §7).

A worker's heartbeat proves nothing: after a restart of Redis some releases live on without consuming.
"""

import time

from orchestrator.celery import app
from orchestrator.redis import get_redis

KEPT_MS = 30_000
FRESH_MS = 5_000
"""An echo of this age proves that a worker is alive."""
WAIT_SECONDS = 2.0
_POLL_SECONDS = 0.02


@app.task(name="orchestrator.echo")
def echo(queue: str) -> None:
    """Note that a worker has taken a task from this queue now."""
    get_redis().set(_echo_key(queue), time.time(), px=KEPT_MS)


def is_served(queue: str) -> bool:
    """Say whether a worker takes tasks from the queue; waits up to 2 s for its echo if none is fresh.

    Raises redis.RedisError if the store is away.
    """
    deadline = time.monotonic() + WAIT_SECONDS
    while not _is_fresh(queue):
        if time.monotonic() >= deadline:
            return False
        _ask_once(queue)
        time.sleep(_POLL_SECONDS)
    return True


def _is_fresh(queue: str) -> bool:
    """Judge by the time left to the key, as clocks of two machines differ."""
    left_ms = get_redis().pttl(_echo_key(queue))
    return isinstance(left_ms, int) and left_ms > KEPT_MS - FRESH_MS


def _ask_once(queue: str) -> None:
    """Enqueue an echo unless one was enqueued a moment ago: a queue nobody serves must not fill with them."""
    if get_redis().set(f"{_echo_key(queue)}:asked", "1", nx=True, px=FRESH_MS):
        app.send_task("orchestrator.echo", args=(queue,), queue=queue, expires=FRESH_MS / 1_000)


def _echo_key(queue: str) -> str:
    return f"torpor:echo:{queue}"
