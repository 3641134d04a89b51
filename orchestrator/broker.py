"""What a Celery worker's broker is given beside what Celery and kombu have.

`Transport` is kombu's own for Redis, but keeps its client: to make one for each task costs more than to ask it.

`Reconnect` keeps a worker consuming after its broker was away.

With one task at a time taken from the broker, a worker that cannot acknowledge it takes no other: Celery logs the
failure and goes on, the broker's client counts the task as under way and polls nothing, and a connection that
nobody polls is never found to be broken. Nothing ends that. So once a second a worker that has no task and may
take none begins anew with its connection, as after any other error of it.
"""

from typing import Any

import redis
from celery import bootsteps
from celery.worker import state
from kombu.transport import redis as transport

LOOK_SECONDS = 1.0


class Channel(transport.Channel):
    """Keeps the client of its connection pool, whose connections it borrows for each command as ever."""

    _kept: Any = None

    def _create_client(self, asynchronous: bool = False) -> Any:
        """Return the client for its commands; the one that waits for messages has a connection to itself."""
        if asynchronous:
            return super()._create_client(asynchronous=True)  # type: ignore[misc]  # not in the stubs
        if self._kept is None or self._kept.connection_pool is not self.pool:
            self._kept = super()._create_client()  # type: ignore[misc]
        return self._kept


class Transport(transport.Transport):
    """Kombu's transport for Redis, with these channels."""

    Channel = Channel


class Reconnect(bootsteps.StartStopStep):
    """Looks after one connection of a worker's consumer to its broker."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._timer: Any = None
        self._blocked = False

    def start(self, consumer: Any) -> None:
        """Begin to look."""
        self._blocked = False
        if consumer.hub is not None:
            self._timer = consumer.hub.call_repeatedly(LOOK_SECONDS, self._look, consumer)

    def stop(self, consumer: Any) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self, consumer: Any) -> None:
        """Break the connection off if it is blocked, now as at the last look.

        Raises:
            redis.ConnectionError: which has the consumer start again.
        """
        before = self._blocked
        idle = not state.active_requests and not state.reserved_requests
        self._blocked = idle and not consumer.task_consumer.channel.qos.can_consume()
        if before and self._blocked:
            raise redis.ConnectionError("a task could not be acknowledged")
