"""Slots and the command log of runners, inside the transaction that changes their actors.

The actor workflow locks the runners a batch touches once, in the order of their ids, then takes and gives back
slots and appends commands on the locked rows; `save` writes each row once. A slot is thereby taken in the
same transaction as the actor's row changes, and the log's order is the order of the commits.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.conf import settings
from django.db import connection

from orchestrator.statements import add, insert, lock
from runners.allocation import Candidate, allocate
from runners.models import Command, Runner
from runners.protocol import codec
from runners.protocol.messages import (
    ActorCheckpoint,
    ActorConfig,
    CommandStartActor,
    CommandStopActor,
    CommandWrapper,
    HibernatingRequest,
    ToClientCommands,
)

CANDIDATES = 100
"""Runners looked at for one allocation (PROTOCOL §4.8)."""
START_INDEX, STOP_INDEX = 0, 1
"""Command indexes within a generation (PROTOCOL §4.3)."""

_NEWEST_SERVING = """
WITH serving AS (
    SELECT id, runner_version, used_slots < total_slots AS has_free_slot FROM runners_runner
    WHERE namespace_id = %s AND name = %s AND state = 'live' AND NOT cordoned AND socket_id <> ''
    AND last_ping_at >= %s
)
SELECT runner_version, id, has_free_slot FROM serving
WHERE runner_version = (SELECT MAX(runner_version) FROM serving)
ORDER BY has_free_slot DESC, id LIMIT %s
"""
"""In SQL, as every wake asks for it: putting it together from the ORM's parts takes ten times as long."""

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
        for pool in missing:
            self._newest[pool], with_free_slots = _newest_serving(pool, self.now)
            ids += with_free_slots
        for runner in lock(Runner, ids):
            self.rows.setdefault(runner.pk, runner)
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

    def append_start(
        self,
        runner_id: str,
        actor_id: str,
        generation: int,
        config: ActorConfig,
        hibernating: tuple[HibernatingRequest, ...] = (),
    ) -> None:
        """Append StartActor to the runner's log; `hibernating` are the WebSockets the actor is to take up."""
        self._append(runner_id, Command.Kind.START, actor_id, generation, CommandStartActor(config, hibernating))

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
        changed = {runner_id: counts for runner_id, counts in self._changed.items() if any(counts)}
        add(Runner, ("used_slots", "command_seq"), changed)
        insert(self.commands)


def forget_commands(spent: Iterable[tuple[str, str, int, bool]]) -> None:
    """Delete what has taken effect: (runner id, actor id, generation, whether the generation is over).

    Any event of a generation proves that its start arrived; its end proves everything (PROTOCOL §4.4).
    """
    started: list[tuple[str, str, int]] = []
    ended: list[tuple[str, str, int]] = []
    for runner_id, actor_id, generation, over in spent:
        (ended if over else started).append((runner_id, actor_id, generation))
    of_a_life = "DELETE FROM runners_command WHERE runner_id = %s AND actor_id = %s AND generation = %s"
    with connection.cursor() as cursor:
        if started:
            cursor.executemany(f"{of_a_life} AND kind = 'start'", started)
        if ended:
            cursor.executemany(of_a_life, ended)


def _newest_serving(pool: Pool, now: datetime) -> tuple[int | None, list[str]]:
    """Return the highest version among the pool's serving runners, and those of that version with a free slot."""
    heard_of_since = now - timedelta(milliseconds=settings.ENV.runner_eligible_ms)
    with connection.cursor() as cursor:
        since = connection.ops.adapt_datetimefield_value(heard_of_since)
        cursor.execute(_NEWEST_SERVING, [*pool, since, CANDIDATES])
        found = cursor.fetchall()
    return (found[0][0] if found else None), [runner_id for _, runner_id, has_free_slot in found if has_free_slot]


def _may_serve(row: Runner, now: datetime) -> bool:
    silent = now - row.last_ping_at
    fresh = silent <= timedelta(milliseconds=settings.ENV.runner_eligible_ms)
    present = row.state == Runner.State.LIVE and row.socket_id != "" and fresh
    return present and not row.cordoned and row.total_slots > 0
