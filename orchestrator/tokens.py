"""Tokens of namespaces: made, revoked, listed, and asked for (API §1.3). One is shown once and stored hashed."""

import secrets
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction
from django.db.models import Q

from orchestrator import access, clock
from orchestrator.access import Bearer, Right, Scope
from orchestrator.errors import BadRequest, Forbidden, TokenNotFound
from orchestrator.models import AccessToken, Namespace
from orchestrator.moments import to_ms, to_optional_ms
from orchestrator.paging import Position
from orchestrator.redis import get_redis

CHANNEL = "torpor:tokens"
"""Where it is told that a token was made or revoked, so that nobody remembers it otherwise."""
MAX_LABEL = 100
SECRET_BYTES = 32
SECRET_LENGTH = len(access.SECRET_PREFIX) + -(-SECRET_BYTES * 8 // 6)
TICKET_MARGIN = timedelta(minutes=1)
"""A runner may come back until a little after the end of its request's lifespan."""


def create_token(
    *, namespace: Namespace, label: str, scopes: Iterable[str], expires_at: datetime | None = None
) -> tuple[AccessToken, str]:
    """Store a token and return its row and the token itself, which nobody can read again.

    Raises:
        BadRequest: no scope is given or one is unknown, the label is too long, or it would have expired already.
    """
    given = set(scopes)
    if not given or not given <= set(Scope):
        raise BadRequest(reason=f"scopes must be some of {', '.join(Scope)}")
    if len(label) > MAX_LABEL:
        raise BadRequest(reason=f"the name is longer than {MAX_LABEL} characters")
    if expires_at is not None and expires_at <= clock.now():
        raise BadRequest(reason="the token would have expired already")
    secret = access.SECRET_PREFIX + secrets.token_urlsafe(SECRET_BYTES)
    row = AccessToken.objects.create(
        namespace=namespace,
        label=label,
        scopes=[scope.value for scope in Scope if scope in given],
        digest=access.digest(secret),
        expires_at=expires_at,
    )
    _tell()
    return row, secret


def revoke_token(row: AccessToken) -> None:
    """Make a token worthless, now and for good. Twice is fine."""
    AccessToken.objects.filter(pk=row.pk, revoked_at=None).update(revoked_at=clock.now())
    _tell()


def find_token(*, namespace: Namespace, token_id: str) -> AccessToken:
    """Return a token of the namespace, or raise TokenNotFound."""
    row = AccessToken.objects.filter(namespace=namespace, pk=token_id).first()
    if row is None:
        raise TokenNotFound
    return row


def list_tokens(*, namespace: Namespace, limit: int, after: Position | None) -> list[AccessToken]:
    """Return the next tokens of a namespace, revoked ones too, newest first."""
    rows = AccessToken.objects.filter(namespace=namespace)
    if after is not None:
        rows = rows.filter(after.older)
    return list(rows.order_by("-created_at", "-pk")[:limit])


def token_json(row: AccessToken) -> dict[str, Any]:
    """Return the token as the API shows it: everything but what it is."""
    return {
        "token_id": row.pk,
        "namespace_id": row.namespace_id,
        "name": row.label,
        "scopes": row.scopes,
        "create_ts": to_ms(row.created_at),
        "expire_ts": to_optional_ms(row.expires_at),
        "revoke_ts": to_optional_ms(row.revoked_at),
    }


def authorise(right: Right, namespace: str | None, token: str | None) -> Bearer:
    """Return who it is that has the right in the namespace of this name; None: in any of theirs.

    Everybody may do everything where no token is asked for. Asks the database, except for the admin's token;
    where there is no time for that, `orchestrator.doorkeeper` answers the same from memory.

    Raises:
        Forbidden: no token is given (None), or one that does not give the right.
    """
    if not settings.ENV.auth_required:
        return access.ADMIN
    if token is None:
        raise Forbidden(reason="Token not provided")
    return access.check(find_bearer(token), right, namespace)


def find_bearer(token: str) -> Bearer | None:
    """Return whose token it is: the admin's, a namespace's, a ticket's; None if it is nobody's, or no longer."""
    if is_admin(token):
        return access.ADMIN
    if token.startswith(f"{access.TICKET_PREFIX}."):
        return access.read_ticket(_ticket_key(), token, clock.now())
    if len(token) != SECRET_LENGTH or not token.startswith(access.SECRET_PREFIX):
        return None  # without a question: whoever guesses shall not keep the database busy
    stored = access.digest(token)
    valid = Q(revoked_at=None) & (Q(expires_at=None) | Q(expires_at__gt=clock.now()))
    row = AccessToken.objects.select_related("namespace").filter(valid, digest=stored).first()
    if row is None or not access.same(row.digest, stored):
        return None
    return Bearer(access.rights_of(row.scopes), row.namespace_id, row.namespace.name)


def is_admin(token: str) -> bool:
    """Say whether it is the admin's token."""
    expected = settings.ENV.admin_token
    return bool(expected) and access.same(token, expected)


def ticket(*, namespace_id: str, namespace: str, lifespan: timedelta) -> str:
    """Return what a runner that we start ourselves shows when it connects; empty where nothing is asked for."""
    if not settings.ENV.auth_required:
        return ""
    if not settings.SECRET_KEY_LASTS:
        raise ImproperlyConfigured(settings.NO_SECRET_KEY)
    expires_at = clock.now() + lifespan + TICKET_MARGIN
    return access.sign_ticket(_ticket_key(), namespace_id=namespace_id, namespace=namespace, expires_at=expires_at)


def _ticket_key() -> bytes:
    return f"torpor ticket {settings.SECRET_KEY}".encode()


def _tell() -> None:
    transaction.on_commit(lambda: get_redis().publish(CHANNEL, b""), robust=True)  # a hint: `FRESH_SECONDS` else
