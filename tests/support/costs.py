"""What the stores are asked, counted: commands as Redis itself reports them, statements as Django sends them.

A Redis command counts when a client has sent it, not when a script calls it. A statement counts once, for however
many rows; BEGIN does not. Only the statements of this process are seen, and those of all its threads.
"""

import secrets
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import redis
from django.db import connections
from django.db.backends.signals import connection_created

KEEPS_ALIVE = {"PING"}  # what tells whether a link is alive: it comes with time, not with work
_NO_STATEMENT = ("BEGIN", "SAVEPOINT", "RELEASE", "PRAGMA", "SET ")


@dataclass
class Costs:
    """What was asked so far while counting."""

    commands: Counter[str] = field(default_factory=Counter)  # by name
    statements: Counter[str] = field(default_factory=Counter)  # by their first words


class RedisMonitor:
    """Follows all that a Redis is sent (MONITOR)."""

    def __init__(self, url: str) -> None:
        self._client = redis.Redis.from_url(url)
        self._monitor = self._client.monitor()
        self._monitor.__enter__()

    def close(self) -> None:
        self._monitor.connection.disconnect()
        self._client.close()

    def commands(self) -> Counter[str]:
        """Return the commands since the last call, by name; none is missing or still to come."""
        mark = secrets.token_hex(8)
        self._client.echo(mark)
        seen: Counter[str] = Counter()
        while True:
            line: Any = self._monitor.next_command()
            name, _, rest = line["command"].partition(" ")
            if rest == mark:
                return seen
            if line["client_type"] != "lua" and name.upper() not in KEEPS_ALIVE:
                seen[name.upper()] += 1


class SqlCounter:
    """Counts the statements of every connection of this process that is opened while it counts."""

    def __init__(self) -> None:
        self._statements: Counter[str] = Counter()
        self._lock = threading.Lock()
        connection_created.connect(self._wrap)

    def close(self) -> None:
        connection_created.disconnect(self._wrap)

    def statements(self) -> Counter[str]:
        """Return the statements since the last call."""
        with self._lock:
            seen, self._statements = self._statements, Counter()
        return seen

    def _wrap(self, connection: Any, **_: Any) -> None:
        if self._count not in connection.execute_wrappers:
            connection.execute_wrappers.append(self._count)

    def _count(self, execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        if not sql.startswith(_NO_STATEMENT):
            with self._lock:
                self._statements[" ".join(sql.split()[:4])] += 1
        return execute(sql, params, many, context)


class Counting:
    """Both together."""

    def __init__(self, redis_url: str) -> None:
        self._redis = RedisMonitor(redis_url)
        self._sql = SqlCounter()

    def close(self) -> None:
        self._redis.close()
        self._sql.close()

    def take(self) -> Costs:
        """Return what was asked since the last call."""
        return Costs(self._redis.commands(), self._sql.statements())


@contextmanager
def counting(redis_url: str) -> Iterator[Counting]:
    """Count, in all threads that open their connections from here on."""
    connections.close_all()
    counting = Counting(redis_url)
    try:
        yield counting
    finally:
        counting.close()
