"""What the console reads. Nothing here costs more for a million actors that sleep than for a hundred, but two
counts, which are kept for a while.
"""

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings
from django.db.models import Count, Max

from actors.budget import budgets
from actors.explain import explain, in_words
from actors.models import Actor
from actors.queue import DEMANDING, awake
from actors.timeline import actor_timeline
from console.pulse import BOUNDS_MS, Happened, Pulse
from orchestrator import clock, health
from orchestrator.models import Namespace, TimelineEntry
from orchestrator.pictures import table
from orchestrator.sequence import svg
from orchestrator.workflow import echo, sweep
from runners.models import Runner, RunnerConfig, ServerlessConnection

POOLS_SHOWN = 100
ACTORS_SHOWN = 50
ARROWS_SHOWN = 60
ARROWS_READ = 5_000
"""Arrows read at one time; a busier engine is shown by a sample of the newest."""
LATE_ARROWS = 500
"""Arrows before the newest one known that are read again: one with a lesser id may have been committed later."""
COUNTED_SECONDS = 30.0
NAMESPACES_SEARCHED = 50
MOST_SLASHES = 5

_STARTING = ("wanted", "starting", "open")


@dataclass(slots=True)
class Counts:
    """Counts of all actors, alive and destroyed, which grow with the table: taken now and then. None: not yet."""

    living: int | None = None
    destroyed: int | None = None
    _taken_at: float | None = None

    def refresh(self) -> None:
        """Count again if it is long ago."""
        if self._taken_at is None or time.monotonic() - self._taken_at > COUNTED_SECONDS:
            self.living = Actor.objects.filter(destroyed_at=None).count()
            self.destroyed = Actor.objects.filter(destroyed_at__isnull=False).count()
            self._taken_at = time.monotonic()


_counts = Counts()


@dataclass(slots=True)
class Overview:
    """The first page; remembers what it has read before. `counting`: takes its time to count all actors."""

    counting: bool = False
    pulse: Pulse = field(default_factory=Pulse)

    def look(self) -> dict[str, Any]:
        """Return what the page shows now."""
        now = clock.now()
        self.pulse.hear(self._arrows(), now)
        if self.counting:
            _counts.refresh()
        waiting_or_hosted = _awake()
        by_status: Counter[str] = Counter()
        for (_, _, status), actors in waiting_or_hosted.items():
            by_status[status] += actors
        wakes = self.pulse.wakes_by_second(now)
        histogram = self.pulse.histogram()
        labels = [f"≤ {_ms(bound)}" for bound in BOUNDS_MS] + [f"> {_ms(BOUNDS_MS[-1])}"]
        pools = _pools(waiting_or_hosted)
        names = {pool["row"].pk: pool["row"].name for pool in pools}
        return {
            "pools": pools,
            "statuses": [*((status.label, by_status[status]) for status in DEMANDING)],
            "asleep": None if _counts.living is None else max(_counts.living - sum(by_status.values()), 0),
            "destroyed": _counts.destroyed,
            "wakes": wakes,
            "most_wakes": max(wakes),
            "wakes_per_second": sum(wakes[-10:]) / 10,
            "histogram": list(zip(labels, histogram, _shares(histogram), strict=True)),
            "half_ms": self.pulse.quantile_ms(0.5),
            "most_ms": self.pulse.quantile_ms(0.99),
            "failures": [(one.newest, one.times, names.get(one.newest.pool_id)) for one in self.pulse.failures],
            "parts": _parts(),
        }

    def _arrows(self) -> list[Happened]:
        last = self.pulse.last_id
        if not last:
            last = (TimelineEntry.objects.aggregate(last=Max("pk"))["last"] or 0) - ARROWS_READ
        rows = TimelineEntry.objects.filter(pk__gt=last - LATE_ARROWS).order_by("-pk")
        found = rows.values_list("pk", "at", "actor_id", "runner_id", "label", "target", "data", "pool_id")[
            :ARROWS_READ
        ]
        return [
            Happened(pk, at, actor_id, runner_id, label, target, data.get("state", ""), pool_id)
            for pk, at, actor_id, runner_id, label, target, data, pool_id in reversed(found)
        ]


def _awake() -> dict[tuple[str, str, str], int]:
    rows = awake().values_list("namespace_id", "pool_name", "status")
    return {(namespace, pool, status): count for namespace, pool, status, count in rows.annotate(Count("pk"))}


def _pools(actors: dict[tuple[str, str, str], int]) -> list[dict[str, Any]]:
    present = Runner.objects.filter(stop_at=None).order_by().values_list("namespace_id", "name", "state")
    runners = {tuple(key): count for *key, count in present.annotate(Count("pk"))}
    under_way = ServerlessConnection.objects.filter(state__in=_STARTING).order_by().values_list("pool_id")
    starting = dict(under_way.annotate(Count("pk")))
    rows = RunnerConfig.objects.filter(deleted_at=None).select_related("namespace").order_by("-pk")[:POOLS_SHOWN]
    return [
        {
            "row": row,
            "trouble": ", ".join(row.error) if isinstance(row.error, dict) else row.error,
            "starting": starting.get(row.pk, 0),
            "connected": runners.get((row.namespace_id, row.name, "live"), 0),
            "draining": sum(runners.get((row.namespace_id, row.name, s), 0) for s in ("draining", "evicting")),
            "pending": actors.get((row.namespace_id, row.name, "pending"), 0),
            "running": actors.get((row.namespace_id, row.name, "running"), 0),
        }
        for row in rows
    ]


def _parts() -> list[tuple[str, str]]:
    """Return how each queue is served, without waiting: the sweeper has asked."""
    ages = [(queue, echo.age_seconds(queue)) for queue in sweep.queues()]
    late = settings.ENV.sweep_interval_ms / 1000 + 2 * echo.FRESH_MS / 1000
    return [(queue, health.OK if age is not None and age < late else "no echo") for queue, age in ages]


def look_at_actor(actor_id: str) -> dict[str, Any] | None:
    """Return what the page of an actor shows; None if there is no such actor."""
    actor = Actor.objects.defer("input").select_related("namespace").filter(pk=actor_id).first()
    if actor is None:
        return None
    entries = actor_timeline(actor.pk, last=ARROWS_SHOWN)
    told = explain(actor)
    return {
        "actor": actor,
        "told": told,
        "words": "\n".join(in_words(told)),
        "wakes": budgets(entries)[-5:][::-1],
        "picture": svg(entries, f"Sequence diagram of actor {actor.pk}"),
        "arrows": table(entries)[::-1],
    }


def look_at_runner(runner_id: str) -> dict[str, Any] | None:
    """Return what the page of a runner shows; None if there is no such runner."""
    runner = Runner.objects.select_related("namespace").filter(pk=runner_id).first()
    if runner is None:
        return None
    hosted = Actor.objects.filter(runner_id=runner.pk).exclude(runner_id="").defer("input").order_by()
    newest = TimelineEntry.objects.filter(runner_id=runner.pk).order_by("-at", "-id")[:ARROWS_SHOWN]
    return {"runner": runner, "actors": list(hosted[:ACTORS_SHOWN]), "arrows": table(list(newest)[::-1])[::-1]}


def find(term: str) -> tuple[str, str] | None:
    """Return the page of a whole id, or of NAME/KEY of a living actor: `actor` or `runner`, and the id."""
    if Actor.objects.filter(pk=term).exists():
        return "actor", term
    if Runner.objects.filter(pk=term).exists():
        return "runner", term
    parts = term.split("/")  # names and keys may have slashes themselves
    namespaces = list(Namespace.objects.values_list("pk", flat=True)[:NAMESPACES_SEARCHED])
    for cut in range(1, min(len(parts), MOST_SLASHES)):
        wanted = {"name": "/".join(parts[:cut]), "key": "/".join(parts[cut:])}
        for namespace_id in namespaces:
            living = Actor.objects.filter(namespace_id=namespace_id, destroyed_at=None, **wanted)
            if pk := living.values_list("pk", flat=True).first():
                return "actor", pk
    return None


def _shares(counts: list[int]) -> list[int]:
    most = max(max(counts), 1)
    return [round(100 * count / most) for count in counts]


def _ms(bound: int) -> str:
    return f"{bound} ms" if bound < 1_000 else f"{bound / 1_000:g} s"
