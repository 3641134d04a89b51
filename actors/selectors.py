"""Reads of actors, and how the API shows them (API §3)."""

from collections.abc import Collection, Sequence
from heapq import merge
from typing import Any

from django.db.models import QuerySet

from actors.errors import ActorNotFound
from actors.lifecycle import FailureKind
from actors.models import Actor
from orchestrator import datacenters
from orchestrator.models import Namespace
from orchestrator.moments import to_ms, to_optional_ms
from orchestrator.paging import Position
from runners.selectors import pool_errors

_NOT_SHOWN = ("input",)  # may be a megabyte


def find_actor(*, namespace: Namespace, actor_id: str) -> Actor:
    """Return the actor, a destroyed one too; ActorNotFound if the namespace has none of this id."""
    actor = Actor.objects.defer(*_NOT_SHOWN).filter(pk=actor_id, namespace=namespace).first()
    if actor is None:
        raise ActorNotFound
    return actor


def is_actor(actor_id: str) -> bool:
    """Say whether there is such an actor in any namespace, destroyed or not."""
    return Actor.objects.filter(pk=actor_id).exists()


def find_living(*, namespace: Namespace, name: str, key: str) -> Actor | None:
    """Return the living actor that holds a key."""
    return _living(namespace, name).filter(key=key).first()


def list_actors_by_id(
    *, namespace: Namespace, ids: Collection[str], include_destroyed: bool, limit: int, after: Position | None
) -> list[Actor]:
    """Return the next of these actors, newest first.

    RivetKit takes an actor that is listed for one it can call, so the destroyed come only if asked for.
    """
    rows = choose_actors(namespace=namespace, ids=set(ids), living=not include_destroyed)
    return _newest_first(rows, limit, after)


def list_actors(
    *,
    namespace: Namespace,
    name: str,
    key: str | None,
    include_destroyed: bool,
    limit: int,
    after: Position | None,
) -> list[Actor]:
    """Return the next actors of a name, and of a key if one is given, newest first.

    The living and the destroyed have an index each, so each page is read from both and merged.
    """
    sources = [_living(namespace, name)]
    if include_destroyed:
        sources.append(_destroyed(namespace, name))
    pages = [_newest_first(rows if key is None else rows.filter(key=key), limit, after) for rows in sources]
    return list(merge(*pages, key=lambda actor: (actor.created_at, actor.pk), reverse=True))[:limit]


def choose_actors(
    *,
    namespace: Namespace,
    ids: Collection[str] | None = None,
    name: str | None = None,
    key: str | None = None,
    pool_name: str | None = None,
    status: str | None = None,
    living: bool = True,
) -> QuerySet[Actor]:
    """Return the actors of a namespace to which all that is given applies, newest first."""
    given = {"pk__in": ids, "name": name, "key": key, "pool_name": pool_name, "status": status}
    rows = Actor.objects.defer(*_NOT_SHOWN).filter(namespace=namespace)
    rows = rows.filter(**{column: value for column, value in given.items() if value is not None})
    return (rows.filter(destroyed_at=None) if living else rows).order_by("-created_at", "-pk")


def actors_json(actors: Sequence[Actor]) -> list[dict[str, Any]]:
    """Return the actors as the API shows them, in their order."""
    waiting = {(actor.namespace_id, actor.pool_name) for actor in actors if _has_no_capacity(actor)}
    errors = pool_errors(waiting)
    return [actor_json(actor, errors.get((actor.namespace_id, actor.pool_name))) for actor in actors]


def actor_json(actor: Actor, pool_error: Any = None) -> dict[str, Any]:
    """Return the actor as the API shows it; `error` only if there is one.

    `pool_error` is the active error of its pool, told in place of a mere lack of capacity.
    """
    backed_off = actor.status in (Actor.Status.BACKOFF, Actor.Status.DESTROYED)
    shown = {
        "actor_id": actor.pk,
        "name": actor.name,
        "key": actor.key,
        "namespace_id": actor.namespace_id,
        "datacenter": datacenters.NAME,
        "runner_name_selector": actor.pool_name,
        "crash_policy": actor.crash_policy,
        "create_ts": to_ms(actor.created_at),
        "start_ts": to_optional_ms(actor.started_at),
        "connectable_ts": to_optional_ms(actor.connectable_at),
        "sleep_ts": to_optional_ms(actor.slept_at),
        "pending_allocation_ts": to_optional_ms(actor.pending_at),
        "reschedule_ts": to_optional_ms(actor.state_due_at) if backed_off else None,
        "destroy_ts": to_optional_ms(actor.destroyed_at),
    }
    error = _error_json(actor, pool_error)
    return shown if error is None else shown | {"error": error}


def _error_json(actor: Actor, pool_error: Any) -> Any:
    if actor.failure is None:
        return None
    kind = FailureKind(actor.failure["kind"])
    match kind:
        case FailureKind.NO_CAPACITY:
            return kind.value if pool_error is None else {"runner_pool_error": pool_error}
        case FailureKind.CRASHED:
            return {kind.value: {"message": actor.failure["message"]}}
        case FailureKind.INTERNAL_ERROR:
            return kind.value
        case _:
            return {kind.value: {"runner_id": actor.failure["runner_id"]}}


def _has_no_capacity(actor: Actor) -> bool:
    return actor.failure is not None and actor.failure["kind"] == FailureKind.NO_CAPACITY.value


def _living(namespace: Namespace, name: str) -> QuerySet[Actor]:
    return Actor.objects.defer(*_NOT_SHOWN).filter(namespace=namespace, name=name, destroyed_at=None)


def _destroyed(namespace: Namespace, name: str) -> QuerySet[Actor]:
    rows = Actor.objects.defer(*_NOT_SHOWN)
    return rows.filter(namespace=namespace, name=name, destroyed_at__isnull=False)


def _newest_first(rows: QuerySet[Actor], limit: int, after: Position | None) -> list[Actor]:
    if after is not None:
        rows = rows.filter(after.older)
    return list(rows.order_by("-created_at", "-pk")[:limit])
