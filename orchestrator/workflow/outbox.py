"""What a workflow wants done after its commit, done in one Redis pipeline.

An effect can be lost (a worker killed between commit and effects): every waiting state has a deadline that
repeats it, and whoever waits asks again.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

import redis

from orchestrator.redis import get_redis
from orchestrator.workflow import hints, mailbox, timers
from orchestrator.workflow.mailbox import Letter, Place, Signal

logger = logging.getLogger(__name__)


class Outbox:
    """Gathers messages (channel, payload), letters, timers (workflow, key, due), hints; `perform` sends them."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, bytes]] = []
        self.letters: list[Letter] = []
        self.timers: list[tuple[str, str, datetime]] = []
        self.hints: set[str] = set()

    def publish(self, channel: str, payload: bytes) -> None:
        """Publish on the bus, in order."""
        self.messages.append((channel, payload))

    def post(self, workflow: str, key: str, signal: Signal) -> None:
        """Post to a mailbox, in order."""
        self.letters.append(Letter(workflow, key, signal))

    def set_timer(self, workflow: str, key: str, due: datetime) -> None:
        """Have a Tick posted at `due`, promptly; the row's `due_at` makes it certain."""
        self.timers.append((workflow, key, due))

    def hint(self, channel: str) -> None:
        """Tell one background consumer on this channel of the channel layer to look at its rows."""
        self.hints.add(channel)

    def perform(self) -> Place | None:
        """Do it all, and return a mailbox that is left to the caller to drain, if one is (`post_from_task`).

        A store that is away is logged, not raised: what was committed stands.
        """
        return _performer(self)


Performer = Callable[[Outbox], Place | None]


@contextmanager
def performed_by(performer: Performer) -> Iterator[None]:
    """Have whatever this process commits followed up by something else than Redis, for a simulation."""
    global _performer
    before, _performer = _performer, performer
    try:
        yield
    finally:
        _performer = before


def _perform(outbox: Outbox) -> Place | None:
    try:
        pipeline = get_redis().pipeline(transaction=False)
        for channel, payload in outbox.messages:
            pipeline.publish(channel, payload)
        timers.add(pipeline, outbox.timers)
        for channel in outbox.hints:
            hints.add(pipeline, channel)
        if outbox.messages or outbox.timers or outbox.hints:
            pipeline.execute()
        return mailbox.post_from_task(outbox.letters)
    except (redis.RedisError, OSError):
        logger.exception("effects lost", extra={"action": "effects_lost"})
        return None


_performer: Performer = _perform
