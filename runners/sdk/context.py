"""What an actor knows about itself and may ask of the engine."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import ParamSpec, Protocol, TypeVar

from runners.fence import Fence, find_fence
from runners.sdk.errors import SdkError
from runners.sdk.home import Home
from runners.sdk.idle import KeepAwake
from runners.sdk.kv import Kv
from runners.sdk.schedule import Schedule, milliseconds
from runners.sdk.state import State
from runners.sdk.websocket import WebSocket

P = ParamSpec("P")
T = TypeVar("T")


class Wishes(Protocol):
    """What an actor may wish for; carried out by the life it belongs to."""

    def sleep(self) -> None:
        """Ask for sleep."""

    def destroy(self) -> None:
        """Ask for the end."""

    def set_alarm(self, alarm_ts_ms: int | None) -> None:
        """Replace or clear the alarm, in ms since the epoch."""


@dataclass(frozen=True, slots=True, eq=False)
class Context:
    """One life of an actor: from a start to the stop that follows it.

    `key` is the serialised key (PROTOCOL §8.3) or None, `generation` grows from life to life, `input` is what the
    actor was created with, the same at every start. `runner_id` is the runner this life is on.
    """

    actor_id: str
    name: str
    key: str | None
    generation: int
    input: bytes | None
    runner_id: str
    home: Home
    wishes: Wishes

    @property
    def kv(self) -> Kv:
        """The actor's store in the engine."""
        return self.home.kv

    @property
    def state(self) -> State:
        """A small state that is kept by itself. Raises SdkError unless the actor has an `initial_state`."""
        return self.home.state

    @property
    def schedule(self) -> Schedule:
        """Calls of the actor's own methods at later times."""
        return self.home.schedule

    @property
    def sockets(self) -> tuple[WebSocket, ...]:
        """The open WebSockets, those restored after a sleep included."""
        return tuple(socket for socket in self.home.sockets if not socket.closed)

    def now(self) -> datetime:
        """Return the present moment; in tests, that of the test."""
        return self.home.clock.now()

    def sleep(self) -> None:
        """Ask the engine to put this actor to sleep. It serves on until the engine stops it, a moment later."""
        self.wishes.sleep()

    def destroy(self) -> None:
        """Ask the engine to end this actor for good. It serves on until the engine stops it, a moment later."""
        self.wishes.destroy()

    def keep_awake(self) -> KeepAwake:
        """Return a reason not to fall asleep by itself (`Actor.sleep_after`), to be used in `with` or released."""
        return self.home.idle.keep_awake()

    def atomic(self, *, using: str = "default") -> AbstractContextManager[None]:
        """Do as Django's `transaction.atomic`, for a life that owns its actor until the commit.

        For threads; in a coroutine there is `in_transaction`. The actor's row is locked meanwhile: keep it short.
        `using` names the database with the engine's tables. Raises OwnershipLost, SdkError without the engine's
        Django apps.
        """
        return _fence().atomic(self, using=using)

    async def in_transaction(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function that uses the ORM in a database thread, in a transaction as of `atomic`.

        Returns what the function returns. Raises as `atomic` does, and what the function raises: then nothing of
        it is kept.
        """
        return await _fence().in_transaction(self, work, *args, **kwargs)

    def set_alarm(self, when: datetime | None) -> None:
        """Have the engine wake this actor if it sleeps at that moment; None clears. There is one alarm per actor.

        Nothing happens at that moment while the actor is awake; `schedule` takes care of that. Raises ValueError
        for a time without its zone, TypeError if the actor has scheduled methods, which need the alarm.
        """
        if self.home.has_schedule:
            raise TypeError("the alarm of an actor with scheduled methods belongs to ctx.schedule")
        if when is not None and when.tzinfo is None:
            raise ValueError("an alarm needs a time with its zone")
        self.wishes.set_alarm(None if when is None else milliseconds(when))


def _fence() -> Fence:
    fence = find_fence()
    if fence is None:
        raise SdkError("this needs a Django project, set up, with `actors` among its INSTALLED_APPS")
    return fence
