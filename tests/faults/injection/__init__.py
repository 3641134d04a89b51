"""Carries out faults on a fleet. Each leaves everything whole again, as a supervisor or an operator would.

A module for each place where things break; `ACTIONS` has what is done for each kind of the schedule.
"""

import asyncio
import time
from collections.abc import Sequence

from tests.faults.fleet import Fleet
from tests.faults.history import History, Injected
from tests.faults.injection import cables, clocks, endpoints, hosts, processes, stores, versions
from tests.faults.injection.site import Action, Site
from tests.faults.schedule import Fault

__all__ = ["ACTIONS", "Injector"]

ACTIONS: dict[str, Action] = {
    kind: action
    for place in (processes, versions, clocks, stores, cables, endpoints, hosts)
    for kind, action in place.ACTIONS.items()
}


class Injector:
    """One fleet's tormentor."""

    def __init__(self, fleet: Fleet, history: History) -> None:
        self._site = Site(fleet, history)
        self._history = history

    async def carry_out(self, faults: Sequence[Fault]) -> None:
        """Inject each fault at its time, and return when everything has been put right again."""
        loop = asyncio.get_running_loop()
        beginning = loop.time()
        async with asyncio.TaskGroup() as group:
            for fault in faults:
                await asyncio.sleep(max(0.0, beginning + fault.at - loop.time()))
                group.create_task(self.inject(fault))

    async def inject(self, fault: Fault) -> None:
        """Inject a fault now, and return when everything has been put right again."""
        began = time.time()
        hit = await ACTIONS[fault.kind](self._site, fault)
        if hit:
            names, pids = tuple(name for name, _ in hit), tuple(pid for _, pid in hit)
            self._history.injected.append(Injected(fault, began, time.time(), names, pids))
