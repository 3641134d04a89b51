"""Forgetting what is over, after as many days as are configured: a setting for each kind of row.

The sweepers see to it that one chain of tasks begins every minute. A task deletes a small batch of each kind, and
sends the next one if there may be more: whatever waits in the queue takes its turn in between, and no transaction
is long. The houses register what there is to forget when Django starts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import QuerySet

from orchestrator import clock
from orchestrator.celery import app
from orchestrator.redis import get_redis
from orchestrator.workflow.envelope import enqueue

BATCH = 250
"""Rows of a kind that one task looks at, and deletes at the most."""
EVERY_MS = 60_000

_TASK = "orchestrator.forget"
_KEY = "torpor:forgetting"


@dataclass(frozen=True, slots=True)
class Kept:
    """Rows of one kind that are over, since the time in the column `over_at`.

    They are kept for as many days as `setting` says, 0: for ever. Keys grow with time, so that the
    oldest rows are found by them, without an index on the time.
    """

    setting: str
    rows: Callable[[], QuerySet[Any]]
    over_at: str


_kept: list[Kept] = []


def register(*kinds: Kept) -> None:
    """Have rows forgotten."""
    _kept.extend(kinds)


def begin() -> None:
    """Begin a chain of tasks, unless one has begun, or gone on, less than a minute ago."""
    if get_redis().set(_KEY, "1", nx=True, px=EVERY_MS):
        enqueue(_TASK)


@app.task(name=_TASK)
def forget(**_: object) -> None:
    """Delete a batch of each kind, and go on later if there may be more. May run twice, and at the same time."""
    if forget_some(clock.now()):
        get_redis().set(_KEY, "1", px=EVERY_MS)
        enqueue(_TASK)


def forget_some(now: datetime) -> bool:
    """Delete a batch of each kind; say whether there may be more."""
    full = [kind for kind in _kept if _forget(kind, now) == BATCH]
    return bool(full)


def _forget(kind: Kept, now: datetime) -> int:
    days: float = getattr(settings.ENV, kind.setting)
    if not days:
        return 0
    before = now - timedelta(days=days)
    oldest = kind.rows().order_by("pk").values_list("pk", kind.over_at)[:BATCH]
    old = [pk for pk, at in oldest if at < before]
    if old:
        kind.rows().filter(pk__in=old).delete()
    return len(old)
