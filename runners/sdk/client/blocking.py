"""A client that blocks, for threads and scripts."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import httpx
from websockets.sync.client import ClientConnection, connect

from runners.protocol.codec import MAX_FRAME_BYTES
from runners.sdk.client.calls import (
    NOT_FOUND,
    PATIENCE_S,
    Call,
    CrashPolicy,
    EngineError,
    Wanted,
    api_headers,
    gateway_path,
    json_of,
    raise_for_engine,
    websocket_url,
    with_token,
)
from runners.sdk.session.reconnect import engine_endpoint


class Client:
    """The actors of one namespace of an engine: `Client().get_or_create("counter", key="alice").fetch("/")`."""

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        namespace: str = "default",
        token: str | None = None,
        timeout_s: float = PATIENCE_S,
    ) -> None:
        """`endpoint` is the engine's, by default that of TORPOR_ENDPOINT, or http://127.0.0.1:6420.

        `token` is by default that of TORPOR_TOKEN; of an engine that asks for one, its scope is `client`.
        """
        self.endpoint = engine_endpoint(endpoint, os.environ)
        self.namespace = namespace
        self.token = os.environ.get("TORPOR_TOKEN") if token is None else token
        self.http = httpx.Client(base_url=self.endpoint, timeout=timeout_s)

    def get_or_create(
        self,
        name: str,
        *,
        key: str,
        pool: str | None = None,
        input: bytes | None = None,
        crash_policy: CrashPolicy = "sleep",
    ) -> "ActorHandle":
        """Return a handle of the actor of that name and key; at its first use the actor is made, if there is none.

        `pool` is the pool of runners that host it, by default one named like the actor.
        """
        wanted = Wanted(self.namespace, None, name, key, pool, input, crash_policy, "if there is none")
        return ActorHandle(self, wanted)

    def create(
        self,
        name: str,
        *,
        key: str | None = None,
        pool: str | None = None,
        input: bytes | None = None,
        crash_policy: CrashPolicy = "sleep",
    ) -> "ActorHandle":
        """Make an actor now. Raises EngineError, `actor.duplicate_key` if another one has the key."""
        handle = ActorHandle(self, Wanted(self.namespace, None, name, key, pool, input, crash_policy, "always"))
        handle.resolve()
        return handle

    def get(self, name: str, *, key: str) -> "ActorHandle":
        """Return a handle of the actor of that name and key; its use raises EngineError if there is none."""
        return ActorHandle(self, Wanted(self.namespace, None, name, key))

    def actor(self, actor_id: str) -> "ActorHandle":
        """Return a handle of the actor of that id."""
        return ActorHandle(self, Wanted(self.namespace, actor_id))

    def close(self) -> None:
        """Close the connections."""
        self.http.close()

    def call(self, call: Call) -> httpx.Response:
        """Call the management API."""
        return self.http.request(
            call.method, call.path, params=call.params, json=call.json, headers=api_headers(self.token)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class ActorHandle:
    """Stands for one actor. It wakes on every use, if it sleeps."""

    def __init__(self, client: Client, wanted: Wanted) -> None:
        self._client = client
        self._wanted = wanted
        self._id = wanted.actor_id

    def resolve(self) -> str:
        """Return the id of the actor, making it if that is wanted. Raises EngineError."""
        if self._id is None:
            self._id = self._wanted.id_in(self._client.call(self._wanted.find()))
        return self._id

    def fetch(self, path: str = "/", method: str = "GET", **options: Any) -> httpx.Response:
        """Send a request and return the actor's answer, whatever its status; `options` are those of httpx.

        Raises EngineError if the engine could not get an answer from the actor.
        """
        try:
            return self._fetch(path, method, options)
        except EngineError as error:
            if error.code != NOT_FOUND or not self._wanted.replaceable:
                raise
            self._id = None  # it was destroyed since: the name and key may stand for another one now
            return self._fetch(path, method, options)

    @contextmanager
    def stream(self, path: str = "/", method: str = "GET", **options: Any) -> Iterator[httpx.Response]:
        """Send a request and give the answer while its body is still coming."""
        url = gateway_path(self.resolve(), path)
        with self._client.http.stream(method, url, **with_token(self._client.token, options)) as answer:
            if "x-rivet-error" in answer.headers:
                answer.read()
            raise_for_engine(answer)
            yield answer

    def websocket(self, path: str = "/", **options: Any) -> ClientConnection:
        """Open a WebSocket, to be used in `with`; `options` are those of `websockets.sync.client.connect`."""
        url = websocket_url(self._client.endpoint, self.resolve(), path)
        options = with_token(self._client.token, options, "additional_headers")
        return connect(url, **{"max_size": MAX_FRAME_BYTES, "open_timeout": PATIENCE_S} | options)

    def destroy(self) -> None:
        """End the actor for good. Raises EngineError."""
        json_of(self._client.call(self._wanted.destroy(self.resolve())))

    def _fetch(self, path: str, method: str, options: dict[str, Any]) -> httpx.Response:
        url = gateway_path(self.resolve(), path)
        answer = self._client.http.request(method, url, **with_token(self._client.token, options))
        raise_for_engine(answer)
        return answer
