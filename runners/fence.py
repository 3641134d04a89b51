"""The fence around what actors write by the ORM: a higher house keeps it, and says so when Django starts."""

from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager
from typing import Any, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Owner(Protocol):
    """A life of an actor, as its Context says."""

    @property
    def actor_id(self) -> str:
        """The actor."""
        ...

    @property
    def runner_id(self) -> str:
        """The runner this life is on."""
        ...

    @property
    def generation(self) -> int:
        """Which life it is."""
        ...


class Fence(Protocol):
    """Transactions that commit only while a life owns its actor: see `actors/fencing.py`."""

    def atomic(self, ctx: Owner, *, using: str) -> AbstractContextManager[None]:
        """Return such a transaction on that database, for `with`."""
        ...

    def in_transaction(
        self, ctx: Owner, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, T]:
        """Run a function in such a transaction, in a database thread."""
        ...


_loads: list[Callable[[], Fence]] = []


def register_fence(load: Callable[[], Fence]) -> None:
    """Have the fence be what `load` returns. It is called where actors write, as only they need it."""
    _loads.append(load)


def find_fence() -> Fence | None:
    """Return the fence; None in a process without the engine's Django apps."""
    return _loads[0]() if _loads else None
