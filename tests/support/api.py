"""The engine as its users see it: the HTTP API and the gateway, over the network."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import httpx

Json = dict[str, Any]
REQUEST_SECONDS = 70.0  # a request waits for its actor at most 60 s (DESIGN §11)
WAIT_SECONDS = 20.0  # for what should take a moment
POLL_SECONDS = 0.02


class Api:
    """A client of one web process, in one namespace. Every call asserts that the engine accepted it."""

    def __init__(self, url: str, namespace: str = "default", token: str | None = None) -> None:
        self.url = url
        self.namespace = namespace
        limits = httpx.Limits(max_connections=200, max_keepalive_connections=0)
        shown = {} if token is None else {"authorization": f"Bearer {token}"}
        self._http = httpx.Client(base_url=url, timeout=REQUEST_SECONDS, limits=limits, headers=shown)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def send(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send a request to the management API and return the answer, whatever it is."""
        params = {"namespace": self.namespace} | options.pop("params", {})
        return self._http.request(method, path, params=params, **options)

    def call(self, actor_id: str, path: str = "/", method: str = "GET", **options: Any) -> httpx.Response:
        """Send a request to an actor through the gateway and return the answer, whatever it is."""
        return self._http.request(method, f"/gateway/{actor_id}{path}", **options)

    def create_namespace(self, name: str) -> None:
        """Create a namespace; it is not this client's."""
        self._accepted("POST", "/namespaces", {"name": name, "display_name": name})

    def put_serverless_pool(self, pool: str, url: str, **settings: Any) -> None:
        """Store a pool whose runners the engine starts at `url`; `settings` as in PROTOCOL §7.1."""
        serverless = {"url": url, "request_lifespan": 300, "slots_per_runner": 1} | settings
        self._put_pool(pool, "serverless", serverless)

    def put_normal_pool(self, pool: str) -> None:
        """Store a pool of runners that start themselves."""
        self._put_pool(pool, "normal", {})

    def pool(self, pool: str) -> Json:
        """Return a pool as the API shows it."""
        return dict(self._pools(pool)[pool]["datacenters"]["default"])

    def has_pool(self, pool: str) -> bool:
        """Say whether there is such a pool."""
        return pool in self._pools(pool)

    def delete_pool(self, pool: str) -> None:
        self._accepted("DELETE", f"/runner-configs/{pool}")

    def create_actor(self, pool: str, *, crash_policy: str = "sleep", name: str = "counter") -> str:
        """Create an actor without a key and return its id."""
        body = {"name": name, "runner_name_selector": pool, "crash_policy": crash_policy}
        actor_id: str = self._accepted("POST", "/actors", body)["actor"]["actor_id"]
        return actor_id

    def delete_actor(self, actor_id: str) -> None:
        self._accepted("DELETE", f"/actors/{actor_id}")

    def actor(self, actor_id: str) -> Json:
        """Return the actor's object, also of a destroyed one."""
        wanted = {"actor_id": actor_id, "include_destroyed": "true"}
        [actor] = self._accepted("GET", "/actors", params=wanted)["actors"]
        return dict(actor)

    def explain(self, actor_id: str) -> Json:
        """Return where the actor is and why."""
        return dict(self._accepted("GET", f"/actors/{actor_id}/explain")["explanation"])

    def runners(self, pool: str) -> list[Json]:
        """Return the runners of a pool that are not stopped."""
        return list(self._accepted("GET", "/runners", params={"name": pool})["runners"])

    def wait_running(self, actor_id: str) -> Json:
        """Wait until the actor takes traffic."""
        return self.wait_actor(actor_id, "running", lambda actor: actor["connectable_ts"] is not None)

    def wait_asleep(self, actor_id: str, seconds: float = WAIT_SECONDS) -> Json:
        """Wait until the actor sleeps, its old life fully stopped."""

        def asleep(actor: Json) -> bool:
            return actor["sleep_ts"] is not None and actor["connectable_ts"] is None

        return self.wait_actor(actor_id, "asleep", asleep, seconds)

    def wait_destroyed(self, actor_id: str, seconds: float = WAIT_SECONDS) -> Json:
        """Wait until the actor is gone for good."""
        return self.wait_actor(actor_id, "destroyed", lambda actor: actor["destroy_ts"] is not None, seconds)

    def wait_pending(self, actor_id: str, seconds: float = WAIT_SECONDS) -> Json:
        """Wait until the actor is in the queue for a slot."""
        queued = lambda actor: actor["pending_allocation_ts"] is not None  # noqa: E731
        return self.wait_actor(actor_id, "pending", queued, seconds)

    def wait_actor(
        self, actor_id: str, what: str, wanted: Callable[[Json], bool], seconds: float = WAIT_SECONDS
    ) -> Json:
        """Read the actor until `wanted` holds for it, and return it."""
        latest: Json = {}

        def look() -> bool:
            nonlocal latest
            latest = self.actor(actor_id)
            return wanted(latest)

        wait_until(look, lambda: f"the actor is {what}; it is {latest}", seconds)
        return latest

    def wait_runners(self, pool: str, count: int) -> list[Json]:
        """Read the pool's runners until there are `count`, and return them."""
        latest: list[Json] = []

        def look() -> bool:
            nonlocal latest
            latest = self.runners(pool)
            return len(latest) == count

        wait_until(look, lambda: f"{pool} has {count} runners; it has {latest}")
        return latest

    def _pools(self, pool: str) -> Json:
        return dict(self._accepted("GET", "/runner-configs", params={"runner_names": pool})["runner_configs"])

    def _put_pool(self, pool: str, kind: str, settings: Json) -> None:
        self._accepted("PUT", f"/runner-configs/{pool}", {"datacenters": {"default": {kind: settings}}})

    def _accepted(self, method: str, path: str, body: Json | None = None, **options: Any) -> Json:
        if body is not None:
            options["json"] = body
        answer = self.send(method, path, **options)
        assert answer.status_code == 200, f"{method} {path}: {answer.status_code} {answer.text}"
        return dict(answer.json())


def wait_until(look: Callable[[], bool], what: Callable[[], str], seconds: float = WAIT_SECONDS) -> None:
    """Look again and again until it is so; after `seconds`, fail with the story `what` tells."""
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain until {what()}"
        time.sleep(POLL_SECONDS)
