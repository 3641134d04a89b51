"""The database, asked from an event loop."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from channels.db import database_sync_to_async

P = ParamSpec("P")
T = TypeVar("T")

_THREADS = ThreadPoolExecutor(max_workers=4, thread_name_prefix="database")
"""Threads of their own, each with a connection it keeps: a slow admin page never delays a wake."""


async def run_db(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a function that uses the ORM in a database thread and return what it returns."""
    return await run_db_in(_THREADS, function, *args, **kwargs)


async def run_db_in(threads: ThreadPoolExecutor, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run such a function in threads of the caller's: one that also waits for others would hold up the rest."""
    return await database_sync_to_async(function, thread_sensitive=False, executor=threads)(*args, **kwargs)
