"""What is measured: each function takes one row's measurement on a running engine."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from benchmarks.client import Answer, Connection, ask_for, connect, get, post
from benchmarks.engine import COLD_POOL, POOL, Cpu, Engine

ABREAST = 64
STORM = 200
WAKES = 100
CREATIONS = 50
COLD_STARTS = 5
WARM_UP_SECONDS = 0.3


@dataclass(slots=True)
class Sample:
    """One row in one round: the answers, how long all took, and the CPU time spent meanwhile."""

    answers: list[Answer] = field(default_factory=list)
    seconds: float = 0.0
    cpu: Cpu = field(default_factory=dict)

    @contextmanager
    def taken_from(self, engine: Engine) -> Iterator[None]:
        """Count time and CPU while this context lasts; may be entered several times."""
        before, began = engine.cpu(), time.perf_counter()
        yield
        self.seconds += time.perf_counter() - began
        for role, used in engine.cpu().items():
            self.cpu[role] = self.cpu.get(role, 0.0) + used - before[role]


@dataclass(slots=True)
class Bench:
    """An engine with actors: `actors` in the pool of the long-lived runner, `cold_actor` in the serverless one."""

    engine: Engine
    seconds: float  # for which the warm rows last
    actors: list[str]
    cold_actor: str

    @classmethod
    def prepare(cls, engine: Engine, seconds: float) -> "Bench":
        """Create the actors and wait until all of them run, or, the cold one, sleep without a runner."""
        api = engine.cluster.api
        actors = [api.create_actor(POOL) for _ in range(STORM)]
        bench = cls(engine, seconds, actors, api.create_actor(COLD_POOL))
        for actor_id in [*actors, bench.cold_actor]:
            api.wait_running(actor_id)
        return bench

    def wait_asleep(self, actors: Sequence[str]) -> None:
        """Wait until these actors sleep."""
        for actor_id in actors:
            self.engine.cluster.api.wait_asleep(actor_id)


async def floor(bench: Bench) -> Sample:
    """A request the gateway's web process answers itself: what the server alone costs."""
    return await _warm(bench, web=0, abreast=1, path="/runners/connect")


async def warm(bench: Bench) -> Sample:
    """A request to an awake actor, one after the other, gateway and runner's socket in one process."""
    return await _warm(bench, web=0, abreast=1)


async def warm_abreast(bench: Bench) -> Sample:
    """The same, 64 at a time."""
    return await _warm(bench, web=0, abreast=ABREAST)


async def warm_apart(bench: Bench) -> Sample:
    """The same, one after the other, gateway and runner's socket in two processes."""
    return await _warm(bench, web=1, abreast=1)


async def warm_apart_abreast(bench: Bench) -> Sample:
    """The same, 64 at a time."""
    return await _warm(bench, web=1, abreast=ABREAST)


async def wake(bench: Bench) -> Sample:
    """A request to a sleeping actor whose runner is connected, one after the other."""
    sleepers = bench.actors[:WAKES]
    sample = Sample()
    async with _connections(bench, 0, 1) as [connection]:
        await _put_to_sleep(bench, connection, sleepers)
        with sample.taken_from(bench.engine):
            for actor_id in sleepers:
                sample.answers.append(await connection.ask(get(f"/gateway/{actor_id}/")))
    return sample


async def storm(bench: Bench) -> Sample:
    """A request to each of 200 sleeping actors, all at once."""
    sample = Sample()
    async with _connections(bench, 0, STORM) as connections:
        await _put_to_sleep(bench, connections[0], bench.actors)
        with sample.taken_from(bench.engine):
            asking = [c.ask(get(f"/gateway/{a}/")) for c, a in zip(connections, bench.actors, strict=True)]
            sample.answers += await asyncio.gather(*asking)
    return sample


async def cold(bench: Bench) -> Sample:
    """A request to a sleeping actor of a serverless pool without a runner: the engine calls `/start` first."""
    sample = Sample()
    for _ in range(COLD_STARTS):
        async with _connections(bench, 0, 1) as [connection]:
            await _put_to_sleep(bench, connection, [bench.cold_actor])
            await asyncio.to_thread(bench.engine.cluster.api.wait_runners, COLD_POOL, 0)
            with sample.taken_from(bench.engine):
                sample.answers.append(await connection.ask(get(f"/gateway/{bench.cold_actor}/")))
    return sample


async def create(bench: Bench) -> Sample:
    """The creation of an actor, one after the other, to the API's answer."""
    sample = Sample()
    body = {"name": "counter", "runner_name_selector": POOL, "crash_policy": "sleep"}
    request = post("/actors?namespace=default", json.dumps(body).encode())
    async with _connections(bench, 0, 1) as [connection]:
        with sample.taken_from(bench.engine):
            for _ in range(CREATIONS):
                sample.answers.append(await connection.ask(request))
    for answer in sample.answers:
        bench.engine.cluster.api.delete_actor(json.loads(answer.body)["actor"]["actor_id"])
    return sample


ROWS: dict[str, Callable[[Bench], Awaitable[Sample]]] = {
    "no tunnel": floor,
    "warm": warm,
    f"warm, {ABREAST} at a time": warm_abreast,
    "warm, 2 web processes": warm_apart,
    f"warm, 2 web, {ABREAST} at a time": warm_apart_abreast,
    "wake": wake,
    f"wake, {STORM} at once": storm,
    "cold start": cold,
    "create": create,
}
"""The rows of the table, by their names in it."""


async def _warm(bench: Bench, web: int, abreast: int, path: str | None = None) -> Sample:
    request = get(path or f"/gateway/{bench.actors[0]}/")
    sample = Sample()
    async with _connections(bench, web, abreast) as connections:
        await ask_for(WARM_UP_SECONDS, connections, request)
        with sample.taken_from(bench.engine):
            sample.answers = await ask_for(bench.seconds, connections, request)
    return sample


async def _put_to_sleep(bench: Bench, connection: Connection, actors: Sequence[str]) -> None:
    for actor_id in actors:
        await connection.ask(get(f"/gateway/{actor_id}/sleep"))
    await asyncio.to_thread(bench.wait_asleep, actors)


@asynccontextmanager
async def _connections(bench: Bench, web: int, count: int) -> AsyncIterator[list[Connection]]:
    connections = await connect(bench.engine.cluster.urls[web], count)
    try:
        yield connections
    finally:
        for connection in connections:
            connection.close()
