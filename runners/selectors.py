"""Reads of pools and runners, and how the API shows them (API §5, §6)."""

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any

from django.db.models import Q, QuerySet

from orchestrator import datacenters
from orchestrator.models import Namespace
from orchestrator.moments import to_ms, to_optional_ms
from orchestrator.paging import Position, bytewise
from runners.errors import RunnerConfigNotFound
from runners.models import ActorName, Runner, RunnerConfig, ServerlessConnection

_SECOND = timedelta(seconds=1)
_MILLISECOND = timedelta(milliseconds=1)
EVICTION_OPTIONS = ("actor_eviction_delay", "actor_eviction_period", "actor_eviction_rate")
"""Kept and shown; they mean something to a newer runner protocol only."""


def list_runners(
    *, namespace: Namespace, name: str | None, include_stopped: bool, limit: int, after: Position | None
) -> list[Runner]:
    """Return the next runners of a namespace, or of one of its pools, newest first."""
    rows = Runner.objects.filter(namespace=namespace)
    if name is not None:
        rows = rows.filter(name=name)
    if not include_stopped:
        rows = rows.filter(stop_at=None)
    return _newest_first(rows, limit, after)


def list_runners_by_id(
    *, namespace: Namespace, ids: Collection[str], limit: int, after: Position | None
) -> list[Runner]:
    """Return the next of these runners, stopped ones too, newest first."""
    return _newest_first(Runner.objects.filter(namespace=namespace, pk__in=set(ids)), limit, after)


def list_runner_names(*, namespace: Namespace, limit: int, after: str | None) -> list[str]:
    """Return the next pool names under which a runner ever connected, in the order of their bytes."""
    rows = Runner.objects.filter(namespace=namespace).annotate(bytes=bytewise("name"))
    if after is not None:
        rows = rows.filter(bytes__gt=after)
    return list(rows.order_by("bytes").values_list("bytes", flat=True).distinct()[:limit])


def list_actor_names(*, namespace: Namespace, limit: int, after: str | None) -> list[ActorName]:
    """Return the next names actors of the namespace may have, in the order of their bytes."""
    rows = ActorName.objects.filter(namespace=namespace).annotate(bytes=bytewise("name"))
    if after is not None:
        rows = rows.filter(bytes__gt=after)
    return list(rows.order_by("bytes")[:limit])


def list_configs(*, namespace: Namespace, kind: str | None, limit: int, after: str | None) -> list[RunnerConfig]:
    """Return the next pools of a namespace in the order of their names' bytes."""
    rows = _configs(namespace).annotate(bytes=bytewise("name"))
    if kind is not None:
        rows = rows.filter(kind=kind)
    if after is not None:
        rows = rows.filter(bytes__gt=after)
    return list(rows.order_by("bytes")[:limit])


def list_configs_by_name(*, namespace: Namespace, names: Collection[str]) -> list[RunnerConfig]:
    """Return those of these pools that exist, in the order of their names' bytes."""
    return list(_configs(namespace).filter(name__in=set(names)).order_by(bytewise("name")))


def find_serverless_config(*, namespace: Namespace, name: str) -> RunnerConfig:
    """Return the serverless pool of this name, or raise RunnerConfigNotFound."""
    row = _configs(namespace).filter(name=name, kind=RunnerConfig.Kind.SERVERLESS).first()
    if row is None:
        raise RunnerConfigNotFound
    return row


def pool_is_configured(*, namespace: Namespace, name: str) -> bool:
    """Say whether actors can be created for this pool."""
    return _configs(namespace).filter(name=name).exists()


def pool_errors(pools: Collection[tuple[str, str]]) -> dict[tuple[str, str], Any]:
    """Return the active errors of pools, given by namespace id and name; those that are well are left out."""
    named = Q()
    for namespace_id, name in pools:
        named |= Q(namespace_id=namespace_id, name=name)
    if not named:
        return {}
    rows = RunnerConfig.objects.filter(named, deleted_at=None, error__isnull=False)
    return {(row.namespace_id, row.name): row.error for row in rows if row.error is not None}


def runner_json(runner: Runner) -> dict[str, Any]:
    """Return the runner as the API shows it."""
    return {
        "runner_id": runner.pk,
        "namespace_id": runner.namespace_id,
        "datacenter": datacenters.NAME,
        "name": runner.name,
        "key": runner.key,
        "version": runner.runner_version,
        "total_slots": runner.total_slots,
        "remaining_slots": runner.total_slots - runner.used_slots,
        "create_ts": to_ms(runner.created_at),
        "drain_ts": to_optional_ms(runner.drain_at),
        "stop_ts": to_optional_ms(runner.stop_at),
        "last_connected_ts": to_ms(runner.connected_at),
        "last_ping_ts": to_ms(runner.last_ping_at),
        "last_rtt": runner.last_rtt_ms,
        "metadata": runner.metadata,
    }


def config_json(row: RunnerConfig) -> dict[str, Any]:
    """Return the pool as the API shows it: the kind with every field, and what there is beside it."""
    serverless = row.kind == RunnerConfig.Kind.SERVERLESS
    shown: dict[str, Any] = {row.kind: _serverless_json(row) if serverless else _kind_json(row)}
    shown["protocol_version"] = None
    if row.metadata is not None:
        shown["metadata"] = row.metadata
    if row.error is not None:
        shown["runner_pool_error"] = row.error
    return shown


def _kind_json(row: RunnerConfig) -> dict[str, Any]:
    options = {name: row.options.get(name) for name in EVICTION_OPTIONS}
    return {"drain_on_version_upgrade": row.drain_on_version_upgrade} | options


def _serverless_json(row: RunnerConfig) -> dict[str, Any]:
    shown = _kind_json(row) | {
        "url": row.url,
        "headers": row.headers,
        "request_lifespan": (row.request_lifespan or timedelta(0)) // _SECOND,
        "drain_grace_period": row.grace // _SECOND,
        "slots_per_runner": row.slots_per_runner,
        "min_runners": row.min_runners,
        "max_runners": row.max_runners,
        "runners_margin": row.runners_margin,
        "max_concurrent_actors": row.options.get("max_concurrent_actors", row.max_runners),
    }
    if row.metadata_poll_interval is not None:
        shown["metadata_poll_interval"] = row.metadata_poll_interval // _MILLISECOND
    return shown


def _configs(namespace: Namespace) -> QuerySet[RunnerConfig]:
    return RunnerConfig.objects.filter(namespace=namespace, deleted_at=None)


def _newest_first(rows: QuerySet[Runner], limit: int, after: Position | None) -> list[Runner]:
    if after is not None:
        rows = rows.filter(after.older)
    return list(rows.order_by("-created_at", "-pk")[:limit])


def names_json(names: Sequence[ActorName]) -> dict[str, Any]:
    """Return actor names as the API shows them, in their order."""
    return {name.name: {"metadata": name.metadata} for name in names}


def ended_requests() -> QuerySet[ServerlessConnection]:
    """Return the `/start` requests nothing more comes of."""
    return ServerlessConnection.objects.filter(state=ServerlessConnection.State.ENDED, ended_at__isnull=False)


def ended_runners() -> QuerySet[Runner]:
    """Return the runners that have stopped, and that nothing waits for."""
    return Runner.objects.filter(state=Runner.State.STOPPED, stop_at__isnull=False, due_at=None, used_slots=0)
