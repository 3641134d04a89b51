"""The runner's conversation with the engine, over one connection after another (PROTOCOL §4)."""

import asyncio
import logging
from collections.abc import Sequence

from runners.protocol.codec import encode_to_server
from runners.protocol.messages import (
    ActorStateStopped,
    CommandStartActor,
    CommandWrapper,
    Event,
    EventActorStateUpdate,
    ProtocolMetadata,
    ToClient,
    ToClientAckEvents,
    ToClientCommands,
    ToClientInit,
    ToClientKvResponse,
    ToClientPing,
    ToClientTunnelMessage,
    ToServer,
    ToServerAckCommands,
    ToServerEvents,
    ToServerKvRequest,
    ToServerPong,
    ToServerStopping,
)
from runners.sdk.actor import Registry
from runners.sdk.clock import Clock, SystemClock
from runners.sdk.kv import KvCalls
from runners.sdk.life import Life
from runners.sdk.lives import Lives
from runners.sdk.outbox import Outbox
from runners.sdk.session.budget import stop_budget
from runners.sdk.session.commands import CommandLog, acknowledgements
from runners.sdk.session.history import EventHistory
from runners.sdk.session.reconnect import PROTOCOL_VERSION
from runners.sdk.tunnel import Tunnel

log = logging.getLogger(__name__)


class Conversation:
    """Answers the engine's messages and keeps what must be said again. Touches no socket: frames go to `outbox`.

    It is *online* between the engine's Init and the loss of the connection; `receive` never waits for an actor.
    """

    def __init__(self, registry: Registry, clock: Clock | None = None) -> None:
        self.outbox = Outbox()
        self.welcomed = asyncio.Event()  # online
        self.runner_id: str | None = None
        self._metadata: ProtocolMetadata | None = None
        self._history = EventHistory()
        self._commands = CommandLog()
        self._calls = KvCalls(self._send_if_online)
        clock = clock or SystemClock()
        self._lives = Lives(registry, self._calls, clock, tell=self._tell, ended=self._ended)
        self._tunnel = Tunnel(self.outbox, self._lives.find)
        self._lost: asyncio.TimerHandle | None = None

    @property
    def online(self) -> bool:
        """Whether the engine has welcomed the present connection."""
        return self.welcomed.is_set()

    def receive(self, message: ToClient) -> None:
        """Take one message of the engine."""
        if isinstance(message, ToClientInit):
            self._welcome(message)
        elif not self.online:
            log.warning("a message came before the engine's init", extra={"action": "message_before_init"})
        elif isinstance(message, ToClientTunnelMessage):
            self._tunnel.receive(message)
        elif isinstance(message, ToClientKvResponse):
            self._calls.answered(message)
        elif isinstance(message, ToClientPing):
            self._send(ToServerPong(message.ts_ms), first=True)
        elif isinstance(message, ToClientAckEvents):
            self._history.acknowledge(message.last_event_checkpoints)
        elif isinstance(message, ToClientCommands):
            self._obey(message.commands)

    def disconnected(self) -> None:
        """Note the loss of a connection. Actors live on for the engine's threshold, then they are stopped."""
        self.outbox.disconnected()
        if not self.online:
            return
        self.welcomed.clear()
        self._calls.disconnected()
        if self._metadata is not None and self._metadata.runner_lost_threshold_ms > 0:
            loop = asyncio.get_running_loop()
            self._lost = loop.call_later(self._metadata.runner_lost_threshold_ms / 1000, self._lose)

    def announce_leaving(self) -> None:
        """Ask the engine to take the actors away."""
        self._send(ToServerStopping())

    async def settled(self) -> None:
        """Wait until no actor is left and everything is written."""
        await self._lives.emptied()
        await self.outbox.emptied()

    def let_go(self) -> None:
        """Stop all actors without waiting for the engine's word."""
        self._lives.abandon(muted=False)

    async def end(self) -> None:
        """Stop all actors and wait until they are gone: there will be no further connection."""
        self._keep()
        self._calls.refuse("the runner has stopped")
        self.let_go()
        await self._lives.emptied()

    def _welcome(self, init: ToClientInit) -> None:
        self._keep()
        if self.runner_id not in (None, init.runner_id):
            log.warning(
                "the engine knows this runner anew", extra={"action": "runner_id_changed"} | self._fields()
            )
            self._forget_everything()
        self.runner_id = init.runner_id
        self._metadata = init.metadata
        self.welcomed.set()
        log.info("connected", extra={"action": "runner_connected"} | self._fields())
        # Answers made while offline are in the outbox and go first: were a Stopped ahead of its actor's last
        # answer, the gateway would have the request done a second time.
        self._calls.connected()
        if events := self._history.unacknowledged():
            self._send(ToServerEvents(events))
        # By its first pong the engine knows that the runner has said again all that it has to.
        self.outbox.keep_order()

    def _forget_everything(self) -> None:
        self._lives.abandon(muted=True)
        self._history.clear()
        self._commands.clear()
        self.outbox.clear()
        self._calls.fail("the engine has given this runner up")

    def _keep(self) -> None:
        """Call off the stopping of the actors."""
        if self._lost is not None:
            self._lost.cancel()
            self._lost = None

    def _lose(self) -> None:
        log.warning("without a connection for too long", extra={"action": "runner_lost"} | self._fields())
        self._calls.fail("the runner has lost its connection")
        self.let_go()

    def _obey(self, commands: Sequence[CommandWrapper]) -> None:
        for command in commands:
            if not self._commands.admit(command):
                log.debug("a repeated command", extra={"action": "command_repeated"} | _life_fields(command))
            elif isinstance(command.inner, CommandStartActor):
                self._start(command, command.inner)
            else:
                self._stop(command)
        self._send(ToServerAckCommands(acknowledgements(commands)))

    def _start(self, command: CommandWrapper, start: CommandStartActor) -> None:
        log.info("starting an actor", extra={"action": "actor_starting"} | _life_fields(command))
        self._history.begin(command.checkpoint.actor_id, command.checkpoint.generation)
        assert self.runner_id is not None  # commands come after the init
        self._lives.start(command.checkpoint, start, self.runner_id, self._tunnel.resume)

    def _stop(self, command: CommandWrapper) -> None:
        assert self._metadata is not None  # commands come after the init
        life = self._lives.find(command.checkpoint.actor_id)
        if life is None or life.generation != command.checkpoint.generation:
            log.debug("no such actor to stop", extra={"action": "stop_ignored"} | _life_fields(command))
        else:
            life.order_stop(stop_budget(self._metadata, asked=life.asked_to_stop))

    def _tell(self, life: Life, event: Event) -> None:
        wrapper = self._history.record(life.actor_id, life.generation, event)
        if self.online:
            self._send(ToServerEvents([wrapper]))
        if isinstance(event, EventActorStateUpdate) and isinstance(event.state, ActorStateStopped):
            self._history.end(life.actor_id, life.generation)

    def _ended(self, life: Life) -> None:
        fields = {"action": "actor_gone", "actor_id": life.actor_id, "generation": life.generation}
        log.info("an actor is gone", extra=fields)
        self._commands.end(life.actor_id)

    def _send_if_online(self, request: ToServerKvRequest) -> bool:
        if self.online:
            self._send(request)
        return self.online

    def _send(self, message: ToServer, *, first: bool = False) -> None:
        self.outbox.put(encode_to_server(message, PROTOCOL_VERSION), first=first)

    def _fields(self) -> dict[str, object]:
        return {"runner_id": self.runner_id}


def _life_fields(command: CommandWrapper) -> dict[str, object]:
    return {"actor_id": command.checkpoint.actor_id, "generation": command.checkpoint.generation}
