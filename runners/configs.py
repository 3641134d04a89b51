"""Pools are configured and removed (API §6). What then becomes of their runners is their workflow's affair."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import IntegrityError, OperationalError, transaction

from orchestrator import clock
from orchestrator.contention import again
from orchestrator.models import Namespace
from orchestrator.workflow import mailbox
from runners.endpoint import problem_with_headers, problem_with_name, problem_with_url
from runners.errors import RunnerConfigInvalid
from runners.models import RunnerConfig

MAX_NAME_BYTES = 4096
LONGEST_POLL_INTERVAL = timedelta(days=3650)

_ATTEMPTS = 5
_TOO_LONG_FOR_AN_INDEX = "54000"  # SQLSTATE program_limit_exceeded


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings:
    """Everything that can be configured of a pool; the fields of the row of the same name."""

    kind: RunnerConfig.Kind
    url: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    slots_per_runner: int = 1
    min_runners: int = 0
    max_runners: int = 1000
    runners_margin: int = 0
    request_lifespan: timedelta | None = None
    drain_grace_period: timedelta | None = None
    drain_on_version_upgrade: bool = True
    metadata_poll_interval: timedelta | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    metadata: Any = None

    def columns(self) -> dict[str, Any]:
        """Return the values by column name."""
        return {name: getattr(self, name) for name in self.__slots__}

    def reaches_as(self, row: RunnerConfig) -> bool:
        """Say whether runners are reached as the row says."""
        return (row.kind, row.url, row.headers) == (self.kind, self.url, dict(self.headers))


@again
def upsert_config(*, namespace: Namespace, name: str, wanted: PoolSettings) -> bool:
    """Store the whole configuration of a pool; return whether its endpoint is new or another one.

    Raises RunnerConfigInvalid, and nothing is changed. A configuration of the other kind is replaced by a new
    row, so that the requests of the old one end by the settings they began with.
    """
    check_settings(name, wanted)
    for attempt in range(_ATTEMPTS):
        try:
            with transaction.atomic():
                return _upsert(namespace, name, wanted)
        except IntegrityError:  # somebody else created it between our look and our insert
            if attempt == _ATTEMPTS - 1:
                raise
        except OperationalError as error:
            if getattr(error.__cause__, "sqlstate", None) != _TOO_LONG_FOR_AN_INDEX:
                raise
            raise RunnerConfigInvalid(reason="name too long") from None
    raise AssertionError("the last attempt returns or raises")


@again
def delete_config(*, namespace: Namespace, name: str) -> None:
    """Remove the configuration of a pool, if there is one. Actors and connected runners stay."""
    with transaction.atomic():
        row = _current(namespace, name)
        if row is not None:
            _retire(row)


def _current(namespace: Namespace, name: str) -> RunnerConfig | None:
    rows = RunnerConfig.objects.select_for_update(no_key=True)
    return rows.filter(namespace=namespace, name=name, deleted_at=None).first()


def _upsert(namespace: Namespace, name: str, wanted: PoolSettings) -> bool:
    row = _current(namespace, name)
    if row is not None and row.kind != wanted.kind:
        _retire(row)
        row = None
    if row is None:
        row = RunnerConfig(namespace=namespace, name=name, **wanted.columns())
        _plan(row)
        row.save(force_insert=True)
        return True
    changed = not wanted.reaches_as(row)
    for column, value in wanted.columns().items():
        setattr(row, column, value)
    if changed:
        _forget_failures(row)
    _plan(row)
    row.version += 1
    row.save()
    return changed


def _retire(row: RunnerConfig) -> None:
    """Remove a row; one whose runners must be drained first is left to its workflow."""
    if row.kind == RunnerConfig.Kind.NORMAL:
        row.delete()
        return
    row.deleted_at = clock.now()
    _plan(row)
    row.version += 1
    row.save(update_fields=["deleted_at", "due_at", "version", "updated_at"])


def _plan(row: RunnerConfig) -> None:
    """Have the pool's workflow look at a serverless pool, even should the message be lost."""
    if row.kind == RunnerConfig.Kind.SERVERLESS:
        row.due_at = clock.now()
        mailbox.post_on_commit("pools", row.pk, {"t": "bump"})


def _forget_failures(row: RunnerConfig) -> None:
    """A new endpoint starts without the record of the old one."""
    row.endpoint_epoch += 1
    row.error = row.error_at = row.failed_at = row.retry_at = None
    row.successes = row.failures = 0


def check_settings(name: str, wanted: PoolSettings) -> None:
    """Raise RunnerConfigInvalid, with the reason, if a pool cannot be configured like this."""
    problem = _problem_with_length(name)
    if problem is None and wanted.kind == RunnerConfig.Kind.SERVERLESS:
        problem = problem_with_name(name) or _problem_with(wanted)
    if problem is not None:
        raise RunnerConfigInvalid(reason=problem)


def _problem_with_length(name: str) -> str | None:
    return f"name too long (at most {MAX_NAME_BYTES} bytes)" if len(name.encode()) > MAX_NAME_BYTES else None


def _problem_with(wanted: PoolSettings) -> str | None:
    private_allowed = settings.ENV.private_endpoints_allowed
    problem = problem_with_url(wanted.url, private_allowed=private_allowed) or problem_with_headers(wanted.headers)
    if problem:
        return problem
    if wanted.slots_per_runner < 1:
        return "slots_per_runner must be at least 1"
    lifespan = wanted.request_lifespan or timedelta(0)
    if lifespan <= timedelta(0):
        return "request_lifespan must be at least 1 s"
    grace = wanted.drain_grace_period
    if grace is not None and grace >= lifespan:
        return "drain_grace_period must be shorter than request_lifespan"
    longest = timedelta(milliseconds=settings.ENV.actor_stop_ms)
    if grace is not None and grace > longest:
        return f"drain_grace_period must not be longer than {longest.total_seconds():g} s"
    interval = wanted.metadata_poll_interval
    if interval is not None and interval > LONGEST_POLL_INTERVAL:
        return "metadata_poll_interval is too long"
    return None
