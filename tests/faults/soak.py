"""python -m tests.faults.soak: a mixed load with faults now and then, and whether anything accumulates."""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import django

from tests.faults.schedule import schedule
from tests.faults.slopes import Slope, slope

if TYPE_CHECKING:
    from tests.faults.figures import Figure
    from tests.faults.fleet import Fleet
    from tests.faults.run import Outcome

SAMPLE_SECONDS = 5.0
FAULT_SECONDS = 15.0
CALM = 2.0
KINDS = ("kill worker", "kill connector", "cut runner", "kill connections", "wipe valkey", "endpoint cuts")
"""What happens now and then: nothing that replaces a process whose memory is watched too often."""

Samples = dict["Figure", list[tuple[float, float]]]


def main() -> int:
    """Run for as long as asked, print how every figure went, and return 1 if an invariant was violated."""
    options = argparse.ArgumentParser(description="Load an engine for a while; see whether anything accumulates.")
    options.add_argument("--minutes", type=float, default=3.0)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--server", choices=("daphne", "uvicorn"), default="uvicorn")
    given = options.parse_args()
    os.environ |= {"DJANGO_SETTINGS_MODULE": "orchestrator.settings", "TORPOR_SECRET_KEY": "a key for tests alone"}
    django.setup()
    from tests.faults.fleet import Fleet  # once Django is ready

    directory = Path(tempfile.mkdtemp(prefix="torpor-soak-"))
    with Fleet(directory, given.server) as fleet:
        outcome, slopes = soak(fleet, given.minutes * 60, given.seed)
    print(f"{outcome}; logs in {directory}")
    for violation in outcome.violations:
        print(f"  {violation}")
    print(as_markdown(slopes))
    return int(bool(outcome.violations))


def soak(fleet: "Fleet", seconds: float, seed: int) -> "tuple[Outcome, dict[str, Slope]]":
    """Load a fleet for so long, with a fault now and then; return the verdict, and how each figure went."""
    from tests.faults.figures import take_figures
    from tests.faults.run import judged

    samples: Samples = defaultdict(list)
    faults = schedule(seed, int(seconds / FAULT_SECONDS), seconds, KINDS)

    async def sample() -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for figure, value in (await asyncio.to_thread(take_figures, fleet)).items():
                samples[figure].append((time.monotonic(), value))
            await asyncio.sleep(SAMPLE_SECONDS)

    async def attack(injector, *_):
        await asyncio.gather(sample(), injector.carry_out(faults))

    outcome = judged(fleet, seed, attack, calm=CALM)
    return outcome, slopes_of(samples)


def slopes_of(samples: "Mapping[Figure, Sequence[tuple[float, float]]]") -> dict[str, Slope]:
    """Return how each figure went; of processes that were replaced, that of the one that was there longest."""
    longest: dict[str, Sequence[tuple[float, float]]] = {}
    for (name, _), taken in samples.items():
        if len(taken) > len(longest.get(name, ())):
            longest[name] = taken
    return {name: slope(taken) for name, taken in longest.items()}


def as_markdown(slopes: dict[str, Slope]) -> str:
    """Return a table of all figures."""
    lines = ["| figure | minutes | after warming up | at the end | highest | growth in an hour |"]
    lines.append("|---|---|---|---|---|---|")
    for name, one in slopes.items():
        numbers = f"{one.first:.1f} | {one.last:.1f} | {one.highest:.1f} | {one.per_hour:+.1f}"
        lines.append(f"| {name} | {one.seconds / 60:.1f} | {numbers} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
