"""Faults one at a time: the next one begins when the last actor that the one before had affected answers again.

And when the workers that were killed work again: to kill the second while the first one boots is to kill them all.
"""

import asyncio
import time
from collections.abc import Sequence

from tests.faults.desk import Desk
from tests.faults.history import History
from tests.faults.injection import Injector
from tests.faults.report import MEASURED, SLOW_SECONDS
from tests.faults.schedule import Fault
from tests.support.child import Child

LEAD_SECONDS = 0.7
"""The actors are called for so long before the fault, so that there are requests for it to hit."""
CALL_SECONDS = 0.2
CALM_SECONDS = 2.0
"""An actor is served again if it answers at once this long after the fault."""
LOOK_SECONDS = 0.05
BOOT_SECONDS = 60.0
READY = " ready."
"""The end of what Celery says when a worker has begun to take tasks."""


async def one_by_one(
    injector: Injector,
    desk: Desk,
    history: History,
    actors: Sequence[str],
    workers: Sequence[Child],
    faults: Sequence[Fault],
) -> None:
    """Inject each fault while all actors are called, and wait until they are served as before."""
    for fault in faults:
        before = [(worker.pid, worker.output().count(READY)) for worker in workers]
        whole = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for actor_id in actors:
                group.create_task(_call_until_served(desk, actor_id, whole))
            await asyncio.sleep(LEAD_SECONDS)
            await injector.inject(fault)
            await asyncio.sleep(CALM_SECONDS)
            whole.set()
        while _is_slow(history):  # noqa: ASYNC110 (requests tell nobody that they are over)
            await asyncio.sleep(LOOK_SECONDS)
        async with asyncio.timeout(BOOT_SECONDS):
            for worker, (pid, times) in zip(workers, before, strict=True):
                while worker.pid != pid and worker.output().count(READY) == times:  # noqa: ASYNC110
                    await asyncio.sleep(LOOK_SECONDS)


async def _call_until_served(desk: Desk, actor_id: str, whole: asyncio.Event) -> None:
    while True:
        expected = whole.is_set()
        answer = await desk.call(actor_id)
        if expected and answer.outcome == "ok" and answer.seconds < SLOW_SECONDS:
            return
        await asyncio.sleep(CALL_SECONDS)


def _is_slow(history: History) -> bool:
    """Whether somebody is waiting for longer than is usual."""
    since = time.time() - SLOW_SECONDS
    return any(
        one.outcome == "waiting" and one.kind in MEASURED and one.began < since for one in history.operations
    )
