"""Health, metadata and datacenters (API §2)."""

import platform
import sys
from typing import Any

from django.http import HttpRequest
from ninja import Router, Status
from pydantic import BaseModel

from orchestrator import VERSION, datacenters, health
from orchestrator.api.schemas import Pagination
from orchestrator.api.token import READ

router = Router(tags=["system"])


class HealthAnswer(BaseModel):
    """Whether the engine works; `checks` only if it does not."""

    status: str
    runtime: str
    version: str
    checks: dict[str, str] = {}


class DatacenterHealth(BaseModel):
    """The health of one datacenter."""

    datacenter_label: int
    datacenter_name: str
    status: str
    rtt_ms: float | None
    response: HealthAnswer | None
    error: str | None


class Fanout(BaseModel):
    """The health of every datacenter."""

    datacenters: list[DatacenterHealth]


class Metadata(BaseModel):
    """What this engine is. The fields of a Rust build say what is true of this one."""

    runtime: str
    version: str
    git_sha: str
    build_timestamp: str
    rustc_version: str
    rustc_host: str
    cargo_target: str
    cargo_profile: str
    epoxy_protocol_version: int
    envoy_protocol_version: int


class Datacenter(BaseModel):
    """A place where actors run."""

    label: int
    name: str
    url: str


class Datacenters(BaseModel):
    """All of them, on one page."""

    datacenters: list[Datacenter]
    pagination: Pagination


@router.get(
    "/health",
    auth=None,
    response={200: HealthAnswer, 503: HealthAnswer},
    exclude_unset=True,
    operation_id="health",
)
def get_health(request: HttpRequest) -> Status[dict[str, Any]]:
    """Say whether the database, Redis and a worker answer: 200 if all do, else 503 and what is wrong."""
    found = health.check()
    return Status(200 if found.ok else 503, found.body)


@router.get("/health/fanout", auth=READ, response=Fanout, exclude_unset=True, operation_id="health_fanout")
def get_health_fanout(request: HttpRequest) -> dict[str, Any]:
    """Say how each datacenter is."""
    found = health.check()
    return {
        "datacenters": [
            {
                "datacenter_label": datacenters.LABEL,
                "datacenter_name": datacenters.NAME,
                "status": found.body["status"],
                "rtt_ms": found.took_ms,
                "response": found.body if found.ok else None,
                "error": found.problem,
            }
        ]
    }


@router.get("/metadata", auth=None, response=Metadata, operation_id="metadata_get")
def get_metadata(request: HttpRequest) -> dict[str, Any]:
    """Say what this engine is."""
    host = f"{platform.machine()}-{sys.platform}"
    return {
        "runtime": "engine",
        "version": VERSION,
        "git_sha": "unknown",
        "build_timestamp": "unknown",
        "rustc_version": f"none (Python {platform.python_version()})",
        "rustc_host": host,
        "cargo_target": host,
        "cargo_profile": "release",
        "epoxy_protocol_version": 0,
        "envoy_protocol_version": 0,
    }


@router.get("/datacenters", auth=READ, response=Datacenters, operation_id="datacenters_list")
def list_datacenters(request: HttpRequest) -> dict[str, Any]:
    """List the datacenters: there is one."""
    one = {"label": datacenters.LABEL, "name": datacenters.NAME, "url": datacenters.datacenter_url()}
    return {"datacenters": [one], "pagination": {"cursor": None}}
