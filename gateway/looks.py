"""Reads of actors' rows for the gateway, and the wakes it posts. Synchronous: for database threads."""

from collections.abc import Iterable
from typing import Any

from actors.codec import encode_signal
from actors.explain import explain
from actors.lifecycle import Wake
from actors.models import Actor
from gateway.watch import Look
from orchestrator.ids import is_id
from orchestrator.workflow import mailbox
from runners.models import RunnerConfig

UNREACHABLE = 2
"""So often in a row an endpoint was not reached before requests that wait for it are refused."""

_COLUMNS = ("pk", "status", "generation", "runner_id", "namespace_id", "pool_name")


def look_at(actor_id: str) -> Look:
    """Return what the actor's row says."""
    return look_at_many([actor_id])[actor_id]


def look_at_many(actor_ids: Iterable[str]) -> dict[str, Look]:
    """Return what the rows say, in one query; an id that is not ours is an unknown actor."""
    wanted = list(actor_ids)
    rows = Actor.objects.filter(pk__in=[one for one in wanted if is_id(one)]).values_list(*_COLUMNS)
    looks = {pk: _look(status, generation, runner_id) for pk, status, generation, runner_id, _, _ in rows}
    return {actor_id: looks.get(actor_id, Look(exists=False)) for actor_id in wanted}


def look_and_wake(actor_id: str, request: str | None, again: bool) -> Look:
    """Return what the actor's row says, having posted a wake unless it takes traffic or is no more.

    `request` says what it is for, in the timeline; `again`: nothing has happened since the last wake.

    Raises:
        redis.RedisError: the wake could not be posted.
    """
    if not is_id(actor_id):
        return Look(exists=False)
    row = Actor.objects.filter(pk=actor_id).values_list(*_COLUMNS).first()
    if row is None:
        return Look(exists=False)
    _, status, generation, runner_id, namespace_id, pool_name = row
    look = _look(status, generation, runner_id)
    if look.connectable or look.destroyed:
        return look
    mailbox.post("actors", actor_id, encode_signal(Wake(request=request, again=again)))
    if again and status in (Actor.Status.PENDING, Actor.Status.BACKOFF):
        error = _pool_error(namespace_id, pool_name)
        return Look(True, False, generation, runner_id, False, error)
    return look


def explain_actor(actor_id: str) -> dict[str, Any] | None:
    """Return why the actor is where it is, for the body of a refusal; None if it is no more."""
    actor = Actor.objects.filter(pk=actor_id).first()
    return None if actor is None else explain(actor)


def _look(status: str, generation: int, runner_id: str) -> Look:
    return Look(
        exists=True,
        destroyed=status == Actor.Status.DESTROYED,
        generation=generation,
        runner_id=runner_id,
        connectable=status == Actor.Status.RUNNING,
    )


def _pool_error(namespace_id: str, pool_name: str) -> object:
    """Return why the pool starts no runner. An endpoint that cannot be reached once may be restarting."""
    pools = RunnerConfig.objects.filter(namespace_id=namespace_id, name=pool_name, deleted_at=None)
    error, failures = pools.values_list("error", "failures").first() or (None, 0)
    unreachable = isinstance(error, dict) and "serverless_connection_error" in error
    return None if unreachable and failures < UNREACHABLE else error
