"""The queue of a pool: actors that wait for a slot, oldest first; and what a pool must serve in all."""

from collections.abc import Iterable
from datetime import datetime

from django.db import connection
from django.db.models import QuerySet

from actors.models import Actor
from runners.pools import Pool

DEMANDING = [Actor.Status.PENDING, Actor.Status.STARTING, Actor.Status.RUNNING, Actor.Status.STOPPING]


def oldest_pending(
    pool: Pool, limit: int, leave_out: Iterable[str] = (), due_after: datetime | None = None
) -> list[tuple[datetime, str]]:
    """Return (since, actor id) of those that have waited longest, oldest first.

    Those that should have looked for a slot before `due_after` are left out.
    """
    if limit <= 0 or not _somebody_waits(pool):
        return []
    waiting = Actor.objects.filter(status=Actor.Status.PENDING, namespace_id=pool[0], pool_name=pool[1])
    if due_after is not None:
        waiting = waiting.filter(state_due_at__gt=due_after)
    found = waiting.exclude(pk__in=list(leave_out)).order_by("pending_at", "pk").values_list("pending_at", "pk")
    return [(since, pk) for since, pk in found[:limit] if since is not None]


def _somebody_waits(pool: Pool) -> bool:
    """Say so quickly, as it is asked at every wake and the answer is almost always no."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT 1 FROM actors_actor WHERE status = 'pending' AND namespace_id = %s AND pool_name = %s LIMIT 1",
            pool,
        )
        return cursor.fetchone() is not None


def awake() -> QuerySet[Actor]:
    """Return the actors that wait for a slot or hold one, in no order.

    Written out as in the index of those: SQLite would not use it for the same words as parameters, and read all.
    """
    statuses = ", ".join(f"'{status.value}'" for status in DEMANDING)
    return Actor.objects.extra(where=[f"actors_actor.status IN ({statuses})"]).order_by()


def count_demand(pool: Pool) -> int:
    """Return how many actors of the pool wait for a slot or hold one."""
    return awake().filter(namespace_id=pool[0], pool_name=pool[1]).count()


def overdue(now: datetime, limit: int) -> list[str]:
    """Return actors whose deadline has passed, the longest overdue first."""
    late = Actor.objects.filter(due_at__lte=now).order_by("due_at")
    return list(late.values_list("pk", flat=True)[:limit])
