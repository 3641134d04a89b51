"""What is measured: each function takes one row's measurement on a running engine."""

import asyncio
import json
import random
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import httpx

from benchmarks.client import Answer, Connection, ask_for, connect, get, post, put
from benchmarks.engine import COLD_POOL, POOL, POOL_SETTINGS, Cpu, Engine
from benchmarks.sockets import echo_for, open_sockets
from tests.support.api import Api

ABREAST = 64
HANDS = 8  # requests at a time while actors are made ready
STORM, BIG_STORM = 200, 1000
SLEEPERS, CHUNK = 1_000_000, 250_000
MIXED = 100
AMONG_MANY = f"wake, {SLEEPERS:,} asleep"
WAKES = 100
CREATIONS = 50
CROWD = 1000
COLD_STARTS = 5
WARM_UP_SECONDS = 0.3
CLEAN_UP_SECONDS = 10.0


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
    filled: bool = False

    @classmethod
    def prepare(cls, engine: Engine, seconds: float) -> "Bench":
        """Create the actors and wait until all of them run, or, the cold one, sleep without a runner."""
        api = engine.api
        bench = cls(engine, seconds, _running(api, STORM), api.create_actor(COLD_POOL))
        api.wait_running(bench.cold_actor)
        return bench

    @property
    def is_ours(self) -> bool:
        """Whether the engine is Torpor."""
        return self.engine.manage is not None

    def at_least(self, count: int) -> list[str]:
        """Return so many actors, creating what is missing."""
        self.actors += _running(self.engine.api, count - len(self.actors))
        return self.actors[:count]

    def fill(self, count: int) -> None:
        """Have so many more sleeping actors in the table."""
        assert self.engine.manage is not None, "only our tables can be filled"
        if not self.filled:
            self.filled = True
            for chunk in range(0, count, CHUNK):
                self.engine.manage("shell", "-c", f"from benchmarks.sleepers import fill; fill({chunk}, {CHUNK})")

    def wait_asleep(self, actors: Sequence[str]) -> None:
        """Wait until these actors sleep."""
        for actor_id in actors:
            self.engine.api.wait_asleep(actor_id)


def _running(api: Api, count: int) -> list[str]:
    """Create actors and return their ids once all of them run."""
    with ThreadPoolExecutor(HANDS) as hands:
        actors = list(hands.map(lambda _: api.create_actor(POOL), range(count)))
        list(hands.map(api.wait_running, actors))
    return actors


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


async def echo(bench: Bench) -> Sample:
    """A message of 32 bytes over a WebSocket and its echo, one after the other, all in one process."""
    return await _echo(bench, web=0, count=1, window=1)


async def echo_flood(bench: Bench) -> Sample:
    """The same on one WebSocket, with 64 messages under way."""
    return await _echo(bench, web=0, count=1, window=ABREAST)


async def echo_apart(bench: Bench) -> Sample:
    """One after the other, gateway and runner's socket in two processes."""
    return await _echo(bench, web=1, count=1, window=1)


async def echo_crowd(bench: Bench) -> Sample:
    """On each of 1,000 WebSockets to one actor, one after the other."""
    return await _echo(bench, web=0, count=CROWD, window=1)


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
    return await _storm(bench, STORM)


async def big_storm(bench: Bench) -> Sample:
    """A request to each of 1,000 sleeping actors, all at once."""
    return await _storm(bench, BIG_STORM)


async def mixed(bench: Bench) -> Sample:
    """Requests to 100 actors, 64 at a time; one in a hundred lets its actor fall asleep, and the next wakes it."""
    paths = [f"/gateway/{actor_id}/" for actor_id in bench.actors[:MIXED]]
    requests = [get(path) for path in paths for _ in range(99)] + [get(f"{path}sleep") for path in paths]
    sample = Sample()
    async with _connections(bench, 0, ABREAST) as connections:
        with sample.taken_from(bench.engine):
            sample.answers = await ask_for(bench.seconds, connections, partial(random.choice, requests))
    return sample


async def wake_among_many(bench: Bench) -> Sample:
    """The wake of before, with a million other sleeping actors in the table."""
    async with _connections(bench, 0, 1) as [connection]:
        await _put_to_sleep(bench, connection, bench.actors[:1])  # whose row is copied
    await asyncio.to_thread(bench.fill, SLEEPERS)
    return await wake(bench)


async def cold(bench: Bench) -> Sample:
    """A request to a sleeping actor of a serverless pool without a runner: the engine calls `/start` first."""
    sample = Sample()
    for _ in range(COLD_STARTS):
        async with _connections(bench, 0, 1) as [connection]:
            await _put_to_sleep(bench, connection, [bench.cold_actor])
            await asyncio.to_thread(bench.engine.api.wait_runners, COLD_POOL, 0)
            with sample.taken_from(bench.engine):
                sample.answers.append(await connection.ask(get(f"/gateway/{bench.cold_actor}/")))
    return sample


async def create(bench: Bench) -> Sample:
    """The creation of an actor, one after the other, to the API's answer."""
    return await _created(bench, [post("/actors?namespace=default", _body()) for _ in range(CREATIONS)])


async def get_or_create(bench: Bench) -> Sample:
    """The same by key, for keys nobody has yet."""
    keys = [f"{time.monotonic_ns()}-{number}" for number in range(CREATIONS)]
    return await _created(bench, [put("/actors?namespace=default", _body(key=key)) for key in keys])


async def get_existing(bench: Bench) -> Sample:
    """The same for a key that somebody has."""
    return await _created(bench, [put("/actors?namespace=default", _body(key="existing"))] * CREATIONS)


async def create_and_call(bench: Bench) -> Sample:
    """A new actor of a pool that has had no runner yet, from its creation to its first answer."""
    sample, api = Sample(), bench.engine.api
    async with _connections(bench, 0, 1) as [connection]:
        for number in range(COLD_STARTS):
            pool = f"{COLD_POOL}-{time.monotonic_ns()}-{number}"
            api.put_serverless_pool(pool, bench.engine.endpoint_url, **POOL_SETTINGS)
            with sample.taken_from(bench.engine):
                created = await connection.ask(post("/actors?namespace=default", _body(pool)))
                actor_id = json.loads(created.body)["actor"]["actor_id"]
                answer = await connection.ask(get(f"/gateway/{actor_id}/"))
            sample.answers.append(replace(answer, seconds=created.seconds + answer.seconds))
            await asyncio.to_thread(_destroyed, bench.engine, [actor_id])
            api.delete_pool(pool)
    return sample


ROWS: dict[str, Callable[[Bench], Awaitable[Sample]]] = {
    "no tunnel": floor,
    "warm": warm,
    f"warm, {ABREAST} at a time": warm_abreast,
    "warm, 2 web processes": warm_apart,
    f"warm, 2 web, {ABREAST} at a time": warm_apart_abreast,
    "WebSocket": echo,
    f"WebSocket, {ABREAST} at a time": echo_flood,
    "WebSocket, 2 web processes": echo_apart,
    f"{CROWD} WebSockets": echo_crowd,
    "wake": wake,
    f"wake, {STORM} at once": storm,
    f"wake, {BIG_STORM} at once": big_storm,
    f"{MIXED} actors, {ABREAST} at a time": mixed,
    "cold start": cold,
    "create, cold start": create_and_call,
    "create": create,
    "get or create, new": get_or_create,
    "get or create, old": get_existing,
    AMONG_MANY: wake_among_many,
}
"""The rows of the table, by their names in it."""

ONLY_OURS = {
    name
    for name, row in ROWS.items()
    if row in (warm_apart, warm_apart_abreast, echo_apart, cold, wake_among_many)
}
"""Rows that need two web processes, our tables, or a pool that lets its idle runners go."""
USUAL_ROWS = [name for name in ROWS if name not in ("no tunnel", AMONG_MANY)]
"""What is measured unless rows are named."""


async def _storm(bench: Bench, count: int) -> Sample:
    sample = Sample()
    actors = await asyncio.to_thread(bench.at_least, count)
    async with _connections(bench, 0, count) as connections:
        await _put_to_sleep(bench, connections[0], actors)
        with sample.taken_from(bench.engine):
            asking = [c.ask(get(f"/gateway/{a}/")) for c, a in zip(connections, actors, strict=True)]
            sample.answers += await asyncio.gather(*asking)
    return sample


def _body(pool: str = POOL, **more: str) -> bytes:
    return json.dumps({"name": "counter", "runner_name_selector": pool, "crash_policy": "sleep"} | more).encode()


async def _created(bench: Bench, requests: Sequence[bytes]) -> Sample:
    """Send requests that answer with an actor, one after the other, and destroy the actors afterwards."""
    sample = Sample()
    async with _connections(bench, 0, 1) as [connection]:
        with sample.taken_from(bench.engine):
            for request in requests:
                sample.answers.append(await connection.ask(request))
    created = {json.loads(answer.body)["actor"]["actor_id"] for answer in sample.answers}
    await asyncio.to_thread(_destroyed, bench.engine, created)
    return sample


def _destroyed(engine: Engine, actors: Iterable[str]) -> None:
    """Have actors destroyed. That is not measured: an engine that takes too long for it is left alone with it."""

    def destroy(actor_id: str) -> None:
        try:
            engine.api.send("DELETE", f"/actors/{actor_id}", timeout=CLEAN_UP_SECONDS)
        except httpx.TimeoutException:
            print(f"{engine.server} has not destroyed {actor_id} in {CLEAN_UP_SECONDS} s", file=sys.stderr)

    with ThreadPoolExecutor(HANDS) as hands:
        list(hands.map(destroy, actors))


async def _warm(bench: Bench, web: int, abreast: int, path: str | None = None) -> Sample:
    request = get(path or f"/gateway/{bench.actors[0]}/")
    sample = Sample()
    async with _connections(bench, web, abreast) as connections:
        await ask_for(WARM_UP_SECONDS, connections, lambda: request)
        with sample.taken_from(bench.engine):
            sample.answers = await ask_for(bench.seconds, connections, lambda: request)
    return sample


async def _echo(bench: Bench, web: int, count: int, window: int) -> Sample:
    sample = Sample()
    sockets = await open_sockets(bench.engine.urls[web], bench.actors[0], count)
    try:
        await echo_for(WARM_UP_SECONDS, sockets, window)
        with sample.taken_from(bench.engine):
            sample.answers = await echo_for(bench.seconds, sockets, window)
    finally:
        for socket in sockets:
            socket.close()
    return sample


async def _put_to_sleep(bench: Bench, connection: Connection, actors: Sequence[str]) -> None:
    for actor_id in actors:
        await connection.ask(get(f"/gateway/{actor_id}/sleep"))
    await asyncio.to_thread(bench.wait_asleep, actors)


@asynccontextmanager
async def _connections(bench: Bench, web: int, count: int) -> AsyncIterator[list[Connection]]:
    connections = await connect(bench.engine.urls[web], count)
    try:
        yield connections
    finally:
        for connection in connections:
            connection.close()
