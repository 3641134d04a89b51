"""python -m benchmarks.scale: how throughput grows with workers and web processes, and what is busy."""

import argparse
import asyncio
import json
import os
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from statistics import mean, median

import uvloop

from benchmarks.client import Connection, ask_for, connect, get
from benchmarks.engine import Engine, running
from benchmarks.rows import ABREAST, BIG_STORM, STORM, Bench, Sample

WARM = "warm"
MIXED = 100
_ROLES = ("web", "worker", "stores", "runner", "client")
_HEAD = ["workers", "webs", "work", "per s", "all in s", "failed", *_ROLES, "max/mean of shards"]
_SHARDS = (
    "import json; from orchestrator.workflow.mailbox import shard_of; print(json.dumps([shard_of(a) for a in {}]))"
)


@dataclass(frozen=True, slots=True)
class Line:
    """One kind of work with so many processes: medians of the rounds."""

    workers: int
    webs: int
    work: str
    samples: list[Sample]
    imbalance: float | None = None  # the longest mailbox's signals to the mean's

    def cells(self) -> list[str]:
        """Return what the table has in its columns; of each role, how many cores it has kept busy."""
        samples = self.samples
        rate = median(len(sample.answers) / sample.seconds for sample in samples)
        seconds = median(sample.seconds for sample in samples)
        failed = sum(answer.status != 200 for sample in samples for answer in sample.answers)
        cores = [f"{median(sample.cpu[role] / sample.seconds for sample in samples):.2f}" for role in _ROLES]
        shards = "" if self.imbalance is None else f"{self.imbalance:.2f}"
        counts = [str(self.workers), str(self.webs), self.work]
        return [*counts, f"{rate:.0f}", f"{seconds:.2f}", str(failed), *cores, shards]


def main() -> None:
    """Measure each combination on an engine of its own, and print a table."""
    options = _options()
    lines: list[Line] = []
    for webs in options.webs:
        for workers in options.workers:
            with running(options.server, options.store, "sdk", webs, workers, runners=webs) as engine:
                lines += uvloop.run(_measure(engine, workers, options.rounds, options.seconds))
    print(f"server {options.server}  store {options.store}  rounds {options.rounds}  cores {os.cpu_count()}\n")
    table = [_HEAD, *(line.cells() for line in lines)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))
    print("\nweb to client: cores kept busy, all processes of that kind together")


async def _measure(engine: Engine, workers: int, rounds: int, seconds: float) -> list[Line]:
    webs = len(engine.urls)
    bench = await asyncio.to_thread(Bench.prepare, engine, seconds)
    line = partial(Line, workers, webs)
    lines = [line(f"{WARM}, {ABREAST} at a time", [await _warm(bench) for _ in range(rounds)])]
    for count in (STORM, BIG_STORM):
        samples = [await _storm(bench, count) for _ in range(rounds)]
        lines.append(line(f"wake, {count} at once", samples, _imbalance(engine, bench.actors[:count])))
    return lines


async def _warm(bench: Bench) -> Sample:
    """Requests to actors of all runners, at all web processes."""
    requests = [get(f"/gateway/{actor_id}/") for actor_id in bench.actors[:MIXED]]
    connections = await _connect(bench.engine, ABREAST)
    sample = Sample()
    await ask_for(bench.seconds / 4, connections, partial(random.choice, requests))
    with sample.taken_from(bench.engine):
        sample.answers = await ask_for(bench.seconds, connections, partial(random.choice, requests))
    _close(connections)
    return sample


async def _storm(bench: Bench, count: int) -> Sample:
    """A request to each of so many sleeping actors, all at once, at all web processes."""
    actors = await asyncio.to_thread(bench.at_least, count)
    connections = await _connect(bench.engine, count)
    for actor_id in actors:
        await connections[0].ask(get(f"/gateway/{actor_id}/sleep"))
    await asyncio.to_thread(bench.wait_asleep, actors)
    sample = Sample()
    with sample.taken_from(bench.engine):
        asking = [c.ask(get(f"/gateway/{a}/")) for c, a in zip(connections, actors, strict=True)]
        sample.answers += await asyncio.gather(*asking)
    _close(connections)
    return sample


async def _connect(engine: Engine, count: int) -> list[Connection]:
    """Return so many connections, the web processes in turn."""
    places = len(engine.urls)
    shares = [await connect(url, (count + places - 1 - at) // places) for at, url in enumerate(engine.urls)]
    return [connection for share in shares for connection in share]


def _close(connections: Sequence[Connection]) -> None:
    for connection in connections:
        connection.close()


def _imbalance(engine: Engine, actors: Sequence[str]) -> float:
    """Return how many actors the fullest shard has of a storm's, to the mean."""
    assert engine.manage is not None, "this is about our own engine"
    shards = Counter(json.loads(engine.manage("shell", "-v", "0", "-c", _SHARDS.format(list(actors)))))
    return max(shards.values()) / mean(shards.values())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2, 4])
    parser.add_argument("--webs", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--server", choices=("daphne", "uvicorn"), default="uvicorn")
    parser.add_argument("--store", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="how long warm requests are sent")
    return parser.parse_args()


if __name__ == "__main__":
    main()
