"""What other houses ask of pools: which are serverless, and how much is wanted of them.

Demand is counted from rows of a higher house, which registers its counter here when Django starts.
"""

from collections.abc import Callable, Iterable

from django.db.models import Q

from runners.models import RunnerConfig

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
