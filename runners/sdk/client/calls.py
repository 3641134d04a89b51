"""What clients say to an engine and how its answers are read; no I/O."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias
from urllib.parse import quote, urlsplit

import httpx

from runners.sdk.errors import SdkError

CrashPolicy: TypeAlias = Literal["restart", "sleep", "destroy"]

PATIENCE_S = 70.0  # a gateway gives an actor 60 s to wake
NOT_FOUND = "actor.not_found"


class EngineError(SdkError):
    """The engine has refused a call or could not carry it out; `code` is `group.code`, as in its documentation."""

    def __init__(self, status: int, code: str, message: str, metadata: Mapping[str, Any]) -> None:
        self.status = status
        self.code = code
        self.metadata = metadata
        super().__init__(f"{code}: {message}")


@dataclass(frozen=True, slots=True)
class Call:
    """A call of the management API."""

    method: str
    path: str
    params: Mapping[str, str]
    json: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """The actor a handle stands for: `actor_id`, or one of that name and key, which may have to be made first."""

    namespace: str
    actor_id: str | None = None
    name: str = ""
    key: str | None = None
    pool: str | None = None
    input: bytes | None = None
    crash_policy: CrashPolicy = "sleep"
    make: Literal["never", "if there is none", "always"] = "never"

    @property
    def replaceable(self) -> bool:
        """Whether another actor may take its place, should it be gone."""
        return self.actor_id is None and self.make != "always"

    def find(self) -> Call:
        """Return the call that finds or makes it."""
        params = {"namespace": self.namespace}
        if self.make == "never":
            return Call("GET", "/actors", params | {"name": self.name, "key": self.key or ""})
        body: dict[str, Any] = {
            "name": self.name,
            "runner_name_selector": self.pool or self.name,
            "crash_policy": self.crash_policy,
        }
        if self.key is not None:
            body["key"] = self.key
        if self.input is not None:
            body["input"] = base64.b64encode(self.input).decode()
        return Call("PUT" if self.make == "if there is none" else "POST", "/actors", params, body)

    def id_in(self, answer: httpx.Response) -> str:
        """Return the actor's id from the answer to `find`. Raises EngineError."""
        found = json_of(answer)
        if self.make == "never":
            if not found["actors"]:
                raise EngineError(404, NOT_FOUND, f"there is no {self.name} with the key {self.key!r}", {})
            return str(found["actors"][0]["actor_id"])
        return str(found["actor"]["actor_id"])

    def destroy(self, actor_id: str) -> Call:
        """Return the call that destroys it."""
        return Call("DELETE", f"/actors/{quote(actor_id, safe='')}", {"namespace": self.namespace})


def api_headers(token: str | None) -> dict[str, str]:
    """Return the headers of a call of the management API."""
    return {} if token is None else {"authorization": f"Bearer {token}"}


def with_token(token: str | None, options: Mapping[str, Any], name: str = "headers") -> dict[str, Any]:
    """Return the options of a request to an actor; the gateway keeps the token among the headers to itself."""
    if token is None:
        return dict(options)
    given = httpx.Headers(options.get(name))
    return {**options, name: [*given.multi_items(), ("x-rivet-token", token)]}


def gateway_path(actor_id: str, path: str) -> str:
    """Return where the gateway serves a path of an actor. Raises ValueError unless it begins with a slash."""
    if not path.startswith("/"):
        raise ValueError(f"the path must begin with a slash, not {path!r}")
    return f"/gateway/{quote(actor_id, safe='')}{path}"


def websocket_url(endpoint: str, actor_id: str, path: str) -> str:
    """Return the URL of a WebSocket to an actor."""
    parts = urlsplit(endpoint)
    scheme = {"https": "wss"}.get(parts.scheme, "ws")
    return f"{scheme}://{parts.netloc}{parts.path.rstrip('/')}{gateway_path(actor_id, path)}"


def json_of(answer: httpx.Response) -> Any:
    """Return the JSON of an API's answer. Raises EngineError for a refusal."""
    if not answer.is_success:
        raise error_of(answer)
    return answer.json()


def raise_for_engine(answer: httpx.Response) -> None:
    """Raise EngineError if the engine, not the actor, has answered; the answer must be read."""
    if "x-rivet-error" in answer.headers:
        raise error_of(answer)


def error_of(answer: httpx.Response) -> EngineError:
    """Return the error that an answer of the engine tells of."""
    try:
        body = answer.json()
        code = f"{body['group']}.{body['code']}"
        return EngineError(answer.status_code, code, body["message"], body.get("metadata") or {})
    except (ValueError, KeyError, TypeError):
        return EngineError(answer.status_code, "unknown", answer.text[:200], {})
