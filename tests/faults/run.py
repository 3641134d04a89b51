"""One run: a fleet under load, faults from a seed, then quiet, then the verdict."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import psycopg

from tests.faults.checker import Evidence, check
from tests.faults.desk import Desk
from tests.faults.facts import read_facts
from tests.faults.fleet import POOLS, Fleet
from tests.faults.history import History
from tests.faults.injection import Injector
from tests.faults.load import Load
from tests.faults.recovery import one_by_one
from tests.faults.schedule import KINDS, schedule

WARM_SECONDS = 2.0
QUIET_SECONDS = 4.0
"""After the last fault the load goes on for so long."""
SETTLE_SECONDS = 45.0
"""By then everything has settled: longer than the lost threshold and what follows from it."""
UNSETTLED = """
SELECT count(*) FROM actors_actor WHERE status NOT IN ('asleep', 'destroyed', 'running') UNION ALL
SELECT count(*) FROM runners_runner WHERE state <> 'stopped' AND (state <> 'live' OR socket_id = '') UNION ALL
SELECT count(*) FROM gateway_hibernatingpair WHERE gateway_id IN
  (SELECT id FROM gateway_gatewaylease WHERE expires_at > now()) UNION ALL
SELECT count(*) FROM actors_actorstorage WHERE erase_at IS NOT NULL
"""


@dataclass
class Outcome:
    """What a run has shown."""

    seed: int
    history: History
    violations: Sequence[str]

    def __str__(self) -> str:
        seen = self.history
        counts = f"{len(seen.injected)} faults, {len(seen.operations)} operations, {len(seen.sockets)} sockets, "
        counts += f"{len(seen.late_writes)} late writes"
        return f"seed {self.seed}: {counts}, {len(self.violations)} violations"


Attack = Callable[[Injector, Desk, Load], Awaitable[None]]


def run(
    fleet: Fleet, seed: int, faults: int, seconds: float, kinds: Sequence[str] = (), fewest: int = 1
) -> Outcome:
    """Inject so many faults within so many seconds into a fleet that is up, and judge."""
    drawn = schedule(seed, faults, seconds, kinds)
    return judged(fleet, seed, lambda injector, *_: injector.carry_out(drawn), fewest)


def run_apart(fleet: Fleet, seed: int, rounds: int, kinds: Sequence[str] = ()) -> Outcome:
    """Inject each kind of fault so often, each fault when nobody feels the one before any more, and judge."""
    asked = kinds or list(KINDS)
    drawn = schedule(seed, rounds * len(asked), 0.0, asked)
    history = History()
    return judged(
        fleet,
        seed,
        lambda injector, desk, load: one_by_one(
            injector, desk, history, load.callable, fleet.cluster.workers, drawn
        ),
        history=history,
    )


def judged(
    fleet: Fleet, seed: int, attack: Attack, fewest: int = 1, history: History | None = None, calm: float = 1.0
) -> Outcome:
    """Load a fleet while it is attacked, let it come to rest, and judge."""
    history = history or History()
    asyncio.run(_load(fleet, history, attack, calm))
    with fleet.database() as database:
        _wait_until_settled(database)
        journals = [
            event | {"process": application.name}
            for application in fleet.applications
            for event in application.journal()
        ]
        pids = frozenset(application.pid for application in fleet.applications)
        ended = tuple(child.name for child in fleet.processes if not child.alive)
        history.ended_at = time.time()
        facts = read_facts(database)
    return Outcome(seed, history, check(Evidence(history, facts, journals, pids, fewest, ended)))


async def _load(fleet: Fleet, history: History, attack: Attack, calm: float) -> None:
    async with Desk(fleet.urls, history) as desk:
        load = Load(fleet.urls, fleet.direct_url, POOLS, history, calm)
        await load.start(desk)
        await asyncio.sleep(WARM_SECONDS)
        await attack(Injector(fleet, history), desk, load)
        await asyncio.sleep(QUIET_SECONDS)
        await load.stop()
        history.quiet_at = time.time()
        for web in range(len(fleet.urls)):
            await asyncio.to_thread(fleet.cluster.wait_healthy, web)
        await load.last_calls()


def _wait_until_settled(database: psycopg.Connection) -> None:
    """Wait until nothing is in between any more; what never gets there is for the checker to tell."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while any(count for (count,) in database.execute(UNSETTLED).fetchall()):
        if time.monotonic() > deadline:
            return
        time.sleep(0.2)
