"""Processes that are killed, frozen or restarted, at random and at named points of a turn of the pump."""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path

from tests.faults import points
from tests.faults.fleet import Fleet
from tests.faults.injection.site import LOOK_SECONDS, Action, Hit, Site, has_ended
from tests.faults.schedule import Fault
from tests.support.child import Child

HEARS_SECONDS = 3.0  # so long after it was thawed a runner hears that it was given up
POINT_SECONDS = 5.0  # so long an armed point waits for a worker

GROUPS: dict[str, Callable[[Fleet], Sequence[Child]]] = {
    "web": lambda fleet: fleet.cluster.webs,
    "worker": lambda fleet: fleet.cluster.workers,
    "connector": lambda fleet: fleet.cluster.connectors,
    "sweeper": lambda fleet: [fleet.cluster.sweeper],
    "runner": lambda fleet: fleet.applications,
    "endpoint": lambda fleet: [fleet.endpoint],
    "valkey": lambda fleet: [fleet.valkey],
}


def on_one(group: str, how: Callable[[Child, float], Awaitable[None]]) -> Action:
    """Return the action that does it to one process of a group."""

    async def act(site: Site, fault: Fault) -> Hit:
        return await site.hit(GROUPS[group](site.fleet), fault, how)

    return act


async def _kill(child: Child, seconds: float) -> None:
    child.kill()
    await asyncio.sleep(seconds)
    Child.start(child)


async def _freeze(child: Child, seconds: float) -> None:
    child.freeze()
    try:
        await asyncio.sleep(seconds)
    finally:
        child.thaw()


async def _lose(child: Child, seconds: float) -> None:
    """Freeze a runner until it is given up. What ends when it hears of that is started again."""
    await _freeze(child, seconds)
    if await has_ended(child, HEARS_SECONDS):
        Child.start(child)


async def restart(child: Child, _: float = 0.0) -> None:
    """End a process as its supervisor would and start it again."""
    child.ask_to_end()
    if not await has_ended(child):
        child.kill()
    Child.start(child)


async def _kill_all_workers(site: Site, fault: Fault) -> Hit:
    workers = [one for one in site.fleet.cluster.workers if site.is_free(one.name)]
    hit = [(one.name, one.pid) for one in workers]
    with site.holding(*(one.name for one in workers)):
        for one in workers:
            one.kill()
        await asyncio.sleep(fault.seconds)
        for one in workers:
            Child.start(one)
    return hit


def _at_point(point: str, number: signal.Signals) -> Action:
    async def act(site: Site, fault: Fault) -> Hit:
        workers = site.fleet.cluster.workers
        points.arm(site.fleet.points, point, number)
        deadline = time.monotonic() + POINT_SECONDS
        while time.monotonic() < deadline:
            for one in workers:
                if site.is_free(one.name) and _has_met(one, number):
                    hit = [(one.name, one.pid)]
                    with site.holding(one.name):
                        await asyncio.sleep(fault.seconds)
                        if number is signal.SIGKILL:
                            Child.start(one)
                        else:
                            one.thaw()
                    return hit
            await asyncio.sleep(LOOK_SECONDS)
        points.disarm(site.fleet.points, point)
        return []

    return act


def _has_met(child: Child, number: signal.Signals) -> bool:
    return not child.alive if number is signal.SIGKILL else _is_frozen(child)


def _is_frozen(child: Child) -> bool:
    with suppress(FileNotFoundError):  # it has ended
        return Path(f"/proc/{child.pid}/stat").read_text().rpartition(") ")[2].startswith("T")
    return False


ACTIONS: dict[str, Action] = {
    **{f"kill {group}": on_one(group, _kill) for group in GROUPS},
    **{f"freeze {group}": on_one(group, _freeze) for group in GROUPS if group != "endpoint"},
    **{f"restart {group}": on_one(group, restart) for group in ("web", "worker", "connector")},
    **{f"kill worker {point}": _at_point(point, signal.SIGKILL) for point in points.POINTS},
    **{f"freeze worker {point}": _at_point(point, signal.SIGSTOP) for point in points.POINTS},
    "lose runner": on_one("runner", _lose),
    "kill all workers": _kill_all_workers,
}
