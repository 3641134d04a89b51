"""Sends requests to an engine as its clients do, and writes down each of them, from beginning to end."""

import asyncio
import random
import time
from types import TracebackType
from typing import Any, Self

import httpx

from tests.faults.history import History, Operation

ANSWER_SECONDS = 75.0  # a request waits for its actor at most 60 s (DESIGN §11)
CONNECT_PAUSE_SECONDS = 0.05
TOLD_CHARACTERS = 1_000
Json = dict[str, Any]


class Desk:
    """A client of all web processes, as behind a load balancer: where nobody listens, the next one is tried."""

    def __init__(self, urls: list[str], history: History) -> None:
        self.urls = urls
        self._history = history
        limits = httpx.Limits(max_connections=400, max_keepalive_connections=0)
        self._http = httpx.AsyncClient(timeout=ANSWER_SECONDS, limits=limits)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def call(self, actor_id: str, path: str = "/", kind: str = "call") -> Operation:
        """Send a request to an actor."""
        return await self._ask(Operation(kind, actor_id, 0, 0), "GET", f"/gateway/{actor_id}{path}")

    async def get_or_create(self, pool: str, key: str | None, policy: str = "sleep") -> Operation:
        """Find the actor of a key, or make it; without a key, make one."""
        body = {"name": "counter", "runner_name_selector": pool, "crash_policy": policy}
        operation = Operation("create", "", 0, 0, key=key or "")
        method = "POST" if key is None else "PUT"
        return await self._ask(operation, method, "/actors", json=body | ({"key": key} if key else {}))

    async def put_to_sleep(self, actor_id: str) -> Operation:
        """Have the engine put an actor to sleep."""
        return await self._ask(Operation("order", actor_id, 0, 0), "POST", f"/actors/{actor_id}/sleep", json={})

    async def destroy(self, actor_id: str) -> Operation:
        """Destroy an actor."""
        return await self._ask(Operation("destroy", actor_id, 0, 0), "DELETE", f"/actors/{actor_id}")

    async def read(self, actor_id: str, namespace: str = "default") -> tuple[Operation, Json | None]:
        """Look at an actor; also returns it as the API shows it, None if it does not or refuses to."""
        operation = Operation("read" if namespace == "default" else "stranger", actor_id, 0, 0)
        params = {"actor_id": actor_id, "namespace": namespace}
        found: list[Json] = []
        await self._ask(operation, "GET", "/actors", params=params, found=found)
        return operation, found[0] if found else None

    async def _ask(
        self, operation: Operation, method: str, path: str, found: list[Json] | None = None, **options: Any
    ) -> Operation:
        if method != "GET" or not path.startswith("/gateway/"):
            options["params"] = {"namespace": "default"} | options.get("params", {})
        operation.began = time.time()
        self._history.operations.append(operation)
        try:
            answer = await self._send(operation, method, path, options)
        except httpx.HTTPError as error:
            operation.ended, operation.outcome = time.time(), "broken"
            operation.code = type(error).__name__
            return operation
        operation.ended, operation.status = time.time(), answer.status_code
        _note(operation, answer, found)
        return operation

    async def _send(self, operation: Operation, method: str, path: str, options: Json) -> httpx.Response:
        web = random.randrange(len(self.urls))
        deadline = time.monotonic() + ANSWER_SECONDS
        while True:
            operation.web = web
            try:
                return await self._http.request(method, self.urls[web] + path, **options)
            except httpx.ConnectError:
                if time.monotonic() > deadline:
                    raise
                web = (web + 1) % len(self.urls)
                await asyncio.sleep(CONNECT_PAUSE_SECONDS)


def _note(operation: Operation, answer: httpx.Response, found: list[Json] | None) -> None:
    """Write down what the answer says."""
    try:
        told = answer.json()
    except ValueError:
        told = None
    told = told if isinstance(told, dict) else {}
    if answer.status_code != 200:
        operation.outcome, operation.told = "refused", answer.text[:TOLD_CHARACTERS]
        engine = "group" in told and "code" in told
        operation.code = f"{told['group']}.{told['code']}" if engine else f"application {answer.status_code}"
        return
    operation.outcome = "ok"
    operation.generation = told.get("generation")
    operation.value = told.get("durable", told.get("alarm"))
    if operation.kind == "create":
        operation.actor_id = told["actor"]["actor_id"]
    if found is not None:
        found += told["actors"]
        operation.value = len(found)
