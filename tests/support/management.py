"""The management API inside the test's own process: calls, and rows to find."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from django.http import HttpRequest
from django.test import AsyncRequestFactory, Client

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
JSON = "application/json"


@dataclass(frozen=True)
class Answer:
    """What came back; `code` is `group.code` of an error."""

    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return f"{self.json['group']}.{self.json['code']}"

    @property
    def refused(self) -> tuple[int, str]:
        return self.status, self.code


class Management:
    """A client of the API in one namespace."""

    def __init__(self, namespace: str | None = "default") -> None:
        self.namespace = namespace
        self._client = Client(raise_request_exception=False)

    def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Any = (),
        raw: bytes | None = None,
        content_type: str = JSON,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Send a request; `query` is a mapping or pairs, besides `namespace`; `raw` is a body as it is."""
        content = raw if raw is not None else b"" if body is None else json.dumps(body).encode()
        url = f"{path}?{self._query(query)}"
        answer = self._client.generic(method, url, content, content_type=content_type, headers=headers or {})
        return Answer(answer.status_code, answer.headers, answer.content)

    def send_encoded(self, method: str, raw_path: str, body: Any = None) -> Answer:
        """Send a request whose path is given as it goes over the wire, as an ASGI server hands it on."""
        from orchestrator.api.middleware import ApiMiddleware

        content = b"" if body is None else json.dumps(body).encode()
        factory = AsyncRequestFactory()
        request = factory.generic(method, "/", content, content_type=JSON, QUERY_STRING=self._query(()))
        scope = request.scope | {"path": "/not/looked/at", "raw_path": raw_path.encode()}  # type: ignore[attr-defined]
        raw_request = type(request)(scope, request._stream)  # type: ignore[call-arg, attr-defined]
        answer: Any = ApiMiddleware(_nobody)(raw_request)
        return Answer(answer.status_code, answer.headers, answer.content)

    def ok(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        """Send a request that must be accepted and return the JSON of the answer."""
        answer = self.send(method, path, body, **options)
        assert answer.status == 200, f"{method} {path}: {answer.status} {answer.body.decode()}"
        return answer.json

    def _query(self, query: Any) -> str:
        pairs = list(query.items() if isinstance(query, dict) else query)
        if self.namespace is not None and not any(name == "namespace" for name, _ in pairs):
            pairs.insert(0, ("namespace", self.namespace))
        return urlencode(pairs)


def _nobody(request: HttpRequest) -> Any:
    raise AssertionError(f"{request.path} is no path of the API")


def make_pool(namespace: Any, name: str = "pool", **columns: Any) -> Any:
    """Store a normal pool."""
    from runners.models import RunnerConfig

    return RunnerConfig.objects.create(namespace=namespace, name=name, **{"kind": "normal"} | columns)


def make_actor(namespace: Any, *, minutes: float = 0, **columns: Any) -> Any:
    """Store an actor made so many minutes after noon; asleep unless `columns` say otherwise."""
    from actors.models import Actor

    created_at = NOON + timedelta(minutes=minutes)
    defaults = {"name": "counter", "pool_name": "pool", "crash_policy": "sleep", "status": "asleep"}
    if columns.get("status", "asleep") == "asleep":
        defaults |= {"slept_at": created_at}
    return Actor.objects.create(namespace=namespace, **defaults | {"created_at": created_at} | columns)


def make_destroyed_actor(namespace: Any, *, minutes: float = 0, **columns: Any) -> Any:
    """Store an actor that has been destroyed."""
    ended = {"status": "destroyed", "destroyed_at": NOON + timedelta(days=1)}
    return make_actor(namespace, minutes=minutes, **ended | columns)


def make_runner(namespace: Any, key: str, *, minutes: float = 0, **columns: Any) -> Any:
    """Store a live runner of four slots, made so many minutes after noon."""
    from runners.models import Runner

    moment = NOON + timedelta(minutes=minutes)
    defaults = {
        "name": "pool",
        "runner_version": 1,
        "total_slots": 4,
        "protocol_version": 7,
        "connected_at": moment,
        "last_ping_at": moment,
        "due_at": moment,
    }
    runner = Runner.objects.create(namespace=namespace, key=key, **defaults | columns)
    Runner.objects.filter(pk=runner.pk).update(created_at=moment)
    runner.refresh_from_db()
    return runner


def signals(workflow: str, key: str) -> list[dict[str, Any]]:
    """Return what waits in the mailbox for an actor or a pool, oldest first."""
    from orchestrator.redis import get_redis
    from orchestrator.workflow import mailbox

    found: Any = get_redis().xrange(mailbox.stream_name(workflow, mailbox.shard_of(key)))
    return [json.loads(values[b"s"]) for _, values in found if values[b"k"].decode() == key]
