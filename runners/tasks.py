"""The runner workflow as Celery sees it: a task per shard, a row per runner (see `lifecycle.py`)."""

from datetime import datetime, timedelta
from functools import partial
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from orchestrator.arrows import Arrow, Participant
from orchestrator.celery import app
from orchestrator.metrics import EVICTIONS, RUNNER_ENDS
from orchestrator.rows import save_guarded
from orchestrator.statements import lock
from orchestrator.timeline import record
from orchestrator.workflow.outbox import Outbox
from orchestrator.workflow.pump import Batch, Workflow, advance, register
from runners import lifecycle
from runners.channel import Evict, encode, runner_channel
from runners.codec import decode_runner_signal
from runners.models import Command, Runner, ServerlessConnection
from runners.pool_tasks import POOLS
from runners.pools import older_runners

RUNNERS = "runners"
"""The workflow's name."""
HOSTING = "hosting"
"""The workflow of a higher house that passes on to a runner's actors what happens to it."""

_POISONED = timedelta(minutes=1)
_COLUMNS = ["state", "holds_key", "drain_at", "evict_at", "stop_at", "stop_reason", "due_at"]


@app.task(name=f"{RUNNERS}.advance_shard")
def advance_shard(shard: int) -> None:
    """Drain one shard of the runners' mailboxes. May run twice, and at the same time."""
    advance(WORKFLOW, shard)


def apply(batch: Batch, outbox: Outbox, now: datetime) -> None:
    """Carry out a batch of signals to runners, in the transaction of the caller."""
    arrows: list[Arrow] = []
    rows = lock(Runner, batch)
    changed = []
    for row in rows:
        before = state = _state(row)
        for encoded in batch[row.pk]:
            signal = decode_runner_signal(encoded)
            earlier = state
            state, effects = lifecycle.decide(earlier, signal, _facts(row), now, _limits())
            arrows += _tell(row, encoded, earlier, state, effects)
            for effect in effects:
                _perform(row, effect, outbox)
        if state != before:
            transaction.on_commit(partial(_count, before, state))
            _store(row, state)
            changed.append(row)
    save_guarded(changed, _COLUMNS)
    ended = [row.pk for row in changed if row.state == Runner.State.STOPPED]
    if ended:
        Command.objects.filter(runner_id__in=ended).delete()
    record(arrows, now)


def _count(before: lifecycle.State, after: lifecycle.State) -> None:
    if isinstance(after, lifecycle.Evicting) and not isinstance(before, lifecycle.Evicting):
        EVICTIONS.inc()
    if isinstance(after, lifecycle.Stopped) and not isinstance(before, lifecycle.Stopped):
        RUNNER_ENDS.labels(after.reason.value).inc()


def overdue(now: datetime, limit: int) -> list[str]:
    """Return runners whose deadline has passed, the longest overdue first.

    A live runner is one only when it is silent: its deadline is not written anew with every ping.
    """
    silent_since = now - timedelta(milliseconds=settings.ENV.runner_lost_ms)
    heard_of = Q(state=Runner.State.LIVE, last_ping_at__gt=silent_since)
    late = Runner.objects.filter(due_at__lte=now).exclude(heard_of)
    return list(late.order_by("due_at").values_list("pk", flat=True)[:limit])


def _limits() -> lifecycle.Limits:
    return lifecycle.Limits(
        lost=timedelta(milliseconds=settings.ENV.runner_lost_ms),
        handshake=timedelta(milliseconds=settings.ENV.evict_handshake_ms),
    )


def _facts(row: Runner) -> lifecycle.Facts:
    return lifecycle.Facts(seen_at=row.last_ping_at, used_slots=row.used_slots, socket_id=row.socket_id)


def _state(row: Runner) -> lifecycle.State:
    match row.state:
        case Runner.State.LIVE:
            return lifecycle.Live(_set(row.due_at))
        case Runner.State.DRAINING:
            return lifecycle.Draining(_set(row.drain_at), _set(row.evict_at), _set(row.due_at))
        case Runner.State.EVICTING:
            reason = lifecycle.StopReason(row.stop_reason)
            return lifecycle.Evicting(_set(row.drain_at), _set(row.due_at), reason)
        case _:
            return lifecycle.Stopped(lifecycle.StopReason(row.stop_reason), _set(row.stop_at), row.due_at)


def _store(row: Runner, state: lifecycle.State) -> None:
    row.state = Runner.State[type(state).__name__.upper()]
    row.holds_key = isinstance(state, lifecycle.Live)
    row.due_at = lifecycle.due_at(state)
    match state:
        case lifecycle.Draining(since, until, _):
            row.drain_at, row.evict_at = since, until
        case lifecycle.Evicting(since, _, reason):
            row.drain_at, row.stop_reason = since, reason.value
        case lifecycle.Stopped(reason, at):
            row.stop_reason, row.stop_at = reason.value, at
        case lifecycle.Live():
            pass


def _perform(row: Runner, effect: lifecycle.Effect, outbox: Outbox) -> None:
    match effect:
        case lifecycle.OfferSlots():
            outbox.post(HOSTING, row.pk, {"t": "offer"})
        case lifecycle.DrainOlder():
            for runner_id, grace in older_runners(row.namespace_id, row.name, row.runner_version):
                grace_ms = int(grace.total_seconds() * 1000)
                outbox.post(RUNNERS, runner_id, {"t": "drain", "grace_ms": grace_ms, "by": "version"})
        case lifecycle.TellDraining(until):
            outbox.post(HOSTING, row.pk, {"t": "draining", "until": until.isoformat()})
        case lifecycle.TellLost(seen_at, reason):
            lost = {"t": "lost", "seen_at": seen_at.isoformat(), "reason": reason.value}
            outbox.post(HOSTING, row.pk, lost)
        case lifecycle.CloseSocket(keep):
            outbox.publish(runner_channel(row.pk), encode(Evict(keep)))
        case lifecycle.TellPool():
            pools = ServerlessConnection.objects.filter(runner_id=row.pk).exclude(
                state=ServerlessConnection.State.ENDED
            )
            for pool_id in pools.values_list("pool_id", flat=True):
                outbox.post(POOLS, pool_id, {"t": "runner_gone", "runner_id": row.pk})


def _tell(
    row: Runner,
    encoded: dict[str, Any],
    before: lifecycle.State,
    after: lifecycle.State,
    effects: list[lifecycle.Effect],
) -> list[Arrow]:
    """Return the arrows of one signal (DESIGN §1)."""
    workflow, socket = Participant.RUNNER_WORKFLOW, Participant.RUNNER_WS
    arrows: list[Arrow] = []
    match encoded["t"]:
        case "connected" if effects:
            arrows.append(Arrow(socket, workflow, "registered"))
        case "drain" | "evict" if isinstance(before, lifecycle.Live) and after != before:
            arrows.append(_stop_arrow(encoded.get("by")))
        case "tick" if isinstance(before, lifecycle.Live) and not isinstance(after, lifecycle.Live):
            arrows.append(Arrow(workflow, workflow, "silent for too long: lost"))
    if isinstance(after, lifecycle.Evicting) and not isinstance(before, lifecycle.Evicting):
        arrows.append(Arrow(workflow, socket, "evict"))
    if isinstance(after, lifecycle.Stopped) and not isinstance(before, lifecycle.Stopped):
        arrows.append(Arrow(workflow, workflow, "stopped"))
    return [Arrow(a.source, a.target, a.label, a.via, runner_id=row.pk) for a in arrows]


def _stop_arrow(asked_by: str | None) -> Arrow:
    workflow = Participant.RUNNER_WORKFLOW
    match asked_by:
        case "runner":
            return Arrow(Participant.RUNNER, workflow, "stop", via=(Participant.RUNNER_WS,))
        case "version":
            return Arrow(workflow, workflow, "stop, a newer version is here")
        case "operator":
            return Arrow(workflow, workflow, "stop, asked for by hand")
        case _:
            return Arrow(Participant.SERVERLESS, workflow, "stop")


def _mark_poisoned(runner_id: str, error: str) -> None:
    """Show on the runner that the engine failed on it, and look at it again only after a while."""
    now = timezone.now()
    Runner.objects.filter(pk=runner_id, due_at__lte=now).update(due_at=now + _POISONED)
    workflow = Participant.RUNNER_WORKFLOW
    record([Arrow(workflow, workflow, f"failed: {error}", runner_id=runner_id)], now)


def _set(moment: datetime | None) -> datetime:
    assert moment is not None, "the state's columns say what it needs"
    return moment


WORKFLOW = register(Workflow(RUNNERS, apply, _mark_poisoned))
