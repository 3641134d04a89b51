"""What an engine uses while nobody asks for anything."""

import time
from dataclasses import dataclass

from benchmarks.engine import Engine

SETTLE_SECONDS, SECONDS = 3.0, 10.0


@dataclass(frozen=True, slots=True)
class Idle:
    """Of all the engine's processes together, two runners and their pools included in what they look after."""

    server: str
    cpu_percent: float  # of one core
    memory_mb: float

    def __str__(self) -> str:
        return f"idle, {self.server}: {self.cpu_percent:.1f} % of one core, {self.memory_mb:.0f} MB"


def measure_idle(engine: Engine) -> Idle:
    """Leave the engine alone for a while and see what it did."""
    time.sleep(SETTLE_SECONDS)
    before = engine.cpu()
    time.sleep(SECONDS)
    after = engine.cpu()
    used = sum(after[role] - before[role] for role in after if role not in ("client", "runner"))
    return Idle(engine.server, used / SECONDS * 100, engine.memory_bytes() / 1e6)
