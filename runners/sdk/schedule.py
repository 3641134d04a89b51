"""Calls of an actor's methods at later times, over the one alarm an actor has (PROTOCOL §4.7)."""

import asyncio
import json
import logging
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from runners.sdk.clock import Clock, Timer
from runners.sdk.errors import KvError
from runners.sdk.idle import IdleWatch
from runners.sdk.kv import Kv
from runners.sdk.saver import PREFIX

SCHEDULES = PREFIX + b"schedule/"
GUARD = timedelta(seconds=30)
"""How much later than needed the engine's alarm is set while the actor is awake.

An alarm that comes due while its actor runs is spent without effect (PROTOCOL §4.7). This one comes due only if
the actor has died: an engine takes about as long to notice.
"""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST_PAUSE = timedelta(seconds=1)
LONGEST_PAUSE = timedelta(hours=1)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Planned:
    """A call to be made: the method `method` with `payload`, at `at`. `attempts` counts those that failed."""

    name: str
    at: datetime
    method: str
    payload: Any
    attempts: int = 0

    @property
    def key(self) -> bytes:
        """Where it is kept."""
        return SCHEDULES + self.name.encode()

    def as_json(self) -> bytes:
        """Return it as it is kept. Raises TypeError for a payload that JSON cannot say."""
        kept = {
            "at": milliseconds(self.at),
            "method": self.method,
            "payload": self.payload,
            "attempts": self.attempts,
        }
        return json.dumps(kept, ensure_ascii=False).encode()

    @classmethod
    def of_json(cls, key: bytes, value: bytes) -> "Planned":
        """Return what `as_json` has made of it."""
        kept = json.loads(value)
        at = datetime.fromtimestamp(kept["at"] / 1000, UTC)
        name = key.removeprefix(SCHEDULES).decode()
        return cls(name, at, kept["method"], kept["payload"], kept["attempts"])


class Schedule:
    """The calls an actor has planned. Each is made at least once, and never early, whatever happens meanwhile.

    A call that raises is made again after a pause of 1 s, doubled each time up to an hour. Calls are made one
    after another; a sleeping actor is woken for them.
    """

    def __init__(
        self,
        kv: Kv,
        clock: Clock,
        idle: IdleWatch,
        *,
        methods: frozenset[str],
        call: Callable[[str, Any], Awaitable[None]],
        save: Callable[[], Awaitable[None]],
        set_alarm: Callable[[int | None], None],
    ) -> None:
        """`methods` are those marked as scheduled, `call` calls one and `save` saves what that has changed.

        `set_alarm` sets the engine's alarm (ms).
        """
        self.task: asyncio.Task[None] | None = None  # while calls are made
        self._kv = kv
        self._clock = clock
        self._idle = idle
        self._methods = methods
        self._call = call
        self._save = save
        self._set_alarm = set_alarm
        self._planned: dict[str, Planned] = {}
        self._alarm: datetime | None = None
        self._timer: Timer | None = None
        self._on = False

    @property
    def pending(self) -> tuple[Planned, ...]:
        """The calls to be made, the next one first."""
        return tuple(sorted(self._planned.values(), key=lambda planned: planned.at))

    async def at(
        self,
        when: datetime,
        method: str | Callable[..., Awaitable[None]],
        payload: Any = None,
        *,
        name: str | None = None,
    ) -> str:
        """Call the method with the payload (JSON) at that time, and return the name of this call.

        A name given replaces the call planned under it. Raises ValueError for a time without its zone and for a
        method that is not marked with `scheduled`, TypeError for a payload that JSON cannot say, KvError.
        """
        called = method if isinstance(method, str) else method.__name__
        if called not in self._methods:
            raise ValueError(f"{called!r} is no method of this actor that is marked with @scheduled")
        if when.tzinfo is None:
            raise ValueError("a call needs a time with its zone")
        planned = Planned(name or uuid.uuid4().hex, when.astimezone(UTC), called, payload)
        value = planned.as_json()
        self._guard(planned)  # first: an alarm for nothing is harmless, a call without an alarm is not made
        await self._kv.put(planned.key, value)
        self._planned[planned.name] = planned
        self._arm()
        return planned.name

    async def after(
        self,
        delay: timedelta,
        method: str | Callable[..., Awaitable[None]],
        payload: Any = None,
        *,
        name: str | None = None,
    ) -> str:
        """Do as `at`, so much later than now."""
        return await self.at(self._clock.now() + delay, method, payload, name=name)

    async def cancel(self, name: str) -> bool:
        """Forget the call of that name; return whether there was one. Raises KvError."""
        planned = self._planned.pop(name, None)
        if planned is None:
            return False
        self._arm()
        await self._kv.delete(planned.key)
        return True

    def load(self, records: Mapping[bytes, bytes]) -> None:
        """Take what was kept."""
        for key, value in records.items():
            planned = Planned.of_json(key, value)
            self._planned[planned.name] = planned

    def start(self) -> None:
        """Begin to make calls."""
        self._on = True
        self._arm()

    def stop(self) -> None:
        """Begin no further call."""
        self._on = False
        if self._timer is not None:
            self._timer.cancel()

    def leave(self) -> None:
        """Have the engine wake the actor when the next call is due: this life makes no more."""
        if self._planned:
            self._tell(self.pending[0].at)
        elif self._alarm is not None:
            self._tell(None)

    def _arm(self) -> None:
        """Look at the next call anew; while calls are made, that is done afterwards."""
        if not self._on or self.task is not None:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._planned:
            self._guard()
            self._timer = self._clock.call_at(self.pending[0].at, self._due)
        elif self._alarm is not None:
            self._tell(None)

    def _guard(self, *more: Planned) -> None:
        """Set the engine's alarm so that it matters only should this life end unseen."""
        next_at = min(planned.at for planned in (*self._planned.values(), *more))
        self._tell(max(next_at, self._clock.now()) + GUARD)

    def _tell(self, alarm: datetime | None) -> None:
        if alarm != self._alarm:
            self._alarm = alarm
            self._set_alarm(None if alarm is None else milliseconds(alarm))

    def _due(self) -> None:
        self._timer = None
        self.task = asyncio.create_task(self._make_calls())

    async def _make_calls(self) -> None:
        with self._idle.keep_awake():
            try:
                while self._on and (planned := self._first_due()) is not None:
                    await self._guarded(planned)
            finally:
                self.task = None
            self._arm()

    def _first_due(self) -> Planned | None:
        first = self.pending[0] if self._planned else None
        return first if first is not None and first.at <= self._clock.now() else None

    async def _guarded(self, planned: Planned) -> None:
        """Make one call, and move the engine's alarm on as long as it takes."""
        renewal: Timer | None = None

        def renew() -> None:
            nonlocal renewal
            self._guard(planned)
            renewal = self._clock.call_at(self._clock.now() + GUARD / 2, renew)

        renew()
        try:
            await self._make(planned)
        finally:
            if renewal is not None:
                renewal.cancel()

    async def _make(self, planned: Planned) -> None:
        try:
            await self._call(planned.method, planned.payload)
            await self._save()  # first: a call that is forgotten must not have been for nothing
        except Exception:
            pause = min(FIRST_PAUSE * 2 ** min(planned.attempts, 20), LONGEST_PAUSE)
            again = replace(planned, at=self._clock.now() + pause, attempts=planned.attempts + 1)
            log.exception(
                "a scheduled call of %s failed, the next attempt is in %g s",
                planned.method,
                pause.total_seconds(),
                extra={"action": "scheduled_call_failed"},
            )
            if self._planned.get(planned.name) is planned:
                self._planned[planned.name] = again
                await self._keep(self._kv.put(again.key, again.as_json()))
        else:
            if self._planned.get(planned.name) is planned:
                del self._planned[planned.name]
                await self._keep(self._kv.delete(planned.key))

    async def _keep(self, writing: Awaitable[None]) -> None:
        """Write down how a call went; if that fails, the next life makes the call once more."""
        try:
            await writing
        except KvError as error:
            log.error("a scheduled call cannot be noted: %s", error, extra={"action": "save_failed"})


def milliseconds(moment: datetime) -> int:
    """Return the moment in milliseconds since the epoch, rounded up: an alarm is never early."""
    return -((EPOCH - moment) // timedelta(milliseconds=1))
