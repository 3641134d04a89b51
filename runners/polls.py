"""Polls of serverless endpoints for their metadata: names of actors, the runners' version (PROTOCOL §7.6)."""

from orchestrator import clock
from orchestrator.workflow import mailbox
from runners.errors import MetadataNotFetched
from runners.metadata import EndpointMetadata, fetch_metadata, store_actor_names
from runners.models import RunnerConfig
from runners.poll_claims import interval
from runners.pools import older_runners


def poll(config: RunnerConfig) -> None:
    """Ask a pool's endpoint; take over its names, and have runners older than it says drained.

    A failure only makes the next poll come later: it says nothing of the runners that are there.
    """
    row = RunnerConfig.objects.filter(pk=config.pk)
    try:
        metadata = fetch_metadata(url=config.url, headers=config.headers)
    except MetadataNotFetched:
        failures = config.poll_failures + 1
        row.update(poll_failures=failures, poll_at=clock.now() + interval(config, failures))
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
