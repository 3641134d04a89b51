"""One life of an actor in this runner: start, serve, finish, say goodbye (PROTOCOL §4.3, §4.6)."""

import asyncio
import enum
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeAlias

from runners.protocol.messages import (
    ActorConfig,
    ActorIntent,
    ActorIntentSleep,
    ActorIntentStop,
    ActorStateRunning,
    ActorStateStopped,
    Event,
    EventActorIntent,
    EventActorSetAlarm,
    EventActorStateUpdate,
    HibernatingRequest,
    KvRequestData,
    KvResponseData,
    StopCode,
)
from runners.sdk.actor import Actor, Registry
from runners.sdk.actor_kv import ActorKv
from runners.sdk.clock import Clock
from runners.sdk.context import Context
from runners.sdk.errors import KvError
from runners.sdk.exchange import Exchange
from runners.sdk.home import Home
from runners.sdk.kv import NO_ACTOR, Kv, KvCalls
from runners.sdk.session.budget import ABANDONED, StopBudget
from runners.sdk.socket_memory import SocketMemory
from runners.sdk.websocket_exchange import WebSocketExchange

CANCELLATION_S = 1.0  # for handlers to clean up after they were cut off
MESSAGE_CHARACTERS = 1000

Resume: TypeAlias = Callable[[bytes, bytes], WebSocketExchange]

log = logging.getLogger(__name__)


class Phase(enum.Enum):
    """Where a life stands."""

    STARTING = enum.auto()  # exchanges wait
    RUNNING = enum.auto()  # exchanges are served
    STOPPING = enum.auto()  # exchanges are finished, new ones refused
    ENDED = enum.auto()


class Life:
    """The actor object of one generation and everything it serves. `_live` is the whole story, top to bottom."""

    def __init__(
        self,
        *,
        actor_id: str,
        generation: int,
        config: ActorConfig,
        runner_id: str,
        hibernated: Sequence[HibernatingRequest],
        resume: Resume,
        registry: Registry,
        calls: KvCalls,
        clock: Clock,
        tell: Callable[["Life", Event], None],
    ) -> None:
        """`hibernated` are clients' sockets that wait for the actor; `tell` sends an event to the engine."""
        self.actor_id = actor_id
        self.generation = generation
        self.phase = Phase.STARTING
        self.asked_to_stop = False  # by the actor, and the engine has been told
        self.ended = asyncio.Event()
        self._name = config.name
        self._registry = registry
        self._tell = tell
        self._calls = calls
        self._home = Home(
            Kv(actor_id, self),
            ActorKv(actor_id, self),
            clock,
            registry.kind(config.name),
            call=self._call_scheduled,
            set_alarm=self.set_alarm,
            sleep=self.sleep,
        )
        self._ctx = Context(
            actor_id, config.name, config.key, generation, config.input, runner_id, self._home, self
        )
        self._actor: Actor | None = None
        self._early_intents: list[ActorIntent] = []
        self._resume = resume
        self._resumed = [resume(request.gateway_id, request.request_id) for request in hibernated]
        self._exchanges: dict[Exchange, None] = dict.fromkeys(self._resumed)
        self._ordered = False
        self._destroying = False
        self._muted = False
        self._stop = asyncio.Event()
        self._requests_until = self._ends_by = math.inf  # on the loop's clock
        self._limit: tuple[asyncio.Timeout, bool] | None = None

    async def run(self, former: "Life | None") -> None:
        """Live, after the former life of the same actor has ended."""
        if former is not None:
            await former.ended.wait()
        try:
            await self._live()
        finally:
            self.phase = Phase.ENDED
            self._home.silence()
            self.ended.set()

    async def _live(self) -> None:
        failure: str | None = None
        if not self._stop.is_set():
            failure = await self._start()
        if failure is None:
            await self._stop.wait()
        self.phase = Phase.STOPPING
        self._home.stop()
        await self._finish_exchanges()
        if self._actor is not None:
            failure = await self._run_hook("on_stop", self._actor.on_stop, final=True) or failure
            failure = await self._run_hook("saving", self._save, final=True) or failure
            self._home.leave()
        self._emit(EventActorStateUpdate(self._last_word(failure)))

    def accept(self, exchange: Exchange) -> None:
        """Serve the exchange now, as soon as the actor runs, or refuse it."""
        if self._stop.is_set():
            self._turn_away(exchange)
        elif self.phase is Phase.STARTING:
            self._exchanges[exchange] = None
        elif self.phase is Phase.RUNNING:
            self._serve(exchange)
        else:
            self._turn_away(exchange)

    def order_stop(self, budget: StopBudget) -> None:
        """Stop, because the engine says so."""
        self._ordered = True
        self._stop_within(budget)

    def abandon(self, *, muted: bool) -> None:
        """Stop soon, because nobody waits for this life any more; muted: and tell nobody."""
        self._muted = self._muted or muted
        self._stop_within(ABANDONED)

    def sleep(self) -> None:
        """Carry the actor's wish for sleep to the engine."""
        self._intend(ActorIntentSleep())

    def destroy(self) -> None:
        """Carry the actor's wish for its end to the engine."""
        self._intend(ActorIntentStop())

    def set_alarm(self, alarm_ts_ms: int | None) -> None:
        """Carry the actor's alarm to the engine; on_stop is a good place, too."""
        self._emit(EventActorSetAlarm(alarm_ts_ms))

    async def call(self, actor_id: str, data: KvRequestData) -> KvResponseData:
        """Carry a call to the actor's store to the engine. Raises KvError, also when this life is over.

        The engine looks at the runner only and cannot tell a former life here from this one (PROTOCOL §6.1).
        """
        if self._muted or self.phase is Phase.ENDED:
            raise KvError("this life of the actor is over")
        return await self._calls.call(actor_id, data)

    async def _start(self) -> str | None:
        """Return why the actor could not start, or None. Then it runs, unless it must stop already."""
        if self._name not in self._registry:
            log.error("there is no actor of this name", extra=self._fields("unknown_actor_name"))
            return f"this runner has no actor named {self._name!r}"
        failure = await self._run_hook("reading what is kept", self._load, final=False)
        if failure is None:
            failure = await self._run_hook("the constructor", self._create, final=False)
        if self._actor is not None:
            failure = await self._run_hook("on_start", self._actor.on_start, final=False)
        if failure is not None:
            return failure
        if not self._stop.is_set():
            self.phase = Phase.RUNNING
            self._emit(EventActorStateUpdate(ActorStateRunning()))
        for intent in self._early_intents:
            self._send_intent(intent)
        waiting, self._exchanges = self._exchanges, {}
        for exchange in waiting:
            self.accept(exchange)
        if self.phase is Phase.RUNNING:
            self._home.start()
        return None

    async def _load(self, ctx: Context) -> None:
        """Read what former lives have left, and bring back the sockets that have hibernated."""
        records = await self._home.load()
        for exchange in self._resumed:
            exchange.restore(self._home, records.pop(exchange.key, None))
        for key, record in records.items():
            exchange = self._resume(*SocketMemory.ids_of(key))
            exchange.restore(self._home, record, stale=True)
            self._exchanges[exchange] = None

    async def _save(self, ctx: Context) -> None:
        try:
            await self._home.save()
        except KvError as error:
            if str(error) != NO_ACTOR:
                raise
            log.info("the actor was destroyed, and what it kept with it", extra=self._fields("destroyed"))

    async def _call_scheduled(self, method: str, payload: Any) -> None:
        await getattr(self._actor, method)(self._ctx, payload)

    async def _create(self, ctx: Context) -> None:
        self._actor = self._registry.create(self._name)

    def _serve(self, exchange: Exchange) -> None:
        assert self._actor is not None
        exchange.begin(self._actor, self._ctx, self._home)
        if exchange.task is not None:
            self._exchanges[exchange] = None
            exchange.task.add_done_callback(lambda _: self._exchanges.pop(exchange, None))

    async def _finish_exchanges(self) -> None:
        """Let requests come to their answer as long as the budget allows; then have the gateway try elsewhere."""
        for exchange in tuple(self._exchanges):
            if exchange.task is None:
                self._turn_away(exchange)
            else:
                exchange.actor_stops(for_good=self._destroying)
        if serving := self._tasks():
            with suppress(TimeoutError):
                async with self._limited(final=False):
                    await asyncio.wait(serving)
        late = self._tasks()
        for exchange in tuple(self._exchanges):
            self._turn_away(exchange)
        if self._home.schedule.task is not None:
            self._home.schedule.task.cancel()
        if late:
            log.warning("requests were cut off", extra=self._fields("requests_cut") | {"requests": len(late)})
            await asyncio.wait(late, timeout=CANCELLATION_S)

    def _turn_away(self, exchange: Exchange) -> None:
        if self._muted:
            exchange.cut()
        else:
            exchange.refuse()

    def _tasks(self) -> list[asyncio.Task[None]]:
        tasks = [exchange.task for exchange in self._exchanges if exchange.task is not None]
        return tasks if self._home.schedule.task is None else [*tasks, self._home.schedule.task]

    async def _run_hook(self, what: str, hook: Callable[[Context], Awaitable[None]], *, final: bool) -> str | None:
        """Run a piece of the actor's own code and return how it failed, or None."""
        try:
            async with self._limited(final=final) as limit:
                await hook(self._ctx)
        except Exception as error:
            if limit.expired():
                log.warning("%s took too long", what, extra=self._fields("actor_too_slow"))
                return f"{what} took too long"
            log.exception("%s failed", what, extra=self._fields("actor_failed"))
            return f"{what} failed: {type(error).__name__}: {error}"[:MESSAGE_CHARACTERS]
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            log.exception("%s was cancelled from within", what, extra=self._fields("actor_failed"))
            return f"{what} was cancelled from within"
        return None

    @asynccontextmanager
    async def _limited(self, *, final: bool) -> AsyncIterator[asyncio.Timeout]:
        """Bound what is inside by a deadline that a stop, or a more urgent one, moves nearer meanwhile."""
        async with asyncio.timeout_at(self._deadline(final)) as limit:
            self._limit = (limit, final)
            try:
                yield limit
            finally:
                self._limit = None

    def _deadline(self, final: bool) -> float | None:
        moment = self._ends_by if final else self._requests_until
        return None if moment == math.inf else moment

    def _stop_within(self, budget: StopBudget) -> None:
        now = asyncio.get_running_loop().time()
        self._requests_until = min(self._requests_until, now + budget.requests_s)
        self._ends_by = min(self._ends_by, now + budget.total_s)
        self._stop.set()
        if self._limit is not None and not self._limit[0].expired():
            limit, final = self._limit
            limit.reschedule(self._deadline(final))

    def _intend(self, intent: ActorIntent) -> None:
        if self.phase is Phase.STARTING:
            self._early_intents.append(intent)  # an engine takes Running, if it came later, for a change of mind
        elif self.phase is Phase.RUNNING:
            self._send_intent(intent)

    def _send_intent(self, intent: ActorIntent) -> None:
        self.asked_to_stop = True
        self._destroying = self._destroying or isinstance(intent, ActorIntentStop)
        self._emit(EventActorIntent(intent))

    def _emit(self, event: Event) -> None:
        if not self._muted and self.phase is not Phase.ENDED:
            self._tell(self, event)

    def _last_word(self, failure: str | None) -> ActorStateStopped:
        """Return the end of this life as the engine must see it: OK means that the end was meant.

        Without an order of the engine, or a wish of the actor to be destroyed, OK would destroy the actor
        (PROTOCOL §4.6); so an actor let go is an error, and its crash policy decides.
        """
        if failure is None and not self._ordered:
            failure = "the runner could not keep the actor"
        meant = failure is None or self._destroying
        return ActorStateStopped(StopCode.OK if meant else StopCode.ERROR, failure)

    def _fields(self, action: str) -> dict[str, object]:
        return {"action": action, "actor_id": self.actor_id, "generation": self.generation}
