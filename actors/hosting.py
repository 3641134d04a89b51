"""What happens to a runner, passed on to the actors it hosts or could host.

The runner workflow is of a lower house and knows no actors; it posts here, by the runner's id.
"""

from datetime import datetime
from typing import Any

from django.db.models import Q, QuerySet

from actors import lifecycle
from actors.codec import encode_signal
from actors.lifecycle import FailureKind
from actors.models import Actor
from actors.queue import oldest_pending
from actors.tasks import limits
from actors.turn import ACTORS
from orchestrator.celery import app
from orchestrator.workflow.outbox import Outbox
from orchestrator.workflow.pump import Batch, Workflow, advance, register
from runners.lifecycle import StopReason
from runners.models import Runner

HOSTING = "hosting"
"""The workflow's name."""

_KINDS = {
    StopReason.LOST: FailureKind.RUNNER_CONNECTION_LOST,
    StopReason.DRAINED: FailureKind.RUNNER_DRAINING_TIMEOUT,
}


@app.task(name=f"{HOSTING}.advance_shard")
def advance_shard(shard: int) -> None:
    """Drain one shard of the mailboxes. May run twice, and at the same time."""
    advance(WORKFLOW, shard)


def apply(batch: Batch, outbox: Outbox, now: datetime) -> None:
    """Pass on what happened to runners. Writes nothing: the actors decide."""
    for runner_id, signals in batch.items():
        for signal in signals:
            _pass_on(runner_id, signal, outbox)


def _pass_on(runner_id: str, signal: dict[str, Any], outbox: Outbox) -> None:
    match signal["t"]:
        case "offer":
            _offer(runner_id, outbox)
        case "draining":
            _drain(runner_id, datetime.fromisoformat(signal["until"]), outbox)
        case "lost":
            seen_at = datetime.fromisoformat(signal["seen_at"])
            kind = _KINDS[StopReason(signal["reason"])]
            _tell(_hosted(runner_id), lifecycle.RunnerLost(runner_id, seen_at, kind), outbox)


def _offer(runner_id: str, outbox: Outbox) -> None:
    """Call as many of the longest waiting actors of the pool as the runner has free slots."""
    runner = Runner.objects.filter(pk=runner_id).first()
    if runner is None:
        return
    pool = (runner.namespace_id, runner.name)
    for _, actor_id in oldest_pending(pool, runner.total_slots - runner.used_slots):
        outbox.post(ACTORS, actor_id, encode_signal(lifecycle.SlotFree()))


def _drain(runner_id: str, until: datetime, outbox: Outbox) -> None:
    """Tell the actors that are to leave and do not know; this is said again and again until they have left."""
    told = Q(status=Actor.Status.STOPPING, state_due_at__lte=until + limits().evict)
    _tell(_hosted(runner_id).exclude(told), lifecycle.RunnerDraining(runner_id, until), outbox)


def _hosted(runner_id: str) -> "QuerySet[Actor]":
    return Actor.objects.filter(runner_id=runner_id).order_by("pk")


def _tell(actors: "QuerySet[Actor]", signal: lifecycle.Signal, outbox: Outbox) -> None:
    encoded = encode_signal(signal)
    for actor_id in actors.values_list("pk", flat=True):
        outbox.post(ACTORS, actor_id, encoded)


def spoken_lives(runner_id: str) -> set[tuple[str, int]]:
    """Return (actor id, generation) of the actors a runner has that it has told anything of."""
    hosted = Actor.objects.filter(runner_id=runner_id, event_index__gte=0)
    return set(hosted.values_list("pk", "generation"))


WORKFLOW = register(Workflow(HOSTING, apply, lambda key, error: None))
