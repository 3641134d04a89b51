"""Why an actor is where it is, and what comes next (DESIGN §5). Reads rows; secrets never come in.

The reasons are those by which allocation and planning decide (`runners/slots.py`, `runners/pool.py`); which of
them counts is judged in `diagnosis.py`.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import redis
from django.conf import settings
from django.db.models import Q

from actors.diagnosis import PoolFacts, RunnerFacts, Situation, StartFacts, diagnose
from actors.models import Actor
from actors.selectors import actors_json
from orchestrator import clock
from orchestrator.celery import app
from orchestrator.models import TimelineEntry
from orchestrator.redis import get_redis
from orchestrator.workflow import echo, mailbox
from runners.models import Runner, RunnerConfig, ServerlessConnection

STARTS_SHOWN = 5
RUNNERS_SHOWN = 20
LOOKED_BACK = 100
"""The actor's newest arrows that are searched for who woke it."""
HIDDEN = "[hidden]"
SECRET_CHARACTERS = 6
"""A configured header's value of this length is hidden wherever an endpoint repeats it."""

_WAITING = (Actor.Status.CREATED, Actor.Status.PENDING, Actor.Status.BACKOFF)
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
    """Return step, since, who woke it, what was tried and what would unblock it, as JSON.

    Moments are ISO 8601 text, lengths of time milliseconds. Asks for a worker's echo, and waits for it up to 2 s,
    unless one came or was awaited a moment ago.
    """
    now = now or clock.now()
    newest = list(TimelineEntry.objects.filter(actor_id=actor.pk).order_by("-at", "-id")[:LOOKED_BACK])
    since = _since(actor, newest)
    shown = actor.status in _WAITING
    pool = _find_pool(actor) if shown else None
    rows = _runner_rows(actor) if shown else []
    refusals = _refusals(rows, now)
    starts = [] if pool is None else _start_rows(pool)
    worker = _worker(actor)
    seen = Situation(
        status=actor.status,
        pool_name=actor.pool_name,
        since=since,
        due_at=actor.state_due_at,
        failure=actor.failure["kind"] if actor.failure else None,
        message=actor.failure.get("message") if actor.failure else None,
        retries=actor.retries,
        wake_after=actor.wake_after,
        worker_serves=worker["serves"],
        waiting_signals=worker["waiting_signals"] or 0,
        pool=None if pool is None else _pool_facts(pool, starts),
        runners=[RunnerFacts(refused) for refused in refusals],
        host_unheard_since=_host_unheard_since(actor, now),
    )
    found = diagnose(seen, now)
    secrets = _secrets(pool)
    told: dict[str, Any] = {
        "actor_id": actor.pk,
        "status": actor.status,
        "step": _STEPS[actor.status],
        "since": _text(since),
        "woken_by": _woken_by(newest),
        "cause": found.cause,
        "because": _hide(found.because, secrets),
        "unblocked_by": found.unblocked_by,
        "generation": actor.generation,
        "runner_id": actor.runner_id or None,
        "error": _hide(actors_json([actor])[0].get("error"), secrets),
        "retries": actor.retries,
        "next_look_at": _text(actor.due_at),
        "worker": worker,
    }
    if shown:
        told["runners"] = [_runner_json(row, refused) for row, refused in zip(rows, refusals, strict=True)]
        told["pool"] = None if pool is None else _hide(_pool_json(pool, starts), secrets)
    return told


def in_words(told: dict[str, Any]) -> Iterator[str]:
    """Give an explanation as lines of text; what belongs to the line before is indented."""
    yield f"{told['actor_id']} is {told['step']}, since {told['since']}"
    if told["cause"]:
        yield f"  cause: {told['cause']}: {told['because']}"
    if told["unblocked_by"]:
        yield f"  unblocked by: {told['unblocked_by']}"
    if woken := told["woken_by"]:
        what = f", for {woken['request']}" if woken["request"] else ""
        yield f"  woken by: {woken['by']}, {woken['what']} at {woken['at']}{what}"
    for name in ("generation", "runner_id", "error", "retries", "next_look_at"):
        if told[name] not in (None, 0):
            yield f"  {name}: {told[name]}"
    for runner in told.get("runners", []):
        slots = f"{runner['used_slots']} of {runner['total_slots']} slots used"
        yield f"  runner {runner['runner_id']}: {runner['refused'] or 'has a free slot'}, {slots}"
    if pool := told.get("pool"):
        paused = ", paused" if pool["paused"] else ""
        yield f"  pool {pool['name']} ({pool['kind']}{paused}): {pool['desired_runners']} runners wanted"
        if pool["retry_at"]:
            yield f"    {pool['failures']} failures, next start at {pool['retry_at']}"
        for start in pool["starts"]:
            took = "" if start["latency_ms"] is None else f" after {start['latency_ms']:,} ms"
            outcome = start["error"] or start["status"] or "no answer yet"
            yield f"    GET /start at {start['sent_at']}: {start['state']}, {outcome}{took}"


def _worker(actor: Actor) -> dict[str, Any]:
    """Return whether a worker serves, how old its last echo is, and how many signals wait in the actor's shard."""
    queue = app.conf.task_default_queue
    stream = mailbox.stream_name("actors", mailbox.shard_of(actor.pk))
    try:
        serves = actor.status in (Actor.Status.RUNNING, Actor.Status.DESTROYED) or echo.is_served(queue)
        return {
            "serves": serves,
            "echo_age_s": echo.age_seconds(queue),
            "waiting_signals": int(get_redis().xlen(stream)),
        }
    except redis.RedisError:
        return {"serves": False, "echo_age_s": None, "waiting_signals": None}


def _woken_by(newest: list[TimelineEntry]) -> dict[str, Any] | None:
    """Return who began what the actor does now: the newest arrow that took it out of sleep, or asked for it."""
    for position, entry in enumerate(newest):
        signal = entry.data.get("signal", {}).get("t")
        if signal in ("wake", "start", "reschedule") and entry.data.get("state") == "pending":
            return _woken(entry, entry.label)
        if signal == "tick" and entry.data.get("state") == "pending" and _slept_before(newest[position + 1 :]):
            return {"at": _text(entry.at), "by": "its alarm", "what": "alarm", "request": None}
    return None


def _woken(entry: TimelineEntry, label: str) -> dict[str, Any]:
    """Return a waker. The arrow that carries the signal of a request is the request itself."""
    by_request = entry.target == "Gateway"
    what = "wake" if by_request else label
    return {
        "at": _text(entry.at),
        "by": "a request" if by_request else entry.source,
        "what": what,
        "request": label if by_request else None,
    }


def _slept_before(earlier: list[TimelineEntry]) -> bool:
    states = (entry.data.get("state") for entry in earlier)
    return next((state for state in states if state), None) == "asleep"


def _since(actor: Actor, newest: list[TimelineEntry]) -> datetime | None:
    """Return when the present step began: as the timeline has it, else as far as the row knows."""
    began = None
    for entry in newest:
        state = entry.data.get("state")
        if state == actor.status:
            began = entry.at
        elif state is not None:
            break
    return began or _since_by_row(actor)


def _since_by_row(actor: Actor) -> datetime | None:
    match actor.status:
        case Actor.Status.PENDING:
            return actor.pending_at
        case Actor.Status.RUNNING:
            return actor.connectable_at
        case Actor.Status.ASLEEP:
            return actor.slept_at
        case Actor.Status.DESTROYED:
            return actor.destroyed_at
        case Actor.Status.STARTING if actor.state_due_at is not None:
            return actor.state_due_at - timedelta(milliseconds=settings.ENV.actor_start_ms)
        case Actor.Status.CREATED:
            return actor.created_at
        case _:
            return None


def _find_pool(actor: Actor) -> RunnerConfig | None:
    rows = RunnerConfig.objects.filter(namespace_id=actor.namespace_id, name=actor.pool_name, deleted_at=None)
    return rows.first()


def _runner_rows(actor: Actor) -> list[Runner]:
    of_pool = Runner.objects.filter(namespace_id=actor.namespace_id, name=actor.pool_name)
    return list(of_pool.exclude(state=Runner.State.STOPPED).order_by("-created_at")[:RUNNERS_SHOWN])


def _host_unheard_since(actor: Actor, now: datetime) -> datetime | None:
    """Return when the actor's runner was last heard of, if that is too long ago or it has no socket."""
    host = Runner.objects.filter(pk=actor.runner_id).first() if actor.runner_id else None
    return host.last_ping_at if host is not None and refusal(host, now) in ("silent", "disconnected") else None


def _refusals(rows: list[Runner], now: datetime) -> list[str | None]:
    newest = max((row.runner_version for row in rows if refusal(row, now) in (None, "full")), default=0)
    return [refusal(row, now, newest) for row in rows]


def refusal(row: Runner, now: datetime, newest: int = 0) -> str | None:
    """Return why a runner is given no actors; None if it would be. `newest`: the version its pool is served by."""
    if row.state != Runner.State.LIVE:
        return row.state
    if not row.socket_id:
        return "disconnected"
    if now - row.last_ping_at > timedelta(milliseconds=settings.ENV.runner_eligible_ms):
        return "silent"
    if row.cordoned:
        return "cordoned"
    if row.runner_version < newest:
        return "older version"
    return "full" if row.used_slots >= row.total_slots else None


def _runner_json(row: Runner, refused: str | None) -> dict[str, Any]:
    return {
        "runner_id": row.pk,
        "key": row.key,
        "used_slots": row.used_slots,
        "total_slots": row.total_slots,
        "last_ping_at": _text(row.last_ping_at),
        "refused": refused,
    }


def _start_rows(pool: RunnerConfig) -> list[ServerlessConnection]:
    """Return the newest `/start` requests, and those without a runner that are under way, newest first."""
    rows = ServerlessConnection.objects.filter(pool=pool)
    newest = rows.order_by("-created_at")[:STARTS_SHOWN]
    under_way = rows.filter(Q(state__in=["wanted", "starting", "open"])).order_by("created_at")[:1]
    found = {row.pk: row for row in [*newest, *under_way]}
    return sorted(found.values(), key=lambda row: (row.created_at, row.pk), reverse=True)


def _pool_facts(pool: RunnerConfig, starts: list[ServerlessConnection]) -> PoolFacts:
    return PoolFacts(
        name=pool.name,
        serverless=pool.kind == RunnerConfig.Kind.SERVERLESS,
        paused=pool.paused,
        desired=pool.desired,
        max_runners=pool.max_runners,
        error=pool.error,
        retry_at=pool.retry_at,
        starts=[StartFacts(row.state, row.created_at, row.started_at, row.opened_at) for row in starts],
    )


def _pool_json(pool: RunnerConfig, starts: list[ServerlessConnection]) -> dict[str, Any]:
    return {
        "name": pool.name,
        "kind": pool.kind,
        "paused": pool.paused,
        "desired_runners": pool.desired,
        "max_runners": pool.max_runners,
        "error": pool.error,
        "failures": pool.failures,
        "retry_at": _text(pool.retry_at),
        "starts": [_start_json(start) for start in starts],
    }


def _start_json(start: ServerlessConnection) -> dict[str, Any]:
    """Return a `/start` request; `latency_ms` is the time to its answer, or to its end without one."""
    answered = start.opened_at or start.ended_at
    latency = answered - start.started_at if answered and start.started_at else None
    details: Any = next(iter(start.error.values()), {}) if isinstance(start.error, dict) else {}
    return {
        "state": start.state,
        "requested_at": _text(start.created_at),
        "sent_at": _text(start.started_at),
        "answered_at": _text(start.opened_at),
        "ready_at": _text(start.ready_at),
        "ended_at": _text(start.ended_at),
        "latency_ms": None if latency is None else round(latency.total_seconds() * 1000, 1),
        "status": start.status,
        "error": start.error,
        "body": details.get("body") if isinstance(details, dict) else None,
        "runner_id": start.runner_id or None,
    }


def _secrets(pool: RunnerConfig | None) -> list[str]:
    """Return what no answer of an endpoint may carry on: the pool's headers and the engine's token."""
    values = [settings.ENV.admin_token, *(pool.headers.values() if pool is not None else ())]
    whole = [value for value in values if len(value) >= SECRET_CHARACTERS]
    bare = [value.partition(" ")[2] for value in whole]  # "Bearer …"
    return sorted({*whole, *(value for value in bare if len(value) >= SECRET_CHARACTERS)}, key=len, reverse=True)


def _hide(told: Any, secrets: list[str]) -> Any:
    """Return the same with the secrets in its texts hidden."""
    match told:
        case str():
            for secret in secrets:
                told = told.replace(secret, HIDDEN)
            return told
        case dict():
            return {name: _hide(value, secrets) for name, value in told.items()}
        case list():
            return [_hide(value, secrets) for value in told]
        case _:
            return told


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
