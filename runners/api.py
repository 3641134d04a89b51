"""Pools and runners over HTTP (API §5, §6)."""

from typing import Any

from django.http import HttpRequest
from ninja import Router

from orchestrator import datacenters
from orchestrator.api.schemas import Done, pagination
from orchestrator.api.strict import FromBody, FromQuery, InNamespace, Nothing, PathText
from orchestrator.api.token import READ, RUNNER
from orchestrator.errors import BadRequest
from orchestrator.models import Namespace
from orchestrator.namespaces import find_namespace
from orchestrator.paging import Position
from runners import configs, metadata, polls, selectors
from runners.errors import MetadataNotFetched
from runners.models import RunnerConfig
from runners.schemas import (
    ConfigBody,
    ConfigChanged,
    Configs,
    ConfigsQuery,
    Envoys,
    EnvoysQuery,
    HealthCheckAnswer,
    HealthCheckBody,
    NamesQuery,
    RunnerNames,
    Runners,
    RunnersQuery,
    pool_settings,
)

router = Router(tags=["pools and runners"])


@router.get("/runners", auth=READ, response=Runners, operation_id="runners_list")
def list_runners(request: HttpRequest, query: FromQuery[RunnersQuery]) -> dict[str, Any]:
    """List runners, newest first; stopped ones only if asked for, or by id."""
    after = Position.newest_first(query.cursor) if query.cursor is not None else None
    namespace = find_namespace(query.namespace)
    if ids := [*query.runner_id, *query.runner_ids]:
        rows = selectors.list_runners_by_id(namespace=namespace, ids=ids, limit=query.limit, after=after)
    else:
        rows = selectors.list_runners(
            namespace=namespace,
            name=query.name,
            include_stopped=query.include_stopped,
            limit=query.limit,
            after=after,
        )
    return {"runners": [selectors.runner_json(row) for row in rows], "pagination": pagination(rows)}


@router.get("/runners/names", auth=READ, response=RunnerNames, operation_id="runners_list_names")
def list_runner_names(request: HttpRequest, query: FromQuery[NamesQuery]) -> dict[str, Any]:
    """List the pool names under which a runner ever connected."""
    namespace = find_namespace(query.namespace)
    names = selectors.list_runner_names(namespace=namespace, limit=query.limit, after=query.cursor)
    return {"names": names, "pagination": {"cursor": names[-1] if names else None}}


@router.get("/envoys", auth=READ, response=Envoys, operation_id="envoys_list")
def list_envoys(request: HttpRequest, query: FromQuery[EnvoysQuery]) -> dict[str, Any]:
    """List runners of a newer protocol: there are none."""
    if query.cursor is not None:
        Position.newest_first(query.cursor)
    find_namespace(query.namespace)
    return {"envoys": [], "pagination": {"cursor": None}}


@router.get("/runner-configs", auth=RUNNER, response=Configs, operation_id="runner_configs_list")
def list_configs(request: HttpRequest, query: FromQuery[ConfigsQuery]) -> dict[str, Any]:
    """List pools in the order of their names."""
    names = [name for name in (*query.runner_name, *query.runner_names) if name]
    if names:
        rows = selectors.list_configs_by_name(namespace=find_namespace(query.namespace), names=names)
        return _page(rows, None)
    kind, after = _read_cursor(query)
    namespace = find_namespace(query.namespace)
    rows = selectors.list_configs(namespace=namespace, kind=kind, limit=query.limit, after=after)
    return _page(rows, f"{kind or ''}:{rows[-1].name}" if rows else None)


@router.post(
    "/runner-configs/serverless-health-check",
    auth=RUNNER,
    response=HealthCheckAnswer,
    exclude_unset=True,
    operation_id="runner_configs_serverless_health_check",
)
def check_endpoint(
    request: HttpRequest, query: FromQuery[InNamespace], body: FromBody[HealthCheckBody]
) -> dict[str, Any]:
    """Ask an endpoint for its metadata, and store nothing."""
    find_namespace(query.namespace)
    try:
        found = metadata.fetch_metadata(url=body.url, headers=body.headers)
    except MetadataNotFetched as error:
        return {"failure": {"error": error.metadata["reason"]}}
    return {"success": {"version": found.version}}


@router.put(
    "/runner-configs/{runner_name}", auth=RUNNER, response=ConfigChanged, operation_id="runner_configs_upsert"
)
def upsert_config(
    request: HttpRequest, runner_name: PathText, query: FromQuery[InNamespace], body: FromBody[ConfigBody]
) -> dict[str, Any]:
    """Store the whole configuration of a pool; without a datacenter, remove it."""
    datacenters.check_datacenters(body.datacenters)
    namespace = find_namespace(query.namespace)
    wanted = body.datacenters.get(datacenters.NAME)
    if wanted is None:
        configs.delete_config(namespace=namespace, name=runner_name)
        return {"endpoint_config_changed": False}
    settings = pool_settings(wanted)
    changed = configs.upsert_config(namespace=namespace, name=runner_name, wanted=settings)
    if changed and settings.kind == RunnerConfig.Kind.SERVERLESS:
        _learn_names(namespace, settings)
    return {"endpoint_config_changed": changed}


@router.delete("/runner-configs/{runner_name}", auth=RUNNER, response=Done, operation_id="runner_configs_delete")
def delete_config(request: HttpRequest, runner_name: PathText, query: FromQuery[InNamespace]) -> dict[str, Any]:
    """Remove a pool's configuration, if there is one."""
    configs.delete_config(namespace=find_namespace(query.namespace), name=runner_name)
    return {}


@router.post(
    "/runner-configs/{runner_name}/refresh-metadata",
    auth=RUNNER,
    response=Done,
    operation_id="runner_configs_refresh_metadata",
)
def refresh_metadata(
    request: HttpRequest, runner_name: PathText, query: FromQuery[InNamespace], body: FromBody[Nothing]
) -> dict[str, Any]:
    """Ask a serverless pool's endpoint for its metadata now, and store the actor names it tells."""
    namespace = find_namespace(query.namespace)
    config = selectors.find_serverless_config(namespace=namespace, name=runner_name)
    polls.take_over(config, metadata.fetch_metadata(url=config.url, headers=config.headers))
    return {}


def _learn_names(namespace: Namespace, settings: configs.PoolSettings) -> None:
    """A new endpoint is asked at once; storing it does not depend on its answer."""
    try:
        found = metadata.fetch_metadata(url=settings.url, headers=settings.headers)
    except MetadataNotFetched:
        return
    metadata.store_actor_names(namespace=namespace, names=found.actor_names)


def _read_cursor(query: ConfigsQuery) -> tuple[str | None, str | None]:
    """Return the kind to list and the name after which to go on; a cursor is `KIND:NAME` or `:NAME`."""
    if query.cursor is None:
        return query.variant, None
    kind, colon, name = query.cursor.partition(":")
    if not colon or kind not in ("", *RunnerConfig.Kind.values):
        raise BadRequest(reason="unreadable cursor")
    return query.variant or kind or None, name


def _page(rows: list[RunnerConfig], cursor: str | None) -> dict[str, Any]:
    shown = {row.name: {"datacenters": {datacenters.NAME: selectors.config_json(row)}} for row in rows}
    return {"runner_configs": shown, "pagination": {"cursor": cursor}}
