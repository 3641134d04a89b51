"""What an operator asks of pools and runners by hand. Each posts to the workflow that carries it out."""

from datetime import timedelta

from django.db.models import F, QuerySet

from orchestrator.workflow import mailbox
from runners.models import Runner, RunnerConfig
from runners.pools import drain_grace

RUNNERS, POOLS, HOSTING = "runners", "pools", "hosting"


def cordon_runner(runner: Runner) -> None:
    """Give a runner no new actors; those it has stay. Its pool may start another for those that wait."""
    Runner.objects.filter(pk=runner.pk).update(cordoned=True)
    _plan_pool_of(runner)


def uncordon_runner(runner: Runner) -> None:
    """Give a runner new actors again, beginning with those that wait."""
    Runner.objects.filter(pk=runner.pk).update(cordoned=False)
    mailbox.post(HOSTING, runner.pk, {"t": "offer"})
    _plan_pool_of(runner)


def drain_runner(runner: Runner, grace: timedelta | None = None) -> None:
    """Have a runner go away, with this grace, or else its pool's, for the actors it has."""
    if grace is None:
        grace = drain_grace(_pools_of(runner).first())
    grace_ms = int(grace.total_seconds() * 1000)
    mailbox.post(RUNNERS, runner.pk, {"t": "drain", "grace_ms": grace_ms, "by": "operator"})


def evict_runner(runner: Runner) -> None:
    """Close a runner's socket at once, not to come back; its actors are lost and start elsewhere."""
    mailbox.post(RUNNERS, runner.pk, {"t": "evict", "by": "operator"})


def pause_pool(pool: RunnerConfig) -> None:
    """Start no runners for a serverless pool; those it has go on, and take actors."""
    _set_paused(pool, True)


def resume_pool(pool: RunnerConfig) -> None:
    """Start runners for a pool again."""
    _set_paused(pool, False)


def retry_pool(pool: RunnerConfig) -> None:
    """Call a pool's endpoint now if a runner is wanted, however long it was to wait after its failures."""
    mailbox.post(POOLS, pool.pk, {"t": "retry"})


def _set_paused(pool: RunnerConfig, paused: bool) -> None:
    # A plan under way on the row as it was must not be stored: the version tells it.
    RunnerConfig.objects.filter(pk=pool.pk).update(paused=paused, version=F("version") + 1)
    mailbox.post(POOLS, pool.pk, {"t": "bump"})


def _plan_pool_of(runner: Runner) -> None:
    for pool_id in _pools_of(runner).values_list("pk", flat=True):
        mailbox.post(POOLS, pool_id, {"t": "bump"})


def _pools_of(runner: Runner) -> QuerySet[RunnerConfig]:
    return RunnerConfig.objects.filter(namespace_id=runner.namespace_id, name=runner.name, deleted_at=None)
