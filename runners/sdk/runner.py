"""A runner: connects to an engine, hosts the actors it is given, and comes back until it is told not to."""

import asyncio
import json
import logging
import os
import random
import signal
import threading
import uuid
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, cast

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.typing import Subprotocol

from runners.errors import RunnerProtocolError
from runners.protocol.codec import MAX_FRAME_BYTES, decode_to_client, encode_to_server
from runners.protocol.messages import ToServerInit
from runners.sdk.actor import ActorLike, Registry
from runners.sdk.conversation import Conversation
from runners.sdk.errors import RunnerStopped
from runners.sdk.session import reconnect
from runners.sdk.session.budget import ABANDONED
from runners.sdk.window import WINDOW_BYTES

DRAIN_S = 120.0  # an engine's own grace is shorter, and ends the connection when it is over
OPEN_S = 10.0
CLOSE_S = 2.0
KEEPALIVE_S = 5.0  # between transport pings; the engine counts as gone after two of them without an answer

ABILITIES = {"request_streaming": True, "multi_headers": True, "response_window": WINDOW_BYTES}
"""What this SDK can do beyond the protocol, as its runner metadata tells the engine under `torpor`.

It takes bodies in chunks, the values of a repeated response header stand on lines of their own, and of a streamed
answer it has at most a window on its way.
"""

log = logging.getLogger(__name__)


class Runner:
    """Hosts actors of one pool. `await run()` is all a process needs; `start` and `shutdown` are its parts.

    Every Runner has its own `key`, which makes it the same runner to the engine at every reconnect. Do not give
    the same key to a process started anew: the engine would believe the actors of the old one to be there.
    """

    def __init__(
        self,
        *,
        actors: Mapping[str, ActorLike] | Registry,
        pool: str,
        endpoint: str | None = None,
        namespace: str = "default",
        total_slots: int = 100,
        version: int = 1,
        key: str | None = None,
        token: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """`total_slots` is how many actors fit; engines give new actors only to the highest `version` of a pool.

        `endpoint` is the engine's, by default that of TORPOR_ENDPOINT, or http://127.0.0.1:6420. `metadata` is
        JSON to be seen in the engine's list of runners.

        Raises ValueError for an endpoint or a token that cannot be, TypeError for something that is no actor.
        """
        registry = Registry(actors)
        self.key = key or uuid.uuid4().hex
        engine = reconnect.engine_endpoint(endpoint, os.environ)
        self._url = reconnect.connect_url(engine, namespace=namespace, key=self.key)
        self._subprotocols = reconnect.subprotocols(token)
        names = {name: json.dumps({}) for name in registry.names}
        self._init = ToServerInit(
            pool, version, total_slots, names, json.dumps({**(metadata or {}), "torpor": ABILITIES})
        )
        self._conversation = Conversation(registry)
        self._ready = asyncio.Event()
        self._finished = asyncio.Event()
        self._main: asyncio.Task[None] | None = None
        self._leaving = False

    @property
    def runner_id(self) -> str | None:
        """The id the engine has given this runner, None until it has."""
        return self._conversation.runner_id

    async def __aenter__(self) -> Self:
        """Start, and wait until the engine has welcomed the runner."""
        await self.start()
        await self.wait_ready()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.shutdown()

    async def run(self) -> None:
        """Host actors until evicted, shut down, or told by SIGTERM or SIGINT to drain (a second one: to hurry)."""
        await self.start()
        with self._draining_on_signals():
            try:
                await self.wait_stopped()
            except asyncio.CancelledError:
                await self.shutdown(drain_s=0)
                raise

    async def start(self) -> None:
        """Begin to connect, in the background of this event loop. Starting twice is starting once.

        Raises RunnerStopped after a shutdown: a runner lives once.
        """
        if self._leaving:
            raise RunnerStopped
        if self._main is None:
            self._main = asyncio.create_task(self._run())

    async def wait_ready(self) -> None:
        """Wait until the engine has welcomed the runner. Raises RunnerStopped if it ends before that."""
        await self._unless_finished(self._ready.wait())
        if not self._ready.is_set():
            raise RunnerStopped

    async def wait_stopped(self) -> None:
        """Wait until the runner has stopped and its actors are gone. Raises what made it fail, if anything did."""
        await self._finished.wait()
        if self._main is not None:
            await asyncio.shield(self._main)

    async def shutdown(self, drain_s: float = DRAIN_S) -> None:
        """Leave: have the engine take the actors away for at most drain_s, then stop the rest, and disconnect.

        Safe to call at any time and again; a later call with less patience hurries an earlier one.
        """
        announced, self._leaving = self._leaving, True
        if self._main is None:
            self._finished.set()
            return
        if self._conversation.online:
            if not announced:
                log.info("leaving", extra={"action": "runner_leaving", "runner_id": self.runner_id})
                self._conversation.announce_leaving()
            await self._unless_finished(self._conversation.settled(), timeout_s=drain_s)
            self._conversation.let_go()
            await self._unless_finished(self._conversation.settled(), timeout_s=ABANDONED.total_s)
        if not self._main.cancelling():
            self._main.cancel()
        await self._finished.wait()

    async def _unless_finished(self, work: Coroutine[Any, Any, object], timeout_s: float | None = None) -> None:
        """Wait for the work, but no longer than the runner runs."""
        tasks = [asyncio.create_task(work), asyncio.create_task(self._finished.wait())]
        try:
            await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

    async def _run(self) -> None:
        try:
            await self._keep_connected()
        except asyncio.CancelledError:
            if not self._leaving:
                raise
        finally:
            self._leaving = True
            try:
                await self._conversation.end()
            finally:
                self._finished.set()
                log.info("stopped", extra={"action": "runner_stopped", "runner_id": self.runner_id})

    async def _keep_connected(self) -> None:
        attempt = 0
        while True:
            welcomed, reason = await self._connect()
            if reconnect.is_eviction(reason):
                log.info("evicted", extra={"action": "runner_evicted", "runner_id": self.runner_id})
                return
            if self._leaving:
                return
            if welcomed:
                attempt = 0
            await asyncio.sleep(reconnect.pause_s(attempt, random.random()))
            attempt += 1

    async def _connect(self) -> tuple[bool, str]:
        """Hold one connection to its end; return whether the engine welcomed it, and the reason of its close."""
        try:
            async with connect(
                self._url,
                subprotocols=[cast(Subprotocol, name) for name in self._subprotocols],
                compression=None,
                max_size=MAX_FRAME_BYTES,
                open_timeout=OPEN_S,
                close_timeout=CLOSE_S,
                ping_interval=KEEPALIVE_S,
                ping_timeout=2 * KEEPALIVE_S,
            ) as socket:
                return await self._converse(socket)
        except (OSError, TimeoutError, WebSocketException) as error:
            log.warning("cannot connect: %s", error, extra={"action": "connect_failed"})
            return False, ""

    async def _converse(self, socket: ClientConnection) -> tuple[bool, str]:
        conversation = self._conversation
        writer = asyncio.create_task(self._write(socket))
        try:
            await socket.send(encode_to_server(self._init, reconnect.PROTOCOL_VERSION))
            while True:
                self._take(await socket.recv())
                if conversation.online:
                    self._ready.set()
        except ConnectionClosed:
            reason = socket.close_reason or ""
            fields = {"action": "connection_lost", "code": socket.close_code, "reason": reason}
            expected = self._leaving or reconnect.is_eviction(reason)
            level = logging.INFO if expected else logging.WARNING
            log.log(level, "the connection is closed: %s %s", socket.close_code, reason, extra=fields)
            return conversation.online, reason
        finally:
            writer.cancel()
            await asyncio.wait([writer])
            if self._leaving:
                await socket.close(1000, "pegboard.runner_shutdown")
            conversation.disconnected()

    async def _write(self, socket: ClientConnection) -> None:
        await self._conversation.welcomed.wait()
        try:
            await self._conversation.outbox.pump(socket.send)
        except ConnectionClosed:
            return  # the reader sees it too

    def _take(self, frame: str | bytes) -> None:
        """Take one frame; what cannot be read is skipped, or the engine would send it again at every connect."""
        if isinstance(frame, str):
            log.error("a text frame came", extra={"action": "frame_skipped"})
            return
        try:
            message = decode_to_client(frame, reconnect.PROTOCOL_VERSION)
        except RunnerProtocolError as error:
            log.error("an undecodable frame came: %s", error, extra={"action": "frame_skipped"})
            return
        self._conversation.receive(message)

    @contextmanager
    def _draining_on_signals(self) -> Iterator[None]:
        """Have SIGTERM and SIGINT shut the runner down; only possible in the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        told: list[asyncio.Task[None]] = []

        def tell() -> None:
            told.append(loop.create_task(self.shutdown(drain_s=0 if told else DRAIN_S)))

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, tell)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
