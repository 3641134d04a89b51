"""Erases the storage of destroyed actors, a bounded piece a turn; what is left is found by the sweep.

From its destruction on nobody can read or write an actor's storage. Its account, marked in the transaction of
the destruction, goes last: as long as it is there, something may be left of its entries.
"""

from collections.abc import Collection
from datetime import datetime

from actors import kv, storage
from actors.models import ActorStorage
from orchestrator.celery import app
from orchestrator.workflow.outbox import Outbox
from orchestrator.workflow.pump import Batch, Workflow, advance, register

ERASURE = "erasure"
"""The workflow's name; its keys are the ids of actors."""


@app.task(name=f"{ERASURE}.advance_shard")
def advance_shard(shard: int) -> None:
    """Drain one shard of the mailboxes. May run twice, and at the same time."""
    advance(WORKFLOW, shard)


def mark(actor_ids: Collection[str], outbox: Outbox, now: datetime) -> None:
    """Have the storage of actors erased that are destroyed in this transaction, their rows being locked."""
    if not actor_ids:
        return
    doomed = ActorStorage.objects.filter(pk__in=actor_ids)
    for actor_id in doomed.values_list("pk", flat=True):
        outbox.post(ERASURE, actor_id, {"t": "erase"})
    doomed.update(erase_at=now)


def apply(batch: Batch, outbox: Outbox, now: datetime) -> None:
    """Erase a piece of what these actors have stored, and go on later with what is left."""
    room = storage.DELETE_ROWS
    for actor_id in ActorStorage.objects.filter(pk__in=batch, erase_at__isnull=False).values_list("pk", flat=True):
        erased = storage.delete_some(actor_id, storage.within(kv.EVERYTHING), room) if room else room
        if erased == room:
            outbox.post(ERASURE, actor_id, {"t": "erase"})
        else:
            ActorStorage.objects.filter(pk=actor_id).delete()
        room -= erased


def overdue(now: datetime, limit: int) -> list[str]:
    """Return actors whose storage is to be erased, those that wait longest first."""
    marked = ActorStorage.objects.filter(erase_at__lte=now).order_by("erase_at")
    return list(marked.values_list("pk", flat=True)[:limit])


WORKFLOW = register(Workflow(ERASURE, apply, lambda key, error: None))
