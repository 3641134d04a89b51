"""Transactions of actors that use the ORM, `ctx.atomic()`: they commit only while their life owns the actor.

For actors hosted in a Django project that has the engine's tables. A runner that was cut off for a while may hold
a life of an actor that lives elsewhere by now, in a later generation; what such a zombie writes through here is
rolled back.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

from django.db import DEFAULT_DB_ALIAS, transaction

from actors.models import Actor
from orchestrator.db import run_db
from runners.fence import Owner
from runners.sdk.errors import OwnershipLost

P = ParamSpec("P")
T = TypeVar("T")


@contextmanager
def atomic(ctx: Owner, *, using: str = DEFAULT_DB_ALIAS) -> Iterator[None]:
    """Do as Django's `transaction.atomic`, for a life that owns its actor until the commit. Raises OwnershipLost.

    The actor's row is locked meanwhile, so that nobody can give the actor away; the engine waits for it. Keep it
    short. `using` names the database with the engine's tables, which is where this transaction is.
    """
    with transaction.atomic(using=using):
        owned = Actor.objects.using(using).select_for_update(no_key=True)
        owned = owned.filter(pk=ctx.actor_id, runner_id=ctx.runner_id, generation=ctx.generation)
        if owned.values_list("pk").first() is None:
            raise OwnershipLost(f"generation {ctx.generation} no longer owns the actor {ctx.actor_id}")
        yield


async def in_transaction(ctx: Owner, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a function that uses the ORM in a database thread, in a transaction as of `atomic`; return what it does.

    Raises OwnershipLost, and what the function raises; either way nothing of it is kept.
    """

    def fenced() -> T:
        with atomic(ctx):
            return work(*args, **kwargs)

    return await run_db(fenced)
