"""Namespaces (API §7)."""

from typing import Any

from django.http import HttpRequest
from ninja import Router
from pydantic import BaseModel

from orchestrator import namespaces
from orchestrator.api.schemas import Pagination, pagination
from orchestrator.api.strict import (
    CommaSeparated,
    FromBody,
    FromQuery,
    Id,
    Limit,
    Paged,
    Repeated,
    StrictBody,
    Text,
)
from orchestrator.api.token import READ, bearer_of
from orchestrator.errors import NamespaceNotFound
from orchestrator.models import Namespace
from orchestrator.namespaces import namespace_json
from orchestrator.paging import MAX_LIMIT, Position

router = Router(tags=["namespaces"])


class NamespaceAnswer(BaseModel):
    """A namespace."""

    namespace_id: str
    name: str
    display_name: str
    create_ts: int


class NewNamespace(BaseModel):
    """The namespace that was made."""

    namespace: NamespaceAnswer


class Namespaces(BaseModel):
    """A page of namespaces, oldest first."""

    namespaces: list[NamespaceAnswer]
    pagination: Pagination


class NamespaceBody(StrictBody):
    """What a new namespace is called."""

    name: str
    display_name: str


class NamespacesQuery(Paged):
    """All, the one of a name, or those of some ids; the name wins."""

    name: Text | None = None
    namespace_id: Repeated[Id] = []
    namespace_ids: CommaSeparated[Id] = []
    limit: Limit = MAX_LIMIT


@router.post("/namespaces", response=NewNamespace, operation_id="namespaces_create")
def create_namespace(request: HttpRequest, body: FromBody[NamespaceBody]) -> dict[str, Any]:
    """Create a namespace. It can be neither changed nor deleted."""
    namespace = namespaces.create_namespace(name=body.name, display_name=body.display_name)
    return {"namespace": namespace_json(namespace)}


@router.get("/namespaces", auth=READ, response=Namespaces, operation_id="namespaces_list")
def list_namespaces(request: HttpRequest, query: FromQuery[NamespacesQuery]) -> dict[str, Any]:
    """List namespaces, oldest first. The token of a namespace sees that one alone."""
    own = bearer_of(request).namespace_id
    if own:
        rows = _own(own, query)
    elif query.name is not None:
        rows = _named(query.name)
    elif ids := [*query.namespace_id, *query.namespace_ids]:
        rows = namespaces.list_namespaces_by_id(ids)
    else:
        after = Position.oldest_first(query.cursor) if query.cursor is not None else None
        rows = namespaces.list_namespaces(query.limit, after)
        return {"namespaces": [namespace_json(row) for row in rows], "pagination": pagination(rows)}
    return {"namespaces": [namespace_json(row) for row in rows], "pagination": {"cursor": None}}


def _own(namespace_id: str, query: NamespacesQuery) -> list[Namespace]:
    """Return the namespace, if it is among those that are asked for."""
    [own] = namespaces.list_namespaces_by_id([namespace_id])
    ids = [*query.namespace_id, *query.namespace_ids]
    wanted = own.name == query.name if query.name is not None else not ids or own.pk in ids
    return [own] if wanted else []


def _named(name: str) -> list[Namespace]:
    try:
        return [namespaces.find_namespace(name)]
    except NamespaceNotFound:
        return []
