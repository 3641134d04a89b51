"""Deadlines that should be met promptly: a sorted set in Redis of what is due when.

The rows' `due_at` is the truth and the sweep finds what is overdue; this only makes it quick (DESIGN §7).
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from redis.client import Pipeline

from orchestrator import clock
from orchestrator.redis import get_redis
from orchestrator.workflow.mailbox import Letter

KEY = "torpor:timers"
_TICK = {"t": "tick"}


def add(pipeline: Pipeline, timers: Iterable[tuple[str, str, datetime]]) -> None:
    """Remember (workflow, key, due); a later time for the same key replaces an earlier one."""
    due = {f"{workflow} {key}": moment.timestamp() for workflow, key, moment in timers}
    if due:
        pipeline.zadd(KEY, due)


def take_due(limit: int = 500) -> list[Letter]:
    """Take the timers that are due off the set and return a Tick for each.

    Two sweepers may both return one: a Tick that comes twice acts once.
    """
    client = get_redis()
    found: Any = client.zrange(KEY, "-inf", clock.seconds(), byscore=True, offset=0, num=limit)
    if found:
        client.zrem(KEY, *found)
    names = [name.decode().split(" ", 1) for name in found]
    return [Letter(workflow, key, _TICK) for workflow, key in names]
