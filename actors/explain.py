"""Why an actor is where it is, and what comes next (DESIGN §5). Reads rows; secrets never come in.

The reasons are those by which allocation and planning decide (`runners/slots.py`, `runners/pool.py`).
"""

from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.utils import timezone

from actors.models import Actor
from actors.selectors import actors_json
from runners.models import Runner, RunnerConfig, ServerlessConnection

STARTS_SHOWN = 5
RUNNERS_SHOWN = 20

_STEPS: dict[str, str] = {
    Actor.Status.CREATED: "stored; nothing has been decided yet",
    Actor.Status.PENDING: "waiting for a slot on a runner",
    Actor.Status.BACKOFF: "waiting after a failure before the next attempt",
    Actor.Status.STARTING: "told its runner to start it; waiting for running",
    Actor.Status.RUNNING: "running and taking traffic",
    Actor.Status.STOPPING: "told its runner to stop it; waiting for stopped",
    Actor.Status.ASLEEP: "asleep until somebody calls it or its alarm is due",
    Actor.Status.DESTROYED: "destroyed",
}


def explain(actor: Actor, now: datetime | None = None) -> dict[str, Any]:
    """Return step, since, what was tried and what would unblock it, as JSON. Moments are ISO 8601 text."""
    now = now or timezone.now()
    told: dict[str, Any] = {
        "actor_id": actor.pk,
        "status": actor.status,
        "step": _STEPS[actor.status],
        "since": _text(_since(actor)),
        "generation": actor.generation,
        "runner_id": actor.runner_id or None,
        "error": actors_json([actor])[0].get("error"),
        "retries": actor.retries,
        "next_look_at": _text(actor.due_at),
    }
    if actor.status in (Actor.Status.PENDING, Actor.Status.BACKOFF, Actor.Status.CREATED):
        told |= _waiting(actor, now)
    return told


def _since(actor: Actor) -> datetime | None:
    """Return when the present step began, as far as the row knows."""
    match actor.status:
        case Actor.Status.PENDING:
            return actor.pending_at
        case Actor.Status.RUNNING | Actor.Status.STOPPING:
            return actor.connectable_at
        case Actor.Status.ASLEEP:
            return actor.slept_at
        case Actor.Status.DESTROYED:
            return actor.destroyed_at
        case Actor.Status.STARTING if actor.state_due_at is not None:
            return actor.state_due_at - timedelta(milliseconds=settings.ENV.actor_start_ms)
        case _:
            return actor.created_at


def _waiting(actor: Actor, now: datetime) -> dict[str, Any]:
    runners = _runners(actor, now)
    pool = RunnerConfig.objects.filter(
        namespace_id=actor.namespace_id, name=actor.pool_name, deleted_at=None
    ).first()
    return {
        "runners": runners,
        "pool": None if pool is None else _pool(pool),
        "unblocked_by": _way_out(actor, pool, runners),
    }


def _runners(actor: Actor, now: datetime) -> list[dict[str, Any]]:
    of_pool = Runner.objects.filter(namespace_id=actor.namespace_id, name=actor.pool_name)
    rows = list(of_pool.exclude(state=Runner.State.STOPPED).order_by("-created_at")[:RUNNERS_SHOWN])
    newest = max((row.runner_version for row in rows if _refusal(row, now, 0) in (None, "full")), default=0)
    return [{"runner_id": row.pk, "key": row.key, "refused": _refusal(row, now, newest)} for row in rows]


def _refusal(row: Runner, now: datetime, newest: int) -> str | None:
    """Return why a runner is given no actors; None if it would be."""
    if row.state != Runner.State.LIVE:
        return row.state
    if not row.socket_id:
        return "disconnected"
    if now - row.last_ping_at > timedelta(milliseconds=settings.ENV.runner_eligible_ms):
        return "silent"
    if row.runner_version < newest:
        return "older version"
    return "full" if row.used_slots >= row.total_slots else None


def _pool(pool: RunnerConfig) -> dict[str, Any]:
    starts = ServerlessConnection.objects.filter(pool=pool).order_by("-created_at")[:STARTS_SHOWN]
    return {
        "name": pool.name,
        "kind": pool.kind,
        "desired_runners": pool.desired,
        "max_runners": pool.max_runners,
        "error": pool.error,
        "failures": pool.failures,
        "retry_at": _text(pool.retry_at),
        "starts": [_start(start) for start in starts],
    }


def _start(start: ServerlessConnection) -> dict[str, Any]:
    return {
        "state": start.state,
        "requested_at": _text(start.created_at),
        "sent_at": _text(start.started_at),
        "answered_at": _text(start.opened_at),
        "ready_at": _text(start.ready_at),
        "ended_at": _text(start.ended_at),
        "status": start.status,
        "error": start.error,
        "runner_id": start.runner_id or None,
    }


def _way_out(actor: Actor, pool: RunnerConfig | None, runners: list[dict[str, Any]]) -> str:
    if actor.status == Actor.Status.BACKOFF:
        return f"the next attempt, at {_text(actor.due_at)}"
    if pool is None:
        return f"a configuration for the pool {actor.pool_name!r}, or a runner that connects under this name"
    if any(runner["refused"] is None for runner in runners):
        return "a runner has a free slot: the next look takes it"
    if pool.kind == RunnerConfig.Kind.NORMAL:
        return "a free slot on a connected runner of the pool, or another runner that connects"
    if pool.max_runners == 0 or pool.desired >= pool.max_runners:
        return "a free slot, or a greater max_runners: the pool has all the runners it may have"
    if pool.retry_at is not None and pool.error is not None:
        return f"the endpoint answering as it should; it is called again at {_text(pool.retry_at)}"
    return "the runner that the endpoint is starting to connect"


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
