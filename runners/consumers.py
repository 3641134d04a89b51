"""The runner's WebSocket, `/runners/connect` (PROTOCOL §2): who may speak, who it is, and how it ends.

What is said from the init on is a `Conversation`.
"""

import asyncio
import contextlib
import logging
from functools import partial

from django.conf import settings

from orchestrator import datacenters, doorkeeper, failures, lifespan
from orchestrator.access import Right
from orchestrator.consumers import LeanConsumer
from orchestrator.db import run_db
from orchestrator.errors import OrchestratorError
from orchestrator.ids import new_id
from orchestrator.namespaces import find_namespace
from orchestrator.server.limits import READS_ON
from runners import services
from runners.connection import (
    Address,
    GoingAway,
    InitTimeout,
    TokenMissing,
    check_host,
    offered_token,
    parse_query,
    read_init,
)
from runners.conversation import Conversation
from runners.heartbeat import Allow

logger = logging.getLogger(__name__)

_open: set["RunnerSocket"] = set()


class RunnerSocket(LeanConsumer):
    """One connection of one runner, from the upgrade to the close."""

    async def serve(self) -> None:
        """Speak the protocol until either side ends it."""
        self.socket_id = new_id()
        self.conversation: Conversation | None = None
        self.closed = asyncio.Event()
        await self.receive()  # websocket.connect
        self._offers: list[str] = self.scope.get("subprotocols", [])
        subprotocol = "rivet" if "rivet" in self._offers else None
        await self.send_message({"type": "websocket.accept", "subprotocol": subprotocol})
        _open.add(self)
        try:
            error = await self._speak()
            if error is not None:
                self._tell(error)
                await self._close(error)
        finally:
            try:
                if self.conversation is not None:
                    await self._leave(self.conversation)
            finally:
                _open.discard(self)
                self.closed.set()

    async def _leave(self, conversation: Conversation) -> None:
        """Only now, with the closing handshake done, may the runner's actors be given to others (DESIGN §11)."""
        try:
            conversation.account()
        finally:
            await run_db(services.disconnect, runner_id=conversation.runner_id, socket_id=self.socket_id)

    async def _speak(self) -> OrchestratorError | None:
        """Hold the conversation; return why it is to be closed, None if the runner has closed it."""
        try:
            check_host(self._host(), _valid_hosts(), datacenters.NAME)
            token = offered_token(self._offers)
            if token is None and settings.ENV.auth_required:
                raise TokenMissing(header="sec-websocket-protocol")
            address = parse_query(self.scope["query_string"])
            allow = partial(doorkeeper.authorise, Right.RUNNER, address.namespace, token)
            await allow()
            self.conversation = await self._introduce(address, allow)
            return None if self.conversation is None else await self.conversation.hold()
        except OrchestratorError as error:
            return error
        except Exception as error:
            logger.exception("runner socket failed", extra={"action": "runner_socket_failed"})
            return failures.told(error)

    async def _introduce(self, address: Address, allow: Allow) -> Conversation | None:
        """Take the first frame and register the runner; None if it hangs up instead."""
        await run_db(find_namespace, address.namespace)
        try:
            async with asyncio.timeout(settings.ENV.runner_init_timeout_ms / 1000):
                first = await self.receive()
        except TimeoutError:
            raise InitTimeout from None
        if first["type"] == "websocket.disconnect":
            return None
        init = read_init(first.get("bytes"), address.protocol_version)
        registration = await run_db(
            services.register_runner,
            namespace_name=address.namespace,
            key=address.runner_key,
            init=init,
            protocol_version=address.protocol_version,
            socket_id=self.socket_id,
        )
        return Conversation(
            registration, self.socket_id, address.protocol_version, self.receive, self.send_message, allow
        )

    def _host(self) -> str:
        """Return the host the runner has named; empty if none."""
        return next((value.decode("latin-1") for name, value in self.scope["headers"] if name == b"host"), "")

    def _tell(self, error: OrchestratorError) -> None:
        """Log why the engine closes the socket: the other side's logs may say no more than that it did."""
        facts = {"action": "runner_socket_closed", "code": f"{error.group}.{error.code}"}
        if self.conversation is not None:
            facts["runner_id"] = self.conversation.runner_id
        logger.info("runner socket closed: %s", error.message, extra=facts)

    async def _close(self, error: OrchestratorError) -> None:
        """Close with the error's code and reason, and wait a moment for the closing handshake.

        What the runner says before it hears of the close arrives meanwhile.
        """
        reason = error.close_reason(new_id())
        close = {"type": "websocket.close", "code": error.close_code, "reason": reason, READS_ON: True}
        with contextlib.suppress(Exception):  # the socket may be gone already
            await self.send_message(close)
            async with asyncio.timeout(settings.ENV.evict_handshake_ms / 1000):
                while (message := await self.receive())["type"] != "websocket.disconnect":
                    if self.conversation is not None:
                        await self.conversation.ties.hear_out(message.get("bytes"))


def _valid_hosts() -> set[str]:
    named = (host.strip().lower() for host in settings.ENV.valid_hosts.split(","))
    return {host for host in named if host}


async def _close_all() -> None:
    """Send every runner away when the process ends, and wait until the sockets are closed."""
    introduced = [(socket, socket.conversation) for socket in _open if socket.conversation is not None]
    for _, conversation in introduced:
        conversation.end(GoingAway())
    await asyncio.gather(*(socket.closed.wait() for socket, _ in introduced))


lifespan.on_shutdown(_close_all)
