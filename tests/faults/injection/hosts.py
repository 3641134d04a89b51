"""Runners that are given actors and treat them badly: their calls end with a reason, and nobody else notices."""

import asyncio
import itertools
from collections.abc import Sequence

from tests.faults.desk import Desk
from tests.faults.history import HOSTED_CALL
from tests.faults.hosts import BAD, Host
from tests.faults.injection.site import Action, Hit, Site
from tests.faults.schedule import Fault

PAUSE_SECONDS = 0.1
SLEEP_EVERY = 5
_numbers = itertools.count()


def _host(bad: type[Host]) -> Action:
    """Return the action that has some actors of their own called on a bad host, then on a good one."""

    async def act(site: Site, fault: Fault) -> Hit:
        pool = f"hosts-{next(_numbers)}"
        urls = site.fleet.urls
        async with Desk(urls, site.history) as desk:
            host = bad(urls, pool)
            async with asyncio.TaskGroup() as group:
                staying = [group.create_task(host.stay())]
                await host.is_there.wait()
                made = [await desk.get_or_create(pool, None, policy) for policy in ("sleep", "restart", "sleep")]
                actors = [one.actor_id for one in made if one.outcome == "ok"]
                over = asyncio.Event()
                callers = [group.create_task(_call(desk, actor_id, over)) for actor_id in actors]
                await asyncio.sleep(fault.seconds)
                await host.leave()
                good = Host(urls, pool)
                staying.append(group.create_task(good.stay()))
                over.set()
                await asyncio.wait(callers or staying)
                await _part(desk, actors)
                await good.leave()
        return [(pool, 0)]

    return act


async def _call(desk: Desk, actor_id: str, over: asyncio.Event) -> None:
    """Call an actor, have it sleep now and then, and once more when it is over."""
    for number in itertools.count(1):
        last = over.is_set()
        await desk.call(actor_id, kind=HOSTED_CALL)
        if last:
            return
        if number % SLEEP_EVERY == 0:
            await desk.put_to_sleep(actor_id)
        await asyncio.sleep(PAUSE_SECONDS)


async def _part(desk: Desk, actors: Sequence[str]) -> None:
    for actor_id in actors:
        await desk.destroy(actor_id)


ACTIONS: dict[str, Action] = {f"host {what}": _host(bad) for what, bad in BAD.items()}
