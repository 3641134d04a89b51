"""The gateway's WebSocket consumer: a client's WebSocket to its actor (PROTOCOL §5.4 to §5.6, §8)."""

import asyncio
import logging

from django.conf import settings

from gateway import admission
from gateway.access import admit, attended
from gateway.client import Client, ClientGone
from gateway.errors import SocketGoingAway
from gateway.hub import open_hub
from gateway.outbox import Outbox
from gateway.proxied_socket import ProxiedSocket
from gateway.resolving import resolve
from gateway.routing import Target, selected, socket_target, without_token
from gateway.socket_tunnel import Close, Limits, SocketTunnel, closing
from gateway.tunnel import request_start
from orchestrator import failures, lifespan, logs, metrics, tracing
from orchestrator.consumers import LeanConsumer
from orchestrator.errors import OrchestratorError
from orchestrator.ids import new_id
from runners.protocol.messages import ToClientWebSocketOpen

logger = logging.getLogger(__name__)

ROOM_SECONDS = 0.02
"""While a client is not to be read from, it is looked this often whether that has changed."""
NO_CODE = 1000
"""What an actor hears of a client that has closed without a code, or vanished (PROTOCOL §5.5)."""
_SILENT = {1005, 1006}

_open: set["GatewaySocket"] = set()


class GatewaySocket(LeanConsumer):
    """One client's WebSocket, from its handshake to its close."""

    async def serve(self) -> None:
        """Carry messages both ways until either side, or the gateway, ends it."""
        await self.receive()  # websocket.connect
        self.ray_id = new_id()
        logs.ray_id.set(self.ray_id)
        named = dict(self.scope["headers"])
        self._trace = tracing.begin("gateway", named.get(tracing.HEADER), [("network.protocol.name", "websocket")])
        self._accepted = False
        self._outbox = Outbox()
        self._ending: OrchestratorError | None = None
        self._closed = asyncio.Event()
        self._client = client = Client(self._read)
        self._socket = ProxiedSocket(client, self._outbox, SocketTunnel(self.ray_id, limits()), self._accept)
        client.listen()
        _open.add(self)
        metrics.GATEWAY_SOCKETS.inc()
        try:
            close = await self._carry(client)
            metrics.GATEWAY_SOCKET_ENDS.labels("client" if close is None else close.by).inc()
            if close is not None:
                await self._accept()
                await self.send_message({"type": "websocket.close", "code": close.code, "reason": close.reason})
        finally:
            metrics.GATEWAY_SOCKETS.dec()
            self._trace.end()
            client.leave()
            self._socket.let_go()
            _open.discard(self)
            self._closed.set()

    async def _carry(self, client: Client) -> Close | None:
        """Hold the conversation; return how to close it, None if the client is gone."""
        try:
            admission.check_head(self.scope)
            target = self._target()
            with admission.client(self.scope):
                await client.while_connected(admit(target))
                if isinstance(target.actor, str):
                    actor_id = target.actor
                else:
                    actor_id = await client.while_connected(resolve(target))
                with admission.socket_of(actor_id), attended(target, self._dismiss):
                    opening = self._opening(actor_id, target)
                    await self._socket.open(opening, target.skip_ready_wait, self._trace)
                    self._trace.end()
                    return await self._write_to(client)
        except ClientGone:
            return self._left()
        except OrchestratorError as error:
            return self._failed(error)
        except Exception as error:
            logger.exception("WebSocket failed", extra={"action": "gateway_socket", "ray_id": self.ray_id})
            return self._failed(failures.told(error))

    def _left(self) -> Close | None:
        """Return how to close it although nobody is listened to any more: not at all, if the client has left."""
        return None if self._ending is None else self._failed(self._ending)

    def _failed(self, error: OrchestratorError) -> Close:
        self._trace.fail(f"{error.group}.{error.code}")
        return closing(error, self.ray_id)

    def _target(self) -> Target:
        scope = self.scope
        named = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        raw: bytes = scope.get("raw_path") or scope["path"].encode()
        query = scope["query_string"].decode("latin-1")
        return socket_target(raw.decode("latin-1"), query, named, scope.get("subprotocols", []))

    def _opening(self, actor_id: str, target: Target) -> ToClientWebSocketOpen:
        headers = self._trace.passed_on(without_token(self.scope["headers"]))
        as_request = request_start(actor_id, "GET", target.path, headers, b"", self.ray_id)
        return ToClientWebSocketOpen(actor_id, target.path, as_request.headers)

    async def _accept(self) -> None:
        if not self._accepted:
            self._accepted = True
            subprotocol = selected(self.scope.get("subprotocols", []))
            await self.send_message({"type": "websocket.accept", "subprotocol": subprotocol})

    def end(self) -> None:
        """Close because this process ends."""
        self._dismiss(SocketGoingAway())

    def _dismiss(self, error: OrchestratorError) -> None:
        """Close with an error. Who still waits for the actor waits no longer."""
        self._ending = error
        if self._socket.is_open:
            self._socket.fail(error)
        else:
            self._client.leave()

    async def wait_closed(self) -> None:
        """Return once nothing more is done here."""
        await self._closed.wait()

    # From the client

    async def _read(self) -> None:
        while True:
            message = await self.receive()
            if message["type"] == "websocket.disconnect":
                code, reason = message.get("code", 1005), message.get("reason")
                return self._socket.client_left(*((NO_CODE, None) if code in _SILENT else (code, reason or None)))
            metrics.SOCKET_MESSAGES_FROM_CLIENTS.n += 1
            data = message.get("bytes")
            if data is None:
                self._socket.from_client(message["text"].encode(), False)
            else:
                self._socket.from_client(data, True)
            if self._socket.is_busy:
                await self._room()

    async def _room(self) -> None:
        while self._socket.is_busy:  # noqa: ASYNC110 (what it waits for is spread over sockets and processes)
            await asyncio.sleep(ROOM_SECONDS)

    # To the client

    async def _write_to(self, client: Client) -> Close | None:
        """Write to the client until it is gone, or until it is to be closed and has read enough."""
        gone, writer = client.listen(), asyncio.create_task(self._write())
        cut = self._outbox.cut
        try:
            await asyncio.wait((gone, writer, cut), return_when=asyncio.FIRST_COMPLETED)
            return self._left() if gone.done() else self._outbox.closing
        finally:
            writer.cancel()

    async def _write(self) -> None:
        while (message := await self._outbox.next()) is not None:
            metrics.SOCKET_MESSAGES_TO_CLIENTS.n += 1
            if message.binary:
                await self.send_message({"type": "websocket.send", "bytes": message.data})
            else:
                text = message.data.decode(errors="replace")
                await self.send_message({"type": "websocket.send", "text": text})


def limits() -> Limits:
    """Return the limits of a socket as they are configured."""
    env = settings.ENV
    return Limits(
        unacked_bytes=env.gateway_socket_unacked_bytes, unacked_seconds=env.gateway_socket_unacked_ms / 1000
    )


async def _close_all() -> None:
    """Send every client away when the process ends, and forget their rows."""
    ending = list(_open)
    for socket in ending:
        socket.end()
    await asyncio.gather(*(socket.wait_closed() for socket in ending))
    hub = open_hub()
    if hub is not None:
        await hub.pairs.end()


lifespan.on_shutdown(_close_all, first=True)  # while runners still hear of it
