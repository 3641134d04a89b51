"""Connections to the database that are kept, and given up once one of them has failed."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from django.db import DatabaseError, connection, transaction

from orchestrator import clock, db
from orchestrator.db import kept_connection, run_db_in
from tests.support.web import close_connections

pytestmark = pytest.mark.django_db(transaction=True)

THREADS = 2


@pytest.fixture
def threads():
    with ThreadPoolExecutor(THREADS) as executor:
        yield executor
        close_connections(executor)


def used(together=None):
    """Use this thread's connection and return it; with a barrier, once everybody is there."""
    if together is not None:
        together.wait(10)
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return connection.connection


def fail():
    with connection.cursor() as cursor:
        cursor.execute("SELECT no_such_column")


async def each(threads):
    """Return the connection that each of the threads uses."""
    together = Barrier(THREADS)
    return set(await asyncio.gather(*(run_db_in(threads, used, together) for _ in range(THREADS))))


async def test_connections_are_kept(threads):
    assert await each(threads) == await each(threads)


async def test_when_one_connection_has_failed_every_thread_begins_with_a_new_one(threads):
    before = await each(threads)
    with pytest.raises(DatabaseError):
        await run_db_in(threads, fail)
    after = await each(threads)
    assert not before & after
    assert await each(threads) == after


def test_a_transaction_that_is_under_way_is_left_alone(db):
    with transaction.atomic():
        mine = used()
        with ThreadPoolExecutor(1) as other:
            with pytest.raises(DatabaseError):
                other.submit(_failing).result()
            close_connections(other)
        with kept_connection():
            assert used() is mine


def _failing():
    with kept_connection():
        fail()


async def test_a_process_learns_from_a_database_of_its_own_what_time_it_is(threads, monkeypatch):
    monkeypatch.setattr(db, "_look", db._Look())
    monkeypatch.setattr(clock, "_kept", clock._Kept())
    actual = time.time
    monkeypatch.setattr(time, "time", lambda: actual() + 3600)
    await run_db_in(threads, used)
    ahead = clock.seconds() - actual()
    assert abs(ahead - (0 if connection.vendor == "postgresql" else 3600)) < 2  # SQLite has no clock of its own


async def test_the_database_is_not_asked_for_the_time_with_every_piece_of_work(threads, monkeypatch):
    looks = iter(range(10))
    monkeypatch.setattr(db, "_look", db._Look())
    monkeypatch.setattr(clock, "take", lambda reading: next(looks))
    for _ in range(3):
        await run_db_in(threads, used)
    assert next(looks) == (1 if connection.vendor == "postgresql" else 0)
