"""Restarts every process of a fleet, one after the other and in order, while clients call at a steady rate."""

import asyncio
import itertools
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from statistics import quantiles
from urllib.parse import urlsplit

from tests.faults.desk import ANSWER_SECONDS, CONNECT_PAUSE_SECONDS, Desk
from tests.faults.fleet import POOLS, Fleet
from tests.faults.history import History, Operation
from tests.faults.sockets import converse
from tests.support.child import Child

ACTORS_PER_POOL = 4
STOP_SECONDS = 20.0
SETTLE_SECONDS = 0.3


@dataclass
class Rolled:
    """What the clients saw, and how far behind its schedule whoever sent their requests was at the most."""

    history: History
    lag_seconds: float = 0.0

    def __str__(self) -> str:
        calls = list(self.history.of("steady"))
        failed = sum(one.outcome != "ok" for one in calls)
        took_ms = [one.seconds * 1000 for one in calls]
        cuts = quantiles(took_ms, n=100)
        seconds = calls[-1].began - calls[0].began
        rate = f"{len(calls)} requests in {seconds:.0f} s ({len(calls) / seconds:.0f}/s), {failed} failed"
        took = f"p50 {cuts[49]:.1f} ms, p99 {cuts[98]:.0f} ms, max {max(took_ms):.0f} ms"
        return f"{rate}; {took}; sent up to {self.lag_seconds * 1000:.0f} ms late"


async def roll(fleet: Fleet, rate: float) -> Rolled:
    """Restart everything once under so many requests a second and a few sockets."""
    rolled = Rolled(History())
    history = rolled.history
    async with Desk(fleet.urls, history) as desk:
        made = [await desk.get_or_create(pool, None) for pool in POOLS for _ in range(ACTORS_PER_POOL)]
        actors = [one.actor_id for one in made]
        for actor_id in actors:
            await desk.call(actor_id)
        over = asyncio.Event()
        tasks = [asyncio.create_task(_call_steadily(fleet.urls, actors, rate, rolled, over))]
        for actor_id in actors[:2]:  # of npm, which may hibernate
            talk = converse(fleet.urls, history, actor_id, over, may_hibernate=True)
            tasks.append(asyncio.create_task(talk))
        for child in fleet.cluster.children:
            await _restart(fleet, child)
        over.set()
        await asyncio.gather(*tasks)
    return rolled


async def _call_steadily(
    urls: Sequence[str], actors: Sequence[str], rate: float, rolled: Rolled, over: asyncio.Event
) -> None:
    """Begin a request every so often, whether the earlier ones are answered or not."""
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as group:
        began = loop.time()
        for number, actor_id in enumerate(itertools.cycle(actors)):
            if over.is_set():
                return
            due = began + number / rate
            await asyncio.sleep(max(0.0, due - loop.time()))
            rolled.lag_seconds = max(rolled.lag_seconds, loop.time() - due)
            group.create_task(_call(urls, actor_id, rolled.history))


async def _call(urls: Sequence[str], actor_id: str, history: History) -> None:
    """Send one request, to the next web process where one does not listen. With little ado, as there are many."""
    web = random.randrange(len(urls))
    one = Operation("steady", actor_id, web, time.time())
    history.operations.append(one)
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(ANSWER_SECONDS):
            one.outcome = "broken"
            answer = await _answer(urls, one)
            if answer:
                one.status = int(answer.split(maxsplit=2)[1])
                one.outcome = "ok" if one.status == 200 else "refused"
                one.told = "" if one.status == 200 else answer.decode(errors="replace")
    one.ended = time.time()


async def _answer(urls: Sequence[str], one: Operation) -> bytes:
    while True:
        where = urlsplit(urls[one.web])
        try:
            reader, writer = await asyncio.open_connection(where.hostname, where.port)
            break
        except ConnectionRefusedError:
            one.web = (one.web + 1) % len(urls)
            await asyncio.sleep(CONNECT_PAUSE_SECONDS)
    try:
        head = f"GET /gateway/{one.actor_id}/ HTTP/1.1\r\nhost: {where.netloc}\r\nconnection: close\r\n\r\n"
        writer.write(head.encode())
        return await reader.read()
    finally:
        writer.close()


async def _restart(fleet: Fleet, child: Child) -> None:
    """End a process as its supervisor would, start it again, and go on when it does its work."""
    child.ask_to_end()
    async with asyncio.timeout(STOP_SECONDS):
        while child.alive:  # noqa: ASYNC110 (a process)
            await asyncio.sleep(0.02)
    Child.start(child)
    if child in fleet.cluster.webs:
        await asyncio.to_thread(fleet.cluster.wait_healthy, fleet.cluster.webs.index(child))
    await asyncio.sleep(SETTLE_SECONDS)
