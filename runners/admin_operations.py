"""What the admin offers to do to pools and runners."""

from orchestrator.operate import Operation
from runners.models import Runner, RunnerConfig
from runners.operations import (
    cordon_runner,
    drain_runner,
    evict_runner,
    pause_pool,
    resume_pool,
    retry_pool,
    uncordon_runner,
)


def _ended(row: Runner) -> str | None:
    return "it has ended" if row.state == Runner.State.STOPPED else None


def _not_served(row: RunnerConfig) -> str | None:
    """Say why the engine starts no runners for a pool."""
    if row.deleted_at is not None:
        return "it is deleted"
    return None if row.kind == RunnerConfig.Kind.SERVERLESS else "its runners connect by themselves"


POOL_OPERATIONS = (
    Operation(
        "pause",
        "Pause",
        "No runner is started for the pool; those it has go on and take actors.",
        pause_pool,
        lambda row: _not_served(row) or ("it is paused already" if row.paused else None),
    ),
    Operation(
        "resume",
        "Resume",
        "Runners are started for the pool again.",
        resume_pool,
        lambda row: _not_served(row) or (None if row.paused else "it is not paused"),
    ),
    Operation(
        "retry",
        "Retry now",
        "The endpoint is called now if a runner is wanted, however long it was to wait after its failures.",
        retry_pool,
        lambda row: _not_served(row) or ("it is paused" if row.paused else None),
    ),
)
RUNNER_OPERATIONS = (
    Operation(
        "cordon",
        "Cordon",
        "The runner gets no new actors; those it has stay.",
        cordon_runner,
        lambda row: _ended(row) or ("it is cordoned already" if row.cordoned else None),
    ),
    Operation(
        "uncordon",
        "Uncordon",
        "The runner gets new actors again.",
        uncordon_runner,
        lambda row: _ended(row) or (None if row.cordoned else "it is not cordoned"),
    ),
    Operation(
        "drain",
        "Drain",
        "The runner goes away, with its pool's grace for the actors it has.",
        drain_runner,
        lambda row: None if row.state == Runner.State.LIVE else f"it is {row.state}",
    ),
    Operation(
        "evict",
        "Evict",
        "The runner's socket is closed at once; its actors are lost and start elsewhere.",
        evict_runner,
        _ended,
    ),
)
