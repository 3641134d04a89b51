"""Connections that break, fall silent or get slow, all of a cable or some, both ways or one."""

import asyncio
from collections.abc import Callable, Sequence

from tests.faults.fleet import Fleet
from tests.faults.injection.site import Action, Hit, Site
from tests.faults.schedule import Fault
from tests.support.relay import Relay

SLOW_SECONDS = 0.03
DELAY_SECONDS = 0.4
"""Longer than several turns of the engine: what is delayed is overtaken by what goes another way."""

CABLES: dict[str, Callable[[Fleet], Sequence[Relay]]] = {
    "valkey": lambda fleet: [fleet.valkey_cable],
    "postgres": lambda fleet: [fleet.postgres_cable],
    "runner": lambda fleet: fleet.runner_cables,
}


def _on_one(whom: str, disturb: Callable[[Relay, Fault], None], mend: Callable[[Relay], None] | None) -> Action:
    """Return the action that disturbs one cable of a kind and, if there is something to mend, mends it later."""

    async def act(site: Site, fault: Fault) -> Hit:
        cables = CABLES[whom](site.fleet)
        number = fault.target % len(cables)
        name = f"cable of {whom} {number}"
        if not site.is_free(name):
            return []
        with site.holding(name):
            disturb(cables[number], fault)
            if mend is not None:
                await asyncio.sleep(fault.seconds)
                mend(cables[number])
        return [(name, 0)]

    return act


def _delay_one_connection(cable: Relay, fault: Fault) -> None:
    cable.slow_down(DELAY_SECONDS, only=fault.target)


def _at_full_speed(cable: Relay) -> None:
    cable.slow_down(0)


ACTIONS: dict[str, Action] = {
    **{f"cut {whom}": _on_one(whom, lambda cable, _: cable.cut(), None) for whom in CABLES},
    **{f"black-hole {whom}": _on_one(whom, lambda cable, _: cable.go_dead(), Relay.revive) for whom in CABLES},
    **{
        f"slow {whom}": _on_one(whom, lambda cable, _: cable.slow_down(SLOW_SECONDS), _at_full_speed)
        for whom in CABLES
    },
    **{
        f"delay one link of {whom}": _on_one(whom, _delay_one_connection, _at_full_speed)
        for whom in ("valkey", "postgres")
    },
    "delay runner to engine": _on_one(
        "runner", lambda cable, _: cable.slow_down(DELAY_SECONDS, way="there"), _at_full_speed
    ),
    "delay engine to runner": _on_one(
        "runner", lambda cable, _: cable.slow_down(DELAY_SECONDS, way="back"), _at_full_speed
    ),
}
