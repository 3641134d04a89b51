"""Shapes of the API of pools and runners (API §5, §6)."""

from datetime import timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from orchestrator.api.schemas import Pagination
from orchestrator.api.strict import CommaSeparated, Flag, Id, InNamespace, Limit, Paged, Repeated, StrictBody, Text
from runners.configs import PoolSettings
from runners.models import RunnerConfig
from runners.selectors import EVICTION_OPTIONS

Count = Annotated[int, Field(ge=0, le=2**31 - 1)]
Kind = Literal["serverless", "normal"]


class RunnerAnswer(BaseModel):
    """A runner; every field is always there."""

    runner_id: str
    namespace_id: str
    datacenter: str
    name: str
    key: str
    version: int
    total_slots: int
    remaining_slots: int
    create_ts: int
    drain_ts: int | None
    stop_ts: int | None
    last_connected_ts: int | None
    last_ping_ts: int
    last_rtt: int
    metadata: dict[str, Any] | None


class Runners(BaseModel):
    """A page of runners, newest first."""

    runners: list[RunnerAnswer]
    pagination: Pagination


class RunnerNames(BaseModel):
    """A page of pool names."""

    names: list[str]
    pagination: Pagination


class Envoys(BaseModel):
    """Runners of a newer protocol, which this engine does not speak: always none."""

    envoys: list[dict[str, Any]]
    pagination: Pagination


class RunnersQuery(Paged, InNamespace):
    """All, those of a pool, or those of some ids; the ids win."""

    name: Text | None = None
    runner_id: Repeated[Id] = []
    runner_ids: CommaSeparated[Id] = []
    include_stopped: Flag = False


class NamesQuery(InNamespace):
    """A page of names; the cursor is the last name."""

    limit: Limit = 100
    cursor: Text | None = None


class EnvoysQuery(Paged, InNamespace):
    """What clients of the newer protocol may ask for."""

    name: Text | None = None
    envoy_key: Repeated[Text] = []


class ConfigsQuery(Paged, InNamespace):
    """All pools, those of one kind, or those of some names; the names win."""

    variant: Kind | None = None
    runner_name: Repeated[Text] = []
    runner_names: CommaSeparated[Text] = []


class _KindBody(BaseModel):
    """What both kinds have. Fields this engine does not know are left to newer ones."""

    model_config = ConfigDict(strict=True, extra="ignore")

    drain_on_version_upgrade: bool | None = None
    actor_eviction_delay: Count | None = None
    actor_eviction_period: Count | None = None
    actor_eviction_rate: float | None = None


class NormalBody(_KindBody):
    """A pool whose runners are started by the application."""


class ServerlessBody(_KindBody):
    """A pool whose runners are started through an endpoint. Lengths in seconds, the poll interval in ms."""

    url: str
    request_lifespan: Count
    headers: dict[str, str] | None = None
    slots_per_runner: Count | None = None
    min_runners: Count | None = None
    max_runners: Count | None = None
    runners_margin: Count | None = None
    drain_grace_period: Count | None = None
    metadata_poll_interval: Annotated[int, Field(ge=0, le=2**63 - 1)] | None = None
    max_concurrent_actors: Annotated[int, Field(ge=0, le=2**63 - 1)] | None = None


class DatacenterBody(BaseModel):
    """A pool in one datacenter: exactly one kind."""

    model_config = ConfigDict(strict=True, extra="ignore")

    normal: NormalBody | None = None
    serverless: ServerlessBody | None = None
    metadata: Any = None
    drain_on_version_upgrade: bool | None = None

    @model_validator(mode="after")
    def _has_one_kind(self) -> Self:
        kinds = self.model_fields_set & {"normal", "serverless"}
        if len(kinds) != 1 or all(getattr(self, kind) is None for kind in kinds):
            raise ValueError("exactly one of normal and serverless must be given")
        return self


class ConfigBody(StrictBody):
    """A whole pool; a datacenter that is left out loses it."""

    datacenters: dict[str, DatacenterBody]


class HealthCheckBody(StrictBody):
    """An endpoint to be tried."""

    url: str
    headers: dict[str, str] = {}


class ConfigChanged(BaseModel):
    """Whether runners are reached in another way than before."""

    endpoint_config_changed: bool


class PoolAnswer(BaseModel):
    """A pool by datacenter."""

    datacenters: dict[str, dict[str, Any]]


class Configs(BaseModel):
    """A page of pools by name."""

    runner_configs: dict[str, PoolAnswer]
    pagination: Pagination


class HealthCheckAnswer(BaseModel):
    """Either the endpoint's version, or why it could not be told."""

    success: dict[str, str] | None = None
    failure: dict[str, Any] | None = None


def pool_settings(body: DatacenterBody) -> PoolSettings:
    """Return what a body asks for, with the defaults of PROTOCOL §7.1 for what it leaves out."""
    kind = body.serverless or body.normal
    assert kind is not None, "the body has one kind"
    given = kind.model_dump(exclude_none=True)
    common = {
        "drain_on_version_upgrade": _first(body.drain_on_version_upgrade, kind.drain_on_version_upgrade, True),
        "options": {name: given[name] for name in (*EVICTION_OPTIONS, "max_concurrent_actors") if name in given},
        "metadata": body.metadata,
    }
    if body.serverless is None:
        return PoolSettings(kind=RunnerConfig.Kind.NORMAL, **common)
    return PoolSettings(
        kind=RunnerConfig.Kind.SERVERLESS,
        **common,
        **{name: given[name] for name in _PLAIN if name in given}
        | {name: timedelta(seconds=given[name]) for name in _SECONDS if name in given}
        | _poll_interval(given),
    )


_PLAIN = ("url", "headers", "slots_per_runner", "min_runners", "max_runners", "runners_margin")
_SECONDS = ("request_lifespan", "drain_grace_period")


def _poll_interval(given: dict[str, Any]) -> dict[str, timedelta]:
    if "metadata_poll_interval" not in given:
        return {}
    ms = min(given["metadata_poll_interval"], 10**15)  # beyond what `upsert_config` accepts, within a timedelta
    return {"metadata_poll_interval": timedelta(milliseconds=ms)}


def _first(*values: bool | None) -> bool:
    return next(value for value in values if value is not None)
