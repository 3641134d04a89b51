"""The runner's WebSocket, `/runners/connect` (PROTOCOL §2, §4): a shell around `connection.py`.

The read loop never waits for a decision: tunnel frames are forwarded at once, events go to mailboxes and are
kept until the actor workflow has committed them. Everything that is sent goes through one queue.
"""

import asyncio
import contextlib
import logging
import random
import time
from dataclasses import replace
from datetime import timedelta

from django.conf import settings
from django.utils import timezone

from orchestrator import lifespan, metrics
from orchestrator.bus import get_bus
from orchestrator.consumers import LeanConsumer
from orchestrator.db import run_db
from orchestrator.errors import BusOverloaded, OrchestratorError
from orchestrator.ids import new_id
from orchestrator.namespaces import find_namespace
from orchestrator.workflow.mailbox import postman
from runners import channel, services, sockets
from runners.background import spawn
from runners.command_feed import CommandFeed
from runners.connection import (
    Address,
    Events,
    Evicted,
    GoingAway,
    InitTimeout,
    PingTimeout,
    check_token,
    parse_query,
    read_init,
)
from runners.errors import RunnerProtocolError, TunnelPayloadTooLarge
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
    ToServerResponseAbort,
    ToServerStopping,
    ToServerTunnelMessage,
)
from runners.send_queue import SendQueue
from runners.services import Registration

logger = logging.getLogger(__name__)

PING_JITTER_MS = 127
TUNNEL_TAG = 6
"""First byte of a ToServerTunnelMessage, in every version (PROTOCOL §3.1)."""
LARGE_FRAME_BYTES = 20 * 1024 * 1024
"""A tunnel frame this long is decoded here, as its payload may be over the limit."""
ACK_DELAY_SECONDS = 0.05
"""Acks gather for this long; the npm client looks through its unacknowledged events one by one."""
ROOM_SECONDS = 0.02
"""While the way to other processes is full, it is tried again this often; the runner is not read meanwhile."""

_open: set["RunnerSocket"] = set()


class RunnerSocket(LeanConsumer):
    """One connection of one runner, from the upgrade to the close."""

    async def serve(self) -> None:
        """Speak the protocol until either side ends it."""
        self.socket_id = new_id()
        self.runner_id = ""
        self.closed = asyncio.Event()
        self._queue = SendQueue(self._send_frame)
        self._ended: asyncio.Future[OrchestratorError | None] = asyncio.get_running_loop().create_future()
        await self.receive()  # websocket.connect
        self._offers: list[str] = self.scope.get("subprotocols", [])
        subprotocol = "rivet" if "rivet" in self._offers else None
        await self.send_message({"type": "websocket.accept", "subprotocol": subprotocol})
        _open.add(self)
        try:
            error = await self._speak()
            if error is not None:
                await self._close(error)
        finally:
            # Only now, with the closing handshake done, may the runner's actors be given to others (DESIGN §11).
            try:
                if self.runner_id:
                    await run_db(services.disconnect, runner_id=self.runner_id, socket_id=self.socket_id)
            finally:
                _open.discard(self)
                self.closed.set()

    async def _speak(self) -> OrchestratorError | None:
        """Hold the conversation; return why it is to be closed, None if the runner has closed it."""
        try:
            check_token(self._offers, settings.ENV.admin_token)
            registration = await self._introduce(parse_query(self.scope["query_string"]))
            return None if registration is None else await self._converse(registration)
        except OrchestratorError as error:
            return error
        except Exception:
            logger.exception("runner socket failed", extra={"action": "runner_socket_failed"})
            return OrchestratorError()

    # The beginning

    async def _introduce(self, address: Address) -> Registration | None:
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
        self.protocol_version = address.protocol_version
        return await run_db(
            services.register_runner,
            namespace_name=address.namespace,
            key=address.runner_key,
            init=init,
            protocol_version=address.protocol_version,
            socket_id=self.socket_id,
        )

    async def _converse(self, registration: Registration) -> OrchestratorError | None:
        self.runner_id = registration.runner_id
        self._drain_grace = registration.drain_grace
        self._stopping = False  # it has said that it goes away
        self._events = Events(self.runner_id, silent_since=registration.seen_at if registration.reused else None)
        self._feed = CommandFeed(self._events, self._queue, self.protocol_version, reused=registration.reused)
        self._pong_at = time.monotonic()
        self._rtt_ms = 0
        self._ack_timer: asyncio.TimerHandle | None = None
        self._acknowledged: dict[tuple[str, int | None], int] = {}  # commands: (actor, generation) -> index
        self._say(self._init_message(registration))  # first of all, whatever the bus brings (PROTOCOL §0, 6)
        tasks: list[asyncio.Task[None]] = []
        metrics.RUNNER_SOCKETS.inc()
        metrics.start_flushing()
        try:
            await get_bus().subscribe(channel.runner_channel(self.runner_id), self._on_bus)
            sockets.hold(self.runner_id, self)
            tasks = [asyncio.create_task(job) for job in (self._write(), self._ping(), self._read())]
            self._post({"t": "connected", "socket_id": self.socket_id})
            if registration.reused:
                self._say(ToClientPing(_now_ms()))  # its pong comes after all that the runner repeats
            else:
                self._feed.catch_up()
            return await self._ended
        finally:
            self._take_no_more()
            metrics.RUNNER_SOCKETS.dec()
            if self._ack_timer:
                self._ack_timer.cancel()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _init_message(self, registration: Registration) -> ToClientInit:
        grace = _milliseconds(registration.drain_grace) if registration.serverless else None
        metadata = ProtocolMetadata(settings.ENV.runner_lost_ms, _milliseconds(registration.actor_stop), grace)
        return ToClientInit(self.runner_id, metadata)

    # The end

    def _end(self, error: OrchestratorError | None) -> None:
        """End the conversation; what gateways have for the runner from now on waits for its next socket."""
        if not self._ended.done():
            self._ended.set_result(error)
            self._take_no_more()

    def _take_no_more(self) -> None:
        if self.runner_id:
            get_bus().unsubscribe(channel.runner_channel(self.runner_id), self._on_bus)
            sockets.let_go(self.runner_id, self)

    async def _close(self, error: OrchestratorError) -> None:
        """Close with the error's code and reason, and wait a moment for the closing handshake."""
        reason = error.close_reason(new_id())
        with contextlib.suppress(Exception):  # the socket may be gone already
            await self.send_message({"type": "websocket.close", "code": error.close_code, "reason": reason})
            async with asyncio.timeout(settings.ENV.evict_handshake_ms / 1000):
                while (await self.receive())["type"] != "websocket.disconnect":
                    pass

    def go_away(self) -> None:
        """End the connection because this process ends; the runner connects again elsewhere."""
        self._end(GoingAway())

    # From the runner

    async def _read(self) -> None:
        try:
            while True:
                message = await self.receive()
                if message["type"] == "websocket.disconnect":
                    return self._end(None)
                frame = message.get("bytes")
                if not frame:
                    self._skip("text or empty frame")
                elif frame[0] == TUNNEL_TAG:
                    await self._forward(frame)
                else:
                    self._take(frame)
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
        except RunnerProtocolError as error:
            return self._skip(error.message)
        match message:
            case ToServerPong(ts_ms):
                self._pong_at = time.monotonic()
                self._rtt_ms = min(max(_now_ms() - ts_ms, 0), 2**31 - 1)
                self._feed.ponged()
            case ToServerEvents(events):
                for actor_id, signal in self._events.hear(events, timezone.now()):
                    postman.post("actors", actor_id, signal)
            case ToServerAckCommands(checkpoints):
                anonymous = self.protocol_version == 4  # its acks name no generation (PROTOCOL §1.3)
                for c in checkpoints:
                    self._acknowledged[c.actor_id, None if anonymous else c.generation] = c.index
            case ToServerStopping():
                self._stopping = True
                self._ask_to_drain()
            case ToServerKvRequest(_, request_id, _):
                refusal = KvErrorResponse("key-value storage is not available in this version")
                self._say(ToClientKvResponse(request_id, refusal))
            case ToServerInit():
                self._skip("a second init")
            case ToServerTunnelMessage():
                raise AssertionError("tunnel frames are not decoded here")
        return None

    async def _forward(self, frame: bytes) -> None:
        """Hand a tunnel frame to the gateway it names, here or in another process.

        Raises:
            TunnelPayloadTooLarge: it carries more than the protocol allows.
        """
        if len(frame) >= LARGE_FRAME_BYTES:
            _check_payload(frame, self.protocol_version)
        ids = codec.tunnel_ids(frame)
        if ids is None:
            return self._skip("tunnel frame without ids")
        metrics.FRAMES_FROM_RUNNERS.n += 1
        metrics.BYTES_FROM_RUNNERS.n += len(frame)
        gateway = sockets.local_gateway(ids.gateway_id)
        if gateway is not None:
            return gateway(self.runner_id, frame)
        name, payload = channel.gateway_channel(ids.gateway_id), channel.encode_from_runner(self.runner_id, frame)
        while True:
            try:
                return get_bus().publish(name, payload)
            except BusOverloaded:
                await asyncio.sleep(ROOM_SECONDS)

    def _ask_to_drain(self) -> None:
        self._post({"t": "drain", "grace_ms": _milliseconds(self._drain_grace), "by": "runner"})

    def _skip(self, what: str) -> None:
        """Note a frame that means nothing; the socket stays (DESIGN §11)."""
        logger.warning("frame skipped: %s", what, extra={"action": "frame_skipped", "runner_id": self.runner_id})

    # From other processes

    def _on_bus(self, payload: bytes) -> None:
        match channel.decode(payload):
            case channel.TunnelFrame(frame):
                try:
                    self.write(frame)
                except BusOverloaded:
                    self._refuse(frame)
            case channel.LogEntry() as entry:
                self._feed.hear(entry)
            case channel.Processed(events):
                self._events.processed(events)
                if self._ack_timer is None:
                    loop = asyncio.get_running_loop()
                    self._ack_timer = loop.call_later(ACK_DELAY_SECONDS, self._send_acks)
            case channel.Evict(keep):
                if keep != self.socket_id:
                    self._end(Evicted())

    def _refuse(self, frame: bytes) -> None:
        """Give a request back in the runner's name, as there is no room for it."""
        ids = codec.tunnel_ids_to_client(frame)
        if ids is not None:
            abort = ToServerTunnelMessage(replace(ids, message_index=0), ToServerResponseAbort())
            spawn(self._forward(codec.encode_to_server(abort, self.protocol_version)))

    def _send_acks(self) -> None:
        self._ack_timer = None
        if acks := self._events.take_acks():
            self._say(ToClientAckEvents(acks))

    # To the runner

    def write(self, frame: bytes) -> None:
        """Queue a tunnel frame for the runner.

        Raises:
            BusOverloaded: too much waits already, as the runner does not read.
        """
        self._queue.offer(frame)
        metrics.FRAMES_TO_RUNNERS.n += 1
        metrics.BYTES_TO_RUNNERS.n += len(frame)

    def _say(self, message: ToClient) -> None:
        self._queue.put(codec.encode_to_client(message, self.protocol_version))

    async def _send_frame(self, frame: bytes) -> None:
        await self.send_message({"type": "websocket.send", "bytes": frame})

    async def _write(self) -> None:
        try:
            await self._queue.run()
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
            self._say(ToClientPing(_now_ms()))
            try:
                await self._heartbeat(silent_ms)
            except Exception:  # a database that is away for a moment costs no connection
                logger.exception("heartbeat failed", extra={"action": "heartbeat", "runner_id": self.runner_id})

    async def _heartbeat(self, silent_ms: int) -> None:
        if self._acknowledged:  # there is no hurry: what has taken effect has left the log by itself
            marks = [(*life, index) for life, index in self._acknowledged.items()]
            self._acknowledged.clear()
            await run_db(services.acknowledge_commands, runner_id=self.runner_id, checkpoints=marks)
        standing = await run_db(
            services.heartbeat,
            runner_id=self.runner_id,
            socket_id=self.socket_id,
            silent_ms=silent_ms,
            rtt_ms=self._rtt_ms,
        )
        if standing is None:
            return self._end(Evicted())
        self._feed.look(standing.newest_seq)
        if self._stopping and not standing.drains:
            self._ask_to_drain()
        now = timezone.now()
        waited = timedelta(milliseconds=settings.ENV.runner_ping_interval_ms) / 3
        for actor_id, signal in self._events.repeat(heard_before=now - waited, now=now):
            postman.post("actors", actor_id, signal)
        return None

    def _post(self, signal: dict[str, object]) -> None:
        postman.post("runners", self.runner_id, signal)


async def _close_all() -> None:
    """Send every runner away when the process ends, and wait until the sockets are closed."""
    introduced = [socket for socket in _open if socket.runner_id]
    for socket in introduced:
        socket.go_away()
    await asyncio.gather(*(socket.closed.wait() for socket in introduced))


lifespan.on_shutdown(_close_all)


def _check_payload(frame: bytes, version: int) -> None:
    """Raise TunnelPayloadTooLarge if the frame carries too much; what else is wrong with it the gateway finds."""
    if len(frame) > codec.MAX_FRAME_BYTES:
        raise TunnelPayloadTooLarge(f"tunnel frame of {len(frame)} bytes")
    try:
        codec.decode_to_server(frame, version)
    except TunnelPayloadTooLarge:
        raise
    except RunnerProtocolError:
        return


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _milliseconds(length: timedelta) -> int:
    return int(length.total_seconds() * 1000)
