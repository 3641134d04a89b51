"""Storing arrows, in the transaction of the change they tell of; and forgetting them after a while."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from django.conf import settings

from orchestrator.arrows import Arrow
from orchestrator.models import TimelineEntry
from orchestrator.statements import insert

OLDEST = 1_000
"""Arrows that are looked at, and so deleted at the most, in one transaction."""
BATCHES = 10
"""Of old arrows, deleted at one time; more in a second than a busy engine records."""


def forget_old_arrows(now: datetime) -> int:
    """Delete arrows that are kept no longer; return how many. Many that are old at once take several calls."""
    days, forgotten = settings.ENV.timeline_days, 0
    for _ in range(BATCHES if days else 0):
        some = _forget_oldest(now - timedelta(days=days))
        forgotten += some
        if not some:
            break
    return forgotten


def _forget_oldest(before: datetime) -> int:
    oldest = TimelineEntry.objects.order_by("pk")[:OLDEST]  # ids grow with time, and their index is there anyway
    old = [pk for pk, at in oldest.values_list("pk", "at") if at < before]
    return TimelineEntry.objects.filter(pk__in=old).delete()[0] if old else 0


def record(arrows: Iterable[Arrow], at: datetime) -> None:
    """Store arrows in order; each is a microsecond after the one before, so that sorting by time keeps it."""
    insert(
        [
            TimelineEntry(
                at=at + timedelta(microseconds=position),
                source=arrow.source.value,
                target=arrow.target.value,
                via=[participant.value for participant in arrow.via],
                label=arrow.label[:200],
                actor_id=arrow.actor_id,
                generation=arrow.generation,
                runner_id=arrow.runner_id,
                connection_id=arrow.connection_id,
                pool_id=arrow.pool_id,
                data=arrow.data,
            )
            for position, arrow in enumerate(arrows)
        ]
    )
