"""Slots and the command log of runners, inside the transaction that changes their actors.

The actor workflow locks the runners a batch touches once, in the order of their ids, then takes and gives back
slots and appends commands on the locked rows; `save` writes each row once. A slot is thereby taken in the
same transaction as the actor's row changes, and the log's order is the order of the commits.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import F, OuterRef, Q, QuerySet, Subquery

from runners.allocation import Candidate, allocate
from runners.models import Command, Runner
from runners.protocol import codec
from runners.protocol.messages import (
    ActorCheckpoint,
    ActorConfig,
    CommandStartActor,
    CommandStopActor,
    CommandWrapper,
    ToClientCommands,
)

CANDIDATES = 100
"""Runners looked at for one allocation (PROTOCOL §4.8)."""
START_INDEX, STOP_INDEX = 0, 1
"""Command indexes within a generation (PROTOCOL §4.3)."""

_TOGETHER = 100  # SQLite takes no more than a thousand alternatives in one statement

Pool = tuple[str, str]
"""Namespace id and name of a pool."""


@dataclass(slots=True)
class LockedRunners:
    """Runners locked by this transaction, and what changes on them."""

    now: datetime
    rows: dict[str, Runner] = field(default_factory=dict)
    commands: list[Command] = field(default_factory=list)
    _changed: dict[str, tuple[int, int]] = field(default_factory=dict)  # slots and commands to add
    _candidates: dict[Pool, list[Candidate]] = field(default_factory=dict)
    _newest: dict[Pool, int | None] = field(default_factory=dict)  # version served, of each pool

    def lock(self, runner_ids: Iterable[str], pools: Iterable[Pool]) -> None:
        """Lock runners by id and every runner that may be given actors of these pools."""
        ids = [runner_id for runner_id in runner_ids if runner_id not in self.rows]
        missing = [pool for pool in pools if pool not in self._candidates]
        if not ids and not missing:
            return
        wanted = Q(pk__in=ids)
        for pool in missing:
            wanted |= Q(pk__in=Subquery(_with_free_slots(pool, self.now)))
        newest = _of_version(OuterRef("namespace_id"), OuterRef("name"), self.now)
        rows = Runner.objects.filter(wanted).annotate(newest=Subquery(newest)).order_by("pk")
        for runner in rows.select_for_update(no_key=True, of=("self",)):
            self.rows.setdefault(runner.pk, runner)
            self._newest[runner.namespace_id, runner.name] = runner.newest
        for pool in missing:
            self._candidates[pool] = [
                Candidate(row.pk, row.total_slots, row.total_slots - row.used_slots)
                for row in self.rows.values()
                if (row.namespace_id, row.name) == pool
                and row.runner_version == self._newest[pool]
                and _may_serve(row, self.now)
            ]

    def free_slots(self, pool: Pool) -> int:
        """Return how many slots of the pool are free right now."""
        return sum(candidate.free_slots for candidate in self._candidates[pool])

    def take_slot(self, pool: Pool) -> str | None:
        """Take a slot of the pool and return its runner's id; None if there is none."""
        candidate = allocate(self._candidates[pool], random.random)
        if candidate is None:
            return None
        self._add(candidate.runner_id, slots=1)
        return candidate.runner_id

    def give_back(self, runner_id: str) -> Runner | None:
        """Give a slot back; returns the runner, with what it has left, or None if it is unknown."""
        runner = self.rows.get(runner_id)
        if runner is None:
            return None
        self._add(runner_id, slots=-1)
        for candidate in self._candidates.get((runner.namespace_id, runner.name), []):
            if candidate.runner_id == runner_id:
                candidate.free_slots += 1
        return runner

    def append_start(self, runner_id: str, actor_id: str, generation: int, config: ActorConfig) -> None:
        """Append StartActor to the runner's log."""
        self._append(runner_id, Command.Kind.START, actor_id, generation, CommandStartActor(config, ()))

    def append_stop(self, runner_id: str, actor_id: str, generation: int) -> None:
        """Append StopActor to the runner's log; nothing if the runner has ended."""
        self._append(runner_id, Command.Kind.STOP, actor_id, generation, CommandStopActor())

    def _append(
        self,
        runner_id: str,
        kind: Command.Kind,
        actor_id: str,
        generation: int,
        inner: CommandStartActor | CommandStopActor,
    ) -> None:
        runner = self.rows.get(runner_id)
        if runner is None or runner.state == Runner.State.STOPPED:
            return
        index = START_INDEX if kind is Command.Kind.START else STOP_INDEX
        wrapper = CommandWrapper(ActorCheckpoint(actor_id, generation, index), inner)
        self._add(runner_id, commands=1)
        self.commands.append(
            Command(
                runner_id=runner_id,
                seq=runner.command_seq,
                actor_id=actor_id,
                generation=generation,
                index=index,
                kind=kind,
                frame=codec.encode_to_client(ToClientCommands((wrapper,)), codec.VERSIONS[-1]),
                created_at=self.now,
            )
        )

    def _add(self, runner_id: str, slots: int = 0, commands: int = 0) -> None:
        runner = self.rows[runner_id]
        runner.used_slots += slots
        runner.command_seq += commands
        old_slots, old_commands = self._changed.get(runner_id, (0, 0))
        self._changed[runner_id] = (old_slots + slots, old_commands + commands)

    def save(self) -> None:
        """Write the changed counters and the new commands. The row's constraint refuses an oversold slot."""
        for runner_id, (slots, commands) in sorted(self._changed.items()):
            if slots or commands:
                Runner.objects.filter(pk=runner_id).update(
                    used_slots=F("used_slots") + slots, command_seq=F("command_seq") + commands
                )
        if self.commands:
            Command.objects.bulk_create(self.commands)


def forget_commands(spent: Iterable[tuple[str, str, int, bool]]) -> None:
    """Delete what has taken effect: (runner id, actor id, generation, whether the generation is over).

    Any event of a generation proves that its start arrived; its end proves everything (PROTOCOL §4.4).
    """
    everything = list(spent)
    for start in range(0, len(everything), _TOGETHER):
        ended = Q()
        for runner_id, actor_id, generation, over in everything[start : start + _TOGETHER]:
            one = Q(runner_id=runner_id, actor_id=actor_id, generation=generation)
            ended |= one if over else one & Q(kind=Command.Kind.START)
        Command.objects.filter(ended).delete()


def _serving(now: datetime) -> Q:
    heard_of_since = now - timedelta(milliseconds=settings.ENV.runner_eligible_ms)
    return Q(state=Runner.State.LIVE, last_ping_at__gte=heard_of_since) & ~Q(socket_id="")


def _may_serve(row: Runner, now: datetime) -> bool:
    silent = now - row.last_ping_at
    fresh = silent <= timedelta(milliseconds=settings.ENV.runner_eligible_ms)
    return row.state == Runner.State.LIVE and row.socket_id != "" and fresh and row.total_slots > 0


def _of_version(namespace_id: Any, name: Any, now: datetime) -> "QuerySet[Runner, Any]":
    """Return the highest version among the pool's serving runners, full ones included, as a subquery."""
    serving = Runner.objects.filter(_serving(now), namespace_id=namespace_id, name=name)
    return serving.order_by("-runner_version").values("runner_version")[:1]


def _with_free_slots(pool: Pool, now: datetime) -> "QuerySet[Runner, Any]":
    """Return the ids of runners of the pool's newest version that have a free slot, as a subquery."""
    newest = Subquery(_of_version(pool[0], pool[1], now))
    serving = Runner.objects.filter(_serving(now), namespace_id=pool[0], name=pool[1], runner_version=newest)
    return serving.filter(used_slots__lt=F("total_slots")).order_by("pk").values("pk")[:CANDIDATES]
