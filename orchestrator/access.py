"""Who may do what: the rights a token gives, and tickets, which prove a right without a row. Does no I/O.

right     READ    look at actors and runners of a namespace
          CLIENT  make, wake, call and end actors
          RUNNER  connect runners, configure pools
          ADMIN   everything, in every namespace
"""

import hashlib
import hmac
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from orchestrator.errors import Forbidden

SECRET_PREFIX = "torpor_"
"""By which people and scanners know a token."""
TICKET_PREFIX = "ticket"


class Scope(StrEnum):
    """What a namespace's token is for; it may have several."""

    READ = "read"
    CLIENT = "client"
    RUNNER = "runner"


class Right(StrEnum):
    """What is asked of whoever wants something."""

    READ = "read"
    CLIENT = "client"
    RUNNER = "runner"
    ADMIN = "admin"


GRANTS = {
    Scope.READ: frozenset({Right.READ}),
    Scope.CLIENT: frozenset({Right.READ, Right.CLIENT}),
    Scope.RUNNER: frozenset({Right.READ, Right.RUNNER}),
}


@dataclass(frozen=True, slots=True)
class Bearer:
    """Somebody with rights, in one namespace or, if that is empty, in all."""

    rights: frozenset[Right]
    namespace_id: str = ""
    namespace: str = ""

    def may(self, right: Right, namespace: str | None) -> bool:
        """Say whether it has a right in the namespace of this name; None: in whichever it belongs to."""
        return right in self.rights and (not self.namespace_id or namespace in (None, self.namespace))

    def belongs_to(self, namespace_id: str) -> bool:
        """Say whether the namespace of this id is open to it."""
        return self.namespace_id in ("", namespace_id)


ADMIN = Bearer(frozenset(Right))
"""The holder of the admin token; and everybody, where no token is asked for."""


def check(bearer: Bearer | None, right: Right, namespace: str | None) -> Bearer:
    """Return the bearer if it has the right.

    Raises:
        Forbidden: the token is nobody's (None), is another namespace's, or does not give this right.
    """
    if bearer is None or not bearer.may(right, namespace):
        raise Forbidden(reason="Invalid token")
    return bearer


def rights_of(scopes: list[str]) -> frozenset[Right]:
    """Return what the scopes of a token give together; one that is not known gives nothing."""
    known = [GRANTS[Scope(scope)] for scope in scopes if scope in set(Scope)]
    return frozenset[Right]().union(*known)


def digest(secret: str) -> str:
    """Return what is stored of a token. It is random, so that a plain hash tells nothing of it."""
    return hashlib.sha256(secret.encode()).hexdigest()


def same(one: str, other: str) -> bool:
    """Compare two secrets in constant time."""
    return hmac.compare_digest(one.encode(), other.encode())


def sign_ticket(key: bytes, *, namespace_id: str, namespace: str, expires_at: datetime) -> str:
    """Return a ticket: it lets a runner of the namespace in, and the actors it hosts call others, for a time.

    It is made of characters a subprotocol may have.
    """
    claim = f"{TICKET_PREFIX}.{namespace_id}.{namespace}.{int(expires_at.timestamp())}"
    return f"{claim}.{_signature(key, claim)}"


def read_ticket(key: bytes, ticket: str, now: datetime) -> Bearer | None:
    """Return whom a ticket lets in; None if it is none, is not ours, or has expired."""
    claim, _, signature = ticket.rpartition(".")
    parts = claim.split(".")
    if len(parts) != 4 or parts[0] != TICKET_PREFIX or not same(signature, _signature(key, claim)):
        return None
    _, namespace_id, namespace, expires = parts
    if now.timestamp() >= int(expires):
        return None
    return Bearer(GRANTS[Scope.RUNNER] | GRANTS[Scope.CLIENT], namespace_id, namespace)


def _signature(key: bytes, claim: str) -> str:
    return hmac.new(key, claim.encode(), hashlib.sha256).hexdigest()
