"""Which faults a run has and when, drawn from its seed. Does no I/O.

A fault's target is drawn as a number, too: the fleet takes it modulo what it has of the kind.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

Range = tuple[float, float]


@dataclass(frozen=True)
class Kind:
    """One kind of fault: what it does, how long it lasts (seconds), and how often it is drawn."""

    name: str
    lasts: Range
    weight: int = 1


KINDS = {
    kind.name: kind
    for kind in (
        # Processes killed, and started again after that time
        Kind("kill web", (0.1, 2.0), 3),
        Kind("kill worker", (0.1, 3.0), 3),
        Kind("kill all workers", (0.1, 1.0)),
        Kind("kill connector", (0.1, 2.0), 2),
        Kind("kill sweeper", (0.1, 3.0)),
        Kind("kill runner", (0.1, 2.0), 2),
        Kind("kill endpoint", (0.1, 2.0), 2),
        # A worker killed, or stopped for a while longer than its lease, at a named point of a turn of the pump
        Kind("kill worker after lock", (0.1, 1.0)),
        Kind("kill worker before commit", (0.1, 1.0), 2),
        Kind("kill worker after commit", (0.1, 1.0), 2),
        Kind("kill worker before trim", (0.1, 1.0), 2),
        Kind("freeze worker after lock", (3.5, 6.0)),
        Kind("freeze worker before commit", (3.5, 6.0), 2),
        Kind("freeze worker after commit", (3.5, 6.0)),
        Kind("freeze worker before trim", (3.5, 6.0)),
        # Processes that stop in the middle of something and go on
        Kind("freeze web", (0.2, 6.0), 2),
        Kind("freeze worker", (0.2, 6.0), 2),
        Kind("freeze connector", (0.2, 8.0)),
        Kind("freeze sweeper", (0.2, 6.0)),
        Kind("freeze runner", (0.2, 6.0)),
        Kind("lose runner", (16.0, 20.0)),  # frozen until the engine has given it up
        # The clock of one process, set by an hour while it runs, and back
        Kind("clock of web jumps ahead", (2.0, 8.0)),
        Kind("clock of web jumps back", (2.0, 8.0)),
        Kind("clock of worker jumps ahead", (2.0, 8.0)),
        Kind("clock of worker jumps back", (2.0, 8.0)),
        Kind("clock of connector jumps ahead", (2.0, 8.0)),
        Kind("clock of connector jumps back", (2.0, 8.0)),
        Kind("clock of sweeper jumps ahead", (2.0, 8.0)),
        Kind("clock of sweeper jumps back", (2.0, 8.0)),
        # Redis
        Kind("kill valkey", (0.1, 2.0), 3),  # with all it had in memory, which is all
        Kind("wipe valkey", (0.0, 0.0), 3),
        Kind("freeze valkey", (0.5, 4.0)),
        Kind("slow valkey", (1.0, 4.0)),
        Kind("cut valkey", (0.0, 0.0), 2),
        Kind("black-hole valkey", (0.5, 4.0)),
        Kind("delay one link of valkey", (1.0, 4.0)),
        Kind("read-only valkey", (0.5, 2.0)),
        Kind("full valkey", (0.5, 2.0)),
        # PostgreSQL
        Kind("restart postgres", (0.0, 0.0), 2),
        Kind("crash postgres", (0.1, 1.0), 2),
        Kind("kill connections", (0.0, 0.0), 3),
        Kind("no connections left", (0.5, 2.0)),
        Kind("lock tables", (0.5, 3.0), 2),
        Kind("slow postgres", (1.0, 4.0)),
        Kind("cut postgres", (0.0, 0.0), 2),
        Kind("black-hole postgres", (0.5, 4.0)),
        Kind("delay one link of postgres", (1.0, 4.0)),
        Kind("serializable postgres", (1.0, 4.0)),
        Kind("deadlock postgres", (1.0, 4.0)),
        # Between runners and web processes
        Kind("cut runner", (0.0, 0.0), 4),
        Kind("black-hole runner", (0.5, 8.0), 2),
        Kind("slow runner", (1.0, 4.0)),
        Kind("delay runner to engine", (1.0, 6.0)),
        Kind("delay engine to runner", (1.0, 6.0)),
        # Endpoints that do not do as they should
        Kind("endpoint fails", (0.5, 3.0)),
        Kind("endpoint hangs", (0.5, 3.0)),
        Kind("endpoint ends early", (0.5, 3.0)),
        Kind("endpoint cuts", (0.0, 0.0)),
        Kind("endpoint answers nonsense", (0.5, 3.0)),
        Kind("endpoint never connects", (0.5, 8.0)),
        Kind("endpoint connects to another pool", (0.5, 3.0)),
        Kind("endpoint connects to no namespace", (0.5, 3.0)),
        # Runners that treat the actors they were given badly; nobody but those may notice
        Kind("host never starts", (2.0, 34.0)),
        Kind("host never stops", (2.0, 6.0)),
        Kind("host errs in generations", (2.0, 6.0)),
        Kind("host answers after its end", (17.0, 22.0)),
        Kind("host floods", (2.0, 6.0)),
        Kind("host talks nonsense", (2.0, 6.0)),
        # Changes that are none of a failure's
        Kind("restart web", (0.0, 0.0), 2),
        Kind("restart worker", (0.0, 0.0)),
        Kind("restart connector", (0.0, 0.0)),
        # Another release in the place of a process, by a restart, and back
        Kind("later web", (2.0, 6.0)),
        Kind("later worker", (2.0, 6.0)),
        Kind("later connector", (2.0, 6.0)),
        Kind("later sweeper", (2.0, 6.0)),
        Kind("older web", (2.0, 6.0)),
        Kind("older worker", (2.0, 6.0)),
        Kind("older connector", (2.0, 6.0)),
        Kind("older sweeper", (2.0, 6.0)),
    )
}


@dataclass(frozen=True)
class Fault:
    """One fault: `at` seconds after the load began, what, on whom, and for how many seconds."""

    at: float
    kind: str
    target: int
    seconds: float


def schedule(seed: int, faults: int, seconds: float, kinds: Sequence[str] = ()) -> list[Fault]:
    """Return so many faults within so many seconds, of these kinds or of all, in order of time.

    All kinds are drawn as often as their weight says before any is drawn again; every sixth fault comes together
    with the one before.
    """
    draw = random.Random(seed)
    bag: list[str] = []
    drawn: list[Fault] = []
    step = seconds / max(faults, 1)
    at = 0.0
    for number in range(faults):
        if not bag:
            bag = [name for name in kinds or KINDS for _ in range(1 if kinds else KINDS[name].weight)]
            draw.shuffle(bag)
        kind = KINDS[bag.pop()]
        if number % 6 != 5:
            at = step * number + draw.uniform(0, step / 3)
        drawn.append(Fault(round(at, 3), kind.name, draw.randrange(12), round(draw.uniform(*kind.lasts), 3)))
    return drawn
