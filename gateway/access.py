"""Who may call which actor: the check of a request's token, without a query where it was made before (API §1.3).

The token is that of the path (`ID@TOKEN`, or the parameter `rvt-token`), else of `x-rivet-token`, else of the
subprotocol `rivet_token.TOKEN`.
"""

from collections import OrderedDict

from django.conf import settings

from actors.models import Actor
from gateway.errors import ActorNotFound
from gateway.routing import Target
from orchestrator import doorkeeper
from orchestrator.access import Right
from orchestrator.db import run_db
from orchestrator.ids import is_id

CAPACITY = 100_000
"""Actors whose namespace is remembered; it never changes."""

_namespace_of: OrderedDict[str, str] = OrderedDict()


async def admit(target: Target) -> None:
    """Let whoever has the target's token call its actor; before anything is looked up, or made, for them.

    Raises:
        Forbidden: no token is given, or one that does not let its bearer call actors, or those of the namespace
            that a query names.
        ActorNotFound: there is no actor of this id, or it is in a namespace that is none of the bearer's business.
    """
    if not settings.ENV.auth_required:
        return
    if not isinstance(target.actor, str):
        await doorkeeper.authorise(Right.CLIENT, target.actor.namespace, target.token)
        return
    bearer = await doorkeeper.authorise(Right.CLIENT, None, target.token)
    if bearer.namespace_id and not bearer.belongs_to(await _namespace(target.actor)):
        raise ActorNotFound(actor_id=target.actor)


async def _namespace(actor_id: str) -> str:
    """Return the id of an actor's namespace."""
    known = _namespace_of.get(actor_id)
    if known is None:
        known = await run_db(_look_up, actor_id) if is_id(actor_id) else None
        if known is None:
            raise ActorNotFound(actor_id=actor_id)
        _namespace_of[actor_id] = known
        if len(_namespace_of) > CAPACITY:
            _namespace_of.popitem(last=False)
    return known


def _look_up(actor_id: str) -> str | None:
    return Actor.objects.filter(pk=actor_id).values_list("namespace_id", flat=True).first()
