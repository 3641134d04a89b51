"""Restarts every process of a fleet, one after the other and in order, while clients call at a steady rate."""

import asyncio
import itertools
from collections.abc import Sequence

from tests.faults.desk import Desk
from tests.faults.fleet import POOLS, Fleet
from tests.faults.history import History
from tests.faults.sockets import converse
from tests.support.child import Child

ACTORS_PER_POOL = 4
STOP_SECONDS = 20.0
SETTLE_SECONDS = 0.3


async def roll(fleet: Fleet, rate: float) -> History:
    """Restart everything once under so many requests a second and a few sockets; return what the clients saw."""
    history = History()
    async with Desk(fleet.urls, history) as desk:
        made = [await desk.get_or_create(pool, None) for pool in POOLS for _ in range(ACTORS_PER_POOL)]
        actors = [one.actor_id for one in made]
        for actor_id in actors:
            await desk.call(actor_id)
        over = asyncio.Event()
        tasks = [asyncio.create_task(_call_steadily(desk, actors, rate, over))]
        for actor_id in actors[:2]:  # of npm, which may hibernate
            talk = converse(fleet.urls, history, actor_id, over, may_hibernate=True)
            tasks.append(asyncio.create_task(talk))
        for child in fleet.cluster.children:
            await _restart(fleet, child)
        over.set()
        await asyncio.gather(*tasks)
    return history


async def _call_steadily(desk: Desk, actors: Sequence[str], rate: float, over: asyncio.Event) -> None:
    """Begin a request every so often, whether the earlier ones are answered or not."""
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as group:
        began = loop.time()
        for number, actor_id in enumerate(itertools.cycle(actors)):
            if over.is_set():
                return
            await asyncio.sleep(max(0.0, began + number / rate - loop.time()))
            group.create_task(desk.call(actor_id))


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
