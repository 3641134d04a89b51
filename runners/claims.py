"""Claims of connectors on `/start` requests: rows with a lease, so that what a dead one held is begun anew."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Q

from orchestrator import clock
from orchestrator.arrows import Arrow, Participant
from orchestrator.contention import again
from orchestrator.ids import is_id
from orchestrator.timeline import record
from orchestrator.workflow import mailbox
from runners.models import Runner, RunnerConfig, ServerlessConnection

State = ServerlessConnection.State
_BEGIN_ANEW = [State.STARTING, State.OPEN, State.READY]


@dataclass(frozen=True, slots=True)
class Claimed:
    """A request to send, with all that is needed for it."""

    id: str
    pool_id: str
    pool: str
    namespace_id: str
    namespace: str
    lifespan: timedelta
    url: str
    headers: dict[str, str]
    slots: int


@dataclass(frozen=True, slots=True)
class Held:
    """A connector's own request, as its row is."""

    state: str
    named: bool  # the pool knows its runner


def claim(*, connector_id: str, limit: int, now: datetime | None = None) -> list[Claimed]:
    """Take up to `limit` requests nobody holds and mark them as starting: new ones, and those of dead connectors.

    The runner of a stream that was begun before is drained: its stream died with its connector.
    """
    now = now or clock.now()
    claimed, drained = _claim(connector_id, limit, now)
    for row in drained:
        grace_ms = int(row.pool.grace.total_seconds() * 1000)
        mailbox.post("runners", row.runner_id, {"t": "drain", "grace_ms": grace_ms, "by": "pool"})
    return claimed


@again
def _claim(connector_id: str, limit: int, now: datetime) -> tuple[list[Claimed], list[ServerlessConnection]]:
    """Return what was claimed, and the streams that were begun before, as they were."""
    free = Q(state=State.WANTED) | Q(state__in=_BEGIN_ANEW, claimed_until__lt=now)
    claimed: list[Claimed] = []
    drained: list[ServerlessConnection] = []
    with transaction.atomic():
        rows = ServerlessConnection.objects.select_for_update(of=("self",), skip_locked=True).filter(free)
        for row in rows.select_related("pool__namespace").order_by("pk")[:limit]:
            if row.runner_id:
                drained.append(ServerlessConnection(pool_id=row.pool_id, runner_id=row.runner_id, pool=row.pool))
            _begin(row, connector_id, now)
            claimed.append(
                Claimed(
                    id=row.pk,
                    pool_id=row.pool_id,
                    pool=row.pool.name,
                    namespace_id=row.pool.namespace_id,
                    namespace=row.pool.namespace.name,
                    lifespan=row.pool.request_lifespan or timedelta(),
                    url=row.pool.url,
                    headers=row.pool.headers,
                    slots=row.pool.slots_per_runner,
                )
            )
        record([_sent(request) for request in claimed], now)
    return claimed, drained


def _sent(request: Claimed) -> Arrow:
    serverless, endpoint = Participant.SERVERLESS, Participant.ENDPOINT
    return Arrow(serverless, endpoint, "GET /start", connection_id=request.id, pool_id=request.pool_id)


def _begin(row: ServerlessConnection, connector_id: str, now: datetime) -> None:
    row.state, row.claimed_by, row.claimed_until = State.STARTING, connector_id, now + _lease()
    row.started_at, row.opened_at, row.ready_at, row.runner_id, row.status = now, None, None, "", None
    row.drain_at = None
    row.save()


def renew(*, connector_id: str, now: datetime | None = None) -> dict[str, Held]:
    """Renew the connector's claims and return its requests by id.

    One that is missing has been taken by another connector and is to be dropped.
    """
    mine = ServerlessConnection.objects.filter(claimed_by=connector_id).exclude(state=State.ENDED)
    mine.update(claimed_until=(now or clock.now()) + _lease())
    return {
        pk: Held(state, named=runner_id != "")
        for pk, state, runner_id in mine.values_list("pk", "state", "runner_id")
    }


def is_runner_of(*, pool_id: str, runner_id: str) -> bool:
    """Say whether a stream of the pool may name this runner, which will be drained with it."""
    if not is_id(runner_id):
        return False
    runner = Runner.objects.filter(pk=runner_id).values("namespace_id", "name").first()
    return runner is not None and RunnerConfig.objects.filter(pk=pool_id, **runner).exists()


def release(*, connector_id: str, now: datetime | None = None) -> None:
    """Let go of the claims at once, as the connector ends: others need not wait for the lease.

    The pools look at their requests: those that were to end have ended with the connector.
    """
    mine = ServerlessConnection.objects.filter(claimed_by=connector_id).exclude(state=State.ENDED)
    mine.update(claimed_until=(now or clock.now()) - timedelta(seconds=1))
    for pool_id in mine.order_by().values_list("pool_id", flat=True).distinct():
        mailbox.post_on_commit("pools", pool_id, {"t": "bump"})


def _lease() -> timedelta:
    return timedelta(milliseconds=settings.ENV.serverless_claim_ms)
