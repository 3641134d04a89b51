"""Who may call which actor: the check of a request's token, without a query where it was made before (API §1.3).

The token is that of the path (`ID@TOKEN`, or the parameter `rvt-token`), else of `x-rivet-token`, else of the
subprotocol `rivet_token.TOKEN`.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from django.conf import settings

from actors.models import Actor
from gateway.errors import ActorNotFound
from gateway.routing import Target
from orchestrator import doorkeeper
from orchestrator.access import Right
from orchestrator.db import run_db
from orchestrator.errors import Forbidden, OrchestratorError
from orchestrator.ids import is_id

logger = logging.getLogger(__name__)

ROUND_SECONDS = 5.0
"""Between two looks at the tokens of those who stay: WebSockets, and answers that are streamed."""
GUESTS_AT_ONCE = 500
"""So many are looked at before other connections get their turn."""
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


@contextmanager
def attended(target: Target, dismiss: Callable[[OrchestratorError], None]) -> Iterator[None]:
    """Look again and again, for as long as the block, whether the bearer of the target's token may still call it.

    One whose token was revoked or has expired is dismissed, once, with the reason.
    """
    if not settings.ENV.auth_required:
        yield
        return
    guest = _Guest(target, dismiss)
    _guests.add(guest)
    _attend()
    try:
        yield
    finally:
        _guests.discard(guest)


@dataclass(frozen=True, slots=True, eq=False)
class _Guest:
    target: Target
    dismiss: Callable[[OrchestratorError], None]


_guests: set[_Guest] = set()
_rounds: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Task[None]] = WeakKeyDictionary()


def _attend() -> None:
    loop = asyncio.get_running_loop()
    if loop not in _rounds or _rounds[loop].done():
        _rounds[loop] = loop.create_task(_go_round())


async def _go_round() -> None:
    """Ask everybody again, once per round; go home when nobody is left."""
    while _guests:
        await asyncio.sleep(ROUND_SECONDS)
        try:
            for number, guest in enumerate(list(_guests)):
                if number % GUESTS_AT_ONCE == 0:
                    await asyncio.sleep(0)
                await _ask_again(guest)
        except Exception:  # a database that is away for a moment costs nobody a connection
            logger.exception("tokens are not looked at", extra={"action": "tokens_not_looked_at"})


async def _ask_again(guest: _Guest) -> None:
    try:
        await admit(guest.target)
    except (Forbidden, ActorNotFound) as error:
        if guest in _guests:
            _guests.discard(guest)
            guest.dismiss(error)


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
