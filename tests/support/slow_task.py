"""The engine's Celery app with one more task, which takes as long as it is told and leaves a mark in Redis."""

import time

from orchestrator.celery import app as app
from orchestrator.redis import get_redis

BEGUN, DONE = "slow-task:begun", "slow-task:done"


@app.task(name="tests.slow")
def slow(seconds: float) -> None:
    """Be busy."""
    client = get_redis()
    client.incr(BEGUN)
    time.sleep(seconds)
    client.incr(DONE)
