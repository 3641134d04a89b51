"""Namespaces: made, found and listed (API §7)."""

import re
from collections.abc import Iterable
from typing import Any

from django.db import IntegrityError, transaction

from orchestrator.contention import again
from orchestrator.errors import NamespaceInvalid, NamespaceNotFound, NamespaceNotUnique
from orchestrator.models import Namespace
from orchestrator.moments import to_ms
from orchestrator.paging import Position

DEFAULT = "default"
MAX_NAME = 64
MAX_DISPLAY_NAME_BYTES = 128

_NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_DISPLAY_NAME = re.compile(r"\S+(?: \S+)*")


@again
def create_namespace(*, name: str, display_name: str) -> Namespace:
    """Store a namespace.

    Raises:
        NamespaceInvalid: the names are not allowed; `reason` says which and why.
        NamespaceNotUnique: the name is taken.
    """
    _check(name, display_name)
    try:
        with transaction.atomic():
            return Namespace.objects.create(name=name, display_name=display_name)
    except IntegrityError:
        raise NamespaceNotUnique from None


def find_namespace(name: str) -> Namespace:
    """Return the namespace of this name, or raise NamespaceNotFound."""
    namespace = Namespace.objects.filter(name=name).first()
    if namespace is None:
        raise NamespaceNotFound
    return namespace


def list_namespaces(limit: int, after: Position | None) -> list[Namespace]:
    """Return the next namespaces, oldest first."""
    rows = Namespace.objects.order_by("created_at", "id")
    if after is not None:
        rows = rows.filter(after.newer)
    return list(rows[:limit])


def list_namespaces_by_id(ids: Iterable[str]) -> list[Namespace]:
    """Return those of these namespaces that exist, oldest first."""
    return list(Namespace.objects.filter(pk__in=set(ids)).order_by("created_at", "id"))


def namespace_json(namespace: Namespace) -> dict[str, Any]:
    """Return the namespace as the API shows it."""
    return {
        "namespace_id": namespace.pk,
        "name": namespace.name,
        "display_name": namespace.display_name,
        "create_ts": to_ms(namespace.created_at),
    }


def _check(name: str, display_name: str) -> None:
    if not name:
        raise NamespaceInvalid(reason="name too short")
    if len(name) > MAX_NAME:
        raise NamespaceInvalid(reason="name too long")
    if not _NAME.fullmatch(name):
        raise NamespaceInvalid(reason="invalid name")
    if not display_name:
        raise NamespaceInvalid(reason="display name too short")
    if len(display_name.encode()) > MAX_DISPLAY_NAME_BYTES:
        raise NamespaceInvalid(reason="display name too long")
    if not _DISPLAY_NAME.fullmatch(display_name):
        raise NamespaceInvalid(reason="invalid display name")
