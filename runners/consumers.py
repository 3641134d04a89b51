"""The runner's WebSocket, `/runners/connect` (PROTOCOL §2, §4): a shell around `connection.py`.

The read loop never waits for a decision: tunnel frames are forwarded at once, events go to mailboxes and are
kept until the actor workflow has committed them. Everything that is sent goes through one queue.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections import deque
from datetime import timedelta

from django.conf import settings
from django.utils import timezone

from orchestrator import lifespan
from orchestrator.bus import get_bus
from orchestrator.consumers import LeanConsumer
from orchestrator.db import run_db
from orchestrator.errors import BusOverloaded, OrchestratorError
from orchestrator.ids import new_id
from orchestrator.workflow.mailbox import postman
from runners import channel, services, sockets
from runners.connection import (
    Address,
    CommandCursor,
    Events,
    Evicted,
    GoingAway,
    InitTimeout,
    InvalidInitialPacket,
    PingTimeout,
    parse_query,
)
from runners.errors import RunnerProtocolError, TunnelPayloadTooLarge
from runners.models import Command
from runners.protocol import codec
from runners.protocol.messages import (
    KvErrorResponse,
    ProtocolMetadata,
    ToClient,
    ToClientAckEvents,
    ToClientInit,
    ToClientKvResponse,
    ToClientPing,
    ToServerAckCommands,
    ToServerEvents,
    ToServerInit,
    ToServerKvRequest,
    ToServerPong,
    ToServerStopping,
    ToServerTunnelMessage,
)
from runners.services import Registration

logger = logging.getLogger(__name__)

PING_JITTER_MS = 127
QUEUE_LIMIT_BYTES = 64 * 1024 * 1024
"""What may wait to be sent to one runner; beyond it requests to it are refused."""
TUNNEL_TAG = 6
"""First byte of a ToServerTunnelMessage, in every version (PROTOCOL §3.1)."""
LARGE_FRAME_BYTES = 20 * 1024 * 1024
"""A tunnel frame this long is decoded here, as its payload may be over the limit."""
ACK_DELAY_SECONDS = 0.05
"""Acks gather for this long; the npm client looks through its unacknowledged events one by one."""

_open: set["RunnerSocket"] = set()


class RunnerSocket(LeanConsumer):
    """One connection of one runner, from the upgrade to the close."""

    async def serve(self) -> None:
        """Speak the protocol until either side ends it."""
        self.socket_id = new_id()
        self.protocol_version = 0
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._wake_writer = asyncio.Event()
        self.closed = asyncio.Event()
        self._ended: asyncio.Future[OrchestratorError | None] = asyncio.get_running_loop().create_future()
        await self.receive()  # websocket.connect
        subprotocol = "rivet" if "rivet" in self.scope.get("subprotocols", []) else None
        await self.send_message({"type": "websocket.accept", "subprotocol": subprotocol})
        _open.add(self)
        try:
            address = parse_query(self.scope["query_string"])
            registration = await self._introduce(address)
            await self._converse(registration)
        except OrchestratorError as error:
            await self._close(error)
        except Exception:
            logger.exception("runner socket failed", extra={"action": "runner_socket_failed"})
            await self._close(OrchestratorError())
        finally:
            _open.discard(self)
            self.closed.set()

    # The beginning

    async def _introduce(self, address: Address) -> Registration:
        """Take the first frame and register the runner."""
        try:
            async with asyncio.timeout(settings.ENV.runner_init_timeout_ms / 1000):
                first = await self.receive()
        except TimeoutError:
            raise InitTimeout from None
        frame = first.get("bytes")
        if not frame:
            raise InvalidInitialPacket
        init = codec.decode_to_server(frame, address.protocol_version)
        if not isinstance(init, ToServerInit):
            raise InvalidInitialPacket
        self.protocol_version = address.protocol_version
        return await run_db(
            services.register_runner,
            namespace_name=address.namespace,
            key=address.runner_key,
            init=init,
            protocol_version=address.protocol_version,
            socket_id=self.socket_id,
        )

    async def _converse(self, registration: Registration) -> None:
        self.runner_id = registration.runner_id
        self._drain_grace = registration.drain_grace
        self._events = Events(self.runner_id)
        self._cursor = CommandCursor(held=registration.reused)
        self._repeated = False  # a reused runner has said all it has to repeat
        self._pong_at = time.monotonic()
        self._rtt_ms = 0
        self._ack_timer: asyncio.TimerHandle | None = None
        bus, name = get_bus(), channel.runner_channel(self.runner_id)
        tasks: list[asyncio.Task[None]] = []
        try:
            await bus.subscribe(name, self._on_bus)
            sockets.hold(self.runner_id, self)
            self._send(self._init_message(registration))
            tasks = [asyncio.create_task(job) for job in (self._write(), self._ping(), self._read())]
            self._post({"t": "connected", "socket_id": self.socket_id})
            if registration.reused:
                self._send(ToClientPing(_now_ms()))  # its pong comes after all that the runner repeats
            else:
                await self._send_log()
            error = await self._ended
        finally:
            bus.unsubscribe(name, self._on_bus)
            sockets.let_go(self.runner_id, self)
            if self._ack_timer:
                self._ack_timer.cancel()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await run_db(services.disconnect, runner_id=self.runner_id, socket_id=self.socket_id)
        if error is not None:
            raise error

    def _init_message(self, registration: Registration) -> ToClientInit:
        grace = _milliseconds(registration.drain_grace) if registration.serverless else None
        metadata = ProtocolMetadata(settings.ENV.runner_lost_ms, _milliseconds(registration.actor_stop), grace)
        return ToClientInit(self.runner_id, metadata)

    def _end(self, error: OrchestratorError | None) -> None:
        if not self._ended.done():
            self._ended.set_result(error)

    async def _close(self, error: OrchestratorError) -> None:
        """Close with the error's code and reason, and wait a moment for the closing handshake."""
        reason = error.close_reason(new_id())
        with contextlib.suppress(Exception):  # the socket may be gone already
            await self.send_message({"type": "websocket.close", "code": error.close_code, "reason": reason})
            async with asyncio.timeout(settings.ENV.evict_handshake_ms / 1000):
                while (await self.receive())["type"] != "websocket.disconnect":
                    pass

    # From the runner

    async def _read(self) -> None:
        try:
            while True:
                message = await self.receive()
                if message["type"] == "websocket.disconnect":
                    return self._end(None)
                frame = message.get("bytes")
                if frame and frame[0] == TUNNEL_TAG and len(frame) < LARGE_FRAME_BYTES:
                    self._forward(frame)
                elif frame:
                    self._take(frame)
                else:
                    self._skip("text or empty frame")
        except OrchestratorError as error:
            self._end(error)
        except asyncio.CancelledError:
            raise
        except Exception:
            logger.exception("read loop failed", extra={"action": "read_failed", "runner_id": self.runner_id})
            self._end(OrchestratorError())

    def _take(self, frame: bytes) -> None:
        try:
            message = codec.decode_to_server(frame, self.protocol_version)
        except TunnelPayloadTooLarge:
            raise
        except RunnerProtocolError as error:
            return self._skip(error.message)
        match message:
            case ToServerPong(ts_ms):
                self._pong_at = time.monotonic()
                self._rtt_ms = min(max(_now_ms() - ts_ms, 0), 2**31 - 1)
                if self._cursor.held and not self._repeated:
                    self._repeated = True
                    self._spawn(self._send_log_after_repeat())
            case ToServerEvents(events):
                for actor_id, signal in self._events.hear(events, timezone.now()):
                    postman.post("actors", actor_id, signal)
            case ToServerTunnelMessage():
                self._forward(frame)
            case ToServerAckCommands(checkpoints):
                anonymous = self.protocol_version == 4  # its acks name no generation (PROTOCOL §1.3)
                marks = [(c.actor_id, None if anonymous else c.generation, c.index) for c in checkpoints]
                self._spawn(run_db(services.acknowledge_commands, runner_id=self.runner_id, checkpoints=marks))
            case ToServerStopping():
                self._post({"t": "drain", "grace_ms": _milliseconds(self._drain_grace), "by": "runner"})
            case ToServerKvRequest(_, request_id, _):
                refusal = KvErrorResponse("key-value storage is not available in this version")
                self._send(ToClientKvResponse(request_id, refusal))
            case ToServerInit():
                self._skip("a second init")
        return None

    def _forward(self, frame: bytes) -> None:
        """Hand a tunnel frame to the gateway it names, here or in another process."""
        ids = codec.tunnel_ids(frame)
        if ids is None:
            return self._skip("tunnel frame without ids")
        gateway = sockets.local_gateway(ids.gateway_id)
        if gateway is not None:
            return gateway(self.runner_id, frame)
        try:
            payload = channel.encode_from_runner(self.runner_id, frame)
            get_bus().publish(channel.gateway_channel(ids.gateway_id), payload)
        except BusOverloaded:
            logger.warning("tunnel frame dropped", extra={"action": "bus_overloaded", "runner_id": self.runner_id})
        return None

    def _skip(self, what: str) -> None:
        """Note a frame that means nothing; the socket stays (DESIGN §11)."""
        logger.warning("frame skipped: %s", what, extra={"action": "frame_skipped", "runner_id": self.runner_id})

    # From other processes

    def _on_bus(self, payload: bytes) -> None:
        match channel.decode(payload):
            case channel.TunnelFrame(frame):
                with contextlib.suppress(BusOverloaded):  # the gateway's deadline answers for it
                    self.write(frame)
            case channel.LogEntry(seq, frame):
                if self._cursor.next_is(seq):
                    self._send_command(frame)
                elif not self._cursor.held:
                    self._spawn(self._send_log())
            case channel.Processed(events):
                self._events.processed(events)
                if self._ack_timer is None:
                    loop = asyncio.get_running_loop()
                    self._ack_timer = loop.call_later(ACK_DELAY_SECONDS, self._send_acks)
            case channel.Evict(keep):
                if keep != self.socket_id:
                    self._end(Evicted())

    def _send_acks(self) -> None:
        self._ack_timer = None
        if acks := self._events.take_acks():
            self._send(ToClientAckEvents(acks))

    # The command log

    async def _send_log(self) -> None:
        """Send what the log has and this connection has not had."""
        newest, log = await self._read_log()
        for command in log:
            if command.seq > self._cursor.sent_seq:  # else it came over the bus while the log was read
                self._send_command(bytes(command.frame))
        self._cursor.sent_seq = max(newest, self._cursor.sent_seq)

    async def _send_log_after_repeat(self) -> None:
        """Send a reused runner what it has not had, and find out which of its actors it has forgotten."""
        newest, log = await self._read_log()
        known = set(self._events.seen)
        for command in log:
            place = (command.actor_id, command.generation)
            if command.kind == Command.Kind.STOP or place not in known:
                self._send_command(bytes(command.frame))
            known.add(place)
        self._cursor.sent_seq, self._cursor.held = newest, False
        postman.post("hosting", self.runner_id, {"t": "missing", "known": sorted(known)})

    async def _read_log(self) -> tuple[int, list[Command]]:
        return await run_db(services.command_log, runner_id=self.runner_id, after_seq=self._cursor.sent_seq)

    def _send_command(self, frame: bytes) -> None:
        if self.protocol_version < 5:  # the log keeps the newest form; only version 4 differs
            frame = codec.encode_to_client(codec.decode_to_client(frame, 7), self.protocol_version)
        self.write(frame)

    # To the runner

    def _send(self, message: ToClient) -> None:
        self.write(codec.encode_to_client(message, self.protocol_version))

    def write(self, frame: bytes) -> None:
        """Queue a frame for the runner.

        Raises:
            BusOverloaded: too much waits already, as the runner does not read.
        """
        if self._queued_bytes > QUEUE_LIMIT_BYTES:
            raise BusOverloaded("the runner does not read what it is sent", runner_id=self.runner_id)
        self._queue.append(frame)
        self._queued_bytes += len(frame)
        self._wake_writer.set()

    async def _write(self) -> None:
        try:
            while True:
                while self._queue:
                    frame = self._queue.popleft()
                    self._queued_bytes -= len(frame)
                    await self.send_message({"type": "websocket.send", "bytes": frame})
                self._wake_writer.clear()
                await self._wake_writer.wait()
        except asyncio.CancelledError:
            raise
        except Exception:  # whatever the server raises for a closed socket
            self._end(None)

    # Time

    async def _ping(self) -> None:
        """Ping, and once per ping look for what a lost message may have hidden (DESIGN §2, rule 4)."""
        env = settings.ENV
        while True:
            await asyncio.sleep((env.runner_ping_interval_ms + random.uniform(0, PING_JITTER_MS)) / 1000)
            silent_ms = int((time.monotonic() - self._pong_at) * 1000)
            if silent_ms > env.runner_ping_timeout_ms:
                return self._end(PingTimeout())
            self._send(ToClientPing(_now_ms()))
            try:
                await self._heartbeat(silent_ms)
            except Exception:  # a database that is away for a moment costs no connection
                logger.exception("heartbeat failed", extra={"action": "heartbeat", "runner_id": self.runner_id})

    async def _heartbeat(self, silent_ms: int) -> None:
        newest = await run_db(
            services.heartbeat,
            runner_id=self.runner_id,
            socket_id=self.socket_id,
            silent_ms=silent_ms,
            rtt_ms=self._rtt_ms,
        )
        if newest is None:
            return self._end(Evicted())
        if newest > self._cursor.sent_seq and not self._cursor.held:
            await self._send_log()
        now = timezone.now()
        interval = timedelta(milliseconds=settings.ENV.runner_ping_interval_ms)
        for actor_id, signal in self._events.repeat(heard_before=now - interval, now=now):
            postman.post("actors", actor_id, signal)
        return None

    def _post(self, signal: dict[str, object]) -> None:
        postman.post("runners", self.runner_id, signal)

    def _spawn(self, job: "asyncio._CoroutineLike[None]") -> None:
        task = asyncio.get_running_loop().create_task(job)
        _background.add(task)
        task.add_done_callback(_finished)

    def go_away(self) -> None:
        """End the connection because this process ends; the runner connects again elsewhere."""
        self._end(GoingAway())


_background: set[asyncio.Task[None]] = set()


def _finished(task: asyncio.Task[None]) -> None:
    _background.discard(task)
    if not task.cancelled() and (error := task.exception()):
        logger.error("background work of a runner socket failed", exc_info=error)


async def _close_all() -> None:
    """Send every runner away when the process ends, and wait until the sockets are closed."""
    for socket in list(_open):
        socket.go_away()
    await asyncio.gather(*(socket.closed.wait() for socket in list(_open)))


lifespan.on_shutdown(_close_all)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _milliseconds(length: timedelta) -> int:
    return int(length.total_seconds() * 1000)
