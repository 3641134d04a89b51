"""Sends one runner its command log over one connection: every entry once and in order (PROTOCOL §4.3, §4.4).

An entry comes over the bus as soon as it is committed. Should it not come, or not in order, it is read from the
log; the newest number is compared with every ping.
"""

import asyncio

from orchestrator.db import run_db
from orchestrator.workflow.mailbox import postman
from runners import services
from runners.background import spawn
from runners.channel import LogEntry
from runners.connection import CommandCursor, Events
from runners.hosted import hosted_lives
from runners.models import Command
from runners.protocol import codec
from runners.protocol.messages import CommandStartActor, ToClientCommands
from runners.send_queue import SendQueue

LOG_VERSION = codec.VERSIONS[-1]
"""The log keeps every frame in the newest version; only version 4 has another form of it."""
COMPARISONS = 3
"""So many times a returned runner's actors are compared with what it has: Redis may lose the news."""


class CommandFeed:
    """The command log of one runner, as far as one connection is concerned.

    A runner that was known before (`reused`) is sent nothing until it has said which actors it has.
    """

    def __init__(self, events: Events, queue: SendQueue, protocol_version: int, *, reused: bool) -> None:
        self._events = events
        self._queue = queue
        self._version = protocol_version
        self._cursor = CommandCursor(held=reused)
        self._repeats_awaited = reused
        self._comparisons = COMPARISONS if reused else 0
        self._reading: asyncio.Task[None] | None = None

    def hear(self, entry: LogEntry) -> None:
        """Take an entry off the bus: send it if it is the next one, else look for what is missing."""
        if self._cursor.next_is(entry.seq):
            self._send(entry.frame)
        elif self._cursor.behind:
            self.catch_up()

    def ponged(self) -> None:
        """Take note of a pong: what a reused runner repeats after its init has come before the first one."""
        if self._repeats_awaited:
            self._repeats_awaited = False
            self.catch_up()

    def look(self, newest_seq: int) -> None:
        """Compare with the newest number of the log, and a reconnected runner's actors with the rows."""
        self._cursor.heard_seq = max(newest_seq, self._cursor.heard_seq)
        if self._cursor.held:
            if not self._repeats_awaited:  # reading the log has failed
                self.catch_up()
            return
        if self._cursor.behind:
            self.catch_up()
        if self._comparisons:
            spawn(self._compare())

    def catch_up(self) -> None:
        """Read the log and send what has not been sent. What fails is done again by the next `look`."""
        if self._reading is None or self._reading.done():
            self._reading = spawn(self._read())

    async def _read(self) -> None:
        while True:
            runner_id, sent = self._events.runner_id, self._cursor.sent_seq
            newest, log = await run_db(services.command_log, runner_id=runner_id, after_seq=sent)
            if self._cursor.held:
                self._release(newest, log)
                await self._compare()
            else:
                for command in log:
                    if command.seq > self._cursor.sent_seq:  # else it came over the bus meanwhile
                        self._cursor.skip_to(command.seq)
                        self._send(bytes(command.frame))
                self._cursor.skip_to(newest)
            if not self._cursor.behind:
                return

    def _release(self, newest: int, log: list[Command]) -> None:
        """Send a returned runner every stop, and the starts of lives it has not spoken of."""
        for command in log:
            had = (command.actor_id, command.generation) in self._events.seen
            if command.kind == Command.Kind.STOP or not had:
                self._send(bytes(command.frame))
        self._cursor.held = False
        self._cursor.skip_to(newest)

    async def _compare(self) -> None:
        """Tell the actors that a returned runner has forgotten: it should have them and has not spoken of them.

        First the rows are read, then what was heard is looked at: whatever the rows know was heard before.
        """
        self._comparisons -= 1
        runner_id = self._events.runner_id
        hosted = await run_db(hosted_lives, runner_id)
        for actor_id, generation in sorted(hosted - self._events.seen):
            postman.post("actors", actor_id, {"t": "missing", "runner_id": runner_id, "generation": generation})

    def _send(self, frame: bytes) -> None:
        message = codec.decode_to_client(frame, LOG_VERSION)
        assert isinstance(message, ToClientCommands), "the log holds nothing else"
        for command in message.commands:
            if isinstance(command.inner, CommandStartActor):
                self._events.start(command.checkpoint.actor_id, command.checkpoint.generation)
        self._queue.put(frame if self._version > 4 else codec.encode_to_client(message, self._version))
