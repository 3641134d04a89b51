"""Rounds into medians, medians into one table or JSON."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from benchmarks.engine import Cpu
from benchmarks.rows import Sample

_HEAD = ["", "server", "p50 ms", "p99 ms", "per s", "failed", "web", "worker", "stores", "runner", "client"]
_ROLES = _HEAD[6:]


@dataclass(frozen=True, slots=True)
class Figures:
    """One row: times in milliseconds, CPU in microseconds per request by role, failures in all."""

    p50_ms: float
    p99_ms: float
    per_second: float
    seconds: float
    requests: int
    failures: int
    cpu_us: Cpu

    @classmethod
    def of(cls, sample: Sample) -> "Figures":
        """Return the figures of one round."""
        times = sorted(answer.seconds * 1000 for answer in sample.answers)
        count = len(times)
        return cls(
            p50_ms=median(times),
            p99_ms=times[math.ceil(count * 0.99) - 1],
            per_second=count / sample.seconds,
            seconds=sample.seconds,
            requests=count,
            failures=sum(answer.status != 200 for answer in sample.answers),
            cpu_us={role: used / count * 1e6 for role, used in sample.cpu.items()},
        )

    @classmethod
    def median_of(cls, rounds: Sequence["Figures"]) -> "Figures":
        """Return the medians of some rounds, each figure by itself; failures and requests are added up."""
        return cls(
            p50_ms=median(one.p50_ms for one in rounds),
            p99_ms=median(one.p99_ms for one in rounds),
            per_second=median(one.per_second for one in rounds),
            seconds=median(one.seconds for one in rounds),
            requests=sum(one.requests for one in rounds),
            failures=sum(one.failures for one in rounds),
            cpu_us={role: median(one.cpu_us[role] for one in rounds) for role in rounds[0].cpu_us},
        )


Results = dict[tuple[str, str], list[Figures]]
"""Rounds by row and server."""


def as_text(results: Results, reference: str) -> str:
    """Return the table: a line for each row and server, and how many times as fast as the reference it is."""
    medians = {place: Figures.median_of(rounds) for place, rounds in results.items()}
    head = [*_HEAD, "times as fast"] if any(server == reference for _, server in results) else _HEAD
    lines = [head]
    for (row, server), figures in medians.items():
        numbers = [_short(figures.p50_ms), _short(figures.p99_ms), _short(figures.per_second)]
        cpu = [f"{figures.cpu_us[role]:.0f}" for role in _ROLES]
        line = [row, server, *numbers, str(figures.failures), *cpu]
        if len(head) > len(line):
            other = medians.get((row, reference))
            line.append(f"{figures.per_second / other.per_second:.1f}" if other else "")
        lines.append(line)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join(_cells(line, widths)).rstrip() for line in lines]
    return "\n".join(
        [*text, "", "web to client: CPU microseconds per request, all processes of that kind together"]
    )


def as_json(results: Results) -> list[dict[str, Any]]:
    """Return the medians and the rounds, as JSON has them."""
    return [
        {"row": row, "server": server, "median": asdict(Figures.median_of(rounds)), "rounds": _dicts(rounds)}
        for (row, server), rounds in results.items()
    ]


def _dicts(rounds: Iterable[Figures]) -> list[dict[str, Any]]:
    return [asdict(one) for one in rounds]


def _short(number: float) -> str:
    return f"{number:.0f}" if number >= 100 else f"{number:.1f}" if number >= 10 else f"{number:.2f}"


def _cells(line: Sequence[str], widths: Sequence[int]) -> list[str]:
    names = [cell.ljust(width) for cell, width in zip(line[:2], widths[:2], strict=True)]
    numbers = [cell.rjust(width) for cell, width in zip(line[2:], widths[2:], strict=True)]
    return [*names, *numbers]
