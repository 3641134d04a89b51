"""The engine's ASGI application: the gateway and the runner socket, and Django for the rest."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from gateway.errors import NoRoute
from gateway.http import GatewayRequest
from gateway.routing import PREFIX, Destination, destination, offered_target, selected
from gateway.websocket import GatewaySocket
from orchestrator.consumers import LeanConsumer, Receive, Send
from orchestrator.errors import OrchestratorError
from orchestrator.ids import new_id
from runners.consumers import RunnerSocket


class GatewayRouter:
    """Sends each connection to its consumer, or to the application it is given.

    `sockets` are applications for WebSockets of their own, by path.
    """

    def __init__(self, api: Any, sockets: Mapping[str, Any] = MappingProxyType({})) -> None:
        self._api = api
        self._sockets = sockets
        self._request = GatewayRequest.as_asgi()
        self._runner = RunnerSocket.as_asgi()
        self._runner_page = RunnerPage.as_asgi()
        self._socket = GatewaySocket.as_asgi()
        self._refusal = SocketRefusal.as_asgi()

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Serve one connection."""
        await self._choose(scope)(scope, receive, send)

    def _choose(self, scope: dict[str, Any]) -> Any:
        if scope["type"] == "http":
            return self._choose_http(scope)
        if scope["type"] != "websocket":
            return self._api
        if (own := self._sockets.get(scope["path"])) is not None:
            return own
        return self._choose_socket(scope)

    def _choose_socket(self, scope: dict[str, Any]) -> Any:
        try:
            place = destination(_raw_path(scope), offered_target(scope.get("subprotocols", [])))
        except OrchestratorError:
            return self._refusal
        return {Destination.ACTOR: self._socket, Destination.RUNNER: self._runner}.get(place, self._refusal)

    def _choose_http(self, scope: dict[str, Any]) -> Any:
        path = _raw_path(scope)
        if path.startswith(PREFIX):
            return self._request  # whatever the headers say: paths win over targets
        target = next((value for name, value in scope["headers"] if name == b"x-rivet-target"), None)
        if target is None and not path.startswith(("/gateway", "/runners/connect")):
            return self._api
        try:
            place = destination(path, None if target is None else target.decode("latin-1"))
        except OrchestratorError:
            return self._request  # which refuses it in the words of the gateway
        return {Destination.ACTOR: self._request, Destination.RUNNER: self._runner_page}.get(place, self._api)


def _raw_path(scope: dict[str, Any]) -> str:
    """Return the path as it came, for a percent sign hides no route; test clients give the decoded one only."""
    raw: bytes | None = scope.get("raw_path")
    return scope["path"] if raw is None else raw.decode("latin-1")


class RunnerPage(LeanConsumer):
    """What a plain request sees at the runner socket's path (PROTOCOL §2.1)."""

    async def serve(self) -> None:
        """Answer 200 with a line of text."""
        body = b"pegboard-runner WebSocket endpoint"
        headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
        await self.send_message({"type": "http.response.start", "status": 200, "headers": headers})
        await self.send_message({"type": "http.response.body", "body": body})


class SocketRefusal(LeanConsumer):
    """A WebSocket no route takes: accepted, as clients hide HTTP errors, and closed with the reason."""

    async def serve(self) -> None:
        """Accept and close."""
        await self.receive()
        subprotocol = selected(self.scope.get("subprotocols", []))
        await self.send_message({"type": "websocket.accept", "subprotocol": subprotocol})
        error = NoRoute()
        reason = error.close_reason(new_id())
        await self.send_message({"type": "websocket.close", "code": error.close_code, "reason": reason})
