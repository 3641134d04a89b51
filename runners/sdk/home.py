"""What an actor has beside its code: its store and what is kept there, its sockets, its reasons to stay awake."""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from runners.sdk.channel import Channel
from runners.sdk.clock import Clock
from runners.sdk.errors import SdkError
from runners.sdk.idle import IdleWatch, KeepAwake
from runners.sdk.kv import Kv
from runners.sdk.saver import PREFIX, Saver
from runners.sdk.schedule import SCHEDULES, Schedule
from runners.sdk.socket_memory import SOCKETS, SocketMemory
from runners.sdk.state import State
from runners.sdk.websocket import WebSocket


@dataclass(frozen=True, slots=True)
class Kind:
    """What an actor's class says of all its actors: see `Actor`. `methods` are those marked as scheduled."""

    initial_state: Mapping[str, Any] | None = None
    sleep_after: timedelta | None = None
    methods: frozenset[str] = frozenset()
    keeps_records: bool = False  # the SDK does, and so reads the store at each start


class ActorState:
    """The record of `ctx.state`."""

    key = PREFIX + b"state"

    def __init__(self, values: Mapping[str, Any], saver: Saver) -> None:
        self.state = State(values, lambda: saver.changed(self), saver.save)

    def value(self) -> bytes:
        """Return what is to be kept."""
        return self.state.as_json()

    def saved(self) -> None:
        """Take no notice."""


class Home:
    """The belongings of one life of an actor; `load` brings what former lives have left."""

    def __init__(
        self,
        kv: Kv,
        own_kv: Kv,
        clock: Clock,
        kind: Kind,
        *,
        call: Callable[[str, Any], Awaitable[None]],
        set_alarm: Callable[[int | None], None],
        sleep: Callable[[], None],
    ) -> None:
        """`kv` is the whole store, `own_kv` that of the actor's code.

        `call` calls a scheduled method, `set_alarm` sets the engine's alarm, `sleep` asks for sleep.
        """
        self.kv = own_kv
        self._store = kv
        self.clock = clock
        self.saver = Saver(kv, clock)
        self.idle = IdleWatch(clock, kind.sleep_after, sleep)
        self.schedule = Schedule(
            kv, clock, self.idle, methods=kind.methods, call=call, save=self.saver.save, set_alarm=set_alarm
        )
        self.has_schedule = bool(kind.methods)
        self.sockets: dict[WebSocket, None] = {}
        self._kind = kind
        self._state: ActorState | None = None

    @property
    def state(self) -> State:
        """The state of the actor. Raises SdkError if its class declares none."""
        if self._state is None:
            raise SdkError("this actor has no state: give its class an `initial_state`, if only {}")
        return self._state.state

    async def load(self) -> dict[bytes, bytes]:
        """Read what is kept, if such actors keep anything, and return the records of sockets. Raises KvError."""
        if not self._kind.keeps_records:
            return {}
        records = dict(await self._store.list(PREFIX))
        if self._kind.initial_state is not None:
            kept = records.get(ActorState.key)
            if kept is not None:
                self.saver.stored(ActorState.key, kept)
            initial = json.loads(json.dumps(self._kind.initial_state))  # a copy, down to what is inside
            self._state = ActorState(initial | json.loads(kept or b"{}"), self.saver)
        self.schedule.load({key: value for key, value in records.items() if key.startswith(SCHEDULES)})
        return {key: value for key, value in records.items() if key.startswith(SOCKETS)}

    def start(self) -> None:
        """Begin to make scheduled calls, and to watch for idleness."""
        self.schedule.start()
        self.idle.start()

    def stop(self) -> None:
        """Begin nothing any more."""
        self.schedule.stop()
        self.idle.stop()

    async def save(self) -> None:
        """Save for the last time, whether or not a change was noticed. Raises KvError."""
        if self._state is not None:
            self.saver.changed(self._state)
        for socket in self.sockets:
            if socket.memory is not None:
                self.saver.changed(socket.memory)
        await self.saver.finish()

    def leave(self) -> None:
        """Have the engine's alarm wake the actor for its next scheduled call."""
        self.schedule.leave()

    def silence(self) -> None:
        """Say nothing more on sockets that hibernate."""
        for socket in self.sockets:
            socket.silence()

    async def remember(self, socket: WebSocket, channel: Channel, awake: KeepAwake) -> None:
        """Have the socket outlast this life, from now on. Raises KvError."""
        memory = SocketMemory(channel, socket.request, self.saver, awake)
        self.saver.changed(memory)
        await self.saver.save()
        socket.keep_in(memory)

    def restore(self, socket: WebSocket, channel: Channel, awake: KeepAwake, record: bytes) -> None:
        """Bring the socket to where its record says it was."""
        memory = SocketMemory.of_json(channel, self.saver, awake, record)
        self.saver.stored(memory.key, record)
        socket.request = memory.request
        socket.restored = True
        socket.keep_in(memory)
