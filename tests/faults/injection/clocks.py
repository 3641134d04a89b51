"""Clocks that jump by an hour in one process, and back after a while."""

import asyncio
from contextlib import suppress

from tests.faults import clocks
from tests.faults.injection.processes import GROUPS
from tests.faults.injection.site import Action, Hit, Site
from tests.faults.schedule import Fault
from tests.support.child import Child

JUMP_SECONDS = 3600.0
WAYS = {"ahead": JUMP_SECONDS, "back": -JUMP_SECONDS}


def _jump(group: str, seconds: float) -> Action:
    async def act(site: Site, fault: Fault) -> Hit:
        async def jump(child: Child, lasts: float) -> None:
            with suppress(FileNotFoundError):  # it was just being started
                clocks.set_clock(site.fleet.clocks, child.pid, seconds)
                await asyncio.sleep(lasts)
                clocks.set_clock(site.fleet.clocks, child.pid, 0.0)

        return await site.hit(GROUPS[group](site.fleet), fault, jump)

    return act


ACTIONS: dict[str, Action] = {
    f"clock of {group} jumps {way}": _jump(group, seconds)
    for group in ("web", "worker", "connector", "sweeper")
    for way, seconds in WAYS.items()
}
