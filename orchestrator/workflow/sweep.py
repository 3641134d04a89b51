"""The sweep: finds what is overdue and signals it again, and mailboxes nobody drains (DESIGN §2, rule 4).

Run every second by `manage.py sweeper`; any number may run, as a Tick that comes twice acts once. The houses
register what there is to sweep when Django starts.

A mailbox whose worker was killed is held until that worker's lease lapses. If this is to come before the next
sweep, the mailbox is looked at again at that very time (`look_again`): all its actors wait for it.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.conf import settings

from orchestrator.celery import app
from orchestrator.metrics import LOST_TASKS, SWEEP_REPAIRS
from orchestrator.redis import get_redis
from orchestrator.workflow import echo, mailbox
from orchestrator.workflow.hints import hint
from orchestrator.workflow.mailbox import Letter, Place

logger = logging.getLogger(__name__)

OVERDUE_LIMIT = 2_000
"""Rows of one workflow signalled in one sweep; the rest is found by the next."""
BACKLOG_LIMIT = 512
"""A mailbox this long gets no more Ticks: its worker is behind, and what is overdue will still be so."""

_TICK = {"t": "tick"}
_FREE = -2
"""What Redis says of the time left to a key that there is not."""


@dataclass(frozen=True, slots=True)
class Swept:
    """What a workflow tells the sweep: its name, and which of its keys are overdue, oldest first."""

    workflow: str
    overdue: Callable[[datetime, int], list[str]]


@dataclass(frozen=True, slots=True)
class Watched:
    """A channel of background consumers, and whether rows wait for one of them."""

    channel: str
    waiting: Callable[[datetime], bool]


_swept: list[Swept] = []
_watched: list[Watched] = []
_lapsing: dict[Place, float] = {}
"""Mailboxes that waited and were held at the last sweep, and when, before the next one, the lease is to lapse; by
`time.monotonic`. A worker that lives starts its lease anew long before."""


def register(*entries: Swept | Watched) -> None:
    """Have a workflow or a channel looked after."""
    for entry in entries:
        (_swept if isinstance(entry, Swept) else _watched).append(entry)  # type: ignore[arg-type]


def sweep(now: datetime) -> int:
    """Signal overdue rows, send tasks for waiting mailboxes, hint consumers; return how many Ticks were posted."""
    backlogs = {swept.workflow: _backlogs(swept.workflow) for swept in _swept}
    letters = [
        Letter(swept.workflow, key, _TICK)
        for swept in _swept
        for key in swept.overdue(now, OVERDUE_LIMIT)
        if backlogs[swept.workflow][mailbox.shard_of(key)] < BACKLOG_LIMIT
    ]
    mailbox.post_all(letters)
    for letter in letters:
        SWEEP_REPAIRS.labels(letter.workflow).inc()
    waiting = [(name, shard) for name, lengths in backlogs.items() for shard, n in enumerate(lengths) if n]
    _lapsing.clear()
    if waiting and echo.queued_tasks() <= len(waiting):
        _send_lost_tasks(waiting)
    for watched in _watched:
        if watched.waiting(now):
            hint(watched.channel)
    return len(letters)


def look_again(now: float) -> None:
    """Send tasks for mailboxes whose lease has lapsed since the last sweep; `now` is `time.monotonic()`.

    Asks Redis nothing while there is none.
    """
    lapsed = [place for place, lapses in _lapsing.items() if lapses <= now]
    if not lapsed:
        return
    for place in lapsed:
        del _lapsing[place]
    pipeline = get_redis().pipeline(transaction=False)
    for name, shard in lapsed:
        pipeline.xlen(mailbox.stream_name(name, shard))
    _send_lost_tasks([place for place, length in zip(lapsed, pipeline.execute(), strict=True) if length])


def ask_for_echoes() -> None:
    """Ask every queue and watched channel for an echo, so that how old the last one is means something."""
    for queue in queues():
        echo.ask(queue)


def workflows() -> list[str]:
    """Return the names of all workflows that have mailboxes."""
    return [swept.workflow for swept in _swept]


def queues() -> list[str]:
    """Return the names of all that must be served: the workers' queue, and the watched channels."""
    return [app.conf.task_default_queue, *(watched.channel for watched in _watched)]


def _backlogs(workflow: str) -> list[int]:
    pipeline = get_redis().pipeline(transaction=False)
    for shard in range(settings.ENV.shards):
        pipeline.xlen(mailbox.stream_name(workflow, shard))
    return [int(length) for length in pipeline.execute()]


def _send_lost_tasks(waiting: Sequence[Place]) -> None:
    """Send a task for each mailbox that waits and that no worker holds, and note when it is let go of."""
    pipeline = get_redis().pipeline(transaction=False)
    for name, shard in waiting:
        pipeline.pttl(mailbox.lock_name(name, shard))
    for (name, shard), left_ms in zip(waiting, pipeline.execute(), strict=True):
        if left_ms == _FREE:
            mailbox.send_task(name, shard)
            LOST_TASKS.labels(name).inc()
        elif 0 <= left_ms < settings.ENV.sweep_interval_ms:
            _lapsing[name, shard] = time.monotonic() + left_ms / 1_000
