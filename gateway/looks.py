"""Reads of actors' rows for the gateway, and the wakes it posts. Synchronous: for database threads."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from django.db import connection

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


def look_at_many(actor_ids: Iterable[str]) -> dict[str, Look]:
    """Return what the rows say, in one query; an id that is not ours is an unknown actor."""
    wanted = list(actor_ids)
    rows = _rows(wanted)
    return {actor_id: _look(rows.get(actor_id)) for actor_id in wanted}


@dataclass(frozen=True, slots=True)
class Call:
    """A wake somebody waits for. `request` says what it is for, in the timeline.

    `again`: nothing has happened since the last wake.
    """

    actor_id: str
    request: str | None = None
    again: bool = False


def look_and_wake(calls: Sequence[Call]) -> list[Look]:
    """Return what the actors' rows say, in the order of the calls, in one query.

    A wake is posted for each that does not take traffic and is not gone; all of them in one round trip.

    Raises:
        redis.RedisError: the wakes could not be posted.
    """
    rows = _rows(call.actor_id for call in calls)
    looks: list[Look] = []
    wakes: list[mailbox.Letter] = []
    for call in calls:
        row = rows.get(call.actor_id)
        look = _look(row)
        if row is not None and not look.connectable and not look.destroyed:
            wake = encode_signal(Wake(request=call.request, again=call.again))
            wakes.append(mailbox.Letter("actors", call.actor_id, wake))
            if call.again and row.status in (Actor.Status.PENDING, Actor.Status.BACKOFF):
                look = replace(look, pool_error=_pool_error(row.namespace_id, row.pool_name))
        looks.append(look)
    mailbox.post_all(wakes)
    return looks


def explain_actor(actor_id: str) -> dict[str, Any] | None:
    """Return why the actor is where it is, for the body of a refusal; None if it is no more.

    Anybody may read it: with a runner's key one could take its place, so no key is told.
    """
    actor = Actor.objects.defer("input").filter(pk=actor_id).first()
    if actor is None:
        return None
    told = explain(actor)
    for runner in told.get("runners", ()):
        del runner["key"]
    return told


class _Row(NamedTuple):
    id: str
    status: str
    generation: int
    runner_id: str
    namespace_id: str
    pool_name: str


_SELECT = f"SELECT {', '.join(_Row._fields)} FROM actors_actor WHERE id IN"


def _rows(actor_ids: Iterable[str]) -> dict[str, _Row]:
    """Return the rows by id. In SQL, as every wake asks: the ORM takes four times as long to put it together."""
    ids = list({one for one in actor_ids if is_id(one)})
    if not ids:
        return {}
    with connection.cursor() as cursor:
        cursor.execute(f"{_SELECT} ({', '.join(['%s'] * len(ids))})", ids)
        return {row[0]: _Row(*row) for row in cursor.fetchall()}


def _look(row: _Row | None) -> Look:
    if row is None:
        return Look(exists=False)
    return Look(
        exists=True,
        destroyed=row.status == Actor.Status.DESTROYED,
        generation=row.generation,
        runner_id=row.runner_id,
        connectable=row.status == Actor.Status.RUNNING,
        starting=row.status == Actor.Status.STARTING,
    )


def _pool_error(namespace_id: str, pool_name: str) -> object:
    """Return why the pool starts no runner. An endpoint that cannot be reached once may be restarting.

    An error is shown until three starts have gone well; one that has been followed by a good start keeps nobody.
    """
    pools = RunnerConfig.objects.filter(namespace_id=namespace_id, name=pool_name, deleted_at=None)
    error, failures = pools.values_list("error", "failures").first() or (None, 0)
    unreachable = isinstance(error, dict) and "serverless_connection_error" in error
    return error if failures >= (UNREACHABLE if unreachable else 1) else None
