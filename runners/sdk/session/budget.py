"""How long an actor that must stop may take."""

from dataclasses import dataclass

from runners.protocol.messages import ProtocolMetadata

MARGIN_S = 1.0  # to be done before the engine's own timer runs out
RESPONSE_LIMIT_S = 300.0  # the gateway gives up on a response later than this (PROTOCOL §5.7)
DRAIN_GRACE_S = 30.0  # of a pool that is not serverless


@dataclass(frozen=True, slots=True)
class StopBudget:
    """Seconds from the stop on: until requests in flight are cut off, and until everything is."""

    requests_s: float
    total_s: float


ABANDONED = StopBudget(requests_s=0.0, total_s=10.0)  # nobody waits for this actor any more


def stop_budget(metadata: ProtocolMetadata, *, asked: bool) -> StopBudget:
    """Return the budget of a stop ordered by the engine; asked: the actor had asked for it.

    A stop nobody here asked for may be a drain, whose grace is shorter than the stop threshold. Requests in flight
    get at most two thirds, so that the actor's own goodbye has the rest.
    """
    total_s = metadata.actor_stop_threshold_ms / 1000
    if not asked:
        grace_ms = metadata.serverless_drain_grace_period_ms
        total_s = min(total_s, DRAIN_GRACE_S if grace_ms is None else grace_ms / 1000)
    total_s = max(total_s - MARGIN_S, total_s / 2)
    return StopBudget(requests_s=min(total_s * 2 / 3, RESPONSE_LIMIT_S), total_s=total_s)
