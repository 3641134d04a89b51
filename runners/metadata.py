"""What a serverless endpoint says about itself: `GET {url}/metadata` (PROTOCOL §7.6)."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx
from django.conf import settings

from orchestrator import VERSION
from orchestrator.models import Namespace
from orchestrator.strict_json import parse_object
from runners.endpoint import problem_with_headers, problem_with_url
from runners.errors import MetadataNotFetched
from runners.models import ActorName
from runners.outbound import AddressRefused, Resolver, make_client, resolve

TIMEOUT_SECONDS = 10.0
MAX_BODY_BYTES = 1024 * 1024
MAX_REDIRECTS = 5
SHOWN_CHARACTERS = 1024
"""Of a body that is told in an error."""
MAX_NAME_BYTES = 1024
RUNTIME = "rivetkit"


@dataclass(frozen=True, slots=True)
class EndpointMetadata:
    """A good answer: its version, the actor names it serves with their metadata, its runners' version."""

    version: str
    actor_names: Mapping[str, dict[str, Any]]
    runner_version: int | None


def fetch_metadata(*, url: str, headers: Mapping[str, str], resolver: Resolver = resolve) -> EndpointMetadata:
    """Ask the endpoint; takes 10 s at most. Not to be called where an event loop runs.

    Raises:
        MetadataNotFetched: it cannot be called, or did not answer as it should; `reason` says how.
    """
    private_allowed = settings.ENV.private_endpoints_allowed
    problem = problem_with_url(url, private_allowed=private_allowed) or problem_with_headers(headers)
    if problem:
        raise _failure("invalid_request", problem)
    try:
        status, body = asyncio.run(_get(f"{url.rstrip('/')}/metadata", headers, resolver))
    except (httpx.TimeoutException, TimeoutError):
        raise _failure("request_timed_out", "the endpoint took too long") from None
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, AddressRefused) as error:
        raise _failure("invalid_request", str(error)) from None
    except httpx.HTTPError as error:
        raise _failure("request_failed", f"the endpoint could not be called: {error}") from None
    if not 200 <= status < 300:
        shown = _shown(body)
        raise _failure("non_success_status", f"the endpoint answered {status}", status_code=status, body=shown)
    return parse_metadata(body)


def parse_metadata(body: bytes) -> EndpointMetadata:
    """Read the endpoint's answer, or raise MetadataNotFetched."""
    try:
        answer = parse_object(body)
    except ValueError:
        raise _failure("invalid_response_json", "the answer is not a JSON object", body=_shown(body)) from None
    runtime, version = answer.get("runtime"), answer.get("version")
    if runtime != RUNTIME or not isinstance(version, str) or not version.strip():
        told = {"runtime": _text(runtime), "version": _text(version)}
        raise _failure("invalid_response_schema", f"the answer is not that of {RUNTIME}", **told)
    runner = answer.get("runner")
    runner_version = runner.get("version") if isinstance(runner, dict) else None
    known = type(runner_version) is int and 0 <= runner_version < 2**32
    return EndpointMetadata(version.strip(), _actor_names(answer), runner_version if known else None)


def store_actor_names(*, namespace: Namespace, names: Mapping[str, dict[str, Any]]) -> None:
    """Take over announced names; the metadata of one that is known is replaced."""
    ActorName.objects.bulk_create(
        [ActorName(namespace=namespace, name=name, metadata=metadata) for name, metadata in sorted(names.items())],
        update_conflicts=True,
        unique_fields=["namespace", "name"],
        update_fields=["metadata"],
    )


async def _get(url: str, headers: Mapping[str, str], resolver: Resolver) -> tuple[int, bytes]:
    """Return status and body, following some redirects; another host is not told the configured headers."""
    ours = {"user-agent": f"RivetEngine/{VERSION}", "accept-encoding": "identity"}
    async with asyncio.timeout(TIMEOUT_SECONDS), make_client(resolver) as client:
        request = client.build_request("GET", url, headers={**ours, **headers, "accept-encoding": "identity"})
        for _ in range(MAX_REDIRECTS + 1):
            answer = await client.send(request, stream=True)
            try:
                following = answer.next_request
                if following is None:
                    return answer.status_code, await _read(answer)
            finally:
                await answer.aclose()
            if _origin(following.url) != _origin(request.url):
                following = client.build_request("GET", following.url, headers=ours)
            request = following
    raise httpx.TooManyRedirects("it redirects too often", request=request)


async def _read(answer: httpx.Response) -> bytes:
    body = bytearray()
    async for chunk in answer.aiter_raw():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise httpx.RequestError("its answer is too long")
    return bytes(body)


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _actor_names(answer: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the names with usable metadata; others are skipped."""
    announced = answer.get("actorNames")
    names: dict[str, dict[str, Any]] = {}
    for name, entry in announced.items() if isinstance(announced, dict) else ():
        metadata = entry.get("metadata") if isinstance(entry, dict) else None
        if isinstance(metadata, dict) and len(name.encode()) <= MAX_NAME_BYTES:
            names[name] = metadata
    return names


def _failure(kind: str, message: str, **facts: Any) -> MetadataNotFetched:
    return MetadataNotFetched(reason={"message": message, "metadata": {"kind": kind, **facts}})


def _shown(body: bytes) -> str:
    text = body.decode("utf-8", errors="replace")
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}...[truncated]"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
