"""The engine of a simulated world: Redis as a model, workers that run the real pump, the sweep, the bus."""

import json
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count
from typing import Any

from django.db import connection

from actors import hosting, queue, tasks as actor_tasks
from orchestrator.workflow import mailbox
from orchestrator.workflow.lock import Found
from orchestrator.workflow.mailbox import Letter
from orchestrator.workflow.outbox import Outbox, performed_by
from orchestrator.workflow.pump import Batch, Workflow, turn
from runners import pool_tasks, tasks as runner_tasks
from tests.simulation.world import World

SHARDS = 4
BATCH = 16
LEASE_SECONDS = 3.0
SWEEP_SECONDS = 1.0
WORKFLOWS: dict[str, Workflow] = {
    workflow.name: workflow
    for workflow in (actor_tasks.WORKFLOW, runner_tasks.WORKFLOW, pool_tasks.WORKFLOW, hosting.WORKFLOW)
}
Place = tuple[str, int]
"""Workflow and shard."""


class Crash(BaseException):
    """The worker is killed here, and whatever it was doing catches no death."""


@dataclass(frozen=True)
class Entry:
    """One signal in a mailbox."""

    id: int
    letter: Letter


class Engine:
    """Mailboxes, workers, timers, pub/sub. What Redis holds can be wiped at any moment."""

    def __init__(self, world: World, after_commit: Callable[[set[str]], None]) -> None:
        self.world = world
        self.hint: Callable[[], None] = lambda: None  # a connector is told to look
        self._after_commit = after_commit
        self._mailboxes: dict[Place, list[Entry]] = defaultdict(list)
        self._ids = count()
        self._owed: dict[int, Letter] = {}  # taken from senders and not committed yet
        self._committing: list[Entry] = []
        self._locked: dict[Place, datetime] = {}
        self._timers: dict[tuple[str, str], datetime] = {}
        self._subscribers: dict[str, list[Callable[[bytes], None]]] = defaultdict(list)
        world.later(SWEEP_SECONDS, self._sweep)
        if world.faults.wipe_every:
            world.later(world.random.expovariate(1 / world.faults.wipe_every), self._wipe)

    # Redis

    def carry(self, letters: list[Letter]) -> None:
        """Put letters into their mailboxes, as `mailbox.post` does, and have a worker look."""
        for letter in letters:
            place = (letter.workflow, mailbox.shard_of(letter.key) % SHARDS)
            times = 2 if self.world.chance(self.world.faults.twice, "a signal delivered twice") else 1
            for entry in [Entry(next(self._ids), letter) for _ in range(times)]:
                self._mailboxes[place].append(entry)
                self._owed[entry.id] = letter
            if not self.world.chance(self.world.faults.lost_task, "a task lost"):
                self.world.soon(self._work, place)

    def subscribe(self, channel: str, handler: Callable[[bytes], None]) -> None:
        """Have messages of a channel delivered."""
        self._subscribers[channel].append(handler)

    def unsubscribe(self, channel: str, handler: Callable[[bytes], None]) -> None:
        """Deliver no more."""
        if handler in self._subscribers[channel]:
            self._subscribers[channel].remove(handler)

    def _publish(self, channel: str, payload: bytes) -> None:
        for handler in list(self._subscribers[channel]):
            self.world.later(0.001, self._deliver, channel, handler, payload)

    def _deliver(self, channel: str, handler: Callable[[bytes], None], payload: bytes) -> None:
        if handler in self._subscribers[channel]:
            handler(payload)

    def _wipe(self) -> None:
        faults = self.world.faults
        if not faults.wipe_every:
            return
        self.world.chance(1.0, "redis wiped")
        self._mailboxes.clear()
        self._owed.clear()
        self._timers.clear()
        self._locked.clear()
        self.world.later(self.world.random.expovariate(1 / faults.wipe_every), self._wipe)

    @property
    def lost(self) -> list[Letter]:
        """Signals that are in no mailbox and were never committed, though nobody has wiped Redis since."""
        waiting = {entry.id for entries in self._mailboxes.values() for entry in entries}
        return [letter for id_, letter in self._owed.items() if id_ not in waiting]

    # Workers

    @contextmanager
    def running(self) -> Iterator[None]:
        """Have what is posted and committed meanwhile carried on here."""
        with mailbox.carried_by(self.carry), performed_by(self._perform):
            yield

    def _work(self, place: Place) -> None:
        """Drain one batch of a mailbox: one turn of the real pump, and perhaps a second one at the same time."""
        if self._locked.get(place, self.world.now) > self.world.now:
            return
        worker = Worker(self, place)
        try:
            if found := worker.take_up():
                turn(worker.workflow, worker, found, deque())
                if self.world.chance(self.world.faults.lapsed_lease, "two workers, one batch"):
                    turn(worker.workflow, worker, found, deque())
        except Crash:  # its lease stands, so nobody drains the mailbox until that lapses
            self._locked[place] = self.world.now + timedelta(seconds=LEASE_SECONDS)
        else:
            if self._mailboxes[place]:
                self.world.soon(self._work, place)

    def waiting(self, place: Place) -> list[Entry]:
        """Return a batch of what waits in a mailbox."""
        return self._mailboxes[place][: self.world.random.randint(1, BATCH)]

    def remove(self, place: Place, ids: Sequence[int]) -> None:
        """Remove entries from a mailbox."""
        self._mailboxes[place] = [entry for entry in self._mailboxes[place] if entry.id not in ids]

    def committing(self, entries: Sequence[Entry]) -> None:
        """Note what the transaction that is about to be committed has applied."""
        self._committing = list(entries)

    def _perform(self, outbox: Outbox) -> None:
        """Follow up a commit as `Outbox.perform` does, with faults."""
        committed, self._committing = self._committing, []
        for entry in committed:
            self._owed.pop(entry.id, None)
        self._after_commit({entry.letter.key for entry in committed if entry.letter.signal["t"] == "wake"})
        faults = self.world.faults
        if self.world.chance(faults.crash_after_commit / 2, "worker killed after its commit"):
            raise Crash
        kept = lambda: not self.world.chance(faults.lost_effect, "an effect lost")  # noqa: E731
        for channel, payload in outbox.messages:
            if kept():
                self._publish(channel, payload)
        for workflow, key, due in outbox.timers:
            self._timers[workflow, key] = due
            self.world.later((due - self.world.now).total_seconds(), self._timer, workflow, key, due)
        self.carry([letter for letter in outbox.letters if kept()])
        if outbox.hints and kept():
            self.hint()
        if self.world.chance(faults.crash_after_commit / 2, "worker killed after its effects"):
            raise Crash

    # Time

    def _timer(self, workflow: str, key: str, due: datetime) -> None:
        if self._timers.get((workflow, key)) == due:
            del self._timers[workflow, key]
            self.carry([Letter(workflow, key, {"t": "tick"})])

    def _sweep(self) -> None:
        now = self.world.now
        overdue = {
            actor_tasks.WORKFLOW.name: queue.overdue(now, 500),
            runner_tasks.RUNNERS: runner_tasks.overdue(now, 500),
            pool_tasks.POOLS: pool_tasks.overdue(now, 500),
        }
        self.carry([Letter(name, key, {"t": "tick"}) for name, keys in overdue.items() for key in keys])
        for place, entries in self._mailboxes.items():
            if entries:
                self.world.soon(self._work, place)
        if pool_tasks.unclaimed(now):
            self.hint()
        self.world.later(SWEEP_SECONDS, self._sweep)


class Worker:
    """One worker's hold on one mailbox: the lease the pump asks for, and the workflow in simulated time."""

    def __init__(self, engine: Engine, place: Place) -> None:
        self._engine, self._world, self._place = engine, engine.world, place
        real = WORKFLOWS[place[0]]
        self._apply = real.apply
        self._entries: list[Entry] = []
        self.workflow = Workflow(real.name, self.apply, real.mark_poisoned)

    def take_up(self) -> Found:
        """Return the first batch of what waits, as `ShardLock.take_up` does."""
        self._entries = self._engine.waiting(self._place)
        return [(b"%d" % entry.id, _fields(entry.letter)) for entry in self._entries]

    def go_on(self, handled: Sequence[bytes]) -> Found | None:
        """Remove what was handled. There may be more, but the lease lapses after every batch."""
        self._engine.remove(self._place, [int(id_) for id_ in handled])
        return None

    def apply(self, batch: Batch, outbox: Outbox, now: datetime) -> None:
        """Apply a batch for real, at the world's time, and perhaps be killed before the commit."""
        for key, signals in batch.items():
            self._world.tell(f"{self._place[0]:8} {key[-6:]} {' '.join(_short(signal) for signal in signals)}")
        self._apply(batch, outbox, self._world.now)
        if self._world.chance(self._world.faults.crash_before_commit, "worker killed before its commit"):
            raise Crash
        self._engine.committing([entry for entry in self._entries if entry.letter.key in batch])


def _fields(letter: Letter) -> list[bytes]:
    return [b"k", letter.key.encode(), b"s", json.dumps(letter.signal).encode()]


def quick_database() -> None:
    """Let commits not wait for the disk: nothing here survives the run."""
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA synchronous=OFF")


def _short(signal: dict[str, Any]) -> str:
    if signal["t"] == "from_runner":
        return f"{signal['report']['t']}({signal['generation']}.{signal['index']})"
    return str(signal["t"])
