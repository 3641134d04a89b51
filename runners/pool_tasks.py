"""The pool workflow as Celery sees it: a task per shard, a row per pool and one per `/start` request."""

from collections.abc import Iterable
from dataclasses import fields
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from django.conf import settings
from django.db import transaction

from orchestrator import clock
from orchestrator.arrows import Arrow, Participant
from orchestrator.celery import app
from orchestrator.ids import new_id
from orchestrator.metrics import PHASE_SECONDS, STARTS
from orchestrator.rows import save_guarded
from orchestrator.statements import lock
from orchestrator.timeline import record
from orchestrator.workflow.outbox import Outbox
from orchestrator.workflow.pump import Batch, Workflow, advance, register
from runners import pool, pool_plan
from runners.codec import decode_pool_signal, knows_pool_signal
from runners.models import Runner, RunnerConfig, ServerlessConnection
from runners.poll_claims import polls_due
from runners.pools import count_demand

POOLS = "pools"
"""The workflow's name."""
CONNECTORS = "serverless"
"""The channel of the background consumers that hold `/start` requests (`runworker serverless`)."""

_POISONED = timedelta(minutes=1)
_COLUMNS = ["error", "error_at", "successes", "failures", "failed_at", "retry_at", "desired", "due_at"]


@app.task(name=f"{POOLS}.advance_shard")
def advance_shard(shard: int, **_: object) -> None:
    """Drain one shard of the pools' mailboxes. May run twice, and at the same time.

    What a later release adds to its arguments is passed over.
    """
    advance(WORKFLOW, shard)


def apply(batch: Batch, outbox: Outbox, now: datetime) -> None:
    """Carry out a batch of signals to pools, in the transaction of the caller."""
    rows = lock(RunnerConfig, batch)
    for row in rows:
        _advance_pool(row, [decode_pool_signal(signal) for signal in batch[row.pk]], outbox, now)
    save_guarded(rows, _COLUMNS)


def overdue(now: datetime, limit: int) -> list[str]:
    """Return pools that are to be planned again, the longest overdue first."""
    late = RunnerConfig.objects.filter(due_at__lte=now).order_by("due_at")
    return list(late.values_list("pk", flat=True)[:limit])


def unclaimed(now: datetime) -> bool:
    """Say whether a connector is wanted: for a `/start` request, new or left by one that died, or for a poll."""
    open_ones = ServerlessConnection.objects.exclude(state=ServerlessConnection.State.ENDED)
    never = open_ones.filter(state=ServerlessConnection.State.WANTED)
    return never.exists() or open_ones.filter(claimed_until__lt=now).exists() or polls_due(now)


def _advance_pool(row: RunnerConfig, signals: Iterable[pool.Signal], outbox: Outbox, now: datetime) -> None:
    open_ones = ServerlessConnection.objects.select_for_update(no_key=True).exclude(
        state=ServerlessConnection.State.ENDED
    )
    connections = {connection.pk: connection for connection in open_ones.filter(pool=row).order_by("pk")}
    config = _config(row)
    state = before = pool.State(
        requests={pk: _request(connection, now) for pk, connection in connections.items()},
        **{name: getattr(row, name) for name in _COLUMNS[:6]},
    )
    effects: list[pool.Effect] = []
    for signal in signals:
        state, heard = pool.hear(state, signal, config, now)
        effects += heard
    runners = _runners(state)
    for runner in runners:
        if runner.state == Runner.State.STOPPED:  # should the news of its end have been lost
            state, _ = pool.hear(state, pool.RunnerGone(runner.pk), config, now)
    demand = count_demand((row.namespace_id, row.name)) if config.wanted else 0
    used = {runner.pk: runner.used_slots for runner in runners}
    closed = {runner.pk for runner in runners if runner.cordoned or runner.state != Runner.State.LIVE}
    plan = pool_plan.plan(state, config, demand, used, now, closed)
    for name in _COLUMNS[:6]:
        setattr(row, name, getattr(plan.state, name))
    row.desired, row.due_at = plan.desired, plan.due
    for pk, request in plan.state.requests.items():
        if request != before.requests[pk]:
            _store(connections[pk], request)
    for effect in [*effects, *plan.effects]:
        _perform(effect, outbox)
    if plan.start:
        _start(row, plan.start)
    if plan.start or any(request.state is pool.RequestState.CLOSING for request in plan.state.requests.values()):
        outbox.hint(CONNECTORS)
    _tell(before, plan.state, row, now)
    transaction.on_commit(partial(_count, before, plan.state))


def _count(before: pool.State, after: pool.State) -> None:
    """Count what has become of the requests, and measure how long the endpoint took."""
    for pk, request in after.requests.items():
        earlier = before.requests[pk]
        if request.opened_at and request.started_at and not earlier.opened_at:
            PHASE_SECONDS.labels("start_request").observe((request.opened_at - request.started_at).total_seconds())
        if request.ready_at and request.started_at and not earlier.ready_at:
            PHASE_SECONDS.labels("connect").observe((request.ready_at - request.started_at).total_seconds())
        if request.state is pool.RequestState.ENDED and earlier.state is not pool.RequestState.ENDED:
            STARTS.labels("failed" if request.error is not None else "ended").inc()


def _start(row: RunnerConfig, count: int) -> None:
    ServerlessConnection.objects.bulk_create(
        ServerlessConnection(pk=new_id(), pool=row, endpoint_epoch=row.endpoint_epoch) for _ in range(count)
    )


def _perform(effect: pool.Effect, outbox: Outbox) -> None:
    match effect:
        case pool.DrainRunner(runner_id, grace, only_if_idle):
            # An older release passes over what it does not know and drains the runner, idle or not.
            condition = {"only_if_idle": True} if only_if_idle else {}
            grace_ms = int(grace.total_seconds() * 1000)
            outbox.post("runners", runner_id, {"t": "drain", "grace_ms": grace_ms, "by": "pool"} | condition)
        case pool.EvictRunner(runner_id):
            outbox.post("runners", runner_id, {"t": "evict", "by": "pool"})


def _tell(before: pool.State, after: pool.State, row: RunnerConfig, now: datetime) -> None:
    """Record the ends of requests; their beginnings are recorded by the connector that sends them."""
    ended = [
        Arrow(
            Participant.ENDPOINT,
            Participant.SERVERLESS,
            _ending(request.error),
            connection_id=pk,
            pool_id=row.pk,
            runner_id=request.runner_id,
            data={"error": request.error, "status": request.status},
        )
        for pk, request in after.requests.items()
        if request.state is pool.RequestState.ENDED and request.started_at is not None
        if before.requests[pk].state is not pool.RequestState.ENDED
    ]
    if ended:
        record(ended, now)


def _ending(error: Any) -> str:
    """Say how a request ended: `error` is None, a kind of failure, or what is known of it by its kind."""
    if error is None:
        return "end of the stream"
    return f"failed: {', '.join(error) if isinstance(error, dict) else error}"


def _config(row: RunnerConfig) -> pool.Config:
    serverless = row.kind == RunnerConfig.Kind.SERVERLESS and row.deleted_at is None
    return pool.Config(
        wanted=serverless,
        slots_per_runner=row.slots_per_runner,
        min_runners=row.min_runners,
        max_runners=row.max_runners,
        runners_margin=row.runners_margin,
        lifespan=row.request_lifespan or timedelta(days=365),
        grace=row.grace,
        epoch=row.endpoint_epoch,
        ready=timedelta(milliseconds=settings.ENV.serverless_ready_ms),
        paused=row.paused,
    )


_SHARED = [field.name for field in fields(pool.Request) if field.name not in ("id", "state", "epoch", "orphaned")]


def _request(connection: ServerlessConnection, now: datetime) -> pool.Request:
    claimed = connection.state != ServerlessConnection.State.WANTED
    shared: dict[str, Any] = {name: getattr(connection, name) for name in _SHARED}
    return pool.Request(
        id=connection.pk,
        state=pool.RequestState(connection.state),
        epoch=connection.endpoint_epoch,
        orphaned=claimed and connection.claimed_until is not None and connection.claimed_until < now,
        **shared,
    )


def _store(connection: ServerlessConnection, request: pool.Request) -> None:
    connection.state = ServerlessConnection.State(request.state.value)
    for name in _SHARED:
        setattr(connection, name, getattr(request, name))
    connection.save(update_fields=["state", *(name for name in _SHARED if name != "created_at")])


def _runners(state: pool.State) -> list[Runner]:
    """Return the runners of the requests as they are, not locked: id, state, slots in use, and if cordoned."""
    ids = [request.runner_id for request in state.requests.values() if request.runner_id]
    return list(Runner.objects.filter(pk__in=ids).only("state", "used_slots", "cordoned")) if ids else []


def _mark_poisoned(pool_id: str, error: str) -> None:
    """Show on the pool that the engine failed on it; look at it again after a while."""
    now = clock.now()
    RunnerConfig.objects.filter(pk=pool_id).update(error="internal_error", error_at=now)
    RunnerConfig.objects.filter(pk=pool_id, due_at__lte=now).update(due_at=now + _POISONED)


WORKFLOW = register(Workflow(POOLS, apply, _mark_poisoned, knows_pool_signal))
