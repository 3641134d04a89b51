"""One turn of the actor workflow: a batch of actors, what they have to hear, and what is to be written.

The turn holds what `tasks.py` works on: each actor's seat, the orders its lifecycle gave, the runners locked so
far, and everything that goes out when the transaction has committed.
"""

import json
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from django.db import transaction

from actors import lifecycle, storage_erasure, story
from actors.lifecycle import Effect, Signal, State
from actors.models import STATE_COLUMNS, Actor
from actors.tally import Tally, tally
from orchestrator.arrows import Arrow
from orchestrator.metrics import FAILURES, PHASE_SECONDS, RETRIES, SLEEPS, WAKES
from orchestrator.rows import save_guarded
from orchestrator.timeline import record
from orchestrator.workflow.outbox import Outbox
from orchestrator.workflow.pump import Batch
from runners.channel import LogEntry, Processed, actor_channel, encode, runner_channel
from runners.models import Runner
from runners.pools import Pool, serverless_pools
from runners.slots import LockedRunners, forget_commands

logger = logging.getLogger(__name__)

ACTORS = "actors"
"""The workflow's name."""

E = TypeVar("E", bound=Effect)


@dataclass(slots=True)
class Seat:
    """One actor in a turn: its row, its state as of now, and what it has still to hear."""

    row: Actor
    state: State
    unheard: deque[Signal]
    waits: bool = False  # for the answer to its Allocate
    called: bool = False  # by a free slot
    changed: bool = False

    @property
    def pool(self) -> Pool:
        """Namespace and name of its pool."""
        return self.row.namespace_id, self.row.pool_name

    @property
    def place(self) -> tuple[datetime, str]:
        """Its place in the queue of its pool."""
        assert isinstance(self.state, lifecycle.Pending), "only a pending actor waits for a slot"
        return self.state.since, self.row.pk

    def answer(self, signal: Signal) -> None:
        """Have it hear the answer to its Allocate before anything else."""
        self.waits = False
        self.unheard.appendleft(signal)


@dataclass(frozen=True, slots=True)
class _Heard:
    """A runner's event that a turn has to do with."""

    life: tuple[str, str, int]  # runner, actor, generation
    index: int
    stopped: bool


@dataclass(slots=True)
class Turn:
    """A batch under way, in one transaction."""

    now: datetime
    outbox: Outbox
    limits: lifecycle.Limits
    runners: LockedRunners = field(init=False)
    seats: list[Seat] = field(default_factory=list)
    orders: list[tuple[Seat, Effect]] = field(default_factory=list)
    freed: dict[Pool, int] = field(default_factory=dict)  # slots given back, by pool
    _arrows: list[Arrow] = field(default_factory=list)
    _heard: list[_Heard] = field(default_factory=list)
    _bumped: set[Pool] = field(default_factory=set)
    _messages: list[tuple[str, bytes]] = field(default_factory=list)
    _tallies: list[Tally] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.runners = LockedRunners(self.now)

    def seat(self, row: Actor, signals: Sequence[Signal]) -> None:
        """Take a locked row and its signals into the turn."""
        self.seats.append(Seat(row, row.state, deque(signals)))

    def acknowledge(self, batch: Batch) -> None:
        """Have `save` tell the runners' sockets which events are dealt with, also stale ones and strangers'."""
        for actor_id, signals in batch.items():
            for signal in signals:
                if signal["t"] == "from_runner":
                    life = (signal["runner_id"], actor_id, signal["generation"])
                    self._heard.append(_Heard(life, signal["index"], signal["report"]["t"] == "stopped"))

    def _tell_sockets(self) -> None:
        """Tell which events are dealt with: a life that is not with its runner now is over for that runner.

        What could not be decided, as the one before it is missing, is not dealt with.
        """
        lives = {(seat.row.runner_id, seat.row.pk, seat.row.generation): seat.row for seat in self.seats}
        done: dict[str, list[tuple[str, int, int, bool]]] = {}
        spent: list[tuple[str, str, int, bool]] = []
        waiting: set[str] = set()
        for heard in self._heard:
            row = lives.get(heard.life)
            if row is not None and heard.index > row.event_index:
                waiting.add(row.pk)
                continue
            runner_id, actor_id, generation = heard.life
            done.setdefault(runner_id, []).append((actor_id, generation, heard.index, row is None))
            spent.append((*heard.life, heard.stopped))
        for actor_id in waiting:
            logger.info("events wait for a lost one", extra={"action": "events_wait", "actor_id": actor_id})
        forget_commands(spent)
        for runner_id, events in done.items():
            self.outbox.publish(runner_channel(runner_id), encode(Processed(tuple(events))))

    def hear(self) -> bool:
        """Let every actor hear its signals, up to the first that asks for a slot; False if there was nothing."""
        heard = False
        for seat in self.seats:
            while seat.unheard and not seat.waits:
                self._hear(seat, seat.unheard.popleft())
                heard = True
        return heard

    def _hear(self, seat: Seat, signal: Signal) -> None:
        before = seat.state
        if isinstance(signal, lifecycle.SlotFree) and not isinstance(before, _TAKES_A_SLOT):
            self.freed[seat.pool] = self.freed.get(seat.pool, 0) + 1  # the next in the queue may have it
        after, effects = lifecycle.decide(before, signal, self.now, self.limits)
        seat.state = after
        seat.changed = seat.changed or after != before
        seat.waits = any(isinstance(effect, lifecycle.Allocate) for effect in effects)
        seat.called = isinstance(signal, lifecycle.SlotFree)
        if (counts := tally(before, signal, after, self.now, self.limits)) is not None:
            self._tallies.append(counts)
        self._arrows += story.tell(seat.row.pk, signal, before, after, effects)
        for effect in effects:
            self._note(seat, effect)

    def _note(self, seat: Seat, effect: Effect) -> None:
        match effect:
            case lifecycle.Allocate():
                return
            case lifecycle.Bump():
                self._bumped.add(seat.pool)
            case lifecycle.PublishReady(runner_id, generation):
                self._publish(seat, {"m": "ready", "runner": runner_id, "generation": generation})
            case lifecycle.PublishStopping(generation):
                self._publish(seat, {"m": "stopping", "generation": generation})
            case lifecycle.PublishStopped(generation):
                self._publish(seat, {"m": "stopped", "generation": generation})
            case lifecycle.PublishDestroyed():
                self._publish(seat, {"m": "destroyed"})
            case lifecycle.Dispatch() | lifecycle.Halt() | lifecycle.Deallocate() | lifecycle.Audit():
                self.orders.append((seat, effect))

    def _publish(self, seat: Seat, message: dict[str, Any]) -> None:
        payload = json.dumps(message, separators=(",", ":")).encode()
        self._messages.append((actor_channel(seat.row.pk), payload))

    def take_orders(self, kind: type[E]) -> list[tuple[Seat, E]]:
        """Take the orders of one kind off the list, in order."""
        taken: list[tuple[Seat, E]] = [(seat, effect) for seat, effect in self.orders if isinstance(effect, kind)]
        self.orders = [order for order in self.orders if not isinstance(order[1], kind)]
        return taken

    def lock_runners(self) -> None:
        """Lock the runners that orders name and those that may serve who waits; audit the ones asked for."""
        ids = {effect.runner_id for _, effect in self.orders if not isinstance(effect, _WITHOUT_RUNNER)}
        self.runners.lock(ids, {seat.pool for seat in self.seats if seat.waits})
        for seat, audit in self.take_orders(lifecycle.Audit):
            runner = self.runners.rows.get(audit.runner_id)
            if runner is None or runner.state == Runner.State.STOPPED:
                seen_at = self.now if runner is None else runner.last_ping_at
                seat.unheard.append(lifecycle.RunnerLost(audit.runner_id, seen_at))

    def save(self) -> None:
        """Write every changed row, slot, command and arrow, and put what follows into the outbox."""
        changed = [seat for seat in self.seats if seat.changed]
        for seat in changed:
            seat.row.state = seat.state
        save_guarded([seat.row for seat in changed], STATE_COLUMNS)
        ended = [seat.row.pk for seat in changed if isinstance(seat.state, lifecycle.Destroyed)]
        storage_erasure.mark(ended, self.outbox, self.now)
        self.runners.save()
        record(self._arrows, self.now)
        if self._tallies:
            transaction.on_commit(partial(_count, self._tallies))
        for command in self.runners.commands:
            entry = LogEntry(command.seq, bytes(command.frame))
            self.outbox.publish(runner_channel(command.runner_id), encode(entry))
        self._tell_sockets()
        for channel, payload in self._messages:
            self.outbox.publish(channel, payload)
        for seat in changed:
            if seat.row.due_at is not None and _is_prompt(seat.state):
                self.outbox.set_timer(ACTORS, seat.row.pk, seat.row.due_at)
        for pool_id in serverless_pools(self._bumped).values():
            self.outbox.post("pools", pool_id, {"t": "bump"})


def _count(tallies: Sequence[Tally]) -> None:
    for one in tallies:
        if one.wake is not None:
            WAKES.labels(*one.wake).inc()
        if one.phase is not None:
            name, seconds = one.phase
            PHASE_SECONDS.labels(name).observe(max(seconds, 0))
        if one.failure is not None:
            FAILURES.labels(one.failure).inc()
        if one.retried:
            RETRIES.inc()
        if one.slept:
            SLEEPS.inc()


_WITHOUT_RUNNER = (
    lifecycle.Allocate,
    lifecycle.Bump,
    lifecycle.PublishReady,
    lifecycle.PublishStopping,
    lifecycle.PublishStopped,
    lifecycle.PublishDestroyed,
)
_TAKES_A_SLOT = lifecycle.Created | lifecycle.Pending


def _is_prompt(state: State) -> bool:
    """Say whether the state's deadline is somebody's wish, to be met at once; others are met by the sweep."""
    match state:
        case lifecycle.Backoff() | lifecycle.Asleep():
            return True
        case lifecycle.Running(life=life):
            return life.alarm_at is not None and lifecycle.due_at(state) == life.alarm_at
        case _:
            return False
