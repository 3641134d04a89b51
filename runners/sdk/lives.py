"""The lives of all actors in this runner, by actor id."""

import asyncio
from collections.abc import Callable

from runners.protocol.messages import ActorCheckpoint, CommandStartActor, Event
from runners.sdk.actor import Registry
from runners.sdk.clock import Clock
from runners.sdk.kv import KvCalls
from runners.sdk.life import Life, Resume


class Lives:
    """Starts, finds and lets go lives. At most one per actor serves; the one before it may still be ending."""

    def __init__(
        self,
        registry: Registry,
        calls: KvCalls,
        clock: Clock,
        *,
        tell: Callable[[Life, Event], None],
        ended: Callable[[Life], None],
    ) -> None:
        """`tell` sends an event of a life to the engine; `ended` hears of the end of an actor's newest life."""
        self._registry = registry
        self._calls = calls
        self._clock = clock
        self._tell = tell
        self._ended = ended
        self._newest: dict[str, Life] = {}
        self._tasks: dict[asyncio.Task[None], Life] = {}
        self._empty = asyncio.Event()
        self._empty.set()

    def start(
        self, checkpoint: ActorCheckpoint, command: CommandStartActor, runner_id: str, resume: Resume
    ) -> None:
        """Start a life. An earlier one of the same actor that is still here is let go first, without a word.

        `resume` makes the exchange of a socket that has hibernated.
        """
        former = self._newest.get(checkpoint.actor_id)
        if former is not None:
            former.abandon(muted=True)
        life = Life(
            actor_id=checkpoint.actor_id,
            generation=checkpoint.generation,
            config=command.config,
            runner_id=runner_id,
            hibernated=command.hibernating_requests,
            resume=resume,
            registry=self._registry,
            calls=self._calls,
            clock=self._clock,
            tell=self._tell,
        )
        self._newest[life.actor_id] = life
        task = asyncio.create_task(life.run(former))
        self._tasks[task] = life
        self._empty.clear()
        task.add_done_callback(self._over)

    def find(self, actor_id: str) -> Life | None:
        """Return the newest life of the actor, if it is here."""
        return self._newest.get(actor_id)

    def abandon(self, *, muted: bool) -> None:
        """Let all lives go; muted: without a word to the engine."""
        for life in self._tasks.values():
            life.abandon(muted=muted)

    async def emptied(self) -> None:
        """Wait until no life is left."""
        await self._empty.wait()

    def _over(self, task: asyncio.Task[None]) -> None:
        life = self._tasks.pop(task)
        if self._newest.get(life.actor_id) is life:
            del self._newest[life.actor_id]
            self._ended(life)
        if not self._tasks:
            self._empty.set()
        if not task.cancelled():
            task.result()  # a life never fails; if it does, the loop's handler must hear of it
