"""Storing arrows, in the transaction of the change they tell of."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from orchestrator.arrows import Arrow
from orchestrator.models import TimelineEntry
from orchestrator.statements import insert


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
