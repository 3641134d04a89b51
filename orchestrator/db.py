"""The database, asked from an event loop; and connections that are kept although a server may restart."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from channels.db import database_sync_to_async
from django.db import DatabaseError, connection

from orchestrator import clock

LOOK_SECONDS = 5.0
"""So often the database is asked what time it is."""

P = ParamSpec("P")
T = TypeVar("T")

_THREADS = ThreadPoolExecutor(max_workers=4, thread_name_prefix="database")
"""Threads of their own, each with a connection it keeps: a slow admin page never delays a wake."""


async def run_db(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a function that uses the ORM in a database thread and return what it returns."""
    return await run_db_in(_THREADS, function, *args, **kwargs)


async def run_db_in(threads: ThreadPoolExecutor, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run such a function in threads of the caller's: one that also waits for others would hold up the rest."""
    work = _with_kept_connection(function)
    return await database_sync_to_async(work, thread_sensitive=False, executor=threads)(*args, **kwargs)


def _with_kept_connection(function: Callable[P, T]) -> Callable[P, T]:
    @wraps(function)
    def work(*args: P.args, **kwargs: P.kwargs) -> T:
        with kept_connection():
            return function(*args, **kwargs)

    return work


@contextmanager
def kept_connection() -> Iterator[None]:
    """Do a piece of work with this thread's connection, which is kept from one to the next.

    When a server goes away, every thread is left with a connection that fails at its next use. So the first
    failure in a process is taken for a sign: the other threads begin their next piece of work with a new one.
    """
    if _before.at <= _failures.newest and not connection.in_atomic_block:
        connection.close()
    _before.at = time.monotonic()
    look_at_the_clock()
    try:
        yield
    finally:
        if connection.errors_occurred:
            _failures.newest = time.monotonic()


def look_at_the_clock() -> None:
    """Learn from the database what time it is, unless somebody in this process did so a moment ago.

    To be called before a piece of work: if the database is away, that will tell.
    """
    if connection.vendor != "postgresql" or connection.in_atomic_block or not _look.is_due():
        return
    try:
        connection.ensure_connection()
        with connection.wrap_database_errors:
            asked_at = time.monotonic()
            found: Any = connection.connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8")
            told = found.fetchone()[0]
            clock.take(clock.read(asked_at, told, time.monotonic()))
    except DatabaseError:
        return


class _Look:
    """When this process last asked for the time."""

    at = -LOOK_SECONDS

    def is_due(self) -> bool:
        """Say whether to ask now; whoever is told so does it."""
        if time.monotonic() - self.at < LOOK_SECONDS:
            return False
        self.at = time.monotonic()
        return True


class _Before(threading.local):
    """When this thread last began a piece of work."""

    at = 0.0


class _Failures:
    """When a connection of this process last failed."""

    newest = 0.0


_before, _failures, _look = _Before(), _Failures(), _Look()
