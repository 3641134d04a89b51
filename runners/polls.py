"""Polls of serverless endpoints for their metadata: names of actors, the runners' version (PROTOCOL §7.6).

A poll is claimed by moving its time on, so any number of connectors may look.
"""

from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Q, QuerySet

from orchestrator import clock
from orchestrator.contention import again
from orchestrator.workflow import mailbox
from runners.errors import MetadataNotFetched
from runners.metadata import EndpointMetadata, fetch_metadata, store_actor_names
from runners.models import RunnerConfig
from runners.pools import older_runners

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
            RunnerConfig.objects.filter(pk=config.pk).update(poll_at=now + _interval(config))
    return configs


def polls_due(now: datetime) -> bool:
    """Say whether an endpoint is due to be asked."""
    return _due(now).exists()


def poll(config: RunnerConfig) -> None:
    """Ask a pool's endpoint; take over its names, and have runners older than it says drained.

    A failure only makes the next poll come later: it says nothing of the runners that are there.
    """
    row = RunnerConfig.objects.filter(pk=config.pk)
    try:
        metadata = fetch_metadata(url=config.url, headers=config.headers)
    except MetadataNotFetched:
        failures = config.poll_failures + 1
        row.update(poll_failures=failures, poll_at=clock.now() + _interval(config, failures))
        return
    if config.poll_failures:
        row.update(poll_failures=0)
    take_over(config, metadata)


def take_over(config: RunnerConfig, metadata: EndpointMetadata) -> None:
    """Store what the endpoint says of itself, and have runners older than its version drained."""
    store_actor_names(namespace=config.namespace, names=metadata.actor_names)
    if metadata.runner_version is None:
        return
    for runner_id, grace in older_runners(config.namespace_id, config.name, metadata.runner_version):
        grace_ms = int(grace.total_seconds() * 1000)
        mailbox.post("runners", runner_id, {"t": "drain", "grace_ms": grace_ms, "by": "version"})


def _due(now: datetime) -> "QuerySet[RunnerConfig]":
    serverless = RunnerConfig.objects.filter(kind=RunnerConfig.Kind.SERVERLESS, deleted_at=None)
    return serverless.filter(Q(poll_at=None) | Q(poll_at__lte=now))


def _interval(config: RunnerConfig, failures: int = 0) -> timedelta:
    interval = max(config.metadata_poll_interval or DEFAULT_INTERVAL, SHORTEST_INTERVAL)
    doublings: int = 2 ** min(failures, BACKOFF_EXPONENT)
    return interval * doublings
