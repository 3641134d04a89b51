"""What a run has shown: a row for each kind of fault, and how long it took until everybody was served again."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median

from tests.faults.history import History, Injected, Operation

SLOW_SECONDS = 1.0
"""A request that takes longer was affected by a fault."""
LONG_SECONDS = 2.5
"""A fault that is felt for longer is told of."""
SERVED = ("call", "count", "sleep", "alarm", "create", "destroy", "last call")
MEASURED = ("call", "last call")
"""Not those whose actor waits for its storage: an npm client waits half a minute for an answer that was lost."""


@dataclass
class Row:
    """One kind of fault over one or more runs."""

    injected: int = 0
    violations: int = 0  # in the runs it was part of
    operations: int = 0  # begun while it, and no later fault, was about
    refused: Counter[str] = field(default_factory=Counter)
    recoveries: list[float] = field(default_factory=list)  # seconds from the fault's end


Table = dict[str, Row]


def tabulate(history: History, violations: int = 0) -> Table:
    """Return the rows of a run. An operation counts for the last fault that began before its end."""
    table: Table = defaultdict(Row)
    faults = sorted(history.injected, key=lambda one: one.began)
    operations = [one for one in history.operations if one.kind in SERVED]
    for number, fault in enumerate(faults):
        until = faults[number + 1].began if number + 1 < len(faults) else history.ended_at
        row = table[fault.fault.kind]
        row.injected, row.violations = row.injected + 1, violations
        own = [one for one in operations if fault.began <= one.ended < until]
        row.operations += len(own)
        row.refused.update(one.code for one in own if one.outcome in ("refused", "broken"))
        row.recoveries.append(_recovery(fault, until, history))
    return dict(table)


def _recovery(fault: Injected, until: float, history: History) -> float:
    """Return how long after its end the last request that it had affected was over."""
    ended = (one.ended for one in _affected(fault, until, history))
    return max(0.0, max(ended, default=fault.ended) - fault.ended)


def _affected(fault: Injected, until: float, history: History) -> list[Operation]:
    """Return the requests a fault has slowed down or failed; those sent just before the next are that one's."""
    return [
        one
        for one in history.operations
        if one.kind in MEASURED
        and fault.began - SLOW_SECONDS <= one.began < until - SLOW_SECONDS
        and one.ended > fault.began
        and (one.outcome != "ok" or one.seconds > SLOW_SECONDS)
    ]


def slowest(history: History) -> Iterator[str]:
    """Tell, for each fault that was felt for long, of the request that was over last."""
    faults = sorted(history.injected, key=lambda one: one.began)
    for number, fault in enumerate(faults):
        until = faults[number + 1].began if number + 1 < len(faults) else history.ended_at
        last = max(_affected(fault, until, history), key=lambda one: one.ended, default=None)
        if last is not None and last.ended - fault.ended > LONG_SECONDS:
            sent = f"sent {last.began - fault.began:+.1f} s by web{last.web}, {last.outcome} {last.code}"
            took = f"over {last.ended - fault.ended:.1f} s after {fault.ended - fault.began:.1f} s of"
            yield f"{took} {fault.fault.kind} {fault.hit} at {fault.began:.1f}: {last.actor_id} {sent}"


def add(tables: Iterable[Table]) -> Table:
    """Return the rows of many runs together."""
    total: Table = defaultdict(Row)
    for table in tables:
        for kind, row in table.items():
            total[kind].injected += row.injected
            total[kind].violations += row.violations
            total[kind].operations += row.operations
            total[kind].refused.update(row.refused)
            total[kind].recoveries += row.recoveries
    return dict(total)


def as_markdown(table: Table, order: Sequence[str]) -> str:
    """Return the table as documentation shows it."""
    lines = [
        "| fault | times | operations | refused with a reason | violations | served again after, median | worst |"
    ]
    lines.append("|---|---|---|---|---|---|---|")
    for kind in order:
        if kind in table:
            row = table[kind]
            counts = f"{row.injected} | {row.operations} | {row.refused.total()} | {row.violations}"
            lines.append(f"| {kind} | {counts} | {median(row.recoveries):.1f} s | {max(row.recoveries):.1f} s |")
    return "\n".join(lines)
