"""Which serverless endpoints are due to be polled, and by whom (PROTOCOL §7.6).

A poll is claimed by moving its time on, so any number of connectors may look. Apart from the polls themselves, as
whoever only asks what is due, every worker and sweeper, needs no HTTP client for that.
"""

from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Q, QuerySet

from orchestrator import clock
from orchestrator.contention import again
from runners.models import RunnerConfig

DEFAULT_INTERVAL = timedelta(seconds=10)
SHORTEST_INTERVAL = timedelta(seconds=5)
BACKOFF_EXPONENT = 8


@again
def claim_polls(*, limit: int) -> list[RunnerConfig]:
    """Take up to `limit` pools whose endpoints are due to be asked."""
    now = clock.now()
    with transaction.atomic():
        due = _due(now).select_related("namespace").select_for_update(of=("self",), skip_locked=True)
        configs = list(due.order_by("poll_at")[:limit])
        for config in configs:
            RunnerConfig.objects.filter(pk=config.pk).update(poll_at=now + interval(config))
    return configs


def polls_due(now: datetime) -> bool:
    """Say whether an endpoint is due to be asked."""
    return _due(now).exists()


def _due(now: datetime) -> "QuerySet[RunnerConfig]":
    serverless = RunnerConfig.objects.filter(kind=RunnerConfig.Kind.SERVERLESS, deleted_at=None)
    return serverless.filter(Q(poll_at=None) | Q(poll_at__lte=now))


def interval(config: RunnerConfig, failures: int = 0) -> timedelta:
    """Return how long after one poll the next is due, the longer the more often it has failed."""
    usual = max(config.metadata_poll_interval or DEFAULT_INTERVAL, SHORTEST_INTERVAL)
    doublings: int = 2 ** min(failures, BACKOFF_EXPONENT)
    return usual * doublings
