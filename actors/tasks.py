"""The actor workflow as Celery sees it: a task per shard, and the three steps of a turn.

advance_shard → apply → hear, then  deallocate  the slot back to its runner
                                    allocate    a slot for whoever has waited longest
                                    dispatch    StartActor and StopActor into the runners' logs
"""

from datetime import datetime, timedelta

from django.conf import settings
from django.utils import timezone

from actors import lifecycle
from actors.codec import decode_signal
from actors.hibernating import take_hibernating
from actors.lifecycle import Failure, FailureKind
from actors.models import Actor, failure_json
from actors.queue import oldest_pending
from actors.turn import ACTORS, Turn
from orchestrator.arrows import Arrow, Participant
from orchestrator.celery import app
from orchestrator.statements import lock
from orchestrator.timeline import record
from orchestrator.workflow.outbox import Outbox
from orchestrator.workflow.pump import Batch, Workflow, advance, register
from runners.models import Runner
from runners.pools import Pool, serverless_pools
from runners.protocol.messages import ActorConfig

PATIENCE = timedelta(seconds=10)
"""No slot is left to a waiting actor this long overdue: its workflow is stuck, and others wait behind it."""
POISONED = timedelta(minutes=1)
"""An actor the engine failed on is looked at again after this long."""


@app.task(name=f"{ACTORS}.advance_shard")
def advance_shard(shard: int) -> None:
    """Drain one shard of the actors' mailboxes. May run twice, and at the same time."""
    advance(WORKFLOW, shard)


def apply(batch: Batch, outbox: Outbox, now: datetime) -> None:
    """Carry out a batch of signals to many actors, in the transaction of the caller."""
    turn = Turn(now=now, outbox=outbox, limits=limits())
    for row in lock(Actor, batch):
        turn.seat(row, [decode_signal(signal) for signal in batch[row.pk]])
    turn.acknowledge(batch)
    while turn.hear():
        turn.lock_runners()
        deallocate(turn)
        allocate(turn)
        dispatch(turn)
    turn.save()


def deallocate(turn: Turn) -> None:
    """Give slots back. A runner that goes away learns that one more actor has left it."""
    for _, effect in turn.take_orders(lifecycle.Deallocate):
        runner = turn.runners.give_back(effect.runner_id)
        if runner is None:
            continue
        if runner.state == Runner.State.LIVE:
            pool = (runner.namespace_id, runner.name)
            turn.freed[pool] = turn.freed.get(pool, 0) + 1
        else:
            turn.outbox.post("runners", runner.pk, {"t": "slot_freed"})


def allocate(turn: Turn) -> None:
    """Give each pool's free slots to the actors that have waited longest, in this turn or not.

    One that is not asking now is told that a slot is free, and that slot is left to it.
    """
    for pool in {*turn.freed, *(seat.pool for seat in turn.seats if seat.waits)}:
        _share_out(turn, pool)
    turn.freed.clear()


def _share_out(turn: Turn, pool: Pool) -> None:
    queued = [seat for seat in turn.seats if isinstance(seat.state, lifecycle.Pending) and seat.pool == pool]
    asking = [seat for seat in queued if seat.waits]
    free = turn.runners.free_slots(pool) if asking else turn.freed[pool]
    # What the database says of this turn's own actors is out of date.
    out_of_date = [seat.row.pk for seat in turn.seats]
    others = oldest_pending(pool, free, leave_out=out_of_date, due_after=turn.now - PATIENCE)
    here = {seat.row.pk: seat for seat in queued}
    for _, actor_id in sorted([*others, *(seat.place for seat in queued)])[:free]:
        seat = here.get(actor_id)
        if seat is None:
            turn.outbox.post(ACTORS, actor_id, {"t": "slot_free"})
        elif not seat.waits:
            seat.unheard.appendleft(lifecycle.SlotFree())
        elif runner_id := turn.runners.take_slot(pool):
            seat.answer(lifecycle.Allocated(runner_id, called=seat.called))
    unserved = [seat for seat in asking if seat.waits]
    if unserved:
        on_demand = pool in serverless_pools([pool])
        for seat in unserved:
            seat.answer(lifecycle.NoSlot(on_demand))


def dispatch(turn: Turn) -> None:
    """Put StartActor and StopActor into the command logs of the runners."""
    starts = turn.take_orders(lifecycle.Dispatch)
    hibernating = take_hibernating([seat.row.pk for seat, _ in starts], turn.now) if starts else {}
    for seat, start in starts:
        row = seat.row
        config = ActorConfig(
            name=row.name,
            key=row.key,
            create_ts_ms=int(turn.now.timestamp() * 1000),
            input=None if row.input is None else bytes(row.input),
        )
        pairs = hibernating.get(row.pk, ())
        turn.runners.append_start(start.runner_id, row.pk, start.generation, config, pairs)
    for seat, stop in turn.take_orders(lifecycle.Halt):
        turn.runners.append_stop(stop.runner_id, seat.row.pk, stop.generation)


def limits() -> lifecycle.Limits:
    """Return the lifecycle's limits as they are configured."""
    env = settings.ENV
    return lifecycle.Limits(
        start=timedelta(milliseconds=env.actor_start_ms),
        stop=timedelta(milliseconds=env.actor_stop_ms),
        pending=timedelta(milliseconds=env.actor_pending_ms),
        away=timedelta(milliseconds=2 * env.runner_lost_ms),
    )


def mark_poisoned(actor_id: str, error: str) -> None:
    """Show on the actor, and in its timeline, that the engine failed on it; look at it again after a while."""
    now = timezone.now()
    failure = failure_json(Failure(FailureKind.INTERNAL_ERROR, message=error[:500]))
    Actor.objects.filter(pk=actor_id).update(failure=failure)
    Actor.objects.filter(pk=actor_id, due_at__lte=now).update(due_at=now + POISONED)
    workflow = Participant.ACTOR
    record([Arrow(workflow, workflow, f"failed: {error}", actor_id=actor_id)], now)


WORKFLOW = register(Workflow(ACTORS, apply, mark_poisoned))
