"""What a runner and the engine say to each other over one socket, from the init on (PROTOCOL §4).

A shell around `connection.py`. The read loop never waits for a decision: tunnel frames are forwarded at once,
events go to mailboxes and are kept until the actor workflow has committed them. Everything that is sent goes
through one queue.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from django.conf import settings

from orchestrator import clock, metrics
from orchestrator.bus import get_bus
from orchestrator.consumers import Receive, Send
from orchestrator.db import run_db
from orchestrator.errors import BusOverloaded, OrchestratorError
from orchestrator.workflow.mailbox import postman
from runners import channel, forwarding, services, sockets
from runners.background import spawn
from runners.command_feed import CommandFeed
from runners.connection import Events, Evicted, GoingAway, NotReading
from runners.errors import RunnerProtocolError, TunnelPayloadTooLarge
from runners.heartbeat import Allow, Heartbeat, milliseconds, now_ms
from runners.hosted import hosted_lives
from runners.links import Flag
from runners.protocol import codec
from runners.protocol.messages import (
    EventWrapper,
    ProtocolMetadata,
    ToClient,
    ToClientAckEvents,
    ToClientInit,
    ToClientPing,
    ToServerAckCommands,
    ToServerEvents,
    ToServerInit,
    ToServerKvRequest,
    ToServerPong,
    ToServerStopping,
    ToServerTunnelMessage,
)
from runners.send_queue import SendQueue
from runners.services import Registration
from runners.skipped import Skipped
from runners.storage_desk import StorageDesk
from runners.ties import Ties

logger = logging.getLogger(__name__)

FINISH_SECONDS = 1.0
"""When the process ends, storage requests have so long to be answered, and the runner to confirm what it had."""
ACK_DELAY_SECONDS = 0.05
"""Acks gather for this long; the npm client looks through its unacknowledged events one by one."""
LONG_FRAME_BYTES = 64 * 1024
"""From this length on a frame is decoded in a thread: it may hold a hundred thousand events."""
EVENTS_AT_ONCE = 200
"""So many events are passed on before other connections get their turn."""


class Conversation:
    """A registered runner on one socket. It lasts until it is ended from either side."""

    def __init__(
        self,
        registration: Registration,
        socket_id: str,
        protocol_version: int,
        receive: Receive,
        send: Send,
        allow: Allow,
    ) -> None:
        self.runner_id = registration.runner_id
        self.protocol_version = protocol_version
        self._socket_id = socket_id
        self._registration = registration
        self._receive, self._send = receive, send
        self._queue = SendQueue(self._send_frame, overflow=lambda: self.end(NotReading()))
        self._ended: asyncio.Future[OrchestratorError | None] = asyncio.get_running_loop().create_future()
        self._skipped = Skipped(self.runner_id)
        self._in_hand = False  # a frame of it is being dealt with, and it waits for us
        self._events = Events(self.runner_id, silent_since=registration.seen_at if registration.reused else None)
        self._decided = asyncio.Event()  # some of them were, since it was cleared
        self._feed = CommandFeed(self._events, self._queue, protocol_version, reused=registration.reused)
        self.ties = Ties(self.runner_id, protocol_version)
        self._hung_up = self._accounted = False
        self._desk = StorageDesk(socket_id, protocol_version, self._events, self._queue)
        self._held_at = time.monotonic()
        self._return_told = True  # whether gateways need not be told that the runner is back
        self._heartbeat = Heartbeat(registration, socket_id, self._events, self._feed, allow, self.end)
        self._ack_timer: asyncio.TimerHandle | None = None

    async def hold(self) -> OrchestratorError | None:
        """Say the init and go on to the end; return why it is to be closed, None if the runner has closed it."""
        self._say(self._init_message())  # first of all, whatever the bus brings (PROTOCOL §0, 6)
        tasks: list[asyncio.Task[None]] = []
        metrics.RUNNER_SOCKETS.inc()
        metrics.start_flushing()
        try:
            await get_bus().subscribe(channel.runner_channel(self.runner_id), self._on_bus)
            accounts_itself = sockets.local_socket(self.runner_id) is not None  # the former one, when it ends
            sockets.hold(self.runner_id, self)
            self._held_at = time.monotonic()
            for gateway_id in sockets.local_gateways():
                self.ties.tell(gateway_id, Flag.HERE)
            heart = self._heartbeat
            jobs = (
                self._write(),
                heart.ping(self._say_ping, lambda: self._in_hand),
                heart.look_after(),
                self._read(),
            )
            tasks = [asyncio.create_task(job) for job in jobs]
            self._post({"t": "connected", "socket_id": self._socket_id})
            if self._registration.reused:
                self._say_ping()  # its pong comes after all that the runner repeats
                self._return_told = accounts_itself
            else:
                self._feed.catch_up()
            error = await self._ended
            if self._has_ended_by(GoingAway):
                await self._finish(reading=tasks[-1])
            return None if self._hung_up else error
        finally:
            self._take_no_more()
            metrics.RUNNER_SOCKETS.dec()
            self._desk.close()
            self._skipped.report()
            if self._ack_timer:
                self._ack_timer.cancel()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if not self._has_ended_by(GoingAway):
                self.account()

    def _has_ended_by(self, error: type[OrchestratorError]) -> bool:
        ended = self._ended
        return ended.done() and not ended.cancelled() and isinstance(ended.result(), error)

    async def _finish(self, reading: asyncio.Task[None]) -> None:
        """Answer what the runner has asked of the storage: it would wait, as it cannot ask again (PROTOCOL §6).

        And have it confirm what was written to it: for what is confirmed nobody has to fear. Not if it hangs up.
        """

        async def finish() -> None:
            await self._desk.finish()
            await self.ties.confirm(self._say_ping)
            await self._queue.drained()

        finishing = asyncio.create_task(finish())
        try:
            await asyncio.wait((finishing, reading), timeout=FINISH_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            finishing.cancel()
            await asyncio.gather(finishing, return_exceptions=True)

    def account(self) -> None:
        """Account to gateways for what this socket may not have taken along, once. Nothing more comes of it."""
        self.ties.part()
        if not self._accounted:
            self._accounted = True
            self.ties.account(self._queue.unsent(), replaced=self._has_ended_by(Evicted))

    async def _tell_return(self) -> None:
        """Tell gateways that the runner is back, and has said what it had kept for them.

        What they wait for may be lost; and if the process of the former socket is dead, all of it.
        """
        seconds = time.monotonic() - self._held_at
        news = channel.returned_news(self.runner_id, seconds, untold=self._registration.unaccounted)
        for actor_id, _ in await run_db(hosted_lives, self.runner_id):
            with contextlib.suppress(BusOverloaded):
                get_bus().publish(channel.actor_channel(actor_id), news)

    def _init_message(self) -> ToClientInit:
        registration = self._registration
        grace = milliseconds(registration.drain_grace) if registration.serverless else None
        metadata = ProtocolMetadata(settings.ENV.runner_lost_ms, milliseconds(registration.actor_stop), grace)
        return ToClientInit(self.runner_id, metadata)

    def end(self, error: OrchestratorError | None) -> None:
        """End the conversation; what gateways have for the runner from now on waits for its next socket."""
        if not self._ended.done():
            self._ended.set_result(error)
            self._take_no_more()
        else:
            self.ties.part()  # it was to be heard out, and that is over

    def _take_no_more(self) -> None:
        """Hear nothing more of gateways. If we are going away, they still hear of the runner for a moment."""
        name = channel.runner_channel(self.runner_id)
        get_bus().unsubscribe(name, self._on_bus, self._on_late)
        sockets.let_go(self.runner_id, self)
        if not self._has_ended_by(GoingAway):
            self.ties.part()

    # From the runner

    async def _read(self) -> None:
        try:
            while True:
                message = await self._receive()
                if message["type"] == "websocket.disconnect":
                    self._hung_up = True
                    return self.end(None)
                self._in_hand = True
                try:
                    await self._take(message.get("bytes"))
                except TunnelPayloadTooLarge:
                    raise
                except RunnerProtocolError as error:
                    self._skipped.note(error)
                finally:
                    self._in_hand = False
        except OrchestratorError as error:
            self.end(error)
        except asyncio.CancelledError:
            raise
        except Exception:
            logger.exception("read loop failed", extra={"action": "read_failed", "runner_id": self.runner_id})
            self.end(OrchestratorError())

    async def _take(self, frame: bytes | None) -> None:
        """Take a frame; None stands for a text frame.

        Raises:
            TunnelPayloadTooLarge: it costs the connection.
            RunnerProtocolError: it means nothing, and is to be skipped (DESIGN §11).
        """
        if not frame:
            raise RunnerProtocolError("text or empty frame")
        if frame[0] == forwarding.TUNNEL_TAG:
            return await self.ties.forward(frame)
        if frame[:1] == codec.KV_TAG:
            return self._desk.take(frame)
        if len(frame) < LONG_FRAME_BYTES:
            message = codec.decode_to_server(frame, self.protocol_version)
        else:
            message = await asyncio.to_thread(codec.decode_to_server, frame, self.protocol_version)
        match message:
            case ToServerPong(ts_ms):
                self._heartbeat.ponged(ts_ms)
                self.ties.ponged(ts_ms)
                self._pass_on(self._events.returned(clock.now()))
                self._feed.ponged()
                if not self._return_told:
                    self._return_told = True
                    spawn(self._tell_return())
            case ToServerEvents(events):
                await self._hear(events)
            case ToServerAckCommands(checkpoints):
                self._heartbeat.acknowledge(checkpoints, anonymous=self.protocol_version == 4)
            case ToServerStopping():
                self._heartbeat.stops()
            case ToServerInit():
                raise RunnerProtocolError("a second init")
            case ToServerTunnelMessage() | ToServerKvRequest():
                raise AssertionError("these frames are not decoded here")
        return None

    async def _hear(self, events: Sequence[EventWrapper]) -> None:
        """Pass events on, no faster than they are decided: a flood of them fills nobody else's mailbox."""
        for first in range(0, len(events), EVENTS_AT_ONCE):
            while not self._events.room:
                self._decided.clear()
                await self._decided.wait()
            self._pass_on(self._events.hear(events[first : first + EVENTS_AT_ONCE], clock.now()))
            await asyncio.sleep(0)

    def _pass_on(self, letters: Sequence[tuple[str, dict[str, Any]]]) -> None:
        for actor_id, signal in letters:
            if signal["report"]["t"] == "stopped":
                self._desk.after(actor_id, partial(_post_event, actor_id, signal))
            else:
                _post_event(actor_id, signal)

    # From other processes

    def _on_bus(self, payload: bytes) -> None:
        match channel.decode(payload):
            case channel.TunnelFrame(frame):
                self._write_or_give_back(frame)
            case channel.Frames() as message:
                self._take_frames(message)
            case channel.Probe(gateway_id):
                self.ties.tell(gateway_id)
            case channel.LogEntry() as entry:
                self._feed.hear(entry)
            case channel.Processed(events):
                self._events.processed(events)
                self._decided.set()
                if self._ack_timer is None:
                    loop = asyncio.get_running_loop()
                    self._ack_timer = loop.call_later(ACK_DELAY_SECONDS, self._send_acks)
            case channel.Evict(keep):
                if not keep:
                    self.end(Evicted())
                elif keep != self._socket_id:
                    spawn(self._make_way())

    def _on_late(self, payload: bytes) -> None:
        """Take what was on its way when we stopped listening. For a moment the runner can still have it."""
        message = channel.decode(payload)
        if isinstance(message, channel.Frames) and not self.ties.parted:
            self._take_frames(message)
        else:
            self.ties.give_late_back(message)

    def _take_frames(self, message: channel.Frames) -> None:
        for frame, life in self.ties.take(message):
            self._write_or_give_back(frame, life)

    async def _make_way(self) -> None:
        """End if another socket is the runner's now. The one that is to be kept may also have been before this."""
        if not await run_db(services.holds_socket, runner_id=self.runner_id, socket_id=self._socket_id):
            self.end(Evicted())

    def _send_acks(self) -> None:
        self._ack_timer = None
        if acks := self._events.take_acks():
            self._say(ToClientAckEvents(acks))

    # To the runner

    def _write_or_give_back(self, frame: bytes, life: channel.Life = channel.ANY_LIFE) -> None:
        try:
            self.write(frame, life)
        except BusOverloaded:
            spawn(forwarding.give_back(self.runner_id, frame, self.protocol_version))

    @property
    def pending_bytes(self) -> int:
        """What waits to be written to the runner."""
        return self._queue.pending_bytes

    def write(self, frame: bytes, life: channel.Life = channel.ANY_LIFE) -> None:
        """Queue a tunnel frame for the runner, unless it is for a life that another has followed.

        A gateway learns of that a moment later than the runner: what it sends in between would come before what it
        says again to the new life. With a gap before it, npm clients close a WebSocket (PROTOCOL §5.6).

        Raises:
            BusOverloaded: too much waits already, as the runner does not read.
        """
        if self._events.is_followed(life):
            return
        self._queue.offer(frame)
        metrics.FRAMES_TO_RUNNERS.n += 1
        metrics.BYTES_TO_RUNNERS.n += len(frame)
        self.ties.wrote(frame)

    def _say(self, message: ToClient) -> None:
        self._queue.put(codec.encode_to_client(message, self.protocol_version))

    def _say_ping(self) -> None:
        ts_ms = now_ms()
        self._skipped.report()
        self.ties.pinged(ts_ms)
        self._say(ToClientPing(ts_ms))

    async def _send_frame(self, frame: bytes) -> None:
        await self._send({"type": "websocket.send", "bytes": frame})

    async def _write(self) -> None:
        try:
            await self._queue.run()
        except asyncio.CancelledError:
            raise
        except Exception:  # whatever the server raises for a closed socket
            self.end(None)

    def _post(self, signal: dict[str, object]) -> None:
        postman.post("runners", self.runner_id, signal)


def _post_event(actor_id: str, signal: dict[str, Any]) -> None:
    postman.post("actors", actor_id, signal)
