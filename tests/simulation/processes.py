"""Runner processes, their sockets, and the engine's ends of them, in a simulated world."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from orchestrator.ids import new_id
from orchestrator.workflow import mailbox
from runners import channel, services
from runners.channel import Evict, LogEntry, Processed
from runners.connection import CommandCursor, Events
from runners.hosted import hosted_lives
from runners.models import Command
from runners.protocol import codec
from runners.protocol.messages import (
    ActorCheckpoint,
    ActorIntentSleep,
    ActorIntentStop,
    ActorStateRunning,
    ActorStateStopped,
    CommandStartActor,
    Event,
    EventActorIntent,
    EventActorSetAlarm,
    EventActorStateUpdate,
    EventWrapper,
    StopCode,
    ToClientCommands,
    ToServerInit,
)
from tests.simulation.engine import Engine
from tests.simulation.world import World

PING_SECONDS = 3.0
LATENCY_SECONDS = 0.0005
VERSION = 7


@dataclass
class Instance:
    """One actor in one process."""

    actor_id: str
    generation: int
    running: bool = False
    stopping: bool = False
    mute: bool = False  # it will never say running, or never stopped
    next_index: int = 0
    unacked: list[EventWrapper] = field(default_factory=list)


class Census:
    """Who lives where, in all processes. At most one copy of an actor may live (I1).

    A copy in a process that is cut off, or that never answers, is not the engine's fault: it gave that one up.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._living: dict[str, list[tuple[Instance, Process]]] = {}

    def born(self, instance: Instance, process: "Process") -> None:
        """Note a new copy, and look at those that live already."""
        copies = self._living.setdefault(instance.actor_id, [])
        for other, host in copies:
            if other.generation == instance.generation:
                self._world.fail(f"{instance.actor_id}/{instance.generation} runs twice")
            if host.is_connected and not other.mute:
                old, new = other.generation, instance.generation
                self._world.fail(f"{instance.actor_id}/{old} still runs while {new} starts")
        copies.append((instance, process))

    def died(self, instance: Instance, process: "Process") -> None:
        """Note that a copy is gone."""
        self._living[instance.actor_id].remove((instance, process))


class Process:
    """A runner's process: hosts actors as an npm client does, which trusts the engine in everything."""

    def __init__(
        self,
        world: World,
        engine: Engine,
        census: "Census",
        *,
        pool: str,
        slots: int,
        key: str | None = None,
        version: int = 1,
        on_init: Callable[[str], None] = lambda runner_id: None,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self.world, self.engine, self._census = world, engine, census
        self.pool, self.slots, self.version = pool, slots, version
        self.key = key or new_id()
        self.alive = True
        self.leaving = False
        self.runner_id = ""
        self.socket: Socket | None = None
        self.instances: dict[str, Instance] = {}
        self._on_init, self._on_end = on_init, on_end
        self._connect()

    @property
    def is_connected(self) -> bool:
        """Whether the engine can speak with it."""
        return self.alive and self.socket is not None and self.socket.open

    # The connection

    def _connect(self) -> None:
        if self.alive and self.socket is None:
            self.socket = Socket(self)

    def initialised(self, runner_id: str) -> None:
        """Take ToClientInit: another id ends every actor; the same one has every unacknowledged event repeated."""
        if self.runner_id and runner_id != self.runner_id:
            for instance in list(self.instances.values()):
                self._forget(instance, "a new runner id")
        self.runner_id = runner_id
        if self.leaving:
            self.send_stopping()
        repeated = [event for instance in self.instances.values() for event in instance.unacked]
        if repeated and self.socket:
            self.socket.hear(repeated)
        self._on_init(runner_id)

    def disconnected(self, evicted: bool) -> None:
        """Connect again, unless evicted, which ends the process."""
        self.socket = None
        if evicted:
            self.die("evicted")
        elif self.alive:
            self.world.later(self.world.random.uniform(0.1, 2.0), self._connect)

    def leave(self) -> None:
        """Go away gracefully: the engine will stop the actors and evict."""
        if self.alive and not self.leaving:
            self.leaving = True
            self.send_stopping()

    def send_stopping(self) -> None:
        """Tell the engine that this runner goes away."""
        if self.socket:
            self.socket.stopping()

    def die(self, why: str) -> None:
        """End at once, with everything in it."""
        if not self.alive:
            return
        self.alive = False
        self.world.tell(f"process  {self.key[-6:]} ends: {why}")
        for instance in list(self.instances.values()):
            self._forget(instance, why)
        if self.socket:
            socket, self.socket = self.socket, None
            self.world.later(LATENCY_SECONDS, socket.closed_by_peer)
        self._on_end()

    # Commands

    def command(self, frame: bytes) -> None:
        """Carry out commands of the engine; an unknown actor's StopActor is met with silence."""
        message = codec.decode_to_client(frame, VERSION)
        assert isinstance(message, ToClientCommands)
        for wrapper in message.commands:
            place = wrapper.checkpoint
            if isinstance(wrapper.inner, CommandStartActor):
                self._start(place.actor_id, place.generation)
            else:
                self._stop(place.actor_id, place.generation)

    def _start(self, actor_id: str, generation: int) -> None:
        old = self.instances.get(actor_id)
        if old is not None and old.generation == generation and not old.next_index:
            return  # it has not spoken yet, so the engine cannot know; a client that compares indexes ignores this
        if old is not None and old.generation >= generation:
            self.world.fail(f"{actor_id} is started as {generation} where {old.generation} lives: redelivered")
        if old is not None:
            self._forget(old, "replaced")
        self.world.tell(f"process  {self.key[-6:]} starts {actor_id[-6:]}/{generation}")
        instance = self.instances[actor_id] = Instance(actor_id, generation)
        self._census.born(instance, self)
        instance.mute = self.world.chance(self.world.faults.mute_start, "a runner never says running")
        if not instance.mute:
            self.world.later(self.world.random.uniform(0.001, 0.05), self._run, instance)

    def _run(self, instance: Instance) -> None:
        if self._has(instance):
            instance.running = True
            self._emit(instance, EventActorStateUpdate(ActorStateRunning()))
            self._live_on(instance)

    def _live_on(self, instance: Instance) -> None:
        """Decide what this life will do by itself."""
        draw = self.world.random.random()
        seconds = self.world.random.uniform(0.05, 6.0)
        if draw < 0.5:
            self.world.later(seconds, self.intend, instance, EventActorIntent(ActorIntentSleep()))
        elif draw < 0.55:
            self.world.later(seconds, self._crash, instance)
        elif draw < 0.57:
            self.world.later(seconds, self.intend, instance, EventActorIntent(ActorIntentStop()))
        if self.world.random.random() < 0.2:
            at = self.world.now + timedelta(seconds=self.world.random.uniform(-1, 15))
            self.intend(instance, EventActorSetAlarm(int(at.timestamp() * 1000)))

    def intend(self, instance: Instance, event: Event) -> None:
        """Have an actor say what it wants."""
        if self._has(instance) and instance.running and not instance.stopping:
            self._emit(instance, event)

    def _crash(self, instance: Instance) -> None:
        if self._has(instance) and not instance.stopping:
            self._end(instance, ok=False)

    def _stop(self, actor_id: str, generation: int) -> None:
        instance = self.instances.get(actor_id)
        if instance is None or instance.generation != generation or instance.stopping:
            return
        instance.stopping = True
        instance.mute |= self.world.chance(self.world.faults.mute_stop, "a runner never says stopped")
        if not instance.mute:
            self.world.later(self.world.random.uniform(0.001, 0.3), self._end, instance, True)

    def _end(self, instance: Instance, ok: bool) -> None:
        if self._has(instance):
            code = StopCode.OK if ok and self.world.random.random() < 0.5 else StopCode.ERROR
            self._forget(instance, "stopped")
            self._emit(instance, EventActorStateUpdate(ActorStateStopped(code, None)))

    def _has(self, instance: Instance) -> bool:
        return self.alive and self.instances.get(instance.actor_id) is instance

    def _forget(self, instance: Instance, why: str) -> None:
        if self.instances.get(instance.actor_id) is instance:
            del self.instances[instance.actor_id]
            self.world.tell(f"process  {self.key[-6:]} ends {instance.actor_id[-6:]}/{instance.generation}: {why}")
            self._census.died(instance, self)

    def _emit(self, instance: Instance, event: Event) -> None:
        place = ActorCheckpoint(instance.actor_id, instance.generation, instance.next_index)
        instance.next_index += 1
        wrapper = EventWrapper(place, event)
        instance.unacked.append(wrapper)
        if self.socket:
            self.world.later(LATENCY_SECONDS, self.socket.hear, [wrapper])

    def acknowledged(self, places: list[ActorCheckpoint]) -> None:
        """Forget events, by actor id alone, as npm clients do."""
        for place in places:
            instance = self.instances.get(place.actor_id)
            if instance is not None:
                instance.unacked = [e for e in instance.unacked if e.checkpoint.index > place.index]


class Socket:
    """The engine's end of a runner's connection: what `conversation.py` does, with the same pure parts."""

    def __init__(self, process: Process) -> None:
        self.process, self.world, self.engine = process, process.world, process.engine
        self.id = new_id()
        self.open = True
        self._stopping = False
        self._pong_at = self.world.now
        init = ToServerInit(process.pool, process.version, process.slots, None, None)
        registration = services.register_runner(
            namespace_name="default",
            key=process.key,
            init=init,
            protocol_version=VERSION,
            socket_id=self.id,
            now=self.world.now,
        )
        self.runner_id = registration.runner_id
        self._grace_ms = int(registration.drain_grace.total_seconds() * 1000)
        self.events = Events(self.runner_id, silent_since=registration.seen_at if registration.reused else None)
        self.cursor = CommandCursor(held=registration.reused)
        self._comparisons = 0
        self.world.tell(f"socket   {self.runner_id[-6:]} connected, reused={registration.reused}")
        self.engine.subscribe(channel.runner_channel(self.runner_id), self._on_bus)
        self._post({"t": "connected", "socket_id": self.id})
        self.world.later(LATENCY_SECONDS, self._send_init)
        self.world.later(PING_SECONDS, self._ping)

    def _send_init(self) -> None:
        if not self._reaches():
            return
        self.process.initialised(self.runner_id)
        if self.cursor.held:
            self.world.later(2 * LATENCY_SECONDS, self._release)
        else:
            self._read_log()

    def _reaches(self) -> bool:
        return self.open and self.process.alive and self.process.socket is self

    # From the runner

    def hear(self, events: list[EventWrapper]) -> None:
        """Take events of the runner."""
        if self.open:
            for actor_id, signal in self.events.hear(events, self.world.now):
                mailbox.post("actors", actor_id, signal)

    def stopping(self) -> None:
        """Take ToServerStopping."""
        if self.open:
            self._stopping = True
            self._post({"t": "drain", "grace_ms": self._grace_ms, "by": "runner"})

    def closed_by_peer(self) -> None:
        """Note that the connection is gone."""
        if self.open:
            self.open = False
            self.engine.unsubscribe(channel.runner_channel(self.runner_id), self._on_bus)
            services.disconnect(runner_id=self.runner_id, socket_id=self.id)

    # From the engine

    def _on_bus(self, payload: bytes) -> None:
        match channel.decode(payload):
            case LogEntry(seq, frame):
                if self.cursor.next_is(seq):
                    self._send(frame)
                elif self.cursor.behind:
                    self._read_log()
            case Processed(events):
                self.events.processed(events)
                acks = self.events.take_acks()
                if acks and self._reaches():
                    self.world.later(LATENCY_SECONDS, self.process.acknowledged, acks)
            case Evict(keep) if keep != self.id:
                if not keep or not services.holds_socket(runner_id=self.runner_id, socket_id=self.id):
                    self.evict()

    def evict(self) -> None:
        """Close with `ws.eviction`; the runner does not come back."""
        reached = self._reaches()
        self.closed_by_peer()
        if reached:
            self.process.disconnected(evicted=True)

    def cut(self) -> None:
        """Lose the connection; each side notices."""
        reached = self._reaches()
        self.closed_by_peer()
        if reached:
            self.process.disconnected(evicted=False)

    def _send(self, frame: bytes) -> None:
        message = codec.decode_to_client(frame, VERSION)
        assert isinstance(message, ToClientCommands)
        for wrapper in message.commands:
            if isinstance(wrapper.inner, CommandStartActor):
                self.events.start(wrapper.checkpoint.actor_id, wrapper.checkpoint.generation)
        self.world.later(LATENCY_SECONDS, self._arrive, frame)

    def _arrive(self, frame: bytes) -> None:
        if self._reaches():
            self.process.command(frame)

    def _read_log(self) -> None:
        newest, log = services.command_log(runner_id=self.runner_id, after_seq=self.cursor.sent_seq)
        for command in log:
            self._send(bytes(command.frame))
        self.cursor.skip_to(newest)

    def _release(self) -> None:
        """Send a runner that was known what it has not had, once it has repeated what it has to say."""
        if not self._reaches():
            return
        for actor_id, signal in self.events.returned(self.world.now):
            mailbox.post("actors", actor_id, signal)
        newest, log = services.command_log(runner_id=self.runner_id, after_seq=self.cursor.sent_seq)
        for command in log:
            place = (command.actor_id, command.generation)
            if command.kind == Command.Kind.STOP or place not in self.events.seen:
                self._send(bytes(command.frame))
        self.cursor.held = False
        self.cursor.skip_to(newest)
        self._compare()
        self._comparisons = 2

    def _compare(self) -> None:
        """Tell the actors that a returned runner has forgotten."""
        for actor_id, generation in sorted(hosted_lives(self.runner_id) - self.events.seen):
            lost = {"t": "missing", "runner_id": self.runner_id, "generation": generation}
            mailbox.post("actors", actor_id, lost)

    def _ping(self) -> None:
        if not self.open:
            return None
        if self._reaches():
            self._pong_at = self.world.now
        silent_ms = int((self.world.now - self._pong_at).total_seconds() * 1000)
        if silent_ms > 15_000:
            return self.cut()
        standing = services.heartbeat(
            runner_id=self.runner_id, socket_id=self.id, silent_ms=silent_ms, rtt_ms=1, now=self.world.now
        )
        if standing is None:
            return self.evict()
        self.cursor.heard_seq = max(self.cursor.heard_seq, standing.newest_seq)
        if self.cursor.behind:
            self._read_log()
        if self._comparisons:
            self._comparisons -= 1
            self._compare()
        if self._stopping and not standing.drains:
            self._post({"t": "drain", "grace_ms": self._grace_ms, "by": "runner"})
        for actor_id, signal in self.events.repeat(timedelta(seconds=PING_SECONDS / 3), self.world.now):
            mailbox.post("actors", actor_id, signal)
        self.world.later(PING_SECONDS, self._ping)
        return None

    def _post(self, signal: dict[str, Any]) -> None:
        mailbox.post("runners", self.runner_id, signal)
