"""Actors over HTTP (API §3)."""

import base64
from typing import Any

from django.http import HttpRequest
from ninja import Router

from actors import selectors, services, storage
from actors.budget import budgets
from actors.errors import ActorNotFound, InvalidInput, TooManyActorIds
from actors.explain import explain
from actors.lifecycle import CrashPolicy
from actors.models import Actor
from actors.schemas import (
    ActorBody,
    ActorNames,
    ActorNamesQuery,
    ActorOfKey,
    Actors,
    ActorsQuery,
    Explanation,
    KeyedActorBody,
    NewActor,
    StoredValue,
    TimelineAnswer,
    TimelineQuery,
)
from actors.selectors import actor_json, actors_json
from actors.timeline import actor_timeline
from orchestrator.api.schemas import Done, pagination
from orchestrator.api.strict import FromBody, FromQuery, InNamespace, Nothing, PathId, PathText
from orchestrator.api.token import CLIENT, READ
from orchestrator.datacenters import check_datacenters
from orchestrator.errors import BadRequest
from orchestrator.moments import from_ms
from orchestrator.namespaces import find_namespace
from orchestrator.paging import Position
from orchestrator.pictures import entry_json, mermaid
from runners.selectors import list_actor_names, names_json

MAX_IDS = 32

router = Router(tags=["actors"])


@router.post("/actors", auth=CLIENT, response=NewActor, exclude_unset=True, operation_id="actors_create")
def create_actor(request: HttpRequest, query: FromQuery[InNamespace], body: FromBody[ActorBody]) -> dict[str, Any]:
    """Create an actor and start it; the answer does not wait for the start."""
    namespace = find_namespace(query.namespace)
    check_datacenters([body.datacenter])
    actor = services.create_actor(
        namespace=namespace,
        name=body.name,
        key=body.key,
        input_base64=body.input,
        pool_name=body.runner_name_selector,
        crash_policy=CrashPolicy(body.crash_policy),
    )
    return {"actor": actor_json(actor)}


@router.put("/actors", auth=CLIENT, response=ActorOfKey, exclude_unset=True, operation_id="actors_get_or_create")
def get_or_create_actor(
    request: HttpRequest, query: FromQuery[InNamespace], body: FromBody[KeyedActorBody]
) -> dict[str, Any]:
    """Return the living actor that holds a key, creating it if there is none. One that sleeps is not woken."""
    namespace = find_namespace(query.namespace)
    check_datacenters([body.datacenter])
    actor, created = services.get_or_create_actor(
        namespace=namespace,
        name=body.name,
        key=body.key,
        input_base64=body.input,
        pool_name=body.runner_name_selector,
        crash_policy=CrashPolicy(body.crash_policy),
    )
    [shown] = [actor_json(actor)] if created else actors_json([actor])
    return {"actor": shown, "created": created}


@router.get("/actors", auth=READ, response=Actors, exclude_unset=True, operation_id="actors_list")
def list_actors(request: HttpRequest, query: FromQuery[ActorsQuery]) -> dict[str, Any]:
    """List actors by ids, by name, or by name and key; newest first."""
    ids = _checked_ids(query)
    by_key = query.key is not None and not query.include_destroyed
    cursor = None if by_key and not ids else query.cursor  # at most one actor: there is no next page to ask for
    after = Position.newest_first(cursor) if cursor is not None else None
    namespace = find_namespace(query.namespace)
    if ids:
        rows = selectors.list_actors_by_id(
            namespace=namespace,
            ids=ids,
            include_destroyed=query.include_destroyed,
            limit=query.limit,
            after=after,
        )
    else:
        rows = selectors.list_actors(
            namespace=namespace,
            name=query.name or "",
            key=query.key,
            include_destroyed=query.include_destroyed,
            limit=query.limit,
            after=after,
        )
    return _page(rows)


@router.get("/actors/names", auth=READ, response=ActorNames, operation_id="actors_list_names")
def list_names(request: HttpRequest, query: FromQuery[ActorNamesQuery]) -> dict[str, Any]:
    """List every name an actor of the namespace ever had, and those announced by runners."""
    namespace = find_namespace(query.namespace)
    names = list_actor_names(namespace=namespace, limit=query.limit, after=query.cursor)
    return {"names": names_json(names), "pagination": {"cursor": names[-1].name if names else None}}


@router.delete("/actors/{actor_id}", auth=CLIENT, response=Done, operation_id="actors_delete")
def delete_actor(request: HttpRequest, actor_id: PathId, query: FromQuery[InNamespace]) -> dict[str, Any]:
    """Destroy an actor; the answer comes when it is destroyed, whatever its runner does."""
    services.destroy_actor(actor=_actor(actor_id, query))
    return {}


@router.post("/actors/{actor_id}/sleep", auth=CLIENT, response=Done, operation_id="actors_sleep")
def sleep_actor(
    request: HttpRequest, actor_id: PathId, query: FromQuery[InNamespace], body: FromBody[Nothing]
) -> dict[str, Any]:
    """Ask an actor to go to sleep."""
    services.sleep_actor(actor=_actor(actor_id, query))
    return {}


@router.post("/actors/{actor_id}/reschedule", auth=CLIENT, response=Done, operation_id="actors_reschedule")
def reschedule_actor(
    request: HttpRequest, actor_id: PathId, query: FromQuery[InNamespace], body: FromBody[Nothing]
) -> dict[str, Any]:
    """Ask for a fresh start of an actor."""
    services.reschedule_actor(actor=_actor(actor_id, query))
    return {}


@router.get("/actors/{actor_id}/explain", auth=READ, response=Explanation, operation_id="actors_explain")
def explain_actor(request: HttpRequest, actor_id: PathId, query: FromQuery[InNamespace]) -> dict[str, Any]:
    """Say why an actor is where it is, what was tried, and what would unblock it."""
    return {"explanation": explain(_actor(actor_id, query))}


@router.get("/actors/{actor_id}/timeline", auth=READ, response=TimelineAnswer, operation_id="actors_timeline")
def show_timeline(request: HttpRequest, actor_id: PathId, query: FromQuery[TimelineQuery]) -> dict[str, Any]:
    """Show what happened to an actor, oldest first: its newest arrows, and those of the runners that served it."""
    actor = _actor(actor_id, query)
    entries = actor_timeline(
        actor.pk,
        last=query.limit,
        generation=query.generation,
        since=None if query.since_ts is None else from_ms(query.since_ts),
        until=None if query.until_ts is None else from_ms(query.until_ts),
    )
    return {
        "arrows": [entry_json(entry) for entry in entries],
        "wakes": [wake.as_json() for wake in budgets(entries)],
        "mermaid": mermaid(entries),
    }


@router.get("/actors/{actor_id}/kv/keys/{key}", auth=READ, response=StoredValue, operation_id="actors_kv_get")
def get_value(
    request: HttpRequest, actor_id: PathId, key: PathText, query: FromQuery[InNamespace]
) -> dict[str, Any]:
    """Read one value of an actor's key-value storage, in base64 as its key; an actor that sleeps is not woken."""
    if not selectors.is_actor(actor_id):  # of all that may be wrong, the first to be told (API §3.7)
        raise ActorNotFound
    value, update_ts = storage.find_value(actor_id=_actor(actor_id, query).pk, key=_decoded_key(key))
    return {"value": base64.b64encode(value).decode(), "update_ts": update_ts}


def _decoded_key(text: str) -> bytes:
    """Return the key; the alphabet for URLs and a lack of padding are taken as well."""
    standard = text.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
    except ValueError:
        raise BadRequest(reason="key is not base64") from None


def _actor(actor_id: str, query: InNamespace) -> Actor:
    return selectors.find_actor(namespace=find_namespace(query.namespace), actor_id=actor_id)


def _checked_ids(query: ActorsQuery) -> list[str]:
    ids = [*query.actor_id, *query.actor_ids]
    if ids and (query.name is not None or query.key is not None):
        raise InvalidInput("actors are listed either by ids or by name and key")
    if not ids and query.name is None:
        raise InvalidInput("a name is needed" if query.key is not None else "ids or a name are needed")
    if len(ids) > MAX_IDS:
        raise TooManyActorIds(max=MAX_IDS, count=len(ids))
    return ids


def _page(rows: list[Actor]) -> dict[str, Any]:
    return {"actors": actors_json(rows), "pagination": pagination(rows)}
