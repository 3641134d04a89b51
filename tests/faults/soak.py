"""python -m tests.faults.soak: a mixed load with faults now and then, and whether anything accumulates."""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import django
import psycopg

from tests.faults.slopes import Slope, slope

if TYPE_CHECKING:
    from tests.faults.fleet import Fleet

SAMPLE_SECONDS = 2.0
FAULT_SECONDS = 12.0
KINDS = ("kill worker", "kill connector", "cut runner", "kill connections", "wipe valkey", "endpoint cuts")
"""What happens now and then: nothing that replaces a process whose memory is watched too often."""
TABLES = {
    "live actors": "SELECT count(*) FROM actors_actor WHERE destroyed_at IS NULL",
    "commands": "SELECT count(*) FROM runners_command",
    "storage accounts": "SELECT count(*) FROM actors_actorstorage",
    "hibernating pairs": "SELECT count(*) FROM gateway_hibernatingpair",
    "leases": "SELECT count(*) FROM gateway_gatewaylease",
    "living runners": "SELECT count(*) FROM runners_runner WHERE state <> 'stopped'",
    "unended /start requests": "SELECT count(*) FROM runners_serverlessconnection WHERE state <> 'ended'",
}
GROWING = {
    "actors": "SELECT count(*) FROM actors_actor",
    "runners": "SELECT count(*) FROM runners_runner",
    "timeline entries": "SELECT count(*) FROM orchestrator_timelineentry",
}
"""What is kept of the past, by intention."""


def main() -> int:
    """Run for as long as asked, and print how every figure went."""
    options = argparse.ArgumentParser(description="Load an engine for a while; see whether anything accumulates.")
    options.add_argument("--minutes", type=float, default=3.0)
    options.add_argument("--seed", type=int, default=1)
    given = options.parse_args()
    os.environ |= {"DJANGO_SETTINGS_MODULE": "orchestrator.settings", "TORPOR_SECRET_KEY": "a key for tests alone"}
    django.setup()
    from tests.faults.fleet import Fleet  # once Django is ready

    directory = Path(tempfile.mkdtemp(prefix="torpor-soak-"))
    with Fleet(directory) as fleet:
        slopes = asyncio.run(soak(fleet, given.minutes * 60, given.seed))
    print(as_markdown(slopes))
    return 0


async def soak(fleet: "Fleet", seconds: float, seed: int) -> dict[str, Slope]:
    """Load a fleet for so long, with a fault now and then, and return how each figure went."""
    from tests.faults.desk import Desk
    from tests.faults.fleet import POOLS
    from tests.faults.history import History
    from tests.faults.injection import Injector
    from tests.faults.load import Load
    from tests.faults.schedule import schedule

    history = History()
    samples: dict[str, list[tuple[float, float]]] = defaultdict(list)
    async with Desk(fleet.urls, history) as desk:
        load = Load(fleet.urls, POOLS, history, calm=2.0)
        await load.start(desk)
        faults = schedule(seed, int(seconds / FAULT_SECONDS), seconds, KINDS)
        carrying_out = asyncio.create_task(Injector(fleet, history).carry_out(faults))
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for name, value in (await asyncio.to_thread(figures, fleet)).items():
                samples[name].append((time.monotonic(), value))
            await asyncio.sleep(SAMPLE_SECONDS)
        await carrying_out
        await load.stop()
    return {name: slope(taken) for name, taken in samples.items() if len(taken) > 1}


def figures(fleet: "Fleet") -> dict[str, float]:
    """Take all figures now: of processes by name, of the database and of Redis."""
    taken: dict[str, float] = {}
    for child in [*fleet.cluster.children, *fleet.applications]:
        try:
            pid = child.pid
            taken[f"{child.name} MiB"] = _rss_bytes(pid) / 1024**2
            taken[f"{child.name} files"] = len(os.listdir(f"/proc/{pid}/fd"))
            taken[f"{child.name} threads"] = len(os.listdir(f"/proc/{pid}/task"))
        except OSError:
            continue  # it is being started again
    try:
        with fleet.database() as database:
            for name, query in (TABLES | GROWING).items():
                [(count,)] = database.execute(query).fetchall()
                taken[name] = count
        with fleet.redis() as client:
            taken["redis keys"] = client.dbsize()
            taken["redis MiB"] = client.info("memory")["used_memory"] / 1024**2
    except psycopg.OperationalError:
        pass
    return taken


def _rss_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def as_markdown(slopes: dict[str, Slope]) -> str:
    """Return a table of all figures."""
    lines = ["| figure | after warming up | at the end | highest | growth in an hour |", "|---|---|---|---|---|"]
    for name, one in slopes.items():
        lines.append(f"| {name} | {one.first:.1f} | {one.last:.1f} | {one.highest:.1f} | {one.per_hour:+.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
