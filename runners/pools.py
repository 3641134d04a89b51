"""What other houses ask of pools: which are serverless, and how much is wanted of them.

Demand is counted from rows of a higher house, which registers its counter here when Django starts.
"""

from collections.abc import Callable, Iterable
from datetime import timedelta

from django.conf import settings
from django.db.models import Q

from runners.models import Runner, RunnerConfig

Pool = tuple[str, str]
"""Namespace id and name of a pool."""
DemandCounter = Callable[[Pool], int]

_counters: list[DemandCounter] = []


def register_demand(counter: DemandCounter) -> None:
    """Have `counter` asked for the slots a pool needs now: the actors that wait or hold one."""
    _counters.append(counter)


def count_demand(pool: Pool) -> int:
    """Return the slots the pool needs now, counted afresh."""
    return sum(counter(pool) for counter in _counters)


def serverless_pools(pools: Iterable[Pool]) -> dict[Pool, str]:
    """Return those of the pools that start runners on demand, with their configurations' ids."""
    named = Q()
    for namespace_id, name in pools:
        named |= Q(namespace_id=namespace_id, name=name)
    if not named:
        return {}
    found = RunnerConfig.objects.filter(named, kind=RunnerConfig.Kind.SERVERLESS, deleted_at=None)
    return {(namespace_id, name): pk for pk, namespace_id, name in found.values_list("pk", "namespace_id", "name")}


def drain_grace(config: RunnerConfig | None) -> timedelta:
    """Return how long a draining runner of a pool may take; None stands for a pool without configuration."""
    if config is None or (config.kind == RunnerConfig.Kind.NORMAL and config.drain_grace_period is None):
        return timedelta(milliseconds=settings.ENV.normal_drain_grace_ms)
    return config.grace


def older_runners(namespace_id: str, name: str, version: int) -> list[tuple[str, timedelta]]:
    """Return the pool's live runners below a version, each with its grace, if the pool wants them drained."""
    config = RunnerConfig.objects.filter(namespace_id=namespace_id, name=name, deleted_at=None).first()
    if config is None or not config.drain_on_version_upgrade:
        return []
    live = Runner.objects.filter(namespace_id=namespace_id, name=name, state=Runner.State.LIVE)
    older = live.filter(runner_version__lt=version).order_by("pk").values_list("pk", flat=True)
    return [(runner_id, drain_grace(config)) for runner_id in older]
